"""The shared checks: every refusal names what came, what was expected and what to do.

Broken once: `or tensor.is_meta` dropped from `check_dense_tensor`; the meta tensor came through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bilens.base import checks
from bilens.base.checks import (
    available_memory,
    check_count,
    check_dense_tensor,
    check_finite,
    check_float_tensor,
    check_memory,
    check_type,
    memory_limit,
    parse_bytes,
)
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
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


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4000000000", 4_000_000_000),
        ("800M", 800 * 2**20),
        ("4GiB", 4 * 2**30),
        (" 1.5 gb ", 3 * 2**29),
        ("2k", 2048),
        ("1T", 2**40),
        ("17B", 17),
    ],
)
def test_a_memory_size_is_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "0.0G", "1e9", "4 X", "nan", "9" * 400])
def test_a_text_that_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a memory size: .* for example 800M or 4GiB"):
        parse_bytes(text)


def test_the_variable_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1M")
    assert memory_limit() == 2**20
    assert check_memory(2**20, "a thing", "do less") == 2**20


def test_without_the_variable_most_of_the_memory_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BILENS_MEMORY_LIMIT", raising=False)
    assert memory_limit() > 2**28  # a quarter of a GiB, on any machine that runs torch


@pytest.mark.parametrize(
    ("text", "smaller"), [("1048576\n", 2**20), ("max\n", None), (f"{2**63 - 4096}\n", None)]
)
def test_a_container_may_use_less_than_the_machine_has(
    text: str, smaller: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BILENS_MEMORY_LIMIT", raising=False)
    absent = str(tmp_path / "absent")
    monkeypatch.setattr(checks, "CONTAINER_LIMITS", (absent,))
    physical = available_memory()
    limit = tmp_path / "memory.max"
    limit.write_text(text, encoding="ascii")
    monkeypatch.setattr(checks, "CONTAINER_LIMITS", (absent, str(limit)))
    assert available_memory() == (smaller or physical)
    assert memory_limit() == int(0.75 * (smaller or physical))


@pytest.mark.parametrize("size", [4096, np.int64(4096), np.uint16(4096), "4K"])
def test_a_chosen_limit_is_an_integer_of_python_or_numpy_or_a_text(size: int | str) -> None:
    limit = memory_limit(size)
    assert (limit, type(limit)) == (4096, int)


@pytest.mark.parametrize("size", [0, -1, np.int64(0), True, 4096.0])
def test_another_limit_is_refused(size: object) -> None:
    with pytest.raises(UsageError, match="expected a positive number of bytes or a text"):
        memory_limit(size)


def test_too_much_memory_is_refused_with_size_limit_and_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1G")
    with pytest.raises(MemoryLimitError) as caught:
        check_memory(3 * 2**30, "a dense thing", "use its factors")
    assert str(caught.value) == (
        "a dense thing needs 3.00 GiB, the limit is 1.00 GiB: use its factors, or set "
        "BILENS_MEMORY_LIMIT."
    )


def test_a_limit_that_was_passed_counts_before_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "8G")
    with pytest.raises(MemoryLimitError, match=r"is 1.00 GiB: .*, or allow a larger memory_limit"):
        check_memory(3 * 2**30, "a dense thing", "use its factors", "1GiB")
    assert check_memory(9 * 2**30, "a dense thing", "use its factors", 2**34) == 9 * 2**30


def test_a_broken_limit_is_told_apart_from_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "plenty")
    with pytest.raises(UsageError, match="'plenty' is not a memory size"):
        memory_limit()
