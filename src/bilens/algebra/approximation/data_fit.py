"""The quadratic approximation of a layer from its inputs: of each neuron, and of `down`."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import CLAMPED
from bilens.algebra.approximation.closed_form import neuron_quadratics
from bilens.algebra.approximation.layer_weights import (
    GLUWeights,
    Layer,
    as_gated,
    each_part,
    in_float64,
    reading,
)
from bilens.algebra.approximation.neuron_products import STILL, Units, as_products, branches, solved
from bilens.algebra.approximation.r_squared import centred, r_squared_on as r_squared_on, usual_norm
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import add
from bilens.algebra.repeated_rows import count_different, equal_rows
from bilens.algebra.shapes import check_shape
from bilens.base.errors import ShapeError, UsageError
from bilens.base.memory import check_memory

BLOCK = 1024  # rows at a time
LEAST_ROWS = 10  # two for each unknown of a neuron
RIDGES = tuple(10.0**power for power in range(-9, 3))  # of the variance of a feature
RATE = 0.02  # of the mean |w|: the first step of training
RUNS, FOLDS = 50, 5  # of rows: a fold is ten runs of neighbours
SMALL, OUTPUTS = 600, 64  # unknowns up to which each fold is held out in turn; outputs, for it


def fit_neurons(
    layer: Layer,
    batches: Iterable[Tensor] | Tensor,
    *,
    weights: Tensor | None = None,
    linear: bool = True,
) -> GLUWeights:
    """Return the layer with each neuron replaced by its least-squares quadratic on rows of inputs.

    Math: φ(u)v on (u², uv, u, v, 1), an ordinary φ(u) on (u², u, 1), is one product with biases,
        (u + b)(a₁u + a₂v + c) + constant with b = a₄/a₂. Where such a product would amplify
        rounding more than eightfold (|b| of hundreds of deviations), a₄v joins `linear`; without
        it b is the best of a grid up to 32 deviations, the rest fitted again. The two factors have
        equal root mean squares.
    Cost: O(rows · hidden · in), one pass; memory of one batch times hidden.

    Args:
        layer: in any dtype.
        batches: inputs, (rows, in) or several such; the first one sets the units of the moments.
        weights: (rows,) of the squared errors, over all batches in order; see `row_weights`.
        linear: whether ill-conditioned neurons may use the linear path.

    Returns: float64, activation "identity", with biases and constant.
    Raises: ShapeError, NonFiniteError for inputs that do not fit; UsageError for fewer than 10.
    Source: least squares; conditioning as measured in docs/approximation.md.
    """
    gated = as_gated(in_float64(layer))
    found: tuple[Units, Units] | None = None
    sums, total, rows = gated.down.new_zeros(len(gated.gate), 6, 6), 0.0, 0
    for x, weight in weighted(layer.d_in, batches, weights):
        u, v = branches(gated, x)
        if found is None:
            found = units(u), units(v)
        (m, s), (n, t) = found
        p, q = (u - m) / s, (v - n) / t
        features = [p.square(), p * q, p, q, torch.ones_like(p), gated.product(u, v)]
        part = torch.stack(features, dim=-1).transpose(0, 1)
        sums += part.transpose(1, 2) @ (part * weight[:, None])
        total, rows = total + float(weight.sum()), rows + len(x)
    if found is None or rows < LEAST_ROWS:
        raise UsageError(f"{rows} rows of inputs: a neuron is fitted to {LEAST_ROWS} or more.")
    gram, right = sums[:, :5, :5] / total, sums[:, :5, 5] / total
    return as_products(gated, found, gram, solved(gram, right), linear)


def gaussian_neurons(
    layer: Layer, mean: Tensor | None, covariance: Tensor | None, *, linear: bool = True
) -> GLUWeights:
    """Return the layer with each neuron replaced by its closest quadratic under N(μ, Σ).

    Math: with t = u's standard deviation, e_j = E φ⁽ʲ⁾(u), n = E v, k = Cov(u, v), the quadratic of
        φ(u)v around the means is ½(n e₂ + k e₃) p² + e₁ pq + (n e₁ + k e₂) p + e₀ q + constant, of
        φ(u) it is ½ e₂ p² + e₁ p + constant; products, biases and `linear` as in `fit_neurons`.
    Cost: O(hidden · in²), with μ = 0 and Σ = I for None.

    Raises: as `GaussianInput` for a mean or covariance that does not fit.
    Source: Stein's identity; the same function as `approximate_layer` (docs/approximation.md).
    """
    gated = as_gated(in_float64(layer))
    assumed = GaussianInput.from_moments(layer.d_in, mean, covariance, layer.down.device)
    m, n = (part[0] for part in branches(gated, assumed.mean[None]))
    s, t = assumed.deviations(gated.gate), assumed.deviations(gated.value)
    su, sv = s.where(s > 0, 1.0), t.where(t > 0, 1.0)
    if gated.phi.name == CLAMPED:
        raise UsageError(f"a neuron of {CLAMPED} is no one product: fit it to inputs.")
    raw, _ = neuron_quadratics(gated, assumed)
    coefficients = (raw[:5] * torch.stack([su**2, su * sv, su, sv, torch.ones_like(s)])).T
    # Isserlis: moments of fourth order of a pair with variances a, c (1, or 0) and covariance r.
    a, c = (s / su).square(), (t / sv).square()
    r = (assumed.spread(gated.gate) * assumed.spread(gated.value)).sum(dim=1) / (su * sv)
    o, one = torch.zeros_like(r), torch.ones_like(r)
    first = [3 * a * a, 3 * a * r, o, o, a, 3 * a * r, a * c + 2 * r * r, o, o, r]
    last = [o, o, a, r, o, o, o, r, c, o, a, r, o, o, one]
    gram = torch.stack([*first, *last], dim=1).reshape(-1, 5, 5)
    return as_products(gated, ((m, su), (n, sv)), gram, coefficients, linear)


def weighted(
    d_in: int, batches: Iterable[Tensor] | Tensor, weights: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of rows in float64 with their weights, checked."""
    start = 0
    for batch in [batches] if isinstance(batches, Tensor) else batches:
        check_shape("inputs", batch, ("rows", d_in))
        for x in torch.split(batch.detach(), BLOCK):
            part = x.new_ones(len(x)) if weights is None else weights[start : start + len(x)]
            if len(part) != len(x):
                raise ShapeError("there are fewer weights than rows of inputs: one each.")
            start += len(x)
            yield x.double(), part.double()


