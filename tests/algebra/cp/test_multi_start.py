"""Several starts: where they begin, and one that fails."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp import decompose
from bilens.algebra.cp.decompose import (
    STRONG_RIDGE,
    Options,
    best_attempt,
    in_order,
    random_start,
    run_starts,
    strongest_start,
)
from bilens.algebra.cp.optimisers import alternating_least_squares
from bilens.algebra.cp.target import Factors, Model, Target
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.errors import NumericalError
from builders import randn, random_tensor, vector

TARGET = Target.of(random_tensor(1, d_hidden=6))
OPTIONS = Options("pairs", "als", max_sweeps=20, tolerance=1e-7)


def failing_at(monkeypatch: pytest.MonkeyPatch, calls: set[int], error: BaseException) -> None:
    """Let some of the fits raise an error instead."""
    made = iter(range(100))

    def sometimes(*arguments: Any) -> Any:
        if next(made) in calls:
            raise error
        return alternating_least_squares(*arguments)

    monkeypatch.setitem(decompose.FITS, "als", sometimes)


def test_the_strongest_hidden_units_come_first_and_progress_is_told() -> None:
    told: list[int] = []
    attempts = run_starts(TARGET, 2, OPTIONS, 3, 0, told.append)
    assert [attempt.start.kind for attempt in attempts] == ["neurons", "random", "random"]
    assert told == [1, 2, 3]
    fits = [attempt.start.fit for attempt in attempts]
    assert best_attempt(attempts).start.fit == max(fits)


def test_more_starts_keep_the_earlier_ones() -> None:
    few, many = (
        run_starts(TARGET, 2, OPTIONS, 2, 5, None),
        run_starts(TARGET, 2, OPTIONS, 4, 5, None),
    )
    assert [attempt.start for attempt in many[:2]] == [attempt.start for attempt in few]


@pytest.mark.parametrize("error", [NumericalError("no"), torch._C._LinAlgError("not positive")])
def test_a_start_that_fails_does_not_lose_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(monkeypatch, {0, 2}, error)
    attempts = run_starts(TARGET, 2, OPTIONS, 4, 0, None)
    assert [bool(attempt.start.failure) for attempt in attempts] == [True, False, True, False]
    assert str(error) in attempts[0].start.failure
    assert best_attempt(attempts) in (attempts[1], attempts[3])


def test_if_every_start_fails_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, {0, 1}, NumericalError("no"))
    attempts = run_starts(TARGET, 2, OPTIONS, 2, 0, None)
    with pytest.raises(
        NumericalError, match=r"none of 2 starts .*NumericalError: no.* smaller rank"
    ):
        best_attempt(attempts)


def test_an_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, {1}, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_starts(TARGET, 2, OPTIONS, 3, 0, None)


def test_components_that_grow_and_cancel_are_stopped_and_reported() -> None:
    """(x₁², x₁x₂) is the limit of sums of the squares x₁² and (x₁ + x₂/n)², and no such sum."""
    first, second = torch.eye(2, dtype=torch.float64)
    tensor = BilinearTensor(
        torch.diag(vector(1.0, 1.0)), torch.stack([first, first]), torch.stack([first, second])
    )
    options = Options("symmetric", "gradient", max_sweeps=3000, tolerance=1e-12)
    attempts = run_starts(Target.of(tensor), 2, options, 3, 0, None)
    stopped = [attempt for attempt in attempts if attempt.start.degenerate]
    assert stopped
    for attempt in stopped:
        assert attempt.ridge == STRONG_RIDGE
        assert attempt.start.fit > 0.999
        assert float(attempt.fitted.factors.down.norm()) < 100


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
