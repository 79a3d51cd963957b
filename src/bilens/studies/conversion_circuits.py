"""A layer's circuits before a conversion, read from an approximation, and after it, exact."""

from typing import cast

import torch
from msgspec import to_builtins
from torch import Tensor

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.api.trace_latents import latent_findings
from bilens.base import silent
from bilens.interp.layer_trace import latent_map, only
from bilens.interp.traced_layer import TracedLayer, TraceOptions, held_out_text, open_sae
from bilens.io.converted_folder import open_model
from bilens.io.host import open_host
from bilens.io.load import load
from bilens.nn import BilinearTransformer
from bilens.studies.conversion_ways import JUDGED, LAYER_TOKENS
from bilens.studies.page_writer import formatted
from bilens.studies.study import CellContext, Record, sae_recipe
from bilens.train.corpus import text_of, tokenizer_of
from bilens.train.layer_fit import ConversionRecipe, fit_site
from bilens.train.layer_inputs import Mixture

SAE_STEPS, BUFFER_STEPS = 256, 32
CIRCUITS, TEXT_TOKENS = 5, 2048
DIRECTIONS, FIRST = 2, 20  # eigenvectors of an output; places of the ranking


def compare_circuits(teacher: str, converted: str, context: CellContext) -> Record:
    """Trace the middle layer of a model before and after its conversion, two cells."""
    source, result = (context.folder.parent / cell for cell in (teacher, converted))
    loaded, hosts = load(source), (open_host(source), open_model(result))
    modules = [cast(BilinearTransformer, host.module) for host in hosts]
    tokenizer, n_ctx = tokenizer_of(loaded, modules[0]), hosts[0].n_ctx
    mixture = Mixture([text_of(loaded, None, context.say)], tokenizer, n_ctx, 0)
    site = hosts[0].sites[len(modules[0].blocks) // 2]
    hooks = f"blocks.{site.block}.mlp_in", f"blocks.{site.block}.mlp_out"
    texts = mixture.texts(0, JUDGED + LAYER_TOKENS // n_ctx)
    rows = modules[0].activations(texts, hooks[:1])[hooks[0]].flatten(0, 1)
    judged = JUDGED * n_ctx
    recipe = ConversionRecipe(skip=("training",))
    block, about = fit_site(site, (rows[judged:], rows[:judged], rows[:0]), recipe, 0)
    maps = block.quadratic_map(), modules[1].layer_map(site.block)
    layers = [
        TracedLayer(loaded, module, tokenizer, site.block, f.detach().to(torch.float64))
        for module, f in zip(modules, maps, strict=True)
    ]
    trained = context.train_sae(source, sae_recipe(hooks, SAE_STEPS, BUFFER_STEPS, n_ctx))
    first, second = (trained.folders[hook] for hook in hooks)
    saes = open_sae(first, layers[0], "mlp_in"), open_sae(second, layers[0], "mlp_out")
    text = held_out_text(layers[0], None, TEXT_TOKENS, context.say)
    exact = latent_findings(layers[1], saes, text, TraceOptions(None, CIRCUITS), silent)
    latents = tuple(circuit.latent for circuit in exact["circuits"])
    found = latent_findings(layers[0], saes, text, TraceOptions(latents), silent), exact
    checks: dict[str, Record] = {}
    for when, one in zip(("before", "after"), found, strict=True):
        named = [(f"latent {row.latent}", row.causal) for row in one["circuits"]]
        pairs = [(f"{p.first} against {p.second}", p.causal) for p in one["contrasts"].pairs]
        for name, reading in (*named, *pairs):
            for check in reading.checks if reading else ():
                checks.setdefault(f"{name}: {check.kind}", {})[when] = to_builtins(check)
    alive = [row.latent for row in exact["ranking"] if row.density > 0]
    encoder, offset = saes[1].sae.encoder, saes[1].sae.offset
    forms = [only(latent_map(one.f, encoder, offset), torch.tensor(alive)) for one in layers]
    vectors = [eigendecompose_all(g, k=DIRECTIONS).eigenvectors for g in forms]
    ranked = [[row.latent for row in one["ranking"] if row.density > 0][:FIRST] for one in found]
    chance, both = DIRECTIONS / modules[0].config.d_model, {*ranked[0]} & {*ranked[1]}
    return {
        "layer": site.block,
        "r_squared": about.get("r_squared"),
        "nmse": [[side.metrics.nmse for side in one["saes"]] for one in found],
        "tokens": text.blocks.numel(),
        "latents": len(alive),
        "same": [  # what, how alike, by chance
            ["plane of a latent's two leading eigenvectors", overlap(*vectors), chance],
            ["of one latent and the next", overlap(vectors[0], vectors[1].roll(1, 0)), chance],
            [f"first {FIRST} latents", len(both) / FIRST, FIRST / len(alive)],
        ],
        "checks": checks,
    }


def overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean of ‖A Bᵀ‖² / rows of orthonormal rows: 1 for the same space."""
    return float(((first @ second.mT).square().sum(dim=(-2, -1)) / first.shape[-2]).mean())


def check_shown(check: Record | None) -> str:
    """Return the share of a behaviour, and that of random directions; bold where confirmed."""
    if check is None:
        return "–"
    share, random = formatted(check["share"], ".1%"), check["random_share"]
    mark = "**" if check.get("confirmed") else ""
    return f"{mark}{share}{mark}; {random['value']:.1%}"
