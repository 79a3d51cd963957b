"""The reading against the forward pass; accuracy with its interval, and with few eigenvectors."""

import copy
from dataclasses import replace

import pytest
import torch

import oracles
import tiny
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.subject import (
    KEPT,
    TOLERANCES,
    check_exactness,
    read_densely,
    share_right,
    truncation_curve,
)
from bilens.nn import BilinearClassifier
from builders import randn, random_map

OPTIONS = [
    {"bias": bias, "residual": residual} for bias in (False, True) for residual in (False, True)
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reading_is_exact(options: dict[str, bool], dtype: torch.dtype) -> None:
    """A thousand inputs, 1e-5 in float32 and 1e-12 in float64; all of a model in float64."""
    (alone,) = check_exactness(tiny.classifier(**options).double(), seed=0)
    assert (alone.precision, alone.tolerance, alone.passed) == ("float64", 1e-12, True)
    single, double = check_exactness(tiny.classifier(dtype=dtype, **options), seed=0)
    assert (single.precision, double.precision) == ("float32", "float64")
    assert (single.tolerance, double.tolerance) == (1e-5, 1e-12)
    assert single.num_inputs == double.num_inputs == 1000
    assert 0 < single.relative_error < 1e-5
    assert double.relative_error < 1e-12
    assert single.passed
    assert double.passed


def test_the_errors_are_those_of_the_forward_pass() -> None:
    """In float64 both are tiny; the relative one is the absolute one over the largest logit."""
    model = tiny.classifier(dtype=torch.float32, bias=True, residual=True)
    single, _ = check_exactness(model, seed=3)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1000, tiny.PIXELS, generator=generator, dtype=torch.float64).float()
    largest = float(model(x).detach().abs().max())
    assert single.largest_error / single.relative_error == pytest.approx(largest, rel=1e-4)


def damaged(how: str) -> QuadraticMap:
    f = tiny.classifier(bias=True, residual=True).quadratic_map().detach()
    if how == "no linear term":
        return replace(f, linear=None)
    if how == "no constant":
        return replace(f, constant=None)
    return QuadraticMap(replace(f.tensor, left=f.tensor.left * 1.0001), f.linear, f.constant)


@pytest.mark.parametrize("how", ["no linear term", "no constant", "one part in 10,000"])
def test_a_wrong_map_fails(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f = damaged(how)

    def wrong_map(self: BilinearClassifier) -> QuadraticMap:
        return f.to(self.embed.weight.dtype)

    monkeypatch.setattr(BilinearClassifier, "quadratic_map", wrong_map)
    findings = check_exactness(tiny.classifier(bias=True, residual=True).float(), seed=0)
    assert [finding.passed for finding in findings] == [False, False]


def test_a_model_of_zeros_is_read_exactly() -> None:
    """The largest logit is 0, by which nothing can be divided."""
    model = tiny.planted([([0.0] * 4, [0.0] * 4, [0.0] * 3)], d_input=4)
    for finding in check_exactness(model, seed=0):
        assert (finding.largest_error, finding.relative_error) == (0.0, 0.0)
        assert finding.passed


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_is(training: bool) -> None:
    model = tiny.classifier(dtype=torch.float32, bias=True).train(training)
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    check_exactness(model, seed=0)
    assert tiny.same_weights(model, before)
    assert model.training == training
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_densely_is_the_map_written_out() -> None:
    f, x = random_map(), randn(6, 5, seed=9)
    tensor = f.tensor
    expected = oracles.evaluate_map(tensor.down, tensor.left, tensor.right, f.linear, f.constant, x)
    torch.testing.assert_close(read_densely(f, x), expected, rtol=1e-13, atol=1e-13)


def test_the_tolerances_are_those_that_are_promised() -> None:
    assert TOLERANCES == {"float32": 1e-5, "float64": 1e-12}


DATA = tiny.images()
IMAGES, LABELS = DATA.test_images.double(), DATA.test_labels


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # None right: P(0 of n | p) = (1 − p)^n, so the upper end is 1 − 0.025^(1/n); all right is
        # the mirror image.
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        # One of two: the lower end has P(≥ 1) = 1 − (1 − p)² = 0.025.
        (1, 2, 1 - 0.975**0.5, 0.975**0.5),
        # Tables of the binomial distribution.
        (5, 10, 0.187086, 0.812914),
        (95, 100, 0.887165, 0.983568),
    ],
)
def test_the_interval_is_clopper_pearson(right: int, total: int, low: float, high: float) -> None:
    labels = torch.zeros(total, dtype=torch.int64)
    predicted = torch.ones(total, dtype=torch.int64)
    predicted[:right] = 0
    share = share_right(predicted, labels)
    assert (share.right, share.total, share.value) == (right, total, right / total)
    assert share.low == pytest.approx(low, abs=1e-6)
    assert share.high == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize("with_affine_terms", [False, True])
def test_the_curve_is_that_of_truncated_maps(with_affine_terms: bool) -> None:
    model = tiny.trained(replace(tiny.RECIPE, bias=with_affine_terms, epochs=1))
    f = model.quadratic_map().detach()
    eigs = eigendecompose_all(f, centred_directions(tiny.CLASSES), k=None)
    full = model(IMAGES).argmax(dim=1)
    points, enough = truncation_curve(eigs, IMAGES, LABELS, full)
    scores = [eigs.truncate_map(k)(IMAGES) for k in range(37)]
    predicted = [each.argmax(dim=1) for each in scores]
    if not with_affine_terms:  # equal scores are no answer
        assert not scores[0].any()
        predicted[0] = torch.full((60,), -1)
    accuracy = [int((each == LABELS).sum()) / 60 for each in predicted]
    assert [point.k for point in points] == sorted({k for k in KEPT if k < 36} | {enough, 36})
    for point in points:
        assert point.accuracy == pytest.approx(accuracy[point.k], rel=1e-12)
        agreement = int((predicted[point.k] == full).sum()) / 60
        assert point.agreement == pytest.approx(agreement, rel=1e-12)
    assert len(set(accuracy)) > 2  # it is a curve, not a line
    # the fewest from which on no k loses more than one per cent
    fine = [min(accuracy[k:]) >= accuracy[36] - 0.01 for k in range(37)]
    assert enough == fine.index(True)


def test_the_curve_does_not_depend_on_how_many_images_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eigs = eigendecompose_all(
        tiny.classifier().quadratic_map(), centred_directions(tiny.CLASSES), k=None
    )
    whole = truncation_curve(eigs, IMAGES, LABELS, LABELS)
    monkeypatch.setattr("bilens.findings.subject.IMAGES_AT_ONCE", 7)  # 60 = 8 · 7 + 4
    assert truncation_curve(eigs, IMAGES, LABELS, LABELS) == whole


def test_all_eigenvectors_together_are_the_model() -> None:
    model = tiny.trained()
    eigs = eigendecompose_all(model.quadratic_map(), centred_directions(tiny.CLASSES), k=None)
    full = model(IMAGES).argmax(dim=1)
    last = truncation_curve(eigs, IMAGES, LABELS, full)[0][-1]
    assert last.agreement == 1.0
    assert last.accuracy == int((full == LABELS).sum()) / len(LABELS)


def test_no_eigenvector_leaves_linear_and_constant_terms() -> None:
    """Without those, all scores are 0, which is no answer."""
    model = tiny.classifier()
    eigs = eigendecompose_all(model.quadratic_map(), centred_directions(tiny.CLASSES), k=None)
    none = truncation_curve(eigs, IMAGES, LABELS, LABELS)[0][0]
    assert none.k == 0
    assert none.accuracy == 0.0
