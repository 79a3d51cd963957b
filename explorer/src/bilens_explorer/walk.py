"""The walk of a folder: models and reports, found by names and first bytes, never opened by path.

Addresses hold ids, and an id stands for a path that the walk found: no text of a request ever
becomes a path.
"""

import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from bilens import (
    AttackReport,
    AuditReport,
    CertificateReport,
    ConversionReport,
    NetworkReport,
    TraceReport,
)
from bilens.data import FILE_NAME as TOKENIZER
from bilens.io import MARKS, address_in, is_listed
from bilens.records import EARLIER_KINDS, ReadAs, kind_of
from bilens.report import SavedReport, SweepReport
from bilens_explorer.inside import opened
from bilens_explorer.records.models import id_of

REPORTS: tuple[type[SavedReport[Any]], ...] = (
    CertificateReport,
    AttackReport,
    ConversionReport,
    TraceReport,
    SweepReport,
    NetworkReport,
)
AUDITS: dict[str, type[SavedReport[Any]]] = dict.fromkeys(get_args(ReadAs), AuditReport)
# An audit is listed by how its model was read, other reports by the kind of their documents.
KINDS = AUDITS | {kind_of(one.type): one for one in REPORTS}
DEEPEST, MOST = 6, 20_000  # folders below the first; files and folders that are looked at
START, MOST_BESIDE = 400, 500  # bytes that tell a document's kind; files of a model looked at
SWEEP = ("manifest.jsonl", "sweep_manifest")  # a file of it, and what kind it says it is
AUTOENCODER = ("sae.safetensors", "sae_weights.safetensors")  # else its class says it
CODER = re.compile(rb'"class":\s*"\w*SAE"')
KIND = re.compile(rb'"kind":\s*"([\w ]+)"')
READ_AS = re.compile(rb'"read_as":\s*"(\w+)"')


@dataclass(frozen=True, eq=False)
class FolderContents:
    """The models and reports that a walk found, by id."""

    models: Mapping[str, Path] = field(default_factory=dict)
    reports: Mapping[str, tuple[Path, str]] = field(default_factory=dict)  # path and kind
    names: Mapping[str, str] = field(default_factory=dict)  # of models and reports, from the folder
    truncated: bool = False  # where more lies there than is looked at

    @property
    def compared_parts(self) -> tuple[object, ...]:
        """The parts that two walks are compared by; `==` would tell every two walks apart."""
        return self.models, self.reports, self.truncated

    def restricted(self, models: Set[str], reports: Set[str]) -> "FolderContents":
        """Return the models and reports of these ids alone."""
        return replace(
            self,
            models={key: path for key, path in self.models.items() if key in models},
            reports={key: one for key, one in self.reports.items() if key in reports},
        )


def walk(folder: Path, given: Iterable[str] = ()) -> FolderContents:
    """Return the models and reports below a folder, near ones first; links out are left out.

    Models of these names are in it wherever they lie below the folder: hidden or deep, or in
    another one.
    """
    models: dict[str, Path] = {}
    reports: dict[str, tuple[Path, str]] = {}
    names: dict[str, str] = {}
    truncated = False
    waiting, looked = deque([(folder, 0)]), 0
    while waiting:
        path, depth = waiting.popleft()
        with suppress(OSError, RuntimeError, ValueError):  # gone since, closed to us, a loop
            if path.is_symlink() and not path.resolve().is_relative_to(folder):
                continue
            lying, inner = [path], False
            if is_listed(path):
                name = path.relative_to(folder).as_posix()
                models[id_of(name)], names[id_of(name)] = path, name
                inner = path != folder
                lying = beside(path) if inner else []
            for each in lying:
                name = each.relative_to(folder).as_posix()
                with suppress(OSError):  # one that is closed to us hides no other
                    if each.suffix == ".json" and (kind := kind_at(folder, each)) in KINDS:
                        reports[id_of(name)], names[id_of(name)] = (each, kind), name
            if inner or path.is_symlink() or not path.is_dir():
                continue
            if depth > DEEPEST:
                truncated = True
                continue
            with os.scandir(path) as inside:
                items = [*islice(inside, MOST + 1 - looked)]
            looked += len(items)
            if looked > MOST:
                looked -= 1
                items.pop()
                truncated = True
            parts = sorted(item.name for item in items)
            if path == folder and models:  # its marks are parts of one model, which it is
                parts = [part for part in parts if part not in MARKS]
            if SWEEP[0] in parts and kind_at(folder, path / SWEEP[0]) == SWEEP[1]:
                # thousands, which its report is made of
                parts = [part for part in parts if part not in (SWEEP[0], "results")]
            waiting += [(path / part, depth + 1) for part in parts if not part.startswith(".")]
    for name in given:
        place = None if id_of(name) in models else place_of(folder, name)
        if place is not None and place.exists():
            models[id_of(name)], names[id_of(name)] = place, name
    return FolderContents(models, reports, names, truncated)


def place_of(folder: Path, name: str) -> Path | None:
    """Return where a model of a history lies; None where its name or a link leads out."""
    path = folder / name
    with suppress(ValueError, OSError):  # what no path can be: too long, a null byte
        inside = Path(os.path.realpath(path)).is_relative_to(folder) and not address_in(name)
        path.exists()  # which a name that is too long cannot
        return path if inside and not {"..", "/"} & {*Path(name).parts} else None
    return None


def find_views(folder: Path, path: Path, *, wrong: bool = False) -> tuple[str, ...]:
    """Return the views of a model, none of an autoencoder; `wrong`: wrong answers are listed."""
    if any((path / mark).exists() for mark in AUTOENCODER):
        return ()
    with suppress(OSError), opened(folder, path / "config.json") as file:
        if CODER.search(file.read(START)):
            return ()
    found = ["spectra"] if (path / TOKENIZER).is_file() else ["spectra", "playground"]
    return (*found, "mistakes") if wrong else tuple(found)


def beside(model: Path) -> list[Path]:
    """Return the documents in the folder of a model."""
    if not model.is_dir():
        return []
    with os.scandir(model) as inside:
        items = [item for item in islice(inside, MOST_BESIDE) if item.name not in MARKS]
    wanted = (item for item in items if item.name.endswith(".json"))
    return [model / item.name for item in wanted if item.is_file(follow_symlinks=False)]


def kind_at(folder: Path, path: Path) -> str:
    """Return the kind of a document by its first bytes; empty where it is none."""
    with opened(folder, path) as file:
        start = file.read(START)
    found = READ_AS.search(start) or KIND.search(start)
    kind = found[1].decode() if found else ""
    return EARLIER_KINDS.get(kind, kind)
