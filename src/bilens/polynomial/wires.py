"""Orthogonal decomposition of layers one behind the other: which directions of each wire matter.

The layers are read as a tree of products (`tree.py`), whose tensor has a copy of (z, 1) at each
leaf: z is the input in coordinates in which it has mean 0 and covariance I.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from bilens.algebra.gaussian import correlation_parts
from bilens.algebra.quadratic_form import checked_vector
from bilens.algebra.shapes import check_shape
from bilens.base.checks import as_integer
from bilens.base.errors import UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.composition import composition_of, layer_maps
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.tree import EPS, SPARE, Tree, TreeLayer, balance, check_sums, homogeneous

LEAST = 1e-13  # of the largest eigenvalue, channels balanced: what is below it is not told apart
UNDERFLOW = 1e-150  # a root of sums of squares that are too small for float64
SPAN = 1e-6  # how far an input may be from what the covariance spans, of its size; it is counted


@dataclass(frozen=True, eq=False)
class InputCoordinates:
    """x = mean + root z, and z = inverse (x − mean), for the directions in which inputs vary."""

    mean: Tensor  # (in,)
    root: Tensor  # C, (in, rank), C Cᵀ the covariance
    inverse: Tensor  # (rank, in), inverse @ root = I

    @classmethod
    def from_moments(
        cls, width: int, mean: Tensor | None, covariance: Tensor | None
    ) -> InputCoordinates:
        """Return the coordinates of a mean (None is zero) and a covariance (None is I)."""
        centre = torch.zeros(width, dtype=torch.float64)
        centre = centre if mean is None else checked_vector("mean", mean, width)
        if covariance is None:
            eye = torch.eye(width, dtype=torch.float64)
            return cls(centre, eye, eye)
        deviations, values, columns = correlation_parts(covariance, width)
        roots, columns = values[values > 0].sqrt(), columns[:, values > 0]
        units = torch.where(deviations > 0, 1 / deviations, 0.0)
        return cls(centre, deviations[:, None] * columns * roots, (columns / roots).T * units)

    @property
    def leaves(self) -> Tensor:
        """The matrix from (z, 1) to (x, 1)."""
        last = pad(self.root.new_zeros(1, self.root.shape[1]), (0, 1), value=1.0)
        return torch.cat([torch.cat([self.root, self.mean[:, None]], dim=1), last])


@frozen_result("spectra", "squared_norm")
class WireDecomposition:
    """A network in orthonormal coordinates of every wire, ordered by what the outputs read of them.

    Attributes:
        layers: of the tree, in these coordinates.
        head: (outputs, width of the last wire).
        spectra: of the wire behind each layer, the squared norm of the network's tensor along each
            direction, falling; each sums to `squared_norm`.
        squared_norm: of the network's tensor.
        original: the tree in the network's own coordinates of each wire, which errors are of.
        inputs: what the tree reads of an input.
        first: the first layer of the original as it reads (x, 1).
        read: of each wire, (rank, channels + 1): its coordinates from the network's own channels
            with a 1 behind them.
        write: of each wire, (channels + 1, rank), the way back. `write[:, :k] @ read[:k]` projects
            the channels onto the first k directions, as `truncate` does in every copy.
    """

    layers: tuple[TreeLayer, ...]
    head: Tensor
    spectra: tuple[Tensor, ...]
    squared_norm: float
    original: Tree
    inputs: InputCoordinates
    first: TreeLayer
    read: tuple[Tensor, ...]
    write: tuple[Tensor, ...]

    @cached_property
    def copies(self) -> tuple[int, ...]:
        """How often each wire occurs in the tree."""
        return tuple(2 ** (len(self.layers) - 1 - at) for at in range(len(self.layers)))

    @cached_property
    def lost(self) -> float:
        """The squared error that the change of coordinates alone may have brought."""
        return sum(self.original.squared_distance(balance(Tree(self.layers, self.head))[0]))

    def truncate(self, widths: Sequence[int]) -> TruncatedNetwork:
        """Keep the leading directions of each wire.

        Math: in every copy of a wire the rest is projected away. The squared error of the tensor
            is at most Σ copies · (what the spectrum says is left out), and is computed from Gram
            matrices against the network's own weights, to the rounding that is told with it: it
            is the expected squared error where the copies of the input are independent draws
            (`decompose_wires`). For one input in all copies `error_bound` holds.

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
        kept = tuple(int(width) for width in widths)
        tree = balance(Tree(self.layers, self.head).truncated(kept))[0]
        error, rounding = self.original.squared_distance(tree)
        left_out = sum(
            copies * float(spectrum[width:].sum())
            for copies, spectrum, width in zip(self.copies, self.spectra, kept, strict=True)
        )
        # what is left out, and what the change of coordinates itself lost
        bound = (math.sqrt(left_out) + math.sqrt(self.lost)) ** 2
        inverse = self.inputs.inverse
        network = tree.as_network(inverse, -inverse @ self.inputs.mean)
        norm = self.squared_norm
        return TruncatedNetwork(network, kept, error, rounding, bound, norm, self, tree)

    def widths_within(self, share: float) -> tuple[int, ...]:
        """Find widths for which the spectra leave out at most a share of the squared norm.

        The share is divided evenly between the wires, and counts every copy of a direction. What
        rounding may add is not in it: `truncate` tells the bound with it.
        """
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise UsageError(f"share is {share!r}; expected a number between 0 and 1.")
        each, widths = share * self.squared_norm / len(self.spectra), []
        for copies, spectrum in zip(self.copies, self.spectra, strict=True):
            rest = spectrum.flip(0).cumsum(0).flip(0) * copies  # left out if this is the first gone
            over = int((rest > each).sum())
            widths.append(max(over, 1))
        return tuple(widths)


