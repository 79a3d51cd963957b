"""The quadratic approximation in closed form, of one layer and of several."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import CLAMPED, activation_moments
from bilens.algebra.approximation.clamped_gate import clamped_quadratics
from bilens.algebra.approximation.layer_weights import (
    GLUWeights,
    Layer,
    MLPWeights,
    as_gated,
    in_float64,
)
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.memory import check_memory


def approximate_layer(layer: Layer, assumed: GaussianInput) -> QuadraticMap:
    """Return the quadratic map with the least squared error under N(μ, Σ), in float64."""
    # Math: with t = w·x + b ~ N(m, s²) and e_k = E φ⁽ᵏ⁾(t), a neuron φ(t) has E = e₀, E∇ = e₁w and
    # E∇² = e₂wwᵀ. For φ(u)v with u = γ·x + b, v = w·x + c, n = E v and k = γᵀΣw, Stein's identity
    # gives E[φ⁽ʲ⁾(u)v] = n e_j + k e_{j+1}; so E = n e₀ + k e₁, E∇ = (n e₁ + k e₂)γ + e₀w and E∇² =
    # (n e₂ + k e₃)γγᵀ + e₁(γwᵀ + wγᵀ). ½ E∇² of all neurons has left = γ and right = ½(n e₂ + k
    # e₃)γ + e₁w: as wide as the layer.
    # Source: arXiv:2502.01032 for MLPs and N(0, I); Stein's identity for the rest
    # (docs/approximation.md).
    layer = in_float64(layer)
    if layer.phi.name == "identity":
        return exact_map(layer)
    gated = as_gated(layer)
    coefficients, average = neuron_quadratics(gated, assumed)
    slope, past = coefficients[2:4]
    straight = (gated.down * slope) @ gated.gate + (gated.down * past) @ gated.value
    curvature = curvature_from(layer, gated, coefficients)
    fit = map_from_expectations(curvature, straight, gated.down @ average, assumed)
    return fit.plus_affine(layer.linear, layer.constant)


def layer_curvature(layer: Layer, assumed: GaussianInput) -> BilinearTensor:
    """Return the quadratic part of `approximate_layer` alone."""
    layer = in_float64(layer)
    if layer.phi.name == "identity":
        return exact_map(layer).tensor
    gated = as_gated(layer)
    return curvature_from(layer, gated, neuron_quadratics(gated, assumed)[0])


def curvature_from(layer: Layer, gated: GLUWeights, coefficients: Tensor) -> BilinearTensor:
    gate, value, down = gated.gate, gated.value, gated.down
    bend, mixed, _, _, _, tail = coefficients
    if isinstance(layer, MLPWeights):
        return BilinearTensor(down * bend, gate, gate)
    right = (mixed[:, None] * value).addcmul_(bend[:, None], gate)
    if layer.phi.name != CLAMPED:
        return BilinearTensor(down, gate, right)
    # it bends in its other branch too
    down = torch.cat([down, down * tail], dim=1)
    return BilinearTensor(down, torch.cat([gate, value]), torch.cat([right, value]))


def neuron_quadratics(layer: GLUWeights, assumed: GaussianInput) -> tuple[Tensor, Tensor]:
    """Return the coefficients of p², pq, p, q, 1, q² of neurons, (6, hidden), and their means.

    p and q are u and v around their means.
    """
    zero = layer.gate.new_zeros(len(layer.gate))
    m = layer.gate @ assumed.mean + or_zero(layer.gate_bias, zero)
    n = layer.value @ assumed.mean + or_zero(layer.value_bias, zero)
    s = assumed.deviations(layer.gate)
    k = (assumed.spread(layer.gate) * assumed.spread(layer.value)).sum(dim=1).where(s > 0, 0.0)
    if layer.phi.name == CLAMPED:
        return clamped_quadratics(layer.phi, m, s, n, assumed.deviations(layer.value), k)
    e0, e1, e2, e3 = activation_moments(layer.phi, m, s)
    bend, value = (n * e2 + k * e3) / 2, n * e0 + k * e1
    rest = value - bend * s.square() - e1 * k
    return torch.stack([bend, e1, n * e1 + k * e2, e0, rest, torch.zeros_like(e0)]), value


def exact_map(layer: Layer) -> QuadraticMap:
    if isinstance(layer, MLPWeights):
        none = BilinearTensor(layer.down.new_zeros(len(layer.down), 1), layer.up[:1], layer.up[:1])
        straight = None if layer.up_bias is None else layer.down @ layer.up_bias
        f = QuadraticMap(none, layer.down @ layer.up, straight)
    else:
        zero = layer.gate.new_zeros(len(layer.gate))
        f = QuadraticMap(BilinearTensor(layer.down, layer.gate, layer.value))
        if layer.gate_bias is not None or layer.value_bias is not None:
            f = f.with_biases(or_zero(layer.gate_bias, zero), or_zero(layer.value_bias, zero))
    return f.plus_affine(layer.linear, layer.constant)


def or_zero(bias: Tensor | None, zero: Tensor) -> Tensor:
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
    linear = slope - slope_at(curvature, mean)
    constant = value - slope @ mean + down @ (at_left * at_right - traces)
    return QuadraticMap(curvature, linear, constant)


def slope_at(tensor: BilinearTensor, mean: Tensor) -> Tensor:
    """Return 2 Q_c μ of every output, (out, in)."""
    down, left, right = tensor.down, tensor.left, tensor.right
    if not bool(mean.any()):  # without a product that costs a quarter of a fit
        return down.new_zeros(len(down), len(mean))
    return down @ ((right @ mean)[:, None] * left + (left @ mean)[:, None] * right)


def affine_part(f: QuadraticMap, assumed: GaussianInput) -> tuple[Tensor, Tensor]:
    """Return mean c₀ and mean slope β of a map of float64 under an input: c₀ + β·(x − μ), exact."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    mean = assumed.mean
    traces = (assumed.spread(left) * assumed.spread(right)).sum(dim=1)
    slope = slope_at(f.tensor, mean)
    if f.linear is not None:
        slope = slope + f.linear
    return f(mean) + down @ traces, slope


