"""The memory of a fit is counted before it is taken, and the process does not take more.

Broken once: the history of L-BFGS dropped; the fit by gradients took more than was counted.
"""

from __future__ import annotations

import pytest

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.cp.memory_need import fit_bytes
from peak_memory import OVERHEAD, peak_of

SIZES = FactorSizes(512, 256, 768)
RANK = 256
CODE = """
from bilens.algebra.cp.decompose import cp_decompose
from builders import random_map
f = random_map(0, *{sizes})
scipy.optimize.minimize
measure(lambda: cp_decompose(f, {rank}, method="{method}", num_starts=1, max_sweeps=25))
"""


@pytest.mark.parametrize("method", ["als", "gradient"])
def test_a_fit_takes_no_more_than_was_counted(method: str) -> None:
    peak = peak_of(
        "import scipy.optimize" + CODE.format(sizes=tuple(SIZES), rank=RANK, method=method)
    )
    assert peak <= fit_bytes(SIZES, RANK, method, num_starts=1) + OVERHEAD


def test_every_start_keeps_its_model() -> None:
    one, five = (fit_bytes(SIZES, RANK, "als", num) for num in (1, 5))
    assert five - one == 4 * 8 * RANK * (512 + 2 * 768)
