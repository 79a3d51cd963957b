"""Data and models of bilens itself, made from seeds; paths are relative to the working folder."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl

SIDE, CLASSES = 6, 3
PIXELS = SIDE * SIDE
NAMES = ("upright", "level", "slanting")
IDX = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Seeded standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(module: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """The module with seeded weights that are scaled by its widths."""
    generator = torch.Generator().manual_seed(seed)
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(draw / max(1, parameter.shape[-1]) ** 0.5)
    return module.eval()


def classifier(d_input: int = PIXELS, d_hidden: int = 8, seed: int = 0, **options: Any) -> Any:
    """A classifier of three classes."""
    return seeded(bl.nn.BilinearClassifier(d_input, d_hidden, CLASSES, **options), seed)


def transformer(gate: Any = None, seed: int = 0, **options: Any) -> Any:
    """A language model of three blocks."""
    return seeded(bl.nn.BilinearTransformer(11, 8, 6, 3, 2, 7, gate, **options), seed)


def autoencoder(width: int = 6, latents: int = 18, k: int = 4, sign: Any = "relu") -> Any:
    """A sparse autoencoder."""
    sae = seeded(bl.nn.TopKSAE(width, latents, k, sign=sign), dtype=torch.float32)
    with torch.no_grad():
        sae.normalise_decoder()
        sae.scale.fill_(0.37)
    return sae


def strokes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three kinds of strokes in grey noise: images in steps of 1/255, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.zeros(CLASSES, SIDE, SIDE)
    shapes[0, :, 2] = shapes[1, 3, :] = 1.0
    shapes[2] = torch.eye(SIDE)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    bright = 0.4 + 0.6 * torch.rand(count, 1, generator=generator)
    grey = 0.3 * torch.rand(count, PIXELS, generator=generator)
    pixels = (shapes.flatten(1)[labels] * bright + grey).clamp(0, 1)
    return (pixels * 255).round() / 255, labels


def write_idx(folder: Path) -> None:
    """The four IDX files of a data set."""
    folder.mkdir(parents=True)
    parts = [*strokes(200, 0), *strokes(60, 1)]
    for name, part in zip(IDX, parts, strict=True):
        is_images = part.ndim == 2
        shape = (len(part), SIDE, SIDE) if is_images else (len(part),)
        values = (part * 255).round() if is_images else part
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / name).write_bytes(header + values.byte().numpy().tobytes())


def damaged_idx(folder: Path) -> None:
    """Data sets with one fault each."""
    faults: dict[str, Callable[[Path], object]] = {
        "truncated": lambda at: (at / IDX[0]).write_bytes((at / IDX[0]).read_bytes()[:-1]),
        "swapped": lambda at: (at / IDX[0]).write_bytes((at / IDX[1]).read_bytes()),
        "lacking": lambda at: (at / IDX[3]).unlink(),
    }
    for name, fault in faults.items():
        write_idx(folder / name)
        fault(folder / name)


def write_tables(folder: Path) -> None:
    """A table of two classes, one of numbers, and tables that cannot be fitted."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)) * [1, 20, 0.1] + [5, 300, 0]
    z = (x - x.mean(0)) / x.std(0)
    colour = np.where(rng.random(120) < 0.5, "red", "blue")
    answers = {
        "classes": np.where(z[:, 0] * z[:, 1] > 0, "yes", "no"),
        "numbers": 1000 + 50 * z[:, 0] * z[:, 1] + 30 * (colour == "red"),
    }
    for name, answer in answers.items():
        rows = zip(x.round(6).tolist(), colour, answer, strict=True)
        lines = [",".join([*map(str, numbers), text, str(y)]) for numbers, text, y in rows]
        header = "width,height,depth,colour,y"
        (folder / f"{name}.csv").write_text("\n".join([header, *lines, ""]))
    lines = (folder / "numbers.csv").read_text().splitlines()
    bad = {
        "one_row": lines[:2],
        "ragged": [*lines[:9], "1,2"],
        "hole": [*lines[:9], ",2,3,red,4", *lines[9:]],
        "twice": [lines[0].replace("depth", "width"), *lines[1:]],
        "one_number": [lines[0], *[",".join([*line.split(",")[:-1], "5"]) for line in lines[1:]]],
    }
    for name, content in bad.items():
        (folder / f"{name}.csv").write_text("\n".join([*content, ""]))
    (folder / "empty.csv").write_text("")


