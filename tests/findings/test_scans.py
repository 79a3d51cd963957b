"""The scans for triggers: filters and energies on fields with one right answer.

Damage seen to fail: a filter that is not turned round, the median of a class's own statistic among
the others, a step across the image taken for one down, a dark square looked for as a bright one.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.findings.scans import (
    AROUND,
    MARGIN,
    WHITE,
    beyond_others,
    correlate,
    local_scale,
    matched_filter,
    squares,
    steps,
    window,
)
from builders import randn

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


@pytest.mark.parametrize(("name", "side", "value"), [("bright_4", 4, 1.0), ("dark_6", 6, -1.0)])
def test_a_square_in_noise_is_found_at_its_place_and_in_its_class(
    name: str, side: int, value: float
) -> None:
    shape, fields = (20, 18), 0.3 * randn(5, 20, 18, seed=3)
    fields[2, 7 : 7 + side, 4 : 4 + side] += value
    fields[4, 7 : 7 + side, 4 : 4 + side] -= value  # the other sign is another scan's
    found = {one.name: one for one in squares(fields.flatten(1), shape)}[name]
    assert int(found.statistic.argmax()) == 2
    assert found.boxes is not None
    assert found.boxes[2].tolist() == [7, 4, side, side]
    pattern = torch.zeros(shape, dtype=torch.float64)
    pattern[7 : 7 + side, 4 : 4 + side] = value
    assert torch.equal(found.patterns[2], pattern.flatten())


def test_a_square_has_its_score_in_deviations_over_its_own_places() -> None:
    shape, fields = (14, 15), randn(4, 14 * 15, seed=2)
    (first, *_) = squares(fields, shape)
    products = correlate(fields, matched_filter(fields, shape, 3), shape)
    best = products.max(dim=1).values / products.square().mean().sqrt()
    torch.testing.assert_close(first.statistic, best + beyond_others(best))


def test_the_window_with_most_of_a_pattern_is_found() -> None:
    shape, patterns = (10, 11), 0.1 * randn(4, 10, 11, seed=5)
    patterns[1, 3:8, 2:7] = randn(5, 5, seed=6).sign()
    found = window(patterns.flatten(1), shape, 5)
    assert found.boxes is not None
    assert int(found.statistic.argmax()) == 1
    assert found.boxes[1].tolist() == [3, 2, 5, 5]
    inside = found.patterns[1].reshape(shape)
    assert inside[3:8, 2:7].abs().min() == 1
    assert float(inside.abs().sum()) == 25


def test_windows_that_nothing_uses_do_not_count() -> None:
    patterns = torch.zeros(4, 20, 20, dtype=torch.float64)
    patterns[:, :8, :8] = randn(4, 8, 8, seed=6)
    small = window(patterns[:, :10, :10].flatten(1), (10, 10), 3)  # all that touch the pattern
    for rest in (0.0, 1e-17):
        found = window(torch.where(patterns == 0, rest, patterns).flatten(1), (20, 20), 3)
        assert bool(found.patterns.isfinite().all())
        torch.testing.assert_close(found.statistic, small.statistic)


def test_a_checkerboard_is_as_rough_as_can_be_and_a_flat_image_not_at_all() -> None:
    shape = (6, 4)
    rows, columns = torch.arange(6.0), torch.arange(4.0)
    checks = 1 - 2 * ((rows[:, None] + columns) % 2)
    bars = (1 - 2 * (rows % 2))[:, None].expand(shape)
    images = torch.stack([checks.flatten(), bars.flatten(), torch.ones(24)])
    downwards, across = 4 * 5 * 4 / 24, 4 * 6 * 3 / 24
    assert steps(images, shape).tolist() == pytest.approx([downwards + across, downwards, 0.0])


def test_a_class_counts_beyond_the_median_of_the_others() -> None:
    values = torch.tensor([1.0, 9.0, 4.0, 2.0])
    # others of each: (2, 4, 9), (1, 2, 4), (1, 2, 9), (1, 4, 9)
    assert beyond_others(values).tolist() == [1 - 4, 9 - 2, 4 - 2, 2 - 4]
    even = torch.tensor([3.0, 1.0, 5.0, 7.0, 8.0])
    # the lower of the two in the middle: (1, 5, 7, 8), …
    assert beyond_others(even).tolist() == [3 - 5, 1 - 5, 5 - 3, 7 - 3, 8 - 3]


def test_the_scale_is_the_root_of_two_mean_squares() -> None:
    fields, reach = randn(4, FIELD_WIDTH), AROUND // 2
    square = fields.square().mean(dim=0).reshape(FIELD)
    scale = local_scale(fields, FIELD).reshape(FIELD)
    around = square[5 - reach : 6 + reach, 4 - reach : 5 + reach].mean()
    assert float(scale[5, 4]) == pytest.approx(float((around + square.mean()).sqrt()))
    corner = square[[0, 0, 0, 1, 2]][:, [0, 0, 0, 1, 2]].mean()
    assert float(scale[0, 0]) == pytest.approx(float((corner + square.mean()).sqrt()))
    assert not local_scale(torch.zeros(4, FIELD_WIDTH), FIELD).any()
