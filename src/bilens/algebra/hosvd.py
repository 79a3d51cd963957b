"""The higher-order singular value decomposition (HOSVD) of a quadratic map, from its factors."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.eigen.ranking import with_sign
from bilens.algebra.gram.inner_products import no_negative, squared_norms
from bilens.algebra.gram.kernel import block_bytes
from bilens.algebra.mode_spectrum import (
    BlockedTensor,
    InputMode,
    ModeSpectrum,
    OutputMode,
    mode_spectrum,
)
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_type
from bilens.base.errors import UsageError
from bilens.base.frame import frame
from bilens.base.memory import check_memory, memory_limit as allowed_memory
from bilens.base.notebook import frozen_result

TINY = 1e-300  # keeps 0 / 0 from a division
ARRAYS = 8  # (n, n) float64 arrays alive at once: found, left over, the Gram matrix, its vectors
STAGES = 3  # (hidden, n) float64 arrays alive at once while slices are combined


@frozen_result("rank", "singular_values", "output_directions")
class HOSVD:
    """B = Σ_i u_i ⊗ Q_{u_i}: output directions in the order of how much of the tensor they carry.

    The quadratic part alone is decomposed. Q_{u_i} are orthogonal to each other, ‖Q_{u_i}‖_F =
    σ_i, and the k leading ones are the best approximation of B by k output directions. Where
    singular values share a `cluster`, only the space of their directions is defined.

    Attributes:
        f: the map, in float64 and cut from the graph of gradients.
        rank: how many singular values of each mode were asked for; None for all.
        output: singular values and directions along the outputs.
        limit_bytes: what the parts that are computed when they are read may take, too.
    """

    f: QuadraticMap
    rank: int | None
    output: ModeSpectrum
    limit_bytes: int
    to_frame = frame("singular_values", "direction")

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.f.device

    @cached_property
    def input(self) -> ModeSpectrum:
        """Singular values and directions along the inputs, shared by all outputs.

        Cost: when it is first read, as `hosvd` with (in, in) arrays: O(hidden² · (in + out) + in³).
        Raises: MemoryLimitError if that needs more memory than was allowed.
        """
        check_mode_memory(self.f.sizes, "in", 1, self.limit_bytes)
        tensor = self.f.tensor
        factors = BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right)
        return mode_spectrum(InputMode(factors), self.rank)

    @property
    def singular_values(self) -> Tensor:
        """Singular values along the outputs, (k,), falling."""
        return self.output.singular_values

    @property
    def output_directions(self) -> Tensor:
        """Singular directions along the outputs, (k, out), orthonormal rows."""
        return self.output.directions

    @property
    def input_directions(self) -> Tensor:
        """Singular directions along the inputs, (k, in), orthonormal rows; see `input`."""
        return self.input.directions

    @property
    def frobenius_squared(self) -> Tensor:
        """‖B‖_F², a float64 scalar."""
        return self.output.tail_squared(0)

    def form(self, index: int) -> QuadraticForm:
        """Return u·f along singular direction `index`, with linear terms and ‖Q‖_F = σ.

        Raises: UsageError if there is no such direction.
        """
        if check_count("index", index, minimum=0) >= len(self.output_directions):
            raise UsageError(
                f"index={index}, but only {len(self.output_directions)} singular directions were "
                "kept: call hosvd with a larger rank."
            )
        return self.f.form(self.output_directions[index])

    @property
    def forms(self) -> tuple[QuadraticForm, ...]:
        """The forms along all singular directions."""
        return tuple(self.form(index) for index in range(len(self.output_directions)))

    def core(self, output_rank: int, input_rank: int) -> Tensor:
        """Return B in leading singular directions, (output_rank, input_rank, input_rank).

        Cost: O(output_rank · hidden · input_rank² + hidden · in · input_rank).
        Raises: UsageError if a rank is not between 1 and the number of directions kept.
        """
        rows = leading("output_rank", output_rank, self.output_directions)
        columns = leading("input_rank", input_rank, self.input_directions)
        tensor = self.f.tensor
        left, right = tensor.left @ columns.T, tensor.right @ columns.T
        return BilinearTensor(rows @ tensor.down, left, right).dense()

    def truncate(
        self, output_rank: int | None = None, input_rank: int | None = None
    ) -> QuadraticMap:
        """Return the map whose quadratic part keeps leading directions of each mode (Tucker).

        A rank of None keeps the whole mode.

        Math: B' = B ×₁ UᵀU ×₂ VᵀV ×₃ VᵀV, U and V the leading directions: the same hidden units,
            with down ← UᵀU down, left ← left VᵀV, right ← right VᵀV.
            The linear and constant terms stay as they are, for all outputs and inputs: f − f' is
            purely quadratic, and ‖f(x) − f'(x)‖ at most ‖B − B'‖_F ‖x‖².
        Cost: O(hidden · (out · output_rank + in · input_rank)).
        Raises: UsageError if a rank is not between 1 and the number of directions kept.
        """
        down, left, right = self.f.tensor.down, self.f.tensor.left, self.f.tensor.right
        if output_rank is not None:
            rows = leading("output_rank", output_rank, self.output_directions)
            down = rows.T @ (rows @ down)
        if input_rank is not None:
            columns = leading("input_rank", input_rank, self.input_directions)
            left, right = (left @ columns.T) @ columns, (right @ columns.T) @ columns
        return replace(self.f, tensor=BilinearTensor(down, left, right))

    def truncation_error(
        self, output_rank: int | None = None, input_rank: int | None = None
    ) -> TuckerError:
        """Return ‖B − B'‖_F of `truncate` with the same arguments, from the factors.

        Math: with Π = UᵀU and V⊥ spanning what V leaves out, the parts of B − B' are orthogonal:
            ‖B − B'‖² = Σ_{i > output_rank} σ_i² + 2 ‖ΠB ×₂ V⊥‖² − ‖ΠB ×₂ V⊥ ×₃ V⊥‖².
            The last term is at most half of the one before it: nothing cancels.
        Cost: O(hidden² · (in + out) + in³) time; O(out) where `input_rank` is None.
        Raises: as `truncate`; MemoryLimitError if (in, in) arrays need more memory than allowed.
        Source: De Lathauwer, De Moor, Vandewalle, A multilinear singular value decomposition,
            SIAM J. Matrix Anal. Appl. 21, 2000, property 10 (the bound).
        """
        down, left, right = self.f.tensor.down, self.f.tensor.left, self.f.tensor.right
        squared = bound = noise = self.frobenius_squared.new_zeros(())
        if output_rank is not None:
            rows = leading("output_rank", output_rank, self.output_directions)
            squared = bound = self.output.tail_squared(output_rank)
            down = rows @ down
        if input_rank is not None:
            columns = leading("input_rank", input_rank, self.input_directions)
            check_mode_memory(self.f.sizes, "in", 1, self.limit_bytes)
            outside, noise = squared_outside(BlockedTensor.from_parts(down, left, right), columns)
            squared = squared + outside
            bound = bound + 2 * self.input.tail_squared(input_rank)
        exact = squared.sqrt()
        rounding = self.output.rounding.max() + noise / (2 * exact).clamp(min=TINY + noise.sqrt())
        return TuckerError(exact, bound.sqrt(), rounding)


def hosvd(
    f: QuadraticMap, rank: int | None = None, *, memory_limit: int | str | None = None
) -> HOSVD:
    """Return the higher-order singular value decomposition of the quadratic part of a map.

    Math: B flattened to (out, in²) is Σ_i σ_i u_i vec(Q_{u_i} / σ_i)ᵀ: σ_i² are the eigenvalues of
        down H downᵀ (see docs/math.md), without the array. Flattened along an input axis, the
        same with Σ_c Q_c².
    Cost: O(hidden² · (in + out) + out³) time for the outputs, hidden³ in the place of out³ where
        `rank` ≤ hidden < out; the inputs follow when `input` is first read. Memory beside the map:
        a float64 copy of the factors (none if they are float64), one more where units cancel each
        other, eight (out, out) arrays, a few (hidden, in) or (hidden, out) ones, and at most
        128 MiB or 8 % of the factors. All directions of the outputs, or of the span of `down`, are
        computed, whatever `rank` is. Several times that where the singular values span several
        orders of magnitude; O(out · hidden · in²) in the worst case.
    Accuracy: values above 10⁻⁶ of the largest agree with those of a dense SVD to 10⁻⁶ of
        themselves; `rounding` says how much better each one is, by an estimate.

    Args:
        f: the map, any floating dtype; linear and constant terms take no part, and are kept.
        rank: how many singular values and directions of each mode to keep; None for all. A mode
            that is shorter gives all of its own.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Raises: UsageError if f is not a map, or rank no integer of at least 1; NonFiniteError if
        products of the factors overflow; MemoryLimitError, before anything is begun, if that needs
        more memory than allowed.
    Source: arXiv:2410.08417, §3.3 and App. D (SVD of the flattened tensor).
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    if rank is not None:
        rank = check_count("rank", rank, minimum=1)
    limit = allowed_memory(memory_limit, f.device)
    check_mode_memory(f.sizes, "out", 1 if f.dtype == torch.float64 else 2, limit)
    f = f.detach().to(torch.float64)
    factors = BlockedTensor.from_parts(f.tensor.down, f.tensor.left, f.tensor.right)
    if f.sizes.d_out <= f.sizes.d_hidden or rank is None or rank > f.sizes.d_hidden:
        return HOSVD(f, rank, mode_spectrum(OutputMode(factors), rank), limit)
    columns, corner = torch.linalg.qr(factors.down)  # all directions lie in their span
    found = mode_spectrum(OutputMode(replace(factors, down=corner)), rank)
    return HOSVD(f, rank, replace(found, directions=with_sign(found.directions @ columns.T)), limit)


