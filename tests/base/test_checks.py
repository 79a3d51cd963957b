"""The shared checks: every refusal names what came, what was expected and what to do."""

import numpy as np
import pytest
import torch

from bilens.base.checks import (
    check_count,
    check_dense_tensor,
    check_finite,
    check_float_tensor,
    check_type,
    generator_of,
)
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, REFUSED, SOUND, Odd

GOOD = torch.ones(3, 4, dtype=torch.float64)


@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_tensor_is_refused_with_a_sentence(odd: Odd) -> None:
    with pytest.raises(odd.error, match=odd.message) as caught:
        check_float_tensor("weight", odd.of(GOOD), num_axes=2)
    assert str(caught.value).startswith("weight ")


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_but_sound_tensor_passes(odd: Odd) -> None:
    assert check_float_tensor("weight", odd.of(GOOD), num_axes=2) == (3, 4)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_every_real_floating_dtype_passes(dtype: torch.dtype) -> None:
    assert check_float_tensor("weight", GOOD.to(dtype)) == (3, 4)


@pytest.mark.parametrize("odd", NOT_FINITE, ids=str)
def test_entries_are_looked_at_only_where_asked(odd: Odd) -> None:
    assert check_dense_tensor("weight", odd.of(GOOD)) == (3, 4)


@pytest.mark.parametrize("odd", NOT_DENSE_FLOAT, ids=str)
def test_the_kind_is_looked_at_always(odd: Odd) -> None:
    with pytest.raises(ShapeError, match=odd.message):
        check_dense_tensor("weight", odd.of(GOOD))


def test_a_tensor_of_another_dtype_than_its_neighbours_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"torch.float32 on cpu; torch.float64 .* weight\.to\("):
        check_dense_tensor("weight", GOOD.float(), like=GOOD)


def test_bad_entries_are_counted_and_the_first_is_located() -> None:
    bad = GOOD.clone()
    bad[1, 2] = bad[2, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"holds 2 non-finite .* first one at index \(1, 2\)"):
        check_finite("weight", bad)


def test_a_check_hands_back_what_it_checked() -> None:
    assert check_finite("weight", GOOD) is GOOD
    assert check_count("k", 3, minimum=3) == 3


def test_an_integer_of_numpy_is_handed_back_as_one_of_python() -> None:
    """Which JSON can write."""
    assert type(check_count("k", np.int64(3), minimum=3)) is int


@pytest.mark.parametrize(
    "value", [2, 0, -1, True, 3.0, "3", None, torch.tensor(3), np.True_, np.int64(2)]
)
def test_a_count_must_be_an_integer_that_is_large_enough(value: object) -> None:
    with pytest.raises(UsageError, match="k must be an integer of at least 3, got "):
        check_count("k", value, minimum=3)


def test_another_type_is_refused_with_the_expected_one() -> None:
    check_type("size", torch.Size([3]), tuple, "use tuple(size)")
    with pytest.raises(UsageError, match=r"^size is a list; expected tuple: use tuple\(size\)\.$"):
        check_type("size", [3], tuple, "use tuple(size)")


def test_a_seed_is_a_number_or_a_generator_that_goes_on() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.rand(3, generator=generator_of(np.int64(4))), expected)
    given = torch.Generator().manual_seed(4)
    assert generator_of(given) is given
    for wrong in (-1, True, "4", None):
        with pytest.raises(UsageError, match=r"expected an integer from 0 on, or a torch\.Gen"):
            generator_of(wrong)
