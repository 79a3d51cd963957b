"""Training sparse autoencoders: several at once, on one stream of activations."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.gaussian import geometric_median
from bilens.base.checks import check_float_tensor
from bilens.base.errors import NumericalError, ShapeError, UsageError
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn.sparse_autoencoder import code_times
from bilens.nn.topk_sae import TopKSAE, chosen_pre_activations
from bilens.nn.transformer import BilinearTransformer
from bilens.train.activations import ActivationBuffer, ActivationStream, HookMetrics, measure_sae
from bilens.train.device import device_of
from bilens.train.loop import (
    Line,
    TrainingRun,
    TrainingTask,
    check_step,
    check_training_memory,
    clip_gradient,
    learning_rate,
)
from bilens.train.processes import ALONE, Processes
from bilens.train.randomness import ORDER, seeded_initialisation, stream
from bilens.train.recipes import SAERecipe as SAERecipe

CLIP = 1.0  # greatest norm of the gradient of one autoencoder in a step
MEDIAN_ROWS = 8192  # that the start of decoder_bias is the geometric median of
ERROR, VARIANCE, ACTIVE, ROWS = range(4)  # columns of `TrainingRun.sums`, a row an autoencoder

Run: TypeAlias = TrainingRun[nn.ModuleList]  # extra: rows since each latent was last kept
ACTIVATIONS = "activations"  # in the place of a hook point


class Activations(Protocol):
    """Where the activations come from: `ActivationStream`, or a substitute in a study."""

    hooks: tuple[str, ...]
    rows: int  # of a buffer

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, always the same one."""


