"""The ways from a gated language model to a bilinear one that the study compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.api.conversion import JUDGED_TEXTS, Conversion
from bilens.io.host import Host
from bilens.nn.mlp import BilinearMLP
from bilens.studies.study import Record
from bilens.train.distillation import distil, kl_on
from bilens.train.layer_fit import ConversionRecipe, Optimizer, Stage
from bilens.train.recipe import device_of

Limit = Literal["none", "clamp", "penalty"]  # of the products, while logits are learnt
ANNEALED = 0.3  # of the steps, in which β falls to 0; published: 120 of 400 million tokens
N_CTX, BATCH, LAYER_TOKENS = 256, 4, 16_384
WIDEST, PENALTY = 8.0, 0.1  # products, in root mean squares of a layer's; nats for each
ALL_TOKENS = 1 << 40  # more than any held-out text has


@dataclass(frozen=True)
class Way:
    start: Literal["annealed", "fitted", "trained", "scratch"]
    loss: Literal["KL", "cross-entropy", ""] = ""  # that the whole model learns from


WAYS = {
    "closed form alone": Way("fitted"),
    "trained layers alone": Way("trained"),
    "trained layers + KL": Way("trained", "KL"),
    "closed form + KL": Way("fitted", "KL"),
    "annealing + KL": Way("annealed", "KL"),
    "annealing + cross-entropy": Way("annealed", "cross-entropy"),
    "from scratch": Way("scratch", "cross-entropy"),
}
RATES: dict[tuple[str, Optimizer], float] = {  # tuned on seed 0 at 125,000 tokens
    ("trained", "muon"): 1e-3,
    ("trained", "adamw"): 1e-3,
    ("fitted", "muon"): 1e-3,
    ("fitted", "adamw"): 1e-3,
    ("annealed", "muon"): 1e-3,
    ("annealed", "adamw"): 1e-3,
}


@dataclass(frozen=True)
class Case:
    """One conversion that is measured."""

    teacher: str  # the cell that it comes from
    way: str
    tokens: int  # in all stages
    seed: int = 0
    optimizer: Optimizer = "muon"
    width: int = 1  # times the teacher's
    keep: int = 0  # blocks that stay as they are, those that cost most
    limit: Limit = "none"

    @property
    def name(self) -> str:
        """The name of its cell, which is a file name too."""
        parts = [self.teacher, self.way.replace(" + ", "-"), self.optimizer, f"{self.tokens}"]
        parts += [f"width-{self.width}"] * (self.width > 1) + [f"keep-{self.keep}"] * self.keep
        return "-".join([*parts[:5], *[self.limit] * (self.limit != "none")]).replace(" ", "-")

    def recipe(self, longest: int) -> ConversionRecipe:
        way = WAYS[self.way]
        skip: tuple[Stage, ...] = () if way.start == "trained" else ("training",)
        layers = min(LAYER_TOKENS, self.tokens // 2) if way.loss else self.tokens
        return ConversionRecipe(
            n_ctx=min(N_CTX, longest),
            tokens=self.tokens,
            layer_tokens=layers,
            batch_size=BATCH,
            learning_rate=RATES.get((way.start, self.optimizer), 1e-3),
            optimizer=self.optimizer,
            hidden_multiplier=self.width,
            keep_worst=self.keep,
            skip=skip,
            measured_tokens=ALL_TOKENS,
            seed=self.seed,
        )


class AnnealedMLP(nn.Module):
    """down((u σ(βu)) ∘ (right x)) with u = left x: SiLU at β = 1; u / 2, bilinear, at β = 0."""

    def __init__(self, block: BilinearMLP) -> None:
        super().__init__()
        self.block, self.beta = block, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., d) → (..., d)."""
        u = self.block.left(x)
        y: Tensor = self.block.down(u * torch.sigmoid(self.beta * u) * self.block.right(x))
        return y


def convert(run: Conversion, case: Case) -> Record:
    """Take the student of a conversion through one way; return what is known of it."""
    way = WAYS[case.way]
    if way.start == "annealed":
        student = run.student = run.teacher.twin(share=False)
        views = {site.name: site.view.weights(torch.float64) for site in student.sites}
        student.replace({name: AnnealedMLP(BilinearMLP.of(one)) for name, one in views.items()})
        learn_annealed(run, way)
    elif way.start in ("fitted", "trained"):
        run.fit_layers()
        costs = run.swap_in_costs() if case.keep else {}
        run.keep(sorted(costs, key=costs.__getitem__, reverse=True)[: case.keep])
        if case.limit != "none":
            learn_limited(run, case.limit)
        elif way.loss:
            run.distil()
    (found,) = run.measured()
    del found["name"]
    return {**asdict(case), **found, "seconds": sum(run.seconds.values())}


