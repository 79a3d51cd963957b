"""The training loop: minibatches indexed from tensors in memory, AdamW, cosine schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.checks import check_memory
from bilens.base.errors import NumericalError, UsageError
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.train.job import TrainingRun
from bilens.train.noise import ActivationNoise, NoisePool, activation_noise
from bilens.train.randomness import INITIALISATION, ORDER, STEP, stream
from bilens.train.recipe import Recipe

EVALUATION_BATCH = 8192


@dataclass(frozen=True)
class EpochMetrics:
    """One line of the history.

    Attributes:
        epoch: counted from 1.
        learning_rate: of this epoch.
        train_loss: mean cross-entropy over the steps, on the disturbed inputs, in nats.
        train_accuracy: share of right answers over the steps, on the disturbed inputs.
        test_accuracy: share of right answers on the clean test set.
        seconds: wall time of the steps of this epoch, evaluation excluded.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return asdict(self)


Run: TypeAlias = TrainingRun[BilinearClassifier]  # sums: loss, right answers, images


def start_run(recipe: Recipe, d_input: int, d_output: int) -> Run:
    """Return a run at its beginning, with weights drawn from the seed of the recipe.

    Raises:
        MemoryLimitError: If weights, gradients and moments would not fit.
    """
    layers = 2 * recipe.n_layers * recipe.d_hidden
    weights = recipe.d_hidden * (d_input + layers + d_output)
    check_memory(4 * 4 * weights, f"training {weights} weights", "choose a smaller model")
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator
        torch.random.manual_seed(stream(recipe.seed, INITIALISATION).initial_seed())
        model = BilinearClassifier(
            d_input,
            recipe.d_hidden,
            d_output,
            n_layers=recipe.n_layers,
            bias=recipe.bias,
            residual=recipe.residual,
            gate=recipe.gate,
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    return Run(model, optimizer, 0, 0, torch.zeros(3, dtype=torch.float64), 0.0)


def steps_per_epoch(recipe: Recipe, num_images: int) -> int:
    """Return the number of whole batches in an epoch.

    Raises:
        UsageError: If there is not one whole batch.
    """
    steps = num_images // recipe.batch_size
    if steps == 0:
        raise UsageError(
            f"batch_size is {recipe.batch_size}, but there are {num_images} training images and "
            "only whole batches are used: choose a smaller batch size."
        )
    return steps


def train(
    run: Run, data: ImageDataset, recipe: Recipe, after_step: Callable[[Run], None]
) -> Iterator[EpochMetrics]:
    """Continue a run to the end of its recipe; yields the metrics of each epoch.

    Deterministic for a seed at a fixed number of threads, wherever the run was interrupted.

    Args:
        run: changed in place.
        data: the images.
        recipe: with `precision` resolved.
        after_step: called after each step; what it raises ends the run in a consistent state.

    Raises:
        NumericalError: If the loss is no longer finite.
        UsageError: If the training set holds less than one batch.
    """
    steps = steps_per_epoch(recipe, len(data.train_images))
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    images = data.train_images.to(dtype)
    with activation_noise(run.model, recipe.model_noise, recipe.dropout) as disturb:
        while run.epoch < recipe.epochs:
            rate = cosine(recipe, run.epoch)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            epoch = _Epoch(data, images, recipe, run.epoch)
            run.model.train()
            while run.step < steps:
                began = time.perf_counter()
                _step(run, epoch, disturb)
                run.seconds += time.perf_counter() - began
                after_step(run)
            yield _finish_epoch(run, data, rate)


def cosine(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch: the recipe's, times ½(1 + cos(π · epoch / epochs))."""
    return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


class _Epoch:
    """The batches of one epoch: each is a function of the seed, the epoch and the step alone."""

    def __init__(self, data: ImageDataset, images: Tensor, recipe: Recipe, index: int) -> None:
        self.images, self.labels, self.shape = images, data.train_labels, data.image_shape
        self.recipe, self.index = recipe, index
        self.augmentations = recipe.parsed_augmentations()
        self.order = torch.randperm(len(images), generator=stream(recipe.seed, ORDER, index))
        batch_shape = (recipe.batch_size, images.shape[1])
        self.pool = (
            NoisePool.draw(recipe.noise, batch_shape, images.dtype, recipe.seed, index)
            if recipe.noise > 0
            else None
        )

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return disturbed images and their labels."""
        generator = stream(self.recipe.seed, STEP, self.index, step, 0)
        size = self.recipe.batch_size
        chosen = self.order[step * size : (step + 1) * size]
        x = self.images[chosen]
        for augment in self.augmentations:
            x = augment(x, self.shape, generator)
        if self.pool is not None:
            x = x + self.pool.batch(generator)
        return x, self.labels[chosen]


def _step(run: Run, epoch: _Epoch, disturb: ActivationNoise) -> None:
    recipe = epoch.recipe
    x, y = epoch.batch(run.step)
    disturb.start_step(recipe.seed, epoch.index, run.step)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = run.model(x)
    loss = functional.cross_entropy(logits.float(), y)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    with torch.no_grad():  # summed on tensors: reading a number out would wait for it each step
        right = (logits.argmax(dim=1) == y).sum()
        run.sums += torch.stack([loss.double() * len(y), right.double(), torch.tensor(len(y))])
    run.step += 1


def _finish_epoch(run: Run, data: ImageDataset, rate: float) -> EpochMetrics:
    loss, right, count = run.sums.tolist()
    if not math.isfinite(loss):
        raise NumericalError(
            f"the loss is no longer finite in epoch {run.epoch + 1}: lower the learning rate "
            f"(it is {rate:g}) or the noise."
        )
    metrics = EpochMetrics(
        run.epoch + 1,
        rate,
        loss / count,
        right / count,
        accuracy(run.model, data.test_images, data.test_labels),
        run.seconds,
    )
    run.epoch, run.step, run.seconds = run.epoch + 1, 0, 0.0
    run.sums = torch.zeros_like(run.sums)
    return metrics


@torch.no_grad()
def accuracy(model: BilinearClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers, in float32 and without any noise."""
    was_training = model.training
    model.eval()
    right = 0
    for start in range(0, len(images), EVALUATION_BATCH):
        logits = model(images[start : start + EVALUATION_BATCH])
        right += int((logits.argmax(dim=1) == labels[start : start + EVALUATION_BATCH]).sum())
    model.train(was_training)
    return right / len(labels)
