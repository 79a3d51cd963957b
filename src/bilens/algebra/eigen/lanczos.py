"""Lanczos' method for many symmetric matrices at once, from products with vectors alone.

Each matrix gets a Krylov basis of its own; the bases grow in step, so that one product of the
shared factors with a tall matrix serves them all. Matrices whose pairs have converged leave.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.ranking import Which, by_size_and_sign, ends

SEGMENT = 16  # basis vectors kept together: few enough to stay in the cache between two reads
FIRST_LOOK = 8  # steps before convergence is looked at
SOON = 0.5  # the share of the matrices that should be done at the next look
TWICE = 0.01  # of ‖Qv‖: what is smaller after Gram–Schmidt goes through it again
LEAVE_SHARE = 0.15  # of the matrices that must be done before the others are moved together
Product = Callable[[Tensor, Tensor], Tensor]  # (rows, vectors) → the products of those matrices


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """The k Ritz pairs of each matrix in its Krylov basis, and the largest values left out."""

    vectors: Tensor  # (num, k, in), orthonormal rows up to rounding in the dtype of the bases
    rivals: Tensor  # (num, 2) float64, the largest and smallest Ritz value left out; NaN for none
    steps: Tensor  # (num,) int64, products spent


@torch.no_grad()
def lanczos(
    product: Product, start: Tensor, tolerance: Tensor, k: int, which: Which, max_steps: int
) -> RitzPairs:
    """Return k Ritz pairs of each matrix, at the ends of the spectrum that `which` names."""
    # A matrix is done when ‖Qv − θv‖ = β|s| of each chosen pair is within its absolute tolerance
    # (num,), and so is that of the best Ritz value left out, if it could still overtake one of
    # them. What the start vector (in,) of unit length does not contain is never seen, nor the
    # second of two equal eigenvalues: that the answer is complete is for others to prove. A basis
    # that reaches `max_steps`, at least k, ends as it is. The work is done in the dtype of the
    # start, with a product a step, O(num · steps² · in) time and O(num · steps · in) memory for the
    # bases.
    num, limit = len(tolerance), min(max_steps, len(start))
    state = Recurrence(product, start, num, limit)
    vectors = start.new_full((num, k, len(start)), torch.nan)
    rivals = tolerance.new_full((num, 2), torch.nan)
    steps = tolerance.new_zeros(num, dtype=torch.int64)
    look, pace = min(max(FIRST_LOOK, k + 2), limit), Pace(tolerance)
    while len(state.rows) > 0:
        state.advance()
        if state.steps < look:
            continue
        chosen = state.choose(k, which)
        allowed = tolerance[state.rows]
        done = (chosen.error <= allowed) | (state.steps == limit)
        if state.steps < limit and float(done.double().mean()) < LEAVE_SHARE:
            done = torch.zeros_like(done)  # a later look will find them done as well
        ready, rest = done.nonzero()[:, 0], (~done).nonzero()[:, 0]
        if len(ready) > 0:
            rows = state.rows[ready]
            vectors[rows] = state.basis.combine(ready, chosen.coefficients[ready])
            rivals[rows] = chosen.rivals[ready]
            steps[rows] = state.steps
            state.keep(rest)
        look = min(pace.next_look(state.steps, rest, chosen.error / allowed), limit)
    return RitzPairs(vectors, rivals, steps)


class KrylovBasis:
    """Orthonormal vectors of each matrix of a batch, in segments."""

    def __init__(self) -> None:
        self.segments: list[Tensor] = []
        self.size = 0

    def append(self, vectors: Tensor) -> None:
        position = self.size % SEGMENT
        if position == 0:
            num, d_in = vectors.shape
            self.segments.append(vectors.new_empty(num, SEGMENT, d_in))
        self.segments[-1][:, position] = vectors
        self.size += 1

    def filled(self) -> list[Tensor]:
        rest = self.size - SEGMENT * (len(self.segments) - 1)
        return [*self.segments[:-1], self.segments[-1][:, :rest]]

    def remove_from(self, vectors: Tensor) -> None:
        """Make each vector orthogonal to its basis, in place: Gram–Schmidt by segments."""
        for segment in self.filled():
            overlap = torch.bmm(segment, vectors[:, :, None])
            vectors.sub_(torch.bmm(overlap.mT, segment)[:, 0])

    def combine(self, rows: Tensor, coefficients: Tensor) -> Tensor:
        """Return combinations of the basis vectors of some matrices, (rows, k, in)."""
        parts = torch.split(coefficients.to(self.segments[0].dtype), SEGMENT, dim=2)
        first, *others = zip(parts, self.filled(), strict=True)
        total = torch.bmm(first[0], first[1][rows])
        for part, segment in others:
            total.baddbmm_(part, segment[rows])
        return total

    def keep(self, rows: Tensor) -> None:
        for position, segment in enumerate(self.segments):  # so that no two whole sets live
            self.segments[position] = segment[rows]


@dataclass(frozen=True, eq=False)
class ChosenPairs:
    """The Ritz pairs at the ends that are asked for, in coordinates of the basis."""

    coefficients: Tensor  # (num, k, steps), orthonormal rows
    rivals: Tensor  # (num, 2), the largest and the smallest Ritz value left out; NaN for none
    error: Tensor  # (num,), largest ‖Qv − θv‖ of the chosen, and of a rival that could overtake one


class Recurrence:
    """The Lanczos recurrences of a batch: bases and tridiagonal matrices, one step at a time."""

    def __init__(self, product: Product, start: Tensor, num: int, max_steps: int) -> None:
        self.product = product
        self.rows = torch.arange(num, device=start.device)
        self.basis = KrylovBasis()
        self.diagonal = start.new_zeros(num, max_steps, dtype=torch.float64)
        self.beside = torch.zeros_like(self.diagonal)
        self.previous = torch.zeros_like(start).expand(num, -1)
        self.next = start.expand(num, -1)

    @property
    def steps(self) -> int:
        return self.basis.size

    def advance(self) -> None:
        """Add one vector to each basis and one row to each tridiagonal matrix."""
        # The two terms of the recurrence come off before the basis does, so that a single pass of
        # Gram–Schmidt leaves an overlap of the size of rounding.
        current, step = self.next, self.steps
        self.basis.append(current)
        new = self.product(self.rows, current)
        size = new.norm(dim=1)
        alpha = (new * current).sum(dim=1)
        new.addcmul_(current, alpha[:, None], value=-1)
        if step > 0:
            new.addcmul_(self.previous, self.beside[:, step - 1, None].to(new.dtype), value=-1)
        self.basis.remove_from(new)
        beta = new.norm(dim=1)
        if bool((beta < TWICE * size).any()):  # what is left may be rounding, not orthogonal
            self.basis.remove_from(new)
            beta = new.norm(dim=1)
        exhausted = beta <= torch.finfo(new.dtype).eps * 4 * size
        if bool(exhausted.any()):
            beta = self._start_again(exhausted, new, beta)
        self.diagonal[:, step], self.beside[:, step] = alpha.double(), beta.double()
        self.previous, self.next = current, new / torch.where(beta > 0, beta, 1.0)[:, None]

    def _start_again(self, exhausted: Tensor, new: Tensor, beta: Tensor) -> Tensor:
        """Leave an invariant space by a fresh direction, coupled to the basis by β = 0."""
        generator = torch.Generator().manual_seed(self.steps)
        fresh = torch.randn(new.shape[1], generator=generator, dtype=torch.float64).to(new)
        replaced = torch.where(exhausted[:, None], fresh, new)
        for _ in range(2):
            self.basis.remove_from(replaced)
        length = replaced.norm(dim=1, keepdim=True)
        full = length <= 1e-3 * fresh.norm()  # nothing is left outside the basis
        replaced = torch.where(full, 0.0, replaced / length)
        new[exhausted] = replaced[exhausted]
        return torch.where(exhausted, 0.0, beta)

    def choose(self, k: int, which: Which) -> ChosenPairs:
        # A rival is left out for good if it has converged itself, or if its whole error interval
        # lies below the chosen ones.
        steps = self.steps
        inner = self.beside[:, : steps - 1]
        tridiagonal = torch.diag_embed(self.diagonal[:, :steps])
        tridiagonal += torch.diag_embed(inner, 1) + torch.diag_embed(inner, -1)
        broken = ~tridiagonal.isfinite().all(dim=(1, 2))  # the solver would refuse all of them
        usable = torch.where(broken[:, None, None], 0.0, tridiagonal).to(self.next.dtype)
        values, columns = (part.double() for part in torch.linalg.eigh(usable))
        errors = self.beside[:, steps - 1, None] * columns[:, -1].abs()
        positions, error = [], torch.where(broken, torch.inf, 0.0).double()
        for score, order, count in scores(values, k, which):
            chosen, rival = order[:, :count], order[:, count : count + 1]
            error = error.maximum(errors.gather(1, chosen).amax(dim=1))
            if rival.shape[1] > 0:
                doubt = errors.gather(1, rival)
                bar = score.gather(1, chosen[:, -1:])
                overtakes = score.gather(1, rival) + doubt > bar
                error = error.maximum(torch.where(overtakes, doubt, 0.0)[:, 0])
            positions.append(chosen)
        position = torch.cat(positions, dim=1)
        coefficients = columns.mT.gather(1, position[:, :, None].expand(-1, -1, steps))
        return ChosenPairs(coefficients, left_out(values, position), error)

    def keep(self, chosen: Tensor) -> None:
        self.rows, self.next, self.previous = (
            part[chosen] for part in (self.rows, self.next, self.previous)
        )
        self.diagonal, self.beside = self.diagonal[chosen], self.beside[chosen]
        self.basis.keep(chosen)


def scores(values: Tensor, k: int, which: Which) -> list[tuple[Tensor, Tensor, int]]:
    """Return, for each end of the spectrum, scores to be large, their order and how many."""
    if which == "magnitude":
        return [(values.abs(), by_size_and_sign(values), k)]
    upper, lower = ends(k, which)
    return [
        (score, score.argsort(dim=1, descending=True, stable=True), count)
        for score, count in ((values, upper), (-values, lower))
        if count > 0
    ]


def left_out(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the largest and smallest of (num, steps) values not chosen, (num, 2); NaN for none."""
    rest = values.scatter(1, chosen, torch.nan).sort(dim=1).values  # NaN comes last
    count = values.shape[1] - chosen.shape[1]
    found = values.new_full((len(values), 2), torch.nan)
    if count > 0:
        found[:, 0] = rest[:, count - 1]
    if count > 1:  # not the same one twice
        found[:, 1] = rest[:, 0]
    return found


class Pace:
    """Guesses when the next matrices will be done, from how the errors fell since the last look."""

    def __init__(self, tolerance: Tensor) -> None:
        self.steps = 0
        self.far = torch.full_like(tolerance, torch.nan)

    def next_look(self, steps: int, rest: Tensor, excess: Tensor) -> int:
        """Return the step at which about half of the rest should be done."""
        # `rest` is which of the matrices of the last look go on, `excess` the error over the
        # tolerance of all.
        if len(rest) == 0:
            return steps
        far = excess.nan_to_num(nan=1.0).clamp(min=1.0, max=1e300).log()  # 0/0: a form of zeros
        fallen = ((self.far - far) / (steps - self.steps))[rest]  # a step; NaN at the first look
        self.steps, self.far = steps, far[rest]
        pace = torch.where(fallen > 0, fallen, 1.0)  # e-fold a step: a hopeful first guess
        ahead = (self.far / pace).quantile(SOON)
        fewest = 2 + steps // 20  # a look costs more where the bases are large
        return steps + int(ahead.clamp(fewest, 2 + steps // 2))
