"""Cells that train side by side end where each ends alone: weights, losses, folders."""

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import runs
import tiny
from bilens.base.errors import CheckpointError, InterruptedRunError, NumericalError, UsageError
from bilens.train.loop import train
from bilens.train.tasks.image import ImageRecipe, ImageTask, train_classifier
from bilens_studies import image_stack
from bilens_studies.image_stack import (
    StackTask,
    in_passes,
    train_classifiers_in_folder,
)

DATA = tiny.images()
TOLERANCE = 1e-5
CELLS = [
    dataclasses.replace(tiny.RECIPE, **changes)
    for changes in (
        {},
        {"weight_decay": 1.0},
        {"noise": 0.0},
        {"noise": 0.4, "d_hidden": 5},
        {"seed": 3},
        {"n_layers": 2, "gate": "relu"},
        {"dropout": 0.2},
        {"model_noise": 0.1, "weight_decay": 0.5},
        {**tiny.EVERYTHING},
        {**tiny.EVERYTHING, "noise": 0.3, "gate": "silu", "n_layers": 2},
    )
]


def distance(model: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((one - two).detach().abs().max()) for one, two in pairs)


@pytest.fixture(scope="module")
def alone() -> list[torch.nn.Module]:
    return [train_classifier(DATA, recipe) for recipe in CELLS]


def test_the_weights_are_those_of_each_cell_alone(
    tmp_path: Path, alone: list[torch.nn.Module]
) -> None:
    together = train_classifiers_in_folder(tmp_path, DATA, CELLS)
    assert [distance(*pair) < TOLERANCE for pair in zip(together, alone, strict=True)] == [
        True
    ] * len(CELLS)
    apart = [
        distance(alone[0], other) for other in alone[1:3]
    ]  # the tolerance can tell cells apart
    assert min(apart) > 100 * TOLERANCE


def test_losses_are_told_cell_by_cell() -> None:
    cells = [CELLS[3], CELLS[0], CELLS[2], CELLS[1]]  # not in the order of the stacks
    task = StackTask(DATA, cells)
    lines = list(train(task.start(), task))
    for index, recipe in enumerate(task.recipes):
        single = ImageTask(DATA, recipe)
        expected = [line.train_loss for line in train(single.start(), single)]
        assert [line.train_losses[index] for line in lines] == pytest.approx(expected, rel=1e-4)


def test_cells_that_read_other_batches_are_other_passes() -> None:
    assert [len(group) for group in in_passes(CELLS)] == [7, 1, 2]
    with pytest.raises(UsageError, match="make 3 passes of"):
        StackTask(DATA, CELLS)


def test_a_cell_that_diverges_is_named_and_the_others_are_kept(
    tmp_path: Path, alone: list[torch.nn.Module]
) -> None:
    bad = dataclasses.replace(tiny.RECIPE, noise=1e30)
    told = pytest.raises(NumericalError, match=r"^[^{]*{[^{]*'noise': 1e\+30.*leave this cell out")
    with told:
        train_classifiers_in_folder(tmp_path, DATA, [bad, *CELLS[:2]])
    with no_training():
        found = train_classifiers_in_folder(tmp_path, DATA, CELLS[:2])
    assert max(map(distance, found, alone)) < TOLERANCE
    assert len([*tmp_path.iterdir()]) == 2
    with told:  # alone, in the epoch where it is found
        train_classifiers_in_folder(tmp_path, DATA, [bad])


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    train_classifiers_in_folder(tmp_path, DATA, CELLS[:1])
    (weights,) = tmp_path.glob("*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # another number, and a model still
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"seed-.*: holds other weights than .* remove it"):
        train_classifiers_in_folder(tmp_path, DATA, CELLS[:1])


@contextmanager
def no_training() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_stack, "run_in_folder", refuse)
        yield


def test_a_folder_keeps_what_was_trained_and_resumes(
    tmp_path: Path, alone: list[torch.nn.Module]
) -> None:
    cells, expected = CELLS[:2], alone[:2]
    with runs.interrupted_after(8), pytest.raises(InterruptedRunError):
        train_classifiers_in_folder(tmp_path, DATA, cells)
    said: list[str] = []
    train_classifiers_in_folder(tmp_path, DATA, cells, say=said.append)
    assert "Continuing" in said[0]
    with no_training():
        kept = train_classifiers_in_folder(tmp_path, DATA, [*reversed(cells), cells[0]])
    for model, other in zip(kept, [*reversed(expected), expected[0]], strict=True):
        assert distance(model, other) < TOLERANCE
    assert len([*tmp_path.iterdir()]) == len(cells)  # nothing of the pass is left
    with no_training(), pytest.raises(AssertionError, match="trained again"):
        train_classifiers_in_folder(tmp_path, tiny.images(seed=1), cells)


def test_a_pass_that_was_killed_on_its_way_into_place_is_not_trained_again(tmp_path: Path) -> None:
    cells, moved = CELLS[:3], tmp_path / "models"
    train_classifiers_in_folder(moved, DATA, cells[:1])  # of another study
    move, epochs = Path.replace, []

    def killed(path: Path, target: Path) -> Path:
        if path.name == image_stack.cell_name(1):
            raise KeyboardInterrupt
        return move(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            train_classifiers_in_folder(moved, DATA, cells, on_epoch=epochs.append)
    assert len(epochs) == tiny.RECIPE.epochs
    train_classifiers_in_folder(moved, DATA, cells, on_epoch=epochs.append)
    assert len(epochs) == tiny.RECIPE.epochs
    assert len([*moved.iterdir()]) == len(cells)


def test_a_model_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train_classifiers_in_folder(tmp_path, DATA, CELLS[:2])
    one, other = tmp_path.iterdir()
    shutil.rmtree(one)
    other.rename(one)
    shutil.copytree(one, other)
    with pytest.raises(CheckpointError, match=r"seed-.*: holds a classifier of another recipe"):
        train_classifiers_in_folder(tmp_path, DATA, CELLS[:2])


def test_another_precision_is_another_run(tmp_path: Path) -> None:
    recipe: ImageRecipe = dataclasses.replace(tiny.RECIPE, precision="bfloat16", epochs=1)
    (one,) = train_classifiers_in_folder(tmp_path, DATA, [recipe])
    assert one.embed.weight.dtype == torch.float32
    assert distance(one, train_classifier(DATA, recipe)) < 1e-2