def learn(
    run: Conversion, trained: Sequence[nn.Parameter], first: int, loss: Callable[..., Tensor]
) -> None:
    """Distil with another loss, from text number `first` on."""
    recipe, texts = run.recipe, (run.mixture, first, run.line_texts)
    steps = max(1, (recipe.tokens // recipe.n_ctx - max(0, first - JUDGED_TEXTS)) // BATCH)
    given = run.teacher, run.student, trained, texts, recipe, steps, run.work / "distillation"
    for line in distil(*given, loss=loss):
        run.seconds["distillation"] = recipe.n_ctx * BATCH * steps / line["tokens_per_second"]


def learn_annealed(run: Conversion, way: Way) -> None:
    """Let β fall to 0; with KL the MLPs learn, and with cross-entropy everything, as published."""
    blocks = [one for one in run.student.module.modules() if isinstance(one, AnnealedMLP)]
    alone = [weight for one in blocks for weight in one.parameters()]

    def loss(texts: Tensor, done: float) -> Tensor:
        for one in blocks:
            one.beta = max(0.0, 1 - done / ANNEALED)
        if way.loss == "KL":
            return kl_on(run.teacher, run.student, texts, run.recipe)
        return cross_entropy(run.student, texts)

    learn(run, alone if way.loss == "KL" else [*run.student.module.parameters()], 0, loss)


def cross_entropy(student: Host, texts: Tensor) -> Tensor:
    logits = student.logits(texts.to(device_of(student.module)))[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].to(logits.device).flatten())


def learn_limited(run: Conversion, limit: Limit) -> None:
    """Distil with products that are cut off, or that cost, beyond a size; then without."""
    sizes, excess = product_sizes(run.student, run.line_texts), list[Tensor]()

    def meet(number: int, products: Tensor) -> Tensor | None:
        most = WIDEST * sizes[number][0]
        if limit == "clamp":
            return products.clamp(-most, most)
        excess.append(((products.abs() - most).relu() / most).square().mean())
        return None

    def loss(texts: Tensor, _done: float) -> Tensor:
        excess.clear()
        divergence = kl_on(run.teacher, run.student, texts, run.recipe)
        return divergence + PENALTY * sum(excess)

    first = JUDGED_TEXTS + run.layer_texts
    blocks = [run.student.at(site) for site in run.converted.values()]
    trained = [weight for block in blocks for weight in block.parameters()]
    with watched(run.student, meet):
        learn(run, trained, first, loss)


@contextmanager
def watched(student: Host, meet: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Show the products of each bilinear MLP, by its number, and take what is given instead."""

    def hook(number: int, _module: nn.Module, args: tuple[Tensor]) -> Tensor | None:
        return meet(number, args[0])

    with ExitStack() as stack:
        blocks = (one for one in student.module.modules() if isinstance(one, BilinearMLP))
        for number, block in enumerate(one for one in blocks if one.gate is None):
            stack.callback(block.down.register_forward_pre_hook(partial(hook, number)).remove)
        yield


@torch.no_grad()
def product_sizes(student: Host, texts: Tensor) -> dict[int, tuple[float, float]]:
    """Return number of a bilinear MLP → root mean square of its products, and the largest."""
    found: dict[int, tuple[float, float]] = {}

    def meet(number: int, products: Tensor) -> None:
        size = float(products.square().mean().sqrt())
        found[number] = size, float(products.abs().max())

    with watched(student, meet):
        student.logits(texts.to(device_of(student.module)))
    return found


@torch.no_grad()
def worst_token(teacher: Host, student: Host, texts: Tensor) -> float:
    """Return the largest KL(teacher, student) at one token, in nats."""
    worst = 0.0
    for part in torch.split(texts.to(device_of(student.module)), 8):
        theirs, ours = (host.logits(part).log_softmax(dim=-1) for host in (teacher, student))
        worst = max(worst, float((theirs.exp() * (theirs - ours)).sum(dim=-1).max()))
    return worst