@dataclass(frozen=True, eq=False)
class ReadModel:
    """The language model whose activations are learnt, and the texts it reads."""

    model: BilinearTransformer
    source: str
    weights_sha256: str  # by which an autoencoder knows its model
    texts: Tensor  # (num_texts, n_ctx) tokens to train on
    held_out: Tensor
    corpus: str  # what the texts are, one plain sentence

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.weights_sha256.encode())
        for texts in (self.texts, self.held_out):
            digest.update(f"{tuple(texts.shape)}".encode())
            digest.update(texts.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class SAELine(Line):
    """One line of the history: a buffer of activations. Mappings are from hook points."""

    epoch: int  # number of the buffer, from 1
    step: int  # updates so far
    tokens: int  # activations trained on so far
    learning_rate: float  # of the last step
    fvu: Mapping[str, float]  # fraction of variance unexplained, over the steps of this buffer
    l0: Mapping[str, float]  # mean number of latents other than zero
    dead: Mapping[str, float]  # share of latents not kept for the last `dead_after` tokens, or ever
    tokens_per_second: float  # through model and autoencoders, while this buffer was used
    seconds: float  # wall time of it


class SAESteps(TrainingTask[nn.ModuleList, SAELine]):
    """One autoencoder for each hook point, on any source of activations."""

    data_noun, epoch_noun = "activations", "buffer"
    line_type = SAELine

    def __init__(
        self, recipe: SAERecipe, activations: Activations, group: Processes = ALONE
    ) -> None:
        group.check_shares(recipe.batch_size)
        self.recipe, self.activations, self.group = recipe, activations, group
        self.steps = activations.rows // recipe.batch_size
        if self.steps == 0:
            raise UsageError(
                f"batch_size is {recipe.batch_size}, but a buffer holds {activations.rows} "
                "activations and only whole batches are used: choose a smaller batch, a larger "
                "buffer or more text."
            )
        self.epochs = math.ceil(recipe.tokens / (self.steps * recipe.batch_size))

    def start(self) -> Run:
        recipe, first = self.recipe, self.activations.buffer(0)
        saes, extra = nn.ModuleList(), {}
        for index, hook in enumerate(self.activations.hooks):
            rows = first.activations[hook]
            d_in = rows.shape[1]
            num_latents = recipe.latents_for(d_in)
            check_training_memory(2 * d_in * num_latents, "choose fewer latents", rows.device)
            with seeded_initialisation(recipe.seed, index):
                sae = TopKSAE(d_in, num_latents, recipe.k, sign=recipe.sign).to(rows.device)
            mean_square = float(rows.double().square().sum(dim=1).mean())
            if mean_square == 0 or not bool((rows != rows[0]).any()):
                what = "zero" if mean_square == 0 else "equal"
                raise NumericalError(
                    f"the {len(rows)} activations at {hook} are all {what}, so there is nothing to "
                    "learn from them: choose another hook point, or train the model first."
                )
            sae.scale.fill_(math.sqrt(d_in / mean_square))
            some = rows[first.order[:MEDIAN_ROWS]]
            with torch.no_grad():
                sae.decoder_bias.copy_(geometric_median(some * sae.scale))
            saes.append(sae)
            extra[f"idle.{index}"] = torch.zeros_like(sae.encoder_bias, dtype=torch.float64)
        group, blank = self.group, self.group.blank(saes)
        taken = [group.learner(sae, partial(losses, sae, group=group)) for sae in saes]  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(saes.parameters(), lr=recipe.learning_rate, fused=True)
        sums = torch.zeros(len(saes), 4, dtype=torch.float64)
        return Run(saes, optimizer, sums, extra=extra, group=group, losses=taken, blank=blank)

    def learning_rate(self, epoch: int, step: int) -> float:
        r, done, total = self.recipe, epoch * self.steps + step, self.epochs * self.steps
        return learning_rate(r.learning_rate, r.schedule, r.warmup, done, total)

    def prepare_epoch(self, run: Run) -> ActivationBuffer:
        return self.activations.buffer(run.epoch)

    def take_step(self, run: Run, buffer: ActivationBuffer) -> None:
        recipe, group = self.recipe, self.group
        run.optimizer.zero_grad(set_to_none=True)
        where = f"is no longer finite at step {run.epoch * self.steps + run.step + 1}"
        sums, kept, hooks = [], [], self.activations.hooks
        for index, (hook, sae, take) in enumerate(
            zip(hooks, members(run), run.losses, strict=True)
        ):
            x = group.share(buffer.batch(hook, run.step, recipe.batch_size))
            dead = run.extra[f"idle.{index}"] >= recipe.dead_after
            loss, found, latents = take(x, buffer.variances[hook], dead, recipe.auxiliary)
            loss.backward()
            assert sae.decoder.grad is not None, "every loss depends on the decoder"
            remove_parallel(sae.decoder.grad, sae.decoder.detach())
            gradient, mean = clip_gradient(sae, CLIP), group.mean(float(loss.detach()))
            check_step(mean, gradient, f"at {hook} {where}", recipe.learning_rate)
            sums.append(found)
            kept.append(
                group.total(torch.zeros_like(dead, dtype=torch.int32).index_fill_(0, latents, 1))
            )
        run.optimizer.step()
        for index, (sae, latents) in enumerate(zip(members(run), kept, strict=True)):
            sae.normalise_decoder()
            idle = run.extra[f"idle.{index}"]
            idle += recipe.batch_size
            idle[latents > 0] = 0
        run.sums += group.total(torch.stack(sums))

    def metrics(self, run: Run, rate: float) -> SAELine:
        hooks = self.activations.hooks
        sums = dict(zip(hooks, run.sums.tolist(), strict=True))
        step = (run.epoch + 1) * self.steps
        tokens = step * self.recipe.batch_size
        least = min(self.recipe.dead_after, tokens)
        dead = [run.extra[f"idle.{index}"] >= least for index in range(len(hooks))]
        return SAELine(
            epoch=run.epoch + 1,
            step=step,
            tokens=tokens,
            learning_rate=rate,
            fvu={hook: found[ERROR] / found[VARIANCE] for hook, found in sums.items()},
            l0={hook: found[ACTIVE] / found[ROWS] for hook, found in sums.items()},
            dead={hook: float(d.double().mean()) for hook, d in zip(hooks, dead, strict=True)},
            tokens_per_second=run.sums[0, ROWS].item() / run.seconds,
            seconds=run.seconds,
        )


class SAETask(SAESteps):
    """Autoencoders on the activations of a language model, in a run folder or below it."""

    def __init__(self, recipe: SAERecipe, read: ReadModel, group: Processes = ALONE) -> None:
        model, width, hooks = read.model, read.model.config.d_model, recipe.hooks
        stream = ActivationStream(model, read.texts, hooks, recipe.buffer_size, recipe.seed, group)
        TopKSAE(width, recipe.latents_for(width), recipe.k)  # its sizes are refused here
        super().__init__(recipe, stream, group)
        self.read, self.width = read, width
        self.about = {"recipe": recipe.to_dict(), "data": read.fingerprint()}

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        details = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "model": self.read.source,
            "model_sha256": self.read.weights_sha256,
            "data_source": self.read.corpus,
        }
        for hook, sae in zip(self.recipe.hooks, members(run), strict=True):
            sae.to(device_of(self.read.model))  # one that was divided comes back on the CPU
            metrics = measure_sae(self.read.model, sae, hook, self.read.held_out).to_dict()
            about = {**details, "hook": hook, "metrics": json.dumps(metrics), **provenance}
            save(sae.cpu(), self.folder_of(hook, folder), provenance=about, overwrite=True)

    def measured(self, folder: Path) -> dict[str, HookMetrics]:
        """Return the metrics that `save` left with each autoencoder, by hook point."""
        folders = {hook: self.folder_of(hook, folder) for hook in self.recipe.hooks}
        texts = {hook: load(each).provenance["metrics"] for hook, each in folders.items()}
        return {hook: msgspec.json.decode(text, type=HookMetrics) for hook, text in texts.items()}

    def folder_of(self, hook: str, folder: Path) -> Path:
        return folder if len(self.recipe.hooks) == 1 else folder / hook

    def finished(self, folder: Path) -> bool:
        folders = [self.folder_of(hook, folder) for hook in self.recipe.hooks]
        return all(super(SAETask, self).finished(each) for each in folders)


