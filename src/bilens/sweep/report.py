"""Reads the output of a sweep: all numbers, and of records only what the rules judge."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from bilens.api.provenance import describe_run
from bilens.base import Progress, silent
from bilens.base.errors import BilensError, FileError, UsageError, optional_package
from bilens.findings.fits import fit_quality
from bilens.findings.layer_walk import with_norm_scores
from bilens.findings.outliers import THRESHOLD, Values, number_change, swept_number
from bilens.findings.rules.registry import Condition, judge, judge_conditions, rules_asked_for
from bilens.findings.rules.rule import Evidence, list_names
from bilens.records.base import json_text, read_document
from bilens.records.common import Finding, JudgedCondition, LayeredModel, Run
from bilens.records.decomposition import LayerFit
from bilens.records.layer_readings import BaselineSource, LayerDifference, LayerReading
from bilens.records.sweep import SweepOptions, SweepResult
from bilens.records.sweep_report import Reason, SweepChange, SweepSummary, TaskCount
from bilens.sweep.driver import FAILED
from bilens.sweep.manifest import Plan, kept_plan
from bilens.sweep.output import SweepOutput

REPORT = "report.json"  # beside the manifest, where the explorer finds it
TOGETHER = 100  # files that are fetched at a time
DIGITS = re.compile(r"\d+")
Key = tuple[str, str]  # task and number
Piece = tuple[str, int]  # task and row


@dataclass
class SweepResults:
    """The results of a sweep, in memory: a few numbers of each row."""

    plan: Plan
    numbers: dict[Key, Values] = field(default_factory=dict)
    done: set[Piece] = field(default_factory=set)  # results, also those of a refusal
    refused: dict[Piece, str] = field(default_factory=dict)
    failed: dict[Piece, str] = field(default_factory=dict)
    readings: dict[int, LayerReading] = field(default_factory=dict)
    changes: list[LayerDifference] = field(default_factory=list)

    def take(self, found: SweepResult) -> None:
        """Take the numbers of a result, and what rules need of its record."""
        task, row = found.task, self.plan.rows[found.row]
        self.done.add((task, row.index))
        if found.refused is not None:
            self.refused[task, row.index] = found.refused
            if task == "compare":
                self.changes.append(LayerDifference(row.name, False, found.refused))
            return
        for name, value in found.numbers.items():
            if (task, name) not in self.numbers:
                self.numbers[task, name] = np.full(len(self.plan.rows), np.nan)
            self.numbers[task, name][row.index] = np.nan if value is None else value
        if task == "audit":
            reading = msgspec.convert(found.record, LayerReading)
            if outputs := reading.outputs:
                reading = replace(reading, outputs=replace(outputs, pairs=(), output_parts=()))
            self.readings[row.index] = reading
        elif task == "fit" and "audit" not in self.plan.head.options.tasks:
            fit = msgspec.convert(found.record, LayerFit)
            self.readings[row.index] = LayerReading(
                name=row.name,
                kind=row.kind,
                activation=row.activation,
                exact=fit.exact,
                d_input=row.d_in,
                d_hidden=row.d_hidden,
                d_output=row.d_out,
                class_centred=False,
                fit=None if fit.exact else fit_quality(fit),
            )
        elif task == "compare":
            change = msgspec.convert(found.record, LayerDifference)
            self.changes.append(replace(change, output_parts=(), triggers=(), token_pairs=()))


def read_sweep(output: SweepOutput, progress: Progress = silent) -> SweepResults:
    """Read every result of a sweep; FileError where one is damaged or of another manifest."""
    plan = kept_plan(output)
    if plan is None:
        raise UsageError(f"{output.place} holds no sweep: give the folder of one.")
    swept = SweepResults(plan)
    names = sorted(name for name in output.names("results") if name.endswith(".json"))
    for done, (name, data) in enumerate(contents(output, names), 1):
        try:
            found = msgspec.json.decode(data, type=SweepResult)
            if found.manifest != plan.sha256:
                raise ValueError("it is of another manifest")
            swept.take(found)
        except (ValueError, IndexError) as error:  # msgspec's are of these
            raise FileError(
                f"{output.place}: results/{name} is no result of this sweep ({error}): remove it, "
                "and repeat the sweep."
            ) from None
        progress("results", done, len(names))
    for key, fault in json.loads(output.read_bytes(FAILED) or b"{}").items():
        piece = key.split()[0], int(key.split()[1])
        if piece not in swept.done:  # since
            swept.failed[piece] = fault
    return swept


def contents(output: SweepOutput, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield results; many are fetched at a time."""
    left = iter(names)
    while part := [*islice(left, TOGETHER)]:
        paths = [output.path(f"results/{name}") for name in part]
        try:
            found = output.files.cat_ranges(paths, None, None, on_error="raise")
        except OSError as error:
            raise FileError(f"{output.place}: results cannot be read ({error}).") from error
        yield from zip(part, found, strict=True)


def report_of(
    output: SweepOutput,
    conditions: Sequence[Condition] = (),
    baseline: str | None = None,
    progress: Progress = silent,
) -> tuple[SweepResults, SweepSummary]:
    """Summarise a sweep, beside another one, and write it where the explorer finds it."""
    other = None if baseline is None else summary_at(SweepOutput(baseline))
    swept = read_sweep(output, progress)
    run = describe_run(None, swept.plan.head.options.seed)
    found = summary_of(swept, conditions, other, run)
    output.write(REPORT, f"{json_text(found)}\n".encode())
    return swept, found


