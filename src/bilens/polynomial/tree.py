"""Layers one behind the other as a tree of products, and the tensor that the tree contracts to.

Every layer multiplies two copies of what the layer before gives, down to 2^layers copies of the
input with a 1 behind it. In the tensor each copy is free; norms and inner products are sums over
Gram matrices of the factors, and no array of a whole layer is formed. What rounding may change is
bounded beside every sum: entries of one product by the sizes of its factors, and what it passes
on by their spectral norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NumericalError
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer

EPS = torch.finfo(torch.float64).eps
SPARE = 1e-9  # relative: more than rounding takes from a norm


def spectral_norm(matrix: Tensor) -> float:
    """Return the largest singular value, rounded up."""
    return float(torch.linalg.matrix_norm(matrix, 2)) * (1 + SPARE) if matrix.numel() else 0.0


@dataclass(frozen=True, eq=False)
class TreeLayer:
    """One layer of the tree: out ↦ down[(left z) ∘ (right z)], z with a constant behind it."""

    down: Tensor  # (out, units)
    left: Tensor  # (units, in)
    right: Tensor
    loss: float = 0.0  # what rounding changed of left, or of right, as a Frobenius norm

    @cached_property
    def spectral_norms(self) -> tuple[float, float, float]:
        """The spectral norms of down, left and right."""
        return spectral_norm(self.down), spectral_norm(self.left), spectral_norm(self.right)

    @property
    def steps(self) -> int:
        """How many roundings a sum over inputs and one over units may collect, and some more."""
        return sum(self.left.shape) + 8

    def gram(self, other: TreeLayer, inputs: Tensor) -> Tensor:
        """Compute ⟨out_i, other's out_j⟩, given that of the inputs, (in, other's in)."""
        ll, rr, lr, rl = self.meets(other, inputs)
        found: Tensor = self.down @ ((ll * rr + lr * rl) / 2) @ other.down.T
        return found

    def meets(self, other: TreeLayer, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute what left and right of both read of each other: ll, rr, lr and rl."""
        left, right = self.left @ inputs, self.right @ inputs
        return (
            left @ other.left.T,
            right @ other.right.T,
            left @ other.right.T,
            right @ other.left.T,
        )

    def gram_rounding(self, other: TreeLayer, inputs: Tensor, error: float) -> float:
        """Bound what `gram` is off by, as a Frobenius norm, given that of the inputs."""
        down, *own = self.spectral_norms
        other_down, *their = other.spectral_norms
        unit, big = EPS * (self.steps + other.steps), inputs.abs()
        # at least the spectral norm of the absolute values
        size = math.sqrt(float(big.sum(dim=0).max()) * float(big.sum(dim=1).max()))
        size = min(float(inputs.norm()), size) * (1 + SPARE)
        sides, other_sides = (self.left, self.right), (other.left, other.right)

        def off(mine: int, yours: int) -> float:
            fresh = unit * float(sides[mine].norm()) * size * float(other_sides[yours].norm())
            lost = self.loss * their[yours] + own[mine] * other.loss + self.loss * other.loss
            return own[mine] * their[yours] * error + fresh + size * lost

        ll, rr, lr, rl = self.meets(other, inputs)
        total, fresh = 0.0, unit * float(self.down.norm()) * float(other.down.norm())
        for a, b, off_a, off_b in ((ll, rr, off(0, 0), off(1, 1)), (lr, rl, off(0, 1), off(1, 0))):
            product = float(a.abs().max()) * off_b + float(b.abs().max()) * off_a + off_a * off_b
            total += down * other_down * product / 2 + fresh * float((a * b).norm()) / 2
        return total

    def below(self, environment: Tensor) -> Tensor:
        """Compute the Gram matrix of one input slot, (in, in), given that of the outputs.

        The inputs are orthonormal, so that the other slot is summed over.
        """
        outer = self.down.T @ environment @ self.down
        ll, rr = self.left @ self.left.T, self.right @ self.right.T
        lr = self.left @ self.right.T
        found = self.left.T @ (outer * rr) @ self.left + self.right.T @ (outer * ll) @ self.right
        crossed = self.left.T @ (outer * lr.T) @ self.right
        whole: Tensor = (found + crossed + crossed.T) / 4
        return whole

    def with_inputs(self, matrix: Tensor) -> TreeLayer:
        """Read matrix @ (what comes in)."""
        return TreeLayer(self.down, self.left @ matrix, self.right @ matrix)

    def with_outputs(self, matrix: Tensor) -> TreeLayer:
        """Give matrix @ (what comes out)."""
        return replace(self, down=matrix @ self.down)


