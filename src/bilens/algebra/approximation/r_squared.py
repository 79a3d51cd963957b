"""R² of a map on rows of inputs: of all rows, without the largest outputs, of the median row."""

import math

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

ROUNDING = 1e-24  # of the mean square: what is left of the variance of a constant
TOP = 0.001  # share of rows with the largest outputs that `trimmed` leaves out
MASSIVE = 100  # median sizes of an output: rows beyond, as of sink tokens, are left out too
VANISHING = 1e-6  # of the largest norm
MOST = 700.0  # of a logarithm of a float64
NORMAL_95 = 1.959964
LEAST_SKEW = 1e-4  # below it a mean is normal, up to rounding


@frozen_result()
class RSquared:
    """R² = 1 − E‖y − f(x)‖² / E‖y − E y‖² over rows of inputs.

    Attributes:
        overall: over all outputs, weighted by their variance.
        standard_error: of `overall`, for other rows of the same recordings or texts; more where few
            rows carry much of the error, or may and are not here, so that two of them reach the
            truth in 95 % of cases; 0 where R² is exact.
        outputs: (out,) float64, of each output; 1 for a constant one that is met.
        output_errors: (out,) float64, their standard errors.
        trimmed: `overall` without the 0.1 % of rows with the largest ‖y‖, at least one row, and
            without those of more than 100 times the median ‖y‖ of rows that do not vanish.
        trimmed_error: of `trimmed`.
        median: the median over rows of 1 − ‖y − f(x)‖² / ‖y − E y‖², E y without those.
        median_interval: its 95 % interval, by order statistics.
        largest_share: of the variance, what one row carries at most; 0 where R² is exact.
    """

    overall: float
    standard_error: float
    outputs: Tensor
    output_errors: Tensor
    trimmed: float
    trimmed_error: float
    median: float
    median_interval: tuple[float, float]
    largest_share: float = 0.0
    to_frame = frame("outputs", "output", without=("median_interval",))  # two ends of one


@frozen_result()
class FitScores:
    """R² by degree; that of the best constant is 0.

    Attributes:
        linear: of the affine part of the map.
        quadratic: of the whole map.
        rows: inputs that were looked at.
    """

    linear: RSquared
    quadratic: RSquared
    rows: int


