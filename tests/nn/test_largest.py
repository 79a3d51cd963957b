"""`largest`: the values of `torch.topk`, by a detour through groups, and one rule for equals.

Broken once: the groups taken as runs of neighbours while their members were looked up by stride.
"""

from __future__ import annotations

import pytest
import torch

from bilens.nn.largest import largest

SIZES = [(5, 2), (64, 3), (100, 7), (512, 16), (1024, 31), (1000, 30), (4096, 30), (3, 2)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_it_finds_the_values_of_a_full_sort(n: int, k: int) -> None:
    rows = torch.randn(40, n, generator=torch.Generator().manual_seed(n))
    values, indices = largest(rows, k)
    assert torch.equal(values, rows.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(rows.gather(1, indices), values)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_of_equals_it_takes_those_that_come_first(n: int, k: int) -> None:
    rows = torch.randint(4, (40, n), generator=torch.Generator().manual_seed(n)).float()
    expected = rows.sort(dim=1, descending=True, stable=True)
    values, indices = largest(rows, k)
    assert torch.equal(values, expected.values[:, :k])
    assert torch.equal(indices, expected.indices[:, :k])


def test_negative_rows_and_infinite_ones_are_ranked_too() -> None:
    rows = torch.tensor([[-3.0, -1.0, -2.0, -torch.inf], [-torch.inf] * 4])
    values, indices = largest(rows, 2)
    assert values.tolist() == [[-1.0, -2.0], [-torch.inf] * 2]
    assert indices.tolist() == [[1, 2], [0, 1]]
