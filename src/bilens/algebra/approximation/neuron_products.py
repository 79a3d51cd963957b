"""Neurons as single products with biases: conditioning, shifts and balance of the factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, branch
from bilens.algebra.quadratic_map import add

CUT = 1e-11  # of the largest eigenvalue: directions that the rows do not show
STILL = 1e-10  # deviations: what rounding leaves of a constant
AMPLIFICATION = 8.0  # of rounding by a product, against the neuron's own size, at most
SHIFTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of a bounded shift, in deviations


@dataclass(frozen=True, eq=False)
class Neurons:
    """Quadratics of neurons in standard units ũ = (u − m)/s, ṽ = (v − n)/t of their branches."""

    u: tuple[Tensor, Tensor]  # m and s, (hidden,) each
    v: tuple[Tensor, Tensor]
    gram: Tensor  # (hidden, 5, 5), the mean products of the features ũ², ũṽ, ũ, ṽ, 1
    coefficients: Tensor  # (hidden, 5)


def branches(layer: GLUWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pre-activations u and the other branch v, (rows, hidden)."""
    return branch(x, layer.gate, layer.gate_bias), branch(x, layer.value, layer.value_bias)


def solved(gram: Tensor, right: Tensor) -> Tensor:
    """Return least-squares coefficients of each neuron; what the rows do not show is 0."""
    size = gram.diagonal(dim1=1, dim2=2).sqrt()
    size = torch.where(size > STILL, size, torch.inf)  # of features of about 1
    values, columns = torch.linalg.eigh(gram / size[:, :, None] / size[:, None])
    inverse = torch.where(values > CUT * values[:, -1:], 1 / values, 0.0)
    turned = (columns.transpose(1, 2) @ (right / size)[:, :, None])[..., 0]
    found: Tensor = (columns @ (inverse * turned)[:, :, None])[..., 0] / size
    return found


def as_products(layer: GLUWeights, neurons: Neurons, linear: bool) -> GLUWeights:
    """Return the quadratics of neurons as one product each, and what is left as a linear path."""
    a, gram = neurons.coefficients, neurons.gram
    shift = torch.where(a[:, 1] != 0, a[:, 3] / a[:, 1], 0.0)
    ill = ~(amplification(gram, a, shift, size=a) <= AMPLIFICATION) & (a[:, 3] != 0)
    if bool(ill.any()) and not linear:
        a, shift = a.clone(), shift.clone()
        a[ill], shift[ill] = bounded(gram[ill], a[ill])
    shift = torch.where(ill, 0.0, shift) if linear else shift
    past = a[:, 3] - a[:, 1] * shift  # coefficient of ṽ that no product holds
    past = torch.where(ill, past, 0.0) if linear else torch.zeros_like(past)
    second = a[:, 2] - a[:, 0] * shift
    rest = a[:, 4] - shift * second
    left, right = factors(a, shift)
    sizes = [root_mean_square(gram, part) for part in (left, right)]
    live = (sizes[0] > 0) & (sizes[1] > 0)
    balance = torch.where(live, sizes[1] / sizes[0].where(live, 1.0), 1.0).sqrt()
    (m, su), (n, sv) = neurons.u, neurons.v
    u, v = branches(layer, m.new_zeros(1, layer.d_in))
    at_u, at_v = (u[0] - m) / su, (v[0] - n) / sv  # ũ and ṽ at x = 0
    both = (a[:, 0] / su)[:, None] * layer.gate + (a[:, 1] / sv)[:, None] * layer.value
    path = layer.linear
    if bool(past.any()):
        path = add(path, (layer.down * (past / sv)) @ layer.value)
    return GLUWeights(
        down=layer.down,
        gate=(balance / su)[:, None] * layer.gate,
        value=both / balance[:, None],
        activation="identity",
        gate_bias=balance * (at_u + shift),
        value_bias=(a[:, 0] * at_u + a[:, 1] * at_v + second) / balance,
        linear=path,
        constant=add(layer.constant, layer.down @ (rest + past * at_v)),
    )


def factors(a: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return ũ + b and a₁ũ + a₂ṽ + a₃ − a₁b as coefficients of the features, (…, 5)."""
    zero = torch.zeros_like(shift)
    left = torch.stack([zero, zero, torch.ones_like(shift), zero, shift], dim=-1)
    second = a[..., 2] - a[..., 0] * shift
    return left, torch.stack([zero, zero, a[..., 0], a[..., 1], second], dim=-1)


def root_mean_square(gram: Tensor, coefficients: Tensor) -> Tensor:
    square = torch.einsum("...i,...ij,...j->...", coefficients, gram, coefficients)
    return square.clamp(min=0).sqrt()


def amplification(gram: Tensor, a: Tensor, shift: Tensor, size: Tensor) -> Tensor:
    """Return how large the factors are against the neuron: what rounding is multiplied by."""
    left, right = (root_mean_square(gram, part) for part in factors(a, shift))
    return left * right / root_mean_square(gram, size)


def bounded(gram: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return coefficients and shifts of the closest products with a bounded shift."""
    # Math: for a fixed b the product is linear in (a₁, a₂, c, constant) with features ũ² + bũ,
    # ũṽ + bṽ, ũ + b and 1; least squares of the neuron is that of its own quadratic.
    grid = gram.new_tensor(sorted({*SHIFTS, *(-shift for shift in SHIFTS)}))
    basis = gram.new_zeros(len(grid), 5, 4)
    basis[:, 0, 0] = basis[:, 1, 1] = basis[:, 2, 2] = basis[:, 4, 3] = 1
    basis[:, 2, 0] = basis[:, 3, 1] = basis[:, 4, 2] = grid
    small = torch.einsum("tia,hij,tjb->htab", basis, gram, basis)
    right = torch.einsum("tia,hij,hj->hta", basis, gram, a)
    found = solved(small.flatten(0, 1), right.flatten(0, 1)).reshape(right.shape)
    fitted = torch.einsum("tia,hta->hti", basis, found)
    wide, shift = gram[:, None].expand(-1, len(grid), -1, -1), grid.expand(len(a), -1)
    missed = root_mean_square(wide, fitted - a[:, None])
    rounding = amplification(wide, fitted, shift, a[:, None].expand_as(fitted))
    sound = rounding <= AMPLIFICATION
    choice = torch.where(sound, missed, torch.inf).argmin(dim=1)
    choice = torch.where(sound.any(dim=1), choice, rounding.nan_to_num(torch.inf).argmin(dim=1))
    rows = torch.arange(len(a))
    return fitted[rows, choice], grid[choice]
