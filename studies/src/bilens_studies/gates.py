"""The cost of leaving out the gate of a language model: App. I of the paper.

Five kinds of MLP with equally many weights: bilinear, ReGLU, SwiGLU, GeGLU, and the ordinary one
with GELU. Each is trained for equally many steps, and then again for as many as it can do in the
time that the bilinear one takes for its own. How long a step takes is measured for all of them in
turns, in the processor's own time.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from statistics import mean
from typing import Any

import torch

from bilens.report import Curve, line_figure
from bilens.train import CorpusOptions, Processes, find_device, start_run, train_step
from bilens_studies.published import Reproduced, interval
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions, language_recipe

GATES: dict[str, dict[str, Any]] = {  # name -> what differs in the recipe
    "bilinear": {},
    "ReGLU": {"gate": "relu"},
    "SwiGLU": {"gate": "silu"},
    "GeGLU": {"gate": "gelu"},
    "GELU MLP": {"mlp_type": "ordinary"},
}
PUBLISHED = {  # TinyStories, 6 layers, d_model 512 (arXiv:2410.08417, App. I): epochs, time
    "bilinear": (1.337, 1.337),
    "ReGLU": (1.332, 1.337),
    "SwiGLU": (1.321, 1.336),
}
BUDGETS = EQUAL_STEPS, EQUAL_TIME = "equal steps", "equal time"
CURVES_NAME = "gates.svg"
DATA = "SwiGLU, data"
SPEED = "seconds-per-step"
TIMED_ROUNDS = 12
WORDS_OF_THE_GRAMMAR = 100  # about; the tokenizer is not trained to measure time
SAME = 0.02  # share of steps: timings repeat to about so much, and a second run would say no more


class GateStudy(Study):
    """Held-out loss by kind of MLP, at equal steps and at equal time."""

    name = "language/gates"
    title = "Loss of bilinear and gated language models"
    uses = frozenset({"corpus", "seeds", "steps"})
    needs = frozenset({"corpus"})
    num_seeds = (1, 1, 1)

    def check(self, options: StudyOptions) -> None:
        """Refuse what any study refuses, and a corpus that cannot be read."""
        super().check(options)
        CorpusOptions(str(options.corpus)).load()

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        every = product(BUDGETS, self.seeds(options), GATES)
        speed: dict[str, Measure] = {SPEED: partial(seconds_per_step, options)}
        return speed | {
            cell_name(budget, kind, seed): partial(measure, options, budget, kind, seed)
            for budget, seed, kind in every
        }

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        rows: list[Record] = [{"kind": kind, "published": PUBLISHED.get(kind)} for kind in GATES]
        for row, budget in product(rows, BUDGETS):
            names = (cell_name(budget, row["kind"], seed) for seed in self.seeds(options))
            found = [cells[name] for name in names]
            losses = [cell["held_out_loss"] for cell in found]
            row[budget] = {"held_out_loss": mean(losses), "losses": losses}
            row[budget]["steps"] = found[0]["step"]
        first = {kind: cells[cell_name(EQUAL_STEPS, kind, 0)] for kind in GATES}
        return {
            "rows": rows,
            "num_weights": {kind: cell["num_weights"] for kind, cell in first.items()},
            "seconds_per_step": cells[SPEED],
            "recipe": first["bilinear"]["recipe"],
            "corpus": first["bilinear"]["corpus"],
            "histories": {kind: cell["history"] for kind, cell in first.items()},
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        losses = {
            (row["kind"], budget): row[budget]["losses"]
            for row, budget in product(result["rows"], BUDGETS)
        }
        found = {DATA: Reproduced(tuple(more_tokens(result)))}
        for (gate, budget), others in losses.items():
            if (name := f"{gate}, {budget}") in self.published:
                shares = tuple(changes(losses["bilinear", budget], others))
                low, high = interval(shares) or (0.0, 0.0)
                signed = budget == EQUAL_STEPS and low * high > 0
                found[name] = Reproduced(shares, low > 0 if signed else None)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        curves = [
            Curve(kind, tuple((line["step"], line["held_out_loss"]) for line in lines))
            for kind, lines in result["histories"].items()
        ]
        return {CURVES_NAME: line_figure(self.title, "steps", "nats per token", curves)}


def more_tokens(result: Record) -> list[float]:
    """Return the share of tokens that the bilinear model needs more than SwiGLU, a seed each.

    The loss of SwiGLU is linear in the logarithm of the steps between the trainings of equal steps
    and of equal time, each with a whole schedule; there is none where these are one.
    """
    rows = {row["kind"]: row for row in result["rows"]}
    many, few = (rows["SwiGLU"][budget] for budget in BUDGETS)
    found = []
    for loss, least, most in zip(
        rows["bilinear"][EQUAL_STEPS]["losses"], many["losses"], few["losses"], strict=True
    ):
        if (most - least) * (many["steps"] - few["steps"]) > 0:
            rate = math.log(many["steps"] / few["steps"]) / (most - least)
            found.append(math.expm1((loss - least) * rate))
    return found


def difference_shown(losses: Sequence[float], others: Sequence[float]) -> str:
    """Return by how much losses differ from others of the same seeds: mean and range."""
    shares = changes(losses, others)
    if len(shares) == 1:
        return f"{shares[0]:+.2%}"
    return f"{mean(shares):+.2%} ({min(shares):+.2%} to {max(shares):+.2%})"


def changes(losses: Sequence[float], others: Sequence[float]) -> list[float]:
    return [mine / other - 1 for mine, other in zip(losses, others, strict=True)]


def cell_name(budget: str, kind: str, seed: int) -> str:
    """Return the name of a cell, which is a file name too."""
    return f"{budget} {kind} seed {seed}".replace(" ", "-")


def measure(
    options: StudyOptions, budget: str, kind: str, seed: int, context: CellContext
) -> Record:
    """Train one model, or take the one of equal steps where it did as many."""
    corpus = str(options.corpus)
    recipe = language_recipe(corpus, options.steps, seed=seed, **GATES[kind])
    if budget == EQUAL_TIME:
        at_equal_steps = context.done[cell_name(EQUAL_STEPS, kind, seed)]
        share = context.done[SPEED]["bilinear"] / context.done[SPEED][kind]
        if abs(share - 1) < SAME:
            return at_equal_steps
        recipe = dataclasses.replace(recipe, steps=max(1, round(at_equal_steps["step"] * share)))
    result = context.train_language(corpus, recipe)
    document = result.to_dict()
    return {
        "kind": kind,
        "seed": seed,
        **{name: document[name] for name in ("held_out_loss", "held_out_bits_per_byte", "step")},
        "num_weights": result.num_weights,
        "recipe": recipe.to_dict(),
        "corpus": result.source,
        "history": [line.to_dict() for line in result.history],
    }


def seconds_per_step(options: StudyOptions, context: CellContext) -> Record:
    """Return the seconds that a training step of each kind takes: the least of some, in turns."""
    device = find_device("auto")
    group = Processes(device=device)
    usual = partial(language_recipe, str(options.corpus), options.steps)
    recipes = {kind: usual(**change).resolved(device) for kind, change in GATES.items()}
    vocab_size = recipes["bilinear"].vocab_size or WORDS_OF_THE_GRAMMAR
    runs = {kind: start_run(recipe, vocab_size, group) for kind, recipe in recipes.items()}
    shape = (recipes["bilinear"].batch_size, recipes["bilinear"].n_ctx + 1)
    texts = torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(0))
    texts = texts.to(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    least = dict.fromkeys(GATES, math.inf)
    for _ in range(TIMED_ROUNDS):
        for kind, run in runs.items():
            began = clock()
            train_step(run, texts, recipes[kind], 0)
            least[kind] = min(least[kind], clock() - began)
    context.say("seconds a step: " + ", ".join(f"{k} {v:.3f}" for k, v in least.items()))
    return least
