"""The interactions of a layer's inputs along one output: Q between those that are chosen."""

from typing import Annotated

import torch
from msgspec import Meta

from bilens.api import shorts
from bilens.base.errors import UsageError
from bilens_explorer.endpoint import Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.layer_spectra import InteractionView
from bilens_explorer.records.models import Key
from bilens_explorer.spectra import LayerName, OutputText, OutputView, held_outputs

MOST, SHOWN = 200, 40  # inputs


def interactions(
    served: ServedFolder,
    key: Key,
    layer: LayerName,
    output: OutputText = "0",
    count: Annotated[int, Meta(ge=1, le=MOST, description="strongest inputs")] = SHOWN,
    inputs: Annotated[str, Meta(max_length=4000, description="or these, with commas")] = "",
) -> InteractionView:
    """The interactions of inputs of a layer along an output: the strongest, or those named."""
    read = OutputView.named(served, key, layer, output)
    what = "interactions", read.layer, read.text, read.fit, count, inputs
    return read.opened.once(what, lambda: view_of(read, count, inputs))


def view_of(output: OutputView, number: int, text: str) -> InteractionView:
    job, names = output.job(), output.input_names
    f = job.read.read_map(job.layer.f).detach().to(torch.float64)
    matrix = f.form(torch.ones(1).double()).dense()
    if text:
        chosen = named(text, names, len(matrix))
    else:
        chosen = matrix.norm(dim=1).argsort(descending=True, stable=True)[:number].tolist()
    part, whole = matrix[chosen][:, chosen], float(matrix.norm()) or 1.0
    return InteractionView(
        layer=output.layer,
        output=job.read.names[0],
        reading=job.read.reading,
        approximation=output.approximation,
        inputs=tuple(chosen),
        names=None if names is None else tuple(names[index] for index in chosen),
        shape=output.image,
        matrix=tuple(shorts(row) for row in part),
        d_in=len(matrix),
        share=(float(part.norm()) / whole) ** 2,
    )


def named(text: str, names: tuple[str, ...] | None, width: int) -> list[int]:
    """Return the inputs that a text lists by name or number, each once."""
    found: dict[int, None] = {}
    for part in map(str.strip, text.split(",")):
        if names is not None and part in names:
            found[names.index(part)] = None
        elif part.isdecimal() and len(part) < 10 and int(part) < width:
            found[int(part)] = None
        else:
            raise UsageError(
                f"{part!r:.80} names no input: expected one from 0 to {width - 1}"
                + (", or a name." if names else ".")
            )
    if len(found) > MOST:
        raise UsageError(f"{len(found)} inputs were asked for; at most {MOST} are shown.")
    return [*found]


ENDPOINTS = (Endpoint("/models/{key}/interactions", interactions, held=held_outputs, slow="view"),)
