"""The explorer's JSON: one table, which is also its OpenAPI document."""

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.conversion import Conversion
from bilens.records.explorer import Key
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.serve import (
    audit_again,
    compare,
    interactions,
    people,
    playground,
    spectra,
    texts,
    traces,
)
from bilens.serve.endpoint import Endpoint
from bilens.serve.folder import ServedFolder

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
    *audit_again.ENDPOINTS,
    *playground.ENDPOINTS,
    *traces.ENDPOINTS,
    *interactions.ENDPOINTS,
    *texts.ENDPOINTS,
    *compare.ENDPOINTS,
)