EPS = torch.finfo(torch.float64).eps


def approximate_network(layers: Sequence[Layer], assumed: GaussianInput) -> QuadraticMap:
    """Return the quadratic approximation of layers one behind the other, as far as it is closed."""
    # One layer, or two bilinear ones: the least-squares map, exact. Otherwise the input of each
    # further layer is taken to be normal, with the moments that the maps below give it. The top two
    # maps are composed and brought back to degree two, and so on downwards, so that the width of
    # the result grows with the outputs of the last layer alone.
    fits: list[QuadraticMap] = []
    inputs = [assumed]
    for layer in layers:
        fits.append(approximate_layer(layer, inputs[-1]))
        if len(fits) < len(layers):
            mean, covariance = output_moments(fits[-1], inputs[-1])
            inputs.append(GaussianInput.from_moments(len(mean), mean, covariance))
    f = fits.pop()
    inputs.pop()
    while fits:
        f = approximate_composition(f, fits.pop(), inputs.pop())
    return f


def derivation(layers: Sequence[Layer]) -> str:
    """Return how far the map of `approximate_network` is the one of least error, in words."""
    bilinear = all(layer.phi.name == "identity" for layer in layers)
    if len(layers) == 1:
        return "exact" if bilinear else "closed form, the least-squares map"
    if bilinear and len(layers) == 2:
        return "closed form, the least-squares map of two bilinear layers"
    return "closed form layer by layer, with the input of each further layer taken to be normal"


def output_moments(f: QuadraticMap, assumed: GaussianInput) -> tuple[Tensor, Tensor]:
    """Return mean (out,) and covariance of f(x), x ~ N(μ, Σ), exact for a map of float64."""
    # Math: Cov(q_i, q_j) = 2 tr(Q_iΣQ_jΣ) + β_iᵀΣβ_j with β = 2Qμ + b.
    mean, slope = affine_part(f, assumed)
    tensor = f.tensor
    spread = BilinearTensor(tensor.down, assumed.spread(tensor.left), assumed.spread(tensor.right))
    slopes = assumed.spread(slope)
    return mean, 2 * spread.gram() + slopes @ slopes.T


def approximate_composition(
    outer: QuadraticMap, inner: QuadraticMap, assumed: GaussianInput
) -> QuadraticMap:
    """Return the quadratic approximation of outer(inner(x)) under x ~ N(μ, Σ), exact."""
    # Math: outer sums products of y_l = l·inner(x) and y_r = r·inner(x), quadratics with matrices
    # Q, means y and mean slopes g. By Wick's theorem E = y_l y_r + 2 tr(Q_lΣQ_rΣ) + g_lᵀΣg_r, E∇ =
    # y_l g_r + y_r g_l + 2 Q_rΣg_l + 2 Q_lΣg_r and ½ E∇² = y_l Q_r + y_r Q_l + ½(g_l g_rᵀ + g_r
    # g_lᵀ) + 2(Q_lΣQ_r + Q_rΣQ_l). The last term of an output is FᵀMF with F = [left; right] of
    # inner, and M the entrywise product of blocks of FΣFᵀ with the sum of all neurons' weights; an
    # eigendecomposition of the small matrix gives its factors.
    # Source: L. Isserlis (1918) for the moments; derived in docs/approximation.md.
    low, high = inner.tensor, outer.tensor
    mean, slope = affine_part(inner, assumed)
    _, covariance = output_moments(inner, assumed)
    mean_l, mean_r = high.left @ mean, high.right @ mean
    slope_l, slope_r = high.left @ slope, high.right @ slope
    weight_l, weight_r = high.left @ low.down, high.right @ low.down  # of inner's neurons

    value = mean_l * mean_r + ((high.left @ covariance) * high.right).sum(dim=1)
    mixed = mean_l[:, None] * slope_r + mean_r[:, None] * slope_l
    turned = curved(low, weight_r, assumed.times_covariance(slope_l))
    turned = turned + curved(low, weight_l, assumed.times_covariance(slope_r))
    products = product_factors(high.down, weight_l, weight_r, low, assumed)
    shared = high.down @ (mean_l[:, None] * weight_r + mean_r[:, None] * weight_l)
    curvature = BilinearTensor(
        torch.cat([shared, high.down, products.down], dim=1),
        torch.cat([low.left, slope_l, products.left]),
        torch.cat([low.right, slope_r, products.right]),
    )
    slope = high.down @ (mixed + 2 * turned)
    fit = map_from_expectations(curvature, slope, high.down @ value, assumed)
    if outer.linear is not None:
        fit = fit + inner.compose_output(outer.linear)
    return fit.plus_affine(constant=outer.constant)


