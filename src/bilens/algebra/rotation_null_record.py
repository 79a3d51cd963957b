"""Spectra of the null distribution, and how an observed one compares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.status import Status
from bilens.base.checks import check_dense_tensor
from bilens.base.errors import NumericalError, ShapeError, UsageError
from bilens.base.notebook import html_summary


@dataclass(frozen=True, eq=False)
class RotationNull:
    """Spectra of a map whose right branch was rotated at random: their null distribution.

    The hypothesis: the right branch of the layer is distributed the same in every rotated basis,
    whatever the left branch is, as it is where the weights are drawn at random.

    Attributes:
        largest: (samples, directions), the largest eigenvalue (0 if none is positive).
        smallest: (samples, directions), the smallest eigenvalue (0 if none is negative).
        effective_rank: (samples, directions).
        status: one for each direction. Where it is not OK all numbers are NaN: so are its edges,
            and its p-values are 1.
        localisation_largest: (samples, directions), `localisation` of the eigenvector of the
            largest eigenvalue, in the basis before the embedding; 0 if none is positive. None
            unless it was asked for.
        localisation_smallest: the same of the smallest eigenvalue; 0 if none is negative.
    """

    largest: Tensor
    smallest: Tensor
    effective_rank: Tensor
    status: tuple[Status, ...]
    localisation_largest: Tensor | None = None
    localisation_smallest: Tensor | None = None

    _repr_html_ = html_summary("num_samples", "largest", "smallest", "effective_rank", "status")

    @property
    def num_samples(self) -> int:
        """Number of random rotations."""
        return len(self.largest)

    def check_usable(self) -> None:
        """Refuse a null in which a direction is missing.

        Raises: NumericalError with the directions, and why they have no null distribution.
        """
        bad = [index for index, one in enumerate(self.status) if one is not Status.OK]
        if bad:
            raise NumericalError(
                f"direction(s) {', '.join(map(str, bad))} have no null distribution: "
                f"{self.status[bad[0]].value}; leave them out, or rescale them or the factors."
            )

    def edges(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the lower and upper edge of the null, (directions,) each.

        The upper edge is the order statistic ⌈level·(samples + 1)⌉ of the largest eigenvalue:
        under the hypothesis it is exceeded with probability at most 1 − level, exactly that where
        (1 − level)(samples + 1) is a whole number. The lower edge is the mirror image, at a level
        of its own. With too few samples for the level, the edge is the extreme of the samples
        and the probability 1 / (samples + 1).

        Raises: UsageError if the level is not between 0 and 1.
        """
        check_level(level)
        rank = min(math.ceil(level * (self.num_samples + 1) - 1e-9), self.num_samples)
        upper = self.largest.sort(dim=0).values[rank - 1]
        lower = self.smallest.sort(dim=0, descending=True).values[rank - 1]
        return lower, upper

    def p_values(self, smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """Return one-sided p-values (1 + #{null as extreme}) / (samples + 1) for both ends.

        They are of the smallest and largest eigenvalue observed, (directions,) each; NaN, from a
        form that was not decomposed, has the p-value 1.

        Raises: ShapeError if there is not one eigenvalue for each direction.
        """
        return (
            self._tail("smallest", smallest, self.smallest, lower=True),
            self._tail("largest", largest, self.largest),
        )

    def num_significant(self, eigenvalues: Tensor, level: float = 0.95) -> SignificantEigenvalues:
        """Return which eigenvalues are beyond the null: each against the *extreme* of the null.

        A positive eigenvalue has the p-value (1 + #{largest of the null ≥ λ}) / (samples + 1), a
        negative one the mirror image. Being against the largest, p-values rise down the spectrum,
        so stepping down from the largest eigenvalue and stopping at the first that is not
        significant gives the same count: under the hypothesis the probability that *any* of a
        direction's positive eigenvalues is declared is at most 1 − level (family-wise), and so
        for the negative ones. Compared with the k-th of the null instead, the k-th eigenvalue
        would have that level alone, and many of them together a larger one. What else stands out
        raises the null, whose factors have the same lengths: counts err on the low side then.

        Args:
            eigenvalues: (directions, k) in any order, with the extreme ones among them; the p-value
                of zero, and of NaN from a form that was not decomposed, is 1.
            level: 1 − the probability of declaring anything by chance, for each sign. With fewer
                than 1 / (1 − level) − 1 samples nothing can be declared.

        Raises:
            ShapeError: If there is not one row for each direction.
            UsageError: If the level is not between 0 and 1.
        """
        check_level(level)
        shape = check_dense_tensor("eigenvalues", eigenvalues, num_axes=2)
        if shape[0] != self.largest.shape[1]:
            raise ShapeError(
                f"eigenvalues has {shape[0]} rows; expected one for each of the "
                f"{self.largest.shape[1]} directions."
            )
        upper = tail(eigenvalues.T, self.largest[:, None]).T
        lower = tail(-eigenvalues.T, -self.smallest[:, None]).T
        one = torch.ones_like(upper)
        p_values = torch.where(eigenvalues > 0, upper, torch.where(eigenvalues < 0, lower, one))
        declared = p_values <= 1 - level + 1e-12
        return SignificantEigenvalues(
            positive=(declared & (eigenvalues > 0)).sum(dim=1),
            negative=(declared & (eigenvalues < 0)).sum(dim=1),
            p_values=p_values,
            level=level,
        )

    def effective_rank_p_values(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return one-sided p-values that a rank is as low, and as high, by chance.

        `observed` is (directions,); NaN has the p-value 1.

        Raises: ShapeError if there is not one rank for each direction.
        """
        return (
            self._tail("observed", observed, self.effective_rank, lower=True),
            self._tail("observed", observed, self.effective_rank),
        )

    def localisation_p_values(self, smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """Return p-values that the extreme eigenvectors rest on as few inputs by chance.

        They are of `localisation` of the eigenvectors of the smallest and the largest eigenvalue,
        (directions,) each, in the basis before the embedding; NaN has the p-value 1.

        Raises:
            ShapeError: If there is not one number for each direction.
            UsageError: If the null was sampled without `localised=True`.
        """
        if self.localisation_largest is None or self.localisation_smallest is None:
            raise UsageError(
                "this null has no localisation: sample it with rotation_null(..., localised=True)."
            )
        return (
            self._tail("smallest", smallest, self.localisation_smallest),
            self._tail("largest", largest, self.localisation_largest),
        )

    def _tail(self, name: str, observed: Tensor, null: Tensor, lower: bool = False) -> Tensor:
        """Return the p-value that each direction's number is as high, or as low, (directions,)."""
        if check_dense_tensor(name, observed, num_axes=1) != null.shape[1:]:
            raise ShapeError(
                f"{name} has {len(observed)} entries; expected one for each of the "
                f"{null.shape[1]} directions."
            )
        return tail(-observed, -null) if lower else tail(observed, null)


@dataclass(frozen=True, eq=False)
class SignificantEigenvalues:
    """Eigenvalues beyond the null distribution.

    Attributes:
        positive: (directions,) int64, how many positive eigenvalues are significant.
        negative: (directions,) int64.
        p_values: (directions, k), of every eigenvalue, for the end of its sign.
        level: 1 − the probability of a wrong count above zero, for each direction and sign.
    """

    positive: Tensor
    negative: Tensor
    p_values: Tensor
    level: float

    _repr_html_ = html_summary()


def tail(observed: Tensor, null: Tensor) -> Tensor:
    """Return (1 + #{null ≥ observed}) / (samples + 1), samples along the first axis of `null`."""
    beyond = (~(null < observed)).sum(dim=0).double()  # NaN counts as within
    return (1 + beyond) / (len(null) + 1)


def check_level(level: float) -> None:
    """Refuse what is not a probability."""
    if not 0 < level < 1:
        raise UsageError(f"level={level!r}: a number between 0 and 1 was expected.")
