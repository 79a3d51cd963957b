"""The ways from a gated language model to a bilinear one that the study compares."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.api.conversion import JUDGED_TEXTS, Conversion
from bilens.io.host import Host
from bilens.nn.mlp import BilinearMLP
from bilens.studies.study import Record
from bilens.train.distillation import distil, kl_on
from bilens.train.layer_fit import ConversionRecipe, Optimizer
from bilens.train.recipe import autocast, device_of
from bilens.train.run_folder import interruptible

Limit = Literal["none", "clamp", "penalty"]  # of the products, while logits are learnt
OURS, CLOSED = "trained layers + KL", "closed form + KL"
ANNEALING, PUBLISHED_WAY = "annealing + KL", "annealing + cross-entropy"
WAYS = {  # name → where it starts, and what the whole model learns then
    "closed form alone": ("fitted", ""),
    "trained layers alone": ("trained", ""),
    OURS: ("trained", "KL"),
    CLOSED: ("fitted", "KL"),
    ANNEALING: ("annealed", "KL"),
    PUBLISHED_WAY: ("annealed", "cross-entropy"),
    "from scratch": ("scratch", "cross-entropy"),
}
ANNEALED = 0.3  # of the steps, in which β falls to 0; published: 120 of 400 million tokens
N_CTX, BATCH, LAYER_TOKENS, RATE = 256, 2, 16_384, 1e-3
WIDEST, PENALTY = 8.0, 0.1  # products, in root mean squares of a layer's; nats for each
ALL_TOKENS, AT_ONCE = 1 << 40, 8  # more than any held-out text has; texts that run together


@dataclass(frozen=True)
class Case:
    """One conversion that is measured."""

    teacher: str  # the cell that it comes from
    way: str
    tokens: int  # in all stages
    blocks: int  # of the teacher
    seed: int
    optimizer: Optimizer
    width: int = 1  # times the teacher's
    keep: int = 0  # blocks that stay as they are, those that cost most
    limit: Limit = "none"

    @property
    def name(self) -> str:
        """The name of its cell, which is a file name too."""
        words = self.teacher, self.way, self.optimizer, self.tokens, f"{self.width}x"
        return "-".join(map(str, (*words, f"keep-{self.keep}", self.limit))).replace(" ", "-")

    def recipe(self, longest: int) -> ConversionRecipe:
        start, loss = WAYS[self.way]
        return ConversionRecipe(
            n_ctx=min(N_CTX, longest),
            tokens=self.tokens,
            layer_tokens=min(LAYER_TOKENS, self.tokens // 2) if loss else self.tokens,
            batch_size=BATCH,
            learning_rate=RATE,
            optimizer=self.optimizer,
            hidden_multiplier=self.width,
            keep_worst=self.keep,
            skip=() if start == "trained" else ("training",),
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
    start, loss = WAYS[case.way]
    if start == "annealed":
        views = {site.name: site.view.weights(torch.float64) for site in run.student.sites}
        run.student.replace({n: AnnealedMLP(BilinearMLP.of(one)) for n, one in views.items()})
        learn(run, case)
    elif start != "scratch":
        run.fit_layers()
        costs = run.swap_in_costs() if case.keep else {}
        run.keep(sorted(costs, key=costs.__getitem__, reverse=True)[: case.keep])
        if case.limit != "none":
            learn(run, case)
        elif loss:
            run.distil()
    (found,), (held_out,) = run.measured(), run.mixture.held_out.values()
    sizes = product_sizes(run.student, run.line_texts).values()
    found["largest_product"] = max((most / size for size, most in sizes), default=0.0)
    found["worst_token"] = worst_token(run.teacher, run.student, held_out)
    return {**found, **asdict(case), "seconds": run.seconds}


def learn(run: Conversion, case: Case) -> None:
    """Distil with β that falls, or with products that are cut off or cost beyond a size.

    With KL the MLPs learn, with cross-entropy all weights, as published.
    """
    (start, name), recipe, student, excess = WAYS[case.way], run.recipe, run.student, list[Tensor]()
    gates = [one for one in student.module.modules() if isinstance(one, AnnealedMLP)]
    mlps = [student.at(site) for site in run.converted.values()]
    trained = [weight for one in mlps for weight in one.parameters()]
    first = 0 if start == "annealed" else run.layer_texts

    def loss(texts: Tensor, done: float) -> Tensor:
        excess.clear()
        for one in gates:
            one.beta = max(0.0, 1 - done / ANNEALED)
        if name == "KL":
            return kl_on(run.teacher, student, texts, recipe) + PENALTY * sum(excess)
        texts = texts.to(device_of(student.module))
        with autocast(texts.device, recipe.precision):
            logits = student.logits(texts)[:, :-1].flatten(0, 1)
        return functional.cross_entropy(logits.float(), texts[:, 1:].flatten())

    with ExitStack() as stack:
        interrupted = stack.enter_context(interruptible())
        for block, (size, _) in product_sizes(student, run.line_texts).items():

            def limit(_down: nn.Module, args: tuple[Tensor], most: float = WIDEST * size) -> object:
                if case.limit == "clamp":
                    return args[0].clamp(-most, most)
                if case.limit == "penalty" and torch.is_grad_enabled():
                    excess.append(((args[0].abs() - most).relu() / most).square().mean())
                return None

            stack.callback(block.down.register_forward_pre_hook(limit).remove)
        steps = max(1, (recipe.tokens // recipe.n_ctx - first) // BATCH)
        texts = run.mixture, first + JUDGED_TEXTS, run.line_texts
        everything = [*student.module.parameters()]
        weights = trained if name == "KL" else everything
        given = run.teacher, student, weights, texts, recipe, steps, run.work / "distillation"
        for line in distil(*given, loss=loss):
            run.stop_if(interrupted, f"step {line['step']}")


@torch.no_grad()
def product_sizes(student: Host, texts: Tensor) -> dict[BilinearMLP, tuple[float, float]]:
    """Return bilinear MLP → root mean square of its products, and the largest."""
    found: dict[BilinearMLP, tuple[float, float]] = {}

    def meet(block: BilinearMLP, args: tuple[Tensor]) -> None:
        products = block.left(args[0]) * block.right(args[0])
        found[block] = float(products.square().mean().sqrt()), float(products.abs().max())

    with ExitStack() as stack:
        for block in student.module.modules():
            if isinstance(block, BilinearMLP) and block.gate is None:
                stack.callback(block.register_forward_pre_hook(meet).remove)  # type: ignore[arg-type]
        student.logits(texts.to(device_of(student.module)))
    return found


@torch.no_grad()
def worst_token(teacher: Host, student: Host, texts: Tensor) -> float:
    """Return the largest KL(teacher, student) at one token, in nats."""
    worst = 0.0
    for part in torch.split(texts.to(device_of(student.module)), AT_ONCE):
        theirs, ours = (host.logits(part).log_softmax(dim=-1) for host in (teacher, student))
        worst = max(worst, float((theirs.exp() * (theirs - ours)).sum(dim=-1).max()))
    return worst
