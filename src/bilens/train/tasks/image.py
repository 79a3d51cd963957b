"""Training image classifiers: minibatches indexed from tensors in memory, AdamW, cosine."""

import json
import math
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import NumericalError, UsageError
from bilens.data.images import ImageDataset
from bilens.io.model_folder import save
from bilens.nn import BilinearClassifier
from bilens.train.device import CPU, autocast, device_of
from bilens.train.loop import (
    Line,
    TrainingRun,
    TrainingTask,
    check_training_memory,
    learning_rate,
    train,
)
from bilens.train.randomness import (
    ORDER,
    STEP,
    ActivationNoise,
    NoisePool,
    seeded_initialisation,
    stream,
)
from bilens.train.recipes import ImageRecipe as ImageRecipe
from bilens.train.run_folder import TrainingResult, run_in_folder

EVALUATION_BATCH = 8192
AVERAGED = 3  # epoch t counts as t (t + 1) in the average of the weights

Run: TypeAlias = TrainingRun[BilinearClassifier]  # sums: loss, right answers, images
# reads weights; where "left", of what it returns, falls below zero, there is no more to be learnt
Watch: TypeAlias = Callable[[BilinearClassifier], dict[str, float]]


@dataclass(frozen=True)
class EpochMetrics(Line):
    """One line of the history; loss and accuracy of training are on the disturbed inputs."""

    epoch: int  # from 1
    learning_rate: float
    train_loss: float  # mean cross-entropy over the steps, nats
    train_accuracy: float
    test_accuracy: float  # on the clean test set
    seconds: float  # wall time of the steps
    weights: dict[str, float] | None = None  # what was read from them, if they were watched

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if value is not None}


