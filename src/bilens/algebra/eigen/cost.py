"""What each solver would need, in time and memory: known from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bilens.algebra.eigen.mass import norm_by_columns, norms_by_gram
from bilens.algebra.gram.blocks import WORK_BYTES

Method = Literal["auto", "dense", "lanczos", "factored"]
Solver = Literal["dense", "lanczos", "factored"]
Precision = Literal["float32", "float64"]

DENSE_ARRAYS = 5.5  # (n, n) float64 arrays alive at once: Q, its copy in the solver, vectors, work
BATCH = 256  # forms iterated together: enough for the full speed of a matrix product
FEW_STEPS = 128  # the size of a basis that is nearly always enough for a few pairs
OBJECT_BYTES = 10_000  # the tensors of one record beside their entries
CONVERSION_BYTES = 2**27  # blocks of the factors in float64, and the products with them, at most
# Measured on two cores, in operations of a large float64 product (1e8 take a millisecond there):
EIGH = 20.0  # · n³, a dense eigensolver with vectors
DENSE_CHECKS = 5.0  # · n³, residuals and overlaps of all pairs
FORMING = 2.5  # · hidden · n², forming a matrix from the factors
DENSE_CALL = 1.6e8  # the small operations around it, a form
LANCZOS_SLOWNESS = 1.6  # of an iteration against its large products alone
STEP_CALL = 4e7  # the small operations of a step, a batch
READING = 140.0  # · hidden · in, the factors read from memory, a step: what a single form waits for
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
        batch: forms worked on at a time.
        portion: forms whose weights are held at a time, a multiple of which goes through all.
    """

    work: float
    peak_bytes: int
    batch: int
    portion: int


def solver_costs(sizes: Sizes, precision: Precision, allowed: int) -> dict[Solver, Cost]:
    """Return the cost of each solver."""
    return {
        "dense": dense_cost(sizes, allowed),
        "factored": factored_cost(sizes, allowed),
        "lanczos": lanczos_cost(sizes, precision, allowed),
    }


def result_bytes(sizes: Sizes) -> int:
    """Return the memory of what comes out, in float64, whichever solver runs.

    The pairs and the linear terms stand in the parts and in the whole while it is put together.
    """
    return sizes.num * (8 * 2 * (sizes.k + 1) * (sizes.d_in + 8) + OBJECT_BYTES)


def problem_bytes(sizes: Sizes) -> int:
    """Return the memory of one form as it goes in: weights, seven times over, and linear term."""
    return 8 * (sizes.d_in + 7 * sizes.d_hidden)


def portion_within(sizes: Sizes, room: int) -> int:
    """Return how many forms may be taken in at a time."""
    return int(max(min(room // problem_bytes(sizes), sizes.num), 1))


def suitable(sizes: Sizes) -> list[Solver]:
    """Return the solvers that have something to gain."""
    solvers: list[Solver] = ["dense"]
    if 2 * sizes.d_hidden < sizes.d_in:
        solvers.append("factored")
    if 2 * sizes.k + STEPS["float32"][0] < sizes.d_in:  # else the bases would fill the space
        solvers.append("lanczos")
    return solvers


def dense_cost(sizes: Sizes, allowed: int) -> Cost:
    """Forming each matrix, and a dense eigensolver."""
    balanced = 2 * 2 * sizes.d_hidden * sizes.d_in * sizes.factor_bytes  # and while it is scaled
    fixed = result_bytes(sizes) + balanced + array_bytes(sizes.d_in) + conversion_bytes(sizes)
    portion = portion_within(sizes, allowed - fixed)
    work = sizes.num * array_work(sizes, sizes.d_in)
    return Cost(work, fixed + portion * problem_bytes(sizes), 1, portion)


def conversion_bytes(sizes: Sizes) -> int:
    """Return the memory of a block of the factors in float64, and the products with it."""
    return min(CONVERSION_BYTES, 48 * sizes.d_hidden * (sizes.d_in + max(sizes.k, 8)))


def array_bytes(width: int) -> int:
    """Return the memory of a dense solver."""
    return int(DENSE_ARRAYS * 8 * width**2)


def array_work(sizes: Sizes, width: int) -> float:
    """Return the operations of one form as an array of some width."""
    judging = 8.0 * sizes.d_hidden * sizes.d_in * sizes.k
    forming = FORMING * width**2 * sizes.d_hidden
    return forming + judging + (EIGH + DENSE_CHECKS) * width**3 + DENSE_CALL


def factored_cost(sizes: Sizes, allowed: int) -> Cost:
    """One QR for all forms, then dense matrices of the width of the two branches together."""
    width = min(2 * sizes.d_hidden, sizes.d_in)
    fixed = result_bytes(sizes) + row_space_bytes(sizes) + conversion_bytes(sizes)
    portion = portion_within(sizes, allowed - fixed)
    lift = 2.0 * sizes.k * width * sizes.d_in
    qr = 4.0 * sizes.d_in * width**2 * -(-sizes.num // portion)
    work = qr + sizes.num * (array_work(sizes, width) + lift)
    return Cost(work, fixed + portion * problem_bytes(sizes), 1, portion)


def row_space_bytes(sizes: Sizes) -> int:
    """Return the memory of a solver on the row space: the branches, and an array."""
    branches = 2 * sizes.d_hidden * sizes.d_in  # scaled, stacked, copied, and the result of QR
    width = min(2 * sizes.d_hidden, sizes.d_in)
    return 6 * 8 * branches + array_bytes(width)


def resting_bytes(sizes: Sizes) -> int:
    """Return the memory of an iteration beside the forms at hand: results, balanced factors."""
    scaled = 2 * sizes.d_hidden * sizes.d_in * (sizes.factor_bytes + 8)  # and for a second round
    return result_bytes(sizes) + scaled


def lanczos_cost(sizes: Sizes, precision: Precision, allowed: int) -> Cost:
    """Products for as many steps as a spectrum without a gap takes, and the exact norms."""
    num, hidden, d_in, k = sizes.num, sizes.d_hidden, sizes.d_in, sizes.k
    first, each = STEPS[precision]
    steps = min((first + each * k) * max(d_in / 512, 1) ** 0.25, d_in)
    product = 8.0 * hidden * d_in
    reorthogonalising = 4.0 * 2 * steps**2 * d_in  # bound by memory: four times its operations
    iterating = HALF[precision] * (steps * product + reorthogonalising) + EIGH * steps**3
    fixed = resting_bytes(sizes) + WORK_BYTES + CONVERSION_BYTES
    each_form = form_bytes(sizes, 4 if precision == "float32" else 8, usual_steps(k))
    single = form_bytes(sizes, 8, most_steps(k))
    room = max(allowed - fixed, 0)
    portion = portion_within(sizes, room - max(min(BATCH, num) * each_form, single))
    portion = max(portion, portion_within(sizes, room // 2))  # half for each where not all fits
    batch = int(max(min((room - portion * problem_bytes(sizes)) // each_form, BATCH, portion), 1))
    norms = sum(
        min(norms_by_gram(part, hidden, d_in), part * norm_by_columns(hidden, d_in))
        for part in parts(num, portion)
    )
    work = LANCZOS_SLOWNESS * (num * (iterating + k * product) + norms)
    reading = HALF[precision] * READING * hidden * d_in
    work += (STEP_CALL + reading) * steps * -(-num // BATCH)
    working = portion * problem_bytes(sizes) + max(batch * each_form, single)
    return Cost(work, int(fixed + working), batch, portion)


def parts(num: int, portion: int) -> list[int]:
    """Return how many forms are taken in each time."""
    return [min(portion, num - start) for start in range(0, num, portion)]


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
