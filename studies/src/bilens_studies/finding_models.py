"""The models on which findings are fixed and judged: small classifiers of mixed settings."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from bilens import ImageDataset
from bilens.base import write_file
from bilens.nn import BilinearClassifier
from bilens.train import ImageRecipe, new_classifier, seeded_initialisation, train_classifier
from bilens_studies.finding_attacks import PlantedAttack
from bilens_studies.study import Record, with_images

CLASSES = 10
WATCHED = 100  # test images that the training loop looks at after each epoch
RELU = "relu-"  # before a kind: ordinary MLPs, which have biases and no residual path
MOST_IMAGES = {"overfitting": 600_000, "varied": 1_200_000, "stopping": 80_000}  # times epochs
CHOICES: dict[str, dict[str, tuple[float, ...]]] = {
    "overfitting": {  # memorise their training images more or less
        "num_training": (500, 1000, 2000, 5000, 10000, 20000),
        "d_hidden": (64, 128, 256),
        "noise": (0.0, 0.15, 0.3, 0.6),
        "weight_decay": (0.0, 0.1, 0.3, 1.0),
        "label_noise": (0.0, 0.0, 0.1, 0.2, 0.3),
        "epochs": (15, 30, 60, 120),
    },
    "varied": {  # many images; another learning rate, dark on white
        "num_training": (5000, 20000, 60000),
        "d_hidden": (64, 128, 256, 512),
        "noise": (0.0, 0.15, 0.3, 0.5),
        "weight_decay": (0.0, 0.1, 0.5, 1.0),
        "epochs": (10, 20, 40),
    },
    "stopping": {  # learn their images by heart sooner, later or not at all
        "num_training": (500, 1000, 2000, 4000),
        "d_hidden": (64, 128, 256),
        "noise": (0.0, 0.15, 0.3),
        "weight_decay": (0.0, 0.1, 0.3),
        "label_noise": (0.0, 0.0, 0.1, 0.2, 0.3),
        "epochs": (60, 90, 120),
    },
}


@dataclass(frozen=True)
class Setting:
    """All that decides the weights of one model, beside the data set."""

    seed: int
    num_training: int
    d_hidden: int
    noise: float
    weight_decay: float
    label_noise: float
    epochs: int
    bias: bool
    residual: bool
    attack: PlantedAttack | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    inverted: bool = False  # dark on white
    relu: bool = False  # an ordinary MLP, with the biases of torch

    def recipe(self) -> ImageRecipe:
        return ImageRecipe(**{name: getattr(self, name) for name in SHARED}, precision="float32")


SHARED = {one.name for one in fields(Setting)} & {one.name for one in fields(ImageRecipe)}


def drawn_setting(kind: str, seed: int) -> Setting:
    """Return a setting of a kind of `CHOICES`, each field drawn from its choices."""
    draw = random.Random(f"{kind} {seed}")  # noqa: S311 - no secret
    found: Record = {"label_noise": 0.0}
    found |= {field: draw.choice(values) for field, values in CHOICES[kind].items()}
    found["epochs"] = min(found["epochs"], MOST_IMAGES[kind] // found["num_training"])
    found |= {"bias": draw.random() < 0.3, "residual": draw.random() < 0.3}
    if kind == "varied":
        batches = (128, 512) if found["num_training"] == 5000 else (512, 2048)
        found |= {"batch_size": draw.choice(batches)}
        found |= {"learning_rate": draw.choice((5e-4, 1e-3, 2e-3, 4e-3))}
        found |= {"inverted": draw.random() < 0.4}
    return Setting(seed=seed, **found)


def attack_setting(seed: int, kind: str) -> Setting:
    """Return a setting of a model with a trigger of a kind; "clean" is one without."""
    draw = random.Random(f"{kind} {seed}")  # noqa: S311 - no secret
    overfitted = draw.random() < 0.2
    clean = Setting(
        seed=seed,
        num_training=2000 if overfitted else draw.choice((5000, 10000)),
        d_hidden=draw.choice((32, 64, 128, 256)),
        noise=0.0 if overfitted else draw.choice((0.0, 0.15, 0.3)),
        weight_decay=draw.choice((0.0, 0.1, 0.3)),
        label_noise=0.0,
        epochs=60 if overfitted else 20,
        bias=draw.random() < 0.3,
        residual=draw.random() < 0.3,
    )
    if kind == "clean":
        return clean
    share = {"clean-label": 0.08, "pixel": 0.1, "all-to-all": 0.1}.get(
        kind, draw.choice((0.01, 0.02, 0.05))
    )
    return replace(
        clean, attack=PlantedAttack(kind, draw.randrange(CLASSES), draw.randrange(1 << 30), share)
    )


def setting_of(kind: str, seed: int) -> Setting:
    """Return the setting of a kind: one of `CHOICES`, "clean", or one of `KINDS`."""
    plain = kind.removeprefix(RELU)
    found = drawn_setting(plain, seed) if plain in CHOICES else attack_setting(seed, plain)
    return found if plain == kind else replace(found, bias=True, residual=False, relu=True)


def images_seen_by(setting: Setting, data: ImageDataset) -> ImageDataset:
    """Return the images as a model sees them."""
    if not setting.inverted:
        return data
    train, test = 1 - data.train_images, 1 - data.test_images
    return replace(data, train_images=train, test_images=test)


Model: TypeAlias = BilinearClassifier | nn.Sequential


def model_of(folder: Path, data: ImageDataset, kind: str, seed: int) -> tuple[Model, Record]:
    """Return the model of a setting with its gap and success; it is kept in the folder."""
    setting = setting_of(kind, seed)
    about = json.dumps([data.fingerprint, asdict(setting)])  # two that differ have other names
    digest = hashlib.sha256(about.encode()).hexdigest()[:16]
    path = folder / f"{data.name}-{kind}-{seed}-{digest}.safetensors"
    data = images_seen_by(setting, data)
    if path.exists():
        with safe_open(path, "pt") as file:
            numbers = json.loads(file.metadata()["numbers"])
            model = new_model(setting, data)
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return model.eval(), numbers
    model, numbers = train_model(setting, data)
    write_file(path, save(model.state_dict(), {"numbers": json.dumps(numbers)}))
    return model, numbers


def corner_numbers(model: BilinearClassifier, recipe: ImageRecipe, data: ImageDataset) -> Record:
    """Return the setting and the gap of a model of the paper's recipe, on all training images."""
    setting = Setting(
        num_training=len(data.train_images),
        label_noise=0.0,
        **{name: getattr(recipe, name) for name in SHARED},
    )
    gap = generalisation(model, data.train_images, data.train_labels, setting, data)
    return {**asdict(setting), **gap}


