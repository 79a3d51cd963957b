"""Studies of images: what is read from planted weights is the truth; small studies run whole.

Broken once: with pixels counted dark above `DARK`, with spectra of the embedding called those of
the input, with shares in the place of published ranks.
"""

from pathlib import Path

import pytest
import torch

import tiny
from bilens.studies import corners, vision
from bilens.studies.comparison import finding
from bilens.studies.reproduction import reproduce
from bilens.studies.study import StudyOptions


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study reads the small images, and trains little on them."""
    monkeypatch.setattr(StudyOptions, "images", lambda *_: tiny.images())
    monkeypatch.setattr(vision, "QUICK", {"epochs": 2, "batch_size": 60, "d_hidden": 6})


def test_a_planted_classifier_is_read_as_it_is() -> None:
    data = tiny.images()
    data.train_images[:, 0] = 0  # a pixel that is always dark
    first, second = ([float(i == pixel) for i in range(tiny.PIXELS)] for pixel in (0, 7))
    model = tiny.planted([(first, first, [3.0, 1.0]), (second, second, [1.0, 1.0])], tiny.PIXELS)
    with torch.no_grad():
        model.embed.weight.mul_(2)
        model.embed.weight[7] /= 4
    found = vision.read_classifier(model.float(), data)
    assert set(found) == set(vision.MEASURES)
    ranks = {  # 3 h_0² + h_7² and h_0² + h_7²; 12 x_0² + x_7² / 4 and 4 x_0² + x_7² / 4
        "embedding": (4**2 / 10 + 2) / 2,
        "input": (12.25**2 / (144 + 1 / 16) + 4.25**2 / (16 + 1 / 16)) / 2,
    }
    for basis, rank in ranks.items():
        assert found[f"effective_rank_{basis}"] == pytest.approx(rank, rel=1e-5)
    assert found["top_share_input"] == pytest.approx(1)


def test_leading_eigenvectors_are_measured_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.images()
    data.train_images[:, 0] = 0
    three = [float(i < 3) for i in range(tiny.PIXELS)]  # one of the three is dark
    model = tiny.planted([(three, three, [1.0, 2.0])], tiny.PIXELS)
    monkeypatch.setattr(vision, "LEADING", 1)
    found = vision.read_classifier(model.float(), data)
    assert found["sparsity"] == pytest.approx(3)
    assert found["dark_mass"] == pytest.approx(1 / 3)


@pytest.mark.usefixtures("small")
def test_the_corners_are_told_each_under_its_name(tmp_path: Path) -> None:
    options = StudyOptions(quick=True, seeds=3)
    document = reproduce(["vision/corners"], tmp_path, options)["studies"]["vision/corners"]
    assert list(document["result"]) == ["mnist"]
    rows = {row["quantity"]: row for row in document["findings"]}
    assert rows["mnist, both: accuracy"]["runs"] == 3
    assert rows["fashion-mnist, both: accuracy"]["verdict"] == "not measured"
    folders = list((tmp_path / "models").iterdir())
    assert len(folders) == 3 * len(corners.CORNERS)
    page = (tmp_path / "index.html").read_text()
    assert "<h3>mnist</h3>" in page
    assert "pixels used" in page


def test_the_published_corners_agree_with_themselves() -> None:
    result = {
        data: {
            corner: dict(zip(corners.QUANTITIES, ([row[0]], [row[2]], [row[4]]), strict=True))
            for corner, row in found.items()
        }
        for data, found in corners.TABLE.items()
    }
    study = corners.CornerStudy()
    ours = study.ours(result)
    assert set(ours) == set(study.published)
    for name, one in ours.items():
        assert finding(study.published[name], one)["verdict"] == "agrees"
