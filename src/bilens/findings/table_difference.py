"""Two models of tables beside each other: their columns, coefficients and answers."""

from __future__ import annotations

from typing import TypeAlias

import torch
from msgspec import structs
from torch import Tensor

from bilens.data.model_interface import LabelledData
from bilens.findings.subject import gauge_free
from bilens.findings.table_audit import LISTED_PAIRS, NamedColumns, output_effects
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.table_audit import AnswerChange, ColumnChanges

EXAMPLES = 12  # rows
MOVED = 0.01  # of the standard deviation of the baseline's numbers
ColumnModel: TypeAlias = tuple[BilinearClassifier, NamedColumns]


def compare_columns(model: ColumnModel, baseline: ColumnModel) -> ColumnChanges:
    """Return what changed in columns and coefficients, in the model's standard units.

    Columns are matched by name, or by mean and deviation where another name has the same; columns
    of the baseline alone stay at their means.
    """
    (module, after), (base, before) = model, baseline
    renamed = renamed_columns(after, before)
    called = [dict(renamed).get(name, name) for name in before.inputs]
    shared = [name for name in called if name in after.inputs]
    theirs, mine = ([names.index(one) for one in shared] for names in (called, after.inputs))
    outputs = [name for name in after.outputs if name in before.outputs]
    asked = [of.index(name) for of in (after.outputs, before.outputs) for name in outputs]
    if len(after.outputs) == len(before.outputs) == 1:  # whatever the target is called
        outputs, asked = [*after.outputs], [0, 0]
    found = ColumnChanges(
        added=tuple(name for name in after.inputs if name not in shared),
        removed=tuple(name for name in called if name not in shared),
        renamed=renamed,
        other_outputs=tuple({*after.outputs} ^ {*before.outputs}) if len(asked) > 2 else (),
    )
    if not shared or not outputs:
        return found
    units, matched = before.units(), torch.zeros(len(called), len(after.inputs)).double()
    units[theirs], matched[theirs, mine] = after.units()[mine], 1.0
    f, g = (
        gauge_free(in_standard_units(one, *of.T).quadratic_map().detach())
        for one, of in ((module, after.units()), (base, units))
    )
    chosen = (torch.eye(one.sizes.d_out, dtype=torch.float64) for one in (f, g))
    f = f.compose_output(next(chosen)[asked[: len(outputs)]])
    g = g.compose_output(-next(chosen)[asked[len(outputs) :]]).compose_input(matched)
    effects, usual = (output_effects(one, tuple(outputs), LISTED_PAIRS) for one in (f + g, g))
    moved, spread = (sum(one.variance for one in part) for part in (effects, usual))
    change = (moved / spread) ** 0.5 if spread > 0 else None
    return structs.replace(found, outputs=effects, change=change)


def renamed_columns(after: NamedColumns, before: NamedColumns) -> tuple[tuple[str, str], ...]:
    """Return [before, after] of columns of one model alone that have one mean and deviation."""
    sides: list[dict[tuple[float, ...], list[str]]] = [{}, {}]
    for found, one, other in zip(sides, (before, after), (after, before), strict=True):
        for name, unit in zip(one.inputs, one.units().tolist(), strict=True):
            if one.mean is not None and name not in other.inputs:
                found.setdefault(tuple(unit), []).append(name)
    both = [(names, sides[1].get(unit, [])) for unit, names in sides[0].items()]
    return tuple((old[0], new[0]) for old, new in both if len(old) == len(new) == 1)


def compare_answers(
    found: ColumnChanges,
    outputs: tuple[Tensor, Tensor],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    rows: LabelledData,
) -> ColumnChanges:
    """Return the changes with which answers differ: outputs (rows, out) before, and after."""
    before, after = outputs
    if after.shape[1] == 1:
        moved = (after - before)[:, 0].abs()
        least = MOVED * float(before.std(correction=0))
        order = moved.argsort(descending=True, stable=True).tolist()
        places = [at for at in order if float(moved[at]) > least]
        said = [[f"{value:.6g}" for value in one[:, 0].tolist()] for one in outputs]
    else:
        answers = zip(outputs, names, strict=True)
        said = [[of[at] for at in one.argmax(dim=1).tolist()] for one, of in answers]
        places = [at for at in range(len(after)) if said[0][at] != said[1][at]]
        if rows.targets is not None:
            right = [names[1][at] for at in rows.targets.tolist()]
            broken, mended = (sum(one[at] == right[at] for at in places) for one in said)
            found = structs.replace(found, broken=broken, mended=mended)
    numbers = rows.numbers or range(len(after))
    examples = (AnswerChange(numbers[at], said[0][at], said[1][at]) for at in places[:EXAMPLES])
    parts = {"rows": len(after), "changed": len(places), "examples": tuple(examples)}
    return structs.replace(found, **parts)
