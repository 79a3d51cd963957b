"""One model of the grammar: autoencoder, ranking, and what its first circuit does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.data.token_blocks import pack_documents
from bilens.data.tokenizer import Tokenizer
from bilens.interp.contrasts import (
    ContrastRanking,
    WeightedSpace,
    contrast_directions,
    rank_contrasts,
    weighted_space,
)
from bilens.interp.interventions import (
    CausalCheck,
    InputDirections,
    Where,
    ablation,
    causal_check,
    steering,
)
from bilens.interp.latent_readings import output_tokens
from bilens.interp.layer_trace import latent_map
from bilens.interp.traced_layer import TracedLayer, open_layer
from bilens.io.load import load
from bilens.io.sae_for_hook import sae_for_hook
from bilens.nn.topk_sae import TopKSAE
from bilens.studies.negation_prompts import NegationPrompts
from bilens.studies.study import Record
from bilens.train.activations import activations_of
from bilens.train.corpus import CorpusDescription

MOST_DIRECTIONS = 4
MASS = 0.85  # of the squared eigenvalues: as few directions as hold it
NUM_PAIRS = 200  # minimal pairs
LEAST_FLIP = 1.0  # logits: what a model that knows the rule turns around
NUM_RANDOM = 40  # draws of random directions
RANKING_TOKENS = 20_000
HELD_OUT_TOKENS = 20_000
READS_FEELING = 0.9  # |correlation| of z_first − z_second with the feeling, over the prompts
LISTED_PAIRS, LISTED_TOKENS = 5, 6
MLP_IN, MLP_OUT = "blocks.0.mlp_in", "blocks.0.mlp_out"


def measure_circuit(model: Path, sae_folder: Path, seed: int) -> Record:
    """Rank all pairs of output latents of the first layer, and take the first one apart.

    Nothing that leads to the directions knows of the rule, the prompts or the feelings: text of
    the model's corpus ranks, and the eigenvalues say how many directions are taken.

    Args:
        model: run folder of the language model.
        sae_folder: model folder of the autoencoder at its mlp_out.
        seed: of prompts and random directions.

    Returns:
        JSON values.

    Raises:
        UsageError: If the model has not learnt the rule.
        BilensError: If a folder is damaged or does not fit.
    """
    layer = open_layer(model, 0)
    found = load(sae_folder)
    sae = sae_for_hook(found, layer.loaded, MLP_OUT).eval().requires_grad_(False)
    prompts = NegationPrompts.of(layer.module, MLP_IN, layer.tokenizer, NUM_PAIRS, seed)
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
    ranking = rank_contrasts(g, inputs, z)
    latents = (int(ranking.first[0]), int(ranking.second[0]))
    directions = fewest(contrast_directions(g, *latents, inputs, z, MOST_DIRECTIONS + 1))
    space = weighted_space(g, *latents, inputs, z)
    where = active_at(sae, layer.module.layer_map(0), latents)
    checks = [
        check_ablation(prompts, directions, space, where, held_out, seed),
        check_steering(prompts, directions, space, where, seed),
    ]
    plain, negated = prompts.margins()
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
        "place": place_of_the_rule(ranking, prompts, sae),
        "num_pairs_ranked": len(ranking.score),
        "ranking": ranking_values(ranking),
        "latents": latents,
        "promoted": [promoted(sae, layer, latent) for latent in latents],
        "eigenvalues": directions.eigenvalues.tolist(),
        "checks": [asdict(check) for check in checks],
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


def fewest(directions: InputDirections) -> InputDirections:
    """Return as few of the leading directions as hold MASS of the squared eigenvalues at hand."""
    squares = directions.eigenvalues.square()
    share = squares.cumsum(0) / squares.sum()
    k = min(int((share < MASS).sum()) + 1, MOST_DIRECTIONS)
    return InputDirections(
        directions.readers[:k],
        directions.patterns[:k],
        directions.mean,
        directions.eigenvalues[:k],
    )


def active_at(sae: TopKSAE, f: QuadraticMap, latents: tuple[int, int]) -> Where:
    """Return which inputs of the MLP activate one of two output latents."""
    f = f.detach()

    def where(x: Tensor) -> Tensor:
        with torch.no_grad():
            return (sae.encode(f(x))[..., list(latents)] > 0).any(dim=-1)

    return where


def check_ablation(
    prompts: NegationPrompts,
    directions: InputDirections,
    space: WeightedSpace,
    where: Where,
    held_out: Tensor,
    seed: int,
) -> CausalCheck:
    """Return how much of the flip goes with the directions, and what happens to other text."""
    k = len(directions.readers)
    generator = torch.Generator().manual_seed(seed)
    edit = ablation(directions, where)
    random = [prompts.flip(ablation(space.random(k, generator), where)) for _ in range(NUM_RANDOM)]
    losses = (prompts.loss_elsewhere(held_out), prompts.loss_elsewhere(held_out, edit))
    return causal_check("ablate", k, prompts.flip(), prompts.flip(edit), random, generator, losses)


def check_steering(
    prompts: NegationPrompts,
    directions: InputDirections,
    space: WeightedSpace,
    where: Where,
    seed: int,
) -> CausalCheck:
    """Return how far plain prompts turn around when they are moved as a negator moves them.

    The move is the mean difference between negated and plain prompts, along the directions alone
    and the same for all prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    coordinates = prompts.inputs().double() @ directions.readers.T
    shift = coordinates[1::2].mean(dim=0) - coordinates[::2].mean(dim=0)
    plain, negated = prompts.margins()

    def created(along: InputDirections) -> Tensor:
        return plain - prompts.margins(steering(along, shift, where))[0]

    random = [created(space.random(len(shift), generator)) for _ in range(NUM_RANDOM)]
    return causal_check(
        "steer", len(shift), plain - negated, created(directions), random, generator
    )


def place_of_the_rule(
    ranking: ContrastRanking, prompts: NegationPrompts, sae: TopKSAE
) -> int | None:
    """Return the place of the first pair that tells the feelings apart, from 1; None for none.

    This is the check of the ranking against the truth; nothing else looks at it.
    """
    with torch.no_grad():
        z = sae.encode(prompts.model.layer_map(0)(prompts.inputs())).double()
    feelings = prompts.feelings.double()
    for place, pair in enumerate(zip(ranking.first, ranking.second, strict=True), start=1):
        difference = z[:, pair[0]] - z[:, pair[1]]
        if float(difference.std()) == 0:
            continue
        both = torch.stack([difference, feelings])
        if abs(float(torch.corrcoef(both)[0, 1])) >= READS_FEELING:
            return place
    return None


def ranking_values(ranking: ContrastRanking) -> list[Record]:
    """Return the first pairs of the ranking."""
    return [
        {
            "first": int(ranking.first[row]),
            "second": int(ranking.second[row]),
            "score": float(ranking.score[row]),
            "nonlinear_share": float(ranking.nonlinear_share[row]),
            "pair_share": float(ranking.pair_share[row]),
        }
        for row in range(min(LISTED_PAIRS, len(ranking.score)))
    ]


def promoted(sae: TopKSAE, layer: TracedLayer, latent: int) -> list[str]:
    """Return the tokens that an output latent promotes most."""
    effect = output_tokens(sae.decoder[latent], layer.module.unembed.weight, LISTED_TOKENS)
    return [layer.tokenizer.token(score.token) for score in effect.promoted]
