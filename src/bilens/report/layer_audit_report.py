"""The report of a layer audit: the JSON document, and what is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilens.report.audit_base import AuditBase
from bilens.report.document import Document
from bilens.report.layer_audit_document import check_layer_audit


@dataclass(frozen=True)
class LayerAuditReport(AuditBase):
    """What the audit of a model with many, or with approximate, layers found.

    Args:
        document: JSON values as `docs/auditing.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not a layer audit document, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "layer_audit"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_layer_audit(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.layer_audit_html import render_layer_audit  # jinja2 only here

        return render_layer_audit(self.document, lang)
