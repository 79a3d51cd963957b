"""What the reports of an audit have in common, of one layer or of many."""

from __future__ import annotations

from pathlib import Path

from bilens.base.atomic import write_file
from bilens.report.markdown import audit_markdown
from bilens.report.saved_report import SavedReport


class AuditBase(SavedReport):
    """A report with a verdict."""

    @property
    def passed(self) -> bool:
        """Whether no rule of the verdict failed, and no condition that was asked for."""
        return bool(self.document["passed"])

    @property
    def failed_rules(self) -> tuple[str, ...]:
        """The rules that failed by themselves, and the conditions that failed, as asked for."""
        verdict, conditions = self.document["verdict"], self.document.get("conditions") or []
        return (
            *(finding["rule"] for finding in verdict if finding["outcome"] == "fail"),
            *(item["condition"] for item in conditions if item["failed"]),
        )

    def to_markdown(self, path: str | Path | None = None, lang: str = "en") -> str:
        """Return the report as Markdown, short enough for a comment on a pull request.

        Args:
            path: of the file to write, in one step.
            lang: "en" or "ja".

        Raises:
            UsageError: If there is no report in that language.
            FileError, DiskError: If the file cannot be written.
        """
        text = audit_markdown(self.document, lang)
        if path is not None:
            write_file(Path(path), text.encode("utf-8"))
        return text
