"""Batches of forms through Lanczos' method; their pairs refined and checked in float64."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status, take
from bilens.algebra.eigen.lanczos import Product, lanczos
from bilens.algebra.eigen.proofs import (
    RefinedPairs,
    in_units,
    norm_by_columns,
    norms_by_gram,
    norms_with_error,
    proven_by_norm,
    proven_by_rank,
    rounding_bound,
    skew,
    worst_rounding,
    zeros_missed,
)
from bilens.algebra.eigen.ranking import (
    CLUSTER_TOLERANCE,
    by_size_and_sign,
    partial_clusters,
    with_sign,
)
from bilens.algebra.eigen.solver import (
    CONVERSION_BYTES,
    EIGH,
    BalancedForms,
    EigenSolver,
    EigenTask,
    Precision,
    Sizes,
    Solver,
    SolverCost,
)
from bilens.algebra.gram.kernel import WORK_BYTES
from bilens.base.memory import MemoryEstimate

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES: dict[Precision, float] = {"float32": 1e-6, "float64": 1e-11}  # of ‖Q‖_F
MARGIN = 0.7  # of the tolerance: where the iteration stops, by its own estimate
BATCH = 256  # forms iterated together: enough for the full speed of a matrix product
FEW_STEPS = 128  # the size of a basis that is nearly always enough for a few pairs
LATER = 4  # times as large may the basis of a form be that it was not enough for
# Measured on two cores, in operations of a large float64 product:
SLOWNESS = 1.6  # of an iteration against its large products alone
STEP_CALL = 4e7  # the small operations of a step, a batch
READING = 140.0  # · hidden · in, the factors read from memory, a step: what a single form waits for
HALF = {"float32": 0.5, "float64": 1.0}  # an operation of a product
STEPS = {"float32": (34, 3.0), "float64": (52, 4.0)}  # a + b·k: steps without a gap


class LanczosSolver(EigenSolver):
    """Products for as many steps as a spectrum without a gap takes, and the exact norms."""

    name: ClassVar[Solver] = "lanczos"

    def suits(self, sizes: Sizes, /) -> bool:
        return 2 * sizes.k + STEPS["float32"][0] < sizes.d_in

    def cost(self, sizes: Sizes, precision: Precision, allowed: int, /) -> SolverCost:
        num, hidden, d_in, k = sizes.num, sizes.d_hidden, sizes.d_in, sizes.k
        first, each = STEPS[precision]
        steps = min((first + each * k) * widening(d_in), d_in)
        product = 8.0 * hidden * d_in
        reorthogonalising = 4.0 * 2 * steps**2 * d_in  # bound by memory: four times its operations
        iterating = HALF[precision] * (steps * product + reorthogonalising) + EIGH * steps**3
        fixed = resting_bytes(sizes) + WORK_BYTES + CONVERSION_BYTES
        each_form = form_bytes(sizes, 4 if precision == "float32" else 8, usual_steps(k, d_in))
        single = form_bytes(sizes, 8, most_steps(k, d_in))
        room = max(allowed - fixed, 0)
        portion = sizes.portion(room - max(min(BATCH, num) * each_form, single))
        portion = max(portion, sizes.portion(room // 2))  # half for each where not all fits
        at_a_time = (room - portion * sizes.problem_bytes) // each_form
        batch = int(max(min(at_a_time, BATCH, portion), 1))
        parts = [min(portion, num - start) for start in range(0, num, portion)]
        norms = sum(
            min(norms_by_gram(part, hidden, d_in), part * norm_by_columns(hidden, d_in))
            for part in parts
        )
        work = SLOWNESS * (num * (iterating + k * product) + norms)
        reading = HALF[precision] * READING * hidden * d_in
        work += (STEP_CALL + reading) * steps * -(-num // BATCH)
        memory = MemoryEstimate(fixed + max(batch * each_form, single), sizes.problem_bytes)
        return SolverCost(work, memory, batch, portion)

    def solve(self, task: EigenTask, rows: Tensor) -> Iterator[tuple[Tensor, EigenDecomposition]]:
        # Forms that do not pass at first, because they need more steps than usual or more digits
        # than float32 has, are done again in float64 with room for more steps. Those that fail then
        # as well come with their best pairs, flagged.
        if len(rows) == 0:
            return
        forms, k = task.problem.forms.rows(rows), task.k
        squared, squared_error = norms_with_error(forms, task.precision == "float32")
        surely = (squared - squared_error).clamp(min=0.0).sqrt()
        allowed = TOLERANCES[task.precision] * surely + rounding_bound(forms, squared)
        most = most_steps(k, forms.d_in)
        rounds = (
            (DTYPES[task.precision], task.batch, usual_steps(k, forms.d_in)),
            (torch.float64, max(task.batch // (2 * LATER), 1), most),  # in the same memory
        )
        waiting = torch.arange(len(rows), device=rows.device)
        for dtype, batch, steps in rounds:
            if len(waiting) == 0:
                return
            factors = forms.to(dtype)
            start = first_vector(forms.d_in, task.seed).to(factors.left)
            not_passed = []
            for chosen in torch.split(waiting, batch):
                mine = forms.rows(chosen)
                product = batched_product(factors.left, factors.right, mine.weights.to(dtype))
                limit = MARGIN * allowed[chosen]
                found = lanczos(product, start, limit, k, task.which, steps)
                norms = squared[chosen], squared_error[chosen]
                pairs = refine(mine, found.vectors, norms[0])
                result = record(task, rows[chosen], pairs, norms, allowed[chosen], found.rivals)
                passed = (pairs.residuals <= allowed[chosen, None]).all(dim=1)
                kept = (passed | (steps == most)).nonzero()[:, 0]
                yield rows[chosen[kept]], take(result, kept)
                left = torch.ones_like(chosen, dtype=torch.bool).index_fill_(0, kept, False)
                not_passed.append(chosen[left])
            waiting = torch.cat(not_passed)


def resting_bytes(sizes: Sizes) -> int:
    """Return the memory of an iteration beside the forms at hand: results, balanced factors."""
    scaled = 2 * sizes.d_hidden * sizes.d_in * (sizes.factor_bytes + 8)  # and for a second round
    return sizes.result_bytes + scaled


def form_bytes(sizes: Sizes, itemsize: int, steps: int) -> int:
    """Return the memory of one form in a batch: basis, products, small matrices."""
    steps = min(steps, sizes.d_in)
    basis = (steps + 24 + 4 * sizes.k) * sizes.d_in
    return itemsize * (basis + 4 * sizes.d_hidden) + 8 * (4 * steps**2 + 6 * sizes.k * sizes.d_in)


def widening(d_in: int) -> float:
    """Return how many times as many steps a wide spectrum without a gap takes."""
    return float(max(d_in / 512, 1) ** 0.25)


def usual_steps(k: int, d_in: int) -> int:
    """Return the basis size that is nearly always enough for k pairs."""
    return max(int(FEW_STEPS * widening(d_in)), 6 * k)


def most_steps(k: int, d_in: int) -> int:
    """Return the basis size at which the iteration gives up."""
    return LATER * usual_steps(k, d_in)


def batched_product(left: Tensor, right: Tensor, weights: Tensor) -> Product:
    """Return v ↦ ½[Lᵀ(s∘Rv) + Rᵀ(s∘Lv)] for a batch of forms, with (num, hidden) weights."""
    halves = weights / 2

    def product(rows: Tensor, vectors: Tensor) -> Tensor:
        mine = halves if len(rows) == len(halves) else halves[rows]
        different = vectors[:1] if vectors.stride(0) == 0 else vectors  # at first all are one
        result = (different @ right.T * mine) @ left
        return result.addmm_(different @ left.T * mine, right)

    return product


def first_vector(d_in: int, seed: int) -> Tensor:
    vector = torch.randn(d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit: Tensor = vector / vector.norm()
    return unit


@torch.no_grad()
def refine(forms: BalancedForms, vectors: Tensor, squared: Tensor) -> RefinedPairs:
    """Return the Rayleigh–Ritz pairs of the space of some vectors, (num, k, in), in float64."""
    # A Rayleigh quotient errs by the square of its vector's error, so that vectors from float32
    # give eigenvalues to nearly all digits of float64. Vectors that are not finite give NaN.
    broken = ~vectors.isfinite().all(dim=(1, 2))
    vectors = torch.where(broken[:, None, None], 0.0, vectors)
    basis = torch.linalg.qr(vectors.double().mT).Q.mT
    products = forms.products(basis)
    small = products @ basis.mT
    values, columns = torch.linalg.eigh((small + small.mT) / 2)
    vectors, products = columns.mT @ basis, columns.mT @ products
    residuals = (products - values[..., None] * vectors).norm(dim=-1)
    order = by_size_and_sign(values)
    vectors = with_sign(vectors.gather(1, order[..., None].expand_as(vectors)))
    values, residuals = values.gather(1, order), residuals.gather(1, order)
    for part in (values, vectors, residuals):
        part[broken] = torch.nan
    return RefinedPairs(values, vectors, residuals, rounding_bound(forms, squared))


def record(
    task: EigenTask,
    rows: Tensor,
    pairs: RefinedPairs,
    norms: tuple[Tensor, Tensor],
    allowed: Tensor,
    rivals: Tensor,
) -> EigenDecomposition:
    """Return pairs in balanced units as a decomposition; `norms` are ‖Q_c‖_F² and their error."""
    forms, which = task.problem.forms.rows(rows), task.which
    by_norm, squared = proven_and_norm(task, forms, pairs, norms)
    by_rank = proven_by_rank(pairs, forms, which)
    converged = pairs.residuals <= allowed[:, None]
    missed = zeros_missed(pairs, forms, which)
    status, proof = [], []
    each = zip(converged.all(dim=1), missed, by_norm, by_rank, strict=True)
    for good, short, norm_does, rank_does in each:
        failed = Status.RESIDUAL_TOO_LARGE if not good else Status.MISSED if short else None
        found = Proof.NORM if norm_does else Proof.RANK if rank_does else Proof.NONE
        status.append(failed or Status.OK)
        proof.append(Proof.NONE if failed else found)
    labels, sizes = partial_clusters(pairs.values, rivals, cluster_limit(pairs))
    share = pairs.values.square().sum(dim=1) / torch.where(squared > 0, squared, 1.0)
    units = forms.units
    return EigenDecomposition(
        eigenvalues=pairs.values * units[:, None],
        eigenvectors=pairs.vectors,
        residuals=pairs.residuals * units[:, None],
        converged=converged,
        norm=squared.sqrt() * units,
        explained=torch.where(squared > 0, share, 1.0),
        complete=converged.new_tensor([sure is not Proof.NONE for sure in proof]),
        rounding_bound=in_units(pairs.rounding_bound + pairs.residuals.amax(dim=1), forms),
        cluster=labels,
        cluster_size=sizes,
        linear=task.problem.linear[rows],
        constant=task.problem.constant[rows],
        method=LanczosSolver.name,
        which=which,
        basis=task.problem.basis,
        status=tuple(status),
        proof=tuple(proof),
    )


def proven_and_norm(
    task: EigenTask, forms: BalancedForms, pairs: RefinedPairs, norms: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return which forms ‖Q‖² proves complete, and ‖Q‖², again in float64 where that may decide."""
    (squared, error), which = norms, task.which
    worst = worst_rounding(forms) + skew(pairs)
    proven = proven_by_norm(pairs, squared, error, which, worst)
    if task.precision == "float64":
        return proven, squared
    at_best = proven_by_norm(pairs, squared - error, torch.zeros_like(error), which, worst)
    left_open = (at_best & ~proven).nonzero()[:, 0]
    if len(left_open) > 0:
        squared, error = squared.clone(), error.clone()
        squared[left_open], error[left_open] = norms_with_error(forms.rows(left_open))
        proven = proven_by_norm(pairs, squared, error, which, worst)
    return proven, squared


def cluster_limit(pairs: RefinedPairs) -> Tensor:
    """Return how close two eigenvalues must be for their vectors to mean nothing alone, (num,)."""
    largest = pairs.values.abs().amax(dim=1)
    rough = pairs.rounding_bound + pairs.residuals.amax(dim=1)
    return torch.maximum(CLUSTER_TOLERANCE * largest, rough)
