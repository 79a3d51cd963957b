"""The report of one certificate: the JSON document, and the page that is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilens.report.certificate_document import check_certificate
from bilens.report.document import Document
from bilens.report.saved_report import SavedReport


@dataclass(frozen=True)
class CertificateReport(SavedReport):
    """What is proven about a classifier.

    Args:
        document: JSON values as `docs/certifying.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not a certificate document, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "certificate"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_certificate(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.certificate_html import render_certificate  # jinja2 only here

        return render_certificate(self.document, lang)
