"""The explorer's JSON: one table, which is also its OpenAPI document."""

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.bilinear_conversion import Conversion
from bilens.records.guarantees import Certificate
from bilens.records.mlp_trace import Trace
from bilens_explorer import (
    audit_again,
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

Reported = Audit | Certificate | Attack | Conversion | Trace


def audit(served: ServedFolder, number: int) -> Audit:
    """The document of an audit of the history."""
    return served.audit(number).record


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