class ImageTask(TrainingTask[BilinearClassifier, EpochMetrics]):
    """A classifier, from a recipe and images.

    `watch` reads the weights after each epoch. With `stop` the training ends where it says so, and
    the model is then the average of the weights after each epoch, later ones counting more.
    """

    data_noun = "images"
    line_type = EpochMetrics

    def __init__(
        self,
        data: ImageDataset,
        recipe: ImageRecipe,
        device: torch.device = CPU,
        *,
        watch: Watch | None = None,
        stop: bool = False,
    ) -> None:
        self.data, self.recipe, self.device = data, recipe.resolved(device), device
        self.epochs, self.watch, self.stop = recipe.epochs, watch, stop
        decides = self.recipe.to_dict() | {"stop": "weights" if stop else None}
        self.about = {"recipe": decides, "data": data.fingerprint}
        self.augmentations = recipe.parsed_augmentations()
        self.noise = ActivationNoise(recipe.model_noise, recipe.dropout)
        self.steps = len(data.train_images) // recipe.batch_size
        if self.steps == 0:
            raise UsageError(
                f"batch_size is {recipe.batch_size}, but there are {len(data.train_images)} "
                "training images and only whole batches are used: choose a smaller batch size."
            )
        dtype = torch.bfloat16 if self.recipe.precision == "bfloat16" else torch.float32
        self.images = data.train_images.to(device, dtype)
        self.labels = data.train_labels.to(device)

    def start(self) -> Run:
        recipe = self.recipe
        model = new_classifier(recipe, self.data).to(self.device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        run = Run(model, optimizer, torch.zeros(3, dtype=torch.float64, device=self.device))
        if self.stop:
            run.extra["left"] = torch.zeros(
                2, dtype=torch.float64
            )  # before the last epoch, after it
            run.extra |= {f"mean.{name}": x.clone() for name, x in model.state_dict().items()}
        return run

    def learning_rate(self, epoch: int, step: int) -> float:  # noqa: ARG002 - once an epoch
        return learning_rate(self.recipe.learning_rate, "cosine", 0.0, epoch, self.epochs)

    def disturbed(self, run: Run) -> AbstractContextManager[None]:
        return self.noise.added_to((run.model.embed, *run.model.layers))

    def prepare_epoch(self, run: Run) -> tuple[Tensor, NoisePool | None]:
        order, pools = self.drawn(run.epoch, {self.recipe.noise})
        return order, pools.get(self.recipe.noise)

    def drawn(self, epoch: int, noises: Set[float]) -> tuple[Tensor, dict[float, NoisePool]]:
        """Return the order of the images in an epoch, and what levels of noise are read from."""
        recipe, images, stds = self.recipe, self.images, {one for one in noises if one > 0}
        order = torch.randperm(len(images), generator=stream(recipe.seed, ORDER, epoch))
        shape = (recipe.batch_size, images.shape[1])
        pools = NoisePool.draw(stds, shape, images, recipe.seed, epoch) if stds else {}
        return order.to(images.device), pools

    def take_step(self, run: Run, prepared: tuple[Tensor, NoisePool | None]) -> None:
        recipe, (order, pool) = self.recipe, prepared
        x, y, generator = self.batch(run, order)
        if pool is not None:
            x = x + pool.batch(generator)
        self.noise.start_step(recipe.seed, run.epoch, run.step)
        with autocast(device_of(run.model), recipe.precision):
            logits = run.model(x)
        loss = functional.cross_entropy(logits.float(), y)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        with torch.no_grad():  # summed on tensors: reading a number out would wait for it
            right = (logits.argmax(dim=1) == y).sum()
            count = torch.tensor(len(y), device=y.device)
            run.sums += torch.stack([loss.double() * len(y), right.double(), count])

    def batch(self, run: TrainingRun[Any], order: Tensor) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return the images of a step, augmented, their labels, and what draws their noise."""
        recipe = self.recipe
        chosen = order[run.step * recipe.batch_size :][: recipe.batch_size]
        x = self.images.index_select(0, chosen)  # whole rows: twice as fast as [chosen]
        generator = stream(recipe.seed, STEP, run.epoch, run.step, 0)
        for augment in self.augmentations:
            x = augment(x, self.data.image_shape, generator)
        return x, self.labels[chosen], generator

    def metrics(self, run: Run, rate: float) -> EpochMetrics:
        loss, right, count = run.sums.tolist()
        if not math.isfinite(loss):
            raise NumericalError(
                f"the loss is no longer finite in epoch {run.epoch + 1}: lower the learning rate "
                f"(it is {rate:g}) or the noise."
            )
        share = accuracy(run.model, self.data.test_images, self.data.test_labels)
        read = None if self.watch is None else self.watch(run.model)
        if self.stop and read is not None:
            run.extra["left"] = torch.stack(
                [run.extra["left"][1], torch.tensor(read["left"]).double()]
            )
            for name, value in run.model.state_dict().items():
                run.extra[f"mean.{name}"].lerp_(value, AVERAGED / (run.epoch + AVERAGED))
        loss, right = loss / count, right / count
        return EpochMetrics(run.epoch + 1, rate, loss, right, share, run.seconds, weights=read)

    def stopped(self, run: Run) -> bool:
        return self.stop and turned(*run.extra["left"].tolist())

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        if self.stopped(run):
            run.model.load_state_dict(average(run), strict=True)
            end = f"after epoch {run.epoch} of {self.epochs}: the weights say that nothing is left"
            provenance = {"stopped": f"{end} to learn; they are an average", **provenance}
        save_classifier(run.model, folder, self.data, self.recipe, provenance)

    def position(self, epoch: int) -> str:
        return f"epoch {epoch}"


def turned(before: float, now: float) -> bool:
    """Return whether nothing is left to learn; what is random, as at the start, is no such turn."""
    return now < 0 < before


def average(run: Run) -> dict[str, Tensor]:
    """Return the average of the weights that a training with `stop` keeps."""
    return {name: run.extra[f"mean.{name}"] for name in run.model.state_dict()}


def new_classifier(recipe: ImageRecipe, data: ImageDataset) -> BilinearClassifier:
    """Return the classifier that a recipe begins with."""
    d_in, d_out = data.train_images.shape[1], len(data.class_names)
    layers = 2 * recipe.n_layers * recipe.d_hidden
    check_training_memory(recipe.d_hidden * (d_in + layers + d_out), "choose a smaller model")
    with seeded_initialisation(recipe.seed):
        return BilinearClassifier(
            d_in,
            recipe.d_hidden,
            d_out,
            n_layers=recipe.n_layers,
            bias=recipe.bias,
            residual=recipe.residual,
            gate=recipe.gate,
        )


def save_classifier(
    model: BilinearClassifier,
    folder: Path,
    data: ImageDataset,
    recipe: ImageRecipe,
    provenance: Mapping[str, str],
) -> None:
    """Write a trained classifier as a model folder, with its recipe and its data."""
    details = {"recipe": json.dumps(recipe.to_dict()), "data_source": data.source}
    details |= {"data_sha256": data.fingerprint, "data_name": data.name}
    save(
        model.cpu(),
        folder,
        input_shape=data.image_shape,
        output_names=data.class_names if data.named else None,
        provenance={**details, "seed": str(recipe.seed), **provenance},
        overwrite=True,
    )


@torch.no_grad()
def accuracy(model: BilinearClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers, in float32 and without any noise."""
    was_training, device = model.training, device_of(model)
    model.eval()
    right = 0
    batches = (torch.split(part, EVALUATION_BATCH) for part in (images, labels))
    for x, y in zip(*batches, strict=True):
        right += int((model(x.to(device)).argmax(dim=1) == y.to(device)).sum())
    model.train(was_training)
    return right / len(labels)


def train_classifier(
    data: ImageDataset, recipe: ImageRecipe, kind: type[ImageTask] = ImageTask
) -> BilinearClassifier:
    """Return a classifier at the end of its recipe, without a folder."""
    task = kind(data, recipe)
    run = task.start()
    for _ in train(run, task):
        pass
    return run.model


def train_in_folder(
    folder: Path,
    data: ImageDataset,
    recipe: ImageRecipe,
    device: torch.device = CPU,
    *,
    watch: Watch | None = None,
    stop: bool = False,
    **options: Any,
) -> TrainingResult[EpochMetrics]:
    """Train a classifier and leave a model folder; the options are those of `run_in_folder`."""
    task = ImageTask(data, recipe, device, watch=watch, stop=stop)
    return run_in_folder(folder, task, **options)
