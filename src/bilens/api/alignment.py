"""Two models as one: inputs and outputs of a baseline that are those of a model, by name and unit.

Every comparison asks here, and reads the baseline's layers as functions of the model's inputs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from bilens.api.neuron_orders import in_order, orders_of_neurons
from bilens.api.provenance import reading_of
from bilens.data.table_columns import label_key, spelling_key, text_hash, unit_conversion
from bilens.findings.residual_stream import Turn, find_turn
from bilens.io.loaded_model import LoadedModel, is_of_numbers, is_regressor
from bilens.io.tensor_names import paired
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import LayerView
from bilens.records.column_readings import BY_RANK, names_of
from bilens.records.layer_readings import AlignmentNote

NOT_PAIRED = (
    "hidden neurons have no names, and neither in their places nor in another order do those of "
    "the two models answer alike: they were not paired"
)
RANK = "rank among"  # the unit of ranks, before what tells among which rows


@dataclass(frozen=True, eq=False)
class AlignedAxis:
    """The inputs, or the outputs, of a baseline beside those of a model."""

    pairs: tuple[tuple[int, int], ...]  # places in the model and in the baseline
    factors: tuple[float, ...]  # of each pair: a number of the model becomes the baseline's
    sizes: tuple[int, int]  # of the model and of the baseline
    alone: tuple[str, ...] = ()  # names of the model without a counterpart
    baseline_alone: tuple[str, ...] = ()
    by_place: bool = False  # whether one of the two has no names
    units: tuple[str, ...] = ()  # that were converted, in words
    shifts: tuple[float, ...] = ()  # of each pair, behind its factor; none where all are 0
    target: tuple[str, ...] = ()  # of the baseline and of the model, where it is another one
    reread: tuple[str, ...] = ()  # columns of both, read by ranks of other rows, or by none in one

    @property
    def complete(self) -> bool:
        return len(self.pairs) == self.sizes[0] == self.sizes[1]

    @property
    def lacks(self) -> bool:
        """Whether inputs or outputs are without a counterpart, in one of the two."""
        return bool(self.alone or self.baseline_alone or self.reread)

    @property
    def reordered(self) -> bool:
        return any(mine != theirs for mine, theirs in self.pairs)

    @property
    def matrix(self) -> Tensor:
        """The baseline's numbers from the model's, (baseline, model); zeros without counterpart."""
        found = torch.zeros(self.sizes[1], self.sizes[0], dtype=torch.float64)
        for (mine, theirs), factor in zip(self.pairs, self.factors, strict=True):
            found[theirs, mine] = factor
        return found

    @property
    def back(self) -> Tensor:
        """The model's numbers from the baseline's, (model, baseline), where nothing is shifted."""
        matrix = self.matrix.T
        return torch.where(matrix == 0, 0.0, 1 / matrix)


def axis_of(
    names: tuple[Sequence[str] | None, Sequence[str] | None],
    sizes: tuple[int, int],
    prefix: str = "",
    units: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> AlignedAxis:
    """Match by name, and by place where one of the two has no names and as many."""
    mine, theirs = names
    if mine is None or theirs is None:
        if sizes[0] == sizes[1]:
            pairs, one_named = tuple((at, at) for at in range(sizes[0])), mine != theirs
            return AlignedAxis(pairs, (1.0,) * len(pairs), sizes, by_place=one_named)
        spans = ((f"{prefix}0 … {prefix}{size - 1}",) for size in sizes)
        alone, theirs = (tuple(one or span) for one, span in zip(names, spans, strict=True))
        return AlignedAxis((), (), sizes, alone, theirs)
    keys, other = keys_of((mine, theirs), units)
    shared, reread = dict[tuple[int, int], tuple[float, float]](), dict[int, int]()
    converted, free = list[str](), {key: at for at, key in reversed([*enumerate(other)])}
    for at, key in enumerate(keys):
        place = free.get(key)
        if place is None:
            continue
        unit, before = units[0].get(mine[at], ""), units[1].get(theirs[place], "")
        if unit != before and RANK in unit + before:
            reread[at] = free.pop(key)
            continue
        found = unit_conversion(unit, before)
        if found is not None:
            shared[at, free.pop(key)] = found
        if found not in (None, (1.0, 0.0)):
            converted.append(f"{mine[at]} ({before} → {unit})")
    matched, met = ({pair[side] for pair in (*shared, *reread.items())} for side in (0, 1))
    return AlignedAxis(
        tuple(shared),
        tuple(factor for factor, _ in shared.values()),
        sizes,
        tuple(name for at, name in enumerate(mine) if at not in matched),
        tuple(name for at, name in enumerate(theirs) if at not in met),
        units=tuple(converted),
        shifts=tuple(shift for _, shift in shared.values()),
        reread=tuple(mine[at].removesuffix(BY_RANK) for at in reread),
    )


def keys_of(
    sides: tuple[Sequence[str], Sequence[str]], units: tuple[Mapping[str, str], Mapping[str, str]]
) -> list[list[str]]:
    """Return the keys to match names by: spelt as labels are; days without their first one."""

    def plain(name: str, unit: str) -> str:
        if RANK in unit:
            return name.removesuffix(BY_RANK)
        return name.removesuffix(f"days since {unit}") if unit and all(units) else name

    named = [
        [plain(name, known.get(name, "")) for name in side]
        for side, known in zip(sides, units, strict=True)
    ]
    spelt = [[*map(label_key, side)] for side in named]
    twice = {key for side in spelt for key, count in Counter(side).items() if count > 1}
    return [
        [name if key in twice else key for name, key in zip(side, keys, strict=True)]
        for side, keys in zip(named, spelt, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Alignment:
    """A model beside its baseline: what of the one is what of the other."""

    model: LoadedModel
    baseline: LoadedModel
    inputs: AlignedAxis | None  # None where layers are parts of a model without such inputs
    outputs: AlignedAxis | None
    head: str = ""  # why outputs are not compared: they are of another kind
    one_logit: tuple[bool, bool] = (False, False)  # the one output is about the second of two

    @cached_property
    def turn(self) -> Callable[[], Turn]:
        """Return how the residual stream of the baseline has to be turned to be the model's."""
        return cache(lambda: find_turn(self.model, self.baseline))  # it reads the embeddings

    @property
    def notes(self) -> tuple[AlignmentNote, ...]:
        """How inputs and outputs of both were matched, and which lack a counterpart."""
        found: dict[str, tuple[str, ...]] = {}
        for name, axis in (("inputs", self.inputs), ("outputs", self.outputs)):
            if axis is None:
                continue
            if axis.reordered:
                found[f"{name}_reordered"] = ()
            found[f"{name}_alone"] = axis.alone
            found[f"baseline_{name}_alone"] = axis.baseline_alone
            found["units"] = found.get("units", ()) + axis.units
            found["target"] = axis.target
            by_place = (name,) if axis.by_place else ()
            found["by_place"] = found.get("by_place", ()) + by_place
        told = {key: names for key, names in found.items() if names or key.endswith("reordered")}
        if any(self.one_logit):
            told["one_logit"] = ()
        orders = {name: one for name, one in self.neuron_orders.items() if one is not None}
        places = {name: torch.arange(len(one)) for name, one in orders.items()}
        if moved := [name for name in orders if not torch.equal(orders[name], places[name])]:
            told["neurons_reordered"] = tuple(moved)
        return tuple(AlignmentNote(key, names) for key, names in told.items())

    @property
    def fixed(self) -> Tensor:
        """The baseline's inputs where those of the model are 0: at their means without any."""
        assert self.inputs is not None, "of a whole model"
        found = torch.zeros(self.inputs.sizes[1], dtype=torch.float64)
        if self.baseline.input_mean is not None:
            found += torch.tensor(self.baseline.input_mean, dtype=torch.float64)
        places = [theirs for _, theirs in self.inputs.pairs]
        shifts = self.inputs.shifts or (0.0,) * len(places)
        found[places] = torch.tensor(shifts, dtype=torch.float64)
        return found

    def rows_of_baseline(self, x: Tensor) -> Tensor:
        """Return rows of the model's inputs as the baseline reads them."""
        assert self.inputs is not None, "of a whole model"
        return x.double() @ self.inputs.matrix.T + self.fixed

    @cached_property
    def layer_names(self) -> Mapping[str, str]:
        """Layers of the model and their names in the baseline.

        Networks of as many layers are paired by place, whatever their layers are called; others by
        name, as their families write it.
        """
        mine, theirs = self.model.layers, self.baseline.layers
        chained = self.model.network and len(self.model.network) == len(self.baseline.network)
        if chained and {*mine} != {*theirs}:
            return dict(zip(mine, theirs, strict=True))
        return paired(mine, theirs)

    @cached_property
    def neuron_orders(self) -> Mapping[str, Tensor | None]:
        """Layers of a network that give neurons → which of the baseline's these are, or None."""
        mine, theirs = self.model.network, self.baseline.network
        names = [self.layer_names.get(view.name) for view in mine]
        if len(mine) != len(theirs) or None in names:
            return {}
        before = [self.baseline.layers[name] for name in names if name is not None]
        return orders_of_neurons([*map(self.reading_model_inputs, before)], mine)

    @property
    def layers_before(self) -> tuple[LayerView, ...]:
        """The layers of the baseline that the model has, too, as `before` gives them."""
        found = (self.before(name) for name in self.model.layers)
        return tuple(view for view in found if view is not None)

    @property
    def refused(self) -> dict[str, str]:
        """Why layers are not compared, also those that the baseline alone has."""
        reasons = {name: self.why_not(name) for name in self.model.layers}
        alone = [*self.baseline.layers.keys() - self.layer_names.values()]
        reasons |= dict.fromkeys(sorted(alone), "the model has no such layer")
        return {name: why for name, why in reasons.items() if why is not None}

    def why_not(self, name: str) -> str | None:
        """Return why a layer of the model is not compared; None where it is."""
        if name not in self.layer_names:
            return "the baseline has no such layer"
        view = self.model.layers[name]
        if None in (self.neuron_orders.get(one, ()) for one in (self.layer_ahead(name), name)):
            return NOT_PAIRED
        if self.inputs is not None and view.reads == "inputs" and self.inputs.lacks:
            return lacking("inputs", self.inputs)
        if self.outputs is not None and name == [*self.model.layers][-1]:
            if self.head:
                return self.head
            if self.outputs.lacks:
                return lacking("outputs", self.outputs)
        return None

    def layer_ahead(self, name: str) -> str:
        """Return the layer of the model whose outputs a layer reads; empty for the first."""
        names = [*self.model.layers]
        return names[names.index(name) - 1] if name != names[0] else ""

    def reading_model_inputs(self, view: LayerView) -> LayerView:
        """Return a layer of the baseline that reads what the model reads, if it reads inputs.

        Its own inputs without a counterpart stay at their means.
        """
        axis = self.inputs
        if axis is None or view.reads != "inputs":
            return view
        if not (axis.lacks or axis.reordered or axis.units):
            return view
        return view.behind(axis.matrix, self.fixed)

    def before(self, name: str) -> LayerView | None:
        """Return a layer of the baseline with the model's inputs and outputs; None without one."""
        if name not in self.layer_names:
            return None
        theirs = self.layer_names[name]
        view = replace(self.reading_model_inputs(self.baseline.layers[theirs]), name=name)
        orders = self.neuron_orders
        view = in_order(view, orders.get(self.layer_ahead(name)), outputs=False)
        view = in_order(view, orders.get(name), outputs=True)
        if self.outputs is not None and theirs == [*self.baseline.layers][-1]:
            logit = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
            if self.one_logit == (False, True):
                view = view.before(logit, "logits")
            elif self.one_logit == (True, False):
                view = view.before(torch.tensor([[-1.0, 1.0]]).double(), "outputs")
            elif (self.outputs.reordered or self.outputs.units) and self.outputs.complete:
                view = view.before(self.outputs.back, view.gives)
        # a file may not say that its outputs are logits, which are read less their mean
        return replace(view, gives=self.model.layers[name].gives)


