"""Statistics of margins: two samples compared, a gap of accuracies, a bound on the error."""

import math

import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.records.common import Share
from bilens.records.given_inputs import Area, Bound, Gap

Z = 1.959964  # of a two-sided 95 % interval


def area(ours: Tensor, theirs: Tensor) -> Area:
    """Return P(ours > theirs) + P(equal) / 2 over all pairs, with an interval and a test."""
    # Math: with the placements u_i, the share of theirs below ours_i, and v_j likewise, DeLong's
    # variance is var(u) / n + var(v) / m. A (1 − A) over it is the number of trials of a share
    # with as much variance, of which Wilson's interval does not end at a point where A is 0 or 1.
    from scipy.stats import mannwhitneyu  # slow to import, needed only where data are given

    u, v = placements(ours, theirs), 1 - placements(theirs, ours)
    value = float(u.mean())
    variance = float(u.var() / len(u) + v.var() / len(v))
    least = min(len(u), len(v))
    trials = max(value * (1 - value) / variance, least) if variance > 0 else least
    middle = (value + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(value * (1 - value) / trials + (Z / 2 / trials) ** 2)
    test = mannwhitneyu(ours.numpy(), theirs.numpy(), alternative="greater", method="asymptotic")
    return Area(value, max(middle - half, 0.0), min(middle + half, 1.0), float(test.pvalue))


def placements(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return for each of ours the share of theirs that is smaller, ties counted half."""
    ordered = theirs.sort().values
    below, upto = (torch.searchsorted(ordered, ours, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(theirs))


def gap(training: Share, test: Share) -> Gap:
    """Return the difference of two accuracies; their exact intervals are squared and added."""
    # Source: Newcombe, Statistics in Medicine 17 (1998), method 10, with exact intervals.
    value = training.value - test.value
    down = math.hypot(training.value - training.low, test.high - test.value)
    up = math.hypot(training.high - training.value, test.value - test.low)
    return Gap(value, max(value - down, -1.0), min(value + up, 1.0))


def margin_bound(f: QuadraticMap, x: Tensor, margin: Tensor) -> Bound:
    """Return what the margins of training inputs prove of the error on new ones, (rows, in)."""
    # Math: f_c is a product of W_c with φ(x) = x̃x̃ᵀ, x̃ = (x, 1), and ‖W‖² = Σ_c ‖Q_c‖² + ‖b_c‖²/2 +
    # c_c². The margin is √2-Lipschitz in the scores, so the ramp loss of margin γ has a Rademacher
    # complexity of at most 2 (‖W‖/γ) √(classes · mean ‖φ‖² / n) (Maurer, 2016, vector contraction).
    # With r = ‖W‖/γ any power 2^k, each with 2^−|k|/3 of the 5 % (Mohri et al., 2018, theorem 3.3):
    # error ≤ mean ramp(margin · r / ‖W‖) + twice the complexity + 3 √(ln(6 · 2^|k| / 0.05) / 2n).
    centred, rows = outputs_of(f, centred=True), len(x)
    tensor, linear, constant = centred.tensor, centred.linear, centred.constant
    size = squared_norms(tensor.down, tensor.left, tensor.right).sum()
    affine = linear is not None or constant is not None
    size = size + (0 if linear is None else linear.square().sum() / 2)
    size = (size + (0 if constant is None else constant.square().sum())).sqrt()
    feature = (x.square().sum(dim=1) + affine).square().mean()
    margin = margin / torch.where(size > 0, size, 1.0)
    powers = torch.arange(-40, 41, dtype=torch.float64)
    ratio = 2**powers
    ramp = torch.stack([(1 - margin * one).clamp(0, 1).mean() for one in ratio])
    spread = 4 * ratio * (f.sizes.d_out * feature).sqrt()
    spread = spread + 3 * ((math.log(120) + powers.abs() * math.log(2)) / 2).sqrt()
    bounds = [float((ramp + spread / math.sqrt(rows * 2**k)).min()) for k in range(60)]
    enough = next((k for k, one in enumerate(bounds) if one < 0.5), None)
    return Bound(bounds[0], None if enough is None else float(rows) * 2**enough)
