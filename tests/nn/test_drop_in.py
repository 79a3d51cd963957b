"""The block in the place of an MLP in models of others: shapes agree, gradients arrive."""

import pytest
import torch
from torch import Tensor, nn

from bilens.nn import BilinearMLP

vision_transformer = pytest.importorskip("torchvision.models.vision_transformer")
MLP = pytest.importorskip("torchvision.ops").MLP
GATES = [None, "relu", "gelu", "silu"]


def assert_trains(model: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    """One forward and one backward pass; every parameter of ours gets a finite gradient."""
    y = model(x)
    assert y.shape == shape
    y.square().sum().backward()
    blocks = [block for block in model.modules() if isinstance(block, BilinearMLP)]
    assert blocks
    for block in blocks:
        for parameter in block.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())
            assert float(parameter.grad.abs().max()) > 0


class BilinearEncoderLayer(nn.TransformerEncoderLayer):
    """torch's own block, with the path linear1, activation, linear2 replaced."""

    def __init__(self, d_model: int, nhead: int, gate: str | None) -> None:
        super().__init__(d_model, nhead, dropout=0.0, batch_first=True)
        del self.linear1, self.linear2
        self.mlp = BilinearMLP(d_model, 2 * d_model, bias=True, gate=gate)

    def forward(self, src: Tensor, **_: object) -> Tensor:
        x = self.norm1(src + self._sa_block(src, None, None))
        return self.norm2(x + self.mlp(x))


@pytest.mark.parametrize("gate", GATES)
def test_it_replaces_the_mlp_of_a_torch_encoder_layer(gate: str | None) -> None:
    layer = BilinearEncoderLayer(d_model=8, nhead=2, gate=gate)
    assert_trains(layer, torch.randn(2, 5, 8), (2, 5, 8))


@pytest.mark.parametrize("gate", GATES)
def test_it_replaces_the_mlp_of_a_vision_transformer(gate: str | None) -> None:
    model = vision_transformer.VisionTransformer(
        image_size=8,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        num_classes=3,
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision starts with a head of zeros
    for block in model.encoder.layers:
        block.mlp = BilinearMLP(8, 16, bias=True, gate=gate)
    assert_trains(model, torch.randn(3, 3, 8, 8), (3, 3))


@pytest.mark.parametrize("bias", [False, True])
def test_it_replaces_an_mlp_of_torchvision(bias: bool) -> None:
    theirs = MLP(6, [10, 4], bias=bias)
    ours = BilinearMLP(6, 10, 4, bias=bias)
    x = torch.randn(2, 6)
    assert ours(x).shape == theirs(x).shape
    assert_trains(nn.Sequential(nn.Linear(6, 6), ours), x, (2, 4))


def test_a_block_inside_another_model_is_still_read_exactly() -> None:
    layer = BilinearEncoderLayer(d_model=8, nhead=2, gate=None).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(layer.mlp.quadratic_map()(x), layer.mlp(x))
