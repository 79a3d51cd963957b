"""Two models of tables beside each other: their columns, coefficients and answers."""

import torch
from msgspec import structs
from torch import Tensor

from bilens.data.model_interface import LabelledData
from bilens.findings.subject import gauge_free, in_float64
from bilens.findings.table_audit import (
    LISTED_PAIRS,
    exact_layer,
    output_effects,
    output_names_of,
    units_of,
)
from bilens.io.loaded_model import LoadedModel
from bilens.nn.classifier import in_standard_units
from bilens.records.table_audit import ColumnChanges, OutputEffects

EXAMPLES = 12  # rows
ROUNDING = 1e-12  # of the coefficients: what computing them in float64 leaves
MOVED = 0.01  # of the standard deviation of the baseline's numbers


def compare_columns(model: LoadedModel, baseline: LoadedModel) -> ColumnChanges:
    """Return what changed in columns and coefficients, in the model's standard units.

    Columns are matched by name, or by mean and deviation where another name has the same; columns
    of the baseline alone stay at their means.
    """
    renamed, names = renamed_columns(model, baseline), model.input_names or ()
    called = [dict(renamed).get(name, name) for name in baseline.input_names or ()]
    shared = [name for name in called if name in names]
    theirs, mine = ([every.index(one) for one in shared] for every in (called, names))
    after, before = map(output_names_of, (model, baseline))
    outputs = [name for name in after if name in before]
    asked = [[every.index(name) for name in outputs] for every in (after, before)]
    if len(after) == len(before) == 1:  # whatever the target is called
        outputs, asked = [*after], [[0], [0]]
    found = ColumnChanges(
        added=tuple(name for name in names if name not in shared),
        removed=tuple(name for name in called if name not in shared),
        renamed=renamed,
        other_outputs=tuple(sorted({*after} ^ {*before})) if len(after) > 1 else (),
    )
    if not shared or not outputs:
        return found
    units, matched = units_of(baseline), torch.zeros(len(called), len(names)).double()
    units[theirs], matched[theirs, mine] = units_of(model)[mine], 1.0
    f, g = (
        gauge_free(in_standard_units(exact_layer(one), *of.T).quadratic_map().detach())
        for one, of in ((model, units_of(model)), (baseline, units))
    )
    f = f.compose_output(torch.eye(len(after)).double()[asked[0]])
    g = g.compose_output(-torch.eye(len(before)).double()[asked[1]]).compose_input(matched)
    effects, usual = (output_effects(one, tuple(outputs), LISTED_PAIRS) for one in (f + g, g))
    moved, size = (sum(map(mean_square, part)) for part in (effects, usual))
    spread = sum(one.variance for one in usual)
    change = (moved / spread) ** 0.5 if spread > 0 else None
    effects = () if moved <= ROUNDING**2 * size else effects
    return structs.replace(found, outputs=effects, change=change)


def mean_square(output: OutputEffects) -> float:
    """Return that of an output over independent standard normal columns."""
    mean = output.constant + sum(column.square for column in output.columns)
    return output.variance + mean**2


def renamed_columns(model: LoadedModel, baseline: LoadedModel) -> tuple[tuple[str, str], ...]:
    """Return [before, after] of columns of one model alone that have one mean and deviation."""
    sides: list[dict[tuple[float, ...], list[str]]] = [{}, {}]
    for found, one, other in zip(sides, (baseline, model), (model, baseline), strict=True):
        for name, unit in zip(one.input_names or (), units_of(one).tolist(), strict=True):
            if one.input_mean is not None and name not in (other.input_names or ()):
                found.setdefault(tuple(unit), []).append(name)
    both = [(names, sides[1].get(unit, [])) for unit, names in sides[0].items()]
    return tuple((old[0], new[0]) for old, new in both if len(old) == len(new) == 1)


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
