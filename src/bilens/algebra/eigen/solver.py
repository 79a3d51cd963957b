"""The balanced forms that eigensolvers take, which cannot overflow, and the solvers' protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, stack
from bilens.algebra.eigen.ranking import Which
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.memory import MemoryEstimate

BLOCK_BYTES = 64 * 2**20  # rows of the factors that are converted at a time
EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class BalancedForms:
    """Q_c = units_c · Σ_h weights_ch sym(left_h right_hᵀ): forms that share their factors."""

    # Rows and units are scaled by powers of two, so that the scaling itself rounds nothing. The
    # same for every way (α l, β r, s / αβ) of writing a neuron, up to a factor of two a row.

    left: Tensor  # (hidden, in), rows of length ½ to 1 or zero, in the dtype of the map
    right: Tensor
    weights: Tensor  # (num, hidden) float64; the largest |weight| of a form lies from ½ to 1
    units: Tensor  # (num,) powers of two; infinite if Q itself cannot be written in float64
    # (num,), at least Σ|weights_ch| ≥ ‖Q_c‖/unit_c, counted before anything cancelled: how large
    # the rounding of Q_c is, in units of eps
    sizes_before_cancelling: Tensor
    summed: int = 0  # how many products were summed to each weight

    @property
    def d_in(self) -> int:
        return self.left.shape[1]

    def rows(self, chosen: Tensor | slice) -> BalancedForms:
        return replace(
            self,
            weights=self.weights[chosen],
            units=self.units[chosen],
            sizes_before_cancelling=self.sizes_before_cancelling[chosen],
        )

    def to(self, dtype: torch.dtype) -> BalancedForms:
        return replace(self, left=self.left.to(dtype), right=self.right.to(dtype))

    def form_at(self, index: int) -> BalancedForms:
        return self.rows(slice(index, index + 1))

    def dense(self, index: int) -> Tensor:
        """Return Q_c / unit_c of one form, (in, in) float64, in 2 · hidden · in² operations."""
        half = self.left.new_zeros(self.d_in, self.d_in, dtype=torch.float64)
        block = max(BLOCK_BYTES // (24 * self.d_in), 1)
        for start in range(0, len(self.left), block):
            rows = slice(start, start + block)
            left = self.left[rows].double() * self.weights[index, rows, None]
            half.addmm_(left.T, self.right[rows].double())
        return half.add(half.T).div_(2)

    def products(self, vectors: Tensor) -> Tensor:
        """Return Q_c v / unit_c in float64, (num, k, in) → (num, k, in): 8 · hidden · in each."""
        num, k, d_in = vectors.shape
        flat = vectors.reshape(num * k, d_in).double()
        result = torch.zeros_like(flat)
        block = max(BLOCK_BYTES // (16 * (d_in + num * k)), 1)
        for start in range(0, len(self.left), block):
            rows = slice(start, start + block)
            left, right = self.left[rows].double(), self.right[rows].double()
            weights = self.weights[:, rows].repeat_interleave(k, dim=0) / 2
            result.addmm_((flat @ right.T).mul_(weights), left)
            result.addmm_((flat @ left.T).mul_(weights), right)
        return result.view(num, k, d_in)


def balance_all(
    left: Tensor, right: Tensor, weights: Tensor, before: Tensor | None = None, summed: int = 0
) -> BalancedForms:
    """Return forms with shared factors in a scale of their own, O(hidden · (in + num))."""
    # `before` is (num, hidden), the sizes of what was summed to the weights; None for |weights|.
    left, left_exponent = halved_rows(left)
    right, right_exponent = halved_rows(right)
    alive = left.any(dim=1) & right.any(dim=1)  # a row of zeros has no size: its weight is nothing
    mantissa, exponent = torch.frexp(torch.where(alive, weights, 0.0))
    exponent += left_exponent + right_exponent  # the product itself may overflow
    lowest = torch.iinfo(exponent.dtype).min
    largest = exponent.masked_fill(mantissa == 0, lowest).amax(dim=1)
    largest = torch.where(largest > lowest, largest, 0).double()
    shift = exponent.double().sub_(largest[:, None]).clamp_(max=0.0)  # above 0 only for zeros
    scaled = shift.exp2_().mul_(mantissa)
    sizes = scaled.abs().sum(dim=1)
    if before is not None:
        mantissa, exponent = torch.frexp(torch.where(alive, before, 0.0))
        shift = exponent.double() + (left_exponent + right_exponent) - largest[:, None]
        parts = torch.where(mantissa == 0, 0.0, mantissa * shift.exp2_())  # 0 · inf is nothing
        sizes = sizes.maximum(parts.nan_to_num(torch.inf, posinf=torch.inf).sum(dim=1))
    return BalancedForms(left, right, scaled, torch.exp2(largest), sizes, summed)


def halved_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows times a power of two, of length between ½ and 1, and the exponents they had."""
    entry = torch.frexp(torch.linalg.vector_norm(rows, torch.inf, dim=1)).exponent
    # Two steps: 2^-entry alone may overflow where the row does not.
    half = torch.div(entry, 2, rounding_mode="floor")
    rows = torch.ldexp(rows, -half[:, None]).ldexp_(-(entry - half)[:, None])
    length = torch.frexp(rows.norm(dim=1)).exponent  # of entries up to 1: it cannot overflow
    return rows.ldexp_(-length[:, None]), entry + length


@dataclass(frozen=True, eq=False)
class OtherTerms:
    linear: Tensor
    constant: Tensor
    basis: str