@frozen_result("widths", "squared_error", "rounding", "bound", "squared_norm")
class TruncatedNetwork:
    """A network with narrower wires, and how far it is from the whole.

    Attributes:
        network: that can be run; it reads what the whole reads. Of an input outside of what the
            covariance spans it reads the part inside.
        widths: of its wires.
        squared_error: of its tensor from the whole one, as exactly as `rounding` says: expected
            where every copy of the input is an independent draw.
        rounding: how much larger it may be for rounding, proven.
        bound: on it, from the spectra, and from what the coordinates lose.
        squared_norm: of the whole tensor.
        whole: what was truncated.
        tree: the tensor's, which reads (z, 1).
    """

    network: PolynomialNetwork
    widths: tuple[int, ...]
    squared_error: float
    rounding: float
    bound: float
    squared_norm: float
    whole: WireDecomposition
    tree: Tree

    def error_bound(self, x: Tensor) -> Tensor:
        """Bound how far the outputs are from those of the whole network, for given inputs.

        Math: f(x) − g(x) is the difference of both tensors at 2^layers copies of v = (z, 1), so
            that ‖f(x) − g(x)‖ ≤ √(squared_error + rounding) · ‖v‖^(2^layers) by Cauchy and
            Schwarz. Added is what running both in float64 may change, from the sizes of all that
            is added up (a residual path and the linear part of its layer as one), and what is left
            of x outside of what the covariance spans, where it is at most 10⁻⁶ of the size of each
            entry.

        Args:
            x: (..., in).

        Returns: (...), rounded up; infinity for an input that is further outside: there the
            tensor says nothing.
        Raises: ShapeError if x has another width; NonFiniteError for NaN or infinity.
        """
        inputs = self.whole.inputs
        shape = check_shape("x", x, ("…", len(inputs.mean)))
        rows = x.detach().double().reshape(-1, shape[-1])
        steps = sum(inputs.root.shape)
        unit = EPS * (steps + 8)
        apart, added = rows - inputs.mean, rows.abs() + inputs.mean.abs()
        z, size = apart @ inputs.inverse.T, added @ inputs.inverse.abs().T
        reach = torch.cat([z.abs() + unit * size, torch.ones_like(z[:, :1])], dim=1).norm(dim=1)
        added = added + reach[:, None] * inputs.root.norm(dim=1)
        outside = (apart - z @ inputs.root.T).abs()
        off = outside + unit * (added + size @ inputs.root.abs().T)

        whole = Tree((self.whole.first, *self.whole.original.layers[1:]), self.whole.original.head)
        run = sum(
            tree.run_rounding(
                pad(x, (0, 1), value=1.0), pad(large, (0, 1), value=1.0), pad(far, (0, 1)), steps
            )
            for tree, x, large, far in (
                (whole, rows, added, off),
                (self.tree, z, size, unit * size),
            )
        )
        apart_by = math.sqrt(self.squared_error + self.rounding) + UNDERFLOW
        bound = (apart_by * reach ** (2 ** len(self.widths)) + run) * (1 + SPARE)
        inside = (outside <= SPAN * added).all(dim=1)
        found = torch.where(inside, bound.nan_to_num(nan=math.inf, posinf=math.inf), math.inf)
        return found.reshape(shape[:-1])

    def gaussian_error(self) -> float:
        """Compute E‖f(x) − g(x)‖² for one x ~ N(mean, covariance) in all copies, for two layers.

        Accuracy: a difference of moments of f and g, to about 10⁻¹³ of E‖f(x)‖².
        Raises: UsageError if the network has another number of layers than two.
        """
        f, g = (composition_of(one.as_network()) for one in (self.whole.original, self.tree))
        varying = f.correlate(f) - 2 * f.correlate(g) + g.correlate(g)
        constant = (f.order_0 - g.order_0).square().sum()
        return max(float(varying.diagonal().sum() + constant), 0.0)


