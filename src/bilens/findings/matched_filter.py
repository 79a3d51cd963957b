"""The matched filter of a small square: how far its pixels exceed what those around lead to expect.

In a smooth random field the pixels around a square foretell those in it. With the covariance S of
the field, S⁻¹p is the filter that tells p + noise from noise best, among all linear ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 3  # pixels around the square that foretell it
AROUND = 5  # pixels on a side of the surroundings that a pixel is measured by
WHITE = 0.02  # share of the variance that no neighbour foretells; keeps S invertible


def local_scale(fields: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return how large the fields are about each pixel, (in,); zeros where all are zero.

    Math: √(mean square over all fields and 5 × 5 pixels around + that over all pixels).
    Cost: O(fields · in).
    """
    square = fields.square().mean(dim=0).reshape(1, 1, *shape)
    padded = functional.pad(square, (AROUND // 2,) * 4, mode="replicate")
    around = functional.avg_pool2d(padded, AROUND, stride=1).flatten()
    return (around + square.mean()).sqrt()


def matched_filter(fields: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return S⁻¹p on the square p and the pixels around it, (side + 6, side + 6).

    Math: S_ij = C(|i − j|) / C(0) + 0.02 δ_ij with the autocorrelation C of the fields at the lag
        of two pixels in rows and columns, divided by the pixels of an image at every lag, which
        keeps S positive semidefinite; a lag to the left counts as one to the right.
    Cost: O(fields · in · log in + side⁶).

    Args:
        fields: (fields, in), of about the same size everywhere, not all zero.
        shape: rows and columns of an image.
        side: of the square, in pixels.
    """
    width = side + 2 * MARGIN
    rows, columns = padded_shape(shape, width)
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
    """Return the products with the filter at every place of its square, (..., places).

    Outside the image fields are zero. Places are in the order of `in_squares`, row by row.

    Cost: O(fields · in · log in).
    """
    width = len(kernel)
    size = padded_shape(shape, width)
    images = torch.fft.rfft2(fields.reshape(-1, *shape), s=size)
    whole: Tensor = torch.fft.irfft2(images * torch.fft.rfft2(kernel.flip(0, 1), s=size), s=size)
    first = width - 1 - MARGIN
    down, across = (length - (width - 2 * MARGIN) + 1 for length in shape)
    inside = whole[:, first : first + down, first : first + across]
    return inside.reshape(*fields.shape[:-1], down * across)


def padded_shape(shape: tuple[int, int], width: int) -> tuple[int, int]:
    """Return a size, of multiples of 8, at which a filter does not reach round the edges."""
    rows, columns = (-(-(length + width - 1) // 8) * 8 for length in shape)
    return rows, columns
