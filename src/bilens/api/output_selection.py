"""Which outputs of a layer are read, and along which directions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bilens.algebra.directions import contrast_direction, outputs_of
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.decomposition_request import Request
from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn.layer_view import Gives


@dataclass(frozen=True)
class LayerOutputs:
    """What the outputs of a layer are, and how they are called.

    Names belong to what the model gives out. A neuron inside it has an index alone: that neuron 3
    stands beside class 3 says nothing.
    """

    layer: str
    kind: Gives
    names: tuple[str, ...]
    logits: str | None

    @classmethod
    def of(cls, model: LoadedModel, layer: str) -> LayerOutputs:
        """Return the outputs of a layer of a model."""
        view = model.layers[layer]
        logits = [name for name, one in model.layers.items() if one.gives == "logits"]
        whole = view.gives == "logits" or (view.gives == "outputs" and view.reads == "inputs")
        named = model.output_names if whole else None
        names = named or counted(view.sizes.d_out)
        return cls(layer, view.gives, names, logits[-1] if logits else None)

    def refuse_neurons(self, what: str) -> None:
        """Refuse a reading of classes where the outputs are neurons."""
        if self.kind == "neurons":
            raise UsageError(
                f"the outputs of {self.layer} are neurons inside the model, not classes, and "
                f"{what}: read the logits alone, with --layer {self.logits}."
            )


@dataclass(frozen=True, eq=False)
class OutputReading:
    """What is read of the outputs of a layer."""

    names: list[str]
    outputs: list[int]
    reading: str

    def of(self, f: QuadraticMap) -> QuadraticMap:
        """Return what is read of a map with the outputs of the layer, one output a direction."""
        if self.reading != "contrast":
            return outputs_of(f, self.outputs, centred=self.reading == "class-centred")
        row = contrast_direction(f.sizes.d_out, *self.outputs)
        return f.compose_output(row[None].to(f.tensor.down))


def read_outputs(outputs: LayerOutputs, request: Request) -> OutputReading:
    """Return the directions that a request asks for."""
    names, d_out = outputs.names, len(outputs.names)
    if request.contrast is not None:
        outputs.refuse_neurons("a contrast reads one class against another")
        first, second = (output_index(value, outputs) for value in request.contrast)
        contrast_direction(d_out, first, second)  # refuses outputs that there are not
        return OutputReading([f"{names[first]} − {names[second]}"], [first, second], "contrast")
    chosen = select_outputs(request.outputs, outputs)
    if request.reading == "centred":
        outputs.refuse_neurons("a class-centred reading is against the mean of all classes")
    if request.reading == "centred" or (request.reading is None and outputs.kind == "logits"):
        reading = "class-centred"
    else:
        reading = "raw"
    return OutputReading([names[index] for index in chosen], chosen, reading)


def output_index(value: int | str, outputs: LayerOutputs) -> int:
    """Return the index of an output from its index or name; what is a name is taken as one."""
    if not isinstance(value, str):
        return value
    named = index_of_name(value, outputs)
    if named is not None:
        return named
    if re.fullmatch(r"-?\d{1,9}", value):
        return int(value)
    raise UsageError(f"{value!r} names no output of {expected(outputs)}.")


def select_outputs(text: str | None, outputs: LayerOutputs) -> list[int]:
    """Return the indices of the outputs that a text names, each once, in its order."""
    number = len(outputs.names)
    if text is None:
        return list(range(number))
    chosen: dict[int, None] = {}
    for part in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        named = index_of_name(part, outputs)
        if named is not None:
            chosen[named] = None
        elif span is not None and int(span[1]) <= int(span[2] or span[1]) < number:
            chosen.update(dict.fromkeys(range(int(span[1]), int(span[2] or span[1]) + 1)))
        else:
            raise UsageError(f"{part!r} in {text!r} names no output of {expected(outputs)}.")
    return list(chosen)


def index_of_name(text: str, outputs: LayerOutputs) -> int | None:
    """Return the index of the output with a name; None if there is none."""
    found = [index for index, name in enumerate(outputs.names) if name == text]
    if len(found) > 1:
        raise UsageError(
            f"{text!r} is the name of the outputs {', '.join(map(str, found))} of "
            f"{outputs.layer}: give the index of one of them."
        )
    return found[0] if found else None


def expected(outputs: LayerOutputs) -> str:
    """Return a layer, and what names one of its outputs, for a message."""
    names = outputs.names
    indices = f"{outputs.layer}: expected an index from 0 to {len(names) - 1}, or a range such "
    if outputs.kind == "neurons":
        return (
            f"{indices}as 3-7, since its outputs are neurons inside the model, without names; to "
            f"name classes, read the logits alone, with --layer {outputs.logits}"
        )
    more = ", …" if len(names) > 5 else ""
    return f"{indices}as 3-7, or one of the names {', '.join(names[:5])}{more}"


def counted(number: int) -> tuple[str, ...]:
    """Return the indices of outputs, as their names."""
    return tuple(str(index) for index in range(number))
