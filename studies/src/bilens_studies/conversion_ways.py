"""The ways from a gated language model to a bilinear one that the study compares."""

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens import GLUWeights
from bilens.io import Host
from bilens.nn import BilinearMLP
from bilens.train import (
    ConversionRecipe,
    Mixture,
    Optimizer,
    Passes,
    autocast,
    convert_layers,
    distil,
    kl_on,
    swap_in_losses,
    token_table,
)
from bilens_studies.study import Record

Limit = Literal["none", "clamp", "penalty"]  # of the products, while logits are learnt
OURS = "trained layers + KL"
WAYS = {  # name → where it starts, and what the whole model learns then
    "closed form alone": ("fitted", ""),
    "trained layers alone": ("trained", ""),
    OURS: ("trained", "KL"),
    "closed form + KL": ("fitted", "KL"),
    "annealing + KL": ("annealed", "KL"),
    "annealing + cross-entropy": ("annealed", "cross-entropy"),
    "from scratch": ("scratch", "cross-entropy"),
}
ANNEALED = 0.3  # of the steps, in which β falls to 0; published: 120 of 400 million tokens
N_CTX, BATCH, LAYER_TOKENS, RATE = 256, 2, 16_384, 1e-3
JUDGED, LAYER_STEPS = 16, 1000  # texts that tell how good layers are; of Adam, for each
WIDEST, PENALTY = 8.0, 0.1  # products, in root mean squares of a layer's; nats for each


