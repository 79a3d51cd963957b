"""Guards against an activation that is told by sample points and is another one between them.

Seen red: sums of shifted ReLUs, clamps far out and rounding were read as ReLU, and called verified.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import UsageError
from contract.table import cell

Function = Callable[[Tensor], Tensor]


class Applying(nn.Module):
    """A function as a module of somebody's own."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Inline(nn.Module):
    """Two linear maps, and a function that the module calls between them."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.fc1, self.fc2, self.function = nn.Linear(4, 6), nn.Linear(6, 3), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.function(self.fc1(x)))
        return y


def behind_a_module(function: Function) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), Applying(function), nn.Linear(6, 3))


OTHERS: dict[str, Function] = {
    "hump": lambda t: (
        torch.relu(t) + torch.relu(t - 100) - torch.relu(t - 110)
        - torch.relu(t - 900) + torch.relu(t - 910)
    ),
    "far limit": lambda t: t.clamp(0, 2e6),
    "narrow spike": lambda t: torch.relu(t) + torch.relu(0.02 - (t - 0.55).abs()),
    "rounded": lambda t: torch.relu(torch.round(t * 1e6) / 1e6),
    "whole numbers": lambda t: torch.relu(t) + (t.div(3e6, rounding_mode="trunc")),
    "branch": lambda t: torch.where(t > 2e6, t * 2, torch.relu(t)),
    "waves": lambda t: torch.relu(t) + torch.sin(10 * torch.pi * t).square() * 1e-3,
}  # fmt: skip


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("build", [Inline, behind_a_module])
@pytest.mark.parametrize("name", OTHERS)
def test_what_may_be_another_function_between_the_points_is_not_named(
    name: str, build: Callable[[Function], nn.Module]
) -> None:
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=r"no MLP is found.*Not read: .* behind"):
        bl.from_module(build(OTHERS[name]))


KNOWN: dict[str, tuple[Function, str]] = {
    "relu": (torch.relu, "relu, made"),
    "clamp": (lambda t: t.clamp(min=0), "relu, made"),
    "leaky": (
        lambda t: torch.maximum(t, 0.1 * t),
        "leaky_relu with slope 0.1 (told by its values)",
    ),
    "halves": (lambda t: (t + t.abs()) / 2, "relu (told by its values)"),
    "swish": (lambda t: t * torch.sigmoid(t), "silu (told by its values)"),
    "erf": (lambda t: t * 0.5 * (1 + torch.erf(t / 2**0.5)), "gelu (told by its values)"),
    "twice": (lambda t: functional.relu(2 * t) / 2, "relu (told by its values)"),
}


@cell("load module", "same function")
@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_between_the_points_is_named_and_how_is_said(name: str) -> None:
    function, said = KNOWN[name]
    torch.manual_seed(0)
    report = bl.from_module(Inline(function)).load_report
    assert report is not None
    assert said in " ".join(report.lines())
    report = bl.from_module(behind_a_module(function)).load_report
    assert report is not None
    assert report.verified
