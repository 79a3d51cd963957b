"""Orthogonal decomposition of layers one behind the other: which directions of each wire matter.

The layers are read as a tree: every layer multiplies two copies of what the layer before gives,
down to 2^layers copies of the input with a 1 behind it. In the tensor of that tree each copy is
free, and norms and inner products are sums over Gram matrices of the factors: no array of a whole
layer is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import html_summary
from bilens.polynomial.composition import with_residual
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer

LEAST = 1e-13  # of the largest eigenvalue, channels balanced: what is below it is not told apart
ROUNDINGS = 16  # how much more than one rounding the sums of a layer may collect


@dataclass(frozen=True, eq=False)
class TreeLayer:
    """One layer of the tree: out ↦ down[(left z) ∘ (right z)], z with a constant behind it."""

    down: Tensor  # (out, units)
    left: Tensor  # (units, in)
    right: Tensor

    def gram(self, other: TreeLayer, inputs: Tensor) -> Tensor:
        """Compute ⟨out_i, other's out_j⟩, given that of the inputs, (in, other's in)."""
        ll, rr = self.left @ inputs @ other.left.T, self.right @ inputs @ other.right.T
        lr, rl = self.left @ inputs @ other.right.T, self.right @ inputs @ other.left.T
        found: Tensor = self.down @ ((ll * rr + lr * rl) / 2) @ other.down.T
        return found

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

    def between(self, outputs: Tensor, inputs: Tensor) -> TreeLayer:
        """Change the coordinates: outputs @ (what comes out), of inputs @ (what comes in)."""
        return TreeLayer(outputs @ self.down, self.left @ inputs, self.right @ inputs)


@dataclass(frozen=True, eq=False)
class WireDecomposition:
    """A network in orthonormal coordinates of every wire, ordered by what the outputs read of them.

    Attributes:
        layers: of the tree, in these coordinates.
        head: (outputs, width of the last wire).
        spectra: of the wire behind each layer, the squared norm of the network's tensor along each
            direction, falling; each sums to `squared_norm`.
        squared_norm: of the network's tensor.
        original: the tree and the head in the network's own coordinates, which errors are of.
    """

    _repr_html_ = html_summary("spectra", "squared_norm")

    layers: tuple[TreeLayer, ...]
    head: Tensor
    spectra: tuple[Tensor, ...]
    squared_norm: float
    original: tuple[tuple[TreeLayer, ...], Tensor]

    @cached_property
    def copies(self) -> tuple[int, ...]:
        """How often each wire occurs in the tree."""
        return tuple(2 ** (len(self.layers) - 1 - at) for at in range(len(self.layers)))

    def truncate(self, widths: Sequence[int]) -> TruncatedNetwork:
        """Keep the leading directions of each wire.

        Math: in every copy of a wire the rest is projected away. The squared error of the tensor
            is at most Σ copies · (what the spectrum says is left out), and is computed from Gram
            matrices against the network's own weights, to the rounding that is told with it. For
            every input |f(x) − g(x)| ≤ √(squared_error + rounding) · ‖(x, 1)‖^(2^layers), up to
            the rounding of running both.

        Args:
            widths: directions to keep of the wire behind each layer.

        Raises: UsageError if a width is not from 1 to that of its wire.
        """
        known = tuple(len(spectrum) for spectrum in self.spectra)
        given: object = widths
        numbers = [as_integer(one) for one in given] if isinstance(given, Iterable) else []
        if len(numbers) != len(known) or any(
            number is None or not 1 <= number <= most
            for number, most in zip(numbers, known, strict=False)
        ):
            most = ", ".join(f"1 to {count}" for count in known)
            raise UsageError(f"widths={widths!r:.60}; expected for the wires: {most}.")
        kept, before, layers = [int(width) for width in widths], None, []
        for layer, width in zip(self.layers, kept, strict=True):
            inputs = layer.left.shape[1] if before is None else before
            cut = TreeLayer(layer.down[:width], layer.left[:, :inputs], layer.right[:, :inputs])
            layers.append(cut)
            before = width
        head = self.head[:, : kept[-1]]
        error, rounding = squared_distance(*self.original, layers, head)
        turned = sum(squared_distance(*self.original, self.layers, self.head))
        left_out = sum(
            copies * float(spectrum[width:].sum())
            for copies, spectrum, width in zip(self.copies, self.spectra, kept, strict=True)
        )
        # what is left out, and what the change of coordinates itself lost
        bound = (math.sqrt(left_out) + math.sqrt(turned)) ** 2
        network = as_network(layers, head)
        return TruncatedNetwork(network, tuple(kept), error, rounding, bound, self.squared_norm)

    def widths_within(self, share: float) -> tuple[int, ...]:
        """Find widths whose bound on the relative squared error of the tensor is at most a share.

        The share is divided evenly between the wires.
        """
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise UsageError(f"share is {share!r}; expected a number between 0 and 1.")
        each, widths = share * self.squared_norm / len(self.spectra), []
        for copies, spectrum in zip(self.copies, self.spectra, strict=True):
            rest = spectrum.flip(0).cumsum(0).flip(0) * copies  # left out if this is the first gone
            over = int((rest > each).sum())
            widths.append(max(over, 1))
        return tuple(widths)


@dataclass(frozen=True, eq=False)
class TruncatedNetwork:
    """A network with narrower wires, and how far it is from the whole.

    Attributes:
        network: that can be run; it reads what the whole reads.
        widths: of its wires.
        squared_error: of its tensor from the whole one, as exactly as `rounding` says.
        rounding: how much larger it may be for rounding.
        bound: on it, from the spectra, and from what the coordinates lose.
        squared_norm: of the whole tensor.
    """

    _repr_html_ = html_summary()

    network: PolynomialNetwork
    widths: tuple[int, ...]
    squared_error: float
    rounding: float
    bound: float
    squared_norm: float


def decompose_wires(network: PolynomialNetwork) -> WireDecomposition:
    """Decompose the wires of a network of layers one behind the other.

    Math: from the inputs up, each layer's flattening (out × in²) is made orthonormal by an
        eigendecomposition of its Gram matrix, down ((L Lᵀ)∘(R Rᵀ) + (L Rᵀ)∘(R Lᵀ)) downᵀ / 2, and
        what is left is pushed into the next layer; from the outputs down, each wire is turned to
        the eigenvectors of its output-side Gram matrix.
    Cost: O(layers · units² · width); no array of out × in².
    Accuracy: float64. Channels are balanced first, so that their units do not matter; directions
        below 1e-13 of the largest eigenvalue then cannot be told apart, and go: `truncate`
        counts them in its error and its bound.

    Args:
        network: layers with or without residual paths that read vectors; with a head or without.
            Its inputs count beside the constant 1: bring them to units in which they are about 1.

    Raises:
        UsageError: If the network has attention or an embedding of tokens.
    """
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    exact = network.to(torch.float64)
    if network.embedding is not None or not all(
        isinstance(part, QuadraticLayer) for part in network.parts
    ):
        raise UsageError(
            f"the network has the parts {', '.join(network.part_names)}"
            f"{' behind an embedding of tokens' if network.num_tokens else ''}; wires are "
            "decomposed of layers that read vectors."
        )
    maps = [with_residual(part) for part in exact.parts]
    layers = [homogeneous(f) for f in maps]
    head = (
        torch.eye(maps[-1].sizes.d_out, dtype=torch.float64) if exact.head is None else exact.head
    )
    bias = head.new_zeros(len(head)) if exact.head_bias is None else exact.head_bias
    head = torch.cat([head, bias[:, None]], dim=1)
    original = tuple(layers), head
    # up: orthonormal outputs of every layer
    up, orthonormal = None, []
    for layer in layers:
        given = layer if up is None else layer.between(torch.eye(len(layer.down)).double(), up)
        gram = given.gram(given, torch.eye(given.left.shape[1]).double())
        scale = gram.diagonal().sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        values, vectors = torch.linalg.eigh(gram / scale / scale[:, None])
        real = values > LEAST * values[-1].clamp(min=0)
        root, vectors = values[real].sqrt(), vectors[:, real]
        inverse = (vectors / root / scale[:, None]).T
        orthonormal.append(TreeLayer(inverse @ given.down, given.left, given.right))
        up = scale[:, None] * vectors * root
    assert up is not None, "a network without an embedding has a part"
    head = head @ up
    # down: each wire in the order of what the outputs read of it
    environment, spectra, ordered, turn = head.T @ head, [], [], None
    for layer in reversed(orthonormal):
        values, vectors = torch.linalg.eigh(environment)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        spectra.append(values)
        if turn is None:
            head = head @ vectors
        else:
            ordered[-1] = ordered[-1].between(torch.eye(len(ordered[-1].down)).double(), vectors)
        turned = TreeLayer(vectors.T @ layer.down, layer.left, layer.right)
        ordered.append(turned)
        turn, environment = vectors, turned.below(torch.diag(values))
    norm = inner_product(*original, *original)
    tree, falling = tuple(reversed(ordered)), tuple(reversed(spectra))
    return WireDecomposition(tree, head, falling, norm, original)


def homogeneous(f: QuadraticMap) -> TreeLayer:
    """Write a map on (x, 1), with a 1 behind its outputs: all of it is products of two."""
    down, left, right = f._factors()
    outputs, units, width = f.sizes
    zero = down.new_zeros
    one = zero(1, width + 1)
    one[0, -1] = 1.0
    downs = [torch.cat([down, zero(1, units)])]
    lefts = [torch.cat([left, zero(units, 1)], dim=1)]
    rights = [torch.cat([right, zero(units, 1)], dim=1)]
    affine = torch.cat(
        [
            zero(outputs, width) if f.linear is None else f.linear,
            (zero(outputs) if f.constant is None else f.constant)[:, None],
        ],
        dim=1,
    )
    lefts += [affine, one]
    rights += [one.expand(outputs, -1), one]
    downs += [torch.eye(outputs + 1, dtype=down.dtype)]
    return TreeLayer(torch.cat(downs, dim=1), torch.cat(lefts), torch.cat(rights))


def inner_product(
    layers: Sequence[TreeLayer], head: Tensor, others: Sequence[TreeLayer], other_head: Tensor
) -> float:
    """Compute the inner product of two networks' tensors, summed over the outputs."""
    if len(layers) != len(others) or len(head) != len(other_head):
        raise ShapeError("networks of other depths or outputs have no inner product.")
    gram = torch.eye(layers[0].left.shape[1], dtype=torch.float64)
    for layer, other in zip(layers, others, strict=True):
        gram = layer.gram(other, gram)
    return float((head @ gram * other_head).sum())


