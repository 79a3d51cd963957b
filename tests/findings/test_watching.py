"""Weights watched through a training: readings, the end that they call, and its resumption.

Broken once, each seen red: a fixed share in the average; a first reading below zero taken for a
turn; the last weights kept at an early end; `left` outside of the checkpoint; growth not divided by
that of the start; roughness of the logits that are not class-centred.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import runs
import tiny
from bilens.algebra.concentration import cosine_transform
from bilens.base.errors import UsageError
from bilens.data.images import ImageDataset
from bilens.findings.watching import ENOUGH, ROUGHNESS, STEEPNESS, watch_of
from bilens.io.load import load
from bilens.nn import BilinearClassifier
from bilens.train.loop import train
from bilens.train.run_folder import TrainingResult
from bilens.train.tasks.image import ImageTask, new_classifier, train_in_folder

SIDE = 14
RECIPE = dataclasses.replace(tiny.RECIPE, epochs=6, bias=True, residual=True)


def random_images() -> ImageDataset:
    """Images and labels that have nothing to do with each other."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(96, SIDE * SIDE, generator=generator) * 255).round() / 255
    return dataclasses.replace(
        tiny.images(),
        **{f"{part}_images": images for part in ("train", "test")},
        **{f"{part}_labels": torch.arange(96) % 3 for part in ("train", "test")},
        image_shape=(SIDE, SIDE),
    )


DATA = random_images()


def states() -> list[BilinearClassifier]:
    """The model at the start and after each epoch."""
    task = ImageTask(DATA, RECIPE)
    run, found = task.start(), [new_classifier(RECIPE, DATA)]
    for _ in train(run, task):
        found.append(new_classifier(RECIPE, DATA))
        found[-1].load_state_dict(run.model.state_dict())
    return found


class Told:
    """Says of each epoch, in turn, what is left to learn; a resumed run begins later."""

    def __init__(self, *left: float, after: int = 0) -> None:
        self.left = iter(left[after:])

    def __call__(self, _model: BilinearClassifier) -> dict[str, float]:
        return {"left": next(self.left)}


def go(folder: Path, watch: Any, *, stop: bool = True, **options: Any) -> TrainingResult[Any]:
    return train_in_folder(folder, DATA, RECIPE, watch=watch, stop=stop, **options)


def weights_of(folder: Path) -> dict[str, Tensor]:
    module = load(folder).module
    assert isinstance(module, BilinearClassifier)
    return module.state_dict()


def stopped(folder: Path) -> str | None:
    """What the model says of an early end."""
    return load(folder).provenance.get("stopped")


def test_readings_are_those_of_a_direct_computation() -> None:
    start, *_, model = states()
    found = watch_of(DATA, RECIPE)(model)
    w, w0 = (one.embed.weight.detach().double() for one in (model, start))
    assert found["growth"] == pytest.approx(float(w.norm() / w0.norm()), rel=1e-6)

    middle = torch.exp(-8 * ((torch.arange(SIDE).double() + 0.5) / SIDE - 0.5) ** 2)
    blob = torch.outer(middle, middle).flatten()
    x = blob / blob.norm() * math.sqrt(0.1 * SIDE * SIDE)
    slopes: Tensor = torch.autograd.functional.jacobian(model.double(), x)  # type: ignore[no-untyped-call]
    slopes = slopes - slopes.mean(dim=0)
    assert found["steepness"] == pytest.approx(float(torch.pdist(slopes).median()), rel=1e-6)

    energy = cosine_transform(slopes, (SIDE, SIDE)).square().mean(dim=0)
    side = torch.arange(SIDE) / SIDE
    frequency = torch.maximum(side[:, None], side)
    stroke = energy[(frequency >= 0.24) & (frequency < 0.5)].mean()
    rough = float(stroke / energy[frequency < 0.24].mean())
    assert found["roughness"] == pytest.approx(rough, rel=1e-6)
    left = ENOUGH - ROUGHNESS * math.log(rough) - STEEPNESS * math.log(found["steepness"])
    assert found["left"] == pytest.approx(left, rel=1e-6)


def test_watching_changes_no_weights_and_stands_in_the_history(tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", None, stop=False)
    watched = go(tmp_path / "watched", watch_of(DATA, RECIPE), stop=False)
    for name, value in weights_of(plain.folder).items():
        assert torch.equal(value, weights_of(watched.folder)[name])
    assert [*runs.history(plain.folder)[0]][-1] == "seconds"
    lines = runs.history(watched.folder)
    assert [line["weights"] for line in lines] == [line.weights for line in watched.history]
    assert lines[0]["weights"]["growth"] != lines[-1]["weights"]["growth"]


def test_an_early_end_keeps_the_average_until_then(tmp_path: Path) -> None:
    result = go(tmp_path / "run", Told(2.0, 1.0, 0.5, -0.1))
    assert [line.epoch for line in result.history] == [1, 2, 3, 4]
    shares = [t * (t + 1) for t in (1, 2, 3, 4)]
    after = [model.state_dict() for model in states()[1:5]]
    for name, value in weights_of(result.folder).items():
        pairs = zip(shares, after, strict=True)
        mean = sum(share * one[name].double() for share, one in pairs) / sum(shares)
        assert torch.allclose(value.double(), torch.as_tensor(mean), atol=1e-6)
    assert str(stopped(result.folder)).startswith("after epoch 4 of 6")


def test_a_start_that_looks_rough_is_no_turn_and_without_one_all_is_as_ever(tmp_path: Path) -> None:
    result = go(tmp_path / "run", Told(-1.0, -1.0, -2.0, 1.0, 1.0, 0.0))
    assert len(result.history) == RECIPE.epochs
    for name, value in weights_of(result.folder).items():
        assert torch.equal(value, states()[-1].state_dict()[name])
    assert stopped(result.folder) is None


@pytest.mark.parametrize("broken_at", [2, 4])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, broken_at: int) -> None:
    left = (2.0, 1.0, 0.5, 0.1, -0.2)
    whole = go(tmp_path / "whole", Told(*left))
    folder = tmp_path / "run"
    steps = len(DATA.train_images) // RECIPE.batch_size
    with (
        runs.interrupted_after(steps * broken_at + 1),
        pytest.raises(Exception, match="Interrupted"),
    ):
        go(folder, Told(*left))
    go(folder, Told(*left, after=broken_at), resume=True)
    assert runs.history(folder) == runs.history(whole.folder)
    assert stopped(folder) == stopped(whole.folder)
    for name, value in weights_of(folder).items():
        assert torch.equal(value, weights_of(whole.folder)[name])
    said: list[str] = []
    go(folder, Told(), resume=True, say=said.append)
    assert any("finished" in line for line in said)
    with pytest.raises(UsageError, match="stop='weights'"):
        go(folder, None, stop=False, resume=True)


@pytest.mark.parametrize(
    ("data", "changes", "match"),
    [
        (tiny.images(), {}, "at least 14 rows and columns; these have 6 × 6"),
        (DATA, {"n_layers": 2}, "2 layers"),
        (DATA, {"gate": "relu"}, "gate 'relu'"),
    ],
)
def test_what_cannot_be_read_is_refused(
    data: ImageDataset, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        watch_of(data, dataclasses.replace(RECIPE, **changes))