def lacking(what: str, axis: AlignedAxis) -> str:
    sides = {"the model": axis.alone, "the baseline": axis.baseline_alone}
    named = [f"{', '.join(names[:8])} of {whose}" for whose, names in sides.items() if names]
    if axis.reread:
        named.append(f"{', '.join(axis.reread[:8])}, by other ranks or in one alone by rank")
    return f"{what} without a counterpart: {'; '.join(named)}"


def align_models(model: LoadedModel, baseline: LoadedModel) -> Alignment:
    """Return which inputs and outputs of a baseline are those of a model, and what lacks in one."""
    if [*model.layers] != [*baseline.layers]:  # a Llama may be read as a whole, or not
        model, baseline = (one.alone() if one.alone else one for one in (model, baseline))
    both, inputs = (model, baseline), None
    if not (model.layers and baseline.layers):
        return Alignment(model, baseline, None, None)
    views = [[*one.layers.values()] for one in both]
    if all(one[0].reads == "inputs" for one in views):
        inputs = inputs_axis(model, baseline)
    last, before = views[0][-1], views[1][-1]
    whole = ("inputs", "neurons")
    if any(one.gives == "neurons" or one.reads not in whole for one in (last, before)):
        return Alignment(model, baseline, inputs, None)
    counts = last.sizes.d_out, before.sizes.d_out
    kinds = tuple(map(kind_of_outputs, both))
    one_logit = counts == (1, 2), counts == (2, 1)
    several = (before, last)[counts[0] == 2]
    if any(one_logit) and several.gives == "logits" and "numbers" not in kinds:
        classes = AlignedAxis(((0, 0),), (1.0,), (1, 1))  # the same two, in their order
        return Alignment(model, baseline, inputs, classes, one_logit=one_logit)
    if counts == (1, 1):
        outputs = axis_of_target(model, baseline)
    else:
        outputs = axis_of((model.output_names, baseline.output_names), counts)
    if counts == (1, 1) and outputs.lacks:
        kinds = tuple(f"numbers in {unit_of_target(one) or 'no unit'}" for one in both)
    known = all(kinds) and kinds[0] != kinds[1]
    head = f"the model gives {kinds[0]}, and the baseline {kinds[1]}" if known else ""
    ends = [*map(known_head, both)]
    if not head and None not in ends and ends[0] != ends[1]:
        mine, theirs = (end or "nothing" for end in ends)
        head = f"behind the last layer the model has {mine}, and the baseline {theirs}"
        if "softmax" in mine + theirs and "nothing" in (mine, theirs):  # probabilities and logits
            whose = "baseline" if mine == "nothing" else "model"
            head += f": take it off the {whose}, so that both give logits"
    return Alignment(model, baseline, inputs, outputs, head)


