"""Models that are open: read when a page asks, the last few kept, read again where they changed."""

import ctypes
import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

from torch import Tensor

from bilens import load
from bilens.api import RefusedError, answers_in_file, options_in, recorded_base, tensor_files
from bilens.base.errors import FileError, UsageError
from bilens.cli.options import parse_roles
from bilens.io import LoadedModel, mark_of
from bilens_explorer.inside import ADAPTER, State, state_of

WEIGHTS, RESULTS, KEPT = 1 << 26, 1 << 24, 10  # bytes of weights and of results, and models
Result = TypeVar("Result")


class Results:
    """A cache of results of all models that are open: the last ones used, as many as fit."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def find(self, what: Any) -> Any:
        """Return a result alone in a list, an empty list where there is none."""
        with self._lock:
            if what not in self._kept:
                return []
            self._kept.move_to_end(what)
            return [self._kept[what][0]]

    def keep(self, what: Any, result: Any) -> None:
        with self._lock:
            self._kept[what] = result, bytes_of(result)
            # a large one and what it was made of stay in any case
            while len(self._kept) > 2 and sum(size for _, size in self._kept.values()) > RESULTS:
                self._kept.popitem(last=False)


def bytes_of(result: Any) -> int:
    """Return about how much memory a result takes."""
    if isinstance(result, Tensor):
        return result.nbytes
    if isinstance(result, str | bytes):
        return len(result)
    if isinstance(result, tuple | list):
        plain = bool(result) and isinstance(result[0], float | int)
        return 32 * len(result) if plain else sum(map(bytes_of, result))
    if isinstance(result, Mapping):
        return sum(map(bytes_of, result.values()))
    named = [one.name for one in fields(result)] if is_dataclass(result) else []
    named += getattr(result, "__struct_fields__", ())
    return sum(bytes_of(getattr(result, name)) for name in named) if named else 32


@dataclass(eq=False)
class OpenModel:
    """A model; what is computed of it is kept for a while."""

    name: str  # its path from the folder
    model: LoadedModel
    state: State  # of its files when it was read, and how
    results: Results
    working: RLock = field(default_factory=RLock)  # one result may ask for another
    slow: RLock = field(default_factory=RLock)  # for what a page does not wait for

    def once(self, what: Any, compute: Callable[[], Result], *, slow: bool = False) -> Result:
        """Return a result, computed where it is not at hand; `what` says of what."""
        what = self.state, what
        with self.slow if slow else self.working:
            for known in self.results.find(what):
                return known  # type: ignore[no-any-return]
            found = compute()
            self.results.keep(what, found)
        trim()
        return found

    @property
    def nbytes(self) -> int:
        module = self.model.module
        return 0 if module is None else sum(one.nbytes for one in module.parameters())


class OpenModels:
    """The models of a folder that are open."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, Results()
        trim(arenas=2)
        self._open: OrderedDict[Path, OpenModel] = OrderedDict()
        self._lock = Lock()
        self._reading: dict[Path, Lock] = {}  # one reader waits for no other model

    def get(self, path: Path, name: str, options: Mapping[str, Any]) -> OpenModel:
        """Return a model, read with options; FileError where a file leads out or changes."""
        with self._lock:
            reading = self._reading.setdefault(path, Lock())
        with reading:
            below = options.get("base", path)  # of an adapter that does not say where it lies
            files = state_of(self.folder, path) + state_of(self.folder, below)
            state = (*files, *((option, repr(said)) for option, said in options.items()))
            found = self._open.get(path)
            if found is None or found.state != (*state, *marks_of_tensors(found.model)):
                model = load_as_audited(path, options)
                marks = marks_of_tensors(model)
                now = state_of(self.folder, path) + state_of(self.folder, below)
                if now != files or any(model.marks.get(Path(one), at) != at for one, at in marks):
                    raise FileError(f"{name}: it changed while it was read: ask again.")
                found = OpenModel(name, model, (*state, *marks), self.results)
            with self._lock:
                self._open[path] = found
                self._open.move_to_end(path)
                while len(self._open) > 1 and (
                    len(self._open) > KEPT
                    or sum(one.nbytes for one in self._open.values()) > WEIGHTS
                ):
                    self._open.popitem(last=False)
            return found


def load_as_audited(path: Path, options: Mapping[str, Any]) -> LoadedModel:
    """Read a model; names of outputs are given to one whose files have none."""
    own = {name: value for name, value in options.items() if name != "output_names"}
    model = load(path, **own)
    return model if model.output_names or own == options else load(path, **options)


def marks_of_tensors(model: LoadedModel) -> tuple[tuple[str, Any], ...]:
    """Return the marks of the files that tensors are in, also of those beside the model's own."""
    return tuple((str(at), mark_of(at)) for at in sorted({*model.files} | tensor_files(model)))


def reading_options(command: str, folder: Path, path: Path) -> dict[str, Any]:
    """Return how a recorded audit read its model, as arguments of `bl.load`; nothing if unknown.

    Names of classes that stand in a file are not among them: its audit says them.
    """
    base = recorded_base(command, folder) if (path / ADAPTER).exists() else None
    found: dict[str, Any] = {} if base is None else {"base": base}
    with suppress(UsageError, ValueError):
        given = [*options_in(shlex.split(command))]
        if roles := [value for name, value in given if name == "--map"]:
            found["roles"] = parse_roles(roles)
        for name, value in given:
            if name == "--activation":
                found["activation"] = value
            elif name == "--classes":
                with suppress(RefusedError):
                    if not answers_in_file(name, value, folder, command):
                        found["output_names"] = value.split(",")
            elif name.removeprefix("--no-").lstrip("-") in ("residual", "transposed"):
                found[name.removeprefix("--no-").lstrip("-")] = not name.startswith("--no-")
    return found


ARENAS, MAPPED = -8, -3  # M_ARENA_MAX, M_MMAP_THRESHOLD: from which size a block is given back


def trim(arenas: int = 0) -> None:
    """Give back what a computation needed, which glibc keeps otherwise; bound its heaps first."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if arenas:
            library.mallopt(ARENAS, arenas)
            library.mallopt(MAPPED, 1 << 20)
        library.malloc_trim(0)
