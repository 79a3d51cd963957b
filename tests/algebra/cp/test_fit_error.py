"""The error of a model, also where it is below what Gram matrices can tell.

Broken once: `-factors.down` -> `factors.down` in the slabs; a perfect fit had error 2.
"""

from __future__ import annotations

import pytest

import oracles
from bilens.algebra.cp import fit_error as module
from bilens.algebra.cp.factors import Factors
from bilens.algebra.cp.fit_error import fit_error
from bilens.algebra.cp.target import Target
from builders import D_IN, D_OUT, randn, random_tensor

TARGET = Target.of(random_tensor(seed=1))
LEFT, RIGHT = TARGET.stacked.chunk(2)
OWN = Factors(TARGET.down, LEFT, RIGHT)


def test_the_error_is_that_of_the_dense_tensors() -> None:
    model = Factors(randn(D_OUT, 2, seed=5), randn(2, D_IN, seed=6), randn(2, D_IN, seed=7))
    expected = float(oracles.squared_error(oracles.dense_tensor(*OWN), *model)) ** 0.5
    found = fit_error(TARGET, model)
    assert found.relative_error == pytest.approx(expected)
    assert found.resolution < 1e-12


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12])
def test_an_error_of_any_size_is_seen(gap: float) -> None:
    """(1 − gap) B is gap · ‖B‖ from B; Gram matrices alone stop at √eps ≈ 1e-8."""
    found = fit_error(TARGET, OWN._replace(down=(1 - gap) * OWN.down))
    assert found.relative_error == pytest.approx(gap, abs=2 * found.resolution)
    assert found.resolution < 1e-13 + 1e-3 * gap


def test_what_would_take_too_long_has_its_resolution_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_PRODUCTS", 10)
    found = fit_error(TARGET, OWN._replace(down=(1 - 1e-12) * OWN.down))
    assert found.resolution > 1e-9
    assert abs(found.relative_error - 1e-12) <= found.resolution