def axis_of_target(model: LoadedModel, baseline: LoadedModel) -> AlignedAxis:
    """Match the one output of each by its unit, whatever the target is called."""
    mine, theirs = ((one.output_names or ("",))[0] for one in (model, baseline))
    units = {mine: unit_of_target(model)}, {mine: unit_of_target(baseline)}
    found = axis_of(((mine,), (mine,)), (1, 1), units=units)
    other = "" not in (mine, theirs) and spelling_key(mine) != spelling_key(theirs)
    return replace(found, target=(f"{theirs} → {mine}",) if other else ())


def unit_of_target(model: LoadedModel) -> str:
    read = reading_of(model)
    return "" if read is None or read.target is None else read.target.unit


def inputs_axis(model: LoadedModel, baseline: LoadedModel) -> AlignedAxis:
    """Match columns by name and unit, pixels by place where images are laid out alike."""
    both = model, baseline
    widths = tuple(next(iter(one.layers.values())).sizes.d_in for one in both)
    names = model.own_input_names, baseline.own_input_names
    units = units_of_inputs(model), units_of_inputs(baseline)
    shapes = [[side for side in one.input_shape or () if side > 1] for one in both]
    if all(len(shape) > 1 for shape in shapes) and shapes[0] != shapes[1]:
        mine, theirs = (" × ".join(map(str, shape)) for shape in shapes)
        return AlignedAxis((), (), (widths[0], widths[1]), (mine,), (theirs,))
    return axis_of(names, (widths[0], widths[1]), "x", units)


