"""Several starts: a failure is recorded, the best is kept, growth is stopped, Ctrl-C gets through.

Broken once: `except` catching BaseException; the interrupt was swallowed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp import multi_start
from bilens.algebra.cp.alternating_least_squares import fit
from bilens.algebra.cp.multi_start import STRONG_RIDGE, Options, best_attempt, run_starts
from bilens.algebra.cp.target import Target
from bilens.base.errors import NumericalError
from builders import random_tensor, vector

TARGET = Target.of(random_tensor(1, d_hidden=6))
OPTIONS = Options("pairs", "als", max_sweeps=20, tolerance=1e-7)


def failing_at(monkeypatch: pytest.MonkeyPatch, calls: set[int], error: BaseException) -> None:
    """Let some of the fits raise an error instead."""
    made = iter(range(100))

    def sometimes(*arguments: Any) -> Any:
        if next(made) in calls:
            raise error
        return fit(*arguments)

    monkeypatch.setitem(multi_start.FITS, "als", sometimes)


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
