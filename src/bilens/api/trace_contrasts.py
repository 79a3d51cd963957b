"""Pairs of output latents, and whether the product between them decides in the logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bilens.api.trace_values import causal_values
from bilens.interp.behaviour import Change, causal_effect, contrast_change
from bilens.interp.contrasts import rank_contrasts
from bilens.interp.layer_trace import only
from bilens.interp.low_rank import LowRankFit
from bilens.interp.ranking import Ranking
from bilens.interp.traced_layer import LatentReader

LEAST_COMPARED = 50  # tokens at which an output latent is active, to be compared with others
CONTRAST_BUDGET = 30_000_000_000  # operations: pairs of latents · d_model³
LISTED_CONTRASTS, CHECKED_CONTRASTS = 15, 2


def contrast_values(reader: LatentReader, ranking: Ranking, fit: LowRankFit) -> dict[str, Any]:
    """Return the pairs of output latents whose difference is most nearly one product.

    Of many latents the first of the ranking are compared, as many as the budget allows.
    """
    width = reader.g.sizes.d_in
    most = max(2, math.isqrt(2 * CONTRAST_BUDGET // width**3))
    order = [int(ranking.latents[place]) for place in ranking.order]
    alive = [latent for latent in order if int(fit.num_active[latent]) >= LEAST_COMPARED]
    chosen = sorted(alive[:most])
    if len(chosen) < 2:
        return {"num_compared": len(chosen), "pairs": []}
    found = rank_contrasts(
        only(reader.g, torch.tensor(chosen)),
        reader.inputs,
        reader.activations[:, chosen],
        least_active=LEAST_COMPARED,
    )
    pairs = []
    for row in range(min(LISTED_CONTRASTS, len(found.score))):
        pair = chosen[int(found.first[row])], chosen[int(found.second[row])]
        pairs.append(
            {
                "first": pair[0],
                "second": pair[1],
                "score": float(found.score[row]),
                "nonlinear_share": float(found.nonlinear_share[row]),
                "pair_share": float(found.pair_share[row]),
                "causal": contrast_check(reader, pair) if row < CHECKED_CONTRASTS else None,
            }
        )
    return {"num_compared": len(chosen), "pairs": pairs}


def contrast_check(reader: LatentReader, pair: tuple[int, int]) -> dict[str, Any]:
    """Return whether the product that decides between two output latents does so in the logits."""

    def active(x: Tensor) -> Tensor:
        z = reader.behind.sae.encode(reader.layer.f(x.double()))
        return (z[..., list(pair)] > 0).any(dim=-1)

    def change(generator: torch.Generator) -> Change:
        read = (reader.inputs, reader.activations)
        return contrast_change(reader.g, pair, *read, active, generator)

    return causal_values(causal_effect(reader, None, pair, change), reader.name)
