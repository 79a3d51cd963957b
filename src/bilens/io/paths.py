"""Paths that a caller passes."""

from __future__ import annotations

import os
from pathlib import Path

from bilens.base.errors import UsageError


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return a path.

    Raises:
        UsageError: If it is neither a text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} is a {type(value).__name__}; expected a text or a Path.")
    return Path(value)
