"""The record of a CP decomposition: components, how well they fit, whether they are unique."""

import math
from dataclasses import dataclass
from itertools import combinations, islice

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.target import Factors, Model
from bilens.algebra.gram.kernel import unit_rows
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

TOLERANCE = 1e-8  # smallest singular value of unit vectors that still counts as independent
MAX_SUBSETS = 20_000
CHUNK = 1_000


@dataclass(frozen=True)
class KruskalRank:
    """The largest k such that any k of the vectors are linearly independent."""

    value: int  # k, or a proven lower bound of it
    exact: bool  # False if `value` is only a lower bound


def kruskal_rank(rows: Tensor) -> KruskalRank:
    """Return the Kruskal rank of the rows of a matrix, (num, in)."""
    # Math: if all rows are independent, k is their number. Otherwise subsets are tried by growing
    # size, up to 20,000 in all; past that k ≥ ⌈1/μ⌉ with μ the largest |cosine| (any k rows with (k
    # − 1) μ < 1 are independent, by Gershgorin's circles).
    # Source: J. B. Kruskal, 1977, Linear Algebra Appl. 18; bound: D. L. Donoho, M. Elad, 2003, PNAS
    # 100.
    unit, lengths = unit_rows(rows.detach().double())
    num = len(unit)
    if not bool((lengths > 0).all()):
        return KruskalRank(0, exact=True)
    rank = int((torch.linalg.svdvals(unit) > TOLERANCE).sum())
    if rank == num:
        return KruskalRank(num, exact=True)
    if unit.shape[1] > num:  # an orthogonal change of basis keeps singular values
        unit = torch.linalg.qr(unit.T, mode="r").R.T
    left = MAX_SUBSETS
    for size in range(2, rank + 1):
        left -= math.comb(num, size)
        if left < 0:
            return KruskalRank(max(size - 1, coherence_bound(unit)), exact=False)
        if not all_independent(unit, size):
            return KruskalRank(size - 1, exact=True)
    return KruskalRank(rank, exact=True)


def all_independent(unit: Tensor, size: int) -> bool:
    """Return whether all subsets of `size` rows are independent; a chunk of them at a time."""
    subsets = combinations(range(len(unit)), size)
    while chunk := list(islice(subsets, CHUNK)):
        smallest = torch.linalg.svdvals(unit[torch.tensor(chunk)])[:, -1]
        if not bool((smallest > TOLERANCE).all()):
            return False
    return True


def coherence_bound(unit: Tensor) -> int:
    """Return ⌈1/μ⌉, μ the largest |cosine| of two unit rows: any so many are independent."""
    cosines = (unit @ unit.T).abs().fill_diagonal_(0.0)
    largest = float(cosines.max())
    return len(unit) if largest == 0 else min(len(unit), math.ceil((1 - TOLERANCE) / largest))


@dataclass(frozen=True)
class Uniqueness:
    """Whether the components of a fitted function Σ_a p_a ⊗ sym(l_a r_aᵀ) are proven unique."""

    unique: bool | None  # True or False if proven (numerically, see `tolerance`), None if not
    reason: str  # the condition that decided, or that failed
    down: KruskalRank  # Kruskal ranks of the factors
    left: KruskalRank  # Kruskal ranks of the factors
    right: KruskalRank  # Kruskal ranks of the factors
    # k_P + k_L + k_R ≥ 2·rank + 2. Proves uniqueness of the *ordered* tensor Σ p ⊗ l ⊗ r, which is
    # the function only in the model "symmetric". None if a rank is a lower bound that does not
    # reach it
    kruskal: bool | None
    # the smallest singular value of unit vectors that counts as independent
    tolerance: float = TOLERANCE


def check_uniqueness(factors: Factors, model: Model) -> Uniqueness:
    """Return whether a CP decomposition is unique, as far as Kruskal ranks of its factors prove."""
    # Math: "symmetric": Kruskal's condition. "pairs": the l_a and r_a are 2·rank independent
    # vectors A, and no two p_a are parallel. Then Q_u Q_w⁺ = A diag((u·p_a)/(w·p_a)) A⁺ has one
    # eigenspace span(l_a, r_a) for each a, and a product of two linear forms factors in one way.
    # Parallel p_a ∥ p_b disprove: the sum of their two matrices can be split in others.
    # Source: J. B. Kruskal, 1977, Linear Algebra Appl. 18; for pairs, as terms of rank (2, 2, 1):
    # L. De Lathauwer, 2008, SIAM J. Matrix Anal. Appl. 30, part II, theorem 4.1.
    down, left, right = factors
    ranks = (
        kruskal_rank(down.T),
        kruskal_rank(left),
        kruskal_rank(left if model == "symmetric" else right),
    )
    num = len(left)
    enough = sum(rank.value for rank in ranks) >= 2 * num + 2
    decided = enough or all(rank.exact for rank in ranks)
    unique, reason = _decide(factors, model, ranks, enough)
    kruskal = enough if decided else None
    return Uniqueness(unique, reason, ranks[0], ranks[1], ranks[2], kruskal=kruskal)


