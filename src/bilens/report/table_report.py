"""The report of a table audit: the JSON document, and what is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilens.report.audit_base import AuditBase
from bilens.report.document import Document
from bilens.report.table_document import check_table


@dataclass(frozen=True)
class TableReport(AuditBase):
    """What the audit of a model with named columns found.

    Args:
        document: JSON values as `docs/tables.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not a table audit document, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "table"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_table(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.table_html import render_table  # jinja2 is needed only here

        return render_table(self.document, lang)