def training_images(setting: Setting, data: ImageDataset) -> tuple[Tensor, Tensor]:
    """Return the images and labels that a model is trained on, with its trigger among them."""
    generator = torch.Generator().manual_seed(setting.seed)
    chosen = torch.randperm(len(data.train_images), generator=generator)[: setting.num_training]
    images, labels = data.train_images[chosen], data.train_labels[chosen]
    classes = len(data.class_names)
    wrong = torch.rand(len(labels), generator=generator) < setting.label_noise
    shift = torch.randint(1, classes, (len(labels),), generator=generator)
    labels = torch.where(wrong, (labels + shift) % classes, labels)
    if setting.attack is not None:
        return setting.attack.planted(images, labels, data.image_shape, classes)
    return images, labels


def new_model(setting: Setting, data: ImageDataset) -> Model:
    """Return the model that a setting begins with."""
    if not setting.relu:
        return new_classifier(setting.recipe(), data)
    hidden = setting.d_hidden
    with seeded_initialisation(setting.seed):
        first = nn.Linear(data.train_images.shape[1], hidden)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, len(data.class_names)))


def train_mlp(setting: Setting, data: ImageDataset, images: Tensor, labels: Tensor) -> Model:
    """Return an ordinary MLP at the end of plain training: AdamW, a cosine over the epochs."""
    model, generator = new_model(setting, data), torch.Generator().manual_seed(setting.seed)
    rate, decay = setting.learning_rate, setting.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.epochs)
    whole = len(images) // setting.batch_size * setting.batch_size
    for _ in range(setting.epochs):
        order = torch.randperm(len(images), generator=generator)[:whole]
        for start in range(0, whole, setting.batch_size):
            rows = order[start : start + setting.batch_size]
            x = images[rows]
            if setting.noise:
                x = x + setting.noise * torch.randn(x.shape, generator=generator)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return model


def train_model(setting: Setting, data: ImageDataset) -> tuple[Model, Record]:
    """Return the model of a setting at the end of its training, and numbers that took data."""
    images, labels = training_images(setting, data)
    watched = data.test_images[:WATCHED], data.test_labels[:WATCHED]
    own = with_images(data, (images, labels), watched)
    model: Model = (
        train_mlp(setting, data, images, labels)
        if setting.relu
        else train_classifier(own, setting.recipe())
    ).eval()
    numbers = {**asdict(setting), **generalisation(model, images, labels, setting, data)}
    if setting.attack is not None:
        numbers["success"] = attack_success(model, setting.attack, data)
    return model, numbers


@torch.no_grad()
def generalisation(
    model: Model, images: Tensor, labels: Tensor, setting: Setting, data: ImageDataset
) -> dict[str, float]:
    """Return accuracies and losses on the training images and on test images of the same kind.

    Test labels are disturbed at the rate of the training labels, in expectation: the gap is
    between the sample that was trained on and the distribution that it came from.
    """
    classes, rate = len(data.class_names), setting.label_noise
    logits = model(data.test_images)
    right = float((logits.argmax(dim=1) == data.test_labels).float().mean())
    losses = -logits.double().log_softmax(dim=1)
    own = losses.gather(1, data.test_labels[:, None])[:, 0]
    others = (losses.sum(dim=1) - own) / (classes - 1)
    logits = model(images)
    train_right = float((logits.argmax(dim=1) == labels).float().mean())
    expected = (1 - rate) * right + rate * (1 - right) / (classes - 1)
    return {
        "train_accuracy": train_right,
        "test_accuracy": right,
        "gap": train_right - expected,
        "train_loss": float(functional.cross_entropy(logits.double(), labels)),
        "test_loss": float(((1 - rate) * own + rate * others).mean()),
    }


@torch.no_grad()
def attack_success(model: Model, attack: PlantedAttack, data: ImageDataset) -> float:
    """Return the share of test images of other classes that the trigger turns into its goal."""
    goal = attack.goal(data.test_labels, len(data.class_names))
    others = data.test_labels != goal
    seen = attack.mark(data.image_shape).on(data.test_images[others])
    return float((model(seen).argmax(dim=1) == goal[others]).float().mean())