def units_of_inputs(model: LoadedModel) -> Mapping[str, str]:
    """Return the unit of each input that is a number of a table with one; of days the first."""
    read, found = reading_of(model), dict[str, str]()
    for one in () if read is None else read.columns:
        days = f"{one.name}: days since {one.first}"
        found |= {name: one.unit for name in one.inputs if name == one.name and one.unit}
        found |= {name: one.first for name in one.inputs if name == days and one.first}
        # ranks among other rows are another unit
        found |= {names_of(one)[0]: f"{RANK} {text_hash(str(one.curve))}"} if one.curve else {}
    return found


def known_head(model: LoadedModel) -> str | None:
    """Return the function behind the last layer, empty for none; None where it was not compared."""
    if model.load_report is None or not model.load_report.verified:
        return None
    return (model.head or "").lower().replace("_", "").partition(" ")[0]


def kind_of_outputs(model: LoadedModel) -> str:
    """Return the kind of numbers that a whole model gives; empty where nothing says so."""
    report, last = model.load_report, [*model.layers.values()][-1]
    head = "" if report is None else report.head or ""
    if head == "exp":
        return "logarithms of a mean"
    one_number = isinstance(model.module, BilinearClassifier) and last.sizes.d_out == 1
    if is_of_numbers(model) or one_number or is_regressor(model):
        return "numbers"
    if head.lower().endswith(("softmax", "sigmoid")) or last.gives == "logits":
        return "logits"
    return ""