def r_squared_on(y: Tensor, predicted: Tensor) -> RSquared:
    """Return how well predictions explain values, both (rows, out), in float64.

    Cost: O(rows · out). The standard errors take the rows as independent (delta method).
    Raises: ShapeError if the shapes differ or there are no rows; NonFiniteError for NaN.
    """
    # Math: R² = 1 − A / B with mean squares A, B of residuals and deviations. The standard error is
    # that of a ratio, sd(a − (A/B) b) / (B √rows) (delta method), times `reach`.
    shapes = [check_float_tensor("y", one, num_axes=2) for one in (y, predicted)]
    if shapes[0] != shapes[1] or not len(y):
        raise ShapeError(f"y has shape {shapes[0]} and predictions {shapes[1]}: as many, and some.")
    y, predicted = y.double(), predicted.double()
    residuals, deviations = (y - predicted).square(), (y - y.mean(dim=0)).square()
    squares = y.square()
    outputs, errors = ratio(residuals, deviations, squares.mean(dim=0))
    lost, spread, sizes = (one.sum(dim=1) for one in (residuals, deviations, squares))
    overall, error = ratio_of_sums(lost, spread, sizes)
    norms = sizes.sqrt()
    massive = int((norms > MASSIVE * usual_norm(norms)).sum())
    kept = norms.argsort()[: max(1, len(y) - max(massive, math.ceil(TOP * len(y))))]
    around = (y - y[kept].mean(dim=0)).square().sum(dim=1)
    trimmed, trimmed_error = ratio_of_sums(lost[kept], around[kept], sizes[kept])
    each, _ = ratio(lost[None], around[None], sizes)
    rows, reach, half = each.sort().values, NORMAL_95 * math.sqrt(len(y)) / 2, len(y) / 2
    low, high = max(0, math.floor(half - reach)), min(len(y) - 1, math.ceil(half + reach))
    return RSquared(
        overall=overall,
        standard_error=error,
        outputs=outputs,
        output_errors=errors,
        trimmed=trimmed,
        trimmed_error=trimmed_error,
        median=float(rows[(len(y) - 1) // 2]),
        median_interval=(float(rows[low]), float(rows[high])),
        largest_share=float(spread.max() / spread.sum()) if error > 0 else 0.0,
    )


def interval_over_files(y: Tensor, predicted: Tensor, files: Tensor) -> tuple[float, float] | None:
    """Return a 95 % interval of R² whose rows depend on each other within a file.

    It is of other files whose inputs are no larger than the largest of these; a polynomial may be
    any distance off on larger ones, and nothing here shows how far. None for one file, and where
    outputs are constant, up to rounding, or are without one of them.

    Math: the jackknife over files of l = log(1 − R²), whose errors lie alike on both sides,
        se² = (n − 1)/n Σ (l₋ᵢ − mean)², l₋ᵢ without file i, and Student's t of n − 1 degrees of
        freedom.
    """
    from scipy.special import stdtrit  # slow to import, needed only here

    groups, number = torch.unique(files, return_inverse=True)
    n, shift = len(groups), y.mean(dim=0)
    if n < 2:
        return None
    still = ROUNDING * float(y.square().sum())
    y = y - shift

    def summed(part: Tensor) -> Tensor:
        return part.new_zeros(n, *part.shape[1:]).index_add(0, number, part)

    lost = summed((y + shift - predicted).square().sum(dim=1))
    squares, sums, rows = summed(y.square().sum(dim=1)), summed(y), summed(torch.ones(len(y)).to(y))
    left = rows.sum() - rows
    spread = squares.sum() - squares - (sums.sum(dim=0) - sums).square().sum(dim=1) / left
    total = float(squares.sum() - sums.sum(dim=0).square().sum() / len(y))
    still += len(y) * torch.finfo(y.dtype).eps * float(squares.sum())  # of a difference of sums
    if min(total, float(spread.min())) <= still:
        return None
    without = ((lost.sum() - lost) / spread).clamp(min=torch.finfo(y.dtype).tiny).log()
    whole = float(lost.sum()) / total
    error = math.sqrt((n - 1) / n * float((without - without.mean()).square().sum()))
    reach = float(stdtrit(n - 1, 0.975)) * error
    return (1 - whole * math.exp(reach), 1 - whole * math.exp(-reach)) if reach < MOST else None


def centred(y: Tensor, classes: bool) -> Tensor:
    """Return outputs, (rows, out); logits of classes minus their mean, which no answer is of."""
    return y - y.mean(dim=1, keepdim=True) if classes else y


def usual_norm(norms: Tensor) -> Tensor:
    """Return the median of norms but for those that vanish, as of rows that reach no ReLU."""
    live = norms[norms > VANISHING * norms.max()]
    return live.median() if len(live) else norms.new_ones(())


def ratio_of_sums(residuals: Tensor, deviations: Tensor, sizes: Tensor) -> tuple[float, float]:
    """Return R² over all outputs and its standard error, from the sums of each row, (rows,)."""
    value, error = ratio(residuals[:, None], deviations[:, None], sizes.mean())
    return float(value), float(error)


def ratio(residuals: Tensor, deviations: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 − A/B and its standard error for each column."""
    rows = len(residuals)
    lost, total = residuals.mean(dim=0), deviations.mean(dim=0)
    still = total <= ROUNDING * sizes
    share = lost / torch.where(still, 1.0, total)
    influence = residuals - share * deviations
    spread = influence.square().mean(dim=0).sqrt()
    skewness = influence.pow(3).mean(dim=0) / torch.where(spread > 0, spread, 1.0).pow(3)
    error = spread / math.sqrt(rows) * reach(skewness, rows)
    # Of a few rows in a hundred that carry most of the error none may be here: one is put as large
    # as the largest, its influence between that and the largest influence.
    unseen = (influence.amax(dim=0).clamp(min=0) * deviations.amax(dim=0)).sqrt() / rows
    error = torch.maximum(error, unseen) / torch.where(still, 1.0, total)
    met = torch.where(lost <= ROUNDING * sizes, 1.0, -torch.inf)
    return torch.where(still, met, 1 - share), torch.where(still, 0.0, error)


def reach(skewness: Tensor, rows: int) -> Tensor:
    """Return how much wider than by the spread an interval of two standard errors has to be."""
    # Math: t + kt²/3 + k²t³/27 + k/6, k = skewness / √rows, is nearly normal where a mean t is not.
    # Source: P. Hall, J. R. Statist. Soc. B 54 (1992), 221.
    k = skewness / math.sqrt(rows)
    k = torch.where(k.abs() < LEAST_SKEW, LEAST_SKEW, k)
    cubes = (1 + k * (end - k / 6) for end in (-2, 2))
    ends = [3 / k * (cube.sign() * cube.abs().pow(1 / 3) - 1) for cube in cubes]
    return torch.maximum(ends[0].abs(), ends[1].abs()) / 2