def decompose_wires(
    network: PolynomialNetwork, *, mean: Tensor | None = None, covariance: Tensor | None = None
) -> WireDecomposition:
    """Decompose the wires of a network of layers one behind the other.

    Math: inputs are written as x = mean + C z, C Cᵀ = covariance, and the network as a tree of
        products T(v, …, v) with 2^layers copies of v = (z, 1), symmetric in the two inputs of each
        product. The norm is ‖T‖², all entries of T squared. If every copy is an independent draw
        v_i with that mean and covariance, then E v_i v_iᵀ = I, and E ‖T(v_1, …, v_N)‖² =
        Σ T_a·T_b Π_i E[v_ia v_ib] = ‖T‖²: squared errors of tensors are expected squared errors
        of such draws, exactly, of any distribution. From the inputs up, each layer's flattening
        (out × in²) is made orthonormal by an eigendecomposition of its Gram matrix,
        down ((L Lᵀ)∘(R Rᵀ) + (L Rᵀ)∘(R Lᵀ)) downᵀ / 2, and what is left is pushed into the next
        layer; from the outputs down, each wire is turned to the eigenvectors of its output-side
        Gram matrix.
    Cost: O(layers · units² · width), O(in³) for a covariance; no array of out × in².
    Accuracy: float64. Units and channels are balanced first, so that their scale does not matter;
        directions below 1e-13 of the largest eigenvalue then cannot be told apart, and go:
        `truncate` counts them in its error and its bound.

    Args:
        network: layers with or without residual paths that read vectors; with a head or without.
        mean: (in,), of the inputs; None is zero.
        covariance: (in, in), of the inputs; None is the identity. Directions without variance are
            dropped (eigenvalues of the correlations up to in · eps of the largest): what is said
            then holds for inputs in mean + the span of the covariance, and for no others. With
            it the units of the inputs do not matter; without it bring them to about 1.

    Raises: UsageError if the network has attention or an embedding of tokens, or the covariance is
        not symmetric or has an eigenvalue below zero; ShapeError if the mean or the covariance does
        not fit; NumericalError if sums of squares of the weights overflow.
    """
    maps = layer_maps(network, "wires are decomposed of layers")
    inputs = InputCoordinates.from_moments(network.d_in, mean, covariance)
    head = torch.eye(network.d_out) if network.head is None else network.head.detach()
    head = head.double()
    bias = head.new_zeros(len(head)) if network.head_bias is None else network.head_bias.detach()
    tree = Tree(
        tuple(homogeneous(f) for f in maps), torch.cat([head, bias.double()[:, None]], dim=1)
    )
    original, first, sizes = balance(tree, inputs.leaves)
    orthonormal, up, read, write = orthonormalise(original, sizes)
    # from the outputs down: each wire in the order of what the outputs read of it
    head = original.head @ up
    environment = check_sums(head.T @ head)
    spectra: list[Tensor] = []
    layers: list[TreeLayer] = []
    for at in reversed(range(len(orthonormal))):
        values, vectors = torch.linalg.eigh(environment)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        spectra.insert(0, values)
        if layers:
            layers[0] = layers[0].with_inputs(vectors)
        else:
            head = head @ vectors
        turned = replace(orthonormal[at].with_outputs(vectors.T), loss=0.0)
        read[at], write[at] = vectors.T @ read[at], write[at] @ vectors
        layers.insert(0, turned)
        environment = turned.below(torch.diag(values))
    return WireDecomposition(
        tuple(layers),
        head,
        tuple(spectra),
        original.inner_product(original)[0],
        original,
        inputs,
        first,
        tuple(read),
        tuple(write),
    )


def orthonormalise(
    tree: Tree, sizes: Sequence[Tensor]
) -> tuple[list[TreeLayer], Tensor, list[Tensor], list[Tensor]]:
    """Make the outputs of every layer orthonormal, from the inputs up.

    Returns: the layers, what is left for the head, and of each wire the matrices from the
        network's own channels, whose sizes were balanced, and back.
    """
    up, orthonormal, read, write = None, [], [], []
    for layer, size in zip(tree.layers, sizes, strict=True):
        given = layer if up is None else layer.with_inputs(up)
        gram = given.gram(given, torch.eye(given.left.shape[1], dtype=torch.float64))
        values, vectors = torch.linalg.eigh(gram)
        real = values > LEAST * values[-1].clamp(min=0)
        root, vectors = values[real].sqrt(), vectors[:, real]
        inverse, up = (vectors / root).T, vectors * root
        orthonormal.append(given.with_outputs(inverse))
        read.append(inverse / size)
        write.append(size[:, None] * up)
    assert up is not None, "a network without an embedding has a part"
    return orthonormal, up, read, write
