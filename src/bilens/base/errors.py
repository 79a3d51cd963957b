"""The exceptions of bilens. Each one names what came, what was expected and what to do."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from typing import Any


@dataclass(frozen=True)
class Retry:
    """A call that would work instead: keyword arguments of `bl.load`, also options of commands."""

    given: str  # the path as it was asked for
    said: Mapping[str, object] = field(default_factory=dict)
    path: str = ""  # another path in its place

    def call(self) -> str:
        said = "".join(f", {name}={value!r}" for name, value in self.said.items())
        return f"bl.load({self.path or self.given!r}{said})"

    def line(self, *command: str) -> str:
        """Return the options as a shell takes them, behind a command and the path."""
        before = [*command, self.path or self.given] if command or self.path else []
        return shlex.join([*before, *chain(*self.options())])

    def options(self) -> list[tuple[str, ...]]:
        """Return options of a command line, each with its value if it takes one."""
        found: list[tuple[str, ...]] = []
        for name, value in self.said.items():
            name = {"base": "baseline", "module_class": "class"}.get(name, name.replace("_", "-"))
            option = f"--no-{name}" if value is False else f"--{name}"
            if isinstance(value, Mapping):
                found += [("--map", f"{role}={tensor}") for role, tensor in value.items()]
            else:
                found.append((option,) if isinstance(value, bool) else (option, str(value)))
        return found


class BilensError(Exception):
    """Base of every error that bilens raises on purpose; `retries` are what to ask instead."""

    exit_code = 2
    told: bool | None = None  # whether another process of the same run says it; None: not known

    def __init__(self, sentence: str = "", retries: Sequence[Retry] = ()) -> None:
        calls = ", or ".join(retry.call() for retry in retries)
        super().__init__(f"{sentence} Call {calls}." if retries else sentence)
        self.sentence, self.retries = sentence, retries


class UsageError(BilensError, ValueError):
    """An argument or option that cannot be honoured."""


class UnknownOptionError(UsageError, TypeError):
    """A keyword that no option of a function has."""


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


class NoLayersError(CheckpointError):
    """A file of which no layer is read as it is given; an audit says what it holds."""


class OutputExistsError(UsageError):
    """An output path that already holds something that would be lost."""


class MissingExtraError(UsageError):
    """An optional package is needed and not installed; without an extra it is a satellite."""

    def __init__(
        self, package: str, extra: str, purpose: str, distribution: str = "bilens"
    ) -> None:
        wanted = f"'{distribution}[{extra}]'" if extra else package
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"run `pip install {wanted}`."
        )


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error, without its traceback and its full stop."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def optional_package(package: str, extra: str, purpose: str, *modules: str) -> Any:
    """Return a package that an extra brings, some modules in it imported, too."""
    try:
        return [import_module(name) for name in (*modules, package)][-1]
    except ImportError:
        raise MissingExtraError(package, extra, purpose) from None


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
    """Base of every warning that bilens gives: a wish granted in part, or data to look at."""


class TruncationWarning(BilensWarning):
    """Fewer eigenpairs exist than were asked for."""
