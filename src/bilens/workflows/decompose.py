"""Taking the outputs of the layers of a loaded model apart."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.directions import centred_directions, contrast_direction, raw_directions
from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.eigen.batches import select
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.plan import Method, Precision
from bilens.algebra.eigen.ranking import Which
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count
from bilens.errors import UsageError
from bilens.findings.decomposition import LayerDecomposition, summarise_spectra
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import Basis
from bilens.workflows.output_selection import select_outputs

Reading = Literal["centred", "raw"]
Spectrum = Literal["auto", "whole", "top"]
WHOLE_WIDTH, WHOLE_OUTPUTS = 1024, 128  # up to here whole spectra are a matter of seconds


@dataclass(frozen=True)
class Request:
    """What is asked of each layer.

    Attributes:
        top: how many pairs of each output are wanted.
        outputs: which outputs, such as "0,3,7-9" or names of logits; None for all.
        basis: "input", or "embedding" for the first layer of a classifier.
        reading: "centred" (against the mean of all outputs) or "raw"; None is "centred" for
            logits and "raw" for everything else.
        contrast: read one output against another instead.
        which: the end of the spectrum.
        spectrum: "whole" spectra give effective ranks, at O(in³) for each output; "top" computes
            the wanted pairs alone; "auto" is "whole" up to 1024 inputs and 128 outputs.
        method: as in `eigendecompose_all`.
        precision: as in `eigendecompose_all`.
        verify: as in `eigendecompose_all`.
        seed: as in `eigendecompose_all`.
    """

    top: int = 5
    outputs: str | None = None
    basis: Basis = "input"
    reading: Reading | None = None
    contrast: tuple[int, int] | None = None
    which: Which = "magnitude"
    spectrum: Spectrum = "auto"
    method: Method = "auto"
    precision: Precision = "float64"
    verify: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("top", self.top, minimum=1)
        if self.reading is not None and self.reading not in get_args(Reading):
            raise UsageError(f'reading={self.reading!r} is not known: use "centred" or "raw".')
        if self.spectrum not in get_args(Spectrum):
            raise UsageError(
                f'spectrum={self.spectrum!r} is not known: use "auto", "whole" or "top".'
            )
        if self.contrast is not None and (self.reading is not None or self.outputs is not None):
            raise UsageError(
                "a contrast is a reading of its own, of two outputs: leave reading and outputs out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON values."""
        document = asdict(self)
        return {**document, "contrast": None if self.contrast is None else [*self.contrast]}


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What `decompose` found: the record for people, the pairs that it shows for programs."""

    record: LayerDecomposition
    pairs: EigenDecomposition


def decompose(
    model: LoadedModel,
    request: Request | None = None,
    *,
    layer: str | None = None,
    memory_limit: int | str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Decomposition:
    """Take the outputs of one layer apart.

    Args:
        model: what `bl.load` returned.
        request: what is wanted; None for the five leading pairs of every output.
        layer: its name; None where the model has one layer.
        memory_limit: as in `eigendecompose_all`.
        progress: called with (outputs done, outputs).

    Raises:
        UsageError: If there is no such layer, output, basis or reading.
        NotQuadraticError: If the layer is gated.
        MemoryLimitError: If no method fits into the memory allowed.
    """
    request = Request() if request is None else request
    name = choose_layer(model, layer)
    f, is_logits = layer_map(model, name, request.basis)
    names, directions, reading = directions_of(model, f.sizes.d_out, is_logits, request)
    small = f.sizes.d_in <= WHOLE_WIDTH and len(directions) <= WHOLE_OUTPUTS
    whole = request.spectrum == "whole" or (request.spectrum == "auto" and small)
    eigs = eigendecompose_all(
        f,
        directions,
        None if whole else min(request.top, f.sizes.d_in),
        request.which,
        request.method,
        precision=request.precision,
        verify=request.verify,
        memory_limit=memory_limit,
        seed=request.seed,
        progress=progress,
    )
    ranks = None
    if whole:
        spectra = torch.where(eigs.eigenvalues.isfinite(), eigs.distinct_from_zero, 0.0)
        ranks = effective_rank(spectra)
        eigs = select(eigs, request.top, request.which)
    traces = directions @ f.tensor.traces()
    record = LayerDecomposition(
        name,
        request.basis,
        reading,
        request.which,
        "whole" if whole else "top",
        eigs.method,
        request.precision,
        f.sizes.d_in,
        f.sizes.d_hidden,
        f.sizes.d_out,
        summarise_spectra(eigs, names, traces, ranks),
    )
    return Decomposition(record, eigs)


def directions_of(
    model: LoadedModel, d_out: int, is_logits: bool, request: Request
) -> tuple[list[str], Tensor, str]:
    """Return names, (num, out) directions and the name of the reading of the outputs asked for."""
    known = model.output_names if is_logits and model.output_names else None
    names = [str(index) for index in range(d_out)] if known is None else list(known)
    if request.contrast is not None:
        row = contrast_direction(d_out, *request.contrast)
        positive, negative = request.contrast
        return [f"{names[positive]} − {names[negative]}"], row[None], "contrast"
    chosen = select_outputs(request.outputs, names)
    if request.reading == "centred" or (request.reading is None and is_logits):
        rows, reading = centred_directions(d_out), "class-centred"
    else:
        rows, reading = raw_directions(d_out), "raw"
    return [names[index] for index in chosen], rows[torch.tensor(chosen)], reading


def choose_layer(model: LoadedModel, layer: str | None) -> str:
    """Return the name of the layer that is meant."""
    known = list(model.layers)
    if layer is None and len(known) == 1:
        return known[0]
    if layer is None or layer not in known:
        raise UsageError(
            f"{model.source} has the layers {', '.join(known)}; got {layer!r}: name one of them "
            "with --layer."
        )
    return layer


def layer_map(model: LoadedModel, name: str, basis: Basis) -> tuple[QuadraticMap, bool]:
    """Return the map of a layer in a basis, and whether its outputs are logits.

    Weights that have to be multiplied are multiplied in float64.
    """
    view = model.layers[name]
    module = view.module
    if isinstance(module, BilinearClassifier) and view.index is not None:
        if basis == "embedding" and view.index > 0:
            raise UsageError(f"{name} has no embedding before it: use basis='input' (--basis).")
        wide = copy.deepcopy(module).double()
        return wide.layer_map(view.index, basis).detach(), view.index == len(module.layers) - 1
    if basis != "input":
        raise UsageError(f"a {type(module).__name__} has no embedding: use --basis input.")
    if module.has_bias:  # they multiply the weights
        module = copy.deepcopy(module).double()
    return module.quadratic_map().detach(), False
