"""Blocks cover everything, stay within their budget, and save half of a symmetric product."""

import pytest
from hypothesis import given, strategies as st

from bilens.algebra.gram.kernel import WORK_BYTES, block_size, blocks, rows_within


@pytest.mark.parametrize("width", [1, 100, 5_000, 30_000, 100_000])
def test_blocks_stay_within_their_budget(width: int) -> None:
    rows = rows_within(width)
    assert 8 * (rows * width + 8 * rows**2) <= WORK_BYTES
    assert 8 * ((rows + 1) * width + 8 * (rows + 1) ** 2) > WORK_BYTES  # and use it


@pytest.mark.parametrize(("hidden", "size"), [(1, 16), (128, 16), (129, 17), (800, 100)])
def test_a_small_layer_is_cut_into_eight_rows_of_blocks(hidden: int, size: int) -> None:
    assert block_size(hidden, width=10) == size


@given(st.integers(0, 20), st.integers(1, 7), st.integers(0, 20))
def test_blocks_cover_everything_once_and_in_order(length: int, size: int, start: int) -> None:
    covered = [index for part in blocks(length, size, start) for index in range(length)[part]]
    assert covered == list(range(start, length))
    assert all(part.stop - part.start <= size for part in blocks(length, size, start))
