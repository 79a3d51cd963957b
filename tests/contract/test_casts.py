"""Guards against a cast that rounds and is read as if it changed nothing.

Damage that they notice: half, bfloat16 and `to` among what is passed through, whatever they make.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import UsageError
from contract.table import cell

Cast = Callable[[Tensor], Tensor]


def as_it_is(x: Tensor) -> Tensor:
    return x


class Casting(nn.Module):
    """A perceptron that casts its hidden values, or its answers."""

    def __init__(self, hidden: Cast = as_it_is, last: Cast = as_it_is) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.hidden, self.last = hidden, last

    def forward(self, x: Tensor) -> Tensor:
        """Run with both casts."""
        answer: Tensor = self.second(self.hidden(torch.relu(self.first(x))))
        return self.last(answer)


ROUNDING: dict[str, Cast] = {
    "half": lambda x: x.half(),
    "half and back": lambda x: x.half().float(),
    "to bfloat16": lambda x: x.to(torch.bfloat16),
    "to bfloat16 and half": lambda x: x.to(dtype=torch.bfloat16).half(),
    "to whole numbers": lambda x: x.to(torch.int32),
    "to whole numbers and back": lambda x: x.to(torch.int32).float(),
}


@cell("load module", "other dtype", "own object")
@pytest.mark.parametrize("cast", ROUNDING.values(), ids=ROUNDING)
def test_a_network_is_not_read_past_a_cast_that_rounds(cast: Cast) -> None:
    """The comparison allows what the type of the answers rounds: it let the cast pass as exact."""
    for module in (Casting(last=cast), Casting(hidden=lambda x: cast(x).float())):
        read = bl.from_module(module)
        assert not read.network
        with pytest.raises(UsageError, match="not its layers one behind the other"):
            bl.quadratic_fit(read)


@cell("load module", "other dtype")
def test_a_cast_to_the_type_of_the_weights_or_a_finer_one_is_no_rounding_of_its_own() -> None:
    for dtype, cast in (
        (torch.float16, lambda x: x.half()),
        (torch.bfloat16, lambda x: x.to(torch.bfloat16)),
        (torch.float32, lambda x: x.double().float()),
        (torch.float16, lambda x: x.float().to(torch.half)),
    ):
        read = bl.from_module(Casting(last=cast).to(dtype))
        assert len(read.network) == 1
