"""Tiny images that can be learnt in a moment, models and runs of them, and commands in process."""

import os
import struct
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from bilens.data.idx import FILES
from bilens.data.images import ImageDataset
from bilens.data.model_interface import LabelledData
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.common import DataOrigin
from bilens.train.tasks.image import ImageRecipe, train_classifier

SIDE, CLASSES = 6, 3
PIXELS = SIDE * SIDE
NUM_TRAIN, NUM_TEST = 200, 60
RECIPE = ImageRecipe(
    d_hidden=8,
    epochs=3,
    batch_size=32,  # 6 whole batches of 200 images; 8 images are left over
    learning_rate=0.02,
    weight_decay=0.1,
    noise=0.1,
    precision="float32",
)
ROTATIONS = 39  # the fewest that give a null interval
STEPS = NUM_TRAIN // RECIPE.batch_size
EVERYTHING = {
    "bias": True,
    "residual": True,
    "dropout": 0.1,
    "model_noise": 0.05,
    "augmentations": ("translation:0.1", "salt-and-pepper:0.02"),
}


def images(seed: int = 0, name: str = "tiny") -> ImageDataset:
    """Three strokes (upright, level, slanting) in grey noise, in steps of 1/255 as from a file."""
    train_images, train_labels = strokes(NUM_TRAIN, 2 * seed)
    test_images, test_labels = strokes(NUM_TEST, 2 * seed + 1)
    return ImageDataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        image_shape=(SIDE, SIDE),
        class_names=("upright", "level", "slanting"),
        source="strokes drawn for a test",
        source_kind="data-dir",
    )


def strokes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, pixels) and their labels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.zeros(CLASSES, SIDE, SIDE)
    shapes[0, :, 2] = shapes[1, 3, :] = 1.0
    shapes[2] = torch.eye(SIDE)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    bright = 0.4 + 0.6 * torch.rand(count, 1, generator=generator)
    grey = 0.3 * torch.rand(count, PIXELS, generator=generator)
    pixels = (shapes.flatten(1)[labels] * bright + grey).clamp(0, 1)
    return (pixels * 255).round() / 255, labels


def write_idx(folder: Path, data: ImageDataset) -> Path:
    """Write the four IDX files of a data set; `load_images` gives back the same tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for name, part in zip(FILES, parts, strict=True):
        shape = (len(part), *data.image_shape) if part.ndim == 2 else (len(part),)
        values = (part * 255).round() if part.ndim == 2 else part
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / name).write_bytes(header + values.byte().numpy().tobytes())
    return folder


def classifier(
    seed: int = 0,
    *,
    d_input: int = PIXELS,
    d_hidden: int = 8,
    d_output: int = CLASSES,
    dtype: torch.dtype = torch.float64,
    **options: object,
) -> BilinearClassifier:
    """A model with seeded standard normal weights, scaled by its widths."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten
        model = BilinearClassifier(d_input, d_hidden, d_output, **options)  # type: ignore[arg-type]
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(draw / parameter.shape[-1] ** 0.5)
    return model.eval()


def enlarged(factor: float, dtype: torch.dtype = torch.float64) -> BilinearClassifier:
    """A model with each weight multiplied by a number."""
    model = classifier(dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model


def planted(
    products: list[tuple[list[float], list[float], list[float]]], d_input: int
) -> BilinearClassifier:
    """The model Σ_h column_h (left_h·x)(right_h·x), from triples (left_h, right_h, column_h)."""
    left, right, columns = (
        torch.tensor([list(part) for part in parts], dtype=torch.float64)
        for parts in zip(*products, strict=True)
    )
    width = max(len(products), d_input)  # the embedding must keep every input
    model = classifier(d_input=d_input, d_hidden=width, d_output=columns.shape[1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight.copy_(torch.eye(width, d_input))
        layer = model.layers[0]
        layer.left.weight[: len(left), :d_input] = left  # type: ignore[index, union-attr]
        layer.right.weight[: len(right), :d_input] = right  # type: ignore[index, union-attr]
        model.head.weight[:, : len(columns)] = columns.T
    return model


@cache
def trained(recipe: ImageRecipe = RECIPE) -> BilinearClassifier:
    """A model trained without a folder, in float64; always the same object: leave it as it is."""
    return train_classifier(images(), recipe).eval().double()


def labelled(images: torch.Tensor, labels: torch.Tensor) -> LabelledData:
    """Images with their classes, as a job is given them."""
    origin = DataOrigin("", "in a test", "tensors", len(images), "")
    return LabelledData(images, labels, origin, shape=(SIDE, SIDE))


def loaded(model: BilinearClassifier, **provenance: str) -> LoadedModel:
    """A model as if it had been read from a folder."""
    names = ("upright", "level", "slanting") if model.head.out_features == CLASSES else None
    return LoadedModel(model, "a/folder", "0" * 64, (SIDE, SIDE), names, provenance)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two models are equal bit for bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def environment(**more: str) -> dict[str, str]:
    """The environment of a subprocess: as here, without colours, and with one thread."""
    fixed = {"NO_COLOR": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed, **more}
