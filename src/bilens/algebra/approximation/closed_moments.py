"""Gaussian moments of activations that have a closed form, derivatives included."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Derivatives, density, step


def relu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of max(t, 0): mΦ + sϕ, Φ, ϕ/s, −mϕ/s³ with Φ and ϕ at m/s.

    For s = 0 the kink is not seen: e₁ is the slope at m, e₂ and e₃ are zero.
    """
    varies = deviation > 0
    s = torch.where(varies, deviation, 1.0)
    share = torch.where(varies, torch.special.ndtr(mean / s), step(mean))
    bell = torch.where(varies, density(mean / s), 0.0)
    return mean * share + s * bell, share, bell / s, -mean * bell / s**3


def leaky_moments(mean: Tensor, deviation: Tensor, leak: float) -> Derivatives:
    """Return e₀ … e₃ of leak·t + (1 − leak)·max(t, 0)."""
    e0, e1, e2, e3 = relu_moments(mean, deviation)
    rest = 1 - leak
    return leak * mean + rest * e0, leak + rest * e1, rest * e2, rest * e3


def squared_relu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of max(t, 0)², whose derivative is twice a ReLU."""
    e0, e1, e2, _ = relu_moments(mean, deviation)
    return mean * e0 + deviation.square() * e1, 2 * e0, 2 * e1, 2 * e2


def normal_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of Φ: those of Φ(m/√v), v = 1 + s², as a function of m."""
    v = 1 + deviation.square()
    at = mean / v.sqrt()
    bell = density(at) / v.sqrt()
    return torch.special.ndtr(at), bell, -at * bell / v.sqrt(), (at.square() - 1) * bell / v


def gelu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of t·Φ(t): E tg(t) = m E g + s² E g' for any g (Stein), here g = Φ."""
    variance = deviation.square()
    v = 1 + variance
    share, bell, second, _ = normal_moments(mean, deviation)
    bend = 2 - variance / v - (mean / v).square()
    return (
        mean * share + variance * bell,
        share + mean * bell + variance * second,
        bend * bell,
        bend * second - 2 * mean / v.square() * bell,
    )
