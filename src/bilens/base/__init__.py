"""Shared by all layers: errors, checks, files, memory, and the progress of long work."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # stage, done, total


def silent(*_: object) -> None:
    """Report nothing."""