def stories() -> str:
    """A small text with a vocabulary of some dozens of words."""
    rng = np.random.default_rng(3)
    who, what = (
        ["Anna", "Ben", "The dog", "A bird"],
        ["saw", "took", "lost", "found", "did not see"],
    )
    things = ["a ball", "the red hat", "two stones", "an old key", "the river"]
    sentences = [
        " ".join(f"{rng.choice(who)} {rng.choice(what)} {rng.choice(things)}." for _ in range(4))
        for _ in range(160)
    ]
    return "\n\n".join(dict.fromkeys(sentences))


def save_models(folder: Path) -> None:
    """A model folder of each kind."""
    shaped: dict[str, Any] = {"input_shape": (SIDE, SIDE), "output_names": NAMES}
    models: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "one": (classifier(), shaped),
        "plain": (classifier(seed=1), {}),
        "changed": (shifted(classifier(), "head.weight"), shaped),
        "biased": (classifier(bias=True, residual=True), shaped),
        "narrow": (classifier(d_input=9), {}),
        "wide": (classifier(d_input=900), {}),
        "deep": (classifier(n_layers=2), shaped),
        "gated": (classifier(gate="silu"), shaped),
        "deep_gated": (classifier(n_layers=2, gate="silu", bias=True, residual=True), shaped),
        "enlarged": (enlarged(classifier()), {}),
        "layer": (seeded(bl.nn.BilinearLayer(5, 4, bias=True)), {}),
        "mlp": (seeded(bl.nn.BilinearMLP(4, 3, gate="relu")), {}),
        "transformer": (transformer(), {}),
        "tuned": (shifted(transformer(), "blocks.1.mlp.left.weight"), {}),
        "transformer_gated": (transformer("silu", tied=True, bias=True), {}),
        "transformer_ordinary": (transformer(mlp_type="ordinary"), {}),
        "sae": (autoencoder(), {"provenance": {"hook": "blocks.1.mlp_in", "model": "tiny"}}),
        "sae_raw": (
            autoencoder(sign="raw"),
            {"provenance": {"hook": "blocks.1.mlp_in", "model": "tiny"}},
        ),
    }
    for name, (model, options) in models.items():
        bl.save(model, folder / name, **options)


def shifted(model: Any, name: str) -> Any:
    """The model with a little added to the first row of one matrix."""
    with torch.no_grad():
        dict(model.named_parameters())[name][0] += 0.1
    return model


def enlarged(model: Any) -> Any:
    """The model with weights whose products overflow."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1e150
    return model


def damaged_models(models: Path, folder: Path) -> None:
    """Model folders and files with one fault each."""

    def head(value: float) -> Callable[[dict[str, Tensor]], object]:
        return lambda tensors: tensors["head.weight"].__setitem__((1, 2), value)

    weights: dict[str, Callable[[dict[str, Tensor]], object]] = {
        "nan": head(math.nan),
        "infinite": head(math.inf),
        "missing": lambda tensors: tensors.pop("embed.weight"),
        "unexpected": lambda tensors: tensors.update(more=torch.zeros(1)),
        "misshaped": lambda tensors: tensors.update({"head.weight": torch.zeros(4, 8).double()}),
    }
    for name, change in weights.items():
        path = copied(models / "one", folder / name) / "model.safetensors"
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        change(tensors)
        save_file(tensors, path, metadata)
    configs: dict[str, dict[str, Any]] = {
        "unknown_field": {"dropout": 0.5},
        "future": {"format_version": 2},
        "other_format": {"format": "keras"},
        "other_names": {"output_names": ["one"]},
    }
    for name, fields in configs.items():
        path = copied(models / "one", folder / name) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    (folder / "unfinished" / "checkpoints").mkdir(parents=True)
    (folder / "pointer.safetensors").write_text("version https://git-lfs.example/spec/v1\n")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "damaged.pt").write_bytes(b"\x80\x02no pickle")
    (folder / "cat.png").write_bytes(b"\x89PNG")
    torch.save({"embed.weight": torch.zeros(2, 2)}, folder / "pickle.pt")


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder of plain files."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def make(folder: Path) -> None:
    """Everything above."""
    write_idx(folder / "idx")
    damaged_idx(folder / "bad_idx")
    write_tables(folder / "tables")
    (folder / "stories.txt").write_text(stories())
    save_models(folder / "models")
    damaged_models(folder / "models", folder / "bad")