def squared_distance(
    layers: Sequence[TreeLayer], head: Tensor, others: Sequence[TreeLayer], other_head: Tensor
) -> tuple[float, float]:
    """Compute the squared distance of two networks' tensors, and how much rounding may hide of it.

    The rounding is that of the same sums of absolute values.
    """

    def sizes(tree: Sequence[TreeLayer]) -> list[TreeLayer]:
        return [TreeLayer(one.down.abs(), one.left.abs(), one.right.abs()) for one in tree]

    own, other = (layers, head), (others, other_head)
    found = inner_product(*own, *own) - 2 * inner_product(*own, *other)
    found += inner_product(*other, *other)
    big, small = (sizes(layers), head.abs()), (sizes(others), other_head.abs())
    total = inner_product(*big, *big) + 2 * inner_product(*big, *small)
    total += inner_product(*small, *small)
    steps = ROUNDINGS * len(layers)
    return max(found, 0.0), steps * torch.finfo(torch.float64).eps * total


def as_network(layers: Sequence[TreeLayer], head: Tensor) -> PolynomialNetwork:
    """Write layers of a tree as a network that reads x without the 1 behind it."""
    parts = []
    for at, layer in enumerate(layers):
        f = QuadraticMap(BilinearTensor(layer.down, layer.left, layer.right))
        if at == 0:
            width = layer.left.shape[1]
            eye = torch.eye(width, dtype=torch.float64)
            f = f.compose_input(eye[:, :-1], eye[:, -1])
        parts.append(QuadraticLayer(f, residual=False))
    return PolynomialNetwork(tuple(parts), head=head)
