"""Moments and similarity of two layers, one behind the other, under a Gaussian input: exact.

The composition f of two quadratic maps is a polynomial of degree 4. Under x ~ N(0, I) it is a sum
of Hermite parts of orders 0 to 4, which are uncorrelated: E[f g] = Σ_n n! ⟨F_n, G_n⟩, with
symmetric tensors F_n. The low orders are held as arrays. The tensors of orders 3 and 4 are never
formed: g is a sum over pairs of its first layer's units, and f is evaluated, polarised, at the
vectors of each pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilens.algebra.gaussian import covariance_root
from bilens.algebra.quadratic_form import checked_vector
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_type
from bilens.base.errors import NumericalError, ShapeError, UsageError
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer

AT_ONCE = 1 << 20  # numbers of one array of forms


@frozen_result()
class OutputMoments:
    """Mean and covariance of the outputs of a network under a Gaussian input.

    Attributes:
        mean: (outputs,), float64.
        covariance: (outputs, outputs), float64.
    """

    mean: Tensor
    covariance: Tensor


def output_moments(
    network: PolynomialNetwork, mean: Tensor | None = None, covariance: Tensor | None = None
) -> OutputMoments:
    """Compute the exact mean and covariance of a two-layer network's outputs.

    Cost: O(n² · (n · m + h · m + h · outputs)) for n units of the first layer, m channels between
        the layers and h units of the second.

    Args:
        network: two layers one behind the other, each with or without a residual path, that read
            vectors; with a head or without.
        mean: (in,), of the input; None is zero.
        covariance: (in, in), of the input; None is the identity.

    Raises: UsageError if the network is not two layers that read vectors (of more of them
        `approximate_moments` tells what is close), or the covariance is none; ShapeError if the
        mean or the covariance does not fit; MemoryLimitError if the second-order parts would not
        fit.
    """
    composed = composition_of(network, mean, covariance)
    return OutputMoments(composed.order_0, composed.correlate(composed))


def network_similarity(
    first: PolynomialNetwork,
    second: PolynomialNetwork,
    *,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    outputs: Sequence[int] | None = None,
    centred: bool = True,
) -> float:
    """Compute the cosine of two two-layer networks as functions of a Gaussian input, exactly.

    Math: Σ_k E[f_k g_k] / √(Σ_k E[f_k²] · Σ_k E[g_k²]), f and g less their means where `centred`.

    Args:
        first: a network as in `output_moments`.
        second: another one, of the same inputs and outputs.
        mean: of the input, as in `output_moments`.
        covariance: of the input, as in `output_moments`.
        outputs: the outputs that are compared; None: all.
        centred: whether each output is told against its mean.

    Raises: UsageError, ShapeError, MemoryLimitError as in `output_moments`, if the networks differ
        in inputs or outputs, or an output is not there; NumericalError if the moments overflow.
    """
    for one in (first, second):
        check_type("network", one, PolynomialNetwork, "use bl.polynomial_network(model)")
    if (first.d_in, first.d_out) != (second.d_in, second.d_out):
        raise ShapeError(
            f"networks {first.d_in} → {first.d_out} and {second.d_in} → {second.d_out} cannot be "
            "compared: inputs and outputs must be the same."
        )
    given: object = list(range(first.d_out)) if outputs is None else outputs
    given = given.tolist() if hasattr(given, "tolist") else given
    numbers = [as_integer(one) for one in given] if isinstance(given, Iterable) else []
    chosen = [number for number in numbers if number in range(first.d_out)]
    if not chosen or len(chosen) != len(numbers):
        raise UsageError(f"outputs={outputs!r:.60}; expected numbers from 0 to {first.d_out - 1}.")
    index = torch.tensor(chosen)
    f, g = (composition_of(one, mean, covariance, index).of_size_one() for one in (first, second))

    def inner(one: Composition, other: Composition) -> float:
        total = float(one.correlate(other).diagonal().sum())
        return total if centred else total + float(one.order_0 @ other.order_0)

    own, their, both = inner(f, f), inner(g, g), inner(f, g)
    if not all(map(math.isfinite, (own, their, both))):
        raise NumericalError(
            "moments of the networks overflow: bring weights and inputs to sizes nearer to 1."
        )
    sizes = math.sqrt(max(own, 0.0)) * math.sqrt(max(their, 0.0))
    return both / sizes if sizes > 0 else math.nan


def composition_of(
    network: PolynomialNetwork,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    outputs: Tensor | None = None,
) -> Composition:
    """Return the two layers of a network as functions of a standard normal input."""
    maps = layer_maps(network, "moments are exact of two layers")
    if len(maps) != 2:
        raise UsageError(
            f"the network has the layers {', '.join(network.part_names)}; moments are exact of two "
            "layers that read vectors: of fewer or more use bl.approximate_moments."
        )
    first, second = maps
    if network.head is not None:
        bias = None if network.head_bias is None else network.head_bias.double()
        second = second.compose_output(network.head.double(), bias)
    if outputs is not None:
        chosen = torch.eye(second.sizes.d_out, dtype=torch.float64)[outputs]
        second = second.compose_output(chosen)
    width = first.sizes.d_in
    if covariance is not None or mean is not None:
        root = torch.eye(width, dtype=torch.float64)
        root = root if covariance is None else covariance_root(covariance, width)
        first = first.compose_input(
            root, None if mean is None else checked_vector("mean", mean, width)
        )
    return Composition(first, second)


def layer_maps(network: PolynomialNetwork, said: str) -> list[QuadraticMap]:
    """Return the layers of a network with their residual paths, in float64.

    A network with other parts, or of tokens, is refused: with what is said, of "layers".
    """
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    if network.embedding is not None or not all(
        isinstance(part, QuadraticLayer) for part in network.parts
    ):
        raise UsageError(
            f"the network has the parts {', '.join(network.part_names)}"
            f"{' behind an embedding of tokens' if network.num_tokens else ''}; {said} that read "
            "vectors."
        )
    return [with_residual(part) for part in network.to(torch.float64).parts]


def with_residual(part: object) -> QuadraticMap:
    """Return the map of a layer with its residual path."""
    assert isinstance(part, QuadraticLayer), "checked by the caller"
    f = part.map
    return f.plus_affine(torch.eye(f.sizes.d_in, dtype=f.dtype)) if part.residual else f


@dataclass(frozen=True, eq=False)
class Composition:
    """f(x) = second(first(x)) under x ~ N(0, I), in Hermite parts; float64."""

    first: QuadraticMap
    second: QuadraticMap

    def of_size_one(self) -> Composition:
        """Bring what lies between, and the outputs, to size 1, which no cosine sees."""
        tensor = self.first.tensor
        products = [float(one.abs().max()) for one in (tensor.down, tensor.left, tensor.right)]
        parts = [one for one in (self.first.linear, self.first.constant) if one is not None]
        between = max(math.prod(products), *(float(one.abs().max()) for one in parts), 0.0)
        first, second = self.first, self.second
        if between > 0:
            eye = torch.eye(first.sizes.d_out, dtype=torch.float64)
            first, second = first * (1 / between), second.compose_input(eye * between)
        written = (second.tensor.down, second.linear, second.constant)
        size = max(float(part.abs().max()) for part in written if part is not None)
        return Composition(first, second * (1 / size) if size > 0 else second)

    @property
    def linear(self) -> Tensor:
        """(between, in): the linear part of the first layer."""
        return self.first._affine()[0]

    def forms(self, weight: Tensor) -> Tensor:
        """Form the symmetric matrices of weight · (the quadratic part of the first layer)."""
        _, left, right = self.first._factors()
        units = weight @ self.first.tensor.down  # (rows, units)
        half = torch.einsum("ru,ui,uj->rij", units, left, right)
        found: Tensor = (half + half.mT) / 2
        return found

    @cached_property
    def low_orders(self) -> tuple[Tensor, Tensor, Tensor]:
        """F_0 (outputs,), F_1 (outputs, in) and F_2 (outputs, in, in)."""
        down, left, right = self.second._factors()
        outputs, width = len(down), self.first.sizes.d_in
        linear, constant = self.first._affine()
        check_memory(
            8 * 3 * outputs * width**2,
            f"the second-order parts of {outputs} outputs of {width} inputs",
            "choose outputs=",
        )
        order_0, order_1 = down.new_zeros(outputs), down.new_zeros(outputs, width)
        order_2 = down.new_zeros(outputs, width, width)
        rows = max(1, AT_ONCE // width**2)
        for at in range(0, len(left), rows):
            weights, one, two = down[:, at : at + rows], left[at : at + rows], right[at : at + rows]
            big, other = self.forms(one), self.forms(two)  # P and S
            p, s = one @ linear, two @ linear
            a, b = one @ constant, two @ constant
            trace_p, trace_s = (part.diagonal(dim1=1, dim2=2).sum(dim=1) for part in (big, other))
            product = big @ other
            both = product.diagonal(dim1=1, dim2=2).sum(dim=1)
            # of order 4: P S; traced once and twice
            second = trace_s[:, None, None] * big + trace_p[:, None, None] * other
            second = second + 2 * (product + product.mT)
            # of order 2: a S + b P + p sᵀ
            crossed = p[:, :, None] * s[:, None, :]
            second = second + a[:, None, None] * other + b[:, None, None] * big
            second = second + (crossed + crossed.mT) / 2
            order_2 += torch.einsum("kh,hij->kij", weights, second)
            # of order 3, traced, and of order 1
            vector = trace_p[:, None] * s + trace_s[:, None] * p + a[:, None] * s + b[:, None] * p
            vector = vector + 2 * (apply(big, s) + apply(other, p))
            order_1 += weights @ vector
            plain = trace_p * trace_s + 2 * both + a * trace_s + b * trace_p + a * b
            order_0 += weights @ (plain + (p * s).sum(dim=1))
        if self.second.linear is not None:
            for at in range(0, outputs, rows):
                one = self.second.linear[at : at + rows]
                forms = self.forms(one)
                order_2[at : at + rows] += forms
                order_1[at : at + rows] += one @ linear
                traces = forms.diagonal(dim1=1, dim2=2).sum(dim=1)
                order_0[at : at + rows] += traces + one @ constant
        if self.second.constant is not None:
            order_0 += self.second.constant
        return order_0, order_1, order_2

    @property
    def order_0(self) -> Tensor:
        """The mean of each output."""
        return self.low_orders[0]

    def correlate(self, other: Composition) -> Tensor:
        """Compute E[f_k g_l] − E[f_k] E[g_l], (outputs, outputs of the other)."""
        _, own_1, own_2 = self.low_orders
        _, their_1, their_2 = other.low_orders
        total = own_1 @ their_1.T + 2 * own_2.flatten(1) @ their_2.flatten(1).T
        return total + 6 * self._third_order(other) + 24 * self._fourth_order(other)

    def _fourth_order(self, other: Composition) -> Tensor:
        """⟨F_4, G_4⟩ over pairs (u, v) of the other's first units."""
        (down, left, right), (out, left_2, right_2) = self.first._factors(), self.second._factors()
        theirs, second = other.first, other.second
        down_2, one, two = second._factors()
        p, s = one @ theirs.tensor.down, two @ theirs.tensor.down  # (their h, their units)
        ll, lr = left @ theirs.tensor.left.T, left @ theirs.tensor.right.T
        rl, rr = right @ theirs.tensor.left.T, right @ theirs.tensor.right.T
        total = out.new_zeros(len(out), len(down_2))

        def through(products: Tensor) -> tuple[Tensor, Tensor]:
            between = products.T @ down.T / 2  # (pairs, channels), the first layer polarised
            return between @ left_2.T, between @ right_2.T

        alone = through(ll * rr + rl * lr)  # of one unit with itself
        for u in range(ll.shape[1]):
            later = slice(u, None)  # each pair once: all is symmetric in u and v
            a, ra, b, rb = ll[:, u, None], rl[:, u, None], lr[:, u, None], rr[:, u, None]
            c, rc, d, rd = ll[:, later], rl[:, later], lr[:, later], rr[:, later]
            meets = (
                (tuple(part[u] for part in alone), tuple(part[later] for part in alone)),
                (through((a * rc).addcmul_(ra, c)), through((b * rd).addcmul_(rb, d))),
                (through((a * rd).addcmul_(ra, d)), through((b * rc).addcmul_(rb, c))),
            )
            summed = out.new_zeros(ll.shape[1] - u, len(left_2))
            for x, y in meets:
                summed.addcmul_(x[0], y[1]).addcmul_(x[1], y[0])
            polarised = summed @ out.T / 6  # (pairs, outputs): f_k at the vectors of u and v
            coefficients = (p[:, u, None] * s[:, later] + s[:, u, None] * p[:, later]).T
            coefficients[0] /= 2
            total += polarised.T @ (coefficients @ down_2.T)
        return total

    def _third_order(self, other: Composition) -> Tensor:
        """⟨F_3, G_3⟩ over the other's first units v and coordinates j."""
        (down, left, right), (out, left_2, right_2) = self.first._factors(), self.second._factors()
        theirs, second = other.first, other.second
        down_2, one, two = second._factors()
        total = out.new_zeros(len(out), len(down_2))
        if not self.linear.any() or not other.linear.any():
            return total
        weights = (left_2 @ down, right_2 @ down)  # (h, units): P and S of each second unit
        vectors = (right_2 @ self.linear, left_2 @ self.linear)  # s beside P, p beside S
        p, s = one @ theirs.tensor.down, two @ theirs.tensor.down
        own_p, own_s = one @ other.linear, two @ other.linear
        for v in range(len(theirs.tensor.left)):
            a, b = theirs.tensor.left[v], theirs.tensor.right[v]
            la, ra, lb, rb = left @ a, right @ a, left @ b, right @ b
            near = (la[:, None] * right + ra[:, None] * left) / 2
            far = (lb[:, None] * right + rb[:, None] * left) / 2
            polarised = out.new_zeros(len(out), len(a))
            for weight, vector in zip(weights, vectors, strict=True):
                meets = weight @ ((la * rb + ra * lb) / 2)
                polarised += (out * meets) @ vector / 3
                polarised += (out * (vector @ b)) @ weight @ near / 3
                polarised += (out * (vector @ a)) @ weight @ far / 3
            coefficients = p[:, v, None] * own_s + s[:, v, None] * own_p  # (their h, in)
            total += polarised @ (down_2 @ coefficients).T
        return total


def apply(forms: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each matrix by its vector, (rows, n, n) and (rows, n) → (rows, n)."""
    return (forms @ vectors[:, :, None])[:, :, 0]
