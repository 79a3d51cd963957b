"""The training loop of sparse autoencoders: several at once, on one stream of activations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.rows import geometric_median
from bilens.base.checks import check_memory
from bilens.base.errors import NumericalError, UsageError
from bilens.nn.sparse_product import chosen_pre_activations, code_times
from bilens.nn.topk_sae import TopKSAE
from bilens.train.activations import ActivationBuffer
from bilens.train.job import TrainingRun
from bilens.train.randomness import INITIALISATION, stream
from bilens.train.sae.recipe import SAERecipe
from bilens.train.schedule import learning_rate

CLIP = 1.0  # greatest norm of the gradient of one autoencoder in a step
MEDIAN_ROWS = 8192  # that the start of decoder_bias is the geometric median of
ERROR, VARIANCE, ACTIVE, ROWS = range(4)  # columns of `TrainingRun.sums`, a row an autoencoder

Run: TypeAlias = TrainingRun[nn.ModuleList]  # extra: rows since each latent was last kept


class Activations(Protocol):
    """Where the activations come from: `ActivationStream`, or a substitute in a study."""

    hooks: tuple[str, ...]
    rows: int  # of a buffer

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, always the same one."""


@dataclass(frozen=True)
class SAELine:
    """One line of the history: a buffer of activations.

    Attributes:
        epoch: number of the buffer, from 1.
        step: updates so far.
        tokens: activations trained on so far.
        learning_rate: of the last step.
        fvu: hook point → fraction of variance unexplained, over the steps of this buffer.
        l0: hook point → mean number of latents above zero (with sign "raw": other than zero).
        dead: hook point → share of latents that were not kept for the last `dead_after` tokens, or
            not at all where there were fewer.
        tokens_per_second: through model and autoencoders, while this buffer was used.
        seconds: wall time of it.
    """

    epoch: int
    step: int
    tokens: int
    learning_rate: float
    fvu: Mapping[str, float]
    l0: Mapping[str, float]
    dead: Mapping[str, float]
    tokens_per_second: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


def start_run(recipe: SAERecipe, activations: Activations) -> Run:
    """Return a run at its beginning.

    The decoder is random unit rows, the encoder the same rows; `scale` brings the first buffer to
    a mean squared norm of d_in, and `decoder_bias` is its geometric median.

    Raises:
        NumericalError: If the activations at a hook point are all zero, or all equal.
        UsageError: If k is not below the number of latents.
        MemoryLimitError: If weights, gradients and moments would not fit.
    """
    first = activations.buffer(0)
    saes, extra = nn.ModuleList(), {}
    for index, hook in enumerate(activations.hooks):
        rows = first.activations[hook]
        d_in = rows.shape[1]
        num_latents = recipe.latents_for(d_in)
        weights = 2 * d_in * num_latents
        check_memory(4 * 4 * weights, f"training {weights} weights", "choose fewer latents")
        with torch.random.fork_rng(devices=[]):  # modules draw from the global generator
            torch.random.manual_seed(stream(recipe.seed, INITIALISATION, index).initial_seed())
            sae = TopKSAE(d_in, num_latents, recipe.k, sign=recipe.sign).to(rows.device)
        set_scale(sae, hook, rows)
        some = rows[first.order[:MEDIAN_ROWS]]
        with torch.no_grad():
            sae.decoder_bias.copy_(geometric_median(some * sae.scale))
        saes.append(sae)
        extra[f"idle.{index}"] = torch.zeros(num_latents, dtype=torch.float64, device=rows.device)
    optimizer = torch.optim.Adam(saes.parameters(), lr=recipe.learning_rate, fused=True)
    sums = torch.zeros(len(saes), 4, dtype=torch.float64)
    return TrainingRun(saes, optimizer, 0, 0, sums, 0.0, extra)


