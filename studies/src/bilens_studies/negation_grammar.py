"""The negation circuit, in models whose rule is known: §5.1 of the paper, with controls.

A model of the story grammar is read through an autoencoder behind its MLP. All pairs of output
latents are ranked without being told of the rule; the first pair's eigen-directions are ablated
and steered, beside random directions of the same norm, and beside those of the first pair of random
dictionaries.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor
from torch.nn.functional import cosine_similarity

from bilens import load
from bilens.base.errors import UsageError
from bilens.data import Tokenizer, pack_documents
from bilens.interp import LEVEL, TracedLayer, open_layer, output_tokens
from bilens.io import sae_for_hook
from bilens.train import CorpusDescription, SAERecipe, activations_of
from bilens_studies.negation_candidates import KEPT_SHARE
from bilens_studies.negation_circuit import NegationCircuit, compare_with_chance, random_circuits
from bilens_studies.negation_prompts import NegationPrompts
from bilens_studies.published import Reproduced
from bilens_studies.study import (
    CellContext,
    Measure,
    Record,
    Study,
    StudyOptions,
    language_recipe,
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
RANKING_TOKENS = 20_000
HELD_OUT_TOKENS = 20_000
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
                "level": LEVEL,
            },
            "sae_recipe": SAE_RECIPE.to_dict(),
            "trained_here": options.models is None,
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        rows, where = result["rows"], "models of the story grammar, whose rule is known"
        both = sum(min(row["eigenvalues"]) < 0 < max(row["eigenvalues"]) for row in rows)
        removed = tuple(row["checks"][0]["share"]["value"] for row in rows)
        confirmed = sum(row["checks"][0]["confirmed"] for row in rows)
        cosines = tuple(row["decoder_cosine"] for row in rows if "decoder_cosine" in row)
        told = f"in {both} of {len(rows)} {where}; the others need one direction"
        return {
            "eigenvalues": Reproduced(holds=2 * both > len(rows), note=told, runs=len(rows)),
            "cosine": Reproduced(cosines, note=where if cosines else ""),
            "removed": Reproduced(
                removed,
                min(removed) >= LEAST_REMOVED and confirmed == len(rows),
                f"{where}; holds from {LEAST_REMOVED} and beyond random dictionaries, as in "
                f"{confirmed} of {len(rows)}",
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
    text, held_out = corpus_blocks(model, layer)
    read = activations_of(layer.module, text, (MLP_IN, MLP_OUT))
    inputs, z = read[MLP_IN].double(), sae.encode(read[MLP_OUT])
    circuit = NegationCircuit.from_dictionary(prompts, layer.f, sae, inputs, z)
    null = random_circuits(prompts, layer.f, sae, inputs, z, seed)
    ranking, latents = circuit.ranking, circuit.latents
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
        "place": circuit.place,
        "num_pairs_ranked": len(ranking.score),
        "ranking": [dict(zip(LISTED, row, strict=True)) for row in zip(*columns, strict=True)],
        "latents": latents,
        "promoted": [
            [layer.tokenizer.token(score.token) for score in effect.high] for effect in effects
        ],
        "decoder_cosine": float(cosine_similarity(*sae.decoder[list(latents), None])),
        "eigenvalues": circuit.directions.eigenvalues.tolist(),
        "score": compare_with_chance(circuit.score(1), [one.score(1) for one in null]),
        "rule_score": compare_with_chance(
            circuit.score(circuit.place), [one.score(one.place) for one in null]
        ),
        "null_places": [one.place for one in null],
        "checks": circuit.checks(held_out, null, seed),
    }


def corpus_blocks(model: Path, layer: TracedLayer) -> tuple[Tensor, Tensor]:
    """Return blocks of the training text and of the held-out text of a model's corpus."""
    corpus = CorpusDescription.read_from(model).load()
    n_ctx = layer.module.config.n_ctx

    def blocks(documents: tuple[str, ...], tokenizer: Tokenizer, tokens: int) -> Tensor:
        return pack_documents(tokenizer, documents[:tokens], n_ctx).tokens[: tokens // n_ctx]

    return (
        blocks(corpus.documents, layer.tokenizer, RANKING_TOKENS),
        blocks(corpus.held_out, layer.tokenizer, HELD_OUT_TOKENS),
    )


def targets_met(record: Record) -> dict[str, bool]:
    """Return which targets one model meets."""
    ablate, steer = record["checks"]
    return {
        "found": record["place"] == 1,
        "removed": ablate["share"]["value"] >= LEAST_REMOVED,
        "kept": ablate["loss_after"] <= (1 + MOST_LOSS) * ablate["loss_before"],
        "random_is_less": ablate["random_share"]["value"] < MOST_RANDOM,
        "created": steer["share"]["value"] >= LEAST_REMOVED,
        "score_beyond_chance": record["score"]["p_value"] <= LEVEL,
        "removal_confirmed": ablate["confirmed"],
        "creation_confirmed": steer["confirmed"],
    }
