"""The audit of a model with named columns: columns and pairs, and rows taken apart by them.

Everything is read in standard units where the model knows mean and standard deviation of its
columns: there, coefficients of columns of different units can be compared.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_finite
from bilens.base.errors import ShapeError
from bilens.findings.column_effects import gauge_free, output_effects, worst_case_inputs
from bilens.findings.explanation import attribute_prediction, choose_examples
from bilens.findings.model_checks import TOLERANCES, compared, read_densely, share_right
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.common import UNKNOWN, Exactness, Origin, passes
from bilens.records.table_audit import RowReading, TableAudit, TableModel, TableScore

NUM_INPUTS = 1000
LISTED_PAIRS = 20  # of each output
FIRST_ROWS = 3  # taken apart where the right answers are not known


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows of a table with their right answers."""

    values: Tensor
    target: Tensor | None
    seen: bool = False


@dataclass(frozen=True, eq=False)
class NamedColumns:
    """What a model knows of its columns and outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    mean: Tensor | None
    scale: Tensor | None


def audit_columns(
    module: BilinearClassifier,
    columns: NamedColumns,
    rows: LabelledRows | None,
    seed: int = 0,
    origin: Origin = UNKNOWN,
) -> TableAudit:
    """Return what the weights of a model of a table say; the model is not changed."""
    d_input, d_output = module.embed.in_features, module.head.out_features
    mean = torch.zeros(d_input, dtype=torch.float64) if columns.mean is None else columns.mean
    scale = torch.ones(d_input, dtype=torch.float64) if columns.scale is None else columns.scale
    with torch.no_grad():
        f = in_standard_units(module, mean, scale).quadratic_map().detach()
        exactness = compare(module, f, mean, scale, seed)
        effects = output_effects(gauge_free(f), columns.outputs, LISTED_PAIRS)
        known = columns.mean is not None and columns.scale is not None
        worst = worst_case_inputs(gauge_free(f)) if known else ()
        score: TableScore | None = None
        readings: tuple[RowReading, ...] = ()
        if rows is not None:
            check_rows(rows, d_input, d_output)
            z = (rows.values - mean) / scale
            outputs = f(z)
            if rows.target is not None:
                score = score_of(outputs, rows.target)
            readings = tuple(
                reading(f, z[index], rows, index, kind)
                for kind, index in chosen(outputs, rows.target)
            )
    model = TableModel(
        type(module).__name__,
        "regression" if d_output == 1 else "classification",
        d_input,
        module.embed.out_features,
        d_output,
        sum(parameter.numel() for parameter in module.parameters()),
        str(module.embed.weight.dtype).removeprefix("torch."),
        known,
        columns.outputs,
        columns.inputs,
    )
    seen = rows is not None and rows.seen
    evidence = Evidence(exactness=exactness, effects=effects, score=score, seen_rows=seen)
    verdict = judge("table", evidence)
    return TableAudit(
        passed=passes(verdict),
        model=model,
        exactness=exactness,
        score=score,
        outputs=effects,
        worst_case_inputs=worst,
        rows=readings,
        verdict=verdict,
        seed=seed,
        source=origin.source,
        data=origin.data,
        reproduce=origin.reproduce,
    )


def compare(
    module: BilinearClassifier, f: QuadraticMap, mean: Tensor, scale: Tensor, seed: int
) -> tuple[Exactness, ...]:
    """Return the largest difference between the model and the formula in standard units."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(NUM_INPUTS, len(mean), generator=generator, dtype=torch.float64)
    found = []
    for precision in TOLERANCES:
        dtype = torch.float32 if precision == "float32" else torch.float64
        if precision == "float32" and module.embed.weight.dtype == torch.float64:
            continue  # it was never meant to run in float32
        evaluated = copy.deepcopy(module).to(dtype)
        forward = check_finite("the forward pass", evaluated((mean + scale * z).to(dtype))).double()
        formula = check_finite("the reading", read_densely(f, z))
        found.append(compared(precision, forward, formula))
    return tuple(found)


def check_rows(rows: LabelledRows, d_input: int, d_output: int) -> None:
    """Refuse rows that do not fit a model."""
    check_finite("the rows", rows.values)
    if rows.values.ndim != 2 or rows.values.shape[1] != d_input or len(rows.values) == 0:
        raise ShapeError(
            f"the rows have shape {tuple(rows.values.shape)}; expected (rows, {d_input})."
        )
    target = rows.target
    if target is None:
        return
    if target.shape != (len(rows.values),) or target.is_floating_point() != (d_output == 1):
        raise ShapeError(
            f"the targets have dtype {target.dtype} and shape {tuple(target.shape)}; expected "
            f"({len(rows.values)},), " + ("numbers." if d_output == 1 else "whole numbers.")
        )
    if d_output > 1 and not bool(((target >= 0) & (target < d_output)).all()):
        raise ShapeError(f"a target is no class between 0 and {d_output - 1}.")
    check_finite("the targets", target.double())


def score_of(outputs: Tensor, target: Tensor) -> TableScore:
    """Return accuracy with its interval, or R², beside that of a plain guess."""
    total = len(target)
    if not target.is_floating_point():
        share = share_right(outputs.argmax(dim=1), target)
        plain = float(torch.bincount(target).max()) / total
        return TableScore("accuracy", share.value, share.low, share.high, total, plain)
    spread = float((target - target.mean()).square().sum())
    error = float((outputs[:, 0] - target).square().sum())
    value = 1 - error / spread if spread > 0 else float(error == 0)
    return TableScore("r_squared", value, None, None, total, 0.0)


def chosen(outputs: Tensor, target: Tensor | None) -> list[tuple[str, int]]:
    """Return which rows to take apart and why."""
    if target is None:
        return [("first", index) for index in range(min(FIRST_ROWS, len(outputs)))]
    if not target.is_floating_point():
        return list(choose_examples(outputs, target).items())
    order = (outputs[:, 0] - target).abs().argsort().tolist()
    found = [("typical", order[len(order) // 2]), ("farthest", order[-1])]
    return found if len(order) > 1 else found[:1]


def reading(f: QuadraticMap, z: Tensor, rows: LabelledRows, index: int, kind: str) -> RowReading:
    """Return one row, taken apart."""
    scores = gauge_free(f)(z[None])[0]
    is_class = f.sizes.d_out > 1
    answer = None if rows.target is None else rows.target[index].item()
    label = int(answer) if is_class and answer is not None else None
    return RowReading(
        kind=kind,
        index=index,
        label=label,
        target=None if is_class or answer is None else float(answer),
        predicted=int(scores.argmax()),
        inputs=tuple(rows.values[index].tolist()),
        scores=tuple(scores.tolist()),
        attributions=attribute_prediction(f, z, torch.zeros_like(z), label),
    )
