"""Every output latent of a layer, read from weights alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.direct.direct_interactions import Progress, direct_interactions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_type
from bilens.interp.chosen_latents import check_latents
from bilens.interp.nearest_latents import nearest_latents
from bilens.interp.records import LayerTrace


def trace_layer(
    g: QuadraticMap,
    dictionary: Tensor,
    *,
    bias: Tensor | None = None,
    latents: Tensor | Sequence[int] | None = None,
    top: int = 20,
    k: int = 4,
    nearest: int = 5,
    progress: Progress | None = None,
    memory_limit: int | str | None = None,
) -> LayerTrace:
    """Return interactions, eigenpairs and the input latents nearest to them, for output latents.

    Cost: as `direct_interactions` and `eigendecompose_all` for as many directions.

    Args:
        g: `latent_map(f, encoder, offset)`.
        dictionary: D, (in, input latents), the transposed decoder of the SAE in front.
        bias: (in,), of that decoder; None is zero.
        latents: (num,) which outputs of g; None for all.
        top: interactions listed of each kind.
        k: eigenpairs of each, by falling size; fewer where the input is narrower.
        nearest: input latents listed for each eigenvector.
        progress: called with blocks of interactions done, and of all blocks.
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
    chosen = check_latents(latents, g.sizes.d_out)
    read = only(g, chosen)
    interactions = direct_interactions(
        read, dictionary, bias=bias, top=top, progress=progress, memory_limit=memory_limit
    )
    pairs = eigendecompose_all(read, k=min(k, g.sizes.d_in), memory_limit=memory_limit)
    return LayerTrace(
        chosen, interactions, pairs, nearest_latents(read, pairs.eigenvectors, dictionary, nearest)
    )


def only(g: QuadraticMap, latents: Tensor) -> QuadraticMap:
    """Return the map of some outputs alone, in the order given."""
    if torch.equal(latents, torch.arange(g.sizes.d_out)):
        return g
    rows = torch.zeros(len(latents), g.sizes.d_out, dtype=g.dtype, device=g.tensor.down.device)
    rows[torch.arange(len(latents)), latents] = 1.0
    return g.compose_output(rows)