def set_scale(sae: TopKSAE, hook: str, rows: Tensor) -> None:
    """Set the scale that brings activations to a mean squared norm of d_in.

    Raises:
        NumericalError: If they are all zero, or all equal.
    """
    wide = rows.double()
    mean_square = float(wide.square().sum(dim=1).mean())
    if mean_square == 0 or not bool((rows != rows[0]).any()):
        what = "zero" if mean_square == 0 else "equal"
        raise NumericalError(
            f"the {len(rows)} activations at {hook} are all {what}, so there is nothing to learn "
            "from them: choose another hook point, or train the model first."
        )
    sae.scale.fill_(math.sqrt(sae.d_in / mean_square))


def num_buffers(recipe: SAERecipe, activations: Activations) -> int:
    """Return how many buffers a run uses."""
    return math.ceil(recipe.tokens / (steps_per_buffer(recipe, activations) * recipe.batch_size))


def steps_per_buffer(recipe: SAERecipe, activations: Activations) -> int:
    """Return the number of whole batches in a buffer.

    Raises:
        UsageError: If there is not one whole batch.
    """
    steps = activations.rows // recipe.batch_size
    if steps == 0:
        raise UsageError(
            f"batch_size is {recipe.batch_size}, but a buffer holds {activations.rows} activations "
            "and only whole batches are used: choose a smaller batch, a larger buffer or more text."
        )
    return steps


def train(
    run: Run, activations: Activations, recipe: SAERecipe, after_step: Callable[[Run], None]
) -> Iterator[SAELine]:
    """Continue a run to the end of its recipe; yields a line for each buffer.

    Deterministic for a seed at a fixed number of threads, wherever the run was interrupted.

    Args:
        run: changed in place.
        activations: with the hook points of the recipe.
        recipe: how to train.
        after_step: called after each step; what it raises ends the run in a consistent state.

    Raises:
        NumericalError: If a loss or a gradient is no longer finite; weights are those before it.
        UsageError: If a buffer holds less than one batch.
    """
    steps = steps_per_buffer(recipe, activations)
    buffers = num_buffers(recipe, activations)

    def rate(step: int) -> float:
        return learning_rate(
            recipe.learning_rate, recipe.schedule, recipe.warmup, step, buffers * steps
        )

    while run.epoch < buffers:
        began = time.perf_counter()
        buffer = activations.buffer(run.epoch)
        run.model.train()
        while run.step < steps:
            done = run.epoch * steps + run.step
            for group in run.optimizer.param_groups:
                group["lr"] = rate(done)
            _step(run, activations.hooks, buffer, recipe, done)
            run.seconds += time.perf_counter() - began
            after_step(run)
            began = time.perf_counter()
        last = rate((run.epoch + 1) * steps - 1)
        yield _finish_buffer(run, activations.hooks, recipe, last)


def _step(
    run: Run, hooks: tuple[str, ...], buffer: ActivationBuffer, recipe: SAERecipe, done: int
) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    sums, kept = [], []
    for index, (hook, sae) in enumerate(zip(hooks, run.model, strict=True)):
        assert isinstance(sae, TopKSAE), "built in start_run"
        x = buffer.batch(hook, run.step, recipe.batch_size)
        dead = run.extra[f"idle.{index}"] >= recipe.dead_after
        variance = buffer.variances[hook]
        loss, found, latents = losses(sae, x, variance, dead, recipe.auxiliary)
        loss.backward()  # type: ignore[no-untyped-call]
        assert sae.decoder.grad is not None, "every loss depends on the decoder"
        remove_parallel(sae.decoder.grad, sae.decoder.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(sae.parameters(), CLIP))
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(norm):
            raise NumericalError(
                f"the loss at {hook} is no longer finite at step {done + 1} (loss {value:g}, "
                f"gradient {norm:g}): lower the learning rate (it is {recipe.learning_rate:g})."
            )
        sums.append(found)
        kept.append(latents)
    run.optimizer.step()
    for index, (sae, latents) in enumerate(zip(run.model, kept, strict=True)):
        assert isinstance(sae, TopKSAE), "built in start_run"
        sae.normalise_decoder()
        idle = run.extra[f"idle.{index}"]
        idle += recipe.batch_size
        idle[latents] = 0
    run.sums += torch.stack(sums)
    run.step += 1


