"""Targets: the labels are those of a known form, and of that form the target is read."""

import dataclasses

import pytest
import torch
from torch import Tensor

import tiny
from bilens import ImageDataset, InteractionMatrix, QuadraticForm
from bilens_studies import targets
from bilens_studies.study import Record
from bilens_studies.targets import TargetStudy

N = tiny.PIXELS
SHARE = targets.SIMILAR**2


def ten_classes() -> ImageDataset:
    train, test = (torch.arange(count) % 10 for count in (tiny.NUM_TRAIN, tiny.NUM_TEST))
    return dataclasses.replace(
        tiny.images(), train_labels=train, test_labels=test, class_names=tuple("0123456789")
    )


def known_form(target: Tensor, constant: float = 0.0, unit: float = 1.0) -> QuadraticForm:
    """(t̂·x)² − cos² ‖x‖² + constant, of pixels in other units: x / unit."""
    eye = torch.eye(N, dtype=torch.float64)
    rows = torch.cat([torch.nn.functional.normalize(target.double(), dim=0)[None], eye]) * unit
    weight = torch.tensor([1.0, *[-SHARE] * N], dtype=torch.float64)
    linear = unit * torch.linspace(-1, 1, N, dtype=torch.float64)
    linear = linear if constant else 0 * linear
    return QuadraticForm(
        InteractionMatrix(rows, rows, weight), linear, torch.tensor(constant).double(), "input"
    )


def test_similar_is_what_a_form_with_one_large_eigenvalue_says() -> None:
    images = ten_classes()
    target = images.train_images[targets.target_of(images, 3)]
    form = known_form(target)
    data = targets.similar_images(images, [target])
    assert torch.equal(form(data.test_images.double()) > 0, data.test_labels == 1)
    found = targets.spectrum(form, target, target - data.train_images.mean(dim=0), 1.0)
    assert found["cosines"][0] == pytest.approx(1)
    assert found["ratio"] == pytest.approx(SHARE / (1 - SHARE))
    either = targets.similar_images(images, [target, 1 - target])
    assert (either.train_labels >= data.train_labels).all()


def test_targets_are_the_first_of_their_class_from_the_published_one_on() -> None:
    images = ten_classes()
    assert [targets.target_of(images, digit) for digit in (6, 7, 5, 0)] == [6, 7, 15, 10]
    other = dataclasses.replace(images, train_labels=torch.tensor([1] * 6 + [5] * 194))
    assert targets.target_of(other, 5) == 6


def test_a_folded_spectrum_does_not_depend_on_the_unit_of_a_pixel() -> None:
    target = ten_classes().train_images[0]
    folded, unit = [], []
    for scale in (1.0, 0.1):  # of pixels that are as many times longer, the length too
        form = known_form(target, constant=-3.0, unit=scale)
        folded.append(targets.spectrum(form, target, target, 2.0 / scale))
        unit.append(targets.spectrum(form, target, target, 1.0))
    assert folded[0]["ratio"] == pytest.approx(folded[1]["ratio"])
    assert folded[0]["cosines"] == pytest.approx(folded[1]["cosines"])
    assert unit[0]["ratio"] != pytest.approx(unit[1]["ratio"], rel=0.1)


def row(cosine: float, ratio: float, complement: bool = False) -> Record:
    folded = {"cosines": [cosine, 0.0], "ratio": ratio, "eigenvalues": [1.0, -ratio]}
    parts = {"constant": -1.0, "linear_part": -2.0, "quadratic_part": 6.0}
    one = {"folded": folded, "unit": {**folded, "ratio": 0.7}, **parts}
    return {"complement": complement, "decays": [one] * 3}


def test_targets_are_counted_by_published_weight_decay() -> None:
    rows = [row(0.95, 0.2)] * 8 + [row(0.8, 0.2), row(0.95, 0.5)]
    found = TargetStudy().reproduced({"targets": [*rows, row(0.95, 0.5, True)]})
    assert set(found) == set(TargetStudy().published)
    assert {one.values for one in found.values()} == {()}  # ten targets are no runs
    holds = {name: one.holds for name, one in found.items()}
    assert [holds[f"{key}-2"] for key in ("cosine", "second", "unit", "either")] == [
        True,
        True,
        False,
        False,
    ]
    assert found["second-1"].note.startswith("9 of 10")
    assert found["unit-1"].note.startswith("0 of 10")
    assert found["bias"].holds
    either = TargetStudy().reproduced({"targets": [*rows, row(0.95, 0.2, True)]})["either-1"]
    assert either.holds
    assert either.note == "|cos| 0.950, second over first 0.20"
