"""Every output latent of a layer, read from weights alone: interactions, eigenpairs, neighbours.

An *output latent* is one output of a map g, `latent_map(f, encoder, offset)`: what an SAE behind
the MLP computes before its activation function. An *input latent* is a column of a dictionary D
in front of the MLP, the decoder of another SAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.solver import Precision
from bilens.algebra.gram.kernel import blocks
from bilens.algebra.interactions.feature_factors import Progress, check_dictionary, checked_rows
from bilens.algebra.interactions.listed_interactions import listed_interactions
from bilens.algebra.interactions.record import ListedInteractions
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_dense_tensor, check_type
from bilens.base.errors import ShapeError, UsageError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
ROWS = 4096  # eigenvectors compared at a time: (ROWS, features) cosines are held


@dataclass(frozen=True, eq=False)
class NearestLatents:
    """The input latents that lie closest to each eigenvector, by falling |cosine|."""

    latents: Tensor  # (num, k, r) int64, columns of the dictionary; −1 without an eigenvector
    cosines: Tensor  # (num, k, r), between the eigenvector and the column, signed, −1 … 1
    projections: Tensor  # (num, k, r), v·d


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """How every output latent of a layer is built, from weights alone."""

    latents: Tensor  # (num,) int64, which outputs of the map; row i of the rest is latents[i]
    interactions: ListedInteractions
    eigenpairs: EigenDecomposition
    nearest: NearestLatents


def check_latents(latents: Tensor | Sequence[int] | None, available: int) -> Tensor:
    """Return numbers of output latents as int64; all of them for None."""
    if latents is None:
        return torch.arange(available)
    chosen = torch.as_tensor(latents)
    if chosen.dtype not in INTEGERS or chosen.ndim != 1 or len(chosen) == 0:
        raise UsageError(
            f"latents holds {chosen.dtype} in shape {tuple(chosen.shape)}; a list of numbers of "
            "output latents was expected."
        )
    chosen = chosen.long().cpu()
    if int(chosen.min()) < 0 or int(chosen.max()) >= available:
        raise UsageError(
            f"latents runs from {int(chosen.min())} to {int(chosen.max())}; there are output "
            f"latents 0 to {available - 1}."
        )
    if len(set(chosen.tolist())) < len(chosen):
        raise UsageError("latents names a latent twice: name each one once.")
    return chosen


def latent_map(f: QuadraticMap, encoder: Tensor, offset: Tensor | None = None) -> QuadraticMap:
    """Return g, whose output a is the pre-activation of output latent a."""
    check_type("f", f, QuadraticMap, "use model.layer_map(i)")
    latents, width = check_dense_tensor("encoder", encoder, num_axes=2)
    if width != f.sizes.d_out or latents == 0:
        raise ShapeError(
            f"encoder has shape {(latents, width)}; the layer writes {f.sizes.d_out} outputs, so "
            f"(latents, {f.sizes.d_out}) was expected: is this the SAE behind this layer?"
        )
    device = f.tensor.down.device
    return (
        f.detach()
        .to(torch.float64)
        .compose_output(
            encoder.detach().to(device).double(),
            None if offset is None else offset.detach().to(device).double(),
        )
    )


def nearest_latents(
    g: QuadraticMap, eigenvectors: Tensor, dictionary: Tensor, num: int = 5
) -> NearestLatents:
    """Return the columns of a dictionary of largest |cosine| with each eigenvector."""
    num = min(check_count("num", num, minimum=1), check_dictionary(g, dictionary))
    columns = dictionary.detach().to(eigenvectors)
    lengths = torch.linalg.vector_norm(columns, dim=0)
    units = columns / torch.where(lengths > 0, lengths, 1.0)
    vectors = eigenvectors.flatten(0, 1)
    found, cosines = [], []
    for part in blocks(len(vectors), ROWS):
        overlap = vectors[part] @ units
        sizes, found_at = overlap.abs().topk(num, dim=1)
        missing = sizes.isnan()
        found.append(found_at.masked_fill(missing, -1))
        cosines.append(overlap.gather(1, found_at))
    latents, cosine = torch.cat(found), torch.cat(cosines)
    shape = (*eigenvectors.shape[:2], num)
    return NearestLatents(
        latents.view(shape),
        cosine.view(shape),
        (cosine * lengths[latents.clamp(min=0)]).view(shape),
    )


def trace_layer(
    g: QuadraticMap,
    dictionary: Tensor,
    *,
    directions: Tensor | None = None,
    bias: Tensor | None = None,
    latents: Tensor | Sequence[int] | None = None,
    top: int = 20,
    k: int = 4,
    nearest: int = 5,
    precision: Precision = "float64",
    progress: Progress | None = None,
    memory_limit: int | str | None = None,
) -> LayerTrace:
    """Return interactions, eigenpairs and the input latents nearest to them, for output latents."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    available = g.sizes.d_out if directions is None else len(directions)
    chosen = check_latents(latents, available)
    rows = checked_rows(directions, g.sizes.d_out)
    if rows is None:
        g = outputs_of(g, chosen.tolist())
    else:
        rows = rows[chosen]
    interactions = listed_interactions(
        g, dictionary, rows, bias=bias, top=top, progress=progress, memory_limit=memory_limit
    )
    pairs = eigendecompose_all(
        g, rows, k=min(k, g.sizes.d_in), precision=precision, memory_limit=memory_limit
    )
    return LayerTrace(
        chosen, interactions, pairs, nearest_latents(g, pairs.eigenvectors, dictionary, nearest)
    )


def only(g: QuadraticMap, latents: Tensor) -> QuadraticMap:
    """Return the map of some outputs alone, in the order given."""
    return outputs_of(g, latents.tolist())
