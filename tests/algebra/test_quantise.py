"""Rounded maps hold the nearest numbers of their kind.

Broken once: the step of int8 from the whole matrix; a row of small entries was lost.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.quantise import quantise
from bilens.base.errors import UsageError
from builders import randn, random_map


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_dtype_rounds_every_entry(kind: str) -> None:
    f = random_map(seed=1)
    found = quantise(f, kind)  # type: ignore[arg-type]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.tensor.left, f.tensor.left.to(getattr(torch, kind)).double())
    assert found.linear is not None
    assert torch.equal(found.linear.to(getattr(torch, kind)).double(), found.linear)
    again = quantise(found, kind)  # type: ignore[arg-type]
    assert torch.equal(again.tensor.down, found.tensor.down)


def test_int8_has_127_steps_to_the_largest_entry_of_each_row() -> None:
    f = random_map(seed=2, d_in=40)
    left = f.tensor.left.clone()
    left[1] *= 1e-6
    left[2] = 0.0
    f = QuadraticMap(BilinearTensor(f.tensor.down, left, f.tensor.right), f.linear, f.constant)
    found = quantise(f, "int8")
    step = left.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((found.tensor.left - left).abs() <= step / 2 * (1 + 1e-9)).all())
    for row, unit in zip(found.tensor.left, step, strict=True):
        if unit > 0:
            levels = row / unit
            torch.testing.assert_close(levels, levels.round(), atol=1e-9, rtol=0)
            assert float(levels.abs().max()) == pytest.approx(127)
    assert torch.equal(found.constant, f.constant)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"float8.*use one of float16"):
        quantise(random_map(), "float8")  # type: ignore[arg-type]
    big = BilinearTensor(torch.full((1, 1), 1e6).double(), randn(1, 2), randn(1, 2))
    with pytest.raises(UsageError, match=r"1e\+06 is beyond float16"):
        quantise(QuadraticMap(big), "float16")