def composition_error(outer: QuadraticMap, inner: QuadraticMap, assumed: GaussianInput) -> Tensor:
    """Return the mean squared error of `approximate_composition`, (out,), exact.

    Cost: O(hidden² · r³), hidden of the outer layer and r = min(in, 2 hidden of the inner one).
    """
    # Math: a product of quadratics with matrices A, B and mean slopes a, b, in inputs of covariance
    # 1, has parts of third order sym(A⊗b + B⊗a) and of fourth order sym(A⊗B), which no quadratic
    # meets. Their inner products are 6·⅓[(A:A')(b·b') + 2 (A'b)·(Ab')], and those with the sides
    # exchanged, and 24·⅙[(A:A')(B:B') + (A:B')(B:A') + 4 tr AA'BB'].
    low, high = inner.tensor, outer.tensor
    slope = affine_part(inner, assumed)[1]
    basis, corner = torch.linalg.qr(assumed.spread(torch.cat([low.left, low.right])).T)
    first, second = corner.T.tensor_split(2)
    sides = torch.stack([high.left, high.right])
    halves = torch.einsum("shk,ki,kj->shij", sides @ low.down, first, second)
    one, other = matrices = (halves + halves.mT) / 2
    flat, slopes = matrices.flatten(0, 1), assumed.spread((sides @ slope).flip(0).flatten(0, 1))
    gram = flat.flatten(1) @ flat.flatten(1).T
    turned = torch.einsum("gij,hj->hgi", flat, slopes @ basis)
    third = gram * (slopes @ slopes.T) + 2 * (turned * turned.transpose(0, 1)).sum(dim=-1)
    hidden = len(one)
    same, across, opposite = gram[:hidden, :hidden], gram[:hidden, hidden:], gram[hidden:, hidden:]
    rows = zip(one, other, strict=True)
    cycles = torch.stack([((a @ one) * (b @ other).mT).sum(dim=(1, 2)) for a, b in rows])
    kernel = 4 * (same * opposite + across * across.T + 4 * cycles)
    kernel = kernel + 2 * third.view(2, hidden, 2, hidden).sum(dim=(0, 2))
    error: Tensor = ((high.down @ kernel) * high.down).sum(dim=1)
    return error


def curved(tensor: BilinearTensor, weights: Tensor, vectors: Tensor) -> Tensor:
    """Return Q_w v for rows w of weights of the neurons and rows v paired one to one."""
    left, right = tensor.left, tensor.right
    first, second = weights * (vectors @ right.T), weights * (vectors @ left.T)
    return (first @ left + second @ right) / 2


def product_factors(
    down: Tensor, weight_l: Tensor, weight_r: Tensor, low: BilinearTensor, assumed: GaussianInput
) -> BilinearTensor:
    """Return 2 Σ_a down_a (Q_lΣQ_r + Q_rΣQ_l) of every output, as squares of its eigenvectors."""
    hidden, d_in = low.left.shape
    rank = min(d_in, 2 * hidden)
    check_memory(
        8 * len(down) * (12 * hidden**2 + 3 * rank**2 + 2 * rank * d_in),
        f"the quadratic approximation of {len(down)} outputs through two layers",
        "fit the layers one by one",
        device=down.device,
    )
    rows = torch.cat([low.left, low.right])
    spread = assumed.spread(rows)
    gram = spread @ spread.T
    # K of Q = FᵀKF has the weights off its diagonal blocks, so K G K exchanges those of G.
    exchanged = gram.roll((hidden, hidden), (0, 1)) / 4
    shares = torch.einsum("ca,ai,aj->cij", down, weight_l, weight_r)
    matrices = 2 * exchanged * shares.repeat(1, 2, 2)
    matrices = matrices + matrices.transpose(1, 2)
    basis, triangle = torch.linalg.qr(rows.T)
    num = len(down)
    values, columns = torch.linalg.eigh(triangle @ matrices @ triangle.T)
    rows = (columns.transpose(1, 2) @ basis.T).reshape(num * rank, -1)
    down = values.new_zeros(num, num, rank)
    down[torch.arange(num), torch.arange(num)] = values
    flat = down.reshape(num, num * rank)
    kept = values.abs() > rank * EPS * values.abs().amax(dim=1, keepdim=True)
    kept[0, 0] = True  # a tensor needs a neuron
    chosen = kept.reshape(-1)
    return BilinearTensor(flat[:, chosen], rows[chosen], rows[chosen])
