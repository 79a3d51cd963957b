"""The reports: a record each, and the JSON, HTML and Markdown that are drawn from it."""

import json
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Generic, Self

import msgspec
from markupsafe import escape
from msgspec.structs import replace

from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import check_path, write_file, write_files, write_new_files
from bilens.findings.rules.registry import check_values
from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import AnyDocument, json_text, kind_of, read_document
from bilens.records.bilinear_conversion import Conversion
from bilens.records.guarantees import Certificate
from bilens.records.history import People
from bilens.records.mlp_trace import Trace
from bilens.records.network_reading import NetworkReading
from bilens.records.sweep_report import SweepSummary
from bilens.report.circuit_graph import build_circuit_graph, graph_slug
from bilens.report.markdown import audit_markdown, network_markdown

NOTEBOOK_HEIGHT = 800  # pixels


class SavedReport(Generic[AnyDocument]):
    """A checked record that can be saved, read again and drawn.

    Args:
        document: the record, or its JSON values; kept as a checked record of its own.

    Raises: UsageError if it is of another kind, of a later schema, or does not fit together;
        NonFiniteError if a number in it is NaN or infinite.
    """

    type: ClassVar[Any]  # of the record; a class variable may not be generic
    record: AnyDocument

    def __init__(self, document: AnyDocument | Mapping[str, object]) -> None:
        values = document if isinstance(document, Mapping) else msgspec.to_builtins(document)
        self.record = read_document(self.type, values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedReport) and self.record == other.record

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record!r})"

    @property
    def document(self) -> dict[str, Any]:
        """The record as JSON values; `record` has the same as attributes, `report.record`."""
        return self.to_dict()

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a report from the JSON file that `to_json` wrote.

        Raises:
            CheckpointError: If the file is missing, damaged, of another kind or of a later schema.
        """
        path = check_path("path", path)
        try:
            document = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from None
        except (ValueError, RecursionError):
            raise CheckpointError(f"{path}: not a JSON file: pass that of a report.") from None
        try:
            return cls(document)
        except BilensError as error:
            raise CheckpointError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        values: dict[str, Any] = json.loads(json_text(self.record))
        return values

    def to_frame(self, table: str | None = None) -> Any:
        """Return a table of the record as a DataFrame of pandas, such as "classes.readings".

        Raises: UsageError if there is no such table, or none is named of several; it lists them;
            MissingExtraError if pandas is not installed.
        """
        return self.record.to_frame(table)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the record as JSON; where a path is given, write it there in one step.

        Raises: FileError, DiskError if the file cannot be written.
        """
        text = json_text(self.record)
        self._written(f"{text}\n", path)
        return text

    def to_html(self, path: str | Path | None = None, lang: str = "en") -> str:
        """Return the report as one HTML page without script; where a path is given, write it there.

        Args:
            path: of the file to write, in one step.
            lang: "en" or "ja".

        Raises: UsageError if there is no report in that language; FileError, DiskError if the file
            cannot be written.
        """
        from bilens.report.html import render_html  # jinja2 is needed only here

        return self._written(render_html(self.record, lang), path)

    def _written(self, text: str, path: str | Path | None) -> str:
        if path is not None:
            write_file(check_path("path", path), text.encode())
        return text

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame that can reach nothing outside itself."""
        return (
            f'<iframe sandbox="" srcdoc="{escape(self.to_html())}" width="100%" '
            f'height="{NOTEBOOK_HEIGHT}" style="border:0" title="bilens {kind_of(self.type)}">'
            "</iframe>"
        )


class AuditReport(SavedReport[Audit]):
    """The audit of a model; `docs/report.md` explains its fields."""

    type = Audit

    def __init__(self, document: Audit | Mapping[str, object]) -> None:
        super().__init__(document)
        check_values(self.record.read_as, self.record.verdict)
        if self.record.decision is not None:
            check_values(self.record.read_as, self.record.decision.risks)

    @property
    def passed(self) -> bool | None:
        """False where something failed; else True, or None where nothing is vouched for."""
        return self.record.passed

    @property
    def failed_rules(self) -> tuple[str, ...]:
        """The rules that failed by themselves, and the conditions that failed, as asked for."""
        conditions = self.record.conditions or ()
        return (
            *(finding.rule for finding in self.record.verdict if finding.outcome == "fail"),
            *(item.condition for item in conditions if item.failed),
        )

    def with_people(self, people: People | None) -> Self:
        """Return the report with what was said of its model, as `History.people` returns it."""
        found = copy(self)
        found.record = replace(self.record, people=people)
        return found

    def to_markdown(self, path: str | Path | None = None, lang: str = "en") -> str:
        """Return the report as Markdown, short enough for a comment on a pull request.

        Arguments and errors are those of `to_html`.
        """
        return self._written(audit_markdown(self.record, lang), path)

    def to_evidence(
        self, folder: str | Path, lang: str = "en", overwrite: bool = False
    ) -> list[Path]:
        """Write the audit into a folder as the evidence that companies keep, all files or none.

        The document, an in-toto test result, a CycloneDX 1.6 ML-BOM, SARIF 2.1.0, JUnit XML and a
        section of a Hugging Face model card; `docs/evidence.md` says what is in each.

        Args:
            folder: to write into; it is made where there is none.
            lang: of the sentences, "en" or "ja".
            overwrite: whether files of these names may be replaced.

        Returns: The files.

        Raises: UsageError if the model was in memory: evidence names files by their SHA-256;
            OutputExistsError if there is a file of such a name already; FileError, DiskError if the
            files cannot be written.
        """
        from bilens.report.evidence import evidence_files  # jinja2 is needed only here

        folder, files = check_path("folder", folder), evidence_files(self.record, lang)
        write_new_files(folder, files, overwrite)
        return [folder / name for name in files]


class CertificateReport(SavedReport[Certificate]):
    """Proven guarantees for a classifier; `docs/certifying.md` explains its fields."""

    type = Certificate


class AttackReport(SavedReport[Attack]):
    """Effects of universal perturbations on a classifier; see `docs/attacking.md`."""

    type = Attack

    @property
    def holds(self) -> bool:
        """Whether none lowered the mean margin more than the optimal one of its length."""
        return self.record.holds


class ConversionReport(SavedReport[Conversion]):
    """The cost and the gain of making MLPs bilinear; see `docs/converting.md`."""

    type = Conversion


class SweepReport(SavedReport[SweepSummary]):
    """The results of a sweep over all layers of a large model."""

    type = SweepSummary


class NetworkReport(SavedReport[NetworkReading]):
    """The rules that a polynomial network holds; see `docs/polynomial.md`."""

    type = NetworkReading

    def to_markdown(self, path: str | Path | None = None, lang: str = "en") -> str:
        """Return the report as Markdown. Arguments and errors are those of `to_html`."""
        return self._written(network_markdown(self.record, lang), path)


class TraceReport(SavedReport[Trace]):
    """How the outputs of one MLP of a language model are built; see `docs/tracing.md`."""

    type = Trace

    def graphs(self) -> dict[str, dict[str, Any]]:
        """Return each circuit as a graph in the layout of circuit-tracer, by file name."""
        record = self.record
        return {
            f"{graph_slug(record, circuit)}.json": build_circuit_graph(record, circuit)
            for circuit in record.circuits
        }

    def to_graphs(self, folder: str | Path) -> list[Path]:
        """Write each circuit as one JSON file of circuit-tracer's layout, all or none.

        Returns: The files; none where the trace was made without autoencoders.

        Raises: FileError, DiskError if the files cannot be written.
        """
        folder = check_path("folder", folder)
        texts = {
            folder / name: f"{json.dumps(graph, allow_nan=False)}\n".encode()
            for name, graph in self.graphs().items()
        }
        if texts:
            folder.mkdir(parents=True, exist_ok=True)
            write_files(texts)
        return list(texts)