def units(part: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and scale of each column; a column that stands still has the scale 1."""
    centre, scale = part.mean(dim=0), part.std(dim=0, correction=0)
    return centre, torch.where(scale > STILL * centre.abs(), scale, 1.0)


def row_weights(y: Tensor) -> Tensor:
    """Return 1 / (‖y‖ + median ‖y‖) of outputs (rows, out): weights (rows,) of squared errors.

    A few massive outputs then count, and do not decide alone; 1 / ‖y‖² would lose them. The median
    is that of rows that do not vanish.
    """
    norms = y.detach().double().norm(dim=1)
    weights: Tensor = 1 / (norms + usual_norm(norms))
    return weights


def refit_down(
    quadratic: GLUWeights,
    x: Tensor,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    classes: bool = False,
) -> GLUWeights:
    """Return the map with `down`, `constant` and, if it has one, `linear` by ridge regression.

    Math: least squares of y on the products, and on the inputs where there is a linear path; the
        ridge, in units of the products' mean variance and of that of each input, draws towards the
        weights as they are. It is the best of twelve decades on a fifth of the rows (of each fifth
        in turn up to 600 unknowns), in ten runs of neighbours, and 64 outputs; all rows are then
        fitted with it. Of `classes` it is best for outputs less their mean.
    Cost: O(rows · k · (k + in + out) + 12 k² (k + out)), k = hidden (+ in); memory 8 k (k + out).

    Args:
        quadratic: a map of activation "identity", as `fit_neurons` gives it.
        x: (rows, in).
        y: (rows, out), what the map should give.
        weights: (rows,) of the squared errors; see `row_weights`.
        classes: whether the outputs are logits, of which only differences matter.

    Raises: ShapeError, NonFiniteError for rows that do not fit; UsageError for fewer rows than k.
    Source: ridge regression; see docs/approximation.md.
    """
    d_out = len(quadratic.down)
    check_shape("y", y, (len(x), d_out))
    count, hidden = rows_to_refit(quadratic), quadratic.down.shape[1]
    if len(x) < count:
        raise UsageError(f"{len(x)} rows of inputs: {count:,} unknowns take as many or more.")
    folds = FOLDS if count <= SMALL else 2  # of two, the first alone is held out
    memory = 8 * count * (folds + 3) * (count + d_out)
    what, device = f"a regression on {count:,} features", quadratic.down.device
    check_memory(memory, what, "keep the fit of each neuron", device=device)
    gram, right, centre, scale = sum_over_folds(quadratic, x, y, weights, folds)
    whole, judged = gram.sum(dim=0), right - right.mean(dim=2, keepdim=True) if classes else right

    def held_out_loss(one: float) -> float:
        total, some = 0.0, judged[:, :, :: -(-d_out // OUTPUTS)]
        for g, r in zip(gram[: FOLDS if count <= SMALL else 1], some, strict=False):
            change = ridge_solved(whole - g, some.sum(dim=0) - r, one)
            total += float((change * (g @ change - 2 * r)).sum())
        return total

    chosen = min(RIDGES, key=held_out_loss)
    change = ridge_solved(whole, right.sum(dim=0), chosen)
    slope = change[:-1] / scale[:, None]
    return replace(
        quadratic,
        down=quadratic.down + slope[:hidden].T,
        linear=None if quadratic.linear is None else quadratic.linear + slope[hidden:].T,
        constant=add(quadratic.constant, change[-1] - slope.T @ centre),
    )


def sum_over_folds(
    quadratic: GLUWeights, x: Tensor, y: Tensor, weights: Tensor | None, folds: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the normal equations of `refit_down`, fold by fold, and the units of its features.

    Returns: Gram matrices, (folds, k, k), right sides, (folds, k, out), of the standardised
        features and a constant; centre and scale of the features, (k − 1,) each.
    """
    count, hidden = rows_to_refit(quadratic), quadratic.down.shape[1]
    gram = quadratic.down.new_zeros(folds, count, count)
    right = gram.new_zeros(folds, count, len(quadratic.down))
    places = equal_rows(x)  # so that no row is both fitted to and held out
    if count_different(places) < RUNS:
        places = torch.arange(len(x))
    runs = (places // max(1, len(x) // RUNS) % FOLDS).clamp(max=folds - 1)
    parts = weighted(quadratic.d_in, x, weights), torch.split(y, BLOCK), torch.split(runs, BLOCK)
    for start, ((rows, weight), truth, run) in enumerate(zip(*parts, strict=True)):
        read = quadratic.hidden(rows)
        miss = truth.detach().double() - quadratic.behind(read, rows)
        if quadratic.linear is not None:
            read = torch.cat([read, rows], dim=1)
        if start == 0:  # one unit for all products, and one for each input
            centre, scale = units(read)
            usual = read[:, :hidden].var(dim=0, correction=0).mean().sqrt()
            scale[:hidden] = torch.where(usual > 0, usual, 1.0)
        read = torch.cat([(read - centre) / scale, torch.ones_like(read[:, :1])], dim=1)
        for fold in set(run.tolist()):
            mine = run == fold
            part = (read[mine] * weight[mine, None]).T
            gram[fold] += part @ read[mine]
            right[fold] += part @ miss[mine]
    return gram, right, centre, scale


def rows_to_refit(quadratic: GLUWeights) -> int:
    """Return how many rows a refit needs: one for each unknown of an output."""
    return quadratic.down.shape[1] + 1 + (0 if quadratic.linear is None else quadratic.d_in)


def ridge_solved(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Return (G + ridge D)⁻¹ r, D the mean of G's diagonal but for the constant, the last one."""
    lifted = gram.clone()
    lifted.diagonal()[:-1].add_(ridge * gram.diagonal().mean())
    change: Tensor = torch.cholesky_solve(right, torch.linalg.cholesky(lifted))
    return change


def train_factors(
    quadratic: GLUWeights,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
    rate: float = RATE,
    classes: bool = False,
) -> GLUWeights:
    """Return the map after Adam on the squared error with all its parts, as in `refit_down`.

    The inputs are standardised for it: in which unit one is measured changes nothing. Nor does
    what is common to all `classes`: their map gives logits less their mean.

    Cost: steps of 1,024 rows, each O(hidden · (in + out)); the step size falls linearly from the
        rate times the mean |w| of a part, or of `down` for a part of zeros.
    Raises: NonFiniteError where it diverges.
    """
    centre, scale = units(x)  # each input is read in its own
    started = reading(without_common(quadratic) if classes else quadratic, scale, centre)
    y = centred(y, classes)
    live, x = each_part(started, lambda part: part.clone().requires_grad_()), (x - centre) / scale
    parts = [part for part in vars(live).values() if isinstance(part, Tensor)]
    usual = float(live.down.detach().abs().mean())  # for parts of zeros
    sizes = [float(part.detach().abs().mean()) or usual for part in parts]
    groups = [{"params": [p], "lr": rate * size} for p, size in zip(parts, sizes, strict=True)]
    optimiser = torch.optim.Adam(groups, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1 / steps, steps)
    weight = y.new_ones(len(y)) if weights is None else weights
    size = float((weight @ y.square()).mean()) or 1.0
    for _ in range(steps):
        rows = torch.randint(len(x), (min(BLOCK, len(x)),), generator=generator)
        loss = (weight[rows] @ (live(x[rows]) - y[rows]).square()).mean() / size
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        falling.step()
    return reading(each_part(live, Tensor.detach), 1 / scale, -centre / scale)


def without_common(quadratic: GLUWeights) -> GLUWeights:
    """Return a map less the mean of its outputs."""
    own = {name: getattr(quadratic, name) for name in ("down", "linear", "constant")}
    return replace(quadratic, **{n: x - x.mean(dim=0) for n, x in own.items() if x is not None})


def quadratic_ceiling(x: Tensor, y: Tensor, classes: bool = False) -> GLUWeights:
    """Return the least-squares map of y, (rows, out), over all quadratics of x, (rows, n).

    Of these rows it misses least, but for the ridge; on others a fit with fewer numbers can be
    closer. Math: `refit_down` on all n(n + 1)/2 products of standardised inputs, which says cost
    and errors too, with k = n(n + 1)/2 + n.
    """
    d_in, (centre, scale) = x.shape[1], units(x.double())
    first, second = torch.triu_indices(d_in, d_in)
    eye = torch.diag(1 / scale)
    left, right = eye[first], eye[second]
    none, path = left.new_zeros(y.shape[1], len(left)), left.new_zeros(y.shape[1], d_in)
    start = GLUWeights(none, left, right, "identity", -left @ centre, -right @ centre, linear=path)
    return refit_down(start, x, y, classes=classes)