@dataclass(frozen=True, eq=False)
class Problem:
    """Forms to take apart, with their other terms."""

    forms: BalancedForms  # of weight zero where one is not usable
    linear: Tensor  # (num, in) float64
    constant: Tensor  # (num,) float64
    # (num,) bool; False where an entry of the direction, or its product with the factors, is not
    # finite
    usable: Tensor
    basis: str

    def terms(self, index: int) -> OtherTerms:
        return OtherTerms(self.linear[index], self.constant[index], self.basis)


def problem_of_form(form: QuadraticForm) -> Problem:
    form = form.detach()
    matrix, weights = form.matrix, form.matrix.weight.double()[None]
    return Problem(
        balance_all(widened(matrix.left), widened(matrix.right), weights),
        form.linear.double()[None],
        form.constant.double()[None],
        torch.ones(1, dtype=torch.bool, device=matrix.left.device),
        form.basis,
    )


def problem_of_map(
    f: QuadraticMap, directions: Tensor | None = None, chosen: slice = EVERY
) -> Problem:
    """Return the forms of a map along (num, out) directions; some may be unusable."""
    # None reads every output as it is, without an (out, out) array.
    f = f.detach()
    rows = None if directions is None else directions[chosen].detach().to(f.device).double()

    def along_directions(part: Tensor) -> Tensor:
        return part[chosen].double() if rows is None else rows @ part.double()

    weights = along_directions(f.tensor.down)
    zero = weights.new_zeros(())
    linear, constant = zero.expand(len(weights), f.sizes.d_in), zero.expand(len(weights))
    if f.linear is not None:
        linear = along_directions(f.linear)
    if f.constant is not None:
        constant = along_directions(f.constant)
    usable = weights.isfinite().all(dim=1) & linear.isfinite().all(dim=1) & constant.isfinite()
    weights, before, summed = torch.where(usable[:, None], weights, zero), None, 0
    if rows is not None:  # Σ_c |direction_c| |down_ch|
        before = torch.where(usable[:, None], rows.abs() @ f.tensor.down.double().abs(), zero)
        summed = f.sizes.d_out
    return Problem(
        balance_all(widened(f.tensor.left), widened(f.tensor.right), weights, before, summed),
        torch.where(usable[:, None], linear, zero),
        torch.where(usable, constant, zero),
        usable,
        f.basis,
    )


def widened(factor: Tensor) -> Tensor:
    """Return a factor in its own dtype if a solver can work in it, else in float32, exactly."""
    return factor if factor.dtype in (torch.float32, torch.float64) else factor.float()


Method = Literal["auto", "dense", "lanczos", "factored"]
Solver = Literal["dense", "lanczos", "factored"]
Precision = Literal["float32", "float64"]
OneForm = Callable[[int, int, Which], EigenDecomposition]  # of form, k, which

OBJECT_BYTES = 10_000  # the tensors of one record beside their entries
CONVERSION_BYTES = 2**27  # blocks of the factors in float64, and the products with them, at most
# Operations are those of a large float64 product; 1e8 take a millisecond on two cores.
EIGH = 20.0  # · n³, a dense eigensolver with vectors


@dataclass(frozen=True)
class Sizes:
    num: int
    d_hidden: int
    d_in: int
    k: int
    factor_bytes: int  # of an entry of the factors as they came

    @property
    def result_bytes(self) -> int:
        """The memory of what comes out: in parts and, while it is put together, as a whole."""
        return self.num * (8 * 2 * (self.k + 1) * (self.d_in + 8) + OBJECT_BYTES)

    @property
    def problem_bytes(self) -> int:
        """The memory of one form as it goes in: weights, seven times over, and linear term."""
        return 8 * (self.d_in + 7 * self.d_hidden)

    @property
    def conversion_bytes(self) -> int:
        return min(CONVERSION_BYTES, 48 * self.d_hidden * (self.d_in + max(self.k, 8)))

    def portion(self, room: int) -> int:
        return int(max(min(room // self.problem_bytes, self.num), 1))


@dataclass(frozen=True)
class SolverCost:
    work: float  # multiplications and additions in float64, or what takes as long
    memory: MemoryEstimate  # beside the map: in any case, and for each form taken in
    batch: int  # forms worked on at a time
    portion: int  # forms taken in at a time, a multiple of which goes through all

    @property
    def peak_bytes(self) -> int:
        return self.memory.fixed + self.portion * self.memory.each


@dataclass(frozen=True, eq=False)
class EigenTask:
    problem: Problem
    k: int
    which: Which
    precision: Precision
    batch: int
    seed: int


class EigenSolver(Protocol):
    """One way to find eigenpairs; `plan.SOLVERS` lists them."""

    name: ClassVar[Solver]

    def suits(self, sizes: Sizes, /) -> bool:
        """Tell whether there may be something to gain."""

    def cost(self, sizes: Sizes, precision: Precision, allowed: int, /) -> SolverCost:
        """Return the work and memory of this solver where `allowed` bytes may be taken."""

    def solve(self, task: EigenTask, rows: Tensor) -> Iterator[tuple[Tensor, EigenDecomposition]]:
        """Yield positions among all forms and their decompositions, until `rows` are done."""


class WholeSpectrumSolver(EigenSolver, Protocol):
    """A solver that finds all eigenvalues of one form after the other."""

    def workspace(self, sizes: Sizes) -> int:
        """Return the bytes that one form takes beside what goes in and comes out."""

    def prepared(self, problem: Problem) -> OneForm:
        """Return the function that decomposes one form, after the work that all forms share."""

    def solve(self, task: EigenTask, rows: Tensor) -> Iterator[tuple[Tensor, EigenDecomposition]]:
        one = self.prepared(task.problem)
        for index in rows.tolist():
            yield rows.new_tensor([index]), stack([one(index, task.k, task.which)])
