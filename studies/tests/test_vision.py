"""Studies of images: what is read from planted weights is the truth; small studies run whole.

Broken once: with pixels counted dark above `DARK`, with spectra of the embedding called those of
the input, with shares in the place of published ranks; with ratios upside down, with `PART`
ignored; with as many ReLU neurons as products.
"""

import dataclasses
from pathlib import Path

import pytest
import torch

import tiny
from bilens import eigendecompose_all, whiten
from bilens.algebra.gaussian import mean_and_covariance
from bilens.train.tasks.image import accuracy, new_classifier, train_classifier
from bilens_studies import (
    corners,
    explanations,
    regularisation,
    replacing,
    vision,
)
from bilens_studies.published import Published, Reproduced, finding
from bilens_studies.reproduction import reproduce
from bilens_studies.study import Record, StudyOptions


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


def test_the_root_of_a_covariance_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    root = vision.symmetric_root
    monkeypatch.setattr(vision, "symmetric_root", lambda *args: taken.append(1) or root(*args))
    data = tiny.images()
    for seed in (0, 1):
        vision.class_spectra(tiny.classifier(seed), "whitened", data)
    assert taken == [1]


@pytest.mark.parametrize("hidden", [8, 50])  # pixels: 36
@pytest.mark.parametrize("basis", ["input", "whitened"])
def test_spectra_in_the_space_of_the_embedding_are_whole(basis: str, hidden: int) -> None:
    data, recipe = tiny.images(), dataclasses.replace(tiny.RECIPE, d_hidden=hidden)
    model = new_classifier(recipe, data).double()
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    f = model.quadratic_map().detach()
    if basis == "whitened":
        mean, covariance = mean_and_covariance(data.train_images)
        f = whiten(f, covariance, mean)
    whole, found = eigendecompose_all(f), vision.class_spectra(model, basis, data)
    num = min(hidden, tiny.PIXELS)
    assert torch.allclose(found.eigenvalues, whole.eigenvalues[:, :num], rtol=1e-9, atol=1e-12)
    assert whole.eigenvalues[:, num:].abs().sum() < 1e-9
    if basis == "input":
        x = data.test_images.double()
        assert torch.allclose(found.contributions(x).total().T, f(x), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("small")
def test_the_corners_are_told_each_under_its_name(tmp_path: Path) -> None:
    options = StudyOptions(quick=True, seeds=3)
    document = reproduce(["vision/corners"], tmp_path, options)["studies"]["vision/corners"]
    assert list(document["result"]["data"]) == ["mnist"]
    rows = {row["quantity"]: row for row in document["findings"]}
    assert rows["mnist, both: accuracy"]["runs"] == 3
    assert rows["fashion-mnist, both: accuracy"]["verdict"] == "not measured"
    folders = list((tmp_path / "models").iterdir())
    assert len(folders) == 3 * len(corners.CORNERS)
    page = (tmp_path / "index.html").read_text()
    assert "<h3>mnist</h3>" in page
    assert "pixels used" in page


def test_the_published_corners_agree_with_themselves() -> None:
    study = corners.CornerStudy()
    data: Record = {}
    for name, published in study.published.items():
        images, corner, quantity = name.split(" ")
        data.setdefault(images, {}).setdefault(corner, {})[quantity] = [published.value] * 3
    splits = dict.fromkeys(corners.CORNERS, (0.5, 0.6, 0.7))
    result = {"data": data, "splits": splits, "pixels": 0.3528}
    ours = study.reproduced(result)
    assert set(ours) == set(study.published)
    for name, one in ours.items():
        assert finding(study.published[name], one)["verdict"] == "agrees"
    told = "other test images: between 3 random splits standard deviation 0.1000"
    assert ours["fashion-mnist none accuracy"].note == told
    assert ours["mnist none accuracy"].note == ""


def test_a_split_holds_every_image_once() -> None:
    data = tiny.images()
    anew = corners.split_anew(data, 0)
    both = [torch.cat([one.train_images, one.test_images]) for one in (data, anew)]
    before, after = (sorted(images.tolist()) for images in both)
    assert before == after
    each = len(data.test_labels) // len(data.class_names)
    assert anew.test_labels.bincount().tolist() == [each] * len(data.class_names)
    assert not torch.equal(anew.test_images, data.test_images[: len(anew.test_images)])


@pytest.mark.usefixtures("small")
def test_a_grid_is_repeated_for_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regularisation, "DISTURBANCES", {"blur": ("0.4",), "dropout": ("0.3",)})
    name, options = "vision/regularisation", StudyOptions(quick=True, seeds=2)
    document = reproduce([name], tmp_path, options)["studies"][name]
    grid = document["result"]["grid"]
    assert list(grid) == ["0", "0.4", "1"]
    accuracies = grid["0"]["1"]["accuracy"]
    rows = {row["quantity"]: row for row in document["findings"]}
    assert rows["accuracy at noise 0, weight decay 1"]["ours"] == pytest.approx(sum(accuracies) / 2)
    assert len(list((tmp_path / "models").iterdir())) == 2 * (9 + 2 * 2)  # each trained once
    page = (tmp_path / "index.html").read_text()
    assert page.count("<image") == 2 * 3
    assert "not measured" in page
    assert "none</td>" in page


def cell(seeds: int = 1, **values: float) -> dict[str, list[float]]:
    given = dict.fromkeys(vision.MEASURES, 1.0) | values
    return {name: [value] * seeds for name, value in given.items()}


