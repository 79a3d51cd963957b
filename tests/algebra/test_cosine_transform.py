"""Cosine coefficients against SciPy's, and roughness of patterns that are known.

Broken once: the frequency divided by rows on both axes; a stripe of an oblong grid failed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from bilens.algebra.cosine_transform import cosine_transform, roughness
from builders import randn


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (1, 5)])
def test_the_coefficients_are_those_of_scipy(shape: tuple[int, int]) -> None:
    patterns = randn(3, shape[0] * shape[1], seed=1)
    expected = dctn(patterns.reshape(3, *shape).numpy(), axes=(1, 2), norm="ortho")
    assert np.abs(cosine_transform(patterns, shape).numpy() - expected).max() < 1e-13


def test_a_constant_is_smooth_and_a_flip_from_pixel_to_pixel_is_not() -> None:
    shape = (8, 12)
    flat = torch.ones(96, dtype=torch.float64)
    columns = torch.arange(12) % 2 * 2.0 - 1
    stripes = columns.double().repeat(8)
    both = torch.stack([flat, stripes])
    smooth, rough = roughness(both, shape).tolist()
    assert smooth == pytest.approx(0, abs=1e-12)
    assert 0.8 < rough < 1


@pytest.mark.parametrize("axis", [0, 1])
def test_one_cosine_has_its_own_frequency(axis: int) -> None:
    shape, wave = (8, 12), 3
    length = shape[axis]
    row = torch.cos(torch.pi / length * (torch.arange(length).double() + 0.5) * wave)
    pattern = row[:, None].expand(8, 12) if axis == 0 else row.expand(8, 12)
    assert float(roughness(pattern.reshape(-1), shape)) == pytest.approx(wave / length)


def test_noise_is_where_it_is_said_to_be_and_scale_does_not_matter() -> None:
    noise = randn(200, 784, seed=2)
    assert float(roughness(noise, (28, 28)).mean()) == pytest.approx(0.75, abs=0.02)
    assert torch.allclose(roughness(noise, (28, 28)), roughness(1e-6 * noise, (28, 28)))
    assert float(roughness(torch.zeros(784), (28, 28))) == 0
