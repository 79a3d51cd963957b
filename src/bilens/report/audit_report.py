"""The report of one audit: the JSON document, and the pages that are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilens.report.audit_base import AuditBase
from bilens.report.document import Document, check_document


@dataclass(frozen=True)
class AuditReport(AuditBase):
    """What an audit found.

    Args:
        document: JSON values as `docs/report.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not an audit document, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "audit"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_document(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.html import render_html  # jinja2 is needed only here

        return render_html(self.document, lang)
