"""What the commands do: load, call, print. Imported when a command runs, since it needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from bilens.algebra.eigen.decomposition import Status
from bilens.cli.console import Output, Reporter, after
from bilens.cli.tables import decomposition_table, explanation_tables, plan_reasons, plan_table
from bilens.data.images import embedded_digits, load_images
from bilens.errors import NumericalError, OutputExistsError, UsageError
from bilens.findings.records import SCHEMA_VERSION
from bilens.io.load import LoadedModel, load
from bilens.report.audit_report import AuditReport
from bilens.report.terminal import audit_table, summary_lines
from bilens.train.loop import EpochMetrics
from bilens.train.recipe import Recipe
from bilens.train.run_folder import train_in_folder
from bilens.workflows.audit import audit
from bilens.workflows.decomposition_folder import decompose_layers
from bilens.workflows.decomposition_request import Request
from bilens.workflows.demo import DEMO_RECIPE, REPORT_NAME, run_demo
from bilens.workflows.explain import explain_image
from bilens.workflows.input_moments import find_moments
from bilens.workflows.judging_data import find_test_data
from bilens.workflows.layer_job import plan_layers
from bilens.workflows.provenance import this_command, versions

FAILED = 1  # an audit condition failed
PATIENCE = 2.0  # seconds before a decomposition reports its progress
Source = tuple[Path, bool | None, bool]  # path, residual, allow_pickle


def run_demo_command(
    output: Output,
    out: Path,
    data_dir: Path | None,
    seed: int,
    lang: str,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens demo`."""
    data = embedded_digits() if data_dir is None else load_images("mnist", data_dir)
    output.say(f"Images: {data.source}")
    recipe = Recipe.from_dict({**DEMO_RECIPE.to_dict(), "seed": seed})
    with output.progress() as progress:
        report = run_demo(
            out,
            data,
            recipe=recipe,
            lang=lang,
            overwrite=overwrite,
            on_epoch=training_progress(progress, recipe.epochs),
            progress=progress,
            say=output.say,
        )
    print_audit(output, report, json)
    if not json:
        output.result.print(f"Report: {out / REPORT_NAME}", highlight=False, soft_wrap=True)
    if not report.passed:
        raise typer.Exit(FAILED)


