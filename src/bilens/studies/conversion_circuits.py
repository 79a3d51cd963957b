"""A layer's circuits before a conversion, read from an approximation, and after it, exact.

Both are read through the same autoencoders, those of the teacher, and the directions of both are
changed in the model that runs: before the conversion in the gated one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.trace_latents import latent_findings
from bilens.base import silent
from bilens.interp.layer_trace import latent_map
from bilens.interp.traced_layer import (
    TracedLayer,
    TracedSAE,
    TraceOptions,
    held_out_text,
    open_sae,
)
from bilens.io.converted_folder import read_host
from bilens.io.host import open_host
from bilens.io.load import load
from bilens.nn import BilinearTransformer
from bilens.records.trace import CausalReading
from bilens.studies.conversion_ways import LAYER_TOKENS
from bilens.studies.study import CellContext, Record, metrics_around, sae_recipe
from bilens.train.corpus import tokenizer_of
from bilens.train.layer_fit import ConversionRecipe, fit_site
from bilens.train.layer_inputs import Mixture, Walk

SAE_STEPS, BUFFER_STEPS = 256, 32
CIRCUITS, TEXT_TOKENS = 8, 8192
DIRECTIONS, LEADING, FIRST = 2, 8, 20  # eigenvectors; output directions; places of the ranking


def compare_circuits(
    teacher: Path, converted: Path, mixture: Mixture, context: CellContext
) -> Record:
    """Trace the middle layer of a model before and after its conversion."""
    loaded = load(teacher)
    before, after = open_host(teacher), read_host(converted)
    modules = [cast(BilinearTransformer, host.module) for host in (before, after)]
    site = before.sites[len(before.sites) // 2]
    hooks = tuple(f"blocks.{site.block}.{point}" for point in ("mlp_in", "mlp_out"))
    trained = context.train_sae(teacher, sae_recipe(hooks, SAE_STEPS, BUFFER_STEPS, mixture.n_ctx))
    rows = mixture.n_ctx * mixture.texts(0, 8).shape[0]
    walk = Walk(before, mixture.texts(0, 8 + LAYER_TOKENS // mixture.n_ctx), 8)
    for _ in range(site.block):
        walk.advance()
    x = walk.inputs([site])[site.name]
    recipe = ConversionRecipe(skip=("training",))
    block, about = fit_site(site, x[rows:], x[:rows], recipe, 0)
    maps = [block.quadratic_map(), modules[1].layer_map(site.block)]
    tokenizer = tokenizer_of(loaded, modules[0])
    layers = [
        TracedLayer(loaded, module, tokenizer, site.block, f.detach().to(torch.float64))
        for module, f in zip(modules, maps, strict=True)
    ]
    saes = tuple(
        open_sae(trained.folders[hook], layers[0], point)
        for hook, point in zip(hooks, ("mlp_in", "mlp_out"), strict=True)
    )
    text = held_out_text(layers[0], None, TEXT_TOKENS, context.say)
    given = (saes[0], saes[1]), text
    exact = latent_findings(layers[1], *given, TraceOptions(None, CIRCUITS), silent)
    latents = tuple(circuit.latent for circuit in exact["circuits"])
    approximate = latent_findings(layers[0], *given, TraceOptions(latents, CIRCUITS), silent)
    pairs = zip(approximate["circuits"], exact["circuits"], strict=True)
    return {
        "layer": site.block,
        "r_squared": about.get("r_squared"),
        "autoencoders": metrics_around(trained, hooks),
        "nmse_after": [side.metrics.nmse for side in exact["saes"]],
        "tokens": text.blocks.numel(),
        "same": overlaps(layers[0].f, layers[1].f, saes[1], approximate, exact),
        "circuits": [
            {
                "latent": old.latent,
                "token": new.output.contexts[0].tokens[new.output.contexts[0].peak],
                "position": [old.position, new.position],
                "shared_features": len({*old.features} & {*new.features}),
                "before": checks(old.causal),
                "after": checks(new.causal),
            }
            for old, new in pairs
        ],
        "contrasts": {
            name: [
                {"pair": [one.first, one.second], "checks": checks(one.causal)}
                for one in found["contrasts"].pairs
                if one.causal is not None
            ]
            for name, found in (("before", approximate), ("after", exact))
        },
    }


def checks(reading: CausalReading) -> Record:
    """Return kind of check → share of the behaviour and that of random directions, with ends."""
    return {
        check.kind: [
            [one.value, one.low, one.high] for one in (check.share, check.random_share)
        ]
        for check in reading.checks
    }


def overlaps(
    before: QuadraticMap,
    after: QuadraticMap,
    behind: TracedSAE,
    approximate: dict[str, Any],
    exact: dict[str, Any],
) -> Record:
    """Return how alike the readings are, and how alike they would be by chance."""
    directions = [hosvd(f, LEADING).output_directions for f in (before, after)]
    alive = [row.latent for row in exact["ranking"] if row.density > 0]
    vectors = [
        eigendecompose_all(latent_map(f, behind.sae.encoder, behind.sae.offset), k=DIRECTIONS)
        .eigenvectors[alive]
        for f in (before, after)
    ]
    firsts = [
        {*[row.latent for row in found["ranking"] if row.density > 0][:FIRST]}
        for found in (approximate, exact)
    ]
    shuffled = vectors[1].roll(1, dims=0)
    return {
        "output_directions": float(shared(*directions)),
        "output_directions_random": min(LEADING, before.sizes.d_out) / before.sizes.d_out,
        "eigenvectors": float(shared(*vectors).mean()),
        "eigenvectors_of_others": float(shared(vectors[0], shuffled).mean()),
        "eigenvectors_random": DIRECTIONS / before.sizes.d_in,
        "latents": len(alive),
        "first": FIRST,
        "first_shared": len(firsts[0] & firsts[1]),
        "first_random": FIRST**2 / len(alive),
    }


def shared(first: Tensor, second: Tensor) -> Tensor:
    """Return ‖A Bᵀ‖² / rows of orthonormal rows: 1 for one space, rows / width for random ones."""
    return (first @ second.mT).square().sum(dim=(-2, -1)) / first.shape[-2]
