"""Guards against errors that the rounding of a type of 16 bits hides.

Seen red: of a module in bfloat16 an output that was 10 % too large passed as rounding.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import UsageError
from contract.table import cell

OTHERS: dict[str, tuple[type[nn.Module], int, Callable[[Tensor, Tensor], Tensor]]] = {
    "tanh GELU": (nn.GELU, 1, lambda x, _: functional.gelu(x, approximate="tanh")),
    "quick GELU": (nn.GELU, 1, lambda x, _: x * torch.sigmoid(1.702 * x)),
    "ReLU6": (nn.ReLU, 1, lambda x, _: functional.relu6(x)),
    "leaky ReLU": (nn.ReLU, 1, lambda x, _: functional.leaky_relu(x, 0.01)),
    "a bias": (nn.ReLU, 0, lambda _, y: y + 0.05),
    "1 % more": (nn.ReLU, 2, lambda _, y: y * 1.01),
    "a unit dropped": (nn.ReLU, 1, lambda _, y: torch.cat([y[..., :-1], 0 * y[..., -1:]], -1)),
}

SAME_BEHIND_A_NORM = ("ReLU6", "a unit dropped")
CASES = [(name, False) for name in OTHERS]
CASES += [(name, True) for name in OTHERS if name not in SAME_BEHIND_A_NORM]


def perceptron(kind: type[nn.Module], dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    found = nn.Sequential(nn.Linear(8, 32), kind(), nn.Linear(32, 4))
    for part in (found[0], found[2]):
        nn.init.normal_(part.bias)
    return found.to(dtype)


def within(module: nn.Sequential, inside: bool) -> nn.Module:
    """The module alone, or where it is one part of something else that reads texts."""
    if not inside:
        return module
    texts = nn.Sequential(nn.LayerNorm(8), module, nn.LayerNorm(4))
    return texts.to(module[0].weight.dtype)


@cell("load module", "other dtype", "own object", "other function")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "inside"), CASES)
def test_what_16_bits_would_hide_is_noticed(name: str, dtype: torch.dtype, inside: bool) -> None:
    kind, at, change = OTHERS[name]
    plain, changed = perceptron(kind, dtype), perceptron(kind, dtype)
    changed[at].register_forward_hook(lambda _, given, made: change(given[0], made))
    assert bl.from_module(within(plain, inside)).layers
    with pytest.raises(UsageError, match="differs by"):
        bl.from_module(within(changed, inside))


class Finer(nn.Module):
    """A perceptron whose answers come in float32, as logits often do."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inside = perceptron(nn.ReLU, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Run, and cast."""
        answer: Tensor = self.inside(x)
        return answer.float()


@cell("load module", "other dtype", "same function")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_answers_of_a_finer_type_are_rounded_as_the_weights_are(dtype: torch.dtype) -> None:
    """They were compared as if float32 had made them, and the network was refused."""
    assert len(bl.from_module(Finer(dtype)).network) == 1


class FixedType(nn.Module):
    """A network whose type nobody can change."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.part(x)
        return y

    def float(self) -> "FixedType":
        raise RuntimeError("its type stays")


@cell("load module", "other dtype", "own object")
@pytest.mark.parametrize("inside", [False, True])
def test_16_bits_that_nothing_finer_stands_beside_are_not_verified(inside: bool) -> None:
    plain = perceptron(nn.ReLU, torch.bfloat16)
    report = bl.from_module(FixedType(within(plain, inside))).load_report
    assert not report.verified
    assert "a copy in float32 that would show them" in " ".join(report.lines())
