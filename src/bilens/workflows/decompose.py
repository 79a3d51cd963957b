"""Taking the outputs of one layer of a loaded model apart."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import save as to_safetensors

from bilens.algebra.directions import centred_directions, contrast_direction, raw_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count
from bilens.errors import UsageError
from bilens.findings.decomposition import LayerDecomposition, summarise_spectra
from bilens.io.atomic import write_file
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import Basis


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What `decompose` found: the record for people, the pairs for programs."""

    record: LayerDecomposition
    pairs: EigenDecomposition

    def save(self, path: Path, top: int) -> None:
        """Write the leading pairs as safetensors, the record in its metadata.

        Raises:
            DiskError: If the disk is full.
            FileError: If the folder cannot be written to.
        """
        tensors = {
            "eigenvalues": self.pairs.eigenvalues[:, :top],
            "eigenvectors": self.pairs.eigenvectors[:, :top],
            "residuals": self.pairs.residuals[:, :top],
            "frobenius_squared": self.pairs.frobenius_squared,
        }
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {"format": "pt", "bilens": json.dumps(self.record.to_dict())}
        write_file(path, to_safetensors(tensors, metadata))


def decompose(
    model: LoadedModel,
    *,
    layer: str | None = None,
    top: int = 5,
    basis: Basis = "input",
    reading: Literal["centred", "raw"] | None = None,
    contrast: tuple[int, int] | None = None,
) -> Decomposition:
    """Take the outputs of one layer apart.

    Args:
        model: what `bl.load` returned.
        layer: its name; None where the model has one layer.
        top: how many pairs of each output the record shows, by |λ|.
        basis: "input", or "embedding" for the first layer of a classifier.
        reading: "centred" (against the mean of all outputs) or "raw"; None is "centred" for
            logits and "raw" for everything else.
        contrast: read one output against another instead.

    Raises:
        UsageError: If there is no such layer, output, basis or reading.
        NotQuadraticError: If the layer is gated.
        MemoryLimitError: If the dense matrices would not fit.
    """
    check_count("top", top, minimum=1)
    if reading not in (None, "centred", "raw"):
        raise UsageError(f'reading={reading!r} is not known: use "centred" or "raw".')
    name = choose_layer(model, layer)
    f, is_logits = layer_map(model, name, basis)
    d_out = f.sizes.d_out
    names = model.output_names if is_logits and model.output_names else None
    names = names or tuple(str(index) for index in range(d_out))
    if contrast is not None:
        directions = contrast_direction(d_out, *contrast)[None]
        names, kind = (f"{names[contrast[0]]} − {names[contrast[1]]}",), "contrast"
    elif reading == "centred" or (reading is None and is_logits):
        directions, kind = centred_directions(d_out), "class-centred"
    else:
        directions, kind = raw_directions(d_out), "raw"
    eigs = eigendecompose_all(f, directions, k=None)
    record = summarise_spectra(eigs, names, top, name, basis, kind)
    return Decomposition(record, eigs)


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
    """Return the float64 map of a layer in a basis, and whether its outputs are logits."""
    view = model.layers[name]
    module = view.module
    if isinstance(module, BilinearClassifier) and view.index is not None:
        if basis == "embedding" and view.index > 0:
            raise UsageError(f"{name} has no embedding before it: use basis='input' (--basis).")
        return copy.deepcopy(module).double().layer_map(
            view.index, basis
        ).detach(), view.index == len(module.layers) - 1
    if basis != "input":
        raise UsageError(f"a {type(module).__name__} has no embedding: use --basis input.")
    return copy.deepcopy(module).double().quadratic_map().detach(), False
