"""Shared by all layers: errors, checks, files, memory, and the progress of long work.

The names that other packages may use stand in `__init__.pyi`.
"""

from collections.abc import Callable

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

Progress = Callable[[str, int, int], None]  # stage, done, total


def silent(*_: object) -> None:
    """Report nothing."""
