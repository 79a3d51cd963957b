"""A convolution is a linear map of a patch: layers read from it are what the module computes."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import UsageError
from bilens.nn.mlp_search.find_mlps import find_mlps
from bilens.nn.mlp_search.patches import Patch, places
from builders import randn

C = 4


def trained(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    norm(torch.randn(8, norm.num_features, 5, 5) * 2 + 1)
    return norm


class Product(nn.Module):
    """A bilinear convolution: the product of two of the same image."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(C, 6, 3, 1, 1), nn.Conv2d(C, 6, 3, stride, 1))
        self.down = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.left(x) * self.right(x))
        return y


class Halves(nn.Module):
    """A gated linear unit over the channels, written with functions."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.both, self.axis = nn.Conv2d(C, 12, 3), axis

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=self.axis)
        return value * functional.silu(gate)


def block(**options: object) -> nn.Module:
    first = nn.Conv2d(C, 6, **options)  # type: ignore[arg-type]
    return nn.Sequential(first, trained(nn.BatchNorm2d(6)), nn.ReLU(), nn.Conv2d(6, 5, 1))


READ: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "3×3": (lambda: block(kernel_size=3), ["relu"]),
    "padded": (lambda: block(kernel_size=3, padding=1), ["relu"]),
    "same": (lambda: block(kernel_size=3, padding="same", dilation=2), ["relu"]),
    "strides": (lambda: block(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)), ["relu"]),
    "groups": (lambda: block(kernel_size=3, groups=2), ["relu"]),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(C, C, 5, padding=2, groups=C), nn.GELU(), nn.Conv2d(C, 3, 1)
        ),
        ["gelu"],
    ),
    "1×1 twice": (
        lambda: nn.Sequential(nn.Conv2d(C, 6, 1), nn.Tanh(), nn.Conv2d(6, 5, 1), nn.Tanh()),
        ["tanh", "tanh"],
    ),
    "neurons": (lambda: nn.Sequential(nn.Conv2d(C, 6, 3), nn.ReLU(), nn.MaxPool2d(2)), ["relu"]),
    "two": (
        lambda: nn.Sequential(nn.Conv2d(C, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.SiLU()),
        ["relu", "silu"],
    ),
    "one axis": (
        lambda: nn.Sequential(nn.Conv1d(C, 6, 3, 2), nn.ReLU(), nn.Conv1d(6, 2, 1)),
        ["relu"],
    ),
    "three axes": (
        lambda: nn.Sequential(nn.Conv3d(C, 6, 2), nn.ReLU(), nn.Conv3d(6, 2, 1)),
        ["relu"],
    ),
    "product": (Product, ["identity"]),
    "halves": (lambda: Halves(1), ["silu"]),
    "halves from the end": (lambda: Halves(-3), ["silu"]),
    "GLU": (lambda: nn.Sequential(nn.Conv2d(C, 6, 1), nn.GLU(dim=1)), ["sigmoid"]),
}


@pytest.mark.parametrize("name", READ)
def test_a_layer_of_patches_is_what_the_module_computes(name: str) -> None:
    torch.manual_seed(0)
    build, activations = READ[name]
    module = build().eval().double()
    model = bl.from_module(module)
    assert [view.activation.name for view in model.layers.values()] == activations
    assert not model.network  # places are many: the layers are not the model
    report = model.load_report
    assert report is not None
    assert max(check.relative_error for check in report.checks.values()) < 1e-12
    view = next(iter(model.layers.values()))
    assert "at each place" in view.about_input


def test_a_layer_reads_patches_in_the_order_of_their_channels() -> None:
    """Against the definition, place by place."""
    torch.manual_seed(0)
    module = block(kernel_size=3).eval().double()
    (view,) = bl.from_module(module).layers.values()
    x, layer = randn(1, C, 6, 7), view.weights()
    with torch.no_grad():
        expected = module(x)[0]
    for row, column in itertools.product(range(4), range(5)):
        patch = x[0, :, row : row + 3, column : column + 3].reshape(-1)
        torch.testing.assert_close(layer(patch), expected[:, row, column])
    assert view.about_input == f"a patch of 3×3×{C} at each place, channel by channel"


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_patches_are_what_a_convolution_reads(axes: int) -> None:
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    sizes = ((3, 2, 2), (2, 1, 2), (1, 2, 0), (2, 1, 1))
    patch = Patch(2, *(part[:axes] for part in sizes))
    images, kernel = patch.images(), randn(5, 2, *sizes[0][:axes])
    expected = convolve(images, kernel, None, *patch_options(patch))
    torch.testing.assert_close(patch.vectors(images) @ kernel.flatten(1).T, places(expected))


def patch_options(patch: Patch) -> tuple[tuple[int, ...], ...]:
    return patch.stride, patch.padding, patch.dilation


NOT_READ: dict[str, Callable[[], nn.Module]] = {
    "beyond the border": lambda: nn.Sequential(
        nn.Conv2d(C, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Conv2d(6, 2, 3)
    ),
    "other branch": lambda: Product(stride=2),
    "halves of rows": lambda: Halves(2),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_a_map_of_one_patch_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="Not read: "):
        find_mlps(NOT_READ[name]())


class Classifier(nn.Module):
    """A network as one finds it: convolutions, pooling, a residual path, two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = (
            nn.Conv2d(3, 6, 3),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
        )
        self.norm, self.fc1, self.fc2 = (
            trained(nn.BatchNorm2d(6)),
            nn.Linear(24, 7),
            nn.Linear(7, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.stem(x)), 2)
        x = functional.relu(x + self.norm(self.outer(functional.relu(self.inner(x)))))
        x = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        y: Tensor = self.fc2(functional.relu(self.fc1(x)))
        return y


def test_the_rest_of_a_network_is_listed() -> None:
    model = bl.from_module(Classifier().eval())
    read = {name for view in model.layers.values() for name in view.tensors}
    parts = ("stem", "inner", "fc1", "fc2")
    assert read == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert model.load_report is not None
    assert {*model.load_report.left_out} >= {"outer (Conv2d)", "norm (BatchNorm2d)"}
