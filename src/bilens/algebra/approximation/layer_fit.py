"""The quadratic approximation of one layer, from moments of its neurons alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.approximation.activation_moments import activation_moments
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights, in_float64
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap


def approximate_layer(layer: Layer, assumed: GaussianInput) -> QuadraticMap:
    """Return the quadratic map with the least squared error under N(μ, Σ), in float64."""
    # Math: with t = w·x + b ~ N(m, s²) and e_k = E φ⁽ᵏ⁾(t), a neuron φ(t) has E = e₀, E∇ = e₁w and
    # E∇² = e₂wwᵀ. For φ(u)v with u = γ·x + b, v = w·x + c, n = E v and k = γᵀΣw, Stein's identity
    # gives E[φ⁽ʲ⁾(u)v] = n e_j + k e_{j+1}; so E = n e₀ + k e₁, E∇ = (n e₁ + k e₂)γ + e₀w and E∇² =
    # (n e₂ + k e₃)γγᵀ + e₁(γwᵀ + wγᵀ). ½ E∇² of all neurons has left = γ and right = ½(n e₂ + k
    # e₃)γ + e₁w: as wide as the layer.
    # Source: arXiv:2502.01032 for MLPs and N(0, I); Stein's identity for the rest (docs/math.md).
    layer = in_float64(layer)
    if layer.phi.name == "identity":
        return exact_map(layer)
    fit = mlp_fit(layer, assumed) if isinstance(layer, MLPWeights) else glu_fit(layer, assumed)
    return fit.plus_affine(layer.linear, layer.constant)


def exact_map(layer: Layer) -> QuadraticMap:
    """Return what a layer without an activation is."""
    if isinstance(layer, MLPWeights):
        none = layer.down.new_zeros(len(layer.down), 1), layer.up[:1], layer.up[:1]
        straight = None if layer.up_bias is None else layer.down @ layer.up_bias
        f = QuadraticMap(BilinearTensor(*none), layer.down @ layer.up, straight)
    else:
        zero = layer.gate.new_zeros(len(layer.gate))
        f = QuadraticMap(BilinearTensor(layer.down, layer.gate, layer.value))
        if layer.gate_bias is not None or layer.value_bias is not None:
            f = f.with_biases(or_zero(layer.gate_bias, zero), or_zero(layer.value_bias, zero))
    return f.plus_affine(layer.linear, layer.constant)


def mlp_fit(layer: MLPWeights, assumed: GaussianInput) -> QuadraticMap:
    """Return the fit of the neurons of an ordinary layer; left and right are both `up`."""
    up, down = layer.up, layer.down
    mean = up @ assumed.mean + or_zero(layer.up_bias, up.new_zeros(len(up)))
    e0, e1, e2, _ = activation_moments(layer.phi, mean, assumed.deviations(up))
    curvature = BilinearTensor(down * (e2 / 2), up, up)
    return map_from_expectations(curvature, (down * e1) @ up, down @ e0, assumed)


def glu_fit(layer: GLUWeights, assumed: GaussianInput) -> QuadraticMap:
    """Return the fit of the neurons of a gated layer."""
    gate, value, down = layer.gate, layer.value, layer.down
    zero = gate.new_zeros(len(gate))
    m = gate @ assumed.mean + or_zero(layer.gate_bias, zero)
    n = value @ assumed.mean + or_zero(layer.value_bias, zero)
    s = assumed.deviations(gate)
    k = (assumed.spread(gate) * assumed.spread(value)).sum(dim=1)
    k = k.where(s > 0, 0.0)
    e0, e1, e2, e3 = activation_moments(layer.phi, m, s)
    bend = (n * e2 + k * e3) / 2
    curvature = BilinearTensor(down, gate, bend[:, None] * gate + e1[:, None] * value)
    slope = (down * (n * e1 + k * e2)) @ gate + (down * e0) @ value
    return map_from_expectations(curvature, slope, down @ (n * e0 + k * e1), assumed)


def or_zero(bias: Tensor | None, zero: Tensor) -> Tensor:
    """Return a bias, or zeros for none."""
    return zero if bias is None else bias


def map_from_expectations(
    curvature: BilinearTensor, slope: Tensor, value: Tensor, assumed: GaussianInput
) -> QuadraticMap:
    """Return the quadratic approximation of any f with these expectations under N(μ, Σ)."""
    # Math: by orthogonality of Hermite polynomials it is c₀ + β·(x − μ) + (x − μ)ᵀQ(x − μ) − tr QΣ
    # with c₀ = E f, β = E ∇f and Q = ½ E ∇²f (Stein's identity for a least-squares fit).
    # Source: arXiv:2502.01032 for closed forms of this kind; C. M. Stein, Estimation of the mean of
    # a multivariate normal distribution (1981), for the identity.
    down, left, right = curvature.down, curvature.left, curvature.right
    mean = assumed.mean
    at_left, at_right = left @ mean, right @ mean
    traces = (assumed.spread(left) * assumed.spread(right)).sum(dim=1)
    linear = slope - down @ (at_right[:, None] * left + at_left[:, None] * right)
    constant = value - slope @ mean + down @ (at_left * at_right - traces)
    return QuadraticMap(curvature, linear, constant)


@dataclass(frozen=True, eq=False)
class AffinePart:
    """The affine approximation of a quadratic map: c₀ + β·(x − μ)."""

    mean: Tensor  # μ, (in,)
    value: Tensor  # c₀ = E f, (out,)
    slope: Tensor  # β = E ∇f, (out, in)

    def __call__(self, x: Tensor) -> Tensor:
        """Return its values, (rows, in) → (rows, out)."""
        return self.value + (x - self.mean) @ self.slope.T


def affine_part(f: QuadraticMap, assumed: GaussianInput) -> AffinePart:
    """Return mean and mean slope of a map of float64 under an input, exact."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    mean = assumed.mean
    traces = (assumed.spread(left) * assumed.spread(right)).sum(dim=1)
    slope = down @ ((right @ mean)[:, None] * left + (left @ mean)[:, None] * right)
    if f.linear is not None:
        slope = slope + f.linear
    return AffinePart(mean, f(mean) + down @ traces, slope)
