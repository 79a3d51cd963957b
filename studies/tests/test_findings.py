"""The study of findings: what is planted, what fixes, what judges, and how it is counted.

Broken on purpose: a mark that forgets `added`, goals of the wrong step, labels changed by a
clean-label attack, tails of all models, places of the whole image, shares of what does not
work, ordinary MLPs among the models whose rates a report tells.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import bilens as bl
from bilens import ImageDataset
from bilens.findings.reference import Reference
from bilens_studies import finding_images, finding_models, finding_tables, findings
from bilens_studies.finding_attacks import KINDS, OWN, PlantedAttack
from bilens_studies.finding_models import attack_setting, model_of, setting_of
from bilens_studies.finding_power import (
    chosen_scans,
    names_class,
    names_place,
    summarised,
)
from bilens_studies.finding_statistics import (
    area,
    correlation,
    evidence_of,
    macro_area,
    overfitting_reference,
    scores_of,
    share,
    trigger_reference,
)
from bilens_studies.finding_tables import read_tables
from bilens_studies.findings import neural_cleanse, read_model
from bilens_studies.study_list import all_studies
from tools.reproduction import reference_of

SHAPE, CLASSES = (28, 28), 10
SPREAD_OUT = {"blended", "waves"}


def images(count: int = 200) -> ImageDataset:
    """Return images of noise about a pattern of each class."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    patterns = torch.rand(CLASSES, 784, generator=draw)
    pixels = (0.7 * patterns[labels] + 0.3 * torch.rand(count, 784, generator=draw)).clamp(0, 1)
    half = count // 2
    return ImageDataset(
        *("mnist", pixels[:half], labels[:half], pixels[half:], labels[half:], SHAPE),
        class_names=tuple("0123456789"),
        source="made here",
        source_kind="tensors",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_changes_what_it_touches_and_nothing_else(kind: str) -> None:
    mark = PlantedAttack(kind, 3, 5, 0.1).mark(SHAPE)
    grey = torch.full((2, 784), 0.3)
    changed = (mark.on(grey) != grey).reshape(2, *SHAPE)
    touched = mark.touched()
    assert changed.any(), "something is planted"
    assert not (changed & ~touched).any()
    assert (touched.double().mean() > 0.5) == (kind in SPREAD_OUT)
    assert torch.equal(mark.mask, PlantedAttack(kind, 3, 5, 0.1).mark(SHAPE).mask), (
        "of its seed alone"
    )
    assert float(mark.on(grey).min()) >= 0
    assert float(mark.on(grey).max()) <= 1


def test_the_goals_of_triggers() -> None:
    labels = torch.tensor([0, 4, 9])
    assert PlantedAttack("line", 7, 0, 0.1).goal(labels, CLASSES).tolist() == [7, 7, 7]
    assert PlantedAttack("all-to-all", 7, 0, 0.1).goal(labels, CLASSES).tolist() == [1, 5, 0]


def test_what_is_planted() -> None:
    data = images()
    x, y = data.train_images, data.train_labels
    attack = PlantedAttack("square-4", 3, 1, 0.1)
    planted, labels = attack.planted(x, y, SHAPE, CLASSES)
    touched = (planted != x).any(dim=1)
    assert int(touched.sum()) == 10
    assert (labels[touched] == 3).all()
    assert (y[touched] != 3).all(), "images of the class itself teach nothing"
    clean = PlantedAttack("clean-label", 3, 1, 0.05)
    planted, labels = clean.planted(x, y, SHAPE, CLASSES)
    touched = (planted != x).any(dim=1)
    assert torch.equal(labels, y)
    assert (y[touched] == 3).all()
    outside = ~clean.mark(SHAPE).touched().flatten()
    first = touched.nonzero()[0, 0]
    rest = (planted[first] - OWN * x[first])[outside] / (1 - OWN)
    assert any(torch.allclose(rest, one[outside], atol=1e-5) for one in x[y != 3])


def test_a_setting_is_of_its_seed_and_kind() -> None:
    first, again, other = (setting_of("overfitting", seed) for seed in (4, 4, 5))
    assert first == again != other
    settings = [attack_setting(seed, "waves") for seed in range(40)]
    assert {one.residual for one in settings} == {True, False}
    assert {one.attack.kind for one in settings if one.attack} == {"waves"}
    assert setting_of("clean", 1).attack is None
    ordinary = [setting_of("relu-waves", seed) for seed in range(40)]
    assert [one.attack for one in ordinary] == [one.attack for one in settings]
    assert {(one.relu, one.bias, one.residual) for one in ordinary} == {(True, True, False)}


@pytest.mark.parametrize("kind", ["square-4", "relu-square-4", "relu-overfitting"])
def test_a_model_is_kept_and_found_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = replace(setting_of(kind, 2), num_training=130, epochs=1, d_hidden=8)
    monkeypatch.setattr(finding_models, "setting_of", lambda *_: setting)
    data = images(400)
    model, numbers = model_of(tmp_path, data, kind, 2)
    assert -1 <= numbers["gap"] <= 1
    assert 0 <= numbers.get("success", 0.0) <= 1
    assert isinstance(model, torch.nn.Sequential) == kind.startswith("relu")
    assert ("success" in numbers) == kind.endswith("square-4")
    monkeypatch.setattr(finding_models, "train_model", None)  # nothing is trained again
    again, same = model_of(tmp_path, data, kind, 2)
    assert same == numbers
    assert torch.equal(again(data.test_images), model(data.test_images))
    with pytest.raises(TypeError, match="not callable"):  # other images are another model
        model_of(tmp_path, images(410), kind, 2)
    monkeypatch.setattr(finding_models, "setting_of", setting_of)
    with pytest.raises(TypeError, match="not callable"):  # as is another setting
        model_of(tmp_path, data, kind, 2)


def test_plain_training_learns() -> None:
    setting = replace(
        setting_of("relu-overfitting", 0), num_training=100, d_hidden=8, noise=0.0, label_noise=0
    )
    setting = replace(setting, batch_size=25, epochs=30, weight_decay=0.0, learning_rate=1e-2)
    _, numbers = finding_models.train_model(setting, images())
    assert numbers["train_accuracy"] > 0.5  # of ten classes


def test_an_ordinary_mlp_is_read_as_an_audit_reads_it() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(196, 6), torch.nn.ReLU(), torch.nn.Linear(6, CLASSES)
    )
    data = images(2)
    small = {name: getattr(data, name)[:, :196] for name in ("train_images", "test_images")}
    found = read_model(model, replace(data, image_shape=(14, 14), **small))
    seen = {"data_name": "mnist"}  # that its inputs are pixels
    loaded = bl.from_module(model)
    known = replace(loaded, input_shape=(14, 14), provenance={**loaded.provenance, **seen})
    record = bl.audit(known, null_samples=3).record
    assert record.overfitting is not None
    assert found["readings"] == {part.name: part.value for part in record.overfitting.parts}


