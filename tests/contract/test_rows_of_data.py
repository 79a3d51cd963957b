"""Guards against rows that are left out, scaled or numbered otherwise than they were given."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bilens as bl
import tiny
from bilens.api.classifier import explain_predictions
from bilens.base.errors import DataError, UsageError
from bilens.data.own_images import own_images
from bilens.findings.attack import Judge
from bilens.findings.explanation import choose_examples
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from contract.table import cell

NAMES = ("owl", "cat")


def image_model() -> LoadedModel:
    return LoadedModel(BilinearClassifier(20, 6, 2), "m", "0" * 64, (4, 5), NAMES, {})


def pictures(folder: Path, **other: str) -> Path:
    """Three images of each class, the last of each class in `other` in another place or format."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        for number in range(3):
            last = other.get(name) if number == 2 else None
            path = folder / name / (last or f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(256, size=(4, 5), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("other", ["2.bmp", "2.webp", "more/2.png", "more/2.BMP"])
@cell("audit", "other function")
def test_an_image_that_is_not_read_is_not_passed_over(other: str, tmp_path: Path) -> None:
    """30 of 90 images were left out in silence, and the accuracy was that of the others."""
    with pytest.raises(DataError, match=r"1 file would not be read \(cat"):
        bl.audit(image_model(), pictures(tmp_path / "x", cat=other), null_samples=39)


def test_an_image_outside_every_class_is_not_passed_over(tmp_path: Path) -> None:
    Image.new("L", (5, 4)).save(pictures(tmp_path / "x") / "2.png")
    with pytest.raises(DataError, match=r"1 file would not be read \(2\.png"):
        bl.audit(image_model(), tmp_path / "x", null_samples=39)


def test_what_lies_beside_images_is_left_alone(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "x")
    (folder / "cat" / ".ipynb_checkpoints").mkdir()
    for name in (".DS_Store", "cat/Thumbs.db", "labels.csv", "cat/.ipynb_checkpoints/2.png"):
        (folder / name).write_text("no image")
    found = bl.audit(image_model(), folder, null_samples=39).record.performance
    assert found is not None
    assert found.rows == 6


# ---- numbers of rows


@pytest.mark.parametrize("target", ["kind", "value"])
@cell("audit", "own object")
def test_a_mistake_bears_the_number_that_the_spreadsheet_shows(target: str, tmp_path: Path) -> None:
    """Rows were counted from 0, and the explanations beside them as the spreadsheet counts."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(30, 2)), columns=["a", "b"])
    frame[target] = np.where(rng.integers(2, size=30), "up", "down")
    if target == "value":
        frame[target] = rng.normal(size=30)
    frame.to_csv(tmp_path / "t.csv", index=False)
    module = BilinearClassifier(2, 4, 2 if target == "kind" else 1)
    names = ("up", "down") if target == "kind" else ("value",)
    model = LoadedModel(module, "m", "0" * 64, None, names, {}, input_names=("a", "b"))
    found = bl.audit(model, tmp_path / "t.csv").record.performance
    assert found is not None
    assert found.mistakes
    cells = pd.read_csv(tmp_path / "t.csv", header=None, dtype=str)[2]
    cells.index += 1  # as a spreadsheet counts its lines, the head among them
    for one in found.mistakes:
        told = names[int(one.target)] if target == "kind" else str(one.target)
        assert cells[one.index] == told
    shown = () if found.regression is None else found.regression.residuals
    assert [cells[one.index] for one in shown] == [str(one.target) for one in shown]


def test_the_surest_wrong_answer_is_the_one_of_the_highest_probability() -> None:
    """The lead of the first is larger and its probability lower: other classes share the rest."""
    scores = torch.tensor([[2.0, 0.5, 0.5, 0.5], [1.4, 0.0, -9.0, -9.0]], dtype=torch.float64)
    leads = scores.topk(2).values
    assert leads[0, 0] - leads[0, 1] > leads[1, 0] - leads[1, 1]
    assert choose_examples(scores, torch.tensor([1, 1])) == {"wrong": 1}


# ---- bytes


@pytest.mark.parametrize("kind", [np.uint8, np.float64, bool, np.int64])
@cell("audit", "other dtype")
def test_a_mask_is_not_divided_by_255(kind: type) -> None:
    """A mask of zeros and ones in bytes became one of 0 and 0.004: 84 % were told for 100 %."""
    mask = np.random.default_rng(0).integers(2, size=(40, 4, 5))
    model = image_model()
    assert model.module is not None
    right = model.module(torch.from_numpy(mask).float().flatten(1)).argmax(dim=1).numpy()
    if kind is np.uint8:
        with pytest.raises(
            DataError, match="bytes of images are only 0 and 1: pass them as floats"
        ):
            bl.audit(model, (mask.astype(kind), right), null_samples=39)
        return
    found = bl.audit(model, (mask.astype(kind), right), null_samples=39).record.performance
    assert found is not None
    assert found.classification is not None
    assert found.classification.accuracy.value == 1.0


@cell("attack", "saved")
@cell("explain", "saved")
def test_a_folder_of_a_data_set_is_the_data_set(tmp_path: Path) -> None:
    """Half of its test images were taken for the training images."""
    data = tiny.images(name="mnist")
    folder = tiny.write_idx(tmp_path / "idx", data)
    model = replace(tiny.loaded(tiny.trained()), provenance={"data_name": "mnist"})
    attacks = [
        bl.attack_model(model, given, target=1, source=0, epsilons=[0, 1]).to_dict()
        for given in (data, folder)
    ]
    assert attacks[0]["objectives"] == attacks[1]["objectives"]
    assert attacks[0]["curves"] == attacks[1]["curves"]
    starts = [
        explain_predictions(model, given, [0], baseline="mean").explanations[0].attributions
        for given in (data, folder)
    ]
    assert starts[0] == starts[1]


# ---- what an absent input is


def rows_and_training(folder: Path, **other: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "rows.npz"
    np.savez(path, x_test=rng.random((3, 20)), y_test=[0, 1, 1], **other)
    return path


@cell("explain", "own object")
def test_the_mean_is_of_training_rows_where_a_file_has_them(tmp_path: Path) -> None:
    """It was the mean of the rows that are explained: of one row nothing added anything."""
    training = np.random.default_rng(1).random((50, 20))
    path = rows_and_training(tmp_path, x_train=training, y_train=np.arange(50) % 2)
    model = image_model()
    found = explain_predictions(model, path, [0], baseline="mean")
    assert found.baseline == "mean"
    assert model.module is not None
    with torch.no_grad():
        start = model.module(torch.from_numpy(training).float().mean(dim=0)[None])[0]
    part = found.explanations[0].attributions[0]
    centred = start - start.mean()
    assert part.score_at_baseline == pytest.approx(float(centred[part.output]), abs=1e-5)


@cell("explain", "own object")
def test_the_mean_of_the_rows_given_is_called_so_and_of_one_row_refused(tmp_path: Path) -> None:
    path = rows_and_training(tmp_path)
    found = explain_predictions(image_model(), path, [0], baseline="mean")
    assert found.baseline == "mean of the 3 rows given"
    with pytest.raises(UsageError, match="one row alone"):
        explain_predictions(image_model(), (np.ones((1, 20)), np.array([0])), [0], baseline="mean")


@cell("audit", "own object")
def test_images_of_bytes_0_and_1_are_not_divided_by_255() -> None:
    mask = np.random.default_rng(0).integers(2, size=(40, 4, 5), dtype=np.uint8)
    with pytest.raises(DataError, match="bytes of images are only 0 and 1: pass them as floats"):
        own_images(mask, np.arange(40) % 2)


@cell("certify", "own object")
def test_examples_and_radii_bear_the_numbers_of_the_data(tmp_path: Path) -> None:
    """They were counted from 0, and the mistakes beside them as the spreadsheet counts."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(30, 20)), columns=[f"c{i}" for i in range(20)])
    frame["kind"] = np.where(rng.integers(2, size=30), "owl", "cat")
    frame.to_csv(tmp_path / "t.csv", index=False)
    record = bl.audit(image_model(), tmp_path / "t.csv", null_samples=39).record
    assert record.performance is not None
    surest = next(one for one in record.classes.explanations if one.kind == "wrong")
    assert surest.index == record.performance.mistakes[0].index
    proven = bl.certify_model(image_model(), tmp_path / "t.csv").record
    assert [one.index for one in proven.l2.inputs] == [*range(2, 32)]


@cell("attack", "sorted rows")
def test_the_clipped_rows_of_an_attack_are_a_draw() -> None:
    """Each third row was taken of rows whose classes take turns: all of one class."""
    labels = torch.arange(3000) % 3
    judge = Judge.__new__(Judge)
    object.__setattr__(judge, "labels", labels)
    assert torch.bincount(labels[judge.sample]).min() > 250
