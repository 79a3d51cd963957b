"""The explorer's JSON: one table, which is also its OpenAPI document."""

from bilens.records.attack import Attack
from bilens.records.bilinear_conversion import Conversion
from bilens.records.classifier_audit import Audit
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.mlp_trace import Trace
from bilens.records.table_audit import TableAudit
from bilens_explorer import (
    compare,
    interactions,
    people,
    playground,
    spectra,
    texts,
    traces,
)
from bilens_explorer.endpoint import Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import Key

Audited = Audit | LayerAudit | TableAudit
Reported = Audited | Certificate | Attack | Conversion | Trace


def audit(served: ServedFolder, number: int) -> Audited:
    """The document of an audit of the history."""
    record: Audited = served.audit(number).record
    return record


def report(served: ServedFolder, key: Key) -> Reported:
    """A report that lies in the folder."""
    record: Reported = served.report(key).record
    return record


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/overview", ServedFolder.overview, held=lambda _served: [{}]),
    Endpoint("/state", ServedFolder.state),
    Endpoint("/models/{key}/state", ServedFolder.model_state),
    Endpoint(
        "/models/{key}",
        ServedFolder.model,
        held=lambda served: ({"key": row.id} for row in served.overview().models),
    ),
    *people.ENDPOINTS,
    Endpoint("/audits/{number}", audit),
    Endpoint("/reports/{key}", report),
    *spectra.ENDPOINTS,
    Endpoint("/models/{key}/audit", ServedFolder.audit_run),
    Endpoint("/models/{key}/audit", ServedFolder.audit_again, adds=True),
    Endpoint("/models/{key}/audit/cancel", ServedFolder.cancel_audit),
    *playground.ENDPOINTS,
    *traces.ENDPOINTS,
    *interactions.ENDPOINTS,
    *texts.ENDPOINTS,
    *compare.ENDPOINTS,
)
