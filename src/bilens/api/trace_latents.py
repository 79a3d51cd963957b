"""A layer read through the autoencoders around it: what is found, as JSON values."""

from __future__ import annotations

from typing import Any

from bilens.api.trace_circuits import circuit_values, input_latent_values
from bilens.api.trace_contrasts import contrast_values
from bilens.api.trace_ranking import chosen_latents, ranking_values
from bilens.api.trace_values import cluster_values, correlation_values
from bilens.findings.subject import Progress
from bilens.interp.clusters import cluster_latents
from bilens.interp.layer_trace import trace_layer
from bilens.interp.low_rank import low_rank_fit
from bilens.interp.ranking import rank_latents
from bilens.interp.traced_layer import (
    TracedLayer,
    TracedSAE,
    TracedText,
    TraceOptions,
    read_text,
)
from bilens.train.sae_metrics import measure_sae

THRESHOLD = 0.5  # cosine above which output latents are grouped


def latent_findings(
    layer: TracedLayer,
    saes: tuple[TracedSAE, TracedSAE],
    text: TracedText,
    options: TraceOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Return ranking, agreement, circuits and latents of a layer as JSON values.

    Raises:
        UsageError: If an output latent does not exist, or none is active.
        MemoryLimitError: If the work would not fit.
        NonFiniteError: If an activation is NaN or infinite.
    """
    before, behind = saes
    options.check_latents(behind)
    metrics = []
    for place, side in enumerate(saes):
        progress("measuring autoencoders", place, len(saes))
        sae = side.loaded.module
        metrics.append(measure_sae(layer.module, sae, side.hook, text.blocks))  # type: ignore[arg-type]
    reader = read_text(layer, before, behind, text, options)
    trace = trace_layer(
        reader.g,
        reader.dictionary,
        bias=reader.bias,
        top=options.top,
        k=min(options.pairs, layer.module.config.d_model),
        progress=lambda done, total: progress("interactions", done, total),
    )
    progress("agreement on text", 0, 1)
    fit = low_rank_fit(
        reader.g,
        trace.eigenpairs,
        reader.inputs,
        reader.activations > 0,
        reader.generator,
    )
    ranking = rank_latents(trace, reader.inputs)
    clusters = cluster_latents(reader.g, threshold=THRESHOLD)
    chosen = chosen_latents(reader, ranking, fit)
    circuits = []
    for place, latent in enumerate(chosen):
        progress("circuits", place, len(chosen))
        circuits.append(circuit_values(reader, trace, fit, ranking, latent))
    progress("circuits", len(chosen), len(chosen))
    progress("contrasts", 0, 1)
    contrasts = contrast_values(reader, ranking, fit)
    named = sorted({feature for circuit in circuits for feature in circuit["features"]})
    return {
        "saes": [
            {
                "hook": side.hook,
                "path": side.loaded.source,
                "weights_sha256": side.loaded.weights_sha256,
                "num_latents": side.sae.num_latents,
                "k": side.sae.k,
                "sign": side.sae.sign,
                "metrics": found.to_dict(),
            }
            for side, found in zip(saes, metrics, strict=True)
        ],
        "ranking": ranking_values(ranking, trace, fit, clusters, reader),
        "num_outputs": behind.sae.num_latents,
        "clusters": cluster_values(clusters),
        "cluster_threshold": THRESHOLD,
        "contrasts": contrasts,
        "correlations": correlation_values(fit),
        "circuits": circuits,
        "input_latents": [input_latent_values(reader, latent) for latent in named],
        "readings": [],
        "data": {
            "name": text.name,
            "source": text.source,
            "num_tokens": text.blocks.numel(),
            "sha256": text.sha256,
        },
    }