def losses(
    sae: TopKSAE, x: Tensor, variance: float, dead: Tensor, auxiliary: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of a batch, what it adds to the sums, and which latents were kept.

    Math: mean of ‖x̂ − x‖² / variance + auxiliary · (how badly the dead explain what is left)

    Args:
        sae: the autoencoder.
        x: (rows, d_in).
        variance: mean of ‖x − mean‖² over the buffer of the batch.
        dead: (num_latents,), True at dead latents.
        auxiliary: weight of the second term.
    """
    latents = sae.top(x)
    error = sae.decode_top(latents) - x
    squared, spread = error.square().sum(), len(x) * variance
    loss = squared / spread
    if auxiliary > 0 and bool(dead.any()):
        left_over = -(error * sae.scale).detach()
        loss = loss + auxiliary * auxiliary_loss(sae, x, left_over, dead)
    active = latents.values.detach() != 0
    found = [float(squared.detach()), spread, float(active.sum()), len(x)]
    return loss, torch.tensor(found, dtype=torch.float64), latents.indices[active]


def auxiliary_loss(sae: TopKSAE, x: Tensor, left_over: Tensor, dead: Tensor) -> Tensor:
    """Return how badly dead latents alone explain what the kept ones leave over.

    Up to d_in / 2 dead latents an input, those with the largest pre-activations. With fewer dead
    ones in all, the loss counts for less.

    Args:
        sae: the autoencoder.
        x: (rows, d_in).
        left_over: (rows, d_in), scale · (x − x̂), a constant.
        dead: (num_latents,), True at dead latents, at least one.

    Source: arXiv:2406.04093, App. A.2.
    """
    places = dead.nonzero().squeeze(1)
    most = max(sae.d_in // 2, 1)
    encoder, bias, decoder = sae.encoder[places], sae.encoder_bias[places], sae.decoder[places]
    centred = sae.centred(x)
    if len(places) > most:
        values, indices = chosen_pre_activations(centred, encoder, bias, most)
        values = functional.relu(values) if sae.sign == "relu" else values
        explained = code_times(values, indices, decoder)
    else:
        values = functional.linear(centred, encoder, bias)
        explained = (functional.relu(values) if sae.sign == "relu" else values) @ decoder
    share = min(1.0, len(places) / most)
    rest = left_over.square().sum().clamp(min=torch.finfo(left_over.dtype).tiny)
    return share * (explained - left_over).square().sum() / rest


def remove_parallel(grad: Tensor, rows: Tensor) -> None:
    """Take out of a gradient, in place, what would only change the length of unit rows."""
    grad -= (grad * rows).sum(dim=1, keepdim=True) * rows


def _finish_buffer(run: Run, hooks: tuple[str, ...], recipe: SAERecipe, rate: float) -> SAELine:
    sums = dict(zip(hooks, run.sums.tolist(), strict=True))
    count = run.sums[0, ROWS].item()
    step = (run.epoch + 1) * run.step
    tokens = step * recipe.batch_size
    idle = min(recipe.dead_after, tokens)
    dead = [run.extra[f"idle.{index}"] >= idle for index in range(len(hooks))]
    line = SAELine(
        epoch=run.epoch + 1,
        step=step,
        tokens=tokens,
        learning_rate=rate,
        fvu={hook: found[ERROR] / found[VARIANCE] for hook, found in sums.items()},
        l0={hook: found[ACTIVE] / found[ROWS] for hook, found in sums.items()},
        dead={hook: float(d.double().mean()) for hook, d in zip(hooks, dead, strict=True)},
        tokens_per_second=count / run.seconds,
        seconds=run.seconds,
    )
    run.epoch, run.step, run.seconds = run.epoch + 1, 0, 0.0
    run.sums = torch.zeros_like(run.sums)
    return line
