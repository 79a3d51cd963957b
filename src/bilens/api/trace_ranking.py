"""Output latents in the order of the ranking, and which of them are drawn."""

from __future__ import annotations

from typing import Any

import torch

from bilens.api.trace_values import known, short
from bilens.base.errors import UsageError
from bilens.interp.clusters import Clusters
from bilens.interp.layer_trace import LayerTrace
from bilens.interp.low_rank import LowRankFit
from bilens.interp.ranking import Ranking
from bilens.interp.traced_layer import LatentReader

DRAWN_RANK = 2  # eigenpairs of an approximation, the paper's choice
LEAST_ACTIVE = 10  # tokens at which an output latent is active, to be drawn without being named


def chosen_latents(reader: LatentReader, ranking: Ranking, fit: LowRankFit) -> list[int]:
    """Return the output latents to draw: those that were named, or the first active ones.

    Raises:
        UsageError: If none is active on the text.
    """
    options = reader.options
    if options.latents is not None:
        return list(dict.fromkeys(options.latents))
    order = [int(ranking.latents[place]) for place in ranking.order]
    alive = [latent for latent in order if int(fit.num_active[latent]) >= LEAST_ACTIVE]
    if not alive:
        raise UsageError(
            f"no output latent is active at {LEAST_ACTIVE} of {len(reader.inputs)} tokens: read "
            "more tokens, or name latents."
        )
    return alive[: options.outputs]


def ranking_values(
    ranking: Ranking, trace: LayerTrace, fit: LowRankFit, clusters: Clusters, reader: LatentReader
) -> list[dict[str, Any]]:
    """Return all output latents by falling score."""
    values = trace.eigenpairs.eigenvalues
    rank = torch.arange(values.shape[1]) < DRAWN_RANK
    norm = trace.eigenpairs.norm.clamp(min=torch.finfo(torch.float64).tiny)
    two = (values[:, rank] / norm[:, None]).square().sum(dim=1)
    column = int((fit.ranks - DRAWN_RANK).abs().argmin())
    density = (reader.activations > 0).double().mean(dim=0)
    peaks = reader.text.blocks[:, 1:].flatten()[reader.activations.argmax(dim=0)]
    return [
        {
            "latent": int(ranking.latents[row]),
            "score": float(ranking.score[row]),
            "pair_share": float(ranking.pair_share[row]),
            "sign_contrast": float(ranking.sign_contrast[row]),
            "interaction_share": float(ranking.interaction_share[row]),
            "positive": short(float(values[row].max().clamp(min=0))),
            "negative": short(float(values[row].min().clamp(max=0))),
            "explained_by_two": short(float(two[row])),
            "correlation_active": known(float(fit.correlation_active[row, column])),
            "density": float(density[row]),
            "peak": reader.name(int(peaks[row])) if density[row] > 0 else None,
            "cluster": int(clusters.labels[row]),
        }
        for row in ranking.order.tolist()
    ]
