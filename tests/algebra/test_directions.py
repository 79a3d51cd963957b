"""Directions that people ask for: one output, a class against the mean, one class against another.

Broken once: `- 1 / d_out` dropped from `centred_directions`; the softmax gauge was not removed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilens.algebra.directions import centred_directions, contrast_direction, raw_directions
from bilens.base.errors import UsageError
from builders import randn


@pytest.mark.parametrize("d_out", [1, 2, 10])
def test_raw_directions_read_the_outputs_as_they_are(d_out: int) -> None:
    y = randn(d_out)
    assert torch.equal(raw_directions(d_out) @ y, y)


@pytest.mark.parametrize("d_out", [1, 2, 10])
def test_centred_directions_read_each_output_against_the_mean(d_out: int) -> None:
    y = randn(d_out)
    torch.testing.assert_close(centred_directions(d_out) @ y, y - y.mean())


def test_a_contrast_reads_one_output_against_another() -> None:
    y = randn(4)
    assert float(contrast_direction(4, 3, 1) @ y) == float(y[3] - y[1])


def test_a_contrast_of_many_outputs_needs_no_array_of_all_pairs_of_them() -> None:
    """An (out, out) array of 10⁶ outputs would take 8 TB."""
    direction = contrast_direction(10**6, 999_999, 0)
    assert direction.nonzero().flatten().tolist() == [0, 999_999]


def test_directions_are_float64() -> None:
    made = raw_directions(2), centred_directions(2), contrast_direction(2, 0, 1)
    assert {direction.dtype for direction in made} == {torch.float64}


@pytest.mark.parametrize("d_out", [0, -1, 2.0, True, "3", None])
def test_the_number_of_outputs_must_be_a_positive_integer(d_out: object) -> None:
    for directions in (raw_directions, centred_directions):
        with pytest.raises(UsageError, match="d_out must be an integer of at least 1"):
            directions(d_out)


@pytest.mark.parametrize(("positive", "negative"), [(0, 3), (3, 0), (1, 1)])
def test_a_contrast_needs_two_different_outputs_of_the_model(positive: int, negative: int) -> None:
    with pytest.raises(UsageError, match=rf"between 0 and 2, got {positive} and {negative}"):
        contrast_direction(3, positive, negative)


@pytest.mark.parametrize("index", [-1, 1.0, True, "1", None])
def test_an_index_must_be_an_integer_from_0(index: object) -> None:
    with pytest.raises(UsageError, match=f"between 0 and 2, got {index!r} and 2"):
        contrast_direction(3, index, 2)
    with pytest.raises(UsageError, match=f"between 0 and 2, got 2 and {index!r}"):
        contrast_direction(3, 2, index)


def test_an_integer_of_numpy_is_one() -> None:
    direction = contrast_direction(np.int64(3), np.int32(1), np.uint8(2))
    assert direction.tolist() == [0.0, 1.0, -1.0]
