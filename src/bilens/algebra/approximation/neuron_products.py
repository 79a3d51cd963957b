"""Neurons as single products with biases: conditioning, shifts and balance of the factors."""

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, branch
from bilens.algebra.quadratic_map import add

CUT = 1e-11  # of the largest eigenvalue: directions that the rows do not show
STILL = 1e-10  # deviations: what rounding leaves of a constant
AMPLIFICATION = 8.0  # of rounding by a product, against the neuron's own size, at most
SHIFTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of a bounded shift, in deviations


Units = tuple[Tensor, Tensor]  # centre and scale of a branch, (hidden,) each


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


def as_products(
    layer: GLUWeights, units: tuple[Units, Units], gram: Tensor, a: Tensor, linear: bool
) -> GLUWeights:
    """Return quadratics of neurons as one product each, and what is left as a linear path.

    With ũ and ṽ the branches in their units, `a` holds the coefficients of ũ², ũṽ, ũ, ṽ, 1,
    (hidden, 5), and `gram` the mean products of these features, (hidden, 5, 5).
    """
    shift = torch.where(a[:, 1] != 0, a[:, 3] / a[:, 1], 0.0)
    rounding = amplification(gram, a, shift, root_mean_square(gram, a))
    ill = ~(rounding <= AMPLIFICATION) & (a[:, 3] != 0)
    past = torch.zeros_like(shift)  # coefficient of ṽ that no product holds
    if linear:
        past, shift = torch.where(ill, a[:, 3], 0.0), torch.where(ill, 0.0, shift)
    elif bool(ill.any()):
        a[ill], shift[ill] = bounded(gram[ill], a[ill])
    second = a[:, 2] - a[:, 0] * shift
    rest = a[:, 4] - shift * second
    left, right = factors(a, shift)
    balance = (root_mean_square(gram, right) / root_mean_square(gram, left)).sqrt()
    balance = torch.where((balance > 0) & balance.isfinite(), balance, 1.0)
    (m, su), (n, sv) = units
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
    return left * right / size


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
    wide, size = gram[:, None], root_mean_square(gram, a)[:, None]
    missed = root_mean_square(wide, fitted - a[:, None]) / size  # at most 1
    rounding = amplification(wide, fitted, grid.expand(len(a), -1), size)
    choice = torch.where(rounding <= AMPLIFICATION, missed, 1 + rounding).argmin(dim=1)
    return fitted[torch.arange(len(a)), choice], grid[choice]
