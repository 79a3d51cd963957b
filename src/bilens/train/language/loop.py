"""The training loop of language models: AdamW with warm-up, clipping, held-out loss on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bilens.base.checks import check_memory
from bilens.base.errors import NumericalError
from bilens.nn.block import Block
from bilens.nn.transformer import BilinearTransformer
from bilens.train.job import TrainingRun
from bilens.train.language.recipe import CPU, LanguageRecipe
from bilens.train.language.tokens import Batches, CorpusTokens, windows
from bilens.train.noise import disturbed
from bilens.train.randomness import INITIALISATION, stream
from bilens.train.schedule import learning_rate

BETAS = (0.9, 0.95)  # the second one is shorter than AdamW's own: runs of few steps
EVALUATION_TOKENS = 8192  # a batch of the evaluation

Run: TypeAlias = TrainingRun[BilinearTransformer]  # sums: loss × tokens, tokens


@dataclass(frozen=True)
class LanguageMetrics:
    """One line of the history: what lies between two measurements of the held-out loss.

    Attributes:
        epoch: number of the line, from 1.
        step: updates so far.
        tokens: predictions trained on so far.
        learning_rate: of the last step.
        train_loss: mean cross-entropy over the steps since the last line, nats per token.
        held_out_loss: mean cross-entropy on the held-out documents, nats per token.
        held_out_bits_per_byte: the same in bits per byte of their text.
        tokens_per_second: of the steps since the last line.
        seconds: wall time of these steps, evaluation excluded.
    """

    epoch: int
    step: int
    tokens: int
    learning_rate: float
    train_loss: float
    held_out_loss: float
    held_out_bits_per_byte: float
    tokens_per_second: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


def start_run(recipe: LanguageRecipe, vocab_size: int, device: torch.device = CPU) -> Run:
    """Return a run at its beginning, with weights drawn from the seed of the recipe.

    Raises:
        UsageError: If the sizes do not fit each other.
        MemoryLimitError: If weights, gradients and moments would not fit.
    """
    block = 4 * recipe.d_model**2 + 3 * recipe.d_model * recipe.d_hidden
    weights = recipe.n_layer * block + (2 - recipe.tied) * vocab_size * recipe.d_model
    check_memory(4 * 4 * weights, f"training {weights} weights", "choose a smaller model")
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator
        torch.random.manual_seed(stream(recipe.seed, INITIALISATION).initial_seed())
        model = BilinearTransformer(
            vocab_size,
            recipe.d_model,
            recipe.d_hidden,
            recipe.n_layer,
            recipe.n_head,
            recipe.n_ctx,
            recipe.gate,
            tied=recipe.tied,
            mlp_type=recipe.mlp_type,
        ).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=BETAS,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    return TrainingRun(model, optimizer, 0, 0, torch.zeros(2, dtype=torch.float64), 0.0)


def first_step(line: int, total_steps: int, evaluations: int) -> int:
    """Return the first step of a line of the history, counted from 0; lines are evenly long."""
    return line * total_steps // evaluations


def num_lines(total_steps: int, evaluations: int) -> int:
    """Return how many lines a history has: not more than there are steps."""
    return min(evaluations, total_steps)


def train(
    run: Run, data: CorpusTokens, recipe: LanguageRecipe, after_step: Callable[[Run], None]
) -> Iterator[LanguageMetrics]:
    """Continue a run to the end of its recipe; yields the metrics of each line of the history.

    Deterministic for a seed at a fixed number of threads, wherever the run was interrupted.

    Args:
        run: changed in place.
        data: tokens of the corpus.
        recipe: with `precision` resolved.
        after_step: called after each step; what it raises ends the run in a consistent state.

    Raises:
        NumericalError: If a loss or a gradient is no longer finite; weights are those before it.
        UsageError: If the corpus holds less than one batch.
    """
    batches = Batches(data.train, recipe)
    total = batches.total_steps
    lines = num_lines(total, recipe.evaluations)
    modules: list[nn.Module] = [run.model.embed]
    for block in run.model.blocks:
        assert isinstance(block, Block), "built by the model"
        modules += [block.attention, block.mlp]
    with disturbed(modules, 0.0, recipe.dropout) as disturb:
        while run.epoch < lines:
            first = first_step(run.epoch, total, lines)
            number_of_steps = first_step(run.epoch + 1, total, lines) - first
            run.model.train()
            while run.step < number_of_steps:
                began = time.perf_counter()
                step = first + run.step
                for group in run.optimizer.param_groups:
                    group["lr"] = rate_at(recipe, step, total)
                disturb.start_step(recipe.seed, 0, step)
                texts = batches.batch(step).to(run.model.embed.weight.device)
                train_step(run, texts, recipe, step)
                run.seconds += time.perf_counter() - began
                after_step(run)
            yield _finish_line(run, data, recipe, first + number_of_steps, total)


def rate_at(recipe: LanguageRecipe, step: int, total: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    return learning_rate(recipe.learning_rate, recipe.schedule, recipe.warmup, step, total)


def train_step(run: Run, texts: Tensor, recipe: LanguageRecipe, step: int) -> None:
    """Update the weights once; `step` is for the message.

    Raises:
        NumericalError: If loss or gradient is not finite; nothing is updated then.
    """
    loss = mean_loss(run.model, texts, recipe.precision == "bfloat16")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip))
    value = float(loss.detach())
    if not math.isfinite(value) or not math.isfinite(norm):
        raise NumericalError(
            f"the loss is no longer finite at step {step + 1} (loss {value:g}, gradient "
            f"{norm:g}): lower the learning rate (it is {recipe.learning_rate:g})."
        )
    run.optimizer.step()
    count = texts[:, 1:].numel()
    run.sums += torch.tensor([value * count, count], dtype=torch.float64)
    run.step += 1


def mean_loss(model: BilinearTransformer, texts: Tensor, half: bool = False) -> Tensor:
    """Return the mean cross-entropy of texts[:, 1:] given texts[:, :-1], in nats per token."""
    with torch.autocast(texts.device.type, torch.bfloat16, enabled=half):
        return model.next_token_loss(texts)


@torch.no_grad()
def held_out_loss(model: BilinearTransformer, tokens: Tensor, n_ctx: int) -> float:
    """Return the mean cross-entropy of tokens in texts of n_ctx, in float32, nats per token.

    A prediction looks back on the tokens before it in its text alone.
    """
    was_training = model.training
    model.eval()
    texts = windows(tokens, n_ctx)
    total = 0.0
    for part in torch.split(texts, max(1, EVALUATION_TOKENS // n_ctx)):
        loss = mean_loss(model, part.to(model.embed.weight.device))
        total += float(loss) * part[:, 1:].numel()
    model.train(was_training)
    return total / texts[:, 1:].numel()


def _finish_line(
    run: Run, data: CorpusTokens, recipe: LanguageRecipe, step: int, total: int
) -> LanguageMetrics:
    loss, count = run.sums.tolist()
    held_out = held_out_loss(run.model, data.held_out, recipe.n_ctx)
    if not math.isfinite(held_out):
        raise NumericalError(
            f"the held-out loss is no longer finite after step {step}: lower the learning rate "
            f"(it is {recipe.learning_rate:g})."
        )
    metrics = LanguageMetrics(
        epoch=run.epoch + 1,
        step=step,
        tokens=step * recipe.batch_size * recipe.n_ctx,
        learning_rate=rate_at(recipe, step - 1, total),
        train_loss=loss / count,
        held_out_loss=held_out,
        held_out_bits_per_byte=data.bits_per_byte(held_out),
        tokens_per_second=count / run.seconds,
        seconds=run.seconds,
    )
    run.epoch, run.step, run.seconds = run.epoch + 1, 0, 0.0
    run.sums = torch.zeros_like(run.sums)
    return metrics
