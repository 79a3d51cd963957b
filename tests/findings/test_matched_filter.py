"""The matched filter: its products, its covariance, and what it lets through."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bilens.findings.triggers import AROUND, MARGIN, WHITE, correlate, local_scale, matched_filter
from builders import randn

SHAPE = (12, 9)
WIDTH = SHAPE[0] * SHAPE[1]


def smooth_fields(seed: int, num: int = 20) -> Tensor:
    """Random fields whose neighbours are alike."""
    noise = randn(num, 1, SHAPE[0] + 4, SHAPE[1] + 4, seed=seed)
    return functional.avg_pool2d(noise, 5, stride=1).flatten(1)


@pytest.mark.parametrize("side", [3, 4])
def test_products_are_those_of_the_filter_laid_on_each_place(side: int) -> None:
    fields, kernel = randn(2, WIDTH), randn(side + 2 * MARGIN, side + 2 * MARGIN, seed=1)
    products = correlate(fields, kernel, SHAPE)
    padded = functional.pad(fields.reshape(2, *SHAPE), (MARGIN,) * 4)
    down, across = SHAPE[0] - side + 1, SHAPE[1] - side + 1
    assert products.shape == (2, down * across)
    for place in range(down * across):
        row, column = divmod(place, across)
        under = padded[:, row : row + len(kernel), column : column + len(kernel)]
        torch.testing.assert_close(products[:, place], (under * kernel).sum(dim=(1, 2)))


def test_a_filter_of_the_square_alone_sums_its_pixels() -> None:
    fields, square = randn(3, WIDTH), functional.pad(torch.ones(3, 3).double(), (MARGIN,) * 4)
    sums = 9 * functional.avg_pool2d(fields.reshape(3, 1, *SHAPE), 3, stride=1).flatten(1)
    torch.testing.assert_close(correlate(fields, square, SHAPE), sums)


def test_the_filter_solves_the_covariance_written_out() -> None:
    fields, side = smooth_fields(0), 3
    images, width = fields.reshape(-1, *SHAPE), side + 2 * MARGIN

    def product(down: int, across: int) -> float:
        """Sum over all pairs of pixels at a lag, down of either sign."""
        first, second = (images, images.roll((-down, -across), dims=(1, 2)))
        kept = torch.zeros(SHAPE, dtype=torch.bool)
        rows = slice(0, SHAPE[0] - down) if down >= 0 else slice(-down, SHAPE[0])
        kept[rows, : max(SHAPE[1] - across, 0)] = True
        return float((first * second)[:, kept].sum())

    pixels = [(row, column) for row in range(width) for column in range(width)]
    covariance = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
    for one, (row, column) in enumerate(pixels):
        for other, (row2, column2) in enumerate(pixels):
            down, across = abs(row - row2), abs(column - column2)
            if down < SHAPE[0]:
                both = product(down, across) + product(-down, across)
                covariance[one, other] = both / (2 * product(0, 0))
    square = functional.pad(torch.ones(side, side).double(), (MARGIN,) * 4).flatten()
    covariance += WHITE * torch.eye(len(pixels))
    assert float(torch.linalg.eigvalsh(covariance)[0]) >= WHITE - 1e-9
    expected = torch.linalg.solve(covariance, square).reshape(width, width)
    torch.testing.assert_close(matched_filter(fields, SHAPE, side), expected)


def test_what_goes_on_beyond_the_square_is_foretold() -> None:
    kernel = matched_filter(smooth_fields(0), SHAPE, 3)
    square = functional.pad(torch.ones(3, 3).double(), (MARGIN,) * 4)
    stroke = torch.zeros_like(square)
    stroke[:, MARGIN : MARGIN + 3] = 1.0
    alone = float((kernel * square).sum())
    assert alone > 0
    assert float((kernel * stroke).sum()) < alone / 3


def test_the_scale_is_the_root_of_two_mean_squares() -> None:
    fields, reach = randn(4, WIDTH), AROUND // 2
    square = fields.square().mean(dim=0).reshape(SHAPE)
    scale = local_scale(fields, SHAPE).reshape(SHAPE)
    around = square[5 - reach : 6 + reach, 4 - reach : 5 + reach].mean()
    assert float(scale[5, 4]) == pytest.approx(float((around + square.mean()).sqrt()))
    corner = square[[0, 0, 0, 1, 2]][:, [0, 0, 0, 1, 2]].mean()
    assert float(scale[0, 0]) == pytest.approx(float((corner + square.mean()).sqrt()))
    assert not local_scale(torch.zeros(4, WIDTH), SHAPE).any()
