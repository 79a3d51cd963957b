"""Chooses a solver and its portions from sizes alone, before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bilens.algebra.eigen.lanczos_solver import LanczosSolver, resting_bytes
from bilens.algebra.eigen.solver import (
    EigenSolver,
    Method,
    Precision,
    Sizes,
    Solver,
    SolverCost,
    WholeSpectrumSolver,
)
from bilens.algebra.eigen.whole_spectrum import DenseSolver, FactoredSolver
from bilens.base.errors import MemoryLimitError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE, memory_limit, readable
from bilens.base.notebook import html_summary

WHOLE_SPECTRUM: dict[Solver, WholeSpectrumSolver] = {
    "dense": DenseSolver(),
    "factored": FactoredSolver(),
}
SOLVERS: dict[Solver, EigenSolver] = {**WHOLE_SPECTRUM, "lanczos": LanczosSolver()}


@dataclass(frozen=True)
class EigenPlan:
    """How `eigendecompose_all` would go about it.

    Attributes:
        method: the solver.
        precision: of the iteration; values, vectors and residuals are float64 in any case.
        batch: forms worked on at a time.
        portion: forms whose weights are held at a time.
        fallback: the solver that answers what "lanczos" leaves open, the cheaper of those that
            fit; None if none does.
        peak_bytes: memory beside the map, at most.
        limit_bytes: what was allowed.
        reason: why this solver, in one sentence.
        costs: what each solver would need.
    """

    method: Solver
    precision: Precision
    batch: int
    portion: int
    fallback: Solver | None
    peak_bytes: int
    limit_bytes: int
    reason: str
    costs: Mapping[Solver, SolverCost]

    _repr_html_ = html_summary(
        "method", "precision", "batch", "peak_bytes", "limit_bytes", "reason"
    )


def make_plan(
    sizes: Sizes,
    method: Method,
    precision: Precision,
    limit: int | str | None = None,
    verify: bool = False,
    device: torch.device | None = None,
) -> EigenPlan:
    """Return the cheapest solver that fits into the memory allowed, or the one asked for."""
    allowed = memory_limit(limit, device)
    costs = {name: solver.cost(sizes, precision, allowed) for name, solver in SOLVERS.items()}
    fallback, fallback_bytes = fallback_solver(sizes, costs, allowed)
    candidates = [name for name, solver in SOLVERS.items() if solver.suits(sizes)]
    candidates = candidates if method == "auto" else [method]
    fitting = [name for name in candidates if costs[name].peak_bytes <= allowed]
    if verify and fallback is None and "lanczos" in fitting:
        raise MemoryLimitError(
            f"verify=True needs {readable(fallback_bytes)} beside the map for a solver of all "
            f"{sizes.d_in} eigenvalues, the limit is {readable(allowed)}: allow more with "
            f"memory_limit or {MEMORY_LIMIT_VARIABLE}, or read `complete` for what is proven "
            "without."
        )
    if not fitting:
        least = min(candidates, key=lambda name: costs[name].peak_bytes)
        others = "" if method == "auto" else ", take another method"
        raise MemoryLimitError(
            f"{sizes.k} eigenpairs of {sizes.num} forms of width {sizes.d_in} need at least "
            f"{readable(costs[least].peak_bytes)} beside the map (method {least}), the limit is "
            f"{readable(allowed)}: allow more with memory_limit or {MEMORY_LIMIT_VARIABLE}"
            f"{others}, or ask for fewer pairs or forms at a time."
        )
    best = min(fitting, key=lambda name: costs[name].work)
    if method != "auto":
        reason = "it was asked for"
    elif len(fitting) < len(candidates):
        reason = "the fastest of those within the memory limit, by a model of measured costs"
    else:
        reason = "the fastest, by a model of measured costs"
    cost = costs[best]
    if best != "lanczos":
        fallback, fallback_bytes = None, 0
    peak = cost.peak_bytes if fallback is None else max(cost.peak_bytes, fallback_bytes)
    return EigenPlan(
        best, precision, cost.batch, cost.portion, fallback, peak, allowed, reason, costs
    )


def fallback_solver(
    sizes: Sizes, costs: Mapping[Solver, SolverCost], allowed: int
) -> tuple[Solver | None, int]:
    """Return the cheapest that fits to answer what "lanczos" leaves open, if any, and its bytes."""
    # It must fit beside what the iteration keeps between two batches. Where none does, the bytes
    # are those of the smallest.
    iteration = costs["lanczos"]
    kept = resting_bytes(sizes) + iteration.portion * sizes.problem_bytes
    kept += iteration.batch * 6 * 8 * sizes.k * sizes.d_in  # the pairs of the last batch
    needs = {
        name: kept + solver.workspace(sizes)
        for name, solver in WHOLE_SPECTRUM.items()
        if solver.suits(sizes)
    }
    fitting = [name for name in needs if needs[name] <= allowed]
    if not fitting:
        return None, min(needs.values())
    best = min(fitting, key=lambda name: costs[name].work)
    return best, needs[best]
