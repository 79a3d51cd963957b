"""Blocks shrink before anything is refused, and the features are kept where they fit.

Broken once: `demand.blocks(chosen) + demand.kept() <= spare` -> `True`; the tight limits failed.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.direct.memory_plan import BLOCK, Demand, MemoryPlan, plan_memory
from bilens.checks import MEMORY_LIMIT_VARIABLE
from bilens.errors import MemoryLimitError

DEMAND = Demand(FactorSizes(3, 64, 32), 5000, 2, 52, torch.float64)


def plan(limit: int, block: int | None, monkeypatch: pytest.MonkeyPatch) -> MemoryPlan:
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, str(limit))
    return plan_memory(DEMAND, block)


def test_with_room_everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(2**40, None, monkeypatch) == MemoryPlan(BLOCK, keep=True)


def test_rows_are_given_up_before_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    enough = DEMAND.fixed() + DEMAND.blocks(BLOCK) + DEMAND.kept()
    assert plan(enough, None, monkeypatch) == MemoryPlan(BLOCK, keep=True)
    assert plan(enough - 1, None, monkeypatch) == MemoryPlan(BLOCK, keep=False)


@pytest.mark.parametrize("block", [1, 64, BLOCK // 2])
def test_the_block_shrinks_to_what_fits(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = DEMAND.fixed() + DEMAND.blocks(block)
    assert plan(enough, None, monkeypatch).block == block
    assert plan(enough, block, monkeypatch).block == block


@pytest.mark.parametrize("block", [None, 1])
def test_what_does_not_fit_is_refused(block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryLimitError, match=r"reading 5000 features .* in blocks of 1 needs .*"):
        plan(DEMAND.fixed() + DEMAND.blocks(1) - 1, block, monkeypatch)


def test_a_block_that_was_asked_for_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryLimitError, match=r"blocks of 64 .*: .* pass a smaller block"):
        plan(DEMAND.fixed() + DEMAND.blocks(64) - 1, 64, monkeypatch)


def test_a_block_is_no_wider_than_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(2**40, 10**6, monkeypatch).block == 5000
