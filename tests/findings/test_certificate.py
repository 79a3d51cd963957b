"""What a certificate says, against random search, dense matrices and hand-made models."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import bilens as bl
import tiny
from bilens.base.errors import NonFiniteError, NotQuadraticError, NumericalError, UsageError
from bilens.findings import certificate as whole
from bilens.findings.certificate import ball_of, box_of, certify_classifier
from bilens.findings.guarantees import (
    enough,
    influence_limits,
    input_use,
    median,
    round_up,
    rounded_copy,
    rounding_stability,
)
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.base import to_json
from bilens.records.common import Exactness
from bilens.records.guarantees import Box, Certificate

DATA = tiny.images()
IMAGES = tiny.labelled(DATA.test_images, DATA.test_labels)


@pytest.fixture(scope="module")
def found() -> Certificate:
    return certify_classifier(tiny.trained(), IMAGES, samples=50)


def centred_map(model: BilinearClassifier) -> bl.QuadraticMap:
    f = model.double().quadratic_map().detach()
    return f.compose_output(bl.centred_directions(f.sizes.d_out))


def dense(f: bl.QuadraticMap) -> Tensor:
    return torch.stack([f.form(row).dense() for row in bl.raw_directions(f.sizes.d_out)])


def test_no_change_shorter_than_a_radius_flips_and_an_example_just_outside_does(
    found: Certificate,
) -> None:
    model, generator = tiny.trained(), torch.Generator().manual_seed(1)
    assert found.l2 is not None
    for item in found.l2.inputs:
        if item.status != "certified":
            assert item.radius == 0
            continue
        assert item.radius is not None
        assert item.distance is not None
        assert item.radius <= item.distance <= item.radius * (1 + 1e-6)
        steps = torch.randn(300, tiny.PIXELS, generator=generator, dtype=torch.float64)
        steps *= item.radius * 0.999 / steps.norm(dim=1, keepdim=True)
        with torch.no_grad():
            scores = model(DATA.test_images[item.index].double() + steps)
        assert bool((scores.argmax(dim=1) == item.label).all())


def read_rows(found: Certificate) -> torch.Tensor:
    assert found.l2 is not None
    return DATA.test_images[[item.index for item in found.l2.inputs]].double()


def test_inputs_are_drawn_at_random_and_not_the_first_ones(found: Certificate) -> None:
    """Broken once: of rows sorted by class the first class alone was read."""
    assert found.l2 is not None
    rows = [item.index for item in found.l2.inputs]
    assert rows == sorted({*rows})
    assert max(rows) > len(DATA.test_images) / 2
    order = DATA.test_labels.argsort(stable=True)
    by_class = tiny.labelled(DATA.test_images[order], DATA.test_labels[order])
    sorted_rows = certify_classifier(tiny.trained(), by_class, samples=50).l2
    assert sorted_rows is not None
    assert {item.label for item in sorted_rows.inputs} == {*DATA.test_labels.tolist()}


def test_radii_are_counted(found: Certificate) -> None:
    radii = found.l2
    assert radii is not None
    with torch.no_grad():
        predicted = tiny.trained()(read_rows(found)).argmax(dim=1)
    labels = DATA.test_labels[[item.index for item in radii.inputs]]
    assert [item.label for item in radii.inputs] == labels.tolist()
    right = int((predicted == labels).sum())
    assert radii.num_right == right
    assert radii.statuses["misclassified"] == 50 - right
    assert sum(radii.statuses.values()) == radii.num_inputs == len(radii.inputs) == 50
    assert radii.curve[0].share == right / 50
    values = [item.radius for item in radii.inputs]
    for point in radii.curve:
        assert point.share == np.mean([v is None or v > point.radius for v in values])
    assert radii.curve[-1].share == 0
    assert np.mean([v is None or v >= (radii.median or 0) for v in values]) >= 0.5
    assert found.linf is not None
    for one, other in zip(found.linf.inputs, radii.inputs, strict=True):
        assert one.index == other.index
        if one.lower is not None and one.upper is not None:
            assert one.lower <= one.upper
            assert other.distance is None or one.lower <= other.distance


def test_truncation_bounds_are_the_next_eigenvalue_and_k_is_enough(found: Certificate) -> None:
    cut = found.truncation
    longest = float(DATA.test_images.double().norm(dim=1).max())  # of all, not of those drawn
    assert (cut.radius, cut.radius_origin, cut.chosen_by) == (longest, "data", "agreement")
    values = np.linalg.eigvalsh(dense(centred_map(tiny.trained())).numpy())
    sizes = -np.sort(-abs(values), axis=1)
    shares = {point.k: point for point in cut.points}
    for k, point in shares.items():
        np.testing.assert_allclose(point.bounds, longest**2 * sizes[:, k], rtol=1e-6, atol=1e-9)
        assert point.certified is not None
        assert point.agreement is not None
        assert point.certified <= point.agreement
    assert cut.chosen is not None
    assert (shares[cut.chosen].certified or 0) >= cut.level
    assert (shares[cut.chosen - 1].certified or 0) < cut.level


def test_moments_of_the_error_are_those_of_the_data(found: Certificate) -> None:
    f, x = centred_map(tiny.trained()), read_rows(found)
    eigs = bl.eigendecompose_all(f, k=None)
    for point in found.truncation.points:
        rest = [eigs[c].eigenvectors[point.k :] @ x.T for c in range(3)]
        tails = [eigs[c].eigenvalues[point.k :] for c in range(3)]
        errors = [tail @ part.square() for tail, part in zip(tails, rest, strict=True)]
        means = [float(error.mean()) for error in errors]
        np.testing.assert_allclose(point.mean or (), means, rtol=1e-8, atol=1e-9)


def test_k_is_found_by_bisection() -> None:
    for answer in range(1, 21):
        assert enough(lambda k, answer=answer: k >= answer, 20) == answer
    assert enough(lambda _k: False, 20) is None
    assert enough(lambda k: k >= 0, 20) == 0


def test_the_strongest_input_is_the_strongest_of_all() -> None:
    """Against all inputs one by one, and random points of the box."""
    for seed, options in enumerate(({}, {"bias": True, "residual": True})):
        model = tiny.classifier(seed, d_input=9, **options)
        f, box = centred_map(model), Box(-0.5, 1.0)
        used = input_use(model.quadratic_map().detach(), f, box)
        low, high = torch.full((9,), -0.5).double(), torch.full((9,), 1.0).double()
        limits = influence_limits(f, box)
        generator = torch.Generator().manual_seed(seed)
        for item in used.influence:
            each = [bl.certify.influence_range(f, i, (low, high), item.output) for i in range(9)]
            reached = [one.reached for one in each]
            assert item.input == int(np.argmax(reached))
            assert item.reached == max(reached) <= item.bound
            assert all(limits[item.output, i] >= one.bound for i, one in enumerate(each))
            x = torch.rand(200, 9, generator=generator).double() * 1.5 - 0.5
            for i in range(9):
                y = x.clone()
                y[:, i] = torch.rand(200, generator=generator).double() * 1.5 - 0.5
                assert float((f(y) - f(x))[:, item.output].abs().max()) <= item.bound


def test_unused_inputs_are_those_that_no_weight_reads() -> None:
    model = tiny.classifier(d_input=9)
    with torch.no_grad():
        model.embed.weight[:, [2, 7]] = 0
    assert certify_classifier(model).input_use.unused == (2, 7)


@pytest.mark.parametrize("place", range(3))
def test_rounding_moves_no_eigenvalue_or_vector_farther_than_is_said(place: int) -> None:
    model = tiny.classifier(bias=True, residual=True)
    found = rounding_stability(model)[place]
    twin = rounded_copy(model, found.kind)  # type: ignore[arg-type]
    assert not tiny.same_weights(model, twin)
    before, after = (dense(centred_map(one)).numpy() for one in (model, twin))
    for c, item in enumerate(found.classes):
        moved = abs(np.linalg.eigvalsh(before[c]) - np.linalg.eigvalsh(after[c])).max()
        assert 0 < moved <= item.movement
        assert np.linalg.norm(before[c] - after[c], 2) <= item.change * (1 + 1e-9)
        assert item.largest == pytest.approx(abs(np.linalg.eigvalsh(before[c])).max())


def test_a_weight_beyond_float16_is_said() -> None:
    found = rounding_stability(tiny.enlarged(1e6))
    assert [item.refused is None for item in found] == [False, True, True]
    assert "beyond float16" in (found[0].refused or "")


def test_two_equal_classes_are_tied_and_have_no_radius() -> None:
    model = tiny.classifier(d_output=3)
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0]
    found = certify_classifier(model, IMAGES, samples=20)
    assert found.l2 is not None
    for item in found.l2.inputs:
        if item.label < 2:
            assert item.radius == 0
            assert item.status in ("tied", "misclassified")
    assert found.truncation.chosen is None or found.truncation.points
    json.dumps(to_json(found), allow_nan=False)


def test_a_model_that_says_nothing_is_certified_to_say_nothing() -> None:
    model = tiny.classifier()
    with torch.no_grad():
        model.head.weight.zero_()
    found = certify_classifier(model, IMAGES, samples=10)
    assert found.l2 is not None
    assert found.l2.statuses["tied"] == 10
    assert found.l2.median == 0
    assert found.truncation.chosen is None
    assert found.input_use.unused == tuple(range(tiny.PIXELS))
    assert all(item.movement == 0 for kind in found.stability for item in kind.classes)
    json.dumps(to_json(found), allow_nan=False)


def test_the_box_and_the_ball_are_said_and_sound() -> None:
    x = torch.tensor([[0.5, -2.0], [3.0, 0.0]], dtype=torch.float64)
    assert box_of(None) is None
    assert box_of(None, (0.0, 1.0)) == box_of(torch.rand(2, 2), (0.0, 1.0))
    assert box_of(None, (0.0, 1.0)) == Box(0.0, 1.0, "pixels")
    assert box_of(torch.rand(2, 2)) == Box(0.0, 1.0, "data")
    assert box_of(x) == Box(-2.0, 3.0, "data")
    assert ball_of(None, None, None, 2) == (1.0, "unit")
    assert ball_of(0.7, x, Box(0, 1), 2) == (0.7, "asked")
    assert ball_of(None, x, Box(0, 1), 2) == (3.0, "data")
    radius, origin = ball_of(None, None, Box(-2.0, 1.0), 3)
    assert origin == "box"
    assert radius >= 2 * math.sqrt(3)
    assert ball_of(None, 0 * x, Box(0, 1), 2)[1] == "box"


def test_the_axis_of_lengths_ends_at_a_round_number() -> None:
    assert [round_up(v) for v in (0.9, 1, 1.01, 2.4, 3.6, 7)] == [1, 1, 2, 2.5, 5, 10]
    assert median(torch.tensor([3.0, 1.0, torch.inf, 2.0])) == 2


def of_pixels() -> LoadedModel:
    return replace(tiny.loaded(tiny.trained()), provenance={"data_name": "strokes"})


def test_without_data_what_needs_none_is_said() -> None:
    found = certify_classifier(of_pixels())
    assert found.l2 is found.linf is found.truncation.chosen is None
    assert found.truncation.points[0].certified is None
    assert found.truncation.radius_origin == "box"
    assert len(found.stability) == len(found.input_use.influence) == 3


def test_a_formula_that_is_not_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Exactness("float64", 1.0, 0.1, 1e-12, 1000, False)
    monkeypatch.setattr(whole, "check_exactness", lambda *_: (wrong,))
    with pytest.raises(NumericalError, match=r"formula and model differ by 1\.0e-01"):
        certify_classifier(tiny.trained())


NAN = DATA.test_images.clone()
NAN[3, 5] = torch.nan
BAD = {
    "two layers": ({"n_layers": 2}, None, {}, NotQuadraticError, "2 layers.*no radius"),
    "a gate": ({"gate": "silu"}, None, {}, NotQuadraticError, "silu gate.*no radius"),
    "one output": ({"d_output": 1}, None, {}, UsageError, "two classes"),
    "k too large": ({}, None, {"truncate": 37}, UsageError, "keep 0 to 36"),
    "k negative": ({}, None, {"truncate": -1}, UsageError, "at least 0"),
    "radius 0": ({}, None, {"radius": 0.0}, UsageError, "radius must be above 0"),
    "radius negative": ({}, None, {"radius": -1.0}, UsageError, "radius must be a finite"),
    "radius NaN": ({}, None, {"radius": math.nan}, UsageError, "radius must be a finite"),
    "no samples": ({}, None, {"samples": 0}, UsageError, "samples must be"),
    "seed": ({}, None, {"seed": 2**32}, UsageError, "below 2"),
    "NaN": ({}, (NAN, DATA.test_labels), {}, NonFiniteError, "non-finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_any_work(name: str) -> None:
    options, data, arguments, error, words = BAD[name]
    model = tiny.classifier(**options)  # type: ignore[arg-type]
    images = None if data is None else tiny.labelled(*data)  # type: ignore[misc]
    with pytest.raises(error, match=words):
        certify_classifier(model, images, **arguments)  # type: ignore[arg-type]


def test_another_module_is_refused() -> None:
    with pytest.raises(UsageError, match="about a BilinearClassifier, got a Linear"):
        certify_classifier(torch.nn.Linear(3, 2))
