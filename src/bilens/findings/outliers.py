"""Numbers of many layers: which of them stand out, how they lie, and what moved since a sweep."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bilens.findings.rules.layers import huge_norm
from bilens.records.sweep_report import KindNumbers, Move, NumberChange, Outlier, SweptNumber

Values = NDArray[np.float64]  # one for each row; NaN where there is none
FEWEST: Final = 5  # layers that say what is usual
CONSISTENT: Final = 0.6745  # makes the median deviation of a normal variable one standard deviation
SMALLEST: Final = 0.01  # deviation of a logarithm: layers that agree to 1 % do not make 5 % huge
THRESHOLD: Final = huge_norm.threshold  # of |z|
# Numbers above zero, of which ratios matter: compared by their logarithm where none is zero.
SIZES: Final = ("weight_norm", "effective_rank", "largest_eigenvalue", "weight_change")
COUNTS: Final = ("dead", "duplicates", "directions_90")  # one more or less is nothing
MOST, DIGITS = 10, 6  # named; of a value that is kept
MOVED: Final = 2e-5  # of a number that is kept: what differs less is the same


def robust_scale(
    values: Collection[float], smallest: float = SMALLEST
) -> tuple[float, float] | None:
    """Return the median and the robust standard deviation of values; None for few."""
    if len(values) < FEWEST:
        return None
    middle = median(values)
    spread = max(median(abs(value - middle) for value in values), smallest)
    return middle, spread / CONSISTENT


def scale_of(name: str, values: Values) -> tuple[bool, Callable[[Values], Values]]:
    """Return whether values are compared by their logarithm, and the function that makes them."""
    logarithm = name in SIZES and bool((values > 0).all())
    return logarithm, np.log if logarithm else np.positive


def swept_number(
    task: str, name: str, values: Values, kinds: Sequence[str], names: Sequence[str]
) -> SweptNumber:
    """Return a number over all layers; those of a kind are compared with each other."""
    known, of_kind = ~np.isnan(values), np.array(kinds)
    logarithm, scaled = scale_of(name, values[known])
    found, outliers = list[KindNumbers](), list[Outlier]()
    for kind, count in Counter(of_kind[known].tolist()).most_common():
        rows = np.flatnonzero(known & (of_kind == kind))
        sizes, five = scaled(values[rows]), np.quantile(values[rows], (0, 0.05, 0.5, 0.95, 1))
        scale = robust_scale(sizes.tolist(), 1.0 if name in COUNTS else SMALLEST)
        middle, spread = scale or (float(np.median(sizes)), None)
        z = np.zeros(count) if spread is None else (sizes - middle) / spread
        far = np.abs(z) > THRESHOLD
        for row, distance in zip(rows[far].tolist(), z[far].tolist(), strict=True):
            outliers.append(Outlier(names[row], float(values[row]), float(five[2]), distance))
        quantiles = (*five.tolist(),)
        found.append(KindNumbers(kind, count, quantiles, middle, spread, int(far.sum())))
    scored = sum(one.count for one in found if one.spread is not None)
    return SweptNumber(
        task=task,
        name=name,
        logarithm=logarithm,
        kinds=tuple(found),
        expected=scored * math.erfc(THRESHOLD / math.sqrt(2)),
        outliers=tuple(sorted(outliers, key=lambda one: -abs(one.z))[:MOST]),
        values=tuple(None if math.isnan(x) else float(f"{x:.{DIGITS}g}") for x in values.tolist()),
    )


def number_change(
    before: SweptNumber, names: Sequence[str], after: SweptNumber, names_after: Sequence[str]
) -> NumberChange:
    """Return how a number, by layer, differs between two sweeps."""
    earlier, now = (
        {name: value for name, value in zip(each, one.values, strict=True) if value is not None}
        for each, one in ((names, before), (names_after, after))
    )
    both = [name for name in now if name in earlier]
    old, new = (np.array([values[name] for name in both]) for values in (earlier, now))
    _, scaled = scale_of(after.name, np.concatenate([old, new]))
    order = np.argsort(-np.abs(scaled(new) - scaled(old)), kind="stable").tolist()
    moves = np.abs(new - old) > MOVED * np.maximum(np.abs(old), np.abs(new))
    moved = [Move(both[row], float(old[row]), float(new[row])) for row in order if moves[row]]
    return NumberChange(
        after.task, after.name, len(both), len(both) - len(moved), tuple(moved[:MOST])
    )
