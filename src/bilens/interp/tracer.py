"""Every output latent of a layer, read from weights alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.eigen.cost import Precision
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.interactions.engine import Progress, check_directions
from bilens.algebra.interactions.listed_interactions import listed_interactions
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.interp.chosen_latents import check_latents
from bilens.interp.nearest_latents import nearest_latents
from bilens.interp.records import LayerTrace


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
    """Return interactions, eigenpairs and the input latents nearest to them, for output latents.

    Cost: as `listed_interactions` and `eigendecompose_all` for as many directions. With fewer
        outputs than latents, the map of the MLP and `directions` take less time than `latent_map`,
        which has them multiplied.

    Args:
        g: `latent_map(f, encoder, offset)`, or the map f of the MLP itself.
        dictionary: D, (in, input latents), the transposed decoder of the SAE in front.
        directions: (latents, out), what is read off the outputs of g, such as the encoder of the
            SAE behind f; None reads the outputs as they are.
        bias: (in,), of that decoder; None is zero.
        latents: (num,) which of them; None for all.
        top: interactions listed of each kind.
        k: eigenpairs of each, by falling size; fewer where the input is narrower.
        nearest: input latents listed for each eigenvector.
        precision: of the iteration for eigenpairs; they are judged in float64 in any case.
        progress: called with latents done, and all of them, while interactions are listed.
        memory_limit: bytes, or a text such as "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of
            the memory at hand.

    Raises:
        ShapeError: If dictionary or bias do not fit the map.
        NonFiniteError: If one of them holds NaN or infinity.
        UsageError: If a number is out of range, or there is no such latent.
        MemoryLimitError: If the work would not fit.

    Source: arXiv:2410.08417, §5 and App. N.
    """
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    available = g.sizes.d_out if directions is None else len(directions)
    chosen = check_latents(latents, available)
    rows = check_directions(directions, g.sizes.d_out)[chosen]
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
    if torch.equal(latents, torch.arange(g.sizes.d_out)):
        return g
    rows = torch.zeros(len(latents), g.sizes.d_out, dtype=g.dtype, device=g.tensor.down.device)
    rows[torch.arange(len(latents)), latents] = 1.0
    return g.compose_output(rows)
