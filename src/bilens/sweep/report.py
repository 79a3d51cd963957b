"""What a sweep found, read from its output: the numbers are kept, of records what rules judge."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from bilens.base import Progress, silent
from bilens.base.errors import FileError, UsageError, optional_package
from bilens.findings.layer_audit import with_norm_scores
from bilens.findings.rules.registry import (
    Condition,
    judge,
    judge_conditions,
    rules_asked_for,
)
from bilens.findings.rules.rule import Evidence
from bilens.findings.outliers import (
    THRESHOLD,
    Values,
    grid_of,
    number_change,
    swept_number,
)
from bilens.records.common import JudgedCondition, Run, Source
from bilens.records.decomposition import LayerFit
from bilens.records.layer_audit import (
    BaselineSource,
    FitQuality,
    LayerDifference,
    LayeredModel,
    LayerReading,
)
from bilens.records.sweep import ManifestRow, SweepOptions
from bilens.records.sweep_report import (
    NumberChange,
    Reason,
    SweepChange,
    SweepSummary,
    TaskCount,
)
from bilens.sweep.driver import FAILED
from bilens.sweep.manifest import Plan, kept_plan
from bilens.sweep.output import Output

REPORT = "report.json"  # beside the manifest, where the explorer finds it
TOGETHER = 100  # files that are fetched at a time
NAMED = 5
DIGITS = re.compile(r"\d+")


class Found(msgspec.Struct):
    """A `SweepResult` whose record is left as it is written."""

    manifest: str
    row: int
    task: str
    refused: str | None
    numbers: dict[str, float | None]
    record: msgspec.Raw


@dataclass
class Swept:
    """What there is of a sweep, in memory: a few numbers of each row."""

    plan: Plan
    numbers: dict[tuple[str, str], Values] = field(default_factory=dict)  # by task and name
    done: Counter[str] = field(default_factory=Counter)  # results by task, refused ones too
    refused: dict[tuple[str, int], str] = field(default_factory=dict)  # by task and row
    failed: dict[tuple[str, int], str] = field(default_factory=dict)
    readings: dict[int, LayerReading] = field(default_factory=dict)
    changes: list[LayerDifference] = field(default_factory=list)

    def by_name(self, task: str, name: str) -> dict[str, float]:
        values = self.numbers[task, name].tolist()
        pairs = zip(self.plan.rows, values, strict=True)
        return {row.name: value for row, value in pairs if value == value}

    def take(self, found: Found) -> None:
        """Take the numbers of a result, and what rules need of its record."""
        task, row = found.task, self.plan.rows[found.row]
        self.done[task] += 1
        if found.refused is not None:
            self.refused[task, row.index] = found.refused
            return
        for name, value in found.numbers.items():
            if (task, name) not in self.numbers:
                self.numbers[task, name] = np.full(len(self.plan.rows), np.nan)
            self.numbers[task, name][row.index] = np.nan if value is None else value
        if task == "audit":
            reading = msgspec.json.decode(found.record, type=LayerReading)
            if outputs := reading.outputs:
                reading = replace(reading, outputs=replace(outputs, pairs=(), output_parts=()))
            self.readings[row.index] = reading
        elif task == "fit" and "audit" not in self.plan.head.options.tasks:
            fit = msgspec.json.decode(found.record, type=LayerFit)
            if of_fit := reading_of(row, fit):
                self.readings[row.index] = of_fit
            else:
                self.refused[task, row.index] = "R² is −∞: outputs that never vary are missed."
        elif task == "compare":
            change = msgspec.json.decode(found.record, type=LayerDifference)
            self.changes.append(replace(change, output_parts=(), triggers=(), token_pairs=()))


def reading_of(row: ManifestRow, fit: LayerFit) -> LayerReading | None:
    """Return what a fit alone says of a layer, for the rules on R²; None for −∞."""
    scores = next((one for one in fit.ladder if one.fit == fit.chosen), fit.ladder[0])
    if scores.quadratic.value is None or scores.linear.value is None:
        return None
    quality = FitQuality(
        linear=scores.linear.value,
        quadratic=scores.quadratic.value,
        standard_error=scores.quadratic.standard_error or 0.0,
        samples=scores.rows,
        assumed_input=fit.assumed_input,
        threshold=fit.threshold,
        usable=fit.usable,
        fit=fit.chosen,
        seen=len(fit.ladder) > 1,
        trimmed=scores.trimmed.value,
    )
    return LayerReading(
        name=row.name,
        kind=row.kind,
        activation=row.activation,
        exact=fit.exact,
        d_input=row.d_in,
        d_hidden=row.d_hidden,
        d_output=row.d_out,
        class_centred=False,
        fit=None if fit.exact else quality,
    )


def kind_of(row: ManifestRow) -> str:
    return f"{row.kind} {row.activation} {row.d_in} → {row.d_hidden} → {row.d_out}"


def read_sweep(output: Output, progress: Progress = silent) -> Swept:
    """Read every result of a sweep; FileError where one is damaged or of another manifest."""
    plan = kept_plan(output)
    if plan is None:
        raise UsageError(f"{output.place} holds no sweep: give the folder of one.")
    swept = Swept(plan)
    names = sorted(name for name in output.names("results") if name.endswith(".json"))
    for done, (name, data) in enumerate(contents(output, names)):
        progress("results", done, len(names))
        try:
            found = msgspec.json.decode(data, type=Found)
            if found.manifest != plan.sha256:
                raise FileError(
                    f"{output.place}: results/{name} is of another manifest: it is no part of this "
                    "sweep."
                )
            swept.take(found)
        except (msgspec.DecodeError, IndexError) as error:
            raise FileError(
                f"{output.place}: results/{name} is damaged ({error}): remove it, and repeat the "
                "sweep."
            ) from None
    progress("results", len(names), len(names))
    for key, fault in json.loads(output.read(FAILED) or b"{}").items():
        task, row = key.split()
        swept.failed[task, int(row)] = fault
    return swept


def contents(output: Output, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield results; of a remote place many are fetched at a time."""
    left = iter(names)
    while part := [*islice(left, TOGETHER)]:
        if output.remote is None:
            found = {name: output.read(f"results/{name}") for name in part}
        else:
            paths = {name: output.path(f"results/{name}") for name in part}
            fetched = output.remote.cat([*paths.values()])
            found = {name: fetched[path] for name, path in paths.items()}
        yield from ((name, data) for name, data in found.items() if data is not None)