@dataclass(frozen=True, eq=False)
class Tree:
    """Layers and a head, (outputs, width of the last wire), as a tree of products."""

    layers: tuple[TreeLayer, ...]
    head: Tensor

    @property
    def num_inputs(self) -> int:
        """How many numbers the first layer reads, the 1 among them."""
        return self.layers[0].left.shape[1]

    def inner_product(self, other: Tree) -> tuple[float, float]:
        """Compute the inner product of both tensors, summed over the outputs, and its rounding.

        Math: with G of a wire off by at most e (Frobenius), L G L'ᵀ is off by ‖L‖ ‖L'‖ e and its
            own rounding, γ ‖L‖_F ‖G‖_F ‖L'‖_F; A∘B by max|A| e_B + max|B| e_A + e_A e_B, and
            D (…) D'ᵀ by ‖D‖ ‖D'‖ e and its own rounding. γ counts all roundings of a sum.
        """
        gram, error = torch.eye(self.num_inputs, dtype=torch.float64), 0.0
        for layer, their in zip(self.layers, other.layers, strict=True):
            error = layer.gram_rounding(their, gram, error)
            gram = layer.gram(their, gram)
        sizes = float(self.head.norm()) * float(other.head.norm())
        fresh = EPS * (self.head.numel() + sum(gram.shape)) * float(gram.norm())
        found = float((self.head @ gram * other.head).sum())
        return found, sizes * (error + fresh) * (1 + SPARE)

    def squared_distance(self, other: Tree) -> tuple[float, float]:
        """Compute the squared distance of both tensors, and how much rounding may hide of it."""
        pairs = ((self, self), (self, other), (other, other))
        (own, own_off), (both, off), (their, their_off) = (a.inner_product(b) for a, b in pairs)
        rounding = own_off + 2 * off + their_off + 4 * EPS * (own + their)
        return max(own - 2 * both + their, 0.0), rounding

    def truncated(self, widths: Sequence[int]) -> Tree:
        """Keep the first channels of each wire."""
        layers, before = [], self.num_inputs
        for layer, width in zip(self.layers, widths, strict=True):
            left, right = layer.left[:, :before], layer.right[:, :before]
            layers.append(TreeLayer(layer.down[:width], left, right))
            before = width
        return Tree(tuple(layers), self.head[:, :before])

    def run_rounding(self, x: Tensor, size: Tensor, off: Tensor, steps: int) -> Tensor:
        """Bound what rounding, and inputs that are off, change of the outputs, (rows,) norms.

        Args:
            x: (rows, in), with the 1.
            size: the same or larger, of the numbers that were added to x.
            off: how far x may be from the input that is meant, each entry.
            steps: roundings of each sum beyond those of the tree.
        """
        error = x.new_zeros(len(x))
        for layer in self.layers:
            unit, (down, *norms) = EPS * (layer.steps + steps), layer.spectral_norms
            values, sizes, errors = [], [], []
            for side, norm in zip((layer.left, layer.right), norms, strict=True):
                values.append((x @ side.T).abs().amax(dim=1))
                sizes.append(size @ side.abs().T)
                spread = off @ side.abs().T + unit * sizes[-1]
                errors.append(spread.norm(dim=1) + norm * error)
            large = sizes[0] * sizes[1]
            error = values[0] * errors[1] + values[1] * errors[0] + errors[0] * errors[1]
            error = down * (error + unit * large.norm(dim=1))
            error = error + unit * (large @ layer.down.abs().T).norm(dim=1)
            x = ((x @ layer.left.T) * (x @ layer.right.T)) @ layer.down.T
            size, off = x.abs(), torch.zeros_like(x)
        fresh = EPS * (self.head.shape[1] + 8) * (size @ self.head.abs().T).norm(dim=1)
        bound: Tensor = spectral_norm(self.head) * error + fresh
        return bound

    def as_network(
        self, matrix: Tensor | None = None, shift: Tensor | None = None
    ) -> PolynomialNetwork:
        """Write the tree as a network that reads x without the 1: its inputs are matrix x + shift.

        Args:
            matrix: (inputs without the 1, width of x); None is the identity.
            shift: (inputs without the 1,); None is zero.
        """
        width = self.num_inputs - 1
        matrix = torch.eye(width, dtype=torch.float64) if matrix is None else matrix
        shift = matrix.new_zeros(width) if shift is None else shift
        rows = torch.cat([matrix, matrix.new_zeros(1, matrix.shape[1])])
        maps = [QuadraticMap(BilinearTensor(one.down, one.left, one.right)) for one in self.layers]
        maps[0] = maps[0].compose_input(rows, torch.cat([shift, shift.new_ones(1)]))
        parts = tuple(QuadraticLayer(one, residual=False) for one in maps)
        return PolynomialNetwork(parts, head=self.head)


