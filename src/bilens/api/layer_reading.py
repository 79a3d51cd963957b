"""A request to decompose a layer: the outputs to read, and its map in the basis asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.approximation.closed_form import exact_map
from bilens.algebra.approximation.quadratic_fit import QuadraticFit
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import contrast_direction, outputs_of
from bilens.algebra.gaussian import mean_and_covariance, whiten
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.decomposition_request import Basis as Basis, Reading as Reading, Request as Request
from bilens.api.provenance import image_origin
from bilens.api.quadratic_fit import offer_of
from bilens.api.subject import check_on_rows
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.data.images import ImageDataset
from bilens.data.model_interface import LabelledData
from bilens.data.table_columns import label_key, name_finder
from bilens.findings.fits import approximation_quality
from bilens.io.load import LayerView, LoadedModel
from bilens.io.loaded_model import is_of_numbers
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import Gives
from bilens.records.base import to_json
from bilens.records.decomposition import ApproximationQuality


@dataclass(frozen=True, eq=False)
class InputMoments:
    mean: Tensor  # μ, (in,) float64
    covariance: Tensor  # Σ, (in, in) float64
    about: dict[str, Any]


def moments_of(
    data: ImageDataset | LabelledData | None, model: LoadedModel | None = None
) -> InputMoments:
    """Return the moments of training images, or of the inputs of other data.

    A model is compared with its source on them.
    """
    if data is None:
        raise UsageError(
            "whitened coordinates need the images that the model was trained on: pass --data with "
            "the IDX files of the data set, and --dataset where the model does not say it; or any "
            "other inputs."
        )
    if model is not None:
        check_on_rows(model, data.inputs if isinstance(data, LabelledData) else data.train_images)
    if isinstance(data, LabelledData):
        mean, covariance = mean_and_covariance(data.inputs)
        return InputMoments(mean, covariance, to_json(data.origin))
    about = {**to_json(image_origin(data)), "split": "training"}
    about["num_images"] = len(data.train_images)
    mean, covariance = mean_and_covariance(data.train_images)
    return InputMoments(mean, covariance, about)


@dataclass(frozen=True)
class LayerOutputs:
    """The outputs of a layer: their kind, and their names."""

    layer: str
    kind: Gives
    names: tuple[str, ...]
    logits: str | None  # the layer whose outputs are the logits
    numbers: bool = False  # whether they are known to be no classes

    @classmethod
    def from_model(cls, model: LoadedModel, layer: str) -> LayerOutputs:
        view = model.layers[layer]
        logits = [name for name, one in model.layers.items() if one.gives == "logits"]
        ends = view.gives == "outputs" and view.reads in ("inputs", "neurons")
        whole = view.gives == "logits" or ends
        named = model.output_names if whole else None
        names = named or tuple(map(str, range(view.sizes.d_out)))
        numbers = whole and is_of_numbers(model, view.sizes.d_out)
        return cls(layer, view.gives, names, logits[-1] if logits else None, numbers)

    @property
    def called_by_numbers(self) -> bool:
        """Whether names are numbers that are not the positions, so that a text is a name."""
        numbers = any(re.fullmatch(r"[-+.\d\s]+", name) for name in self.names)
        return numbers and self.names != tuple(map(str, range(len(self.names))))

    def refuse_neurons(self, what: str) -> None:
        """Refuse a reading of classes where the outputs are neurons."""
        if self.kind == "neurons":
            raise UsageError(
                f"the outputs of {self.layer} are neurons inside the model, not classes, and "
                f"{what}: read the logits alone, with --layer {self.logits}."
            )


@dataclass(frozen=True, eq=False)
class OutputReading:
    names: list[str]
    outputs: list[int]  # of a contrast the positive and the negative one
    reading: str  # "class-centred", "raw" or "contrast"

    def read_map(self, f: QuadraticMap) -> QuadraticMap:
        if self.reading != "contrast":
            return outputs_of(f, self.outputs, centred=self.reading == "class-centred")
        row = contrast_direction(f.sizes.d_out, *self.outputs)
        return f.compose_output(row[None].to(f.tensor.down))


def read_outputs(outputs: LayerOutputs, request: Request) -> OutputReading:
    names, d_out = outputs.names, len(outputs.names)
    if request.contrast is not None:
        outputs.refuse_neurons("a contrast reads one class against another")
        first, second = (output_index(value, outputs) for value in request.contrast)
        contrast_direction(d_out, first, second)  # refuses outputs that there are not
        return OutputReading([f"{names[first]} − {names[second]}"], [first, second], "contrast")
    chosen = select_outputs(request.outputs, outputs)
    if request.reading == "centred":
        outputs.refuse_neurons("a class-centred reading is against the mean of all classes")
        if outputs.numbers:
            raise UsageError(
                f"the outputs of {outputs.layer} are no classes but numbers, or yes-no answers, "
                "each of its own, and their mean is nothing: read them raw."
            )
    several = outputs.kind == "logits" and d_out > 1  # against its own mean, one output is nothing
    centred = request.reading or ("centred" if several else "raw")
    reading = "class-centred" if centred == "centred" else "raw"
    return OutputReading([names[index] for index in chosen], chosen, reading)


def output_index(value: object, outputs: LayerOutputs) -> int:
    """Return the index of an output from its index or name; what is a name is taken as one."""
    if isinstance(value, Integral):  # of NumPy, too
        return int(value)
    named = index_of_name(value, outputs) if isinstance(value, str) else None
    if named is not None:
        return named
    if not outputs.called_by_numbers and re.fullmatch(r"-?\d{1,9}", str(value)):
        return int(str(value))
    raise UsageError(f"{value!r} names no output of {expected_outputs(outputs)}.")


def select_outputs(text: str | tuple[int, ...] | None, outputs: LayerOutputs) -> list[int]:
    """Return the indices of the outputs that a text names, each once, in its order."""
    number = len(outputs.names)
    if text is None:
        return list(range(number))
    chosen: dict[int, None] = {}
    if isinstance(text, tuple):
        wrong = [index for index in text if index not in range(number)]
        if wrong:
            raise UsageError(f"{wrong[0]} is no output of {expected_outputs(outputs)}.")
        return [*dict.fromkeys(map(int, text))]
    for part in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        span = None if outputs.called_by_numbers else span
        named = index_of_name(part, outputs)
        if named is not None:
            chosen[named] = None
        elif span is not None and int(span[1]) <= int(span[2] or span[1]) < number:
            chosen.update(dict.fromkeys(range(int(span[1]), int(span[2] or span[1]) + 1)))
        else:
            raise UsageError(
                f"{part!r} in {text!r} names no output of {expected_outputs(outputs)}."
            )
    return list(chosen)


def index_of_name(text: str, outputs: LayerOutputs) -> int | None:
    found = name_finder(tuple(outputs.names), str, label_key)(text)
    if len(found) > 1:
        raise UsageError(
            f"{text!r} is the name of the outputs {', '.join(map(str, found))} of "
            f"{outputs.layer}: give the index of one of them."
        )
    return found[0] if found else None


def expected_outputs(outputs: LayerOutputs) -> str:
    """Return a layer, and what names one of its outputs, for a message."""
    names = outputs.names
    indices = f"{outputs.layer}: expected an index from 0 to {len(names) - 1}, or a range such "
    if outputs.kind == "neurons":
        return (
            f"{indices}as 3-7, since its outputs are neurons inside the model, without names; to "
            f"name classes, read the logits alone, with --layer {outputs.logits}"
        )
    called = f"one of the names {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    if outputs.called_by_numbers:
        return f"{outputs.layer}: expected {called}, or in Python indices, as whole numbers"
    return f"{indices}as 3-7, or {called}"


@dataclass(frozen=True, eq=False)
class LayerMap:
    """A layer in a basis, and what the rotation null of it needs."""

    f: QuadraticMap  # in the basis asked for
    behind: QuadraticMap  # behind the embedding, where the null rotates its branches
    embedding: Tensor | None  # E, (in of behind, in of f), whitening included
    approximation: ApproximationQuality | None = None  # None where the map is the layer
    about_input: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the map."""
        parts = (self.f.tensor.down, self.f.tensor.left, self.f.tensor.right, self.f.linear)
        return sum(part.nbytes for part in parts if part is not None)


