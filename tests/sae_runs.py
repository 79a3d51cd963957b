"""Tiny runs of sparse autoencoders: on a transformer with random weights, on a planted truth."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.nn import BilinearTransformer
from bilens.train.activations import ActivationBuffer
from bilens.train.run_folder import TrainingResult, run_in_folder
from bilens.train.tasks.sae import ReadModel, SAELine, SAERecipe, SAESteps, SAETask

VOCABULARY, WIDTH, LAYERS, LENGTH = 11, 8, 2, 12
HOOKS = ("blocks.0.mlp_in", "blocks.1.mlp_out")
RECIPE = SAERecipe(  # 10 texts a buffer, 110 rows, 3 steps; 5 buffers
    hooks=HOOKS,
    num_latents=24,
    k=3,
    tokens=450,
    batch_size=32,
    buffer_size=115,
    learning_rate=1e-2,
    dead_after=100,
)


def transformer(seed: int = 0) -> BilinearTransformer:
    """A model whose activations are far from zero."""
    model = BilinearTransformer(VOCABULARY, WIDTH, 16, LAYERS, 2, LENGTH)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def texts(count: int = 37, seed: int = 1) -> Tensor:
    """Random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (count, LENGTH), generator=generator)


def read_model(model: BilinearTransformer | None = None) -> ReadModel:
    """The model and its texts, as a run reads them."""
    return ReadModel(
        model or transformer(), "here", "0" * 64, texts(), texts(6, seed=2), "random tokens"
    )


def changed(**changes: Any) -> SAERecipe:
    """The recipe with changes."""
    return dataclasses.replace(RECIPE, **changes)


def go(folder: Path, recipe: SAERecipe = RECIPE, **options: Any) -> TrainingResult[SAELine]:
    """Train in a folder."""
    read = options.pop("read", None) or read_model()
    return run_in_folder(folder, SAETask(recipe, read), **options)


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history, without what depends on the clock."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    clock = {"seconds": None, "tokens_per_second": None}
    return [{**json.loads(line), **clock} for line in lines]


class Steps(SAESteps):
    """Autoencoders on activations without a model, which have no folder."""

    def save(self, *_given: object) -> None:
        """Never asked for."""
        raise AssertionError


class Planted:
    """Activations that are sums of a few known directions around a known centre."""

    hooks = ("planted",)

    def __init__(self, width: int = 24, directions: int = 36, active: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows, self.share = 4096, active / directions
        rows = torch.randn(directions, width, generator=generator)
        self.directions = functional.normalize(rows, dim=1)
        self.centre = 2 * torch.randn(width, generator=generator)

    def buffer(self, index: int) -> ActivationBuffer:
        """A buffer of new draws: each direction on its own, with a size from 0 to 2."""
        generator = torch.Generator().manual_seed(1000 + index)
        shape = (self.rows, len(self.directions))
        is_on = torch.rand(shape, generator=generator) < self.share
        code = 2 * is_on * torch.rand(shape, generator=generator)
        x = 5 * (code @ self.directions + self.centre)
        return ActivationBuffer({"planted": x}, torch.randperm(self.rows, generator=generator))
