"""Reports as they are read, from files of the folder or the history, whole or without rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from bilens.base import parse_object, why_unreadable
from bilens.base.errors import BilensError, FileError
from bilens.findings import rules_asked_for
from bilens.records import ActiveContext, Audit, Finding, JudgedCondition, Record, views
from bilens.report import NONE, SavedReport
from bilens_explorer.inside import opened
from bilens_explorer.walk import KINDS

Shown = TypeVar("Shown")
LARGEST = 1 << 24  # bytes of a document


class Judged(NamedTuple):
    """Parts of the document of a last audit, for the pages of its model."""

    findings: tuple[Finding, ...] = ()
    conditions: tuple[JudgedCondition, ...] = ()
    wrong: bool = False  # whether wrong answers are listed
    names: tuple[str, ...] = ()  # of the outputs
    unread: bool = False  # as it is damaged, or of another version

    @classmethod
    def from_audit(cls, record: Audit) -> "Judged":
        seen = record.performance
        wrong = seen is not None and bool(seen.mistakes)
        answers = () if seen is None or seen.classification is None else seen.names
        names = record.model.output_names or answers
        return cls(record.verdict, record.conditions or (), wrong, names)


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


def without_rows(value: Shown) -> Shown:
    """Return a document without what its fields and rules mark as rows, cells or answers of data.

    Of a stretch of text the token at which a latent is strongest is left.
    """
    return _cut(value)  # type: ignore[no-any-return]


def _cut(value: Any) -> Any:
    match value:
        case ActiveContext(peak=peak):
            token, activation = value.tokens[peak], value.activations[peak]
            return structs.replace(value, peak=0, tokens=(token,), activations=(activation,))
        case Finding() if rule := rules_asked_for().get(value.rule):
            cells = {name: NONE for name in value.values if rule.values.get(name) == "cell"}
            return structs.replace(value, values=value.values | cells)
        case Record():
            left_out = {name: one.instead for name, one in views(type(value)).items()}
            fields = {name: _cut(getattr(value, name)) for name in value.__struct_fields__}
            cut = {name: one for name, one in left_out.items() if one is not ...}
            return structs.replace(value, **fields | cut)
        case (Record(), *_) | ((Record(), *_), *_):
            return tuple(map(_cut, value))
    return value