def summary_at(output: SweepOutput) -> SweepSummary:
    """Return the report that lies in a sweep."""
    data = output.read_bytes(REPORT)
    if data is None:
        raise UsageError(
            f"{output.place} holds no report of a sweep: run `bilens sweep report` on it first."
        )
    try:
        found: SweepSummary = read_document(SweepSummary, json.loads(data))
    except (ValueError, BilensError) as error:
        raise FileError(f"{output.place}: {REPORT} is damaged ({error}): report anew.") from None
    return found


def summary_of(
    swept: SweepResults, conditions: Sequence[Condition], baseline: SweepSummary | None, run: Run
) -> SweepSummary:
    """Return the report of a sweep, beside another one where there is one."""
    head, rows = swept.plan.head, swept.plan.rows
    names, kinds = tuple(row.name for row in rows), [row.family for row in rows]
    ordered = [kind for kind, _ in Counter(kinds).most_common()]
    groups = defaultdict[str, list[LayerReading]](list)
    for row, reading in sorted(swept.readings.items()):
        groups[kinds[row]].append(reading)
    layers = [layer for group in groups.values() for layer in with_norm_scores(group)]
    evidence = Evidence(layers=(*layers,), changes=(*swept.changes,), around=head.around)
    verdict = judge("layers", evidence)
    about = head.source.provenance
    stored = about.get("stored_as") or ", ".join(
        {part.dtype: "" for row in rows for part in row.parts}
    )
    found = SweepSummary(
        model=LayeredModel(about.get("format", "bilens"), len(rows), stored),
        options=head.options,
        names=names,
        kinds=(*ordered,),
        kind_of_row=tuple(map(ordered.index, kinds)),
        tasks=tuple(count_of(swept, task) for task in head.options.tasks),
        reasons=(*reasons(swept),),
        threshold=THRESHOLD,
        numbers=tuple(swept_number(*key, one, kinds, names) for key, one in swept.numbers.items()),
        verdict=verdict,
        conditions=(*judged(swept, conditions, verdict),) if conditions else None,
        source=head.source,
        reproduce=run,
    )
    return found if baseline is None else replace(found, difference=change_of(found, baseline))


def judged(
    swept: SweepResults, asked: Sequence[Condition], verdict: Sequence[Finding]
) -> Iterator[JudgedCondition]:
    """Yield how conditions ended: where layers lack what a rule judges, none has been met."""
    for one in judge_conditions("layers", asked, verdict):
        needs = rules_asked_for()[one.rule].needs
        compared = {row for task, row in swept.done - swept.refused.keys() if task == "compare"}
        there = len(compared if needs == "baseline" else swept.readings)
        met = one.failed or there == len(swept.plan.rows)
        yield one if met else replace(one, value=None, failed=True)


def count_of(swept: SweepResults, task: str) -> TaskCount:
    pieces = swept.refused, swept.failed, swept.done
    refused, failed, done = (sum(each == task for each, _ in those) for those in pieces)
    missing = len(swept.plan.rows) - done - failed
    return TaskCount(task, done - refused, refused, failed, missing)


def reasons(swept: SweepResults) -> Iterator[Reason]:
    """Yield why results are lacking; those that differ in name and numbers alone are one."""
    states: tuple[Literal["failed", "refused"], ...] = ("failed", "refused")
    found = defaultdict[Any, list[tuple[str, str, str]]](list)
    for state in states:
        for (task, row), fault in getattr(swept, state).items():
            name = swept.plan.rows[row].name
            key = state, DIGITS.sub("0", fault.replace(name, ""))
            found[key].append((task, name, fault))
    for (state, _), those in sorted(found.items(), key=lambda item: -len(item[1])):
        tasks, layers, faults = (dict.fromkeys(each) for each in zip(*those, strict=True))
        said = next(iter(faults))
        yield Reason(", ".join(tasks), state, said, len(layers), list_names([*layers]))


def change_of(found: SweepSummary, baseline: SweepSummary) -> SweepChange:
    """Return the difference from another sweep; UsageError where it asked for something else."""
    if comparable(found.options) != comparable(baseline.options):
        raise UsageError(
            "the two sweeps are not of the same tasks and options, so their numbers do not "
            "compare: sweep both with the same ones."
        )
    mine, theirs = {*found.names}, {*baseline.names}
    before = {(one.task, one.name): one for one in baseline.numbers}
    pairs = [(before.get((one.task, one.name)), one) for one in found.numbers]
    return SweepChange(
        baseline=BaselineSource(baseline.source.path, baseline.source.weights_sha256),
        alone=list_names([name for name in found.names if name not in theirs]),
        baseline_alone=list_names([name for name in baseline.names if name not in mine]),
        numbers=tuple(
            number_change(old, baseline.names, new, found.names) for old, new in pairs if old
        ),
    )


def comparable(options: SweepOptions) -> SweepOptions:
    """Return options without where activations lie, which differs between two models."""
    return replace(options, activations=options.activations and "given", threads=1)


def table_of(swept: SweepResults) -> Any:
    """Return every row with all its numbers, and why there are none, as a DataFrame."""
    rows, faults = swept.plan.rows, {**swept.refused, **swept.failed}
    columns = {"name": [row.name for row in rows], "kind": [row.family for row in rows]}
    numbers = {f"{task}.{name}": values for (task, name), values in swept.numbers.items()}
    told = {
        f"{task}.reason": [faults.get((task, row.index)) for row in rows]
        for task in sorted({task for task, _ in faults})
    }
    return optional_package("pandas", "tables", "--table").DataFrame(columns | numbers | told)
