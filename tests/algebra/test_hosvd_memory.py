"""An HOSVD takes no more memory than is counted before it begins.

Broken once: `ARRAYS` 8 → 1; the wide outputs took more than was counted.
"""

from __future__ import annotations

import pytest

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.hosvd_memory import check_mode_memory
from peak_memory import OVERHEAD, peak_of

CODE = """
import torch
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_map import QuadraticMap
from builders import random_map, random_tensor
"""
CANCELLING = """
b = random_tensor(0, 1500, 32, 64)
down = torch.cat([b.down, 1e-9 * b.down.roll(1, 0) - b.down], dim=1)
f = QuadraticMap(BilinearTensor(down, torch.cat([b.left, b.left]), torch.cat([b.right, b.right])))
"""


@pytest.mark.parametrize(
    ("sizes", "axis", "code"),
    [
        ((1500, 64, 64), "out", "f = random_map(0, 1500, 64, 64)\nmeasure(lambda: hosvd(f, 2))"),
        ((1500, 64, 64), "out", CANCELLING + "measure(lambda: hosvd(f, 2))"),
        ((8, 64, 1200), "in", "h = hosvd(random_map(0, 8, 64, 1200))\nmeasure(lambda: h.input)"),
        (
            (8, 64, 1200),
            "in",
            "h = hosvd(random_map(0, 8, 64, 1200), 2)\nh.input\n"
            "measure(lambda: h.truncation_error(1, 2))",
        ),
    ],
    ids=["outputs", "slices that are built", "inputs", "error"],
)
def test_no_more_than_was_counted_is_taken(
    sizes: tuple[int, int, int], axis: str, code: str
) -> None:
    assert peak_of(CODE + code) <= check_mode_memory(FactorSizes(*sizes), axis, 1) + OVERHEAD
