"""The largest values of a stream are the same however it is cut and in whatever order it comes.

Broken once: `>=` -> `>` where values meet the last one kept; ties in a later piece were lost.
"""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st
from torch import Tensor

from bilens.algebra.direct.running_top import RunningTop

CPU = torch.device("cpu")


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], Tensor, list[int]]:
    """Values with many ties, an order of arrival, and how they are cut."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    total = sum(sizes)
    values = draw(st.lists(st.integers(-3, 3), min_size=total, max_size=total))
    return values, torch.tensor(draw(st.permutations(range(total)))), sizes


@given(streams(), st.integers(1, 12))
def test_the_top_is_that_of_the_sorted_whole(
    stream: tuple[list[int], Tensor, list[int]], size: int
) -> None:
    values, order, sizes = stream
    top = RunningTop.empty(size, CPU)
    for keys in order.split(sizes):
        top = top.added(torch.tensor(values).double()[keys], lambda p, keys=keys: keys[p])
    expected = sorted(range(len(values)), key=lambda key: (-abs(values[key]), key))[:size]
    assert top.keys.tolist() == expected
    assert top.values.tolist() == [values[key] for key in expected]


def test_only_candidates_are_located() -> None:
    """Keys are asked for where a value may enter the list, not for the whole piece."""
    asked: list[int] = []

    def locate(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return positions

    top = RunningTop.empty(3, CPU).added(torch.arange(100).double(), locate)
    top.added(torch.arange(97).double() / 97, locate)
    assert asked == [3]
