"""Readings of overfitting: at the start of training as theory has it, on planted weights exactly.

Damage seen to fail: an edge of the singular values without the square root of the inputs, an
interval around the gap instead of its logarithm, a rank that counts equal scores as smaller or
stays the same between quantiles, a range that is not looked at, a margin over the slopes of all
pairs.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from msgspec import structs
from torch import Tensor

import tiny
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.exact_classifier import class_centred
from bilens.findings.image_warnings import classifier_map, read_warnings
from bilens.findings.leads import Leads, usual_length
from bilens.findings.overfitting import (
    FLOOR,
    gaussian_blob,
    inner_part,
    margin,
    read_overfitting,
    steepness,
    weight_readings,
)
from bilens.findings.reference import OFFSET, OVERFITTING
from bilens.findings.subject import gauge_free, in_float64
from bilens.nn import BilinearClassifier
from builders import randn

SHAPE = (28, 28)


def started(seed: int = 0, d_hidden: int = 64, d_input: int = 784) -> BilinearClassifier:
    torch.manual_seed(seed)
    return BilinearClassifier(d_input, d_hidden, 10).double()


def leads_of(model: BilinearClassifier, shape: tuple[int, int] = SHAPE) -> Leads:
    return classifier_map(model, class_centred(model)).leads(shape)


def test_a_spot_is_round_and_in_the_middle() -> None:
    blob = gaussian_blob((8, 4)).reshape(8, 4)
    assert torch.allclose(blob, blob.flip(0))
    assert torch.allclose(blob, blob.flip(1))
    assert float(blob.norm()) == pytest.approx(1)
    assert float(blob[3, 1] / blob[1, 1]) == pytest.approx(math.exp(8 * (2.5**2 - 0.5**2) / 64))


def test_steepness_is_the_slope_of_leads_at_a_spot_of_ink() -> None:
    model, shape = tiny.trained(), (tiny.SIDE, tiny.SIDE)
    point = usual_length(tiny.PIXELS) * gaussian_blob(shape)
    jacobian = torch.autograd.functional.jacobian(in_float64(model), point).detach()
    pairs = ((0, 1), (0, 2), (1, 2))
    slopes = [float((jacobian[first] - jacobian[second]).norm()) for first, second in pairs]
    found = steepness(gauge_free(model.quadratic_map().detach()), shape)
    assert found == pytest.approx(sorted(slopes)[1])


@pytest.mark.parametrize("d_hidden", [64, 256])
def test_at_the_start_of_training_every_ratio_is_that_of_theory(d_hidden: int) -> None:
    found = weight_readings(started(d_hidden=d_hidden).embed.weight, SHAPE)
    for name in ("growth", "breadth", "fine"):
        assert found[name] == pytest.approx(1, abs=0.2), name
    assert found["learnt"] == pytest.approx(FLOOR, abs=2.1 / d_hidden)


@pytest.mark.parametrize("factor", [1e-3, 0.5, 3.0])
def test_what_is_a_ratio_of_frequencies_has_no_scale(factor: float) -> None:
    first = started().embed.weight.detach()
    one, other = weight_readings(first, SHAPE), weight_readings(factor * first, SHAPE)
    for name in ("fine", "breadth"):
        assert other[name] == pytest.approx(one[name])
    assert other["growth"] == pytest.approx(factor * one["growth"])


def test_a_strong_direction_is_learnt_and_a_weak_one_is_not() -> None:
    edge = (math.sqrt(784) + math.sqrt(64)) / math.sqrt(3 * 784)
    rows = torch.linalg.qr(randn(784, 64)).Q.T
    strengths = torch.full((64, 1), 0.99 * edge, dtype=torch.float64)
    strengths[:16] = 1.01 * edge
    found = weight_readings(strengths * rows, SHAPE)
    assert found["learnt"] == pytest.approx(16 / 64 + FLOOR)


def test_breadth_is_of_the_tenth_of_inputs_with_the_largest_weights() -> None:
    first = torch.ones(8, 784, dtype=torch.float64) / math.sqrt(3 * 784)
    first[:, :80] *= 4  # 78 are a tenth
    mean_square = (80 * 16 + 704) / 784
    assert weight_readings(first, SHAPE)["breadth"] == pytest.approx(4 / math.sqrt(mean_square))


def test_the_margin_is_a_lead_over_a_slope() -> None:
    """f_t(x) = 3 t-th template · x: on its template a class leads by all of it."""
    leads = leads_of(started())
    templates = torch.eye(10, 784, dtype=torch.float64)
    rows = torch.zeros(1, 784, dtype=torch.float64)
    tensor = BilinearTensor(torch.zeros(10, 1, dtype=torch.float64), rows, rows)
    f = QuadraticMap(tensor, linear=3 * templates)
    found = margin(replace(leads, f=f, templates=templates))
    assert found == pytest.approx(3 * usual_length(784) / (3 * math.sqrt(2)))


def waves(row: int, column: int, shape: tuple[int, int]) -> Tensor:
    down, across = (
        torch.cos(math.pi * wave * (torch.arange(side).double() + 0.5) / side)
        for wave, side in zip((row, column), shape, strict=True)
    )
    return torch.outer(down, across).flatten()


def test_fine_waves_are_compared_with_coarse_ones_away_from_the_edges() -> None:
    size = (20, 20)  # what is left of an image
    fine, coarse, other = waves(13, 2, size), waves(3, 1, size), waves(9, 0, size)
    rows = torch.zeros(3, *SHAPE, dtype=torch.float64)
    rows[:, 4:-4, 4:-4] = torch.stack([fine, 2 * coarse, 9 * other]).reshape(3, *size)
    frequency = torch.maximum(torch.arange(20)[:, None], torch.arange(20)) / 20
    bands = (frequency >= 0.6) & (frequency < 0.8), frequency < 0.24
    waved = fine, 2 * coarse
    power = [float(x.square().sum()) / int(b.sum()) for x, b in zip(waved, bands, strict=True)]
    assert weight_readings(rows.flatten(1), SHAPE)["fine"] == pytest.approx(power[0] / power[1])


def test_edges_are_left_out() -> None:
    image = torch.zeros(14, 28)
    image[2:-2, 4:-4] = 1
    inner, size = inner_part(image.flatten()[None], (14, 28))
    assert size == (10, 20)
    assert bool((inner == 1).all())


def usual(**changes: float) -> dict[str, float]:
    """Readings in the middle of the reference models without a gap."""
    middle = {name: math.sqrt(low * high) for name, (low, high) in OVERFITTING.usual.items()}
    return {**middle, **changes}


def test_the_gap_is_a_line_in_logarithms_and_between_nothing_and_all() -> None:
    found = usual()
    exponent = OVERFITTING.intercept
    for name, weight in OVERFITTING.weights.items():
        exponent += weight * math.log(found[name])
        more = OVERFITTING.gap({**found, name: 2 * found[name]})
        assert (more > OVERFITTING.gap(found)) == (weight > 0)
    assert OVERFITTING.gap(found) == pytest.approx(math.exp(exponent) - OFFSET)
    assert OVERFITTING.gap(usual(steepness=1e-9)) == 0
    assert OVERFITTING.gap(usual(steepness=1e9)) == pytest.approx(1 - OFFSET)


def test_the_interval_is_that_of_the_logarithm() -> None:
    found = usual()
    (low, high), gap = OVERFITTING.interval(found), OVERFITTING.gap(found)
    assert low <= gap <= high
    half = 1.645 * OVERFITTING.spread
    assert math.log(high + OFFSET) - math.log(gap + OFFSET) == pytest.approx(half)
    assert low == pytest.approx(max((gap + OFFSET) * math.exp(-half) - OFFSET, 0))
    assert OVERFITTING.interval(usual(steepness=1e9))[1] == pytest.approx(1 - OFFSET)


def test_the_rank_is_the_share_of_smaller_scores() -> None:
    reference = structs.replace(OVERFITTING, scores=[0.0, 0.1, 0.1, 0.3])
    ranks = [reference.rank(score) for score in (0.0, 0.1, 0.2, 1.0)]
    assert ranks == pytest.approx([0, 1 / 3, 5 / 6, 1])


def test_the_rank_is_above_its_threshold_exactly_where_the_score_is() -> None:
    """The rates that are told are of scores above 0.05; the verdict compares ranks."""
    limit = OVERFITTING.rank(OVERFITTING.threshold)
    assert OVERFITTING.rank(0.0499) < limit < OVERFITTING.rank(0.0501)


def test_what_lies_outside_of_the_reference_models_is_seen_on_each_side() -> None:
    assert not OVERFITTING.is_outside(usual())
    for name, (low, high) in OVERFITTING.ranges.items():
        assert not OVERFITTING.is_outside(usual(**{name: math.exp(low + 1e-9)}))
        for value in (math.exp(low - 0.01), math.exp(high + 0.01), 0.0, math.inf, math.nan):
            assert OVERFITTING.is_outside(usual(**{name: value}))


def fixed(monkeypatch: pytest.MonkeyPatch, found: Mapping[str, float]) -> None:
    monkeypatch.setattr("bilens.findings.overfitting.readings", lambda *_: dict(found))


def test_a_score_stands_with_its_interval_rank_and_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed(monkeypatch, usual())
    model = started()
    found = read_overfitting(leads_of(model, SHAPE), model.embed.weight)
    gap = OVERFITTING.gap(usual())
    assert (found.score, found.low, found.high) == (gap, *OVERFITTING.interval(usual()))
    assert (found.rank, found.reason) == (OVERFITTING.rank(gap), "")
    assert found.threshold == OVERFITTING.rank(0.05)
    assert [(part.name, part.low, part.high) for part in found.parts] == [
        (name, *OVERFITTING.usual[name]) for name in OVERFITTING.weights
    ]


def test_other_images_have_a_rank_and_no_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, usual())
    model = started(d_input=14 * 20)
    found, _ = read_warnings(classifier_map(model, class_centred(model)), (14, 20))
    assert (found.score, found.threshold) == (OVERFITTING.gap(usual()), None)
    assert found.reason == "not_measured"


@pytest.mark.parametrize(
    ("shape", "reason", "parts"),
    [
        ((1, 784), "not_an_image", 0),
        ((8, 98), "too_small", 0),
        ((28, 28), "unlike", 6),  # never trained
    ],
)
def test_what_has_no_score_says_why(shape: tuple[int, int], reason: str, parts: int) -> None:
    model = started()
    found = read_overfitting(leads_of(model, shape), model.embed.weight)
    assert (found.score, found.threshold, found.reason) == (None, None, reason)
    assert len(found.parts) == parts


@pytest.mark.parametrize(
    ("broken", "reason"), [("zeros", "flat"), ("one row of pixels", "unlike"), ("huge", "unlike")]
)
def test_odd_weights_are_no_error(broken: str, reason: str) -> None:
    model = started()
    with torch.no_grad():
        embed = model.embed.weight
        match broken:
            case "zeros":
                embed.zero_()
            case "one row of pixels":
                embed[:, 28:] = 0
            case "huge":
                embed.mul_(1e60)
    found = read_overfitting(leads_of(model), embed)
    assert (found.score, found.reason) == (None, reason)
    assert all(math.isfinite(part.value) for part in found.parts)
