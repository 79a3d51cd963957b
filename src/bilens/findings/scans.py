"""The scans for hidden triggers: each gives every class a statistic and a pattern."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.findings.leads import FineBand, Leads, best_patterns, usual_length

MARGIN = 3  # pixels around the square that foretell it
AROUND = 5  # pixels on a side of the surroundings that a pixel is measured by
WHITE = 0.02  # share of the variance that no neighbour foretells; keeps S invertible
BRIGHT, DARK = (3, 4, 5), 6  # pixels on a side of the squares
WINDOWS = (3, 5)  # pixels on a side of the windows in which energy is looked for
FINE = 6  # half waves along a side, from which on a pattern is fine
LENGTH, FINE_LENGTHS = 0.339, (0.226, 0.452)  # of patterns over that of an image
FLOOR = 0.02  # of a lead: what a pattern wins at least
UNUSED = 1e-20  # of the largest energy: at a place with less all weights are zero


@dataclass(frozen=True, eq=False)
class Scan:
    """The result of one scan: for each class a statistic against the model's own null.

    The null are the other places of the image and the other classes: a statistic is what a class
    has beyond them, in standard deviations over places or as the log of a ratio to the median of
    the other classes.
    """

    name: str  # of `SCANS`
    statistic: Tensor  # (classes,)
    patterns: Tensor  # (classes, in), what is added to an image
    boxes: Tensor | None = None  # (classes, 4): first row and column, rows, columns; None: all over


PATTERNS = ("bright_3", "bright_4", "bright_5", "dark_6", "window_3", "window_5")
SCANS = (*PATTERNS, "reach", "long_reach", "roughness", "fine_roughness")


def scan(leads: Leads) -> Iterator[Scan]:
    """Yield what each of `SCANS` finds."""
    shape, slopes = leads.shape, leads.mean_slopes
    size = usual_length(slopes.shape[1])
    yield from squares(slopes / local_scale(slopes, shape), shape)
    (whole,) = best_patterns(leads, [LENGTH * size])
    for side in WINDOWS:
        yield window(whole, shape, side)
    lengths = [share * size for share in FINE_LENGTHS]
    fine = best_patterns(leads, lengths, FineBand(shape, FINE))
    for name, patterns in zip(("reach", "long_reach"), fine, strict=True):
        won = leads.shares_won(patterns).clamp(min=FLOOR).log()
        yield Scan(name, beyond_others(won), patterns)
    for name, patterns in (("roughness", whole), ("fine_roughness", fine[-1])):
        yield Scan(name, beyond_others(steps(patterns, shape).log()), patterns)


def beyond_others(values: Tensor) -> Tensor:
    """Return values minus the median of those of the other classes, (classes,)."""
    ordered, rank = values.sort().values, values.argsort().argsort()
    middle = (len(values) - 2) // 2  # the lower median, as in `torch.median`
    return values - torch.where(rank <= middle, ordered[middle + 1], ordered[middle])


def squares(level: Tensor, shape: tuple[int, int]) -> Iterator[Scan]:
    """Yield how far squares at one place exceed what the pixels around foretell."""
    bright = ((side, 1, f"bright_{side}") for side in BRIGHT)
    for side, sign, name in (*bright, (DARK, -1, "dark_6")):
        found = correlate(level, matched_filter(level, shape, side), shape)
        size = found.square()
        found = sign * found / size[size > UNUSED * size.amax()].mean().sqrt()
        best = found.max(dim=1)
        boxes = boxes_of(best.indices, shape, side)
        far = best.values + beyond_others(best.values)  # out of places, and beside other classes
        yield Scan(name, far, sign * paint_boxes(boxes, shape), boxes)


def window(patterns: Tensor, shape: tuple[int, int], side: int) -> Scan:
    """Return how far the energy of patterns in a window stands out of all windows and classes."""
    energy = functional.avg_pool2d(patterns.square().reshape(-1, 1, *shape), side, stride=1)
    logs = energy.flatten(1).log()
    used = logs[logs > logs.amax() + math.log(UNUSED)]
    best = ((logs - used.mean()) / used.std()).max(dim=1)
    boxes = boxes_of(best.indices, shape, side)
    inside = patterns * paint_boxes(boxes, shape)
    largest = inside.abs().amax(dim=1, keepdim=True)
    return Scan(f"window_{side}", best.values, inside / largest, boxes)


def boxes_of(places: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    across = shape[1] - side + 1
    whole = torch.full_like(places, side)
    return torch.stack([places // across, places % across, whole, whole], dim=1)


def paint_boxes(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return images that are one in a box, (classes, in)."""
    images = torch.zeros(len(boxes), *shape, dtype=torch.float64)
    for image, (row, column, rows, columns) in zip(images, boxes.tolist(), strict=True):
        image[row : row + rows, column : column + columns] = 1
    return images.flatten(1)


def steps(patterns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the mean square of a step to the next pixel over that of a pixel, (classes,)."""
    images = patterns.reshape(-1, *shape)
    down, across = images.diff(dim=1).square(), images.diff(dim=2).square()
    return (down.sum(dim=(1, 2)) + across.sum(dim=(1, 2))) / images.square().sum(dim=(1, 2))


def local_scale(fields: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return how large the fields are about each pixel, (in,); zeros where all are zero."""
    square = fields.square().mean(dim=0).reshape(1, 1, *shape)
    padded = functional.pad(square, (AROUND // 2,) * 4, mode="replicate")
    around = functional.avg_pool2d(padded, AROUND, stride=1).flatten()
    return (around + square.mean()).sqrt()


def matched_filter(fields: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return S⁻¹p on the square p and the pixels around it, (side + 6, side + 6)."""
    # S_ij is the autocorrelation at the lag of two pixels, divided by the pixels of an image at
    # every lag, which keeps S positive semidefinite; a lag to the left counts as one to the right.
    width = side + 2 * MARGIN
    # of multiples of 8, at which a filter does not reach round the edges
    rows, columns = (-(-(length + width - 1) // 8) * 8 for length in shape)
    spectrum = torch.fft.rfft2(fields.reshape(-1, *shape), s=(rows, columns))
    lags = torch.fft.irfft2(spectrum.abs().square().mean(dim=0), s=(rows, columns))[:, :width]
    down = torch.arange(width)
    correlation = (lags[down] + lags[-down]) / (2 * lags[0, 0])
    row, column = down.repeat_interleave(width), down.repeat(width)
    covariance = correlation[(row[:, None] - row).abs(), (column[:, None] - column).abs()]
    covariance = covariance + WHITE * torch.eye(width**2, dtype=fields.dtype)
    square = functional.pad(torch.ones(side, side, dtype=fields.dtype), (MARGIN,) * 4)
    solved: Tensor = torch.linalg.solve(covariance, square.flatten())
    return solved.reshape(width, width)


def correlate(fields: Tensor, kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the products with the filter at every place of its square, (..., positions)."""
    found = functional.conv2d(fields.reshape(-1, 1, *shape), kernel[None, None], padding=MARGIN)
    return found.reshape(*fields.shape[:-1], -1)