def leading(name: str, count: int, directions: Tensor) -> Tensor:
    if check_count(name, count, minimum=1) > len(directions):
        raise UsageError(
            f"{name}={count}, but {len(directions)} singular directions of that mode were kept: "
            "ask for fewer, or call hosvd with a larger rank."
        )
    return directions[:count]


@frozen_result()
class TuckerError:
    exact: Tensor  # ‖B − B'‖_F, a float64 scalar
    # √(Σ σ² of what was left out along the outputs + twice that along the inputs), which needs the
    # singular values alone; never below `exact`, but for rounding
    bound: Tensor
    rounding: Tensor  # estimate of how far `exact` is from its exact value


def squared_outside(factors: BlockedTensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖B − B ×₂ VᵀV ×₃ VᵀV‖² for the rows V of `columns`, and its estimated rounding."""
    complement = torch.linalg.qr(columns.T, mode="complete").Q[:, len(columns) :].T
    if len(complement) == 0:
        return columns.new_zeros(()), columns.new_zeros(())
    one_leg = InputMode(factors).gram(complement).trace()
    left, right = (
        branch @ complement.T for branch in (factors.branches.left, factors.branches.right)
    )
    both_legs = squared_norms(factors.down, left, right).sum()
    rounding = columns.new_tensor(InputMode(factors).gram_rounding(complement))
    unit = factors.branches.unit**2
    return no_negative(2 * one_leg * unit - both_legs), 2 * rounding * unit


def check_mode_memory(
    sizes: FactorSizes, axis: str, copies: int, limit: int | str | None = None
) -> int:
    d_out, d_hidden, d_in = sizes
    num, way_out = (d_out, "compose_output") if axis == "out" else (d_in, "compose_input")
    factors = copies * (d_out + 2 * d_in) * d_hidden
    blocks = block_bytes(d_hidden, 6 * d_in + 6 * num + 2 * d_out)
    stages = STAGES * d_hidden * max(num, d_in)
    return check_memory(
        8 * (factors + stages + ARRAYS * num**2) + blocks,
        f"the HOSVD along {num} {axis}puts of a map of {d_hidden} hidden units, "
        f"with its ({num}, {num}) Gram matrix,",
        f"bring the map to fewer {axis}puts with {way_out}",
        limit,
    )
