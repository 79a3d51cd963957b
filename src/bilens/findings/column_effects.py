"""The readings of a model with named columns: columns and pairs, and rows taken apart by them.

Everything is read in standard units where the model knows mean and standard deviation of its
columns: there, coefficients of columns of different units can be compared.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import LEAST_ROWS
from bilens.algebra.attribution import strongest_pairs
from bilens.algebra.directions import output_form
from bilens.algebra.gram.kernel import blocks
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_finite
from bilens.data.model_interface import LabelledData
from bilens.data.table_columns import curves_of
from bilens.findings.explanation import ASKED, attribute_prediction, choose_examples
from bilens.findings.subject import (
    compare_results,
    gauge_free,
    precisions_to_compare,
    read_densely,
    summarise,
)
from bilens.io.loaded_model import LoadedModel, is_of_numbers
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.column_readings import (
    CategoryEffect,
    ColumnEffect,
    ColumnReadings,
    InputValues,
    OutputEffects,
    PairEffect,
    RowReading,
    TableReading,
    WorstCaseInputs,
)
from bilens.records.common import Exactness, ModelFacts

NUM_INPUTS = 1000
LISTED_PAIRS = 20  # of each output
FIRST_ROWS = 3  # taken apart where the right answers are not known


def exact_layer(model: LoadedModel) -> BilinearClassifier:
    assert isinstance(model.module, BilinearClassifier), "a model of a table is one exact layer"
    return model.module


def units_of(model: LoadedModel) -> Tensor:
    """Return mean and deviation of each input, (columns, 2) float64; 0 and 1 where not known."""
    ones = (1.0,) * exact_layer(model).embed.in_features
    known = model.input_mean or (0.0,) * len(ones), model.input_scale or ones
    return torch.tensor(known, dtype=torch.float64).T


def output_names_of(model: LoadedModel) -> tuple[str, ...]:
    return model.output_names or tuple(map(str, range(exact_layer(model).head.out_features)))


class ExactTable:
    """One exact layer with named columns, as all readings of its columns share it.

    `read` is how the table of its training was read, where the model says it.
    """

    read_as: Final = "columns"
    null_samples: Final = 0

    def __init__(
        self,
        model: LoadedModel,
        rows: LabelledData | None = None,
        read: TableReading | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.module, self.read, self.seed = model, exact_layer(model), read, seed
        self.mean, self.scale = units_of(model).T
        self.is_standardised = model.input_mean is not None and model.input_scale is not None
        self.logarithm = is_of_numbers(model)  # which right answers are not, in their unit
        if self.logarithm and rows is not None:
            rows = replace(rows, targets=None, known={})
        self.rows, count = rows, 0 if rows is None else len(rows.inputs)
        # whose mean and deviations are the units of columns where the model knows none
        self.in_rows = 0 if self.is_standardised or count < LEAST_ROWS else count

    @property
    def columns_in(self) -> str:
        """The units of columns where the model knows none: of the `rows`, or `raw`; else empty."""
        return "" if self.is_standardised else "rows" if self.in_rows else "raw"

    @property
    def facts(self) -> ModelFacts:
        """The sizes of the model, and its columns in their units."""
        known, model = self.is_standardised, self.model
        return ModelFacts(
            num_layers=1,
            **summarise(model).fields(),
            task="regression" if len(output_names_of(model)) == 1 else "classification",
            standardised=known,
            input_mean=model.input_mean if known else None,
            input_scale=model.input_scale if known else None,
            rows=self.in_rows,
            logarithm=self.logarithm,
        )

    @cached_property
    def map(self) -> QuadraticMap:
        """The map from columns in standard units."""
        return in_standard_units(self.module, self.mean, self.scale).quadratic_map().detach()

    @property
    def ends(self) -> Tensor:
        """The least and the largest z of each input that worst cases may have, (columns, 2)."""
        names, found = self.model.input_names or (), torch.tensor([[-REACH, REACH]]).double()
        found = found.repeat(len(self.mean), 1)
        curves = curves_of(() if self.read is None else self.read.columns)
        for at, curve in enumerate(map(curves.get, names)):
            if curve:  # no value of the column has a rank beyond
                ranks = torch.tensor([curve[0][1], curve[-1][1]], dtype=torch.float64)
                found[at] = ((ranks - self.mean[at]) / self.scale[at]).clamp(-REACH, REACH)
        return found

    @cached_property
    def exactness(self) -> tuple[Exactness, ...]:
        """The largest difference between the model and the formula."""
        return compare(self.module, self.map, self.mean, self.scale, self.seed)

    @cached_property
    def largest_part(self) -> tuple[tuple[str, ...], float] | None:
        return largest_part(gauge_free(self.map), self.read)

    @torch.no_grad()
    def read_columns(self, asked: Sequence[int] = ()) -> ColumnReadings:
        """Return the effects of columns, and rows taken apart: those asked for, or telling ones."""
        f, mean, scale, rows = gauge_free(self.map), self.mean, self.scale, self.rows
        varying, explained = self.map.to(torch.float64), tuple[RowReading, ...]()
        if rows is not None and self.in_rows:
            deviation, middle = torch.std_mean(rows.inputs.double(), dim=0)
            varying = varying.compose_input(torch.diag(deviation), middle)
        if rows is not None:
            z = (rows.inputs.double() - mean) / scale
            explained = tuple(
                reading(self.map, z[index], rows, index, kind)
                for kind, index in choose_rows(self.map(z), rows, asked)
            )
        known, names = self.is_standardised, self.model.input_names or ()
        worst = worst_case_inputs(f, not_indicators(mean, scale), self.ends) if known else ()
        outputs = output_names_of(self.model)
        return ColumnReadings(
            outputs=output_effects(gauge_free(varying), outputs, LISTED_PAIRS),
            worst_case_inputs=worst,
            rows=explained,
            categories=category_effects(f, names, self.read, mean, scale),
            reading=self.read,
            done=() if rows is None else rows.done,
        )


@torch.no_grad()
def compare(
    module: BilinearClassifier, f: QuadraticMap, mean: Tensor, scale: Tensor, seed: int
) -> tuple[Exactness, ...]:
    """Return the largest difference between the model and the formula in standard units."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(NUM_INPUTS, len(mean), generator=generator, dtype=torch.float64)
    found = []
    for precision, dtype in precisions_to_compare(module).items():
        evaluated = copy.deepcopy(module).to(dtype)
        forward = check_finite("the forward pass", evaluated((mean + scale * z).to(dtype))).double()
        formula = check_finite("the reading", read_densely(f, z))
        found.append(compare_results(precision, forward, formula))
    return tuple(found)


