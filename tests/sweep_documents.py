"""Sweeps for tests: plans and numbers written by hand, with known layers that stand out."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bilens.findings.rules.registry import parse_conditions
from bilens.records.base import json_text, to_json
from bilens.records.common import Run, Source
from bilens.records.layer_readings import LayerReading
from bilens.records.sweep import Manifest, ManifestRow, SweepOptions, SweepResult
from bilens.records.sweep_report import SweepSummary
from bilens.sweep.jobs import result_name
from bilens.sweep.manifest import NAME, Plan
from bilens.sweep.output import SweepOutput
from bilens.sweep.report import SweepResults, summary_of

NUMBERS = {
    "audit": (
        *("r_squared", "weight_norm", "effective_rank", "top_share"),
        *("dead", "duplicates", "input_share"),
    ),
    "fit": ("r_squared", "linear_r_squared"),
    "decompose": ("directions_share", "first_share", "largest_eigenvalue", "complete"),
    "compare": ("weight_change", "similarity", "directions_90"),
    "convert": ("r_squared",),
}
RUN = Run("bilens sweep report x", 0, {"bilens": "0"}, "a machine", "2026-01-01")
OUTLIER, CHANGED = "layers.3.mlp.experts.2", "layers.2.mlp.experts.5"


def experts(layers: int = 4, each: int = 8) -> list[str]:
    """The names of a model whose first layer is dense."""
    found = ["layers.0.mlp"]
    for layer in range(1, layers):
        found += [f"layers.{layer}.mlp.experts.{number}" for number in range(each)]
        found.append(f"layers.{layer}.mlp.shared_experts")
    return found


def plan_of(names: Sequence[str], **options: Any) -> Plan:
    """The plan of a sweep; what has no number of its own is dense, and wider."""
    rows = tuple(
        ManifestRow(index, name, "gated", "silu", 8, 4 if "experts" in name else 32, 8, (), 0, {})
        for index, name in enumerate(names)
    )
    asked = SweepOptions(**{"tasks": ("fit",), **options})
    head = Manifest(
        path="models/big",
        source=Source("models/big", "a" * 64, {"format": "of a test"}),
        models={"models/big": {"": "a" * 64}},
        options=asked,
        release="0",
        num_rows=len(rows),
    )
    return Plan(head, rows)


def swept_of(plan: Plan, numbers: Mapping[tuple[str, str], Mapping[str, float]]) -> SweepResults:
    """A sweep in memory; a layer that a number is not said of has none."""
    swept = SweepResults(plan)
    for key, values in numbers.items():
        swept.numbers[key] = np.array([values.get(row.name, np.nan) for row in plan.rows])
        swept.done |= {(key[0], row.index) for row in plan.rows}
    return swept


def drawn(names: Sequence[str], seed: int = 0, **changes: float) -> dict[str, float]:
    """A number near 1 for each layer."""
    draw = random.Random(seed)
    return {name: draw.uniform(0.95, 1.05) for name in names} | changes


def write(place: str, plan: Plan, results: Mapping[tuple[str, int], Any]) -> SweepOutput:
    """Write a sweep: of each task and row its numbers and record, or why it was refused."""
    output = SweepOutput(place)
    output.write(NAME, plan.text)
    for (task, row), found in results.items():
        refused = found if isinstance(found, str) else None
        numbers, record = ({}, None) if refused else found
        result = SweepResult(
            manifest=plan.sha256,
            row=row,
            name=plan.rows[row].name,
            task=task,
            refused=refused,
            numbers=numbers,
            record=record,
        )
        output.write(result_name(task, row), json_text(result).encode())
    return output


def reading(name: str, norm: float = 1.0) -> LayerReading:
    return LayerReading(name, "gated", "silu", True, 8, 4, 8, False, weight_norm=norm)


def many(*, changed: float = 1.0, gone: str = "") -> SweepSummary:
    """All tasks over a model of experts, beside a sweep of one that is a little different."""
    names = [name for name in experts(7, 8) if name != gone]
    plan = plan_of(names, tasks=(*NUMBERS,), baseline="models/base")
    keys = [(task, name) for task, found in NUMBERS.items() for name in found]
    numbers = {key: drawn(names, place) for place, key in enumerate(keys)}
    numbers["audit", "weight_norm"][OUTLIER] = 30.0 * changed
    numbers["audit", "effective_rank"] = {}
    numbers["fit", "r_squared"] |= dict.fromkeys(names[2:14], 0.2)
    numbers["audit", "dead"] = dict.fromkeys(names, 0.0)
    swept = swept_of(plan, numbers)
    swept.done.remove(("decompose", 3))
    swept.refused = {("fit", row): f"{plan.rows[row].name} is no good" for row in range(8)}
    swept.failed = {("decompose", 3): "a worker process died"}
    swept.readings = {row.index: reading(row.name) for row in plan.rows[1:]}
    conditions = parse_conditions(["huge_norm>100"], data=True, baseline=True)
    if changed != 1.0:
        return summary_of(swept, conditions, None, RUN)
    before = {key: dict(values) for key, values in numbers.items()}
    before["audit", "weight_norm"][CHANGED] /= 4
    others = {**{f"{name}x": 1.0 for name in names[:7]}, **before["audit", "top_share"]}
    before["audit", "top_share"] = {**others, names[0]: np.nan}
    other = plan_of(
        [*names[9:], *(f"{name}x" for name in names[:7])], tasks=(*NUMBERS,), baseline="models/base"
    )
    earlier = summary_of(swept_of(other, before), (), None, RUN)
    return summary_of(swept, conditions, earlier, RUN)


def variants() -> dict[str, dict[str, Any]]:
    """Documents that together need every sentence of the page."""
    names = [f"blocks.{layer}.ffn" for layer in range(9)]
    dense = swept_of(plan_of(names, activations="seen"), {("fit", "r_squared"): drawn(names)})
    return {"experts": to_json(many()), "layers": to_json(summary_of(dense, (), None, RUN))}
