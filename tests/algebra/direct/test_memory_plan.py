"""Blocks shrink before anything is refused, and the features are kept where they fit.

Broken once: `demand.blocks(chosen) + demand.kept() <= spare` -> `True`; the tight limits failed.
`ARRAYS_ROWS` → 1; many hidden units took more than was counted.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.direct.memory_plan import BLOCK, Demand, MemoryPlan, plan_memory
from bilens.base.errors import MemoryLimitError
from peak_memory import OVERHEAD, peak_of

DEMAND = Demand(FactorSizes(3, 64, 32), 5000, 2, 52, torch.float64)


CODE = """
import torch
from bilens.algebra.direct.direct_interactions import direct_interactions
from builders import random_map
f = random_map(0, {sizes}).to(torch.float32)
dictionary = torch.randn({d_in}, {num}, generator=torch.Generator().manual_seed(0))
measure(lambda: direct_interactions(
    f, dictionary, torch.eye({d_out})[:1], block={block}, memory_limit={limit}
))
"""


def plan(limit: int, block: int | None) -> MemoryPlan:
    return plan_memory(DEMAND, block, limit)


def test_with_room_everything_is_kept() -> None:
    assert plan(2**40, None) == MemoryPlan(BLOCK, keep=True)


def test_rows_are_given_up_before_the_block() -> None:
    enough = DEMAND.fixed() + DEMAND.blocks(BLOCK) + DEMAND.kept()
    assert plan(enough, None) == MemoryPlan(BLOCK, keep=True)
    assert plan(enough - 1, None) == MemoryPlan(BLOCK, keep=False)


@pytest.mark.parametrize("block", [1, 64, BLOCK // 2])
def test_the_block_shrinks_to_what_fits(block: int) -> None:
    enough = DEMAND.fixed() + DEMAND.blocks(block)
    assert plan(enough, None).block == block
    assert plan(enough, block).block == block


@pytest.mark.parametrize("block", [None, 1])
def test_what_does_not_fit_is_refused(block: int | None) -> None:
    with pytest.raises(MemoryLimitError, match=r"reading 5000 features .* in blocks of 1 needs .*"):
        plan(DEMAND.fixed() + DEMAND.blocks(1) - 1, block)


def test_a_block_that_was_asked_for_is_not_changed() -> None:
    with pytest.raises(MemoryLimitError, match=r"blocks of 64 .*: .* pass a smaller block"):
        plan(DEMAND.fixed() + DEMAND.blocks(64) - 1, 64)


def test_a_block_is_no_wider_than_the_dictionary() -> None:
    assert plan(2**40, 10**6).block == 5000


@pytest.mark.parametrize(
    ("sizes", "num", "block", "keep"),
    [
        (FactorSizes(2, 1024, 128), 2048, 1024, False),
        (FactorSizes(1, 16, 64), 2048, 2048, False),
        (FactorSizes(1, 512, 128), 4096, 64, True),
    ],
    ids=["many hidden units", "a large block", "kept rows"],
)
def test_no_more_than_was_counted_is_taken(
    sizes: FactorSizes, num: int, block: int, keep: bool
) -> None:
    demand = Demand(sizes, num, 1, 52, torch.float64)
    limit = demand.fixed() + demand.blocks(block) + keep * demand.kept()
    code = CODE.format(
        sizes=f"{sizes.d_out}, {sizes.d_hidden}, {sizes.d_in}",
        d_in=sizes.d_in,
        d_out=sizes.d_out,
        num=num,
        block=block,
        limit=limit,
    )
    assert peak_of(code) <= limit + OVERHEAD
