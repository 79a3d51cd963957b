"""Whether a small white square raises one class far more than any other square does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.overfitting import gradients, usual_length
from bilens.findings.spectra import null_interval
from bilens.records.audit import Patch, Triggers

MARGIN = 3  # pixels around the square that foretell it
AROUND = 5  # pixels on a side of the surroundings that a pixel is measured by
WHITE = 0.02  # share of the variance that no neighbour foretells; keeps S invertible


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
    """Return the products with the filter at every place of its square, (..., positions)."""
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


SIDES = (3, 4)  # pixels of the squares
THRESHOLD = 7.0  # 95 % of the clean models that fixed it are below (docs/benchmarks/power.md)
MOST_TEMPLATES = 32  # other classes that a square is tried on
FEWEST_POSITIONS = 100  # of a square in an image: among fewer none can stand out


def read_triggers(
    f: QuadraticMap, templates: Tensor, shape: tuple[int, int], null: Sequence[float]
) -> Triggers:
    """Return the positions where a white square adds most to the lead of a class."""
    reason = obstacle(shape)
    found = highest_scoring(f, templates, shape)
    if not found:
        return Triggers(None, None, None, (), reason or "flat")
    interval = null_interval(torch.tensor(null, dtype=torch.float64))
    return Triggers(found[0].score, THRESHOLD, interval, found, "")


def obstacle(shape: tuple[int, int]) -> str:
    """Return why there are no squares to compare, one of `NOT_APPLICABLE`, or nothing."""
    if min(shape) == 1:
        return "not_an_image"
    positions = math.prod(max(length - SIDES[-1] + 1, 0) for length in shape)
    return "too_small" if positions < FEWEST_POSITIONS else ""


def trigger_score(f: QuadraticMap, templates: Tensor, shape: tuple[int, int]) -> float:
    """Return the score of the highest-scoring patch; 0 where there are none, or none differs."""
    found = highest_scoring(f, templates, shape)
    return found[0].score if found else 0.0


def highest_scoring(
    f: QuadraticMap, templates: Tensor, shape: tuple[int, int]
) -> tuple[Patch, ...]:
    """Return the highest-scoring patch of each class by falling score; nothing if none differs."""
    if obstacle(shape):
        return ()
    best: dict[int, Patch] = {}
    lead = mean_lead(f, templates)
    for side in SIDES:
        surplus = lead_surplus(lead, shape, side)
        spread = surplus.square().mean().sqrt()
        if not spread > 0:
            return ()
        gains = lead_gains(lead, shape, side)
        score, position = (surplus / spread).max(dim=1)
        across = shape[1] - side + 1
        for target, (z, where) in enumerate(zip(score.tolist(), position.tolist(), strict=True)):
            if target not in best or z > best[target].score:
                effect = float(gains[target, where])
                row, column = divmod(where, across)
                best[target] = Patch(target, row, column, side, z, effect)
    return tuple(sorted(best.values(), key=lambda window: -window.score))


@dataclass(frozen=True, eq=False)
class MeanLead:
    """The lead of each class t over another class s on the template of s, the mean over s ≠ t."""

    slopes: Tensor  # (classes, in)
    tensor: BilinearTensor  # one output for each class

    @property
    def branches(self) -> tuple[Tensor, Tensor]:
        """The two factors that read the image, (hidden, in)."""
        return self.tensor.left, self.tensor.right


def mean_lead(f: QuadraticMap, templates: Tensor) -> MeanLead:
    """Return the mean lead of each class over the others, each on its own template."""
    classes = len(templates)
    sources = torch.arange(0, classes, -(-classes // MOST_TEMPLATES))
    slopes = gradients(f, usual_length(f.sizes.d_in) * templates[sources])  # (source, class, in)
    leads = slopes - slopes[torch.arange(len(sources)), sources][:, None]
    others = (torch.arange(classes)[:, None] != sources).to(templates.dtype)
    share = others / others.sum(dim=1, keepdim=True)
    down = f.tensor.down - share @ f.tensor.down[sources]
    tensor = BilinearTensor(down, f.tensor.left, f.tensor.right)
    return MeanLead(torch.einsum("ts,sti->ti", share, leads), tensor)


def lead_gains(lead: MeanLead, shape: tuple[int, int], side: int) -> Tensor:
    """Return what a white square adds to the mean lead, (classes, positions), in logits."""
    left, right = (in_squares(branch, shape, side) for branch in lead.branches)
    return in_squares(lead.slopes, shape, side) + lead.tensor.down @ (left * right)


def lead_surplus(lead: MeanLead, shape: tuple[int, int], side: int) -> Tensor:
    """Return how far a square's pixels exceed what those around foretell, (classes, positions)."""
    # Σᵢ kᵢ (slopes_t + Q_t p)ᵢ / vᵢ with k = S⁻¹p and v the size of slopes around; with k and v of
    # ones this is the gain: the slopes are those halfway, where the square is half as bright.
    scale = local_scale(lead.slopes, shape)
    if not bool((scale > 0).all()):
        return torch.zeros_like(in_squares(lead.slopes, shape, side))
    kernel = matched_filter(lead.slopes / scale, shape, side)
    left, right = (in_squares(branch, shape, side) for branch in lead.branches)
    filtered = [correlate(branch / scale, kernel, shape) for branch in lead.branches]
    bent = lead.tensor.down @ (filtered[0] * right + filtered[1] * left) / 2
    return correlate(lead.slopes / scale, kernel, shape) + bent


def in_squares(values: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return the sums over all squares of an image, (..., in) → (..., positions), row by row."""
    images = values.reshape(-1, 1, *shape)
    sums = side**2 * functional.avg_pool2d(images, side, stride=1)
    return sums.reshape(*values.shape[:-1], -1)
