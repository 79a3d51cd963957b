"""Accuracy with its interval, and accuracy against the number of eigenvectors kept."""

from dataclasses import replace

import pytest
import torch

import tiny
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.findings.subject import KEPT, share_right, truncation_curve

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
    predicted = [eigs.truncate_map(k)(IMAGES).argmax(dim=1) for k in range(37)]
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
    """Without those, all scores are 0, and the first class wins."""
    model = tiny.classifier()
    eigs = eigendecompose_all(model.quadratic_map(), centred_directions(tiny.CLASSES), k=None)
    none = truncation_curve(eigs, IMAGES, LABELS, LABELS)[0][0]
    assert none.k == 0
    assert none.accuracy == pytest.approx(float((LABELS == 0).double().mean()))
