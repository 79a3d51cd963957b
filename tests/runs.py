"""Training runs in folders that are broken off where a test wants them to be."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import tiny
from bilens.io.load import load
from bilens.nn import BilinearClassifier
from bilens.train import run_folder
from bilens.train.run_folder import TrainingResult
from bilens.train.tasks.image import EpochMetrics, ImageRecipe, train_in_folder

DATA = tiny.images()
RECIPE = dataclasses.replace(tiny.RECIPE, epochs=4, **tiny.EVERYTHING)


def go(folder: Path, recipe: ImageRecipe = RECIPE, **options: Any) -> TrainingResult[EpochMetrics]:
    """Train in a folder."""
    return train_in_folder(folder, DATA, recipe, **options)


class AfterSteps:
    """Stands in for the event of Ctrl-C: it is set when a number of steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def is_set(self) -> bool:
        """Asked once after each step."""
        self.left -= 1
        return self.left <= 0


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Interrupt the training inside the block after a number of steps, as Ctrl-C would."""

    @contextmanager
    def interruptible() -> Iterator[AfterSteps]:
        yield AfterSteps(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "interruptible", interruptible)
        yield


@contextmanager
def checkpoint_every_epoch() -> Iterator[None]:
    """Save after each epoch, however little time has passed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        yield


class Break(Exception):  # noqa: N818 - not an error, a test's own way out
    """Ends a run from outside, without any chance to save."""


def break_at(epoch: int) -> Any:
    """A callback that ends the run when an epoch is reported."""

    def on_epoch(metrics: Any) -> None:
        if metrics.epoch == epoch:
            raise Break

    return on_epoch


def weights(folder: Path) -> BilinearClassifier:
    """The model of a finished run."""
    module = load(folder).module
    assert isinstance(module, BilinearClassifier)
    return module


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history, without what depends on the clock."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


@cache
def uninterrupted(recipe: ImageRecipe = RECIPE) -> tuple[BilinearClassifier, list[dict[str, Any]]]:
    """Weights and history of the run that nothing disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        result = go(Path(folder) / "run", recipe)
        return weights(result.folder), history(result.folder)


def assert_as_uninterrupted(folder: Path, recipe: ImageRecipe = RECIPE) -> None:
    """Bit-equal weights, equal history, and nothing left behind but what a run consists of."""
    model, lines = uninterrupted(recipe)
    assert tiny.same_weights(weights(folder), model)
    assert history(folder) == lines
    names = {item.name for item in folder.iterdir()}
    assert names - {"checkpoints"} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "run.json",
        "history.jsonl",
    }


def checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoints of a run, the oldest first."""
    return sorted(item.name for item in (folder / "checkpoints").glob("ckpt-*"))