def summary_of(
    swept: Swept, conditions: Sequence[Condition], baseline: Swept | None, run: Run
) -> SweepSummary:
    """Return the report of a sweep, beside another one where there is one."""
    head, rows = swept.plan.head, swept.plan.rows
    kinds, names = [*map(kind_of, rows)], [row.name for row in rows]
    ordered = [kind for kind, _ in Counter(kinds).most_common()]
    groups = defaultdict[str, list[LayerReading]](list)
    for row, reading in sorted(swept.readings.items()):
        groups[kinds[row]].append(reading)
    scored = {one.name: one for group in groups.values() for one in with_norm_scores(group)}
    layers = [scored[name] for name in names if name in scored]
    evidence = Evidence(layers=tuple(layers), changes=tuple(swept.changes))
    verdict = judge("layer_audit", evidence)
    dtypes = {part.dtype: None for row in rows for part in row.parts}
    return SweepSummary(
        model=LayeredModel(head.format, len(rows), ", ".join(dtypes)),
        options=head.options,
        num_rows=len(rows),
        kinds=tuple(ordered),
        kind_of_row=tuple(ordered.index(kind) for kind in kinds),
        tasks=tuple(count_of(swept, task) for task in head.options.tasks),
        reasons=tuple(reasons(swept)),
        threshold=THRESHOLD,
        numbers=tuple(
            swept_number(*key, values, kinds, names) for key, values in swept.numbers.items()
        ),
        grid=grid_of(names),
        verdict=verdict,
        conditions=judged(swept, conditions, judge_conditions("layer_audit", conditions, verdict)),
        difference=None if baseline is None else change_of(swept, baseline),
        source=Source(head.path, head.files.get("weights", ""), {"format": head.format}),
        reproduce=run,
    )


