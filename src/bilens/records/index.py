"""How the audits of many models ended: a row each."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Document, Record


class IndexRow(Record, frozen=True):
    """How the audit of one model ended."""

    model: str  # its path, as it was asked for
    outcome: str  # the `answer` of its decision; `unread` where it could not be audited
    exit_code: Count  # that the audit of this model alone would end with
    coverage: float | None  # share of its parameters that was read; null where that is not known
    risk: str  # the largest; empty where the model may be used
    error: str = ""  # why it could not be audited
    page: str = ""  # its own page, beside the index; empty where none was written
    document_sha256: str = ""  # of its document


class AuditIndex(Document, frozen=True, kw_only=True):
    """The audits of many models."""

    kind: Literal["audit_index"] = "audit_index"
    models: tuple[IndexRow, ...]  # the worst first
    version: str  # of bilens

    @property
    def exit_code(self) -> int:
        """The highest exit code of all."""
        return max((row.exit_code for row in self.models), default=0)
