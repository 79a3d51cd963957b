"""Guards against a map of weights of a module of ours that no longer computes what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import bilens as bl
from bilens.base.errors import BilensError
from contract.table import cell


class Adapted(nn.Linear):
    """A linear map with a branch of low rank beside it."""

    def __init__(self, d_in: int, d_out: int, bias: bool) -> None:
        super().__init__(d_in, d_out, bias=bias)
        self.a, self.b = nn.Linear(d_in, 2, bias=False), nn.Linear(2, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x) + self.b(self.a(x))
        return y


def other_bias(part: nn.Linear) -> nn.Module:
    return nn.Linear(part.in_features, part.out_features, bias=part.bias is None)


def adapted(part: nn.Linear) -> nn.Module:
    return Adapted(part.in_features, part.out_features, part.bias is not None)


def hooked(part: nn.Linear) -> nn.Module:
    part.register_forward_hook(lambda _, __, made: 2 * made + 1)
    return part


def with_own_forward(part: nn.Linear) -> nn.Module:
    part.forward = lambda x: 3 * nn.functional.linear(x, part.weight)
    return part


MODULES: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "classifier": (
        lambda: bl.nn.BilinearClassifier(5, 6, 3),
        ("embed", "head", "layers.0.left", "layers.0.right"),
    ),
    "biases": (
        lambda: bl.nn.BilinearClassifier(5, 6, 3, bias=True),
        ("embed", "head", "layers.0.left", "layers.0.right"),
    ),
    "layer": (lambda: bl.nn.BilinearLayer(5, 6), ("left", "right")),
    "MLP": (
        lambda: bl.nn.BilinearMLP(5, 6, bias=True, skip=True),
        ("left", "right", "down", "skip"),
    ),
}
CHANGES = [other_bias, adapted, hooked, with_own_forward]


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(30, 5, generator=torch.Generator().manual_seed(2), dtype=dtype)


@cell("attribute", "own object", "other function")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "part"), [(k, p) for k, (_, ps) in MODULES.items() for p in ps])
def test_no_map_is_given_of_a_replaced_part(
    kind: str, part: str, change: Callable[[nn.Linear], nn.Module]
) -> None:
    torch.manual_seed(0)
    module = MODULES[kind][0]()
    torch.testing.assert_close(module.quadratic_map()(rows()), module(rows()), rtol=1e-4, atol=1e-4)
    module.set_submodule(part, change(module.get_submodule(part)))
    with pytest.raises(BilensError, match=r"expected a plain torch.nn.Linear|another function"):
        module.quadratic_map()
    if isinstance(module, bl.nn.BilinearClassifier):
        with pytest.raises(BilensError, match=r"expected a plain torch.nn.Linear|another function"):
            module.layer_map(0)


@cell("attribute", "own object", "other function")
def test_no_map_is_given_of_a_layer_of_another_kind() -> None:
    module = bl.nn.BilinearClassifier(5, 6, 3)
    module.layers[0] = bl.nn.BilinearMLP(6, 6)
    with pytest.raises(BilensError, match="another function"):
        module.quadratic_map()
    module = bl.nn.BilinearTransformer(11, 8, 12, n_layer=2, n_head=2, n_ctx=8)
    module.mlps[1].down = other_bias(module.mlps[1].down)
    with pytest.raises(BilensError, match="expected a plain"):
        module.layer_map(1)


class Flattened(bl.nn.BilinearClassifier):
    """A subclass that computes the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


class Bounded(bl.nn.BilinearClassifier):
    """A subclass that bounds what is far out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-1e4, 1e4))


@cell("attribute", "own object", "other function")
def test_no_map_is_given_of_what_is_bounded_far_out() -> None:
    torch.manual_seed(0)
    inner = bl.nn.BilinearMLP(5, 6)
    inner.register_forward_hook(lambda _, __, made: made.clamp(-1e7, 1e7))
    for module in (Bounded(5, 6, 3), inner):
        with pytest.raises(BilensError, match=r"another function|more than its layers say"):
            module.quadratic_map()


@cell("attribute", "own object", "other function")
def test_no_map_is_given_while_hooks_of_all_modules_act() -> None:
    module = bl.nn.BilinearMLP(5, 6)
    everywhere = nn.modules.module
    handle = everywhere.register_module_forward_hook(
        lambda part, _, made: 2 * made if part is module else None
    )
    try:
        with pytest.raises(
            BilensError, match=r"another function.*each module of torch has forward hooks"
        ):
            module.quadratic_map()
    finally:
        handle.remove()
    module.quadratic_map()


@cell("load file", "own object", "saved")
def test_what_acts_far_out_is_not_saved(tmp_path: Path) -> None:
    module = bl.nn.BilinearClassifier(5, 6, 3)
    module.register_forward_pre_hook(lambda _, given: (given[0].clamp(-1e4, 1e4),))
    with pytest.raises(BilensError, match="more than its layers say"):
        bl.save(module, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@cell("attribute", "own object", "same function")
def test_what_computes_the_same_has_its_map() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []
    watched, flattened = bl.nn.BilinearClassifier(5, 6, 3, n_layers=2), Flattened(5, 6, 3)
    with pytest.raises(BilensError, match="forward of its own"):
        flattened.quadratic_map()  # by its class, which nobody has read
    assert bl.from_module(flattened).network
    watched.layers[0].register_forward_hook(lambda _, __, made: seen.append(made))
    normed = bl.nn.BilinearMLP(5, 6)
    parametrizations.weight_norm(normed.down)
    x = rows()
    torch.testing.assert_close(normed.quadratic_map()(x), normed(x), rtol=1e-4, atol=1e-4)
    two = watched.layer_map(1)(watched.layer_map(0)(x))
    torch.testing.assert_close(two, watched(x), rtol=1e-4, atol=1e-4)
