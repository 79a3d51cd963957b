"""Moments of a gate with a limit on both branches, φ(u) ψ(v), under a normal pair (u, v)."""

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import (
    DEVIATIONS,
    VALUE_LIMITS,
    Activation,
    density,
    relu_moments,
)

NODES = 64  # of each of six parts
BENDS = (-24.0, 0.0, 7.0)  # φ is 1e-16 below the first, has its poles at the second, is flat above
ALIKE = 1e-6  # deviation of v given u, of that of v: below it v counts as a function of u
BLOCK = 1024  # neurons at a time


def clamped_quadratics(
    phi: Activation, mean: Tensor, deviation: Tensor, other: Tensor, spread: Tensor, shared: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coefficients of p², pq, p, q, 1, q² of neurons φ(u)ψ(v), (6, hidden), and means.

    u ~ N(mean, deviation²), v ~ N(other, spread²), of covariance `shared`; p and q are around the
    means.
    """
    # Math: with z = p/s and y = v − E[v|u], independent of u, the projection on quadratics is A₀ +
    # A₁z + ½A₂(z² − 1) + (B₀ + B₁z) y + ½C₀(y² − Var y). Moments of ψ given u are closed (ψ is two
    # ReLUs); Gauss-Legendre quadrature over z between the bends of φ and of E[ψ(v)|u] does the
    # rest. It is exact to rounding but where u and v are nearly collinear.
    parts = (torch.split(x, BLOCK) for x in (mean, deviation, other, spread, shared))
    done = [one_block(phi, *part) for part in zip(*parts, strict=True)]
    return torch.cat([one for one, _ in done], dim=1), torch.cat([value for _, value in done])


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [−1, 1], from the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, count, dtype=torch.float64)
    side = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return nodes, 2 * vectors[0].square()


def one_block(
    phi: Activation, m: Tensor, s: Tensor, n: Tensor, t: Tensor, k: Tensor
) -> tuple[Tensor, Tensor]:
    inverse = torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0)
    slope = k * inverse  # of E[v|u] in z
    left = (t.square() - slope.square()).clamp(min=0).sqrt()
    left = torch.where(left > ALIKE * t, left, 0.0)
    low, high = VALUE_LIMITS
    ends = [(bend - m) / s for bend in BENDS] + [(bend - n) / slope for bend in (low, high)]
    cuts = torch.stack([torch.full_like(m, -DEVIATIONS), *ends, torch.full_like(m, DEVIATIONS)])
    cuts = cuts.nan_to_num(0.0).clamp(-DEVIATIONS, DEVIATIONS).sort(dim=0).values.T[..., None]
    nodes, weights = (one.to(m) for one in gauss_legendre(NODES))
    half = (cuts[:, 1:] - cuts[:, :-1]) / 2
    z = (cuts[:, :-1] + half * (1 + nodes)).flatten(1)
    weight = (half * weights).flatten(1) * density(z) * phi(m[:, None] + s[:, None] * z)
    centre, width = n[:, None] + slope[:, None] * z, left[:, None].expand_as(z)
    below, above = relu_moments(centre - low, width), relu_moments(centre - high, width)
    value, first, second = (a - b for a, b in zip(below[:3], above[:3], strict=True))
    value = low + value

    def expected(x: Tensor) -> Tensor:
        return (weight * x).sum(dim=1)

    a0, a1, a2 = expected(value), expected(value * z), expected(value * (z.square() - 1))
    b0, b1, c0 = expected(first), expected(first * z), expected(second)
    turn = slope * inverse  # y = q − turn · p
    square = a2 * inverse.square() / 2 - b1 * turn * inverse + c0 * turn.square() / 2
    rest = a0 - (a2 + c0 * left.square()) / 2
    both, straight = b1 * inverse - c0 * turn, a1 * inverse - b0 * turn
    return torch.stack([square, both, straight, b0, rest, c0 / 2]), a0