def members(run: Run) -> Iterator[TopKSAE]:
    for sae in run.model:
        assert isinstance(sae, TopKSAE), "built in start"
        yield sae


def losses(
    sae: TopKSAE,
    x: Tensor,
    variance: float,
    dead: Tensor,
    auxiliary: float,
    group: Processes = ALONE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of a batch, what it adds to the sums, and which latents were kept."""
    latents = sae.top(x)
    error = sae.decode_top(latents) - x
    squared, spread = error.square().sum(), len(x) * variance
    loss = squared / spread
    if auxiliary > 0 and bool(dead.any()):
        left_over = -(error * sae.scale).detach()
        loss = loss + auxiliary * auxiliary_loss(sae, x, left_over, dead, group)
    active = latents.values.detach() != 0
    found = [float(squared.detach()), spread, float(active.sum()), len(x)]
    return loss, torch.tensor(found, dtype=torch.float64), latents.indices[active]


def auxiliary_loss(
    sae: TopKSAE, x: Tensor, left_over: Tensor, dead: Tensor, group: Processes = ALONE
) -> Tensor:
    """Return how badly dead latents alone explain scale · (x − x̂), what the kept leave over."""
    indices = dead.nonzero().squeeze(1)
    most = max(sae.d_in // 2, 1)
    encoder, bias, decoder = sae.encoder[indices], sae.encoder_bias[indices], sae.decoder[indices]
    centred = sae.centred(x)
    if len(indices) > most:
        values, chosen = chosen_pre_activations(centred, encoder, bias, most)
        values = functional.relu(values) if sae.sign == "relu" else values
        explained = code_times(values, chosen, decoder)
    else:
        values = functional.linear(centred, encoder, bias)
        explained = (functional.relu(values) if sae.sign == "relu" else values) @ decoder
    share = min(1.0, len(indices) / most)
    rest = group.total(left_over.square().sum()) / group.world  # of the whole batch
    rest = rest.clamp(min=torch.finfo(left_over.dtype).tiny)
    return share * (explained - left_over).square().sum() / rest


def remove_parallel(grad: Tensor, rows: Tensor) -> None:
    """Take out of a gradient, in place, what would only change the length of unit rows."""
    grad -= (grad * rows).sum(dim=1, keepdim=True) * rows


class TensorActivations:
    """Rows of a tensor as buffers: parts of one shuffled order, a new one for each pass."""

    hooks: tuple[str, ...] = (ACTIVATIONS,)

    def __init__(self, rows: Tensor, size: int, seed: int) -> None:
        self.all, self.seed, self.rows = rows, seed, min(size, len(rows))

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, always the same one."""
        number, part = divmod(index, len(self.all) // self.rows)
        order = torch.randperm(len(self.all), generator=stream(self.seed, ORDER, number))
        chosen = order[part * self.rows :][: self.rows].to(self.all.device)
        return ActivationBuffer({ACTIVATIONS: self.all[chosen]}, torch.arange(self.rows))


class ActivationsTask(SAESteps):
    """One autoencoder on activations, in a run folder."""

    def __init__(self, recipe: SAERecipe, activations: Tensor, group: Processes) -> None:
        shape = check_float_tensor("activations", activations)
        if len(shape) != 2 or 0 in shape:
            raise ShapeError(f"activations have shape {shape}; expected (rows, width), none empty.")
        rows = activations.detach().to(group.device, torch.float32)
        super().__init__(recipe, TensorActivations(rows, recipe.buffer_size, recipe.seed), group)
        self.width = shape[1]
        self.sha256 = hashlib.sha256(rows.cpu().contiguous().numpy().tobytes()).hexdigest()
        self.about = {"recipe": recipe.to_dict(), "data": self.sha256}

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        """Write the autoencoder into the run folder."""
        about = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "data_source": "activations of the caller",
            "data_sha256": self.sha256,
        }
        (sae,) = members(run)
        save(sae.cpu(), folder, provenance={**about, **provenance}, overwrite=True)
