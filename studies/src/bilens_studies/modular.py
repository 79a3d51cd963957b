"""Addition modulo p: grokking, read from the weights before the accuracy shows it.

A bilinear layer reads two numbers, one-hot side by side, and answers with their sum modulo p; some
pairs are held out. What generalises lies on the blocks of the Fourier basis; the share on them is
read from the factors, after each few steps, beside what it is after random rotations of one branch.

What adds modulo p is a sum of waves, cos(2πk(a + b − c)/p): each frequency of an output meets the
same frequency of both inputs and no other, so ‖B‖² lies on (p − 1)/2 blocks.

Axes in this file: K frequencies, H products, p numbers; an input has 2p entries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product, takewhile
from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn import functional

from bilens import effective_rank, hosvd
from bilens.algebra import random_frame, squared_norms
from bilens.nn import BilinearMLP
from bilens.report import Curve, line_figure
from bilens.train import ORDER, STEP, seeded_initialisation, stream
from bilens_studies.page_writer import spread
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions

ROTATIONS = 19  # the largest of them is the edge at p = 0.05
EVERY = 5  # steps between two looks
ALPHA = 1 / (ROTATIONS + 1)  # of both thresholds of chance
GENERALISED, ON_BLOCKS = 0.99, 0.9
LEVELS = ("chance", "half", "all")  # from which on weights or accuracy show it
SHOWN = 40  # singular values in the record
CURVES = {
    "train_accuracy": "training pairs",
    "held_out_accuracy": "held-out pairs",
    "share": "‖B‖² on the blocks",
    "null_edge": "of rotations",
}
DASHED = ("train_accuracy", "null_edge")


@dataclass(frozen=True)
class ModularRecipe:
    """How to train: the whole training set a step, AdamW, squared error."""

    p: int
    d_hidden: int
    steps: int
    train_share: float  # of the p² pairs
    learning_rate: float = 0.02
    weight_decay: float = 2.0
    seed: int = 0  # of the initialisation and of the pairs that are held out


RECIPES = {
    113: ModularRecipe(113, d_hidden=200, steps=200, train_share=0.5),
    13: ModularRecipe(13, d_hidden=128, steps=300, train_share=0.8),
}


class ModularStudy(Study):
    """Accuracy on held-out pairs and Fourier structure, through training."""

    name = "toy/modular"
    title = "Addition modulo 13 and 113: Fourier structure, read from the weights"
    uses = frozenset({"seeds", "steps", "full", "quick"})

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        moduli = options.choose((13,), (13, 113), (13, 113))
        return {
            f"mod-{p}-seed-{seed}": partial(measure, p, seed, options.steps)
            for p, seed in product(moduli, self.seeds(options))
        }

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        found: Record = {}
        for cell in cells.values():
            found.setdefault(str(cell["recipe"]["p"]), []).append(cell)
        return found

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {
            f"{level}-{p}": first_seen([row["seen"][level] for row in rows])
            for p, rows in result.items()
            for level in LEVELS
        }
        if rows := result.get("113", []):
            accuracies = tuple(row["looks"][-1]["held_out_accuracy"] for row in rows)
            shares = tuple(row["looks"][-1]["share"] for row in rows)
            note = f"of all of B {spread([row['share_of_all'] for row in rows])}"
            found["accuracy"] = Reproduced(accuracies, min(accuracies) >= GENERALISED)
            found["blocks"] = Reproduced(shares, min(shares) >= ON_BLOCKS, note)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        drawn = {}
        for p, rows in result.items():
            looks = rows[0]["looks"]
            curves = [
                Curve(name, tuple((look["step"], look[key]) for look in looks), key in DASHED)
                for key, name in CURVES.items()
            ]
            drawn[f"modular-{p}.svg"] = line_figure(f"Modulo {p}", "step", "share", curves)
            spectrum = Curve("first seed", tuple(enumerate(rows[0]["singular_values"], start=1)))
            title = f"Modulo {p}: singular values by output"
            drawn[f"spectrum-{p}.svg"] = line_figure(title, "rank", "σ", [spectrum])
        return drawn


def step_shown(step: int | None) -> str:
    return "never" if step is None else str(step)


def first_seen(seen: Sequence[Mapping[str, int | None]]) -> Reproduced:
    """Return by how many steps the weights show it before the accuracy, and whether always.

    A seed in which the weights never do counts against it, one in which only they do for it.
    """
    pairs = [(one["weights"], one["accuracy"]) for one in seen]
    leads = tuple(float(b - a) for a, b in pairs if a is not None and b is not None)
    holds = all(a is not None and (b is None or a < b) for a, b in pairs)
    note = "steps, weights / accuracy: " + ", ".join(
        f"{step_shown(a)} / {step_shown(b)}" for a, b in pairs
    )
    return Reproduced(leads, holds, note, runs=len(pairs))


def delay(rows: Sequence[Record]) -> str:
    """Return how many steps after the training pairs the held-out ones are right, in words."""
    pairs = [(row["learnt"], row["seen"]["all"]["accuracy"]) for row in rows]
    late = [b - a for a, b in pairs if a is not None and b is not None]
    steps = ", ".join(f"{step_shown(a)} / {step_shown(b)}" for a, b in pairs)
    later = " to ".join(dict.fromkeys((str(min(late)), str(max(late))))) if late else "some"
    return f"{steps}, {later} steps later"


def measure(p: int, seed: int, steps: int | None, context: CellContext) -> Record:
    """Train one model and look at it through training."""
    base = asdict(RECIPES[p])
    recipe = ModularRecipe(**{**base, "seed": seed, "steps": steps or base["steps"]})
    began = time.process_time()
    looks = []
    with seeded_initialisation(seed):
        model = BilinearMLP(2 * p, recipe.d_hidden, p)
    for look in train(model, recipe):
        looks.append(look)
        if look["step"] % (20 * EVERY) == 0:
            context.say(f"step {look['step']}: {look['held_out_accuracy']:.1%} of held-out pairs")
    f = model.quadratic_map().detach().to(torch.float64)
    values = hosvd(f).singular_values
    blocks = FourierBlocks.modulo(p)
    by_frequency = blocks.shares(model)
    held_out = p * p - round(recipe.train_share * p * p)
    trained = [look["train_accuracy"] >= GENERALISED for look in looks]
    return {
        "recipe": asdict(recipe),
        "looks": looks,
        "seen": seen_at(looks, by_chance(held_out, p)),
        "learnt": kept_from(looks, trained),
        "share_of_all": blocks.share_of_all(model),
        "by_frequency": by_frequency.tolist(),
        "num_frequencies": int((by_frequency > by_frequency.sum() / 100).sum()),
        "singular_values": values[:SHOWN].tolist(),
        "effective_rank": float(effective_rank(values.square())),
        "minutes": (time.process_time() - began) / 60,
    }


def by_chance(pairs: int, p: int) -> float:
    """Return the least accuracy on so many pairs that guesses reach no more often than in ALPHA."""
    return float(binom.ppf(1 - ALPHA, pairs, 1 / p) + 1) / pairs


def seen_at(looks: Sequence[Record], chance: float) -> dict[str, dict[str, int | None]]:
    """Return the step from which a level is kept, by weights and by held-out accuracy."""
    levels = {
        "chance": ([look["null_edge"] for look in looks], chance),
        "half": ([0.5] * len(looks), 0.5),
        "all": ([ON_BLOCKS] * len(looks), GENERALISED),
    }
    found = {}
    for name, (edges, accuracy) in levels.items():
        above = [look["share"] > edge for look, edge in zip(looks, edges, strict=True)]
        right = [look["held_out_accuracy"] >= accuracy for look in looks]
        found[name] = {"weights": kept_from(looks, above), "accuracy": kept_from(looks, right)}
    return found


def kept_from(looks: Sequence[Record], holds: Sequence[bool]) -> int | None:
    """Return the step of the first look from which something holds to the end."""
    kept = [*takewhile(lambda one: one[1], zip(reversed(looks), reversed(holds), strict=True))]
    return kept[-1][0]["step"] if kept else None


def split(recipe: ModularRecipe) -> tuple[Tensor, Tensor]:
    """Return training and held-out pairs, (pairs, 2)."""
    order = torch.randperm(recipe.p**2, generator=stream(recipe.seed, ORDER))
    pairs = torch.stack([order // recipe.p, order % recipe.p], dim=1)
    count = round(recipe.train_share * len(pairs))
    return pairs[:count], pairs[count:]


def answers(model: BilinearMLP, pairs: Tensor) -> Tensor:
    """Return the logits of pairs: the columns of the branches that one-hot inputs choose."""
    p = model.down.out_features
    places = pairs + torch.tensor([0, p])
    left, right = (
        functional.embedding(places, branch.weight.T).sum(dim=1)
        for branch in (model.left, model.right)
    )
    return functional.linear(left * right, model.down.weight)


def train(model: BilinearMLP, recipe: ModularRecipe) -> Iterator[Record]:
    """Train on all training pairs at once; yields a look at the start and every few steps."""
    train_pairs, held_out = split(recipe)
    targets = functional.one_hot(train_pairs.sum(dim=1) % recipe.p, recipe.p).float()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    blocks = FourierBlocks.modulo(recipe.p)
    for step in range(recipe.steps + 1):
        if step % EVERY == 0 or step == recipe.steps:
            yield {"step": step, **look(model, blocks, train_pairs, held_out)}
        # squared error: under cross-entropy what is learnt by heart stays beside the waves
        loss = (answers(model, train_pairs) - targets).square().sum(dim=1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def look(
    model: BilinearMLP, blocks: FourierBlocks, train_pairs: Tensor, held_out: Tensor
) -> Record:
    def accuracy(pairs: Tensor) -> float:
        right = answers(model, pairs).argmax(dim=1) == pairs.sum(dim=1) % model.down.out_features
        return float(right.double().mean())

    return {
        "train_accuracy": accuracy(train_pairs),
        "held_out_accuracy": accuracy(held_out),
        "share": float(blocks.shares(model).sum()),
        "null_edge": max(float(blocks.shares(model, turn).sum()) for turn in blocks.rotations),
    }


class FourierBlocks(NamedTuple):
    """The real Fourier basis as features of both numbers and of the answer."""

    outputs: Tensor  # (K, 2, p): cosine and sine, orthonormal; those of a number are the same
    rotations: Tensor  # (ROTATIONS, 2p, 2p), Haar

    @classmethod
    def modulo(cls, p: int) -> FourierBlocks:
        angle = 2 * math.pi * torch.arange(1, (p + 1) // 2)[:, None].double() * torch.arange(p) / p
        waves = torch.stack([angle.cos(), angle.sin()], dim=1) * math.sqrt(2 / p)
        draws = stream(0, STEP)
        turns = [random_frame(2 * p, 2 * p, draws) for _ in range(ROTATIONS)]
        return cls(waves, torch.stack(turns))

    @torch.no_grad()
    def shares(self, model: BilinearMLP, rotation: Tensor | None = None) -> Tensor:
        """Return the share of ‖B‖² on the block of each frequency, (K,).

        Of B only what the answers depend on counts: centred over the answers, for the softmax
        does not see what all share; and of the products of a number with itself the diagonal, for
        one entry of a one-hot number is 1.
        """
        down, left, right = factors(model)
        right = right if rotation is None else right @ rotation
        (left_a, left_b), (right_a, right_b) = (x.chunk(2, dim=1) for x in (left, right))
        gram = down.mT @ down
        squares = sum((gram * (own @ own.mT)).sum() for own in (left_a * right_a, left_b * right_b))
        kernel = (left_a @ left_a.mT) * (right_b @ right_b.mT)
        kernel = kernel + (right_a @ right_a.mT) * (left_b @ left_b.mT)
        kernel = kernel + 2 * (left_a @ right_a.mT) * (right_b @ left_b.mT)
        whole = squares + (gram * kernel).sum() / 2  # both halves of B that join a and b
        return self.joining(down, left, right) / whole

    @torch.no_grad()
    def share_of_all(self, model: BilinearMLP) -> float:
        """Return the same of the whole of B, the products of a number with itself included."""
        down, left, right = factors(model)
        on_blocks = self.joining(down, left, right).sum()
        for parts in zip(left.chunk(2, dim=1), right.chunk(2, dim=1), strict=True):
            own = self.block(down, *parts)
            on_blocks += ((own + own.mT) / 2).square().sum()
        return float(on_blocks / squared_norms(down, left, right).sum())

    def joining(self, down: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return ‖B‖² where both numbers meet, by frequency, (K,)."""
        (left_a, left_b), (right_a, right_b) = (x.chunk(2, dim=1) for x in (left, right))
        joined = self.block(down, left_a, right_b) + self.block(down, right_a, left_b)
        return joined.square().sum(dim=(1, 2, 3)) / 2

    def block(self, down: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return Σ_h down ⊗ first ⊗ second in the waves of each frequency, (K, 2, 2, 2)."""
        legs = (part @ self.outputs.mT for part in (first, second))
        return torch.einsum("kuh,khv,khw->kuvw", self.outputs @ down, *legs)


def factors(model: BilinearMLP) -> tuple[Tensor, Tensor, Tensor]:
    """Return down, centred over the answers, left and right."""
    down, left, right = (part.weight.double() for part in (model.down, model.left, model.right))
    return down - down.mean(dim=0), left, right
