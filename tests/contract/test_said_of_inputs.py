"""Guards against a document that says something else of its inputs than what was done with them.

Damage that it notices: the split of an attack unsaid, or said with other numbers.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.api.classifier import attack_model, certify_model
from bilens.data.model_interface import LabelledData
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.common import DataOrigin
from bilens.records.guarantees import Box
from bilens.report.terminal import attack_lines, verdict_lines
from bilens.report.text import LANGUAGES, load_catalogue
from contract.table import cell

COLUMNS = ("age", "width", "price")


def table_model(classes: tuple[str, ...] = ("no", "yes")) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = BilinearClassifier(len(COLUMNS), 5, len(classes), bias=True).double()
    return LoadedModel(module, "m", "0" * 64, None, classes, {}, input_names=COLUMNS)


def table(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, len(COLUMNS))), columns=[*COLUMNS])
    frame.assign(kind=rng.choice(["no", "yes"], size=rows)).to_csv(path, index=False)
    return path


def words_of(page: str) -> str:
    """What a reader sees of a page."""
    return re.sub(r"<[^>]*>", " ", page.partition("</style>")[2].partition("<script")[0])


@cell("attack", "own object")
def test_an_attack_says_how_rows_were_split(tmp_path: Path) -> None:
    """Half of the rows made the perturbations, and the page called them training images."""
    report = attack_model(
        table_model(), table(tmp_path / "people.csv"), target=1, epsilons=[0, 1], restarts=1
    )
    split = report.record.split
    assert split is not None
    assert split.halved
    assert split.made_from + split.judged_on == 60
    assert 0 < split.judged_on < 60
    for lang, words in (("en", "people.csv were split"), ("ja", "people.csv")):
        page = report.to_html(lang=lang)
        assert words in page
        assert f"{split.made_from}" in page
        text = words_of(page)
        for word in ("training image", "test image", "pixel", "学習用の画像", "テスト画像", "画素"):
            assert word not in text, word
    told = " ".join(attack_lines(report.record))
    assert f"made from {split.made_from} of them" in told
    assert "training image" not in told


@cell("attack", "own object")
def test_an_attack_on_a_data_set_says_its_parts() -> None:
    data = tiny.images(name="mnist")
    report = attack_model(tiny.loaded(tiny.trained()), data, target=1, source=0, epsilons=[0, 1])
    split = report.record.split
    assert split is not None
    assert not split.halved
    assert (split.made_from, split.judged_on) == (len(data.train_labels), len(data.test_labels))
    assert f"{split.made_from} training inputs of mnist, and judged on" in report.to_html()


@cell("certify", "other units")
@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_certificate_knows_no_box_that_nobody_told_it(lang: Any) -> None:
    """Of any inputs without data, between 0 and 1 was taken for granted."""
    report = certify_model(table_model())
    proven = report.record
    assert proven.box is None
    assert proven.input_use.influence == ()
    assert (proven.truncation.radius, proven.truncation.radius_origin) == (1.0, "unit")
    text = words_of(report.to_html(lang=lang))
    assert load_catalogue(lang)("proven.influence.unknown") in text
    assert load_catalogue(lang)("proven.truncation.unit", radius="1.00000") in text
    audited = bl.audit(table_model().module, null_samples=39).record.guarantees
    assert audited is not None
    assert audited.box is None


@cell("certify", "other units")
def test_a_certificate_says_where_its_box_is_from() -> None:
    pixels = replace(tiny.loaded(tiny.trained()), provenance={"data_name": "mnist"})
    known = certify_model(pixels).record
    assert known.box == Box(0.0, 1.0, "pixels")
    assert known.truncation.radius_origin == "box"
    x = torch.tensor([[0.5, -2.0, 1.0], [3.0, 0.0, 0.5]], dtype=torch.float64)
    data = LabelledData(x, torch.tensor([0, 1]), DataOrigin("", "", "tensors", 2, ""))
    found = certify_model(table_model(), data)
    assert found.record.box == Box(-2.0, 3.0, "data")
    for lang in LANGUAGES:
        assert load_catalogue(lang)("proven.box.data") in words_of(found.to_html(lang=lang))


class WithDropout(nn.Module):
    """An MLP that answers otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(4, 6), nn.Linear(6, 3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.drop(torch.relu(self.up(x))))


@cell("audit", "own object")
@pytest.mark.parametrize("training", [True, False])
def test_a_module_in_training_is_said_to_be_judged_in_evaluation(training: bool) -> None:
    module = WithDropout().double().train(training)
    report = bl.audit(module, null_samples=5)
    record: Any = report.record
    assert record.source.given_in_training is training
    assert module.training is module.drop.training is training
    for lang in LANGUAGES:
        words = load_catalogue(lang)("decision.in_evaluation")
        lines = " ".join(verdict_lines(record, lang))
        assert words_of(report.to_html(lang=lang)).count(words) == lines.count(words) == training


@cell("audit", "without effect")
def test_a_mode_that_changes_nothing_is_not_said() -> None:
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    assert plain.training
    found: Any = bl.audit(plain, null_samples=5).record
    own: Any = bl.audit(tiny.trained().train(), null_samples=39).record
    assert not found.source.given_in_training
    assert not own.source.given_in_training


@cell("certify", "own object", "other function")
@cell("attack", "own object", "other function")
@pytest.mark.parametrize("end", [0, 1])
def test_a_box_that_one_number_leaves_is_not_the_box_of_the_data(end: int) -> None:
    """Of data between 0 and 3 a box was told that ends at 1, and attacks were clipped to it."""
    inside = torch.rand(40, tiny.PIXELS, generator=torch.Generator().manual_seed(0)).double()
    labels, more = torch.arange(40) % 3, inside.clone()
    more[7, 5] = (-0.5, 3.0)[end]
    model = replace(tiny.loaded(tiny.trained()), provenance={"data_name": "mnist"})
    assert certify_model(model, (inside, labels)).record.box == Box(0.0, 1.0, "pixels")
    box = Box(min(0.0, float(more.min())), max(1.0, float(more.max())), "data")
    assert certify_model(model, (more, labels)).record.box == box
    for x, cut in ((inside, True), (more, False)):
        record = attack_model(model, (x, labels), target=1, epsilons=[0, 1], restarts=1).record
        assert [one.clipped_images > 0 for one in record.objectives] == [cut]
