"""Memory: sizes as texts, the limit and where it comes from, refusals that name the way out."""

from pathlib import Path

import numpy as np
import pytest

from bilens.base import memory
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.base.memory import (
    MemoryEstimate,
    available_memory,
    check_memory,
    memory_limit,
    parse_bytes,
)


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
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (absent,))
    physical = available_memory()
    limit = tmp_path / "memory.max"
    limit.write_text(text, encoding="ascii")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (absent, str(limit)))
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


def test_an_estimate_says_the_peak_and_how_many_items_fit_together() -> None:
    estimate = MemoryEstimate(fixed=100, each=10)
    assert estimate.peak(num=3, most=50) == 130
    assert estimate.peak(num=30, most=50) == 150
    assert estimate.at_a_time(30, 1000, "forms", "take fewer", 150) == 5
    assert estimate.at_a_time(30, 20, "forms", "take fewer", 150) == 2
    with pytest.raises(MemoryLimitError, match=r"forms needs .* take fewer, or allow a larger"):
        estimate.at_a_time(30, 1000, "forms", "take fewer", 105)
