"""Training language models: AdamW with warm-up, clipping, the held-out loss on the way."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bilens.base import silent
from bilens.base.errors import NumericalError
from bilens.data.tokenizer import Tokenizer
from bilens.io.model_folder import save
from bilens.nn.module_layers import Transformer
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.tokens import mean_cross_entropy
from bilens.nn.transformer import BilinearTransformer
from bilens.train.corpus import Batches, CorpusDescription, CorpusTokens, measured_texts
from bilens.train.device import autocast
from bilens.train.loop import (
    Line,
    TrainingRun,
    TrainingTask,
    check_step,
    check_training_memory,
    clip_gradient,
    in_parts,
    learning_rate,
)
from bilens.train.processes import ALONE, Processes
from bilens.train.randomness import NOISE, ActivationNoise, seeded_initialisation, stream
from bilens.train.recipes import LanguageRecipe as LanguageRecipe
from bilens.train.run_folder import TOKENIZER_NAME

BETAS = (0.9, 0.95)  # the second one is shorter than AdamW's own: runs of few steps
EVALUATION_TOKENS = 8192  # a batch of the evaluation
APART = 1 / 8  # share of the positions of a penalised text that are set apart from the others
PENALISED = 1 / 8  # share of the texts that are penalised: each takes three more runs

Run: TypeAlias = TrainingRun[Transformer]  # sums: loss × tokens, tokens


@dataclass(frozen=True)
class LanguageMetrics(Line):
    """One line of the history: what lies between two measurements of the held-out loss."""

    epoch: int  # number of the line, from 1
    step: int  # updates so far
    tokens: int  # predictions trained on so far
    learning_rate: float  # of the last step
    train_loss: float  # mean cross-entropy over the steps since the last line, nats per token
    held_out_loss: float  # the same on the held-out documents
    held_out_bits_per_byte: float
    tokens_per_second: float  # of the steps since the last line
    seconds: float  # wall time of these steps


class LanguageTask(TrainingTask[Transformer, LanguageMetrics]):
    """A language model, from a recipe and a corpus with its tokenizer."""

    data_noun, epoch_noun = "text", "part"
    line_type = LanguageMetrics

    def __init__(
        self,
        recipe: LanguageRecipe,
        tokens: CorpusTokens,
        tokenizer: Tokenizer,
        corpus: CorpusDescription,
        group: Processes = ALONE,
        texts_at_once: int = 0,
    ) -> None:
        group.check_shares(recipe.batch_size)
        self.recipe, self.tokens, self.group = recipe.resolved(group.device), tokens, group
        self.texts_at_once = texts_at_once  # of a process's share of a batch; 0 for all
        self.tokenizer, self.corpus = tokenizer, corpus
        self.batches = Batches(tokens.train, recipe.n_ctx, recipe.batch_size, recipe.seed)
        self.total_steps = self.batches.total_steps(recipe.epochs, recipe.steps)
        self.epochs = min(recipe.evaluations, self.total_steps)
        self.about = {"recipe": self.recipe.to_dict(), "data": tokens.fingerprint}
        self.noise = ActivationNoise(0.0, recipe.dropout)

    def start(self) -> Run:
        return start_run(self.recipe, self.tokenizer.vocab_size, self.group)

    def first_step(self, epoch: int) -> int:
        """Return the first step of a line, counted from 0; lines are evenly long."""
        return epoch * self.total_steps // self.epochs

    def num_steps(self, epoch: int) -> int:
        return self.first_step(epoch + 1) - self.first_step(epoch)

    def learning_rate(self, epoch: int, step: int) -> float:
        r, done = self.recipe, self.first_step(epoch) + step
        return learning_rate(r.learning_rate, r.schedule, r.warmup, done, self.total_steps)

    def disturbed(self, run: Run) -> AbstractContextManager[None]:
        modules: list[nn.Module] = [run.model.embed]
        for block in run.model.blocks:
            modules += [block.get_submodule("attention"), block.get_submodule("mlp")]
        return self.noise.added_to(modules)

    def take_step(self, run: Run, _: None) -> None:
        step = self.first_step(run.epoch) + run.step
        texts = self.group.share(self.batches.batch(step)).to(self.group.device)
        same_noise = partial(self.noise.start_step, self.recipe.seed, 0, step)
        train_step(run, texts, self.recipe, step, self.texts_at_once, same_noise)

    def metrics(self, run: Run, rate: float) -> LanguageMetrics:
        recipe, step = self.recipe, self.first_step(run.epoch + 1)
        loss, count = run.sums.tolist()
        held_out = held_out_loss(run, self.tokens.held_out, recipe.n_ctx)
        if not math.isfinite(held_out):
            raise NumericalError(
                f"the held-out loss is no longer finite after step {step}: lower the learning rate "
                f"(it is {recipe.learning_rate:g})."
            )
        return LanguageMetrics(
            epoch=run.epoch + 1,
            step=step,
            tokens=step * recipe.batch_size * recipe.n_ctx,
            learning_rate=rate,
            train_loss=loss / count,
            held_out_loss=held_out,
            held_out_bits_per_byte=self.tokens.bits_per_byte(held_out),
            tokens_per_second=count / run.seconds,
            seconds=run.seconds,
        )

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        self.tokenizer.save(folder / TOKENIZER_NAME)
        self.corpus.write(folder)
        details = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "data_name": self.corpus.name,
            "data_source": self.corpus.source,
            "data_sha256": self.corpus.fingerprint,
            "tokenizer_sha256": self.tokenizer.sha256,
        }
        save(run.model.cpu(), folder, provenance={**details, **provenance}, overwrite=True)


def start_run(recipe: LanguageRecipe, vocab_size: int, group: Processes = ALONE) -> Run:
    """Return a run at its beginning, with weights drawn from the seed of the recipe."""
    maps = 2 + 2 * (recipe.pairs if recipe.polynomial else 1)  # of an attention
    block = maps * recipe.d_model**2 + 3 * recipe.d_model * recipe.d_hidden
    weights = recipe.n_layer * block + (2 - recipe.tied) * vocab_size * recipe.d_model
    check_training_memory(weights, "choose a smaller model", group.device)
    with seeded_initialisation(recipe.seed):
        model = model_of(recipe, vocab_size).to(group.device)
    blank = group.blank(model)
    measure: Callable[[Tensor], Tensor] = model.next_token_loss
    if isinstance(model, PolynomialTransformer) and recipe.order_penalty:
        measure = PenalisedLoss(model, recipe.order_penalty, recipe.seed)
    loss = group.learner(model, measure, [*model.blocks])
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=BETAS,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    sums = torch.zeros(2, dtype=torch.float64)
    return Run(model, optimizer, sums, group=group, losses=(loss,), blank=blank)


def model_of(recipe: LanguageRecipe, vocab_size: int) -> Transformer:
    """Make a new model, drawn with the generator of torch."""
    r = recipe
    if r.polynomial:
        return PolynomialTransformer(
            vocab_size, r.d_model, r.d_hidden, r.n_layer, r.n_head, r.n_ctx,
            pairs=r.pairs, decay=True,
        )  # fmt: skip
    return BilinearTransformer(
        vocab_size, r.d_model, r.d_hidden, r.n_layer, r.n_head, r.n_ctx,
        r.gate, tied=r.tied, mlp_type=r.mlp_type,
    )  # fmt: skip


def train_step(
    run: Run,
    texts: Tensor,
    recipe: LanguageRecipe,
    step: int,
    at_once: int = 0,
    before_each: Callable[[], None] = silent,
) -> None:
    """Update the weights once, unless loss or gradient is not finite; `step` is for the message."""
    (take,), mean = run.losses, 0.0

    def loss(part: Tensor) -> Tensor:
        before_each()  # part of the texts
        with autocast(texts.device, recipe.precision):
            found: Tensor = take(part)
        return found

    run.optimizer.zero_grad(set_to_none=True)
    for part in in_parts(texts, at_once, loss):
        part.backward()  # type: ignore[no-untyped-call]
        mean += float(part.detach())
    mean, gradient = run.group.mean(mean), clip_gradient(run.model, recipe.clip)
    check_step(mean, gradient, f"is no longer finite at step {step + 1}", recipe.learning_rate)
    run.optimizer.step()
    count = texts[:, 1:].numel() * run.group.world
    run.sums += torch.tensor([mean * count, count], dtype=torch.float64)


@torch.no_grad()
def held_out_loss(run: Run, tokens: Tensor, n_ctx: int) -> float:
    """Return the mean cross-entropy of tokens in texts of n_ctx, in float32, nats per token."""
    (loss,), group, was_training = run.losses, run.group, run.model.training
    run.model.eval()
    texts = measured_texts(tokens, n_ctx)
    parts = torch.split(texts, max(1, EVALUATION_TOKENS // n_ctx))
    total = 0.0
    for first in range(0, len(parts), group.world):  # all take part, one or another in vain
        number = first + group.rank
        part = parts[min(number, len(parts) - 1)]
        found = float(loss(part.to(group.device))) * part[:, 1:].numel()
        total += found * (number < len(parts))
    run.model.train(was_training)
    return group.mean(total) * group.world / texts[:, 1:].numel()


@dataclass(frozen=True)
class PenalisedLoss:
    """The cross-entropy of the next token, whose gradient is that of a penalised loss.

    Math: with f(S) the logit of the true next token at a position when only those before it in S
        hold a token, f(all) − f(S) − f(all ∖ S) + f(∅) is the sum of all its interactions of three
        tokens or more that have earlier ones on both sides: zero where pairs explain everything.
        Texts and S are drawn, and the mean of squares times `weight` is added.
    """

    model: PolynomialTransformer
    weight: float
    seed: int

    def __call__(self, texts: Tensor) -> Tensor:
        """Compute the cross-entropy of texts, (batch, tokens + 1)."""
        drawn = self.draw(texts) if torch.is_grad_enabled() else {}
        if not drawn:  # in an evaluation, too
            return self.model.next_token_loss(texts)
        rows, apart = [*drawn], torch.stack([*drawn.values()]).to(texts.device)
        x, high = split_by_order(self.model, texts[:, :-1], rows, apart)
        head, then = self.model.unembed.weight, texts[:, 1:].long()
        loss = mean_cross_entropy(x.flatten(0, 1), head, then.flatten())
        squares = (high * (head[then[rows]] - head.mean(dim=0))).sum(dim=-1).square()
        penalty = self.weight / PENALISED * squares.sum() / then.numel()
        return loss + (penalty - penalty.detach())

    def draw(self, texts: Tensor) -> dict[int, Tensor]:
        """Draw which texts are penalised, and which positions of each are set apart.

        Each text has a stream of its own: what is drawn is the same however a batch is divided,
        and in a run that is resumed.
        """
        drawn = {}
        for row, text in enumerate(texts.tolist()):
            numbers = torch.rand(len(text), generator=stream(self.seed, NOISE, *text))
            if numbers[-1] < PENALISED:
                drawn[row] = numbers[:-1] < APART
        return drawn


def split_by_order(
    model: PolynomialTransformer, tokens: Tensor, rows: list[int], apart: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what the head reads of texts, and what of it has earlier tokens on both sides.

    Args:
        model: all runs are one call of its parts.
        tokens: (batch, tokens).
        rows: the texts that are split.
        apart: (rows, tokens), which positions are on one side.
    """
    few, nothing = tokens[rows], torch.zeros_like(apart)
    everything = torch.ones_like(tokens, dtype=torch.bool)
    read = torch.cat([everything, apart, ~apart, nothing])
    x = model.final_scale(model.stream(torch.cat([tokens, few, few, few]), read))
    one_side, other_side, alone = x[len(tokens) :].chunk(3)
    return x[: len(tokens)], x[rows] - one_side - other_side + alone
