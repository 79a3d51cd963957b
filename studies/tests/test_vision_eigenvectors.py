"""Spectra in two bases on planted classifiers: what is read is what was planted."""

import dataclasses
from pathlib import Path

import pytest
import torch

import tiny
from bilens.nn import BilinearClassifier
from bilens_studies import eigenvectors, explanations, shared, vision
from bilens_studies.drawings import Tile, TileRow, tile_plate, vector_image
from bilens_studies.reproduction import reproduce
from bilens_studies.study import Record, StudyOptions

EXPLANATIONS = explanations.ExplanationStudy()


def planted(embed: torch.Tensor, values: torch.Tensor) -> BilinearClassifier:
    """Class c is Σ_i values[c, i] (embed x)_i², so in the embedding basis its spectrum is a row."""
    hidden, pixels = embed.shape
    model = BilinearClassifier(pixels, hidden, len(values)).double()
    eye = torch.eye(hidden, dtype=torch.float64)
    weights = {"embed": embed, "layers.0.left": eye, "layers.0.right": eye, "head": values}
    model.load_state_dict({f"{name}.weight": weight for name, weight in weights.items()})
    return model


def test_both_bases_are_read_of_one_classifier() -> None:
    data = tiny.images()
    values = torch.tensor([[3.0, -2, 0.5], [1, -4, 0.5], [2, 1, 0.5]], dtype=torch.float64)
    scales = torch.tensor([1.0, 2, 1], dtype=torch.float64)  # the second direction counts fourfold
    rows = torch.linalg.qr(torch.randn(tiny.PIXELS, 3, dtype=torch.float64)).Q.T
    model = planted(scales[:, None] * rows, values)
    found = eigenvectors.EigenvectorStudy().read_model(StudyOptions(), model.float(), data)
    assert found["embedding"]["ends"][0][:2] == pytest.approx([3, 0.5], rel=1e-6)
    assert found["embedding"]["ends"][1][-1] == pytest.approx(-4, rel=1e-6)
    assert found["input"]["ends"][0][:2] == pytest.approx([3, 0.5], rel=1e-5)
    assert found["input"]["ends"][0][-1] == pytest.approx(-8, rel=1e-5)
    # class 0: 3 leads in the embedding, −8 in pixels; class 2: 2 before 1, and 4 before 2
    assert found["cosines"] == pytest.approx([0, 1, 0], abs=1e-5)
    assert (found["embedding"]["width"], found["input"]["width"]) == (3, 3)
    assert all(len(images) == 6 for images in found["input"]["images"])  # of each sign three


def test_a_plate_draws_each_tile_and_each_bar() -> None:
    image = vector_image([0.0, 1.0, -1.0, 0.0], (2, 2))
    rows = [TileRow("one", [Tile(image, "+1"), Tile(image)], [1.0, -2.0]), TileRow("two", [])]
    svg = tile_plate("title", "note", rows)
    assert svg.count("<image") == 2
    assert svg.count('class="blue"') == svg.count('class="red"') == 1
    assert "+1" in svg
    assert "two" in svg


