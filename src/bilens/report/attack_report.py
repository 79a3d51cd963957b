"""The report of one attack: the JSON document, and the page that is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bilens.report.attack_document import check_attack
from bilens.report.document import Document
from bilens.report.saved_report import SavedReport


@dataclass(frozen=True)
class AttackReport(SavedReport):
    """What universal masks do to a classifier.

    Args:
        document: JSON values as `docs/attacking.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not an attack document, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "attack"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_attack(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.attack_html import render_attack  # jinja2 is needed only here

        return render_attack(self.document, lang)

    @property
    def holds(self) -> bool:
        """Whether no mask lowered the mean margin more than the optimal one of its length."""
        return bool(self.document["holds"])