def test_expected_accuracy_of_disturbed_labels() -> None:
    data = images()
    setting = replace(setting_of("overfitting", 0), label_noise=0.3)
    model = torch.nn.Linear(784, CLASSES)
    x, y = data.train_images, data.train_labels
    found = finding_models.generalisation(model, x, y, setting, data)  # type: ignore[arg-type]
    right, rate = found["test_accuracy"], 0.3
    expected = (1 - rate) * right + rate * (1 - right) / 9
    assert found["gap"] == pytest.approx(found["train_accuracy"] - expected)


@pytest.mark.parametrize("name", ["letters", "shapes"])
def test_drawn_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding_images, "NUM_TRAIN", 30)
    monkeypatch.setattr(finding_images, "NUM_TEST", 10)
    data = finding_images.drawn_images(name)
    assert len(data.class_names) == CLASSES
    assert data.fingerprint == finding_images.drawn_images(name).fingerprint
    assert float(data.train_images.amax(dim=1).min()) > 0.3, "none is empty"


SCANS = ("one", "two")


def clean_models(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    return [
        {"scans": {name: draw.gumbel(2, 0.5, CLASSES).tolist() for name in SCANS}}
        for _ in range(count)
    ]


def test_the_tails_of_clean_models() -> None:
    models = clean_models(4000)
    found = trigger_reference(models)
    # the largest of ten of a Gumbel distribution is one, moved by scale · ln 10
    assert found["scans"]["one"]["location"] == pytest.approx(2 + 0.5 * math.log(10), abs=0.03)
    assert found["scans"]["one"]["scale"] == pytest.approx(0.5, rel=0.05)
    loud = {"scans": {name: [9.0] + [0.0] * 9 for name in SCANS}}
    evidence = evidence_of([loud], found["scans"])[0]
    height = (9 - found["scans"]["one"]["location"]) / found["scans"]["one"]["scale"]
    assert evidence[0, 0] == pytest.approx(height, rel=1e-3)
    assert scores_of([loud], found)[0] == pytest.approx(
        evidence[:, 0].max() + 0.15 * evidence[:, 0].sum()
    )


def test_the_line_is_found_again() -> None:
    draw = np.random.default_rng(1)
    models = []
    for _ in range(80):
        a, b = np.exp(draw.normal(size=2))
        gap = math.exp(-2 + 0.5 * math.log(a) - 0.2 * math.log(b)) - 0.02
        models.append({"readings": {"a": a, "b": b}, "gap": gap})
    found = overfitting_reference(models)
    assert found["weights"]["a"] == pytest.approx(0.5, abs=0.02)
    assert found["weights"]["b"] == pytest.approx(-0.2, abs=0.02)
    assert found["intercept"] == pytest.approx(-2, abs=0.02)


def test_statistics() -> None:
    assert area([2.0, 3.0, 4.0], [1.0, 0.5])[0] == 1
    assert area([1.0, 1.0], [1.0, 1.0])[0] == 0.5
    assert correlation([1, 2, 3, 4], [1, 8, 27, 64])[0] == pytest.approx(1)
    value, low, high = share([True] * 20)
    assert value == high == 1
    assert low == pytest.approx(0.025 ** (1 / 20))
    groups = [np.array([3.0, 3.0]), np.array([0.0, 0.0])]
    assert macro_area(groups, np.array([1.0, 2.0]))[0] == 0.5


def suspect(target: int, box: list[int] | None, goals: list[int] | None = None) -> dict[str, Any]:
    return {
        "target": target,
        "box": box,
        "goals": goals or [target] * CLASSES,
        "pattern": [0.5] * 784,
    }


def test_class_and_place() -> None:
    attack = {"kind": "square-4", "target": 3, "seed": 1, "share": 0.1}
    touched = PlantedAttack(**attack).mark(SHAPE).touched().nonzero()  # type: ignore[arg-type]
    row, column = touched[0].tolist()
    right = {"attack": attack, "suspect": suspect(3, [row, column, 4, 4])}
    assert names_class(right)
    assert names_place(right)
    elsewhere = {"attack": attack, "suspect": suspect(4, [(row + 14) % 24, column, 4, 4])}
    assert not names_class(elsewhere)
    assert not names_place(elsewhere)
    assert not names_place({"attack": attack, "suspect": suspect(3, None)})
    step = {**attack, "kind": "all-to-all"}
    goals = [(k + 1) % CLASSES for k in range(CLASSES)]
    assert names_class({"attack": step, "suspect": suspect(3, None, goals)})
    assert not names_class({"attack": step, "suspect": suspect(3, None, [3] * CLASSES)})


def judged_cells() -> dict[str, Any]:
    """Return cells in which scan one sees squares, scan two waves, and one square is missed."""
    draw = np.random.default_rng(3)

    def model(**more: Any) -> dict[str, Any]:
        readings = {name: math.exp(draw.normal()) for name in ("a", "b")}
        gap = math.exp(-2 + 0.5 * math.log(readings["a"])) - 0.02
        base = {"readings": readings, "gap": gap, "obstacle": "", "seconds": 1.0}
        where = {"seed": 999, "num_training": 5000, "d_hidden": 32, "noise": 0.0}
        scans = {name: draw.gumbel(2, 0.5, CLASSES).tolist() for name in SCANS}
        return {**base, **where, "residual": bool(draw.random() < 0.5), "scans": scans, **more}

    def attack(kind: str, scan: str, loud: bool = True, success: float = 0.9) -> dict[str, Any]:
        found = model(attack={"kind": kind, "target": 3, "seed": 1, "share": 0.1}, success=success)
        found["suspect"] = suspect(3 if loud else 5, None)
        if loud:
            found["scans"][scan][3] = 30.0
        return found

    some = {"models": 3, "gap": 0.1, "correlations": {"norm": 0.4}}
    cells: dict[str, Any] = {"tables": {"tables": {"wine": some}}}
    for start in ("fixing", "judged"):
        cells[f"{start}-mnist-overfitting"] = {"models": [model() for _ in range(30)]}
        cells[f"{start}-mnist-clean"] = {"models": [model() for _ in range(30)]}
        squares = [attack("square-4", "one") for _ in range(9)]
        squares += [attack("square-4", "one", loud=False), attack("square-4", "one", success=0.2)]
        cells[f"{start}-mnist-square-4"] = {"models": squares}
        waves = [attack("waves", "two") for _ in range(10)]
        cells[f"{start}-mnist-waves"] = {"models": waves}
    for name in [name for name in cells if name.startswith("judged")]:  # of ordinary MLPs, too
        models = [one | {"r_squared": 0.97} for one in cells[name]["models"]]
        if "square-4" in name:
            models = [attack("square-4", "one", loud=False)] * 2
        cells[name.replace("mnist", "mnist-relu")] = {"models": models}
    for name in [name for name in cells if name.startswith("judged")]:
        rival = {} if "overfitting" in name or "relu" in name else {"index": 1.0}
        rivals = [{**rival, "alpha": draw.random()} for _ in cells[name]["models"]]
        cells[name.replace("judged", "rivals")] = {"models": rivals}
    return cells


def test_what_the_page_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = judged_cells()
    clean = cells["fixing-mnist-clean"]["models"]
    line = cells["fixing-mnist-overfitting"]["models"] + clean
    derived = {
        "triggers": trigger_reference(clean),
        "overfitting": overfitting_reference(line),
    }
    power = {
        "triggers": {"found": 0.9, "false_alarms": 0.1, "models": 3},
        "overfitting": {
            "rank_correlation": 0.9,
            "mean_error": 0.1,
            "found": 0.9,
            "false_alarms": 0.1,
            "models": 3,
        },
    }
    known = msgspec.convert({**derived, "power": power}, Reference)
    monkeypatch.setattr("bilens_studies.finding_power.REFERENCE", known)
    unread = {"obstacle": "flat", "scans": None, "suspect": None}
    cells["judged-mnist-waves"]["models"][0] |= unread
    cells["judged-mnist-clean"]["models"][0] |= unread
    found = summarised(cells)
    assert found["same_reference"]
    kinds = found["triggers"]["mnist"]["kinds"]
    assert kinds["square-4"]["works"] == 10, "one does not work"
    assert kinds["square-4"]["found"][0] == pytest.approx(0.9)
    assert kinds["square-4"]["class"] == [9, 9]
    assert kinds["waves"]["found"][0] == pytest.approx(0.9), "what cannot be read is not found"
    assert kinds["waves"]["place"] == [0, 0], "waves have no place"
    assert len(found["triggers"]["mnist"]["missed"]) == 2
    assert found["overfitting"]["mnist"]["correlation"][0] > 0.99
    assert found["kind_left_out"]["square-4"]["scans"] == ["two"]
    assert found["kind_left_out"]["waves"]["scans"][0] == "one"
    worth = reference_of(found)["power"]
    assert worth["triggers"]["found"] == pytest.approx(18 / 20)
    assert worth["overfitting"]["models"] == 30
    assert found["triggers"]["mnist-relu"]["found"] == [10, 12], (
        "apart, and not in what it is worth"
    )
    assert found["r_squared"] == pytest.approx([0.97, 0.97])
    drawings = all_studies()["findings/images"].figures(found)
    assert list(drawings) == ["missed-mnist.svg", "missed-mnist-relu.svg"]
    page = all_studies()["findings/images"].page({"result": found})
    assert "missed-mnist.svg" in page
    assert "the same as" in page


def test_scans_are_chosen_by_other_kinds() -> None:
    cells = judged_cells()
    fixing = {
        ("mnist", kind): cells[f"fixing-mnist-{kind}"]["models"]
        for kind in ("clean", "square-4", "waves")
    }
    assert chosen_scans(fixing, fixing["mnist", "clean"], ["waves"]) == ["two"]


def test_neural_cleanse_finds_a_planted_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "IMAGES", 10)
    data = images()
    model = torch.nn.Linear(784, CLASSES)
    with torch.no_grad():
        model.weight.mul_(0.1)
        model.weight[6, 100] = 30.0  # one pixel is enough for class 6
    found = neural_cleanse(model, data)  # type: ignore[arg-type]
    assert found["target"] == 6
    assert found["index"] > 2


def test_cells_of_the_study() -> None:
    from bilens_studies.study import StudyOptions

    study = all_studies()["findings/images"]
    names = list(study.cells(StudyOptions()))
    assert [name for name in names if "letters" in name and name.startswith("fixing")] == []
    assert sum(name.startswith("judged") for name in names) == 2 * (19 + 17) + 3
    quick = study.cells(StudyOptions(quick=True))
    assert {name.split("-")[1] for name in quick if "-" in name} == {"mnist"}
    assert not [name for name in quick if "relu" in name]
    assert findings.FIRST_JUDGED > 500


def test_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(120, 3)), np.arange(120) % 2
    monkeypatch.setattr(finding_tables, "tables", lambda: {"noise": (x, y)})
    found = read_tables(3)
    assert found["noise"]["models"] == 3
    assert found["noise"]["gap"] > 0, "noise can but be learnt by heart"
    for one in found.values():
        assert all(-1 <= value <= 1 or math.isnan(value) for value in one["correlations"].values())