def _decide(
    factors: Factors, model: Model, ranks: tuple[KruskalRank, ...], kruskal: bool
) -> tuple[bool | None, str]:
    if any(rank.value == 0 for rank in ranks):
        return False, "a component is zero"
    if len(factors.left) == 1:
        return True, "a single component"
    if ranks[0].value == 1 and not ranks[0].exact:
        return None, "that no two output columns are parallel is not shown"
    if ranks[0].value == 1:
        return False, "two components write to parallel outputs: their sum can be split otherwise"
    if model == "symmetric":
        if kruskal:
            return True, "k_down + 2 k_left ≥ 2 rank + 2 (Kruskal)"
        return None, "k_down + 2 k_left ≥ 2 rank + 2 (Kruskal) is not shown"
    rows, _ = unit_rows(torch.cat([factors.left, factors.right]))
    if len(rows) <= rows.shape[1] and float(torch.linalg.svdvals(rows)[-1]) > TOLERANCE:
        return True, "left and right rows are independent, and no two output columns parallel"
    return None, "the left and right rows together are dependent, or more than the inputs"


@dataclass(frozen=True)
class Start:
    kind: str  # "neurons" for the strongest hidden units, "random" for random rows
    fit: float  # 1 − ‖B − B̂‖²/‖B‖²; NaN if it failed
    sweeps: int  # sweeps over the factors, or iterations
    converged: bool  # the last one lowered the squared error by less than the tolerance
    # components grew and cancelled each other, so that the fit went on with a penalty on their
    # sizes
    degenerate: bool
    failure: str = ""  # why there is no fit; empty if there is one


@frozen_result(
    "rank", "fit", "relative_error", "unique", "degenerate", "converged", "method", "basis"
)
class CPDecomposition:
    """B ≈ B̂ = Σ_a down_a ⊗ sym(left_a right_aᵀ), components by falling size; float64.

    f(x) ≈ Σ_a down_a (left_a·x)(right_a·x) + linear x + constant.

    Attributes:
        down: (out, rank); carries the sizes and signs.
        left: (rank, in), unit rows, largest entry positive.
        right: (rank, in), unit rows, largest entry positive; equal to `left` in the model
            "symmetric". sym(l rᵀ) = sym(r lᵀ): left is the one that first has a larger entry.
        linear: (out, in), of the map; None is zero.
        constant: (out,), of the map; None is zero.
        fit: 1 − ‖B − B̂‖²/‖B‖², with B and B̂ symmetric in the two inputs. (TensorLy and others
            report 1 − ‖B − B̂‖/‖B‖, which is 1 − `relative_error`.)
        relative_error: ‖B − B̂‖/‖B‖.
        resolution: the order of what rounding may have added to or taken from `relative_error`.
        cancellation: Σ_a ‖component_a‖²/‖B‖²; far above 1 where components cancel each other.
        ridge: the weight of the penalty on that sum in the fit that was kept.
        uniqueness: whether these components are the only ones of their sum.
        starts: how each start ended, in order.
        best: which of the starts was kept.
        losses: squared relative error with the penalty, at the start and after each sweep.
        model: "pairs" or "symmetric".
        method: "als" or "gradient".
        basis: the name of the basis that inputs are written in.
    """

    down: Tensor
    left: Tensor
    right: Tensor
    linear: Tensor | None
    constant: Tensor | None
    fit: float
    relative_error: float
    resolution: float
    cancellation: float
    ridge: float
    uniqueness: Uniqueness
    starts: tuple[Start, ...]
    best: int
    losses: tuple[float, ...]
    model: Model
    method: str
    basis: str = "input"

    to_frame = frame("sizes", "component", without=("constant", "starts", "losses"))

    @property
    def device(self) -> torch.device:
        """The device of the components."""
        return self.down.device

    @property
    def rank(self) -> int:
        """The number of components."""
        return len(self.left)

    @property
    def converged(self) -> bool:
        """The start that was kept converged."""
        return self.starts[self.best].converged

    @property
    def sweeps(self) -> int:
        """The number of sweeps of the start that was kept."""
        return self.starts[self.best].sweeps

    @property
    def degenerate(self) -> bool:
        """The components that were kept grew and cancelled each other."""
        return self.starts[self.best].degenerate

    @property
    def unique(self) -> bool | None:
        """Whether the components are the only ones of their sum; None if not proven."""
        return self.uniqueness.unique

    @property
    def sizes(self) -> Tensor:
        """‖component_a‖ = ‖down_a‖ ‖sym(left_a right_aᵀ)‖, (rank,), falling."""
        overlap = (self.left * self.right).sum(dim=1)
        sizes: Tensor = self.down.norm(dim=0) * ((1 + overlap.square()) / 2).sqrt()
        return sizes

    def quadratic_map(self) -> QuadraticMap:
        """Return B̂ as a map, with the linear and constant terms of the original."""
        tensor = BilinearTensor(self.down, self.left, self.right)
        return QuadraticMap(tensor, self.linear, self.constant, self.basis)

    def eigenpairs(self) -> tuple[Tensor, Tensor]:
        """Return the two eigenpairs of each sym(left_a right_aᵀ), (rank, 2) and (rank, 2, in).

        Math: for unit l and r, sym(l rᵀ) = ¼[(l+r)(l+r)ᵀ − (l−r)(l−r)ᵀ], so the eigenvalues are
            ½(l·r ± 1) with eigenvectors (l ± r)/‖l ± r‖. An eigenvalue 0, where l = ±r, has the
            zero vector. Values are per unit of `down`.
        Cost: O(rank · in).
        """
        plus, minus = self.left + self.right, self.left - self.right
        both = torch.stack([plus, minus], dim=1)
        lengths = both.norm(dim=2)
        signs = both.new_tensor([0.25, -0.25])  # ½(l·r ± 1) = ±¼‖l ± r‖², without cancellation
        vectors = both / torch.where(lengths > 0, lengths, 1.0)[..., None]
        return signs * lengths.square(), vectors
