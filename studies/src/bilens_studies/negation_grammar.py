"""The negation circuit, in models whose rule is known: §5.1 of the paper, with proof.

A model of the story grammar is read through an autoencoder behind its MLP. All pairs of output
latents are ranked without being told of the rule; the first pair's eigen-directions are ablated
and steered, beside random directions of the same norm.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bilens import QuadraticMap, load
from bilens.base.errors import UsageError
from bilens.data.tokenizer import Tokenizer, pack_documents
from bilens.interp import contrasts
from bilens.interp.interventions import InputDirections, Where, ablation, causal_check, steering
from bilens.interp.layer_trace import latent_map
from bilens.interp.traced_layer import TracedLayer, open_layer, output_tokens
from bilens.io.autoencoders import sae_for_hook
from bilens.nn import TopKSAE
from bilens.train.activations import activations_of
from bilens.train.corpus import CorpusDescription
from bilens.train.recipes import SAERecipe
from bilens_studies.negation_candidates import KEPT_SHARE, MOST_DIRECTIONS, fewest
from bilens_studies.negation_prompts import NegationPrompts
from bilens_studies.published import Reproduced
from bilens_studies.study import (
    CellContext,
    Measure,
    Record,
    Study,
    StudyOptions,
    language_recipe,
    to_json,
)

MLP_IN, MLP_OUT = "blocks.0.mlp_in", "blocks.0.mlp_out"
GRAMMAR = "grammar"  # the corpus
SAE_RECIPE = SAERecipe(
    hooks=(MLP_OUT,),
    num_latents=64,
    k=4,
    tokens=500_000,
    batch_size=1024,
    buffer_size=65_536,
    learning_rate=4e-3,
)
LEAST_REMOVED, MOST_LOSS, MOST_RANDOM = 0.8, 0.02, 0.1  # targets
NUM_PAIRS = 200  # minimal pairs
LEAST_FLIP = 1.0  # logits: what a model that knows the rule turns around
NUM_RANDOM = 40  # draws of random directions
RANKING_TOKENS = 20_000
HELD_OUT_TOKENS = 20_000
READS_FEELING = 0.9  # |correlation| of z_first − z_second with the feeling, over the prompts
LISTED_PAIRS, LISTED_TOKENS = 5, 6
LISTED = ("first", "second", "score", "nonlinear_share", "pair_share")


class NegationStudy(Study):
    """Whether the ranking finds the grammar's rule, and whether its directions carry it."""

    name = "language/negation"
    title = "The negation circuit of the story grammar"
    uses = frozenset({"models", "seeds", "steps"})

    def check(self, options: StudyOptions) -> None:
        """Refuse options that contradict each other."""
        super().check(options)
        if options.models is not None and (options.seeds or options.steps):
            raise UsageError(
                f"{self.name} trains models, --seeds of them for --steps updates, or takes those "
                "of --model: leave one out."
            )

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        count = len(options.models or self.seeds(options))
        return {f"seed-{seed}": partial(measure, options, seed) for seed in range(count)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        rows = [{"verdict": targets_met(record), **record} for record in cells.values()]
        names = rows[0]["verdict"]
        return {
            "rows": rows,
            "counts": {name: sum(row["verdict"][name] for row in rows) for name in names},
            "targets": {
                "least_removed": LEAST_REMOVED,
                "most_loss": MOST_LOSS,
                "most_random": MOST_RANDOM,
                "kept_share": KEPT_SHARE,
            },
            "sae_recipe": SAE_RECIPE.to_dict(),
            "trained_here": options.models is None,
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        rows, where = result["rows"], "models of the story grammar, whose rule is known"
        both = sum(min(row["eigenvalues"]) < 0 < max(row["eigenvalues"]) for row in rows)
        removed = tuple(row["checks"][0]["share"]["value"] for row in rows)
        cosines = tuple(row["decoder_cosine"] for row in rows if "decoder_cosine" in row)
        told = f"in {both} of {len(rows)} {where}; the others need one direction"
        return {
            "eigenvalues": Reproduced(holds=2 * both > len(rows), note=told, runs=len(rows)),
            "cosine": Reproduced(cosines, note=where if cosines else ""),
            "removed": Reproduced(
                removed, min(removed) >= LEAST_REMOVED, f"{where}; holds from {LEAST_REMOVED}"
            ),
        }


def measure(options: StudyOptions, seed: int, context: CellContext) -> Record:
    """Train the model and the autoencoder where they are missing, and take the circuit apart."""
    if options.models:
        model = Path(options.models[seed])
    else:
        model = context.folder / "model"
        recipe = language_recipe(GRAMMAR, options.steps, seed=seed)
        context.train_language(GRAMMAR, recipe, "model")
    context.train_sae(model, SAE_RECIPE, "sae")
    return measure_circuit(model, context.folder / "sae", seed)


def measure_circuit(model: Path, sae_folder: Path, seed: int) -> Record:
    """Rank all pairs of output latents of the first layer, and take the first one apart."""
    layer = open_layer(model, 0)
    found = load(sae_folder)
    sae = sae_for_hook(found, layer.loaded, MLP_OUT).eval().requires_grad_(False)
    prompts = NegationPrompts.for_model(layer.module, MLP_IN, layer.tokenizer, NUM_PAIRS, seed)
    flip = float(prompts.flip().mean())
    if flip < LEAST_FLIP:
        raise UsageError(
            f"{model}: a negator turns the feeling around by {flip:.2f} logits; at least "
            f"{LEAST_FLIP} was expected: this model has not learnt the rule, train it longer or "
            "with another seed."
        )
    g = latent_map(layer.f, sae.encoder, sae.offset)
    text, held_out = corpus_blocks(model, layer)
    read = activations_of(layer.module, text, (MLP_IN, MLP_OUT))
    inputs, z = read[MLP_IN].double(), sae.encode(read[MLP_OUT])
    ranking = contrasts.rank_contrasts(g, inputs, z)
    latents = (int(ranking.first[0]), int(ranking.second[0]))
    directions = fewest(contrasts.contrast_directions(g, *latents, inputs, z, MOST_DIRECTIONS + 1))
    space = contrasts.weighted_space(g, *latents, inputs, z)
    where = active_at(sae, layer.module.layer_map(0), latents)
    circuit = NegationCircuit(prompts, directions, space, where, seed)
    checks = [circuit.check_ablation(held_out), circuit.check_steering()]
    plain, negated = prompts.margins()
    columns = (getattr(ranking, name)[:LISTED_PAIRS].tolist() for name in LISTED)
    unembed = layer.module.unembed.weight
    effects = [output_tokens(sae.decoder[latent], unembed, LISTED_TOKENS) for latent in latents]
    return {
        "seed": seed,
        "model": model.name,
        "model_sha256": layer.loaded.weights_sha256,
        "sae": {
            "num_latents": sae.num_latents,
            "k": sae.k,
            "weights_sha256": found.weights_sha256,
            "metrics": json.loads(found.provenance.get("metrics", "null")),
        },
        "margin_plain": float(plain.mean()),
        "margin_negated": float(negated.mean()),
        "place": position_of_the_rule(ranking, prompts, sae),
        "num_pairs_ranked": len(ranking.score),
        "ranking": [dict(zip(LISTED, row, strict=True)) for row in zip(*columns, strict=True)],
        "latents": latents,
        "promoted": [
            [layer.tokenizer.token(score.token) for score in effect.high] for effect in effects
        ],
        "decoder_cosine": float(cosine_similarity(*sae.decoder[list(latents), None])),
        "eigenvalues": directions.eigenvalues.tolist(),
        "checks": checks,
    }


def corpus_blocks(model: Path, layer: TracedLayer) -> tuple[Tensor, Tensor]:
    """Return blocks of the training text and of the held-out text of a model's corpus."""
    corpus = CorpusDescription.read(model).load()
    n_ctx = layer.module.config.n_ctx

    def blocks(documents: tuple[str, ...], tokenizer: Tokenizer, tokens: int) -> Tensor:
        return pack_documents(tokenizer, documents[:tokens], n_ctx).tokens[: tokens // n_ctx]

    return (
        blocks(corpus.documents, layer.tokenizer, RANKING_TOKENS),
        blocks(corpus.held_out, layer.tokenizer, HELD_OUT_TOKENS),
    )


def active_at(sae: TopKSAE, f: QuadraticMap, latents: tuple[int, int]) -> Where:
    """Return which inputs of the MLP activate one of two output latents."""
    f = f.detach()

    def where(x: Tensor) -> Tensor:
        with torch.no_grad():
            return (sae.encode(f(x))[..., list(latents)] > 0).any(dim=-1)

    return where


class NegationCircuit(NamedTuple):
    """The directions of a pair of output latents, and where they are changed."""

    prompts: NegationPrompts
    directions: InputDirections
    space: contrasts.WeightedSpace
    where: Where
    seed: int

    def check_ablation(self, held_out: Tensor) -> Record:
        """Return how much of the flip goes with the directions, and what other text loses."""
        prompts, k = self.prompts, len(self.directions.readers)
        generator = torch.Generator().manual_seed(self.seed)
        edit = ablation(self.directions, self.where)
        drawn = (self.space.random(k, generator) for _ in range(NUM_RANDOM))
        random = [prompts.flip(ablation(along, self.where)) for along in drawn]
        losses = (prompts.loss_elsewhere(held_out), prompts.loss_elsewhere(held_out, edit))
        flips = prompts.flip(), prompts.flip(edit), random
        return to_json(causal_check("ablate", k, *flips, generator, losses))

    def check_steering(self) -> Record:
        """Return how far plain prompts turn around when they are moved as a negator moves them."""
        prompts, generator = self.prompts, torch.Generator().manual_seed(self.seed)
        coordinates = prompts.inputs().double() @ self.directions.readers.T
        shift = coordinates[1::2].mean(dim=0) - coordinates[::2].mean(dim=0)
        plain, negated = prompts.margins()

        def created(along: InputDirections) -> Tensor:
            return plain - prompts.margins(steering(along, shift, self.where))[0]

        k = len(shift)
        random = [created(self.space.random(k, generator)) for _ in range(NUM_RANDOM)]
        turned = plain - negated, created(self.directions)
        return to_json(causal_check("steer", k, *turned, random, generator))


def position_of_the_rule(
    ranking: contrasts.ContrastRanking, prompts: NegationPrompts, sae: TopKSAE
) -> int | None:
    """Return the first position that tells the feelings apart, from 1; None for none."""
    with torch.no_grad():
        z = sae.encode(prompts.model.layer_map(0)(prompts.inputs())).double()
    feelings = prompts.feelings.double()
    for position, pair in enumerate(zip(ranking.first, ranking.second, strict=True), start=1):
        difference = z[:, pair[0]] - z[:, pair[1]]
        if float(difference.std()) == 0:
            continue
        both = torch.stack([difference, feelings])
        if abs(float(torch.corrcoef(both)[0, 1])) >= READS_FEELING:
            return position
    return None


def targets_met(record: Record) -> dict[str, bool]:
    """Return which targets one model meets."""
    ablate, steer = record["checks"]
    return {
        "found": record["place"] == 1,
        "removed": ablate["share"]["value"] >= LEAST_REMOVED,
        "kept": ablate["loss_after"] <= (1 + MOST_LOSS) * ablate["loss_before"],
        "random_is_less": ablate["random_share"]["value"] < MOST_RANDOM,
        "created": steer["share"]["value"] >= LEAST_REMOVED,
    }
