"""What keeping a few eigenpairs of each class can change, at most and on the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.gaussian import mean_and_covariance
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.agreement import CertifiedAgreement, certified_agreement
from bilens.certify.truncation import truncation_error, truncation_moments
from bilens.records.guarantees import TruncationGuarantee, TruncationGuarantees

SHOWN = (1, 2, 5, 10, 20)
LEVEL = 0.99  # of certified agreement


@dataclass(frozen=True, eq=False)
class Ball:
    """All inputs of at most a length."""

    radius: float
    origin: str  # `asked`, `data` or `box`


def truncation_guarantees(
    f: QuadraticMap,
    eigs: EigenDecomposition,
    ball: Ball,
    x: Tensor | None = None,
    asked: int | None = None,
) -> TruncationGuarantees:
    """Return proven bounds for several k, and the k that was asked for or is enough for the data.

    Cost: O(classes · in³) once, O(classes · k · inputs · in) for each k tried, about ten.

    Args:
        f: the class-centred map, float64.
        eigs: all pairs of each of its forms.
        ball: over which errors are bounded.
        x: (inputs, in) float64; without them nothing is said about predictions.
        asked: k; None looks for one whose certified agreement is `LEVEL`.
    """
    width = eigs.eigenvalues.shape[1]
    chosen, by = asked, "asked" if asked is not None else "none"
    extra: set[int] = set() if asked is None else {asked}
    agreement = None
    if x is not None:
        agreement = partial(_agreement, f, eigs, x)
        if asked is None:
            chosen = enough(lambda k: agreement(k).certified_share >= LEVEL, width)
            by = "none" if chosen is None else "agreement"
            extra = set() if chosen is None else {chosen, max(chosen - 1, 0)}
    moments = None if x is None else mean_and_covariance(x)
    shown = sorted({k for k in SHOWN if k < width} | extra)
    points = tuple(_point(eigs, k, ball, agreement, moments) for k in shown)
    return TruncationGuarantees(ball.radius, ball.origin, LEVEL, chosen, by, points)


def enough(reaches: Callable[[int], bool], width: int) -> int | None:
    """Return a k that reaches the level while k − 1 does not, by doubling and bisection.

    None if not even all pairs do.
    """
    below, k = -1, 1
    while not reaches(min(k, width)):
        below = min(k, width)
        if below == width:
            return None
        k *= 2
    above = min(k, width)
    while above - below > 1:
        middle = (above + below) // 2
        if reaches(middle):
            above = middle
        else:
            below = middle
    return above


def _agreement(f: QuadraticMap, eigs: EigenDecomposition, x: Tensor, k: int) -> CertifiedAgreement:
    return certified_agreement(f, k, x, eigs)


def _point(
    eigs: EigenDecomposition,
    k: int,
    ball: Ball,
    agreement: Callable[[int], CertifiedAgreement] | None,
    moments: tuple[Tensor, Tensor] | None,
) -> TruncationGuarantee:
    error = truncation_error(eigs, k, ball.radius)
    agreed = None if agreement is None else agreement(k)
    spread = None if moments is None else truncation_moments(eigs, k, *moments)
    return TruncationGuarantee(
        k=k,
        bounds=tuple(error.bound.tolist()),
        attained=tuple(error.attained.tolist()),
        certified=None if agreed is None else agreed.certified_share,
        agreement=None if agreed is None else agreed.agreeing_share,
        mean=None if spread is None else tuple(spread.mean.tolist()),
        deviation=None if spread is None else tuple(spread.variance.sqrt().tolist()),
    )
