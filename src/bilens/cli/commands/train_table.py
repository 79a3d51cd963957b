"""`bilens train table`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bilens.cli.console import Output
from bilens.cli.options import DeviceOption, Encoding, Overwrite, RunFolder, Track, option
from bilens.train.recipes import TableRecipe

if TYPE_CHECKING:
    from bilens.data.table_rows import TrainingTable
    from bilens.records.column_readings import TableReading
    from bilens.train.newton import NewtonStep
    from bilens.train.tasks.table import TableMetrics


@dataclass(frozen=True)
class TableData:
    """The table, and what is predicted from it."""

    data: Annotated[Path, typer.Argument(help="CSV, Excel or Parquet file with named columns.")]
    target: Annotated[str, typer.Option(help="The column to predict.")]
    task: Literal["auto", "classification", "regression"] = option(
        "auto", "auto: texts, and at most 10 different whole numbers, are classes."
    )
    drop: list[str] | None = option(None, "A column to leave out; may be repeated.")
    encoding: Encoding = None
    test: float = option(0.2, "Share of rows for the test.", min=0.0, max=0.9)

    def read_table(self) -> TrainingTable:
        from bilens.data.table_file import read_table
        from bilens.data.table_rows import training_table

        return training_table(
            read_table(self.data, self.encoding), self.target, task=self.task, drop=self.drop or []
        )


def reading_lines(reading: TableReading) -> list[str]:
    """Return how a table was cleaned, and which of its columns to look at, a line each."""
    from bilens.findings.rules.registry import judge
    from bilens.findings.rules.rule import Evidence
    from bilens.report.sections.overview import finding_line
    from bilens.report.sections.table_cells import lines_on
    from bilens.report.text import load_catalogue

    t, found = load_catalogue("en"), judge("columns", Evidence(reading=reading))
    warned = [finding_line(t, "columns", one).sentence for one in found if one.outcome == "warn"]
    odd = [one for one in reading.done if one.kind in ("sentinel", "decides")]
    plain = [one for one in reading.done if one not in odd]
    warned += lines_on(odd) if odd else []
    return [*lines_on(plain), *(f"! {line}" for line in warned)]


def score_line(metrics: TableMetrics, plain: str) -> str:
    """Return how good a fit is, beside what it would be without one, in one line."""
    judged = (
        f"{metrics.score} {metrics.train_score:.4f} on the {metrics.train_rows} training rows"
        if metrics.test_score is None
        else f"Test {metrics.score} {metrics.test_score:.4f} on {metrics.test_rows} rows"
    )
    chance = "" if metrics.chance_score is None else f" ({plain}: {metrics.chance_score:.4f})"
    return f"{judged}{chance}."


def train_table(
    output: Output,
    source: TableData,
    out: RunFolder,
    changes: Annotated[dict[str, Any], TableRecipe],
    device: DeviceOption = "auto",
    overwrite: Overwrite = False,
    tracker: Track = None,
) -> None:
    """Fit a table exactly: every column, square and pair of columns has one coefficient.

    The fit is a convex problem with one solution; it is saved as a bilinear model that every
    command reads. Columns of text with at most 20 different values become an indicator each.

    Example: bilens train table wine.csv --target cultivar --out runs/wine
    """
    from bilens.api.provenance import this_command, versions
    from bilens.base.files import file_sha256
    from bilens.report.sections.table_cells import lines_on
    from bilens.train.device import find_device
    from bilens.train.run_folder import TEST_NAME
    from bilens.train.tasks.table import TableTask, train_table_in_folder

    recipe = TableRecipe(**changes)
    task = TableTask(source.read_table(), recipe, source.target, source.test, find_device(device))
    table = task.fitted_table
    for line in reading_lines(table.reading):
        output.say(line)
    classes = table.class_names
    kind = "numbers" if classes is None else f"{len(classes)} classes"
    output.say(
        f"{len(table.values)} rows, {len(table.names)} inputs; {source.target!r} holds {kind}."
    )
    name, sha256 = str(source.data), file_sha256(source.data)
    about = {"source": name, "sha256": sha256, "target": source.target}
    provenance = {**versions(), "data_source": name, "data_table_sha256": sha256}
    with output.progress() as progress:

        def show(alpha: float, number: int, _step: NewtonStep) -> None:
            progress("fitting", 0, 1, f"penalty {alpha:g}, iteration {number}")

        metrics, chosen = train_table_in_folder(
            out,
            task,
            about_data=about,
            provenance={"command": this_command(), **provenance},
            overwrite=overwrite,
            report=show,
            tracker=tracker,
            say=output.say,
        )
    for line in lines_on(chosen) if chosen else ():
        output.say(line)
    rows = source.data if metrics.test_score is None else out / TEST_NAME
    output.answer(
        {"schema_version": 1, "kind": "table training", "folder": str(out), **asdict(metrics)},
        score_line(metrics, "the mean" if classes is None else "the most frequent class"),
        f"Model: {out}",
        f"Next:  bilens audit {out} --table {rows} --html report.html",
    )
