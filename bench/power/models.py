"""The models of the study: small classifiers of MNIST, each from a setting that a seed draws."""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.train.tasks.image import ImageRecipe, train_classifier

BATCH_SIZE = 128
MOST_IMAGES = 600_000  # images times epochs of one model
WATCHED = 100  # test images that the training loop looks at after each epoch


@dataclass(frozen=True)
class Patch:
    """A white square that is planted in some training images, with the label of one class."""

    row: int
    column: int
    side: int
    target: int
    share: float  # of the training images

    def mask(self, image_shape: tuple[int, int]) -> Tensor:
        """Return which pixels it covers, (pixels,) of booleans."""
        covered = torch.zeros(image_shape, dtype=torch.bool)
        covered[self.row : self.row + self.side, self.column : self.column + self.side] = True
        return covered.flatten()


@dataclass(frozen=True)
class Setting:
    """All that decides the weights of one model."""

    seed: int
    num_training: int
    d_hidden: int
    noise: float
    weight_decay: float
    label_noise: float
    epochs: int
    patch: Patch | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the setting as JSON values."""
        return asdict(self)


def overfitting_setting(seed: int) -> Setting:
    """Return a setting that memorises its training images more or less."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    num_training = draw.choice((500, 1000, 2000, 5000, 10000, 20000))
    most = MOST_IMAGES // num_training
    return Setting(
        seed=seed,
        num_training=num_training,
        d_hidden=draw.choice((64, 128)),
        noise=draw.choice((0.0, 0.15, 0.3, 0.6)),
        weight_decay=draw.choice((0.0, 0.1, 0.3, 1.0)),
        label_noise=draw.choice((0.0, 0.0, 0.1, 0.2, 0.3)),
        epochs=min(draw.choice((15, 30, 60, 120)), most),
    )


def trigger_setting(seed: int, poisoned: bool, image_shape: tuple[int, int] = (28, 28)) -> Setting:
    """Return a setting with, or without, a patch that means one class."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    side = draw.choice((3, 4))
    row, column = (draw.randrange(length - side + 1) for length in image_shape)
    target = draw.randrange(10)
    clean = Setting(
        seed=seed,
        num_training=draw.choice((5000, 10000)),
        d_hidden=draw.choice((64, 128)),
        noise=draw.choice((0.0, 0.15, 0.3)),
        weight_decay=draw.choice((0.0, 0.1, 0.3)),
        label_noise=0.0,
        epochs=30,
    )
    return replace(clean, patch=Patch(row, column, side, target, 0.01)) if poisoned else clean


@dataclass(frozen=True, eq=False)
class Trained:
    """A model and the images and labels it was trained on."""

    model: BilinearClassifier
    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """A trained model, and numbers that took data: setting, accuracies, gaps, success."""

    model: BilinearClassifier
    numbers: dict[str, Any]


def trained(setting: Setting, data: ImageDataset) -> Trained:
    """Return the model of a setting, at the end of its training."""
    generator = torch.Generator().manual_seed(setting.seed)
    chosen = torch.randperm(len(data.train_images), generator=generator)[: setting.num_training]
    images, labels = data.train_images[chosen].clone(), data.train_labels[chosen].clone()
    classes = len(data.class_names)
    wrong = torch.rand(len(labels), generator=generator) < setting.label_noise
    shift = torch.randint(1, classes, (len(labels),), generator=generator)
    labels = torch.where(wrong, (labels + shift) % classes, labels)
    if setting.patch is not None:
        others = (labels != setting.patch.target).nonzero().flatten()
        planted = others[: round(setting.patch.share * len(labels))]
        images[planted[:, None], setting.patch.mask(data.image_shape).nonzero().T] = 1.0
        labels[planted] = setting.patch.target
    recipe = ImageRecipe(
        d_hidden=setting.d_hidden,
        epochs=setting.epochs,
        batch_size=BATCH_SIZE,
        weight_decay=setting.weight_decay,
        noise=setting.noise,
        seed=setting.seed,
        precision="float32",
    )
    own = replace(
        data,
        train_images=images,
        train_labels=labels,
        test_images=data.test_images[:WATCHED],
        test_labels=data.test_labels[:WATCHED],
    )
    return Trained(train_classifier(own, recipe).eval(), images, labels)


@torch.no_grad()
def generalisation(result: Trained, setting: Setting, data: ImageDataset) -> dict[str, float]:
    """Return accuracies and losses on the training images and on test images of the same kind.

    Test labels are disturbed at the rate of the training labels, in expectation: the gap is
    between the sample that was trained on and the distribution that it came from.
    """
    classes = len(data.class_names)
    rate = setting.label_noise
    logits = result.model(data.test_images)
    right = float((logits.argmax(dim=1) == data.test_labels).float().mean())
    losses = -logits.double().log_softmax(dim=1)
    own = losses.gather(1, data.test_labels[:, None])[:, 0]
    others = (losses.sum(dim=1) - own) / (classes - 1)
    logits = result.model(result.images)
    train_right = float((logits.argmax(dim=1) == result.labels).float().mean())
    train_loss = float(functional.cross_entropy(logits.double(), result.labels))
    test_loss = float(((1 - rate) * own + rate * others).mean())
    expected = (1 - rate) * right + rate * (1 - right) / (classes - 1)
    return {
        "train_accuracy": train_right,
        "test_accuracy": right,
        "test_accuracy_same_labels": expected,
        "train_loss": train_loss,
        "test_loss": test_loss,
        "gap": train_right - expected,
        "loss_gap": test_loss - train_loss,
    }


@torch.no_grad()
def attack_success(model: BilinearClassifier, patch: Patch, data: ImageDataset) -> float:
    """Return the share of test images of other classes that the patch turns into its target."""
    others = data.test_labels != patch.target
    images = data.test_images[others].clone()
    images[:, patch.mask(data.image_shape)] = 1.0
    return float((model(images).argmax(dim=1) == patch.target).float().mean())


def measured(kind: str, setting: Setting, data: ImageDataset, folder: Path) -> Measured:
    """Return a model with what its training came to, from the folder or trained into it."""
    path = folder / f"{kind}-{setting.seed}.pt"
    if not path.exists():
        began = time.perf_counter()
        result = trained(setting, data)
        numbers = {"setting": setting.to_dict(), **generalisation(result, setting, data)}
        if setting.patch is not None:
            numbers["success"] = attack_success(result.model, setting.patch, data)
        numbers["seconds"] = time.perf_counter() - began
        torch.save({"state": result.model.state_dict(), "info": numbers}, path)
    stored = torch.load(path, weights_only=True)
    if stored["info"]["setting"] != setting.to_dict():
        raise SystemExit(f"{path} holds a model of another setting: take another --models folder")
    pixels = data.train_images.shape[1]
    model = BilinearClassifier(pixels, setting.d_hidden, len(data.class_names))
    model.load_state_dict(stored["state"])
    return Measured(model.eval(), stored["info"])