def test_noise_and_decay_are_told_apart_in_a_grid() -> None:
    grid = {
        noise: {
            decay: cell(
                effective_rank_input=rank, effective_rank_embedding=2 * rank, sparsity=pixels
            )
            for decay, rank in (("0", ranks[0]), ("1", ranks[1]))
        }
        for noise, ranks, pixels in (("0", (20.0, 10.0), 4.0), ("1", (60.0, 40.0), 3.0))
    }
    result: Record = {"grid": grid, "recipe": {"d_hidden": 256}}
    result["disturbed"] = {"blur": {"0.2": {noise: one["1"] for noise, one in grid.items()}}}
    found = read_claims(result)
    told = {name: (one.values, one.holds) for name, one in found.items()}
    assert told["noise input"] == told["noise embedding"] == ((3.0,), True)
    assert told["decay input"] == ((pytest.approx(2 / 3),), True)
    assert told["noise sparsity"] == ((0.75,), True)
    assert told["decay sparsity"] == ((1.0,), True)
    for one in grid.values():
        one["1"]["sparsity"] = [2.0]
    assert read_claims(result)["decay sparsity"].holds is False
    assert finding(*rank_row(result))["verdict"] not in ("agrees", "differs")  # another width
    result["recipe"] = {"d_hidden": 512}
    assert finding(*rank_row(result))["ours"] == 40


def read_claims(result: Record) -> dict[str, Reproduced]:
    return dict(regularisation.RegularisationStudy().reproduced(result))


def rank_row(result: Record) -> tuple[Published, Reproduced]:
    key = "rank 0 0"
    return regularisation.RegularisationStudy().published[key], read_claims(result)[key]


def test_the_full_size_repeats_a_grid_for_an_interval() -> None:
    study = regularisation.RegularisationStudy()
    assert len(study.seeds(StudyOptions(full=True))) == 3
    assert len(study.seeds(StudyOptions())) == 1


def test_disturbances_are_judged_against_the_same_noise_without() -> None:
    def both(**values: float) -> dict[str, dict[str, list[float]]]:
        return {noise: cell(accuracy=0.9, **values) for noise in ("0", "0.4")}

    result = {
        "grid": {
            noise: {"1": cell(accuracy=right, sparsity=pixels)}
            for noise, right, pixels in (("0", 0.9, 2.0), ("0.4", 0.91, 1.0))
        },
        "recipe": {"d_hidden": 512},
        "disturbed": {
            "blur": {"0.2": both(roughness=3.0), "0.4": both(roughness=0.5)},
            "salt-and-pepper": {"0.1": both()},
            "dropout": {"0.1": both()},
        },
    }
    found = regularisation.read_disturbances(result)
    assert (found["sharpens"].values, found["sharpens"].holds) == ((0.5,), True)
    assert (found["blur"].values, found["blur"].holds) == ((0.5,), True)
    assert found["salt-and-pepper"].values == (pytest.approx(-0.5),)
    assert found["salt-and-pepper"].holds
    assert found["dropout"].holds is False  # half a point, and pixels used × 0.75
    assert "× 0.75" in found["dropout"].note


def test_published_images_are_shown_where_they_are_those(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = tiny.images(), new_classifier(tiny.RECIPE, tiny.images())
    labels = data.test_labels.tolist()

    def read() -> Record:
        found = explanations.ExplanationStudy().read_model(StudyOptions(), model, data)
        return dict(found["examples"])

    images = dict(zip(explanations.PUBLISHED_IMAGES, [(3, labels[3]), (5, labels[5])], strict=True))
    monkeypatch.setattr(explanations, "PUBLISHED_IMAGES", images)
    found = read()
    assert [found[name]["index"] for name in images] == [3, 5]
    for other in ((5, labels[5] + 1), (len(labels), 0)):
        images["published, wrong"] = other
        assert not set(read()) & set(images)


@pytest.mark.usefixtures("small")
def test_layers_of_equal_weights_are_trained_and_tested_alike(tmp_path: Path) -> None:
    name = "vision/replacing"
    options = StudyOptions(quick=True, seeds=3)
    document = reproduce([name], tmp_path, options)["studies"][name]
    (run, *_) = document["result"]["mnist"]
    assert run["weights"]["bilinear"] == run["weights"]["silu"]
    assert run["weights"]["relu"] == pytest.approx(run["weights"]["bilinear"], rel=0.02)
    assert set(run["relu"]) == set(run["relu"]["noise"]) == {"clean", "noise"}
    row = next(row for row in document["findings"] if row["runs"])
    assert row["low"] is not None


def test_relu_neurons_are_trained_as_products_are() -> None:
    recipe = tiny.RECIPE
    task = replacing.ReluTask(tiny.images(), recipe)
    model, other = task.start().model, new_classifier(recipe, tiny.images())
    assert torch.equal(model.embed.weight, other.embed.weight)
    assert (model(torch.randn(5, tiny.PIXELS)) != 0).any()
    before = [part.clone() for part in model.parameters()]
    trained = train_classifier(tiny.images(), recipe, replacing.ReluTask)
    after = list(trained.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    data = tiny.images()
    assert accuracy(trained, data.test_images, data.test_labels) > 0.5


def test_the_relu_layer_has_as_many_weights() -> None:
    assert replacing.relu_width(256, 10) == 502  # 266 · 502 weights against 2 · 256² + 2,560


def test_what_it_costs_is_a_difference_of_the_same_seed() -> None:
    runs = [
        {kind: {"clean": {"clean": right}} for kind, right in (("bilinear", a), ("relu", b))}
        for a, b in ((0.9, 0.91), (0.8, 0.8), (0.97, 0.97))
    ]
    assert replacing.costs(runs, "relu", "clean", "clean") == pytest.approx((-1, 0, 0))
