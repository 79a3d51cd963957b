"""Reports on files, one of each kind, as evidence is written of, and an index of many audits."""

from typing import Any

import layer_audit_documents
import table_documents
from bilens.records.decision import AuditIndex, IndexRow
from bilens.report.reports import AuditReport
from report_documents import decided, make_document

FILES = {"model.safetensors": "a" * 64, "config.json": "c" * 64}
ODD = 'a "b" <c> & \\ \n 犬 \x07'
CONDITIONS = [
    {"condition": "r2<0.9", "rule": "r2", "value": 0.5, "failed": True},
    {"condition": "exact", "rule": "exact", "value": 0.1, "failed": False},
]


def with_files(document: dict[str, Any], **more: Any) -> dict[str, Any]:
    source = {**document["source"], "path": "runs/tiny", "files": FILES, "weights_sha256": "a" * 64}
    return {**document, "source": source, **more}


def reports() -> dict[str, Any]:
    """One report of each kind, one that failed, and one with every odd letter."""
    failed = with_files(make_document(), passed=False, conditions=CONDITIONS)
    odd = with_files(make_document(names=[ODD, "<b>", "犬" * 60]))
    odd["source"]["path"] = f"runs/{ODD}"
    numbers = layer_audit_documents.measured()["numbers"]
    numbers["performance"]["regression"]["r_squared"] = 0.5
    return {
        "classifier": AuditReport(with_files(make_document())),
        "without data": AuditReport(with_files(make_document(data=False))),
        "failed": AuditReport(failed),
        "cannot judge": AuditReport(with_files(decided("cannot_judge", "nobody"))),
        "odd": AuditReport(odd),
        "layers": AuditReport(with_files(layer_audit_documents.make_comparison())),
        "measured": AuditReport(with_files(layer_audit_documents.make_measured())),
        "numbers": AuditReport(with_files(numbers, accuracy=None)),
        "table": AuditReport(with_files(table_documents.make_table())),
        "regression": AuditReport(with_files(table_documents.make_table(classes=1))),
    }


INDEX = AuditIndex(
    files=layer_audit_documents.INVENTORY.files,
    models=(
        IndexRow("runs/broken", "unread", 3, None, "", "runs/broken: no such file."),
        IndexRow("runs/<b>", "do_not_use", 1, 0.5, "A rule failed.", page="<b>.html"),
        IndexRow("runs/c", "conditions", 0, 0.25, "Look at this.", page="c d.html"),
        IndexRow("runs/d", "use", 0, 1.0, "", page="d.html", document_sha256="d" * 64),
    ),
    version="0.1.0",
)