def layer_map(
    model: LoadedModel,
    name: str,
    basis: Basis,
    inputs: InputMoments | None = None,
    threshold: float | None = None,
) -> LayerMap:
    """Return a layer in a basis; weights that have to be multiplied are multiplied in float64.

    A layer with an activation is read from an R² of `threshold` on; None is that of its own fit.
    """
    view, module = model.layers[name], model.module
    if basis != "input" and view.reads in ("residual stream", "activations"):
        normalised = "a normalised " if view.reads == "residual stream" else ""
        raise UsageError(f"{name} reads {normalised}{view.reads}: use --basis input.")
    if basis != "input" and view.reads == "neurons":
        what = "embedding before it" if basis == "embedding" else "images for inputs, but neurons"
        raise UsageError(
            f"{name} has no {what}: use basis='input' (--basis), or read the first layer alone, "
            f"with --layer {next(iter(model.layers))}."
        )
    if basis == "embedding" and not isinstance(module, BilinearClassifier):
        kind = "model of another library" if module is None else type(module).__name__
        raise UsageError(f"a {kind} has no embedding: use --basis input.")
    if not view.exact:
        fit = stand_in(view, name, threshold)
        said = approximation_quality(fit, view.activation.name)
        mapped = LayerMap(fit.quadratic_map, fit.quadratic_map, None, said, view.about_input)
    elif isinstance(module, BilinearClassifier):
        mapped = layer_of(module, [*model.layers].index(name), basis)
    else:
        f = exact_map(view.weights(torch.float64))
        mapped = LayerMap(f, f, None, about_input=view.about_input)
    return mapped if basis != "whitened" else whiten_layer(mapped, name, inputs)


