"""Rows of the study: one model each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]


def of_half(rows: Iterable[Row], half: str) -> list[Row]:
    """Return the rows of a half, "fix" or "judge"."""
    return [row for row in rows if row["half"] == half]
