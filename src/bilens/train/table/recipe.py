"""How a table is fitted: everything that decides the map, and nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bilens.base.checks import check_count
from bilens.base.errors import UsageError


@dataclass(frozen=True)
class TableRecipe:
    """The convex problem of a table, and how it is solved.

    The columns are standardised; what is minimised is the loss, summed over the rows, and
    ½ alpha (‖linear‖² + columns / quadratic_scale · ‖Q‖_F²).

    Attributes:
        alpha: the penalty, above 0.
        quadratic_scale: how large the quadratic part of a typical row is expected to be,
            as a variance beside that of the linear part; 0 leaves logistic or ridge regression.
        n_components: the products are of so many leading principal directions; None is all
            columns, as long as these are at most `expansion.UNKNOWNS` unknowns an output.
        max_iter: iterations of Newton's method.
        tol: of the gradient, in the metric of the curvature, for each unit of weight.
        early_stopping: whether a held-out share of the rows chooses the penalty, on the path
            from 100 alpha down to alpha / 100, which is left where it no longer gets better.
        validation_fraction: that share.
        n_iter_no_change: how many penalties in a row may bring nothing before the path is left.
        seed: of the rows that are held out.
    """

    alpha: float = 3.0
    quadratic_scale: float = 0.3
    n_components: int | None = None
    max_iter: int = 100
    tol: float = 1e-8
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("max_iter", 1), ("n_iter_no_change", 1), ("seed", 0)):
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum))
        if self.n_components is not None:
            count = check_count("n_components", self.n_components, minimum=1)
            object.__setattr__(self, "n_components", count)
        for name in ("alpha", "quadratic_scale", "tol", "validation_fraction"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
        if self.alpha == 0:
            raise UsageError("alpha must be above 0: without a penalty there is no one solution.")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)