def stand_in(view: LayerView, name: str, threshold: float | None) -> QuadraticFit:
    """Return the quadratic approximation of a layer that is not quadratic."""
    fit = view.fit
    assert fit is not None, "asked of approximate layers alone"
    fit = fit if threshold is None else replace(fit, threshold=threshold)
    if not fit.usable:
        branch = "gate" if view.gated else "activation"
        raise NotQuadraticError(
            f"{name} has the {branch} {view.activation.name!r}, so its output is not a quadratic "
            "form of its input: build or train it without one (gate=None). "
            f"{offer_of(fit, f'model.layers[{name!r}]')}"
        )
    return fit


def layer_of(module: BilinearClassifier, index: int, basis: Basis) -> LayerMap:
    """Return a layer of a classifier as it is, or in the basis behind its embedding."""
    dtype = torch.float64
    f = module.layer_map(index, "embedding" if basis == "embedding" else "input", dtype).detach()
    if index > 0 or basis == "embedding":
        return LayerMap(f, f, None)
    behind = module.layer_map(index, "embedding", dtype).detach()
    return LayerMap(f, behind, module.embed.weight.detach().to(dtype))


def whiten_layer(layer: LayerMap, name: str, inputs: InputMoments | None) -> LayerMap:
    """Return a layer in coordinates in which its inputs have unit covariance."""
    if inputs is None:
        raise UsageError('the basis "whitened" needs inputs: pass their moments (--data-dir).')
    d_in = layer.f.sizes.d_in
    if len(inputs.mean) != d_in:
        raise UsageError(
            f"{name} reads {d_in} inputs, and {inputs.about['name'] or 'the data'} has images of "
            f"{len(inputs.mean)} pixels: pass the data set that it was trained on."
        )
    identity = torch.eye(d_in, dtype=torch.float64)
    embedding = identity if layer.embedding is None else layer.embedding
    one = embedding.new_ones(1, len(embedding))
    branches = QuadraticMap(BilinearTensor(one, embedding, embedding))  # carries E through Σ^½
    return LayerMap(
        whiten(layer.f, inputs.covariance, inputs.mean),
        layer.behind,
        whiten(branches, inputs.covariance).tensor.left,
        layer.approximation,
        layer.about_input,
    )
