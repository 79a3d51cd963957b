"""The circuits of a layer before its conversion, from an approximation, and after it, exact.

Both are ranked and checked beside random dictionaries, by the steps of `bilens trace`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from bilens import TraceOptions, eigendecompose_all, load
from bilens.api import latent_findings
from bilens.interp import NUM_DICTIONARIES, TracedLayer, held_out_text, latent_map, only, open_sae
from bilens.io import open_host, open_model
from bilens.nn import BilinearTransformer
from bilens.train import ConversionRecipe, Mixture, fit_site, text_of, tokenizer_of
from bilens_studies.conversion_ways import JUDGED, LAYER_TOKENS, OURS
from bilens_studies.gated_conversion import cases, measure, train_teacher
from bilens_studies.negation_circuit import compare_with_chance
from bilens_studies.page_writer import formatted
from bilens_studies.study import (
    CellContext,
    Measure,
    Record,
    Study,
    StudyOptions,
    sae_recipe,
    to_json,
)

SAE_STEPS, BUFFER_STEPS = 256, 32  # of the autoencoders
CIRCUITS, TEXT_TOKENS = 5, 8192  # latents that are drawn, tokens that are read
DIRECTIONS, FIRST = 2, 20  # eigenvectors of an output, places of the ranking
MOMENTS = ("before", "after")


class ConversionCircuitStudy(Study):
    """Circuits of a layer before and after its conversion, beside random dictionaries."""

    name = "conversion-circuits"
    title = "Circuits of a layer before and after its conversion"
    uses = frozenset({"corpus", "seeds", "steps", "tokens"})
    needs = frozenset({"corpus"})
    num_seeds = (1, 1, 1)
    partial = True

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        cells = dict[str, Measure]()
        for seed in self.seeds(options):
            found = cases(options)
            case = next(one for one in found if (one.way, one.seed) == (OURS, seed))
            cells[case.teacher] = partial(train_teacher, options, case)
            cells[case.name] = partial(measure, options, case)
            cells[f"circuits-seed-{seed}"] = partial(compare_circuits, case.teacher, case.name)
        return cells

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        rows = [one for one in cells.values() if "checks" in one]
        return {
            "rows": rows,
            "conversions": [one for one in cells.values() if "way" in one],
            "counts": {when: count_checks(rows, when) for when in MOMENTS},
        }


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
    how = TraceOptions(outputs=CIRCUITS, dictionaries=NUM_DICTIONARIES)
    exact = latent_findings(layers[1], saes, text, how)
    how = replace(how, latents=tuple(circuit.latent for circuit in exact["circuits"]))
    found = latent_findings(layers[0], saes, text, how), exact
    checks: dict[str, Record] = {}
    for when, one in zip(MOMENTS, found, strict=True):
        named = [(f"latent {row.latent}", row.causal) for row in one["circuits"]]
        pairs = [(f"{p.first} against {p.second}", p.causal) for p in one["contrasts"].pairs]
        for name, reading in (*named, *pairs):
            for check in reading.checks if reading else ():
                checks.setdefault(f"{name}: {check.kind}", {})[when] = with_chance(to_json(check))
    alive = [row.latent for row in exact["ranking"] if row.density > 0]
    encoder, offset = saes[1].sae.encoder, saes[1].sae.offset
    forms = [only(latent_map(one.f, encoder, offset), torch.tensor(alive)) for one in layers]
    vectors = [eigendecompose_all(g, k=DIRECTIONS).eigenvectors for g in forms]
    ranked = [[row.latent for row in one["ranking"] if row.density > 0][:FIRST] for one in found]
    chance, both = DIRECTIONS / modules[0].config.d_model, {*ranked[0]} & {*ranked[1]}
    return {
        "teacher": teacher,
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
        "scores": dict(zip(MOMENTS, map(scores_of, found), strict=True)),
        "checks": checks,
    }


def with_chance(check: Record) -> Record:
    """Return a check with its share beside those in random dictionaries."""
    without = [None] * (check["num_null"] - len(check["null_shares"]))  # no such behaviour
    null = [*check["null_shares"], *without]
    return {**check, "chance": compare_with_chance(check["share"]["value"], null)}


def scores_of(found: Record) -> Record:
    """Return the best scores of latents and of pairs, beside those of random dictionaries."""
    null, pairs = found["null"], found["contrasts"].pairs
    without = [None] * (null.num - len(null.best_contrast))
    return {
        "latent": compare_with_chance(found["ranking"][0].score, null.best),
        "pair": compare_with_chance(
            pairs[0].score if pairs else None, [*null.best_contrast, *without]
        ),
    }


def overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean of ‖A Bᵀ‖² / rows of orthonormal rows: 1 for the same space."""
    return float(((first @ second.mT).square().sum(dim=(-2, -1)) / first.shape[-2]).mean())


def count_checks(rows: Sequence[Record], when: str) -> Record:
    """Return how many checks there are, and what they exceed."""
    found = [one[when] for row in rows for one in row["checks"].values() if when in one]
    beyond = [
        check["before"]["low"] > 0 and check["share"]["low"] > check["random_share"]["high"]
        for check in found
    ]
    confirmed = sum(bool(check["confirmed"]) for check in found)
    return {"checks": len(found), "beyond_random": sum(beyond), "confirmed": confirmed}


def check_shown(check: Record | None) -> str:
    """Return the share of a behaviour beside both controls; bold where confirmed."""
    if check is None:
        return "–"
    share, random = formatted(check["share"], ".1%"), check["random_share"]
    mark = "**" if check["confirmed"] else ""
    return f"{mark}{share}{mark}; {random['value']:.1%}; {chance_shown(check['chance'])}"


def chance_shown(chance: Record) -> str:
    """Return how many random dictionaries reach a number, and the p-value."""
    if chance["value"] is None:
        return "–"
    return f"{chance['reached']} of {len(chance['null'])}, p = {chance['p_value']:.2f}"
