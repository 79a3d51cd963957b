"""Reports as they are read, from files of the folder or the history; they may be damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bilens.base import parse_object, why_unreadable
from bilens.base.errors import BilensError, FileError
from bilens.records import Finding, JudgedCondition
from bilens.report import SavedReport
from bilens_explorer.inside import opened
from bilens_explorer.walk import KINDS

LARGEST = 1 << 24  # bytes of a document


class Judged(NamedTuple):
    """Parts of the document of a last audit, for the pages of its model."""

    findings: tuple[Finding, ...] = ()
    conditions: tuple[JudgedCondition, ...] = ()
    wrong: bool = False  # whether wrong answers are listed
    names: tuple[str, ...] = ()  # of the outputs


def read_report(folder: Path, path: Path, name: str, kind: str) -> SavedReport[Any]:
    """Read a report of the folder with the places that it names; FileError where it is damaged."""
    try:
        with opened(folder, path) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise FileError(f"{name}: at most {LARGEST} bytes are read.")
        return check_report(name, kind, parse_object(text))
    except OSError as error:
        raise FileError(f"{name}: {why_unreadable(error)}") from None
    except ValueError as error:
        raise FileError(f"{name}: {error}.") from None


def check_report(name: str, kind: object, document: Mapping[str, object]) -> SavedReport[Any]:
    """Return a document as the report that it is; FileError, by its name, where it is none."""
    try:
        if not isinstance(kind, str) or kind not in KINDS:
            raise FileError(f"a document of kind {kind!r:.40} is none that this release reads.")
        return KINDS[kind](document)
    except BilensError as error:
        raise FileError(f"{name}: {error}") from None