def category_effects(
    f: QuadraticMap,
    names: tuple[str, ...],
    reading: TableReading | None,
    mean: Tensor,
    scale: Tensor,
) -> tuple[CategoryEffect, ...]:
    """Return how much each text of each column adds to each output."""
    found = []
    for column in () if reading is None else reading.columns:
        if column.kind == "category" and column.inputs:
            own = [names.index(name) for name in column.inputs]
            z = mean.new_zeros(len(own) + 1, len(names))  # the last row: the mean
            z[:-1, own] = (torch.eye(len(own)) - mean[own]) / scale[own]
            outputs = f(z)
            added = tuple(map(tuple, (outputs[:-1] - outputs[-1]).T.tolist()))
            levels = tuple(name.removeprefix(f"{column.name}=") for name in column.inputs)
            found.append(CategoryEffect(column.name, levels, added))
    return tuple(found)


def choose_rows(outputs: Tensor, rows: LabelledData, asked: Sequence[int]) -> list[tuple[str, int]]:
    """Return which rows to take apart and why."""
    target = rows.targets
    if asked:
        return [(ASKED, index) for index in rows.places(asked)]
    if target is None:
        return [("first", index) for index in range(min(FIRST_ROWS, len(outputs)))]
    if not target.is_floating_point():
        return list(choose_examples(outputs, target).items())
    order = (outputs[:, 0] - target).abs().argsort().tolist()
    found = [("typical", order[len(order) // 2]), ("farthest", order[-1])]
    return found if len(order) > 1 else found[:1]


def reading(f: QuadraticMap, z: Tensor, rows: LabelledData, index: int, kind: str) -> RowReading:
    scores = gauge_free(f)(z[None])[0]
    is_class = f.sizes.d_out > 1
    answer = rows.answer(index)
    label = int(answer) if is_class and answer is not None else None
    return RowReading(
        kind=kind,
        index=rows.numbers[index] if rows.numbers else index,
        label=label,
        target=None if is_class or answer is None else float(answer),
        predicted=int(scores.argmax()),
        inputs=tuple(rows.inputs[index].tolist()),
        scores=tuple(scores.tolist()),
        attributions=attribute_prediction(f, z, torch.zeros_like(z), label),
        empty=rows.empty.get(index, ()),
    )


BLOCK_BYTES = 64 * 2**20  # a block of rows of one Q


def output_effects(
    f: QuadraticMap, output_names: tuple[str, ...], num_pairs: int
) -> tuple[OutputEffects, ...]:
    found = []
    for index, name in enumerate(output_names):
        form = output_form(f, index)
        matrix, linear = form.matrix, form.linear
        squares = (matrix.left * matrix.right * matrix.weight[:, None]).sum(dim=0)
        top, pair_variance = strongest_pairs(matrix.left, matrix.right, matrix.weight, num_pairs)
        pairs = map(PairEffect, top.first.tolist(), top.second.tolist(), top.values.tolist())
        sizes = (linear.square() + 2 * squares.square()).sqrt()
        order = sizes.argsort(descending=True, stable=True)
        ranked = (values[order].tolist() for values in (linear, squares, sizes))
        columns = map(ColumnEffect, order.tolist(), *ranked)
        parts = [float(linear.square().sum()), float(2 * squares.square().sum()), pair_variance]
        variance = sum(parts)
        linear_share, square_share, pair_share = (part / (variance or 1.0) for part in parts)
        found.append(
            OutputEffects(
                index=index,
                name=name,
                constant=float(form.constant),
                columns=tuple(columns),
                pairs=tuple(pairs),
                num_pairs=f.sizes.d_in * (f.sizes.d_in - 1) // 2,
                variance=variance,
                linear_share=linear_share,
                square_share=square_share,
                pair_share=pair_share,
            )
        )
    return tuple(found)


def largest_part(
    f: QuadraticMap, read: TableReading | None
) -> tuple[tuple[str, ...], float] | None:
    """Return the column or pair with most of the variance of all outputs, and its share.

    The inputs of a column count together, and all pairs, listed or not; None for fewer than three.
    """
    columns = () if read is None else tuple(column for column in read.columns if column.inputs)
    if len(columns) < 3:
        return None
    width, owners = f.sizes.d_in, [at for at, one in enumerate(columns) for _ in one.inputs]
    own = torch.eye(len(columns), dtype=torch.float64)[owners]  # (in, columns)
    parts, rows = own.new_zeros(len(columns), len(columns)), max(BLOCK_BYTES // (32 * width), 1)
    for output in range(f.sizes.d_out):
        form = output_form(f, output)
        left, right, weight = form.matrix.left, form.matrix.right, form.matrix.weight
        parts += torch.diag(form.linear.square() @ own)
        for mine in blocks(width, rows):
            twice = (left[:, mine].T * weight) @ right + (right[:, mine].T * weight) @ left
            parts += own[mine].T @ (twice.square() / 2) @ own
    parts = parts.triu() + parts.tril(-1).T  # half of a pair stands on either side
    share = parts.max() / parts.sum()
    at = divmod(int(parts.argmax()), len(columns))
    names = tuple(sorted({columns[one].name for one in at}))  # one for a column alone
    return (names, float(share)) if bool(share.isfinite()) else None


REACH = 3.0  # standard deviations of a column that a value may be from its mean
ARRAYS = 20  # of the size of a block


def not_indicators(mean: Tensor, scale: Tensor) -> Tensor:
    """Return the inputs that are not always 0 or 1; of those the variance is m (1 − m)."""
    of_two = mean * (1 - mean)
    return ((scale.square() - of_two).abs() > 1e-9 * of_two.abs()).nonzero()[:, 0]


@torch.no_grad()
def worst_case_inputs(f: QuadraticMap, chosen: Tensor, ends: Tensor) -> tuple[WorstCaseInputs, ...]:
    """Return for each output the values of chosen inputs that raise it most, exactly.

    `ends` are the least and the largest value of each input, (inputs, 2).
    """
    outputs = range(f.sizes.d_out if len(chosen) else 0)
    return tuple(worst_of(f, output, chosen, ends[chosen].T) for output in outputs)


def worst_of(f: QuadraticMap, output: int, chosen: Tensor, ends: Tensor) -> WorstCaseInputs:
    form = output_form(f, output)
    matrix, linear, place = form.matrix, form.linear[chosen], chosen.tolist()
    left, right = matrix.left[:, chosen], matrix.right[:, chosen]
    squares = (left * right * matrix.weight[:, None]).sum(dim=0)
    gains, z = largest_of_one(linear, squares, ends)
    best = int(gains.argmax())
    one = InputValues((place[best],), (float(z[best]),), float(gains[best]))
    two: InputValues | None = None
    width = len(linear)
    rows = max(BLOCK_BYTES // (8 * ARRAYS * width), 1)
    for start in range(0, width - 1, rows):
        mine = slice(start, min(start + rows, width))
        cross = (left[:, mine].T * matrix.weight) @ right
        cross = (cross + (right[:, mine].T * matrix.weight) @ left) / 2
        gains, first, second = largest_of_two(
            (linear[mine, None], squares[mine, None], ends[:, mine, None]),
            (linear, squares, ends),
            cross,
        )
        gains = gains.triu(start + 1) + torch.full_like(gains, -torch.inf).tril(start)
        position = int(gains.argmax())
        i, j = divmod(position, width)
        if two is None or float(gains[i, j]) > two.effect:
            values = (float(first[i, j]), float(second[i, j]))
            two = InputValues((place[start + i], place[j]), values, float(gains[i, j]))
    return WorstCaseInputs(output, one, two)


def largest_of_one(linear: Tensor, square: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest linear · z + square · z² over z between two ends, and the z."""
    low, high = ends
    end = torch.where(linear + square * (low + high) < 0, low, high)  # of the two the better
    peak = (-linear / (2 * square)).nan_to_num(0.0).clamp(low, high)
    z = torch.where(square < 0, peak, end)
    return linear * z + square * z * z, z


Alone = tuple[Tensor, Tensor, Tensor]  # linear and square coefficient of columns, and their ends


def largest_of_two(i: Alone, j: Alone, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest value of two columns together, (rows, in), and z_i and z_j there."""
    (linear_i, square_i, (low_i, high_i)), (linear_j, square_j, (low_j, high_j)) = i, j
    determinant = 4 * (square_i * square_j - cross * cross)
    z_i = 2 * (cross * linear_j - square_j * linear_i) / determinant
    z_j = 2 * (cross * linear_i - square_i * linear_j) / determinant
    inside = (low_i <= z_i) & (z_i <= high_i) & (low_j <= z_j) & (z_j <= high_j)  # NaN is not
    # at z, not l·z / 2, which holds at a true peak alone; a ridge has its value on an edge, too
    gain = linear_i * z_i + linear_j * z_j + square_i * z_i**2 + square_j * z_j**2
    gain = torch.where(inside, gain + 2 * cross * z_i * z_j, -torch.inf)
    for end, edge in ((low_i, low_j), (high_i, high_j)):
        other, z = largest_of_one(linear_j + 2 * end * cross, square_j.expand_as(cross), j[2])
        found = other + linear_i * end + square_i * end**2
        z_i, z_j = torch.where(found > gain, end, z_i), torch.where(found > gain, z, z_j)
        gain = gain.maximum(found)
        other, z = largest_of_one(linear_i + 2 * edge * cross, square_i.expand_as(cross), i[2])
        found = other + linear_j * edge + square_j * edge**2
        z_i, z_j = torch.where(found > gain, z, z_i), torch.where(found > gain, edge, z_j)
        gain = gain.maximum(found)
    return gain, z_i, z_j
