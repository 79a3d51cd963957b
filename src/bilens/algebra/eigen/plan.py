"""Which solver, in which portions: decided from sizes alone, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bilens.algebra.gram.blocks import WORK_BYTES
from bilens.checks import MEMORY_LIMIT_VARIABLE, memory_limit, readable
from bilens.errors import MemoryLimitError

Method = Literal["auto", "dense", "lanczos", "factored"]
Solver = Literal["dense", "lanczos", "factored"]
Precision = Literal["float32", "float64"]

DENSE_ARRAYS = 5  # (n, n) float64 arrays alive at once: Q, its copy in the solver, vectors, work
BATCH = 256  # forms iterated together: enough for the full speed of a matrix product
FEW_STEPS = 128  # the size of a basis that is nearly always enough for a few pairs
OBJECT_BYTES = 10_000  # the tensors of one record beside their entries
CONVERSION_BYTES = 2**27  # blocks of the factors in float64, and the products with them
# Measured on two cores, in operations of a large float64 product (1e8 take a millisecond there):
EIGH = 20.0  # · n³, a dense eigensolver with vectors
DENSE_PRODUCTS = 14.0  # · hidden · n², forming a matrix and the residuals of all its pairs
DENSE_CALL = 1e8  # the small operations around it, a form
LANCZOS_SLOWNESS = 1.6  # of an iteration against its large products alone
STEP_CALL = 4e7  # the small operations of a step, a batch
HALF = {"float32": 0.5, "float64": 1.0}  # an operation of a product
STEPS = {"float32": (34, 3.0), "float64": (52, 4.0)}  # a + b·k: steps without a gap


@dataclass(frozen=True)
class Sizes:
    """What the cost depends on."""

    num: int
    d_hidden: int
    d_in: int
    k: int
    factor_bytes: int  # of an entry of the factors as they came


@dataclass(frozen=True)
class Cost:
    """What one solver would need.

    Attributes:
        work: multiplications and additions in float64, or what takes as long.
        peak_bytes: beside the map, with `batch` forms at a time.
        batch: forms at a time.
    """

    work: float
    peak_bytes: int
    batch: int


@dataclass(frozen=True)
class EigenPlan:
    """How `eigendecompose_all` would go about it.

    Attributes:
        method: the solver.
        precision: of the iteration; values, vectors and residuals are float64 in any case.
        batch: forms worked on at a time.
        peak_bytes: memory beside the map, at most.
        limit_bytes: what was allowed.
        reason: why this solver, in one sentence.
        costs: what each solver would need.
    """

    method: Solver
    precision: Precision
    batch: int
    peak_bytes: int
    limit_bytes: int
    reason: str
    costs: Mapping[Solver, Cost]


def make_plan(
    sizes: Sizes, method: Method, precision: Precision, limit: int | str | None = None
) -> EigenPlan:
    """Return the cheapest solver that fits into the memory allowed, or the one asked for.

    Raises:
        MemoryLimitError: If no solver fits, or the one asked for does not.
    """
    allowed = memory_limit(limit)
    costs = solver_costs(sizes, precision, allowed)
    candidates: list[Solver] = suitable(sizes) if method == "auto" else [method]
    fitting = [name for name in candidates if costs[name].peak_bytes <= allowed]
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
    return EigenPlan(best, precision, cost.batch, cost.peak_bytes, allowed, reason, costs)


def solver_costs(sizes: Sizes, precision: Precision, allowed: int) -> dict[Solver, Cost]:
    """Return the cost of each solver."""
    records = record_bytes(sizes)
    return {
        "dense": dense_cost(sizes, sizes.d_in, records),
        "factored": factored_cost(sizes, records),
        "lanczos": lanczos_cost(sizes, precision, records, allowed),
    }


def record_bytes(sizes: Sizes) -> int:
    """Return the memory of what comes in and goes out, in float64, whichever solver runs.

    The pairs and the linear terms stand in the parts and in the whole while it is put together;
    the linear terms and the weights (while they are scaled, seven times over) in the problem.
    """
    pairs = 2 * (sizes.k + 1) * (sizes.d_in + 8)
    return sizes.num * (8 * (pairs + sizes.d_in + 7 * sizes.d_hidden) + OBJECT_BYTES)


def suitable(sizes: Sizes) -> list[Solver]:
    """Return the solvers that have something to gain."""
    solvers: list[Solver] = ["dense"]
    if 2 * sizes.d_hidden < sizes.d_in:
        solvers.append("factored")
    if 2 * sizes.k + STEPS["float32"][0] < sizes.d_in:  # else the bases would fill the space
        solvers.append("lanczos")
    return solvers


def dense_cost(sizes: Sizes, width: int, records: int) -> Cost:
    """Forming each matrix, and a dense eigensolver."""
    products = DENSE_PRODUCTS * width**2 * sizes.d_hidden
    work = sizes.num * (products + EIGH * width**3 + DENSE_CALL)
    factors = 7 * 8 * sizes.d_hidden * width  # scaled, in float64, and products with them
    return Cost(work, records + factors + DENSE_ARRAYS * 8 * width**2, 1)


def factored_cost(sizes: Sizes, records: int) -> Cost:
    """One QR for all forms, then dense matrices of the width of the two branches together."""
    width = min(2 * sizes.d_hidden, sizes.d_in)
    small = dense_cost(sizes, width, records)
    qr = 4.0 * sizes.d_in * width**2
    lift = 2.0 * sizes.num * sizes.k * width * sizes.d_in
    branches = 2 * sizes.d_hidden * sizes.d_in  # scaled, stacked, copied, and the result of QR
    return Cost(small.work + qr + lift, small.peak_bytes + 5 * 8 * branches, 1)


def lanczos_cost(sizes: Sizes, precision: Precision, records: int, allowed: int) -> Cost:
    """Products for as many steps as a spectrum without a gap takes, and the exact norms."""
    num, hidden, d_in, k = sizes.num, sizes.d_hidden, sizes.d_in, sizes.k
    first, each = STEPS[precision]
    steps = min((first + each * k) * max(d_in / 512, 1) ** 0.25, d_in)
    product = 8.0 * hidden * d_in
    reorthogonalising = 4.0 * 2 * steps**2 * d_in  # bound by memory: four times its operations
    iterating = HALF[precision] * (steps * product + reorthogonalising) + EIGH * steps**3
    norms = 4.0 * hidden**2 * (d_in + num)
    batches = -(-num // BATCH)
    work = LANCZOS_SLOWNESS * (num * (iterating + k * product) + norms)
    work += STEP_CALL * steps * batches
    scaled = 2 * hidden * d_in * (sizes.factor_bytes + 8)  # balanced, and for a second round
    fixed = records + scaled + WORK_BYTES + CONVERSION_BYTES
    each_form = form_bytes(sizes, 4 if precision == "float32" else 8, usual_steps(k))
    single = form_bytes(sizes, 8, most_steps(k))
    room = max(allowed - fixed, 0) // each_form
    batch = int(max(min(room, BATCH, num), 1))
    return Cost(work, int(fixed + max(batch * each_form, single)), batch)


def form_bytes(sizes: Sizes, itemsize: int, steps: int) -> int:
    """Return the memory of one form in a batch: basis, products, small matrices."""
    steps = min(steps, sizes.d_in)
    basis = (steps + 24 + 4 * sizes.k) * sizes.d_in
    return itemsize * (basis + 4 * sizes.d_hidden) + 8 * (4 * steps**2 + 6 * sizes.k * sizes.d_in)


def usual_steps(k: int) -> int:
    """Return the basis size that is nearly always enough for k pairs."""
    return max(FEW_STEPS, 6 * k)


def most_steps(k: int) -> int:
    """Return the basis size at which the iteration gives up."""
    return 4 * usual_steps(k)


def later_batch(batch: int, k: int) -> int:
    """Return how many forms may have bases of the largest size, in float64, in the same memory."""
    return max(batch * usual_steps(k) // (2 * most_steps(k)), 1)
