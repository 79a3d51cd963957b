"""Two models of tables beside each other: their columns, coefficients and answers."""

from collections.abc import Sequence

from msgspec import structs
from torch import Tensor

from bilens.algebra.map_comparison import map_difference
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.data.model_interface import LabelledData
from bilens.findings.subject import gauge_free, in_float64
from bilens.findings.table_audit import (
    LISTED_PAIRS,
    exact_layer,
    output_effects,
    output_names_of,
)
from bilens.io.loaded_model import LoadedModel
from bilens.records.table_audit import ColumnChanges, OutputEffects

EXAMPLES = 12  # rows
ROUNDING = 1e-12  # of the coefficients: what computing them in float64 leaves
MOVED = 0.01  # of the standard deviation of the baseline's numbers


def compare_columns(
    found: ColumnChanges, f: QuadraticMap, g: QuadraticMap, outputs: Sequence[str]
) -> ColumnChanges:
    """Return what changed in coefficients from g to f, maps of the same columns and outputs."""
    f, g = gauge_free(f), gauge_free(g)
    effects = output_effects(map_difference(g, f), tuple(outputs), LISTED_PAIRS)
    usual = output_effects(g, tuple(outputs), LISTED_PAIRS)
    moved, size = (sum(map(mean_square, part)) for part in (effects, usual))
    spread = sum(one.variance for one in usual)
    change = (moved / spread) ** 0.5 if spread > 0 else None
    effects = () if moved <= ROUNDING**2 * size else effects
    return structs.replace(found, outputs=effects, change=change)


def mean_square(output: OutputEffects) -> float:
    """Return that of an output over independent standard normal columns."""
    mean = output.constant + sum(column.square for column in output.columns)
    return output.variance + mean**2


def compare_answers(
    found: ColumnChanges, model: LoadedModel, baseline: LoadedModel, rows: LabelledData, x: Tensor
) -> ColumnChanges:
    """Return the changes with which answers differ; `x` are the rows as the baseline reads them."""
    names = output_names_of(baseline), output_names_of(model)
    read = (baseline, x), (model, rows.inputs)
    before, after = (in_float64(exact_layer(one))(inputs.double()) for one, inputs in read)
    if len(names[0]) == len(names[1]) == 1:
        moved = (after - before)[:, 0].abs()
        order = moved.argsort(descending=True, stable=True).tolist()
        places = [at for at in order if moved[at] > MOVED * before.std(correction=0)]
        said = [[f"{value:.6g}" for value in one[:, 0].tolist()] for one in (before, after)]
    else:
        answers = zip((before, after), names, strict=True)
        said = [[of[at] for at in one.argmax(dim=1).tolist()] for one, of in answers]
        places = [at for at in range(len(after)) if said[0][at] != said[1][at]]
        if rows.targets is not None:
            right = [names[1][at] for at in rows.targets.tolist()]
            broken, mended = (sum(one[at] == right[at] for at in places) for one in said)
            found = structs.replace(found, broken=broken, mended=mended)
    numbers = rows.numbers or range(len(after))
    examples = tuple((numbers[at], said[0][at], said[1][at]) for at in places[:EXAMPLES])
    return structs.replace(found, rows=len(after), changed=len(places), examples=examples)