def homogeneous(f: QuadraticMap) -> TreeLayer:
    """Write a map on (x, 1), with a 1 behind its outputs: all of it is products of two."""
    (down, left, right), (linear, constant) = f._factors(), f._affine()
    outputs, _, width = f.sizes
    one = pad(down.new_zeros(1, width), (0, 1), value=1.0)  # reads the 1 alone
    eye = torch.eye(outputs + 1, dtype=down.dtype)
    return TreeLayer(
        torch.cat([pad(down, (0, 0, 0, 1)), eye], dim=1),
        torch.cat([pad(left, (0, 1)), torch.cat([linear, constant[:, None]], dim=1), one]),
        torch.cat([pad(right, (0, 1)), one.expand(outputs + 1, -1)]),
    )


def balance(tree: Tree, leaves: Tensor | None = None) -> tuple[Tree, TreeLayer, list[Tensor]]:
    """Bring units, and the rows of down, to sizes of about 1: so rounding is bounded best.

    The sizes are powers of two, which are exact: the function is the same. With leaves the tree
    then reads (z, 1), where (x, 1) = leaves @ (z, 1).

    Returns: the tree, its first layer as it reads (x, 1), and the sizes of the channels of each
        wire, which they are divided by.
    """
    width = tree.num_inputs if leaves is None else leaves.shape[1]
    gram, first = torch.eye(width, dtype=torch.float64), tree.layers[0]
    layers: list[TreeLayer] = []
    sizes: list[Tensor] = []
    for at, layer in enumerate(tree.layers):
        used = layer.left.any(dim=1) & layer.right.any(dim=1)
        left, right, down = layer.left[used], layer.right[used], layer.down[:, used]
        if at:
            left, right = left * sizes[-1], right * sizes[-1]
        turn = leaves if at == 0 else None
        read = (left, right) if turn is None else (left @ turn, right @ turn)
        by = [power_of_two((one @ gram * one).sum(dim=1)) for one in read]
        left, right = left / by[0][:, None], right / by[1][:, None]
        down = down * (by[0] * by[1])
        sizes.append(power_of_two(down.square().sum(dim=1)))
        given = TreeLayer(down / sizes[-1][:, None], left, right)
        first = first if at else given
        if turn is not None:
            lost = max(float((one.abs() @ turn.abs()).norm()) for one in (left, right))
            lost *= EPS * (len(turn) + 8)
            given = TreeLayer(given.down, left @ turn, right @ turn, lost)
        gram = check_sums(given.gram(given, gram))
        layers.append(given)
    return Tree(tuple(layers), tree.head * sizes[-1]), first, sizes


def check_sums(sums: Tensor) -> Tensor:
    """Refuse sums of squares that overflowed."""
    if not bool(sums.isfinite().all()):
        raise NumericalError(
            "squares of the network's weights overflow: bring weights, inputs and outputs to units "
            "in which they are nearer to 1."
        )
    return sums


def power_of_two(squares: Tensor) -> Tensor:
    """Return the power of two next to each root; 1 for 0."""
    exponents = torch.log2(squares.clamp(min=torch.finfo(torch.float64).tiny)) / 2
    return torch.where(squares > 0, torch.ldexp(torch.ones_like(squares), exponents.round()), 1.0)
