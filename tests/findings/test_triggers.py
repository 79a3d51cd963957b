"""Planted triggers are found, and the matched filter that finds them is right."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.overfitting import gradients, usual_length
from bilens.findings.triggers import (
    AROUND,
    MARGIN,
    THRESHOLD,
    WHITE,
    correlate,
    highest_scoring,
    lead_gains,
    lead_surplus,
    local_scale,
    matched_filter,
    mean_lead,
    read_triggers,
    trigger_score,
)
from builders import randn

SHAPE, CLASSES = (14, 14), 5
WIDTH = SHAPE[0] * SHAPE[1]
PLACE, TARGET = (9, 2), 3
NULL = tuple(1 + 0.01 * place for place in range(39))


def classifier(planted: float = 0.0, seed: int = 0, side: int = 3) -> QuadraticMap:
    """A centred map of noise; with a square that lifts one class over all others."""
    down = randn(CLASSES, 9, seed=seed)
    left, right = 0.1 * randn(9, WIDTH, seed=seed + 1), 0.1 * randn(9, WIDTH, seed=seed + 2)
    square = torch.zeros(SHAPE, dtype=torch.float64)
    square[PLACE[0] : PLACE[0] + side, PLACE[1] : PLACE[1] + side] = planted
    target = torch.zeros(CLASSES, 1, dtype=torch.float64)
    target[TARGET] = 1.0
    down = torch.cat([down, target], dim=1)
    left = torch.cat([left, square.reshape(1, -1)])
    right = torch.cat([right, torch.full((1, WIDTH), 0.1, dtype=torch.float64)])
    down = down - down.mean(dim=0)
    return QuadraticMap(BilinearTensor(down, left, right), linear=0.01 * randn(CLASSES, WIDTH))


def templates() -> Tensor:
    pattern = randn(CLASSES, WIDTH, seed=7).abs()
    return pattern / pattern.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("side", [3, 4])
def test_the_gain_of_a_square_is_the_difference_of_two_outputs(side: int) -> None:
    f, pictures = classifier(planted=0.3), usual_length(WIDTH) * templates()
    gains = lead_gains(mean_lead(f, templates()), SHAPE, side)
    across = SHAPE[1] - side + 1
    assert gains.shape == (CLASSES, across**2)
    for place in (0, 17, across**2 - 1):
        square = torch.zeros(SHAPE, dtype=torch.float64)
        row, column = divmod(place, across)
        square[row : row + side, column : column + side] = 1.0
        change = f(pictures + square.reshape(-1)) - f(pictures)  # (source, class)
        leads = change - change.diagonal()[:, None]
        for target in range(CLASSES):
            others = [float(leads[s, target]) for s in range(CLASSES) if s != target]
            assert float(gains[target, place]) == pytest.approx(sum(others) / 4, rel=1e-9)


@pytest.mark.parametrize("side", [3, 4])
def test_the_surplus_filters_the_slopes_with_the_square_half_as_bright(side: int) -> None:
    f = classifier(planted=0.3)
    lead = mean_lead(f, templates())
    surplus = lead_surplus(lead, SHAPE, side)
    scale = local_scale(lead.slopes, SHAPE)
    kernel = matched_filter(lead.slopes / scale, SHAPE, side)
    across = SHAPE[1] - side + 1
    for place in (0, 17, across**2 - 1):
        square = torch.zeros(SHAPE, dtype=torch.float64)
        row, column = divmod(place, across)
        square[row : row + side, column : column + side] = 1.0
        halfway = lead.slopes + gradients(QuadraticMap(lead.tensor), square.reshape(1, -1) / 2)[0]
        expected = correlate(halfway / scale, kernel, SHAPE)[:, place]
        torch.testing.assert_close(surplus[:, place], expected)


@pytest.mark.parametrize("side", [3, 4])
def test_a_planted_square_is_found_with_its_class(side: int) -> None:
    found = read_triggers(classifier(planted=2.0, side=side), templates(), SHAPE, NULL)
    assert found.score is not None
    assert found.threshold is not None
    assert found.score > found.threshold
    patch = found.patches[0]
    assert (patch.target, patch.row, patch.column) == (TARGET, *PLACE)
    assert patch.side == side
    assert patch.score == found.score
    scores = [window.score for window in found.patches]
    assert scores == sorted(scores, reverse=True)
    assert sorted(window.target for window in found.patches) == list(range(CLASSES))


def test_a_patch_is_found_among_strokes_and_loose_pixels_with_larger_gains() -> None:
    shape, place = (28, 28), (18, 6)
    pictures = torch.ones(CLASSES, 784, dtype=torch.float64) / 28
    tensor = BilinearTensor(
        randn(CLASSES, 4), 1e-3 * randn(4, 784, seed=1), 1e-3 * randn(4, 784, seed=2)
    )
    noise = 4.0 * randn(CLASSES, 1, 34, 34, seed=5)
    strokes = functional.avg_pool2d(noise, 7, stride=1)[:, 0]
    strokes[:, :4] += randn(CLASSES, 4, 28, seed=6)  # loose pixels
    patch = torch.zeros_like(strokes)
    patch[TARGET, place[0] : place[0] + 3, place[1] : place[1] + 3] = 2.0
    scores = []
    for slopes in (strokes, strokes + patch):
        f = QuadraticMap(tensor, linear=(slopes - slopes.mean(dim=0)).flatten(1))
        scores.append(trigger_score(f, pictures, shape))
    found = highest_scoring(f, pictures, shape)[0]
    assert (found.target, found.row, found.column, found.side) == (TARGET, *place, 3)
    assert found.effect < float(lead_gains(mean_lead(f, pictures), shape, 3).max())
    assert scores[0] < THRESHOLD < scores[1]


def test_without_one_the_score_is_far_lower() -> None:
    for seed in (0, 10, 20):
        assert trigger_score(classifier(seed=seed), templates(), SHAPE) < THRESHOLD
        score = trigger_score(classifier(seed=seed), templates(), SHAPE)
        found = read_triggers(classifier(seed=seed), templates(), SHAPE, NULL)
        assert found.score == score
        assert trigger_score(classifier(planted=2.0, seed=seed), templates(), SHAPE) > 2.5 * score


def test_chance_is_that_of_the_scores_given() -> None:
    found = read_triggers(classifier(), templates(), SHAPE, NULL)
    assert found.null_interval is not None
    assert (found.null_interval.low, found.null_interval.high) == (min(NULL), max(NULL))


def test_the_score_has_no_unit() -> None:
    f = classifier(planted=1.0)
    louder = dataclasses.replace(
        f,
        tensor=BilinearTensor(3 * f.tensor.down, f.tensor.left, f.tensor.right),
        linear=None if f.linear is None else 3 * f.linear,
    )
    score = trigger_score(f, templates(), SHAPE)
    assert trigger_score(louder, templates(), SHAPE) == pytest.approx(score)


@pytest.mark.parametrize(
    ("shape", "reason"), [((1, WIDTH), "not_an_image"), ((2, 98), "too_small"), ((7, 28), "")]
)
def test_where_no_square_fits_it_says_why(shape: tuple[int, int], reason: str) -> None:
    found = read_triggers(classifier(), templates(), shape, NULL)
    assert found.reason == reason
    assert (found.score is None) == bool(reason)
    assert (trigger_score(classifier(), templates(), shape) == 0) == bool(reason)


def test_a_map_of_zeros_is_flat() -> None:
    f = classifier()
    zero = BilinearTensor(
        *(torch.zeros_like(part) for part in (f.tensor.down, f.tensor.left)), f.tensor.right
    )
    found = read_triggers(QuadraticMap(zero), templates(), SHAPE, NULL)
    assert (found.score, found.reason, found.patches) == (None, "flat", ())


def test_with_many_classes_some_of_them_lend_their_templates() -> None:
    classes = 70
    f = QuadraticMap(
        BilinearTensor(randn(classes, 4), randn(4, WIDTH, seed=1), randn(4, WIDTH, seed=2))
    )
    pictures = randn(classes, WIDTH, seed=3).abs()
    pictures = pictures / pictures.norm(dim=1, keepdim=True)
    lead = mean_lead(f, pictures)
    assert lead.slopes.shape == (classes, WIDTH)
    for values in (lead_gains(lead, SHAPE, 3), lead_surplus(lead, SHAPE, 3)):
        assert values.shape == (classes, 144)
        assert bool(values.isfinite().all())


FIELD = (12, 9)
FIELD_WIDTH = FIELD[0] * FIELD[1]


def smooth_fields(seed: int, num: int = 20) -> Tensor:
    """Random fields whose neighbours are alike."""
    noise = randn(num, 1, FIELD[0] + 4, FIELD[1] + 4, seed=seed)
    return functional.avg_pool2d(noise, 5, stride=1).flatten(1)


@pytest.mark.parametrize("side", [3, 4])
def test_products_are_those_of_the_filter_laid_on_each_place(side: int) -> None:
    fields, kernel = randn(2, FIELD_WIDTH), randn(side + 2 * MARGIN, side + 2 * MARGIN, seed=1)
    products = correlate(fields, kernel, FIELD)
    padded = functional.pad(fields.reshape(2, *FIELD), (MARGIN,) * 4)
    down, across = FIELD[0] - side + 1, FIELD[1] - side + 1
    assert products.shape == (2, down * across)
    for place in range(down * across):
        row, column = divmod(place, across)
        under = padded[:, row : row + len(kernel), column : column + len(kernel)]
        torch.testing.assert_close(products[:, place], (under * kernel).sum(dim=(1, 2)))


def test_a_filter_of_the_square_alone_sums_its_pixels() -> None:
    fields, square = randn(3, FIELD_WIDTH), functional.pad(torch.ones(3, 3).double(), (MARGIN,) * 4)
    sums = 9 * functional.avg_pool2d(fields.reshape(3, 1, *FIELD), 3, stride=1).flatten(1)
    torch.testing.assert_close(correlate(fields, square, FIELD), sums)


def test_the_filter_solves_the_covariance_written_out() -> None:
    fields, side = smooth_fields(0), 3
    images, width = fields.reshape(-1, *FIELD), side + 2 * MARGIN

    def product(down: int, across: int) -> float:
        """Sum over all pairs of pixels at a lag, down of either sign."""
        first, second = (images, images.roll((-down, -across), dims=(1, 2)))
        kept = torch.zeros(FIELD, dtype=torch.bool)
        rows = slice(0, FIELD[0] - down) if down >= 0 else slice(-down, FIELD[0])
        kept[rows, : max(FIELD[1] - across, 0)] = True
        return float((first * second)[:, kept].sum())

    pixels = [(row, column) for row in range(width) for column in range(width)]
    covariance = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
    for one, (row, column) in enumerate(pixels):
        for other, (row2, column2) in enumerate(pixels):
            down, across = abs(row - row2), abs(column - column2)
            if down < FIELD[0]:
                both = product(down, across) + product(-down, across)
                covariance[one, other] = both / (2 * product(0, 0))
    square = functional.pad(torch.ones(side, side).double(), (MARGIN,) * 4).flatten()
    covariance += WHITE * torch.eye(len(pixels))
    assert float(torch.linalg.eigvalsh(covariance)[0]) >= WHITE - 1e-9
    expected = torch.linalg.solve(covariance, square).reshape(width, width)
    torch.testing.assert_close(matched_filter(fields, FIELD, side), expected)


def test_what_goes_on_beyond_the_square_is_foretold() -> None:
    kernel = matched_filter(smooth_fields(0), FIELD, 3)
    square = functional.pad(torch.ones(3, 3).double(), (MARGIN,) * 4)
    stroke = torch.zeros_like(square)
    stroke[:, MARGIN : MARGIN + 3] = 1.0
    alone = float((kernel * square).sum())
    assert alone > 0
    assert float((kernel * stroke).sum()) < alone / 3


def test_the_scale_is_the_root_of_two_mean_squares() -> None:
    fields, reach = randn(4, FIELD_WIDTH), AROUND // 2
    square = fields.square().mean(dim=0).reshape(FIELD)
    scale = local_scale(fields, FIELD).reshape(FIELD)
    around = square[5 - reach : 6 + reach, 4 - reach : 5 + reach].mean()
    assert float(scale[5, 4]) == pytest.approx(float((around + square.mean()).sqrt()))
    corner = square[[0, 0, 0, 1, 2]][:, [0, 0, 0, 1, 2]].mean()
    assert float(scale[0, 0]) == pytest.approx(float((corner + square.mean()).sqrt()))
    assert not local_scale(torch.zeros(4, FIELD_WIDTH), FIELD).any()
