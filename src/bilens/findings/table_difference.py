"""Two models of tables beside each other: their columns, coefficients and answers."""

from collections.abc import Sequence

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.map_comparison import map_difference
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.data.model_interface import LabelledData
from bilens.findings.column_effects import LISTED_PAIRS, output_effects
from bilens.findings.subject import gauge_free
from bilens.records.column_readings import ColumnChanges, OutputEffects
from bilens.records.layer_readings import AnswerChanges

EXAMPLES = 12  # rows
ROUNDING = 1e-12  # of the coefficients: what computing them in float64 leaves
MOVED = 0.01  # of the standard deviation of the baseline's numbers


def compare_columns(
    found: ColumnChanges, f: QuadraticMap, g: QuadraticMap, outputs: Sequence[str]
) -> ColumnChanges:
    """Compare coefficients of g and f, maps of the same columns and outputs."""
    f, g = gauge_free(f), gauge_free(g)
    effects = output_effects(map_difference(g, f), tuple(outputs), LISTED_PAIRS)
    usual = output_effects(g, tuple(outputs), LISTED_PAIRS)
    moved, size = (sum(map(mean_square, part)) for part in (effects, usual))
    spread = sum(one.variance for one in usual)
    change = (moved / spread) ** 0.5 if spread > 0 else None
    effects = () if moved <= ROUNDING**2 * size else effects
    return structs.replace(found, outputs=effects, change=change)


def mean_square(output: OutputEffects) -> float:
    """Return the mean square of an output over independent standard normal columns."""
    mean = output.constant + sum(column.square for column in output.columns)
    return output.variance + mean**2


def compare_answers(
    names: tuple[Sequence[str], Sequence[str]],
    outputs: tuple[Tensor, Tensor],
    rows: LabelledData,
    back: Tensor,
) -> AnswerChanges:
    """Return where answers of a model and its baseline differ; several outputs are classes.

    `names` and `outputs` are those of the model and of the baseline, and `back` turns outputs of
    the baseline into the model's.
    """
    after, before = outputs
    broken, mended = None, None
    if len(names[0]) == len(names[1]) == 1:
        before = before @ back.T
        moved = (after - before)[:, 0].abs()
        order = moved.argsort(descending=True, stable=True).tolist()
        places = [at for at in order if moved[at] > MOVED * before.std(correction=0)]
        said = [[f"{value:.6g}" for value in one[:, 0].tolist()] for one in (before, after)]
    else:
        mine = torch.where(back.any(dim=0), back.argmax(dim=0), -1)  # of each of the baseline
        answers = before.argmax(dim=1), after.argmax(dim=1)
        aligned = mine[answers[0]], answers[1]
        said = [
            [of[at] for at in one.tolist()] for of, one in zip(names[::-1], answers, strict=True)
        ]
        places = (aligned[0] != aligned[1]).nonzero().flatten().tolist()
        if rows.targets is not None and back.any(dim=0).all() and back.any(dim=1).all():
            right = [(one == rows.targets)[places] for one in aligned]
            broken, mended = (int(one.sum()) for one in right)
    numbers = rows.numbers or range(len(after))
    examples = tuple((numbers[at], said[0][at], said[1][at]) for at in places[:EXAMPLES])
    return AnswerChanges(len(after), len(places), mended, broken, examples)
