"""The exceptions of bilens. Each one names what came, what was expected and what to do."""

from __future__ import annotations


class BilensError(Exception):
    """Base of every error that bilens raises on purpose."""

    exit_code = 2


class UsageError(BilensError, ValueError):
    """An argument or option that cannot be honoured."""


class ShapeError(UsageError):
    """A tensor whose shape, dtype or device does not fit the others."""


class NotQuadraticError(UsageError):
    """The model, or this part of it, is not exactly a quadratic map of its input."""

    exit_code = 3


class FileError(BilensError):
    """A file or folder that is missing, damaged, unsafe or not supported."""

    exit_code = 3


class DataError(FileError):
    """A data set that is missing, damaged or inconsistent."""


class CheckpointError(FileError):
    """A model folder or checkpoint that is missing, damaged or of another kind."""


class OutputExistsError(UsageError):
    """An output path that already holds something that would be lost."""


class MissingExtraError(UsageError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run `pip install 'bilens[{extra}]'`."
        )


class NonFiniteError(BilensError, ValueError):
    """NaN or infinity where a finite number is needed."""

    exit_code = 4


class NumericalError(BilensError, ArithmeticError):
    """A computation that did not meet its own check."""

    exit_code = 4


class MemoryLimitError(BilensError, MemoryError):
    """A computation that would need more memory than allowed."""

    exit_code = 5


class DiskError(BilensError, OSError):
    """Writing failed: disk full, folder read-only, and the like."""

    exit_code = 5


class InterruptedRunError(BilensError):
    """Ctrl-C: the work so far is saved and can be resumed."""

    exit_code = 130


class BilensWarning(UserWarning):
    """Base of every warning that bilens gives: a wish that could not be granted in full."""


class TruncationWarning(BilensWarning):
    """Fewer eigenpairs exist than were asked for."""
