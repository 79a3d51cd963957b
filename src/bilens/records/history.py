"""The history of the models of a folder: audits, and what people said of them."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Record
from bilens.records.common import Identity, Outcome
from bilens.records.decision import Answer

# kind of an audit's document in an earlier release → how its model was read
EARLIER_KINDS = {"audit": "classes", "layer_audit": "layers", "table": "columns"}
UNNAMED = "(from memory)"  # what each model without a path is called
UNKNOWN = "(damaged)"  # the name of the model of a row in which there is none
Action = Literal["label", "note", "accept", "reject", "withdraw"]
# `never`: it was never audited; `unread`: its files are not read yet, or cannot or may not be
ModelState = Literal["audited", "changed", "never", "gone", "unread"]
FileChange = Literal["other", "missing", "new"]
# `unjudged`: it failed, and was not judged; `elsewhere`: more is another than the model
Direction = Literal["worse", "better", "unjudged", "elsewhere"]


class PastAudit(Record, frozen=True):
    """One audit, without its document."""

    number: Annotated[Count, "from 1, in the order in which they were recorded"]
    model: Annotated[str, "its path, from the folder where it lies in it"]
    kind: Annotated[str, "how the model was read: `classes`, `layers` or `columns`"]
    date: Annotated[str, "UTC, year-month-dayThour:minute:secondZ"]
    version: Annotated[str, "of bilens"]
    weights_sha256: Annotated[str, "of the weights file; empty where there is none"]
    data_sha256: Annotated[str, "empty without data"]
    command: Annotated[str, "that was run, with its options"]
    answer: Annotated[Answer, "of the decision"]
    passed: Annotated[bool | None, "null where not decided, or nothing is vouched for"]
    failed: Annotated[tuple[str, ...], "rules that failed, and rules of conditions that did"]
    identity: Annotated[Identity | None, "what it is of; null of an earlier release"] = None
    files: Annotated[tuple[tuple[str, str], ...], "files that were read, with SHA-256"] = ()
    unread: Annotated[bool, "its row is damaged or of a later release; nothing else is known"] = (
        False
    )


class Measured(Record, frozen=True):
    """The outcome and the number of one rule in an audit."""

    audit: Annotated[Count, "its number"]
    rule: Annotated[str, "its name"]
    outcome: Annotated[Outcome | Literal[""], "empty where it had nothing to judge"]
    value: Annotated[float | None, "the number that conditions compare; null without one"]
    asked: Annotated[bool, "whether a condition named the rule"]


class Change(Record, frozen=True):
    """The change of a rule from one audit to the next."""

    rule: Annotated[str, "its name"]
    direction: Annotated[Direction, "which way it went"]
    before: Annotated[str, "how it ended, also as a condition: as in `Measured`"]
    now: Annotated[str, "how it ended this time"]
    was: Annotated[float | None, "its number before; null where there was none"]
    value: Annotated[float | None, "and now"]


class Entry(Record, frozen=True):
    """A remark of a person; nothing is changed or deleted, the last one of a subject counts."""

    number: Annotated[Count, "from 1, in the order in which they were made"]
    date: Annotated[str, "as of an audit"]
    author: Annotated[str, "who says it"]
    action: Annotated[Action, "a label or note; of a rule whether it is accepted"]
    model: Annotated[str, "as of an audit"]
    weights_sha256: Annotated[str, "that a label is of, or the last audit then; empty if unknown"]
    subject: Annotated[
        str,
        "`rule:trigger`, `class:3:positive:0`, `latent:17`, `column:age`; "
        "`rule:decision`: the model as such",
    ]
    text: Annotated[str, "the label, the note, or why"]
    until: Annotated[str | None, "last day of an acceptance, year-month-day; null for no end"]
    identity: Annotated[
        Identity | None, "of the last audit then; null of an earlier release, which counts no more"
    ] = None
    outcome: Annotated[str, "how the rule had ended"] = ""
    value: Annotated[float | None, "the number of the rule then; null where it had none"] = None
    known_by: Annotated[str, "header in which a proxy named the author; empty: who said it"] = ""
    unread: Annotated[bool, "as of an audit; it takes back what was judged before"] = False


class People(Record, frozen=True):
    """All remarks on a model up to a day."""

    day: Annotated[str, "UTC, year-month-day"]
    entries: Annotated[
        tuple[Entry, ...], "the last one first; also what was judged of models of one identity"
    ]
    model: Annotated[str, "which of these it is; empty where all are of one"] = ""


class FileDifference(Record, frozen=True):
    """A file that does not lie there as an audit read it."""

    name: Annotated[str, "its path from its model"]
    state: Annotated[FileChange, "what it is now"]


class WatchedModel(Record, frozen=True):
    """One model of a watched folder, as it stood when it was looked at."""

    model: Annotated[str, "its path from the folder"]
    state: Annotated[ModelState, "what lay there; a `changed` one was audited again"]
    code: Annotated[Count, "0: nothing to object; 1: a rule fails; else why it was not audited"] = 0
    audit: Annotated[Count, "number of the audit that holds for it; 0 where none does"] = 0
    answer: Annotated[Answer | None, "of that audit; null where none holds"] = None
    failed: Annotated[tuple[str, ...], "rules that fail in it and were not accepted"] = ()
    files: Annotated[tuple[str, ...], "that were others than in the audit before, or gone"] = ()
    said: Annotated[str, "why it could not be audited again, in English"] = ""


class WatchReport(Document, frozen=True, kw_only=True):
    """The models of a watched folder at one look."""

    kind: Annotated[Literal["watch"], "of the document"] = "watch"
    folder: Annotated[str, "its name alone"]
    date: Annotated[str, "as of an audit"]
    version: Annotated[str, "of bilens"]
    code: Annotated[Count, "the highest code of its models"]
    models: Annotated[tuple[WatchedModel, ...], "by name"]
