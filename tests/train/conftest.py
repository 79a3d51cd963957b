"""The fixtures of this folder."""

from one_thread import one_thread

__all__ = ["one_thread"]
