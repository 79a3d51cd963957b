"""What one run of a method ends with."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.algebra.cp.factors import Factors


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model of the target, and how it was reached.

    Attributes:
        factors: unit rows in the input factors; `down` is the least-squares answer to them.
        losses: the loss at the start and after each sweep or iteration; it does not rise.
        converged: the last sweep lowered the loss by less than the tolerance.
    """

    factors: Factors
    losses: tuple[float, ...]
    converged: bool

    @property
    def sweeps(self) -> int:
        """How many sweeps (iterations) were made."""
        return len(self.losses) - 1