@dataclass(frozen=True)
class Case:
    """One conversion that is measured."""

    teacher: str  # the cell that trained it
    way: str
    tokens: int  # in all stages
    blocks: int  # of the teacher
    seed: int
    optimizer: Optimizer
    width: int = 1  # times the teacher's
    keep: int = 0  # blocks that stay as they are, those that cost most
    limit: Limit = "none"
    passes: int = 1  # through the tokens, of what the whole model learns

    @property
    def name(self) -> str:
        """The name of its cell, which is a file name too."""
        words = [self.teacher, self.way, self.optimizer, self.tokens, f"{self.width}x"]
        words += [f"keep-{self.keep}", self.limit, self.passes]
        return "-".join(map(str, words)).replace(" ", "-")

    @property
    def layers(self) -> str:
        """The folder of its layers, which other cases share."""
        words = self.teacher, WAYS[self.way][0], self.layer_tokens, f"{self.width}x"
        return "-".join(map(str, ("layers", *words)))

    @property
    def layer_tokens(self) -> int:
        """How many tokens layers are fitted to."""
        return min(LAYER_TOKENS, self.tokens // 2) if WAYS[self.way][1] else self.tokens

    def recipe(self, n_ctx: int) -> ConversionRecipe:
        how: Record = {"n_ctx": n_ctx, "tokens": self.tokens, "layer_tokens": self.layer_tokens}
        how |= {"batch_size": BATCH, "learning_rate": RATE, "layer_steps": LAYER_STEPS}
        how |= {"optimizer": self.optimizer, "hidden_multiplier": self.width, "seed": self.seed}
        return ConversionRecipe(**how, skip=() if WAYS[self.way][0] == "trained" else ("training",))


class AnnealedMLP(nn.Module):
    """down((u σ(βu)) ∘ (right x)) with u = left x: SiLU at β = 1; u / 2, bilinear, at β = 0."""

    def __init__(self, block: BilinearMLP) -> None:
        super().__init__()
        self.block, self.beta = block, 1.0

    def to_bilinear(self) -> BilinearMLP:
        """Write β = 0 into the weights of the MLP, in place, and return it."""
        with torch.no_grad():
            for parameter in self.block.left.parameters():
                parameter.div_(2)
        self.block.gate = None
        return self.block

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., d) → (..., d)."""
        u = self.block.left(x)
        y: Tensor = self.block.down(u * torch.sigmoid(self.beta * u) * self.block.right(x))
        return y


def convert(teacher: Host, student: Host, mixture: Mixture, case: Case, folder: Path) -> Record:
    """Take a copy of the teacher through one way, and measure it on all held-out text."""
    (start, loss), recipe = WAYS[case.way], case.recipe(mixture.n_ctx)
    (held_out,), layers = mixture.held_out.values(), list[Record]()
    if start == "annealed":
        gated = {site.name: cast(GLUWeights, site.view.weights()) for site in student.sites}
        student.replace({n: AnnealedMLP(BilinearMLP.from_weights(one)) for n, one in gated.items()})
    elif start != "scratch":
        count = recipe.layer_tokens // recipe.n_ctx
        texts = mixture.texts(JUDGED, count), mixture.texts(0, JUDGED)
        shared = folder.parent / f"{case.layers}-{teacher.sha256[:8]}"
        given = range(len(student.blocks)), texts, recipe, shared
        layers = [*convert_layers(student, *given)]
        if case.keep:  # those that cost most on text that is neither learnt nor measured
            costs = swap_in_losses(teacher, student, given[0], texts[1])
            dear = sorted(costs, key=lambda one: float(one[1].mean()))[-case.keep :]
            kept = [site for site in student.sites if site.block in dict(dear)]
            paths = [path for site in kept for path in site.paths]
            student.put({path: teacher.module.get_submodule(path) for path in paths})
    if loss and start != "scratch":
        learn(teacher, student, mixture, case, folder / "distillation")
        annealed = {site.name: student.at(site) for site in student.sites}
        ended = {n: m.to_bilinear() for n, m in annealed.items() if isinstance(m, AnnealedMLP)}
        student.replace(ended)
    table = token_table(teacher, student, held_out)
    theirs, ours, kl, same, *_ = table.mean(dim=(0, 1)).tolist()
    added = (table[..., 1] - table[..., 0]).mean(dim=1)
    sizes = product_sizes(student, held_out[:JUDGED]).values()
    return {
        **asdict(case),
        "r_squared": [one.get("r_squared") for one in layers],
        "teacher_loss": theirs,
        "loss_added": ours - theirs,
        "error": float(added.std()) / math.sqrt(len(added)) if len(added) > 1 else 0.0,
        "kl": kl,
        "same_top_token": same,
        "worst_token": float(table[..., 2].max()),
        "largest_product": max((most / size for size, most in sizes), default=0.0),
        "measured_tokens": table[..., 0].numel(),
    }


def learn(teacher: Host, student: Host, mixture: Mixture, case: Case, folder: Path) -> None:
    """Distil: with KL the MLPs learn, with cross-entropy all weights, as published."""
    (start, name), (held_out,) = WAYS[case.way], mixture.held_out.values()
    recipe, excess = case.recipe(mixture.n_ctx).resolved(), list[Tensor]()
    gates = [one for one in student.module.modules() if isinstance(one, AnnealedMLP)]
    first = 0 if start == "annealed" else recipe.layer_tokens // recipe.n_ctx

    def loss(batch: Tensor, done: float) -> Tensor:
        excess.clear()
        for one in gates:
            one.beta = max(0.0, 1 - done / ANNEALED)
        if name == "KL":
            return kl_on(teacher, student, batch, recipe) + PENALTY * sum(excess)
        with autocast(batch.device, recipe.precision):
            logits = student.logits(batch)[:, :-1].flatten(0, 1)
        return functional.cross_entropy(logits.float(), batch[:, 1:].flatten())

    with ExitStack() as stack:
        sizes = product_sizes(student, held_out[:JUDGED])
        for block, (size, _) in sizes.items() if case.limit != "none" else ():

            def limit(_down: nn.Module, args: tuple[Tensor], most: float = WIDEST * size) -> object:
                if case.limit == "clamp":
                    return args[0].clamp(-most, most)
                excess.append(((args[0].abs() - most).relu() / most).square().mean())
                return None

            stack.callback(block.down.register_forward_pre_hook(limit).remove)
        modules = [*gates, *sizes] if name == "KL" else [student.module]
        weights = [weight for module in modules for weight in module.parameters()]
        steps = max(1, (recipe.tokens // recipe.n_ctx - first) // BATCH)
        texts = Passes(mixture, JUDGED + first, steps * BATCH)
        given = (texts, 0, held_out[:JUDGED]), recipe, steps * case.passes, folder, loss
        for _ in distil(teacher, student, weights, *given):
            pass


@torch.no_grad()
def product_sizes(student: Host, texts: Tensor) -> dict[BilinearMLP, tuple[float, float]]:
    """Return bilinear MLP → root mean square of its products, and the largest."""
    found: dict[BilinearMLP, tuple[float, float]] = {}

    def meet(block: Any, args: tuple[Tensor]) -> None:
        products = block.left(args[0]) * block.right(args[0])
        found[block] = float(products.square().mean().sqrt()), float(products.abs().max())

    with ExitStack() as stack:
        for block in student.module.modules():
            if isinstance(block, BilinearMLP) and block.gate is None:
                stack.callback(block.register_forward_pre_hook(meet).remove)
        student.logits(texts)
    return found
