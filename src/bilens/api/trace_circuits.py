"""The circuit of one output latent: interactions of input latents, and what they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bilens.algebra.interactions.direct_interactions import direct_interactions
from bilens.api.trace_ranking import DRAWN_RANK
from bilens.api.trace_values import (
    SHOWN_EIGENVECTORS,
    causal_values,
    ends,
    entry_values,
    fit_values,
    known,
    latent_values,
    short,
    spectrum_values,
)
from bilens.interp.behaviour import causal_effect, eigen_change
from bilens.interp.circuits import Circuit, find_circuit
from bilens.interp.latent_readings import eigenvector_tokens, output_tokens
from bilens.interp.layer_trace import LayerTrace
from bilens.interp.low_rank import LowRankFit
from bilens.interp.ranking import Ranking
from bilens.interp.traced_layer import LatentReader

LISTED_TOKENS = 8  # at each end of a direction
DRAWN_POINTS = 400  # of the latent against its approximation


def circuit_values(
    reader: LatentReader, trace: LayerTrace, fit: LowRankFit, ranking: Ranking, latent: int
) -> dict[str, Any]:
    """Return the circuit of one output latent."""
    pairs = trace.eigenpairs[latent]
    interactions = direct_interactions(
        reader.g,
        reader.dictionary,
        unit(reader.g.sizes.d_out, latent)[None],
        bias=reader.bias,
        top=reader.options.top,
    )[0]
    embed = reader.layer.module.embed.weight.detach()
    unembed = reader.layer.module.unembed.weight.detach()
    circuit: Circuit = find_circuit(
        reader.g,
        reader.dictionary,
        latent,
        pairs,
        bias=reader.bias,
        num_features=min(reader.options.features, reader.before.sae.num_latents),
        activations=reader.z,
    )
    effect = output_tokens(reader.behind.sae.decoder[latent], unembed, LISTED_TOKENS)
    tokens = ends(effect.promoted, effect.suppressed, reader.name)
    contexts = reader.contexts(latent, reader.activations)
    output = latent_values(contexts, tokens, reader.name)
    readings = eigenvector_tokens(pairs, embed, LISTED_TOKENS)[:SHOWN_EIGENVECTORS]
    features: list[int] = circuit.features.tolist()
    return {
        "latent": latent,
        "position": ranking.order.tolist().index(latent) + 1,
        "output": output,
        "spectrum": spectrum_values(pairs, readings, trace.nearest, latent, reader.name),
        "self_interactions": entry_values(
            interactions.self_interactions, float(interactions.self_share)
        ),
        "cross_interactions": entry_values(
            interactions.cross_interactions, float(interactions.cross_share)
        ),
        "features": features,
        "matrix": circuit.matrix.tolist(),
        "linear": circuit.linear.tolist(),
        "constant": circuit.constant,
        "projections": circuit.projections.tolist(),
        "share_of_norm": circuit.share_of_norm,
        "share_of_variance": known(circuit.share_of_variance),
        "correlation": known(circuit.correlation),
        "num_active": int(fit.num_active[latent]),
        "example": example(reader, output, features),
        "fits": fit_values(fit, latent),
        "points": points(reader, trace, latent),
        "causal": causal_values(
            causal_effect(
                reader,
                effect,
                (latent, None),
                lambda generator: eigen_change(pairs, reader.inputs, generator),
            ),
            reader.name,
        ),
    }


def example(reader: LatentReader, output: dict[str, Any], features: list[int]) -> list[float]:
    """Return the input latents of a circuit at the strongest context of its output latent."""
    if not output["contexts"]:
        return []
    first = output["contexts"][0]
    length = reader.text.blocks.shape[1] - 1
    row = first["sequence"] * length + first["start"] + first["peak"]
    return [short(value) for value in reader.z[row, features].tolist()]


def points(reader: LatentReader, trace: LayerTrace, latent: int) -> dict[str, Any]:
    """Return an output latent and its approximation at some tokens, half of them active ones."""
    pairs = trace.eigenpairs[latent]
    rank = min(DRAWN_RANK, len(pairs.eigenvalues))
    active = reader.activations[:, latent] > 0
    order = torch.randperm(len(active), generator=reader.generator)
    on, off = order[active[order]], order[~active[order]]
    half = DRAWN_POINTS // 2
    rows = torch.cat([on[:half], off[: DRAWN_POINTS - min(len(on), half)]])
    x = reader.inputs[rows]
    truth = reader.g.form(unit(reader.g.sizes.d_out, latent))(x)
    return {
        "rank": rank,
        "truth": [short(value) for value in truth.tolist()],
        "approximation": [short(value) for value in pairs.truncate(rank)(x).tolist()],
        "active": active[rows].tolist(),
    }


def unit(size: int, place: int) -> Tensor:
    """Return the vector that is 1 at one place."""
    vector = torch.zeros(size, dtype=torch.float64)
    vector[place] = 1.0
    return vector


def input_latent_values(reader: LatentReader, latent: int) -> dict[str, Any]:
    """Return one input latent; its tokens are those whose embeddings it resembles."""
    embed = reader.layer.module.embed.weight.detach()
    found = output_tokens(reader.dictionary[:, latent], embed, LISTED_TOKENS)
    tokens = ends(found.promoted, found.suppressed, reader.name)
    return latent_values(reader.contexts(latent, reader.z), tokens, reader.name)
