"""Starts: the strongest hidden units, whichever way they are written, or random rows.

Broken once: `descending=True` dropped in `chosen_rows`; the weakest unit was chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.factors import Factors, Model
from bilens.algebra.cp.starts import in_order, random_start, strongest_start
from bilens.algebra.cp.target import Target
from bilens.algebra.unit_rows import unit_rows
from builders import randn, random_tensor, vector

TENSOR = BilinearTensor(torch.diag(vector(1.0, 9.0, 3.0)), randn(3, 5, seed=1), randn(3, 5, seed=2))
# The size of a unit includes the lengths of its rows: made equal here, so that `down` decides.
UNIT = BilinearTensor(TENSOR.down, unit_rows(TENSOR.left)[0], unit_rows(TENSOR.right)[0])


def start(tensor: BilinearTensor, rank: int, model: Model = "pairs", seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return strongest_start(Target.of(tensor), rank, model, generator)


def as_sets(factors: Factors) -> list[set[tuple[float, ...]]]:
    return [
        {tuple(row.round(decimals=9).tolist()) for row in pair}
        for pair in zip(factors.left, factors.right, strict=True)
    ]


def test_the_strongest_units_come_first() -> None:
    found = as_sets(start(UNIT, 2))
    expected = as_sets(Factors(UNIT.down, UNIT.left[[1, 2]], UNIT.right[[1, 2]]))
    assert found == expected


def test_squares_start_from_the_eigenvectors_of_units() -> None:
    """For orthogonal l and r both eigenvalues have the size of the unit: its pair comes first."""
    left = torch.eye(4, dtype=torch.float64)[:2]
    right = torch.eye(4, dtype=torch.float64)[2:]
    tensor = BilinearTensor(torch.diag(vector(1.0, 5.0)), left, right)
    rows = start(tensor, 2, "symmetric").left
    half = 0.5**0.5
    assert_close(rows, torch.tensor([[0, half, 0, half], [0, half, 0, -half]]).double())


def test_rows_that_are_missing_or_zero_are_random() -> None:
    dead = BilinearTensor(UNIT.down, UNIT.left * vector(1, 0, 1)[:, None], UNIT.right)
    rows = start(dead, 5).left
    assert bool((rows.norm(dim=1) > 0).all())
    assert len({tuple(row.tolist()) for row in rows}) == 5


def written_otherwise(tensor: BilinearTensor) -> BilinearTensor:
    order = torch.tensor([2, 0, 1])
    down, left, right = tensor.down[:, order], tensor.left[order], tensor.right[order]
    return BilinearTensor(down / 6, 3 * right, 2 * left)


def test_the_way_a_map_is_written_changes_nothing() -> None:
    for model in ("pairs", "symmetric"):
        ours, theirs = start(TENSOR, 2, model), start(written_otherwise(TENSOR), 2, model)
        assert_close(theirs.left.abs(), ours.left.abs())
        assert_close(theirs.right.abs(), ours.right.abs())


def test_random_starts_depend_on_the_seed_alone() -> None:
    target = Target.of(random_tensor())

    def draw(seed: int) -> Tensor:
        return random_start(target, 3, "pairs", torch.Generator().manual_seed(seed)).left

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    symmetric = random_start(target, 3, "symmetric", torch.Generator().manual_seed(0))
    assert symmetric.left is symmetric.right


def test_a_pair_is_ordered_by_its_first_difference() -> None:
    first = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 1.0]]).double()
    second = torch.tensor([[1.0, 3.0], [1.0 + 1e-12, 2.0], [1.0, 1.0]]).double()
    left, right = in_order(first, second)
    assert left[:, 1].tolist() == [3.0, 3.0, 1.0]
    assert right[:, 1].tolist() == [2.0, 2.0, 1.0]