def judged(
    swept: Swept, asked: Sequence[Condition], found: Sequence[JudgedCondition]
) -> tuple[JudgedCondition, ...] | None:
    """Return how conditions ended: where layers lack what a rule judges, none has been met."""
    if not asked:
        return None
    ends = list[JudgedCondition]()
    for one in found:
        needs = rules_asked_for()[one.rule].needs
        there = len(swept.changes if needs == "baseline" else swept.readings)
        open_still = not one.failed and there < len(swept.plan.rows)
        ends.append(replace(one, value=None, failed=True) if open_still else one)
    return tuple(ends)


def count_of(swept: Swept, task: str) -> TaskCount:
    refused, failed = (
        sum(each == task for each, _ in those) for those in (swept.refused, swept.failed)
    )
    done = swept.done[task]
    return TaskCount(
        task=task,
        found=done - refused,
        refused=refused,
        failed=failed,
        missing=len(swept.plan.rows) - done - failed,
    )


def reasons(swept: Swept) -> Iterator[Reason]:
    """Yield why results are lacking; those that differ in name and numbers alone are one."""
    found = defaultdict[tuple[str, str, str], list[int]](list)
    for state, those in (("failed", swept.failed), ("refused", swept.refused)):
        for (task, row), fault in those.items():
            same = DIGITS.sub("0", fault.replace(swept.plan.rows[row].name, ""))
            found[task, state, same].append(row)
    for (task, state, _), rows in sorted(found.items(), key=lambda item: -len(item[1])):
        fault = getattr(swept, state)[task, rows[0]]
        names = tuple(swept.plan.rows[row].name for row in rows[:NAMED])
        yield Reason(task, state, fault, len(rows), names)


def change_of(swept: Swept, baseline: Swept) -> SweepChange:
    """Return the difference from another sweep; UsageError where it asked for something else."""
    head, other = swept.plan.head, baseline.plan.head
    if comparable(head.options) != comparable(other.options):
        raise UsageError(
            "the two sweeps are not of the same tasks and options, so their numbers do not "
            "compare: sweep both with the same ones."
        )
    mine, theirs = ({row.name: None for row in one.plan.rows} for one in (swept, baseline))
    alone, before = [[n for n in a if n not in b] for a, b in ((mine, theirs), (theirs, mine))]
    return SweepChange(
        baseline=BaselineSource(other.path, other.files.get("weights", "")),
        alone=tuple(alone[:NAMED]),
        num_alone=len(alone),
        baseline_alone=tuple(before[:NAMED]),
        num_baseline_alone=len(before),
        numbers=tuple(changes(swept, baseline)),
    )


def changes(swept: Swept, baseline: Swept) -> Iterator[NumberChange]:
    for key in swept.numbers:
        if key in baseline.numbers:
            yield number_change(*key, baseline.by_name(*key), swept.by_name(*key))


def comparable(options: SweepOptions) -> SweepOptions:
    """Return options without where activations lie, which differs between two models."""
    return replace(options, activations=options.activations and "given", threads=1)


def table_of(swept: Swept) -> Any:
    """Return every row with all its numbers as a DataFrame."""
    columns: Mapping[str, object] = {
        "index": [row.index for row in swept.plan.rows],
        "name": [row.name for row in swept.plan.rows],
        "kind": [kind_of(row) for row in swept.plan.rows],
        **{f"{task}.{name}": values for (task, name), values in swept.numbers.items()},
    }
    faults = {**swept.refused, **swept.failed}
    for task in sorted({task for task, _ in faults}):
        told = [faults.get((task, row.index)) for row in swept.plan.rows]
        columns = {**columns, f"{task}.reason": told}
    return optional_package("pandas", "tables", "--table").DataFrame(columns)
