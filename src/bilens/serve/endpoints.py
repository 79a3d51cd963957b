"""The explorer's JSON: one table, which is also its OpenAPI document."""

from __future__ import annotations

from msgspec import structs

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import Count, Record
from bilens.records.conversion import Conversion
from bilens.records.explorer import ModelPage, Overview, State
from bilens.records.guarantees import Certificate
from bilens.records.history import Action, Entry
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.serve import comparison, interactions, job_pages, playground, spectra, texts, traces
from bilens.serve.endpoint import Asked, Endpoint
from bilens.serve.folder import ServedFolder
from bilens.serve.subjects import check_subject

AUDITS: tuple[type[Record], ...] = (Audit, LayerAudit, TableAudit)


class NewEntry(Record, frozen=True, forbid_unknown_fields=True):
    """What is sent to say something of a model; the fields are those of an `Entry`."""

    action: Action
    subject: str
    text: str
    author: str
    until: str | None = None
    after: Count | None = None  # last entry on the subject that its author has read


def add_entry(served: ServedFolder, asked: Asked) -> Entry | None:
    found = served.model(asked.path["key"])
    if found is None:
        return None
    body = asked.body
    check_subject(served, found, body.action, body.subject)
    return served.history.say(model=found.model.name, **structs.asdict(body))


def audit_record(served: ServedFolder, asked: Asked) -> Record | None:
    found = served.audit(asked.path["number"])
    return None if found is None else found.record


def report_record(served: ServedFolder, asked: Asked) -> Record | None:
    found = served.report(asked.path["key"])
    return None if found is None else found.record


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/overview",
        "All models and reports that were found in the folder.",
        (Overview,),
        lambda served, asked: served.overview(asked.query["watch"]),
        query={"watch": {"type": "string", "default": "", "maxLength": 40}},
        held=lambda _served: [Asked({})],
    ),
    Endpoint(
        "/state",
        "Whether the folder is what it was: its digest changes with models, reports and history.",
        (State,),
        lambda served, _asked: served.state(),
    ),
    Endpoint(
        "/models/{key}/state",
        "Whether a model is what it was: its files, its audits and what was said of it.",
        (State,),
        lambda served, asked: served.state(asked.path["key"]),
    ),
    Endpoint(
        "/models/{key}",
        "One model: its audits, and what people said of it.",
        (ModelPage,),
        lambda served, asked: served.model(asked.path["key"]),
        held=lambda served: (Asked({"key": row.id}) for row in served.overview().models),
    ),
    Endpoint(
        "/models/{key}/entries",
        "Add a label, a note, or that a finding is accepted, rejected or open again.",
        (Entry,),
        add_entry,
        body=NewEntry,
        adds=True,
    ),
    Endpoint(
        "/audits/{number}",
        "The document of an audit of the history.",
        AUDITS,
        audit_record,
    ),
    Endpoint(
        "/reports/{key}",
        "A report that lies in the folder.",
        (*AUDITS, Certificate, Attack, Conversion, Trace),
        report_record,
    ),
    *spectra.ENDPOINTS,
    *job_pages.ENDPOINTS,
    *playground.ENDPOINTS,
    *traces.ENDPOINTS,
    *interactions.ENDPOINTS,
    *texts.ENDPOINTS,
    *comparison.ENDPOINTS,
)
