"""`bilens audit`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import typer
from msgspec import structs

from bilens.api.options import AuditOptions
from bilens.base.errors import BilensError, MemoryLimitError, UsageError
from bilens.base.files import write_file
from bilens.base.option_rules import of_several
from bilens.cli.console import Output
from bilens.cli.options import FAILED, Lang, Overwrite, any_model, check_outputs, option
from bilens.cli.shared_options import DataFiles, NamedFile, SeenText
from bilens.findings.rules.registry import parse_conditions
from bilens.records.decision import AuditIndex, IndexRow
from bilens.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bilens.api.history import History
    from bilens.records.inventory import FileEntry
    from bilens.report.reports import AuditReport


@dataclass(frozen=True, kw_only=True)
class AuditChoices(SeenText, AuditOptions):
    """The options of `bilens audit`: those of `bl.audit`, what layers see, and a history."""

    history: Path | None = option(
        None, "Folder that keeps every audit, and in which findings can be accepted for a time."
    )

    def open_history(self) -> History | None:
        """Return the history, where one is kept."""
        if self.history is None:
            return None
        from bilens.api.history import History

        return History(self.history)

    def add_people(self, report: AuditReport) -> AuditReport:
        """Return a report with what people said of the model, where a history is kept."""
        if (history := self.open_history()) is None:
            return report
        name, run = history.name_of(report.record.source.path), report.record.reproduce
        return report.with_people(history.people(name, run.identity))

    def remembered(self, report: AuditReport, say: Callable[[str], None]) -> bool:
        """Record an audit where it is asked for; return whether it failed in what is not accepted.

        A rule that was accepted fails nothing until the acceptance ends, for the same weights,
        reading, data, baseline and options, and for a value that is no worse.
        """
        if (history := self.open_history()) is None:
            return report.passed is False
        from bilens.report.sections.people import judged_lines
        from bilens.report.text import load_catalogue

        audit = history.add(report.record)
        accepted = history.accepted(audit.model)
        for rule in audit.failed:
            if entry := accepted.get(rule):
                until = "" if entry.until is None else f" until {entry.until}"
                say(f"Accepted by {entry.author}{until}: {rule} ({entry.text})")
        for line in judged_lines(
            load_catalogue("en"), report.record, {*audit.failed} - {*accepted}
        ):
            say(line)
        say(f"Recorded as audit {audit.number} of {history.path}")
        return history.still_fails(report.record, accepted)


@dataclass(frozen=True)
class AuditedModels(NamedFile):
    """One model, or many."""

    UNCHECKED: ClassVar = ("model",)  # a folder of models, or one of many that is no good
    more: Annotated[
        list[Path] | None,
        typer.Argument(help="More models, for one index of all; so does a folder of models."),
    ] = None

    staged: bool = option(
        False,
        "Of a file of weights in the folder of a model audit that folder, once: for pre-commit.",
    )

    def each(self) -> list[AuditedModels]:
        """Return every model by itself; of a folder of models those that are in it."""
        paths, given = list[Path](), [self.model, *(self.more or ())]
        if self.staged:
            from bilens.io.file_kinds import folder_of_weights

            given = [*dict.fromkeys(map(folder_of_weights, given))]
        for path in given:
            if path.is_dir():
                from bilens.io.file_kinds import models_in

                found = models_in(path, any_kind=True)
                paths += found if len(found) > 1 else [path]  # whose other files are of the one
            else:
                paths.append(path)
        if len(paths) == 1:
            any_model(paths[0])
        return [replace(self, model=path, more=None) for path in paths]


@dataclass(frozen=True)
class AuditPages:
    """The pages that are written about an audit."""

    html: Path | None = option(None, "Write the report to this HTML file.")
    markdown: Path | None = option(
        None, "Write Markdown for a pull request to this file; - for stdout."
    )
    pdf: Path | None = option(None, "Print the HTML report to this PDF file; needs Chromium.")
    evidence: Path | None = option(
        None, "Write in-toto, CycloneDX, SARIF, JUnit and a Hugging Face model card to this folder."
    )
    lang: Lang = option("en", "Language of tables, findings and reports; messages are in English.")

    @property
    def on_stdout(self) -> bool:
        return str(self.markdown) == "-"

    @property
    def files(self) -> dict[str, Path]:
        markdown = None if self.on_stdout else self.markdown
        named = {"--html": self.html, "--pdf": self.pdf, "--markdown": markdown}
        return {option: path for option, path in named.items() if path is not None}

    def list_files(self) -> list[str]:
        evidence = [] if self.evidence is None else [f"Evidence: {self.evidence}"]
        return [f"Report: {path}" for path in self.files.values()] + evidence

    def check(self, overwrite: bool, models: Sequence[Path]) -> None:
        """Refuse what may not be written, or would count as part of a model, before any work."""
        named = [*self.files.items()]
        for flag, path in named:
            inside = any(one.is_dir() and one.resolve() in path.resolve().parents for one in models)
            if inside and path.suffix not in (".html", ".md", ".pdf"):  # else it is no part of it
                raise UsageError(
                    f"{flag} {path} lies in the folder of a model, and would count as one of its "
                    f"files: write it elsewhere, or name it {path.stem}.html, .md or .pdf."
                )
        if self.evidence is not None:
            from bilens.report.evidence import DOCUMENT, FORMATS

            named += [("--evidence", self.evidence / name) for name in (DOCUMENT, *FORMATS)]
        check_outputs(named, overwrite)
        if self.pdf is not None:
            from bilens.report.html import find_chromium

            find_chromium()

    def pages_of_model(self, name: str) -> AuditPages:
        """Return the pages of one of many models: beside the index, evidence in its own folder."""
        page, evidence = self.html, self.evidence
        return replace(
            self,
            html=None if page is None else page.with_name(f"{name}.html"),
            pdf=None if self.pdf is None else self.pdf.with_name(f"{name}.pdf"),
            markdown=None,
            evidence=None if evidence is None else evidence / name,
        )

    def write(self, report: AuditReport, overwrite: bool) -> None:
        if self.html is not None:
            report.to_html(self.html, lang=self.lang)
        if self.pdf is not None:
            from bilens.report.html import write_pdf

            write_pdf(report.to_html(lang=self.lang), self.pdf)
        if self.markdown is not None and not self.on_stdout:
            report.to_markdown(self.markdown, lang=self.lang)
        if self.evidence is not None:
            report.to_evidence(self.evidence, self.lang, overwrite)


def audit(
    output: Output,
    source: AuditedModels,
    data: DataFiles,
    options: AuditChoices,
    pages: AuditPages,
    overwrite: Overwrite = False,
) -> None:
    """Read a model and report what its weights say; exit code 1 if a condition fails.

    Of several models, or a folder of them, one index is written, and the exit code is the highest.

    Example: bilens audit runs/mnist --data data --html report.html --lang ja
    """
    if pages.on_stdout and output.as_json:
        raise UsageError(
            "--json and --markdown - both print on stdout: write one of them to a file."
        )
    options.open_history()  # refuses what is none, before any work is done
    folders = [path for path in (source.model, *(source.more or ())) if path.is_dir()]
    source, *others = source.each()
    if others:
        audit_many(output, [source, *others], folders, data, options, pages, overwrite)
        return
    pages.check(overwrite, [source.model])
    report = read_and_judge(output, source, data, options)
    for folder in folders:
        from bilens.io.file_kinds import models_in
        from bilens.report.terminal import file_lines

        own = models_in(folder, any_kind=True)
        held = [replace(source, model=one) for one in own if one != folder]
        listed = [*files_of_models(folder, held)] if held else []
        found = AuditIndex(models=(), files=(*listed,), version=VERSION)
        for line in file_lines(found, pages.lang):
            output.say(line)
    pages.write(report, overwrite)
    if pages.on_stdout:
        output.result.out(report.to_markdown(lang=pages.lang), highlight=False, end="")
    else:
        print_audit(output, report, pages.lang, *pages.list_files())
    if report.failed_rules:
        output.say(f"Failed: {', '.join(report.failed_rules)}")
    asked = report.to_dict()["conditions"] or []
    for ground, why in (
        ("", "Nothing to judge in this model, or not in all of it, so counted as failed"),
        (
            "assumed",
            "Known on an assumed input alone, which is no real one, so counted as failed (give "
            "--data or --text)",
        ),
    ):
        of = [one for one in asked if one["value"] is None and one["ground"] == ground]
        if of:
            output.say(f"{why}: {', '.join(one['condition'] for one in of)}")
    if options.remembered(report, output.say):
        raise typer.Exit(FAILED)


def read_and_judge(
    output: Output, source: AuditedModels, data: DataFiles, options: AuditChoices
) -> AuditReport:
    found: dict[str, Any] = {"data": True, "baseline": options.baseline is not None}
    parse_conditions(options.fail_on, **found)  # without torch
    from bilens.api.audit_model import audit as audit_model
    from bilens.api.given_data import runs_on_files

    model, before = source.open_pair(cast(Path | None, options.baseline), output.say)
    files = data.path_of_files() if runs_on_files(model) else None
    given = None if files is not None else data.find(model, output.say)
    found = {"data": given, "baseline": before, "train_labels": None}
    if options.train_data is not None:
        path = cast(Path, options.train_data)
        of_training = replace(data, data=[path], labels=options.train_labels)
        found["train_data"] = of_training.find(model, output.say, training=True)
    with output.progress() as progress:
        found["inputs"] = options.layer_inputs(
            source.model, [], options.seed, progress, model, files
        )
        report = audit_model(model, options, progress=progress, **found)
    return options.add_people(report)


def audit_many(
    output: Output,
    sources: list[AuditedModels],
    folders: list[Path],
    data: DataFiles,
    options: AuditChoices,
    pages: AuditPages,
    overwrite: bool,
) -> None:
    """Audit one model after another; one that cannot be audited does not stop the others."""
    from bilens.records.base import to_json
    from bilens.report.html import render_index
    from bilens.report.sections.decision_page import index_row, rank_rows
    from bilens.report.terminal import file_lines, index_table

    if pages.markdown is not None:
        raise UsageError("--markdown is of one model: leave it out, or audit each alone.")
    if pages.html is not None and pages.html.suffix not in (".html", ".htm"):
        pages = replace(pages, html=pages.html / "index.html")
    index_name = "index" if pages.html is None else pages.html.stem
    names = distinct([source.model for source in sources], index_name)
    each = [pages.pages_of_model(name) for name in names]
    for one in (pages, *each):
        one.check(overwrite, [source.model for source in sources])
    files = tuple(entry for folder in folders for entry in files_of_models(folder, sources))
    rows, documents = [], {}
    for number, (source, own) in enumerate(zip(sources, each, strict=True), 1):
        path = str(source.model)
        output.say(f"Model {number} of {len(sources)}: {path}")
        try:
            with of_several():
                report = read_and_judge(output, source, data, options)
            own.write(report, overwrite)
            failed = options.remembered(report, output.say)
        except (BilensError, MemoryError) as error:
            told = told_of(error)
            output.say(f"error: {told}")
            code = getattr(error, "exit_code", MemoryLimitError.exit_code)
            rows.append(IndexRow(path, "unread", code, None, "", told))
        else:
            page = "" if own.html is None else own.html.name
            rows.append(index_row(report.record, path, page, pages.lang, failed))
            documents[path] = report.to_dict() if output.as_json else {}
        index = AuditIndex(models=rank_rows(rows), files=files, version=VERSION)
        if pages.html is not None:  # after each, so that what is done is never lost
            write_file(pages.html, render_index(index, pages.lang).encode())
    document = to_json(index)
    document["models"] = [
        to_json(row) | {"audit": documents.get(row.model)} for row in index.models
    ]
    said = replace(pages, pdf=None).list_files()
    output.answer(document, index_table(index, pages.lang), *file_lines(index, pages.lang), *said)
    raise typer.Exit(index.exit_code)


def files_of_models(folder: Path, sources: list[AuditedModels]) -> Iterator[FileEntry]:
    """Yield every file of a folder; those of a model that is audited are read."""
    from bilens.io.inventory import list_files

    audited = [source.model for source in sources]
    for entry in list_files(folder):
        path = folder / entry.name
        mine = entry.state == "listed" and any(one in (path, *path.parents) for one in audited)
        yield structs.replace(entry, state="read") if mine else entry


def distinct(paths: list[Path], index: str = "index") -> list[str]:
    """Return names of pages: of each model the end of its path, with a number where it is taken."""
    names: list[str] = []
    for path in paths:
        name = path.resolve().name if path.name in ("", "..") else path.name
        taken = {*names, index}
        more = (f"{name}-{number}" for number in count(2))
        names.append(name if name not in taken else next(one for one in more if one not in taken))
    return names


def print_audit(output: Output, report: AuditReport, lang: str, *more: str) -> None:
    """Print the result of an audit: JSON, or a short table, the verdict and more."""
    from bilens.report.terminal import audit_table, verdict_lines

    lines = verdict_lines(report.record, lang)
    output.answer(report.to_dict(), audit_table(report.record, lang), *lines, *more)


def told_of(error: BilensError | MemoryError) -> str:
    """Return why one of many models was not audited, with the command that would audit it."""
    if not isinstance(error, BilensError) or not error.retries:
        return str(error)
    runs = (one.line("bilens", "audit") for one in error.retries)
    return f"{error.sentence} Run: {'; '.join(runs)}"