def test_the_studies_are_told_and_leave_open_what_they_did_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "QUICK", {"epochs": 2, "batch_size": 60, "d_hidden": 6})
    monkeypatch.setattr(StudyOptions, "images", lambda *_: tiny.images())
    names = [f"vision/{name}" for name in ("eigenvectors", "hosvd", "shared", "explanations")]
    document = reproduce(names, tmp_path, StudyOptions(seeds=1, quick=True))
    rows = [row for one in document["studies"].values() for row in one["findings"]]
    assert not any("|" in row["quantity"] + row["claim"] for row in rows)  # of a table
    ours = {row["quantity"]: row["ours"] for row in rows}
    unread = ("fashion-mnist", "h = 512", "test image", "64 products")
    assert {value for name, value in ours.items() if name.startswith(unread)} == {None}
    assert sum(value is not None for value in ours.values()) == 6
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") == sum(1 for _ in tmp_path.glob("vision/*/*.svg"))
    assert "6 hidden units, 2 epochs" in page


def test_the_width_of_the_published_spectra_is_judged_and_the_other_told() -> None:
    def model(first: float) -> Record:
        found = {"singular_values": [first, 0.5], "eigenvalues": [[0.3, -0.2]]}
        return {"embedding": found}

    recipes = [{"d_hidden": width} for width in eigenvectors.WIDTHS]
    runs = [{"recipes": recipes, "512": model(0.6), "256": model(0.4)}] * 3
    found = eigenvectors.HosvdStudy().reproduced({"mnist": runs})
    assert set(found) == set(eigenvectors.HosvdStudy().published)
    assert found["first"].values == (0.6,) * 3
    assert found["first"].note.startswith("h = 256: 0.400")


def test_shared_directions_are_those_that_were_planted() -> None:
    """Two output directions, each with a matrix of its own: the published scale is read of them."""
    data = tiny.images()
    u = torch.tensor([[1.0, -1, 0], [1, 1, -2]], dtype=torch.float64)
    u = u / u.norm(dim=1, keepdim=True)
    matrices = torch.tensor([[3.0, -4, 0, 0], [0, 0, 1.2, 0.5]], dtype=torch.float64)
    rows = torch.linalg.qr(torch.randn(tiny.PIXELS, 4, dtype=torch.float64)).Q.T
    model = planted(rows, u.T @ matrices).float()
    found = eigenvectors.HosvdStudy().read_model(StudyOptions(), model, data)
    for basis in ("embedding", "input"):  # an orthonormal embedding: both are one
        assert found[basis]["singular_values"][:2] == pytest.approx([5, 1.3], rel=1e-5)
        direction = torch.tensor(found[basis]["directions"][0], dtype=torch.float64)
        assert abs(float(direction @ u[0])) == pytest.approx(1, rel=1e-6)
        ends = found[basis]["eigenvalues"][0]
        assert sorted([max(ends), -min(ends)]) == pytest.approx([0.6, 0.8], rel=1e-5)


def test_components_are_found_where_they_were_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two products: as many are enough, and one form of each class takes more numbers."""
    data = tiny.images()
    rows = torch.linalg.qr(torch.randn(tiny.PIXELS, 4, dtype=torch.float64)).Q.T
    head = torch.tensor([[1.0, -1, 0, 0], [1, 1, 0, 0], [-2, 0, 0, 0]], dtype=torch.float64)
    monkeypatch.setattr(shared, "BUDGETS", (1, 2))
    model = planted(rows, head).float()
    found = shared.SharedStudy().read_model(StudyOptions(), model, data)
    assert found["ways"]["eigenvectors"][-1]["error"] < 1e-5
    assert found["ways"]["eigenvectors"][0]["error"] > 0.1
    assert [row["size"] for row in found["ways"]["products"]] == [1, 2]
    assert found["ways"]["products"][-1]["error"] < 1e-5  # of 75 numbers each: two in 2 · 3 · 37
    enough, many = found["duals"]
    assert max(enough.values()) < 1e-9
    assert many["error"] < 1e-9
    assert many["off_target"] > 0.1


def test_numbers_of_one_component_are_counted_for_every_class() -> None:
    counts = {way: count(1, 20, 3) for way, count in shared.PARAMETERS.items()}
    assert counts == {"eigenvectors": 63, "products": 43}


def test_sums_are_compared_with_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.classifier().float()
    exact = EXPLANATIONS.read_model(StudyOptions(), model, tiny.images())
    assert exact["error"] < 1e-12
    wrong = model.quadratic_map("embedding") * 1.5
    monkeypatch.setattr(model, "quadratic_map", lambda *_: wrong)
    found = EXPLANATIONS.read_model(StudyOptions(), model, tiny.images())
    assert found["error"] == pytest.approx(0.5, rel=1e-4)


def test_shares_of_a_decision_are_sums_of_its_parts() -> None:
    """Class 0 is read for x₀² alone; class 1 is never raised; class 2 is lowered by x₂²."""
    data = tiny.images()
    images = torch.zeros(4, tiny.PIXELS)
    images[[0, 1, 2, 3], [0, 0, 1, 0]] = 1.0
    images[3, 0] = 0.5
    images[3, 1] = 1.0
    eye = torch.eye(3, tiny.PIXELS, dtype=torch.float64)
    head = torch.tensor([[4.0, 0, 0], [-1, 2, 0], [0, 0, -3]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 0])
    data = dataclasses.replace(data, test_images=images, test_labels=labels)
    found = EXPLANATIONS.read_model(StudyOptions(), planted(eye, head).float(), data)
    # image 3: logits 1, 1.75, 0: a 0 read as 1. Right zeros: parts 4, so it lacks 3 of them; the
    # answer has 1.75 where it has −1 at right zeros: 2.75 more
    wrong = found["examples"]["by rule, wrong"]
    assert wrong["predicted"] == 1
    assert wrong["missing"] == pytest.approx(3 / 5.75)
    assert wrong["margin"] == pytest.approx(0.75)
    typical = found["examples"]["by rule, typical"]
    assert typical["label"] == 0
    assert typical["rival"] == 2
    assert typical["suppression"] == pytest.approx(0, abs=1e-6)
    assert found["error"] < 1e-12


def test_few_eigenvalues_carry_a_planted_form_and_not_a_random_one() -> None:
    planted = torch.tensor([[9.0, -3.0, *[0.1] * 30]])
    assert eigenvectors.carriers(planted).tolist() == [2]
    torch.manual_seed(0)
    drawn = BilinearClassifier(32, 32, 3)
    counts = eigenvectors.carriers(vision.class_spectra(drawn, "embedding").eigenvalues)
    assert min(counts.tolist()) > 0.4 * 32
