"""The explorer's JSON: one table, which is also its OpenAPI document."""

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.conversion import Conversion
from bilens.records.explorer import ModelPage, Overview, State
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.serve import (
    audit_again,
    comparison,
    interactions,
    people,
    playground,
    spectra,
    texts,
    traces,
)
from bilens.serve.endpoint import Asked, Endpoint
from bilens.serve.folder import ServedFolder

Audited = Audit | LayerAudit | TableAudit
Reported = Audited | Certificate | Attack | Conversion | Trace


def overview(served: ServedFolder, asked: Asked) -> Overview:
    """All models and reports that were found in the folder."""
    return served.overview(asked.query["watch"])


def state(served: ServedFolder, _asked: Asked) -> State:
    """Whether the folder is what it was: its digest changes with models, reports and history."""
    return served.state()


def model_state(served: ServedFolder, asked: Asked) -> State:
    """Whether a model is what it was: its files, its audits and what was said of it."""
    return served.state(asked.path["key"])


def model(served: ServedFolder, asked: Asked) -> ModelPage:
    """One model: its audits, and what people said of it."""
    return served.model(asked.path["key"])


def audit(served: ServedFolder, asked: Asked) -> Audited:
    """The document of an audit of the history."""
    record: Audited = served.audit(asked.path["number"]).record
    return record


def report(served: ServedFolder, asked: Asked) -> Reported:
    """A report that lies in the folder."""
    record: Reported = served.report(asked.path["key"]).record
    return record


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/overview",
        overview,
        query={"watch": {"type": "string", "default": "", "maxLength": 40}},
        held=lambda _served: [Asked({})],
    ),
    Endpoint("/state", state),
    Endpoint("/models/{key}/state", model_state),
    Endpoint(
        "/models/{key}",
        model,
        held=lambda served: (Asked({"key": row.id}) for row in served.overview().models),
    ),
    *people.ENDPOINTS,
    Endpoint("/audits/{number}", audit),
    Endpoint("/reports/{key}", report),
    *spectra.ENDPOINTS,
    *audit_again.ENDPOINTS,
    *playground.ENDPOINTS,
    *traces.ENDPOINTS,
    *interactions.ENDPOINTS,
    *texts.ENDPOINTS,
    *comparison.ENDPOINTS,
)
