"""A rotation null takes no more memory than is counted before it begins, and keeps no spectra.

Broken once: the 7 copies of the branches → 1; the narrow layer took more than was counted.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.directions import raw_directions
from bilens.algebra.null_memory import CHUNK_BYTES, Demand, plan_chunk
from bilens.algebra.rotation_null import rotation_null
from builders import D_IN, D_OUT, random_map
from peak_memory import OVERHEAD, Largest, peak_of

CODE = """
import torch
from bilens.algebra.rotation_null import rotation_null
from builders import randn, random_map
f, rows = random_map(0, 4, {hidden}, {d_in}), torch.eye(4, dtype=torch.float64)
e = {embedding}
measure(lambda: rotation_null(
    f, rows, torch.Generator(), 1, embedding=e, localised={localised}, memory_limit={limit}
))
"""


@pytest.mark.parametrize(
    ("hidden", "d_in", "width_before", "localised"),
    [
        (64, 40_000, None, True),
        (1100, 1000, None, True),
        (64, 900, 3000, True),
    ],
    ids=["narrow", "wide", "embedding"],
)
def test_no_more_than_was_counted_is_taken(
    hidden: int, d_in: int, width_before: int | None, localised: bool
) -> None:
    demand = Demand(FactorSizes(4, hidden, d_in), 4, 1, width_before, localised)
    limit = demand.fixed() + demand.each()
    embedding = f"randn({d_in}, {width_before})" if width_before else None
    code = CODE.format(
        hidden=hidden, d_in=d_in, embedding=embedding, localised=localised, limit=limit
    )
    assert peak_of(code) <= limit + OVERHEAD


def test_spectra_are_not_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    with Largest() as seen:
        rotation_null(random_map(), raw_directions(D_OUT), generator, 50)
    assert seen.numel < 50 * D_OUT * D_IN


def test_as_many_directions_as_fit_are_solved_together() -> None:
    demand = Demand(FactorSizes(3, 64, 32), 10_000, 99, None, localised=False)
    for num in (1, 2, 17):
        assert plan_chunk(demand, demand.fixed() + num * demand.each()) == num
    assert plan_chunk(demand, 2**40) == CHUNK_BYTES // demand.each()
