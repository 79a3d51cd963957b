"""Baselines: the difference of means, and random masks as smooth as a given one."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.findings.attacks.class_means import ClassMeans
from bilens.findings.attacks.objective import Objective


def mean_difference(data: ClassMeans, objective: Objective) -> Tensor:
    """Return the mean of the target less the mean of the sources, (in,)."""
    sources = list(objective.sources)
    weights = data.counts[sources] / data.counts[sources].sum()
    return data.means[objective.target] - weights @ data.means[sources]


def random_phases(mask: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return a random real image with the power spectrum of a mask, (in,): as long, as smooth.

    Math: |F(mask)| · exp(i arg F(noise)), transformed back; the phases of white noise are uniform
        but for the symmetry that a real image needs. By Parseval the norm is that of the mask.
    """
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.fft2(mask.reshape(shape)).abs()
    phases = torch.fft.fft2(noise).angle()
    image: Tensor = torch.fft.ifft2(torch.polar(spectrum, phases)).real
    return image.flatten()
