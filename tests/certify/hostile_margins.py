"""Hostile quadratic functions in their eigenbasis, and their solutions in multiple precision.

The reference bisects the secular equation with 1,000 bits; it shares no formula with the package
beyond the equation itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mpmath
import numpy as np

mp = mpmath.mp.clone()
mp.prec = 1000
FAR = 3000  # powers of two that a multiplier is looked for between, up and down
STEPS = 60  # of a bisection in the logarithm: 6,000 powers of two, then 47 bits


@dataclass(frozen=True)
class Margin:
    """m(δ) = constant + linear·δ + Σ values δ²."""

    values: np.ndarray
    linear: np.ndarray
    constant: float


Dice = np.random.Generator


def ordinary(dice: Dice) -> Margin:
    k = int(dice.integers(1, 7))
    return Margin(dice.normal(size=k), dice.normal(size=k), float(dice.exponential()))


def hard(dice: Dice) -> Margin:
    """No slope along the lowest vectors, one or several."""
    margin = ordinary(dice)
    values = np.append(margin.values, [-3.0 - dice.exponential()] * int(dice.integers(1, 4)))
    linear = np.append(margin.linear, np.zeros(len(values) - len(margin.linear)))
    return Margin(values, linear, margin.constant)


def nearly_hard(dice: Dice) -> Margin:
    margin = hard(dice)
    few = margin.linear == 0
    tiny = 10.0 ** dice.uniform(-200, -6, size=len(few)) * dice.choice([-1, 1], size=len(few))
    return Margin(margin.values, np.where(few, tiny, margin.linear), margin.constant)


def multiple(dice: Dice) -> Margin:
    """Equal and nearly equal eigenvalues."""
    values = np.repeat(dice.normal(size=2), 3) * (1 + dice.choice([0, 1e-15, 1e-9], size=6))
    return Margin(values, dice.normal(size=6), float(dice.exponential()))


def without_matrix(dice: Dice) -> Margin:
    k = int(dice.integers(1, 7))
    return Margin(np.zeros(k), dice.normal(size=k), float(dice.exponential()))


def rank_one(dice: Dice) -> Margin:
    values = np.zeros(5)
    values[2] = dice.normal()
    linear = dice.normal(size=5) * dice.choice([0, 1e-8, 1], size=5)
    return Margin(values, linear, float(dice.exponential()))


def positive(dice: Dice) -> Margin:
    """A bowl: its floor well above zero, well below, or just below."""
    values, linear = dice.exponential(size=4), dice.normal(size=4)
    floor = float((linear**2 / values).sum() / 4)
    return Margin(values, linear, floor * float(dice.choice([1.5, 0.5, 1 - 1e-3, 1 - 1e-6])))


def negative(dice: Dice) -> Margin:
    return Margin(-dice.exponential(size=4), dice.normal(size=4), float(dice.exponential()))


def without_slope(dice: Dice) -> Margin:
    margin = ordinary(dice)
    return Margin(margin.values, np.zeros(len(margin.values)), margin.constant)


def small_slope(dice: Dice) -> Margin:
    margin = ordinary(dice)
    return Margin(margin.values, margin.linear * 10.0 ** dice.uniform(-120, -3), margin.constant)


def small_constant(dice: Dice) -> Margin:
    margin = ordinary(dice)
    return Margin(margin.values, margin.linear, 10.0 ** dice.uniform(-120, -3))


def any_units(dice: Dice) -> Margin:
    """Each of the three parts in a unit of its own."""
    margin = ordinary(dice)
    a, b, c = 10.0 ** dice.uniform(-100, 100, size=3)
    return Margin(margin.values * a, margin.linear * b, margin.constant * c)


def graded(dice: Dice) -> Margin:
    """Eigenvalues and slopes over many orders of magnitude in one form."""
    k = int(dice.integers(2, 7))
    values = dice.normal(size=k) * 10.0 ** dice.uniform(-100, 100, size=k)
    return Margin(values, dice.normal(size=k) * 10.0 ** dice.uniform(-50, 50, size=k), 1.0)


FAMILIES: dict[str, Callable[[Dice], Margin]] = {
    make.__name__: make
    for make in (
        ordinary,
        hard,
        nearly_hard,
        multiple,
        without_matrix,
        rank_one,
        positive,
        negative,
        without_slope,
        small_slope,
        small_constant,
        any_units,
        graded,
    )
}


def falling_root(function: Callable[[mpmath.mpf], mpmath.mpf]) -> mpmath.mpf | None:
    """The τ where a falling function is zero, or None where it is not positive near 0."""
    low, high = -FAR, FAR
    if function(mp.mpf(2) ** low) <= 0:
        return None
    for _ in range(STEPS):
        middle = (mp.mpf(low) + high) / 2
        low, high = (middle, high) if function(mp.mpf(2) ** middle) > 0 else (low, middle)
    return mp.mpf(2) ** ((mp.mpf(low) + high) / 2)


Exact = mpmath.mpf | float
Pairs = list[tuple[mpmath.mpf, mpmath.mpf]]


def exact_parts(values: Iterable[Exact], linear: Iterable[Exact]) -> tuple[Pairs, mpmath.mpf]:
    """Pairs of λ − min(λ, 0) and g, without those of g = 0; and −min(λ, 0)."""
    exact = [mp.mpf(value) for value in values]
    least = max(-min(exact), mp.mpf(0))
    pairs = zip(exact, linear, strict=True)
    return [(value + least, mp.mpf(g)) for value, g in pairs if g], least


def true_distance(margin: Margin) -> mpmath.mpf:
    """The distance of the origin to m ≤ 0; inf where there is no such point."""
    return distance_of(margin.values.tolist(), margin.linear.tolist(), margin.constant)


def distance_of(values: Iterable[Exact], linear: Iterable[Exact], constant: Exact) -> mpmath.mpf:
    pairs, least = exact_parts(values, linear)

    def height(tau: mpmath.mpf) -> mpmath.mpf:
        """m at the stationary point of the multiplier least + τ."""
        drop = sum(g**2 / (v + tau) * (1 + (least + tau) / (v + tau)) for v, g in pairs)
        return mp.mpf(constant) - drop / 4

    tau = falling_root(lambda tau: -height(tau))
    if tau is None and least == 0:
        return mp.inf
    extra = mp.mpf(0)
    if tau is None:
        tau = mp.mpf(0)
        extra = height(tau) / least
    return mp.sqrt(sum(g**2 / (4 * (tau + v) ** 2) for v, g in pairs) + extra)


def true_minimum(margin: Margin, radius: float) -> mpmath.mpf:
    """The least value of m − constant in the ball."""
    pairs, least = exact_parts(margin.values.tolist(), margin.linear.tolist())
    square = mp.mpf(radius) ** 2
    tau = falling_root(lambda tau: sum(g**2 / (4 * (tau + v) ** 2) for v, g in pairs) - square)
    tau = mp.mpf(0) if tau is None else tau
    return -sum(g**2 / (4 * (tau + v)) for v, g in pairs) - (least + tau) * square
