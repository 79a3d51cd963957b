"""`bilens sweep`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from bilens.base.errors import UsageError
from bilens.base.option_rules import RULES, refuse_idle
from bilens.cli.console import Output
from bilens.cli.options import (
    FAILED,
    METHOD_PANEL,
    RUN_PANEL,
    check_outputs,
    flags_of,
    option,
    refuse_unless,
)
from bilens.cli.shared_options import HtmlReport
from bilens.findings.rules.registry import condition_help, parse_conditions

if TYPE_CHECKING:
    from bilens.sweep.driver import SweepState
    from bilens.sweep.manifest import Plan

SHOWN = 8
UNFINISHED = 4  # exit code
WORKERS = (1, 64, 1024)  # for which the hours are told


@dataclass(frozen=True)
class SweepSettings:
    """The tasks of a sweep and their options, the same for every layer."""

    PANEL: ClassVar = METHOD_PANEL

    do: str = option(
        "audit", "Tasks, with commas: audit, fit, decompose, compare, convert, trace.", panel=""
    )
    baseline: str | None = option(
        None, "The model that compare compares with; of `report`, another sweep.", panel=""
    )
    activations: str | None = option(
        None, "Folder of LAYER.safetensors, (rows, in): what fit and convert fit to.", panel=""
    )
    directions: int = option(16, "Leading output directions (decompose, trace).", min=1)
    top: int = option(5, "Eigenpairs of each direction.", min=1)
    layer_steps: int = option(0, "Steps of training behind the closed form (convert).", min=0)
    samples: int = option(2000, "Random inputs that R² is measured on.", min=100)
    null_samples: int = option(19, "Draws of the null distribution (audit).", min=3)
    threshold: float = option(0.9, "R² from which an approximation is read.", min=0, max=1)
    seed: int = option(0, "Seed of all of it.", min=0)
    threads: int = option(1, "Threads of one piece of work; part of the result's bits.", min=1)


@dataclass(frozen=True)
class SweepRun:
    """Where the work is done."""

    PANEL: ClassVar = RUN_PANEL

    out: str | None = option(None, "Folder or URL for the results.", metavar="PLACE", panel="")
    engine: str = option("local", "local, ray or slurm.")
    engine_option: list[str] | None = option(None, "NAME=VALUE for the engine; can be repeated.")
    workers: int | None = option(None, "Jobs at a time.", min=1)
    plan: bool = option(False, "Say what there is to do, and stop.")

    def engine_options(self) -> dict[str, str]:
        pairs = [text.partition("=") for text in self.engine_option or ()]
        for name, equals, _ in pairs:
            if not name or not equals:
                raise UsageError(f"--engine-option {name!r}; expected NAME=VALUE.")
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class SweepPages(HtmlReport):
    """The files that `sweep report` writes, and the findings that fail it."""

    PANEL = "Report"

    table: Path | None = option(
        None, "Write every layer with all its numbers to this Parquet file."
    )
    fail_on: list[str] | None = option(None, condition_help())

    def __post_init__(self) -> None:
        """Take all of it without --html, too."""


def sweep(
    output: Output,
    model: Annotated[list[str], typer.Argument(help="A model; or: status FOLDER, report FOLDER.")],
    settings: SweepSettings,
    run: SweepRun,
    pages: SweepPages,
) -> None:
    """Do the same with every layer of a large model, on this machine or a cluster.

    Exit code 4 if something failed in the end; what was done is kept, and the same command goes on.

    Example: bilens sweep models/SmolLM2 --do fit,audit --out runs/sweep --workers 2
    """
    if model[0] == "report" and len(model) == 2:
        refuse_unless(
            [*flags_of(replace(settings, baseline=None)), *flags_of(run)], "a model to sweep"
        )
        report_sweep(output, model[1], pages, settings.baseline)
        return
    refuse_unless(flags_of(pages), "`sweep report FOLDER`")
    from bilens.records.sweep import SweepOptions
    from bilens.sweep.driver import drive, ended, plan_of
    from bilens.sweep.engines.contract import open_engine
    from bilens.sweep.manifest import kept_plan
    from bilens.sweep.output import SweepOutput as Place
    from bilens.sweep.report import report_of

    if model[0] == "status" and len(model) == 2:
        place = Place(model[1])
        plan = kept_plan(place)
        if plan is None:
            raise UsageError(f"{model[1]} holds no sweep: give the folder of one.")
        found = ended(plan, place)
        output.answer(status_of(plan, found), *status_lines(plan, found))
        return
    if len(model) != 1 or run.out is None:
        raise UsageError("give one model and --out FOLDER, or `status FOLDER`, or `report FOLDER`.")
    given = dict(vars(settings))
    tasks = tuple(dict.fromkeys(filter(None, given.pop("do").split(","))))  # each once
    facts = [need for need in RULES["sweep"] if {*tasks} & {*re.findall(r"\w+", need)}]
    seen = settings.activations is not None
    facts.append("with --activations" if seen else "without --activations")
    refuse_idle("sweep", given, *facts)
    options, place = SweepOptions(tasks=tasks, **given), Place(run.out)
    plan = plan_of(model[0], options, place)
    if run.plan:
        output.answer(totals(plan), *plan_lines(plan))
        return
    with output.progress() as progress:
        found = drive(
            plan,
            place,
            lambda: open_engine(run.engine, run.workers, options.threads, run.engine_options()),
            progress,
            output.say,
        )
        report_of(place, progress=progress)
    output.answer(status_of(plan, found), *status_lines(plan, found))
    if not found.is_complete:
        raise typer.Exit(UNFINISHED)


def status_of(plan: Plan, found: SweepState) -> dict[str, Any]:
    wanted = {"results": found.pieces, "wanted": found.wanted, "failed": dict(found.failed)}
    return {"model": plan.head.path, "tasks": [*plan.head.options.tasks], **wanted}


def status_lines(plan: Plan, found: SweepState) -> Iterator[str]:
    """Yield how far a sweep is, and what failed in the end."""
    yield f"{plan.head.path}: {found.pieces:,} of {found.wanted:,} results"
    for name, fault in [*found.failed.items()][:SHOWN]:
        task, row = name.split()
        yield f"{task} of {plan.rows[int(row)].name} failed: {fault}"
    if len(found.failed) > SHOWN:
        yield f"… and {len(found.failed) - SHOWN:,} more, in failed.json"


def totals(plan: Plan) -> dict[str, Any]:
    """Return jobs, bytes, hours and memory of a plan."""
    jobs = plan.jobs(range(len(plan.rows)))
    seconds, longest = sum(job.seconds for job in jobs), max(job.seconds for job in jobs)
    return {
        "model": plan.head.path,
        "layers": len(plan.rows),
        "jobs": len(jobs),
        "bytes": sum(row.num_bytes for row in plan.rows),
        "peak_bytes": max(job.num_bytes for job in jobs),
        "hours": {str(n): max(seconds / n, longest) / 3600 for n in WORKERS},
    }


def plan_lines(plan: Plan) -> Iterator[str]:
    from bilens.base.memory import readable

    found, kinds = totals(plan), Counter(row.family for row in plan.rows)
    yield f"{plan.head.path}: {found['layers']:,} layers in {found['jobs']:,} jobs"
    yield from (f"  {count:,} × {kind}" for kind, count in kinds.most_common(SHOWN))
    read, memory = readable(found["bytes"]), readable(found["peak_bytes"])
    yield f"Bytes to read: {read}; memory of a job: {memory}"
    hours = ", ".join(f"{hours:.2g} on {n}" for n, hours in found["hours"].items())
    yield f"Estimated hours of one-core workers: {hours}"


def report_sweep(output: Output, place: str, pages: SweepPages, baseline: str | None) -> None:
    """Report what a sweep found; exit code 1 if a condition fails, or cannot be judged."""
    check_outputs([("--html", pages.html), ("--table", pages.table)], overwrite=True)
    conditions = parse_conditions(tuple(pages.fail_on or ()), data=True, baseline=True)
    from bilens.base.files import write_file
    from bilens.report.reports import SweepReport
    from bilens.report.sections.sweep_page import sweep_lines
    from bilens.report.text import load_catalogue
    from bilens.sweep.output import SweepOutput as Place
    from bilens.sweep.report import report_of, table_of

    with output.progress() as progress:
        swept, found = report_of(Place(place), conditions, baseline, progress)
    report = SweepReport(found)
    said = pages.write(report)
    if pages.table is not None:
        write_file(pages.table, table_of(swept).to_parquet(index=False))
        said.append(f"Table: {pages.table}")
    lines = sweep_lines(load_catalogue(pages.lang), report.record)
    output.answer(report.to_dict() if output.as_json else {}, *lines, *said)
    if report.record.failed:
        raise typer.Exit(FAILED)
