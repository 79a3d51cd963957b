"""The negation circuit, in models whose rule is known: §5.1 of the paper, with proof.

A model of the story grammar is read through an autoencoder behind its MLP. All pairs of output
latents are ranked without being told of the rule; the first pair's eigen-directions are ablated
and steered, beside random directions of the same norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bilens.api.train_language import train_language
from bilens.api.train_sae import train_sae
from bilens.base.errors import UsageError
from bilens.data.text import GRAMMAR
from bilens.studies.negation_circuit import MASS, MLP_OUT, measure_circuit
from bilens.studies.study import CellContext, Measure, Record, Study, StudyOptions
from bilens.train.corpus import CorpusOptions
from bilens.train.tasks.language import LanguageRecipe, default_recipe
from bilens.train.tasks.sae import SAERecipe

SEEDS = 5
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
PUBLISHED = (
    "Published for one hand-picked pair of features of a six-layer model of TinyStories "
    "(arXiv:2410.08417, §5.1): eigenvalues +0.62 and −0.66, decoder cosine −0.975, correlation "
    "of two eigenvectors with the activation 0.66; no intervention."
)


class NegationStudy(Study):
    """Whether the ranking finds the grammar's rule, and whether its directions carry it."""

    name = "language/negation"
    title = "The negation circuit of the story grammar"
    uses = frozenset({"models", "seeds", "steps"})

    def check(self, options: StudyOptions) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: If models are given beside seeds or steps, which are for training them.
        """
        super().check(options)
        if options.models is not None and (options.seeds or options.steps):
            raise UsageError(
                f"{self.name} trains models, --seeds of them for --steps updates, or takes those "
                "of --model: leave one out."
            )

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        """Return one measurement for each model."""
        count = len(options.models) if options.models else options.seeds or SEEDS
        return {f"seed-{seed}": partial(measure, options, seed) for seed in range(count)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        """Return all circuits, and how many meet each target."""
        rows = [verdict(record) | record for record in cells.values()]
        names = ("found", "removed", "kept", "random_is_less", "created")
        return {
            "rows": rows,
            "counts": {name: sum(row["verdict"][name] for row in rows) for name in names},
            "targets": {
                "least_removed": LEAST_REMOVED,
                "most_loss": MOST_LOSS,
                "most_random": MOST_RANDOM,
                "mass": MASS,
            },
            "sae_recipe": SAE_RECIPE.to_dict(),
            "trained_here": options.models is None,
        }

    def figures(self, document: Record) -> Mapping[str, str]:  # noqa: ARG002 - of the interface
        """Return no drawings: all there is to see are a few numbers a model."""
        return {}

    def page(self, document: Record) -> str:
        """Return the tables."""
        result = document["result"]
        rows, counts = result["rows"], result["counts"]
        lines = [
            f"{len(rows)} models of one layer; the rule of the grammar: a sentiment word behind "
            "*not*, *never* or *wasn't* turns the feeling that follows around. The flip is the "
            "margin (logits of the right feelings less those of the wrong ones, by the sentiment "
            "word alone) of a plain prompt less that of the same prompt with a negator, over 200 "
            "minimal pairs.",
            "",
            f"* First in the ranking of all pairs of output latents: {counts['found']} of "
            f"{len(rows)} models.",
            f"* Ablating its eigen-directions removes at least {LEAST_REMOVED:.0%} of the flip: "
            f"{counts['removed']}; with the loss on all other words within {MOST_LOSS:.0%}: "
            f"{counts['kept']}; as random directions remove less than {MOST_RANDOM:.0%}: "
            f"{counts['random_is_less']}.",
            f"* Moving plain prompts along them creates at least {LEAST_REMOVED:.0%} of the flip: "
            f"{counts['created']}.",
            "",
            "| model | place | score, next pair | latents | directions | flip, logits "
            "| removed | as many random directions | loss elsewhere | created | random |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(table_row(row) for row in rows),
            "",
            "Brackets: 95 % intervals, of the prompts for what was done (bootstrap), of the draws "
            "for random directions.",
            "",
            "## What the first pair says",
            "",
            "| model | one latent promotes | the other promotes | eigenvalues |",
            "|---|---|---|---|",
            *(reading_row(row) for row in rows),
            "",
            "## How",
            "",
            "* **Reading.** A pair's difference g_a − g_b is a quadratic form of the MLP's input, "
            "exact. Inputs are weighted by the activations of the two; the score is the share of "
            "the variance of the difference that no linear function of the input explains, times "
            "the share of its whitened squared norm in the largest positive and the most "
            "negative eigenvalue. The rule is the product of two features that decide nothing "
            "alone, so it is nonlinear and has one pair of eigenvalues. Neither prompts nor "
            "feelings take part.",
            f"* **Directions.** As few leading eigen-directions as hold {MASS:.0%} of the squared "
            "eigenvalues, four at most.",
            "* **Ablation.** At tokens that activate one of the two latents, the coordinates of "
            "the MLP's input along the directions are set to their mean; every output of the MLP "
            "reads the changed input. Random directions are orthonormal in the same whitened "
            "space, so that each carries as much variance, and as many.",
            "* **Steering.** Plain prompts are moved by the mean difference that a negator makes, "
            "along the directions alone; random directions by the same amount.",
            "* **Place** counts pairs of the ranking until one whose difference correlates with "
            "the feeling by 0.9 or more over the prompts.",
            f"* **Choices.** The {MASS:.0%} and the weights were settled on models of earlier "
            "recipes of the grammar, not on these.",
            "",
            PUBLISHED,
        ]
        return "\n".join(lines)


def measure(options: StudyOptions, seed: int, context: CellContext) -> Record:
    """Train the model and the autoencoder where they are missing, and take the circuit apart."""
    if options.models:
        model = Path(options.models[seed])
    else:
        model = context.folder / "model"
        train_language(
            model,
            CorpusOptions(GRAMMAR),
            recipe_of(options, seed),
            resume=(model / "run.json").exists(),
            say=context.say,
        )
    sae = context.folder / "sae"
    train_sae(sae, model, SAE_RECIPE, resume=(sae / "run.json").exists(), say=context.say)
    return measure_circuit(model, sae, seed)


def recipe_of(options: StudyOptions, seed: int) -> LanguageRecipe:
    """Return the recipe of a model of the grammar."""
    recipe = default_recipe(GRAMMAR)
    return dataclasses.replace(recipe, seed=seed, steps=options.steps or recipe.steps)


def verdict(record: Record) -> Record:
    """Return which targets one model meets."""
    ablate, steer = record["checks"]
    return {
        "verdict": {
            "found": record["place"] == 1,
            "removed": ablate["share"]["value"] >= LEAST_REMOVED,
            "kept": ablate["loss_after"] <= (1 + MOST_LOSS) * ablate["loss_before"],
            "random_is_less": ablate["random_share"]["value"] < MOST_RANDOM,
            "created": steer["share"]["value"] >= LEAST_REMOVED,
        }
    }


def table_row(row: Record) -> str:
    """Return the numbers of one model."""
    ablate, steer = row["checks"]
    scores = [pair["score"] for pair in row["ranking"]]
    change = ablate["loss_after"] / ablate["loss_before"] - 1
    following = f"{scores[1]:.2f}" if len(scores) > 1 else "–"
    return (
        f"| {row['seed']} | {row['place'] or 'none'} of {row['num_pairs_ranked']:,} "
        f"| {scores[0]:.2f}, {following} | {row['latents'][0]}, {row['latents'][1]} "
        f"| {ablate['num_directions']} | {ablate['before']['value']:.1f} "
        f"| {percent(ablate['share'])} | {percent(ablate['random_share'])} "
        f"| {ablate['loss_before']:.4f}, {change:+.1%} "
        f"| {percent(steer['share'])} | {percent(steer['random_share'])} |"
    )


def reading_row(row: Record) -> str:
    """Return what the latents of one model promote."""
    first, second = (" ".join(words) for words in row["promoted"])
    values = ", ".join(f"{value:+.2f}" for value in row["eigenvalues"])
    return f"| {row['seed']} | {first} | {second} | {values} |"


def percent(interval: Record) -> str:
    """Return a share with its interval."""
    return f"{interval['value']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"
