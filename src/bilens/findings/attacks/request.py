"""What is asked of an attack: classes, lengths, numbers of masks, seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.findings.attacks.class_means import ClassMeans
from bilens.findings.attacks.objective import Objective, objective_of
from bilens.findings.subject import SEED_LIMIT

# 4.2 is the paper's mask of standard deviation 0.15 at 784 pixels, 8.4 that of 0.30.
EPSILONS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.2, 6.0, 8.4)


@dataclass(frozen=True)
class AttackRequest:
    """What is attacked, and how.

    Attributes:
        target: the class that should win; None for every class in turn.
        source: the class that should lose; None for every other.
        pairs: whether each source class is attacked with a mask of its own.
        epsilons: lengths ‖δ‖₂ of the masks, in units of a pixel's range; sorted, without doubles.
        random_masks: how many random masks of each kind.
        restarts: descents of the projected gradient, for each length.
        seed: of the random masks and of the starting points.

    Raises:
        UsageError: If a length is negative or not finite, there is none, or a number is out of
            range.
    """

    target: int | None = None
    source: int | None = None
    pairs: bool = False
    epsilons: Sequence[float] = EPSILONS
    random_masks: int = 3
    restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [float(epsilon) for epsilon in self.epsilons]
        if not lengths or not all(math.isfinite(length) and length >= 0 for length in lengths):
            raise UsageError(
                f"epsilon must be one or several finite numbers of at least 0, got {lengths}: "
                "it is the length of the mask, 0 changes nothing."
            )
        object.__setattr__(self, "epsilons", tuple(sorted({*lengths})))
        check_count("random_masks", self.random_masks, minimum=1)
        check_count("restarts", self.restarts, minimum=1)
        if check_count("seed", self.seed, minimum=0) >= SEED_LIMIT:
            raise UsageError(f"seed must be below 2**32, got {self.seed}.")

    def objectives(self, f: QuadraticMap, means: ClassMeans) -> Iterator[Objective]:
        """Yield what is asked for, one objective after the other."""
        classes = range(f.sizes.d_out)
        for target in classes if self.target is None else (self.target,):
            if self.target is None and target == self.source:
                continue
            if self.source is None and self.pairs:
                for source in classes:
                    if source != target:
                        yield objective_of(f, means, target, source)
            else:
                yield objective_of(f, means, target, self.source)