def run_train_command(
    output: Output,
    out: Path,
    dataset: str,
    data_dir: Path | None,
    download: bool,
    options: dict[str, Any],
    resume: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens train image`."""
    recipe = Recipe.from_dict(options)
    data = load_images(dataset, data_dir, allow_download=download, report=output.say)
    output.say(f"Images: {data.source}")
    with output.progress() as progress:
        result = train_in_folder(
            out,
            data,
            recipe,
            resume=resume,
            overwrite=overwrite,
            provenance={"command": this_command(), **versions()},
            on_epoch=training_progress(progress, recipe.epochs),
            say=output.say,
        )
    last = result.history[-1]
    if json:
        output.json({"schema_version": 1, "kind": "training", "folder": str(out), **last.to_dict()})
        return
    seconds = sum(metrics.seconds for metrics in result.history)
    output.result.print(
        f"Test accuracy {last.test_accuracy:.4f} after {last.epoch} epochs "
        f"({seconds:.1f} s of steps, {seconds / last.epoch:.3f} s each).\n"
        f"Model: {out}\nNext:  bilens audit {out}"
        + ("" if data_dir is None else f" --data-dir {data_dir}"),
        highlight=False,
        soft_wrap=True,
    )


def run_decompose_command(
    output: Output,
    source: Source,
    request: dict[str, Any],
    *,
    layers: Sequence[str],
    dataset: str | None,
    data_dir: Path | None,
    memory_limit: str | None,
    out: Path | None,
    plan: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens decompose`."""
    asked = Request(**request)
    if asked.basis != "whitened" and (dataset is not None or data_dir is not None):
        raise UsageError("only --basis whitened reads data: leave --dataset and --data-dir out.")
    model = open_model(source)
    inputs = None
    if asked.basis == "whitened":
        inputs = find_moments(model, dataset, data_dir, output.say)
    if plan:
        plans = plan_layers(model, asked, layers=layers, inputs=inputs, memory_limit=memory_limit)
        print_plan(output, plans, json)
        return
    with output.progress() as progress:
        records = decompose_layers(
            model,
            asked,
            layers=layers,
            folder=out,
            overwrite=overwrite,
            inputs=inputs,
            memory_limit=memory_limit,
            progress=after(PATIENCE, progress),
        )
    if json:
        output.json({"schema_version": SCHEMA_VERSION, "kind": "decomposition", "layers": records})
    else:
        for record in records:
            output.result.print(decomposition_table(record))
    if out is not None:
        output.say(f"Pairs and records: {out}")
    complain(records)


def print_plan(output: Output, plans: Sequence[dict[str, Any]], json: bool) -> None:
    """Print what would be done: JSON, or a table and the reasons."""
    if json:
        document = {"schema_version": SCHEMA_VERSION, "kind": "decomposition plan"}
        output.json({**document, "layers": [*plans]})
        return
    output.result.print(plan_table(plans))
    for line in plan_reasons(plans):
        output.result.print(line, highlight=False, markup=False, soft_wrap=True)


def complain(records: Sequence[dict[str, Any]]) -> None:
    """Refuse to end as if all were well where outputs were not decomposed.

    Raises:
        NumericalError: With their number.
    """
    outputs = [item for record in records for item in record["outputs"]]
    failed = [item for item in outputs if item["status"] != Status.OK.value]
    if failed:
        raise NumericalError(
            f"{len(failed)} of {len(outputs)} outputs were not decomposed: "
            "rescale the weights, or read the outputs that are complete."
        )


def run_audit_command(
    output: Output,
    source: Source,
    *,
    dataset: str | None,
    data_dir: Path | None,
    html: Path | None,
    lang: str,
    null_samples: int,
    seed: int,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens audit`."""
    refuse_existing(html, overwrite)
    model = open_model(source)
    data = find_test_data(model, dataset, data_dir, output.say)
    with output.progress() as progress:
        report = audit(model, data, null_samples=null_samples, seed=seed, progress=progress)
    if html is not None:
        report.to_html(html, lang=lang)
    print_audit(output, report, json)
    if html is not None and not json:
        output.result.print(f"Report: {html}", highlight=False)
    if not report.passed:
        raise typer.Exit(FAILED)


def run_explain_command(
    output: Output,
    source: Source,
    indices: Sequence[int],
    *,
    dataset: str | None,
    data_dir: Path | None,
    json: bool,
) -> None:
    """`bilens explain`."""
    model = open_model(source)
    data = find_test_data(model, dataset, data_dir, output.say)
    if data is None:
        raise UsageError(
            "an explanation needs the test images: pass --data-dir with the IDX files of the data "
            "set, and --dataset where the model does not say it."
        )
    document = explain_image(model, data, indices)
    if json:
        output.json(document)
        return
    for table in explanation_tables(document):
        output.result.print(table)


def open_model(source: Source) -> LoadedModel:
    """Return the model that the options of a command name."""
    path, residual, allow_pickle = source
    return load(path, residual=residual, allow_pickle=allow_pickle)


def refuse_existing(path: Path | None, overwrite: bool) -> None:
    """Refuse to write over a file or a folder, before any work is done."""
    if path is not None and path.is_dir():
        raise OutputExistsError(f"{path} is a folder; expected a file: add a name in it.")
    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} exists already: choose another file, or replace it with --overwrite."
        )


def print_audit(output: Output, report: AuditReport, json: bool) -> None:
    """Print the result of an audit: JSON, or a short table and the verdict."""
    if json:
        output.json(report.to_dict())
        return
    output.result.print(audit_table(report.to_dict()))
    for line in summary_lines(report.to_dict()):
        output.result.print(line, highlight=False, markup=False, soft_wrap=True)


def training_progress(progress: Reporter, epochs: int) -> Any:
    """Return a callback that shows each epoch."""

    def show(metrics: EpochMetrics) -> None:
        text = f"loss {metrics.train_loss:.4f}, test accuracy {metrics.test_accuracy:.4f}"
        progress("training", metrics.epoch, epochs, text)

    return show
