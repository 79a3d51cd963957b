"""Guards against a layer found by an example and named by another part with equal values.

Seen red: of two maps with equal weights the later one was taken for the one that is read.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from contract.table import cell


class Untraced(nn.Module):
    """Four maps of one input, the last a copy of the first, and what reads them, in a branch."""

    def __init__(self, reads: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.ModuleList(nn.Linear(5, 6) for _ in range(4))
        self.first[3].load_state_dict(copy.deepcopy(self.first[0].state_dict()))
        self.second = nn.ModuleList(nn.Linear(6, 3) for _ in reads)
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        """Sum what reads the maps; the first reader runs before the last map does."""
        if float(x.abs().max()) > 1e30:
            return x[:, :3]
        hidden = [torch.relu(one(x)) for one in self.first[:3]]
        total: Tensor = self.second[0](hidden[self.reads[0]])
        hidden.append(torch.relu(self.first[3](x)))
        for read, one in zip(self.reads[1:], self.second[1:], strict=True):
            total = total + one(hidden[read])
        return total


@cell("load module", "own object", "same function")
@pytest.mark.parametrize("reads", [(1, 0), (1, 3), (0, 1, 2, 3, 0), (0, 1, 2, 0, 3), (2, 0, 3)])
def test_a_layer_is_named_by_the_part_that_is_read(reads: tuple[int, ...]) -> None:
    """What it is called is what it is after the next step of training, too."""
    module = Untraced(reads)
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    read = bl.from_module(module, x)
    assert read.load_report is not None
    lines = [line for line in read.load_report.lines() if line.startswith("Read: ")]
    made_of = {line.rpartition("made of ")[2] for line in lines}
    assert made_of == {f"first.{one}, second.{n}." for n, one in enumerate(reads)}
