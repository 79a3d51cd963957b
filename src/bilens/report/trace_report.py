"""The report of one trace: the JSON document, and what is drawn from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bilens.base.atomic import write_files
from bilens.report.circuit_graph import circuit_graph, graph_name
from bilens.report.document import Document
from bilens.report.saved_report import SavedReport
from bilens.report.trace_document import check_trace


@dataclass(frozen=True)
class TraceReport(SavedReport):
    """How the outputs of one MLP of a language model are built from its inputs.

    Args:
        document: JSON values as `docs/tracing.md` says; kept as a checked copy.

    Raises:
        UsageError: If it is not a document of a trace, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    kind: ClassVar[str] = "trace"

    @staticmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""
        return check_trace(document)

    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""
        from bilens.report.trace_html import render_trace  # jinja2 is needed only here

        return render_trace(self.document, lang)

    def graphs(self) -> dict[str, dict[str, Any]]:
        """Return each circuit as a graph in the layout of circuit-tracer, by file name."""
        return {
            graph_name(self.document, circuit): circuit_graph(self.document, circuit)
            for circuit in self.document["circuits"]
        }

    def to_graphs(self, folder: str | Path) -> list[Path]:
        """Write each circuit as one JSON file of circuit-tracer's layout, all or none.

        Returns:
            The files; none where the trace was made without autoencoders.

        Raises:
            FileError, DiskError: If the files cannot be written.
        """
        folder = Path(folder)
        texts = {
            folder / name: f"{json.dumps(graph, allow_nan=False)}\n".encode()
            for name, graph in self.graphs().items()
        }
        if texts:
            folder.mkdir(parents=True, exist_ok=True)
            write_files(texts)
        return list(texts)
