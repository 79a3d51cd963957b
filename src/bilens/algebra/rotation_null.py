"""The rotation null: what spectra chance gives, and how an observed one compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.directions import check_directions
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import (
    NullEnds,
    corner_of,
    embedding_corner,
    in_one_order,
    null_memory,
    random_frame,
    read_ends,
    solved_width,
)
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, check_type, generator_of
from bilens.base.errors import NumericalError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

CHUNK_BYTES = 256 * 2**20  # more of them together are no faster


@frozen_result("num_samples", "largest", "smallest", "effective_rank", "status")
class RotationNull:
    """Spectra of a map one of whose branches was rotated at random: their null distribution.

    The hypothesis: one of the two branches of the layer is distributed the same in every rotated
    basis, whatever the other one is, as it is where the weights are drawn at random.

    Attributes:
        largest: (samples, directions), the largest eigenvalue (0 if none is positive).
        smallest: (samples, directions), the smallest eigenvalue (0 if none is negative).
        effective_rank: (samples, directions).
        status: one for each direction. Where it is not OK all numbers are NaN: so are its edges,
            and its p-values are 1.
        basis: the name of the basis of the spectra: of the map, or "input" with an embedding.
    """

    largest: Tensor
    smallest: Tensor
    effective_rank: Tensor
    status: tuple[Status, ...]
    basis: str = "input"
    to_frame = frame("effective_rank", "sample", "direction", without=("status",))

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.largest.device

    @property
    def both_ends(self) -> Tensor:
        """How far the spectra reach on either side, (2 · samples, directions)."""
        return torch.cat([self.largest, -self.smallest])

    @property
    def num_samples(self) -> int:
        """Number of random rotations."""
        return len(self.largest)

    def check_usable(self) -> None:
        """Raise NumericalError, with the reason, if a direction has no null distribution."""
        bad = [index for index, one in enumerate(self.status) if one is not Status.OK]
        if bad:
            raise NumericalError(
                f"direction(s) {', '.join(map(str, bad))} have no null distribution: "
                f"{self.status[bad[0]].value}; leave them out, or rescale them or the factors."
            )

    def edges(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the lower and upper edge of the null, (directions,) each: one is minus the other.

        With O also −O is a rotation as likely, and turns every form into its negative. So both ends
        have one distribution, and each sample shows it twice: the upper edge is the order statistic
        2·⌈level·(samples + 1)⌉ of the largest and minus the smallest eigenvalues together. Under
        the hypothesis each end is beyond its edge with probability at most 1 − level. With too few
        samples for the level, the edge is the extreme of the samples and the probability
        1 / (samples + 1).

        Raises: UsageError if the level is not between 0 and 1.
        """
        check_level(level)
        rank = min(math.ceil(level * (self.num_samples + 1) - 1e-9), self.num_samples)
        upper = self.both_ends.sort(dim=0).values[2 * rank - 1]
        return 0 - upper, upper

    def p_values(self, smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """Return one-sided p-values (2 + #{null as extreme}) / (2·samples + 2) for both ends.

        Either end of a sample counts, since −O is as likely as O (`edges`). They are of the
        smallest and largest eigenvalue observed, (directions,) each; NaN, from a form that was not
        decomposed, has the p-value 1.

        Raises: ShapeError if there is not one eigenvalue for each direction.
        """
        return (self._tail("smallest", smallest, lower=True), self._tail("largest", largest))

    def num_significant(self, eigenvalues: Tensor, level: float = 0.95) -> SignificantEigenvalues:
        """Return which eigenvalues are beyond the null: each against the *extreme* of the null.

        A positive eigenvalue has the p-value (2 + #{ends of the null ≥ λ}) / (2·samples + 2), a
        negative one the mirror image. Being against the largest, p-values rise down the spectrum,
        so stepping down from the largest eigenvalue and stopping at the first that is not
        significant gives the same count: under the hypothesis the probability that *any* of a
        direction's positive eigenvalues is declared is at most 1 − level (family-wise), and so
        for the negative ones. Against the k-th of the null, the k-th eigenvalue would have that
        level alone, and many of them together a larger one. What else stands out raises the
        null, whose factors have the same lengths: counts err on the low side then.

        Args:
            eigenvalues: (directions, k) in any order, with the extreme ones among them; the p-value
                of zero, and of NaN from a form that was not decomposed, is 1.
            level: 1 − the probability of declaring anything by chance, for each sign. With fewer
                than 1 / (1 − level) − 1 samples nothing can be declared.

        Raises: ShapeError if there is not one row for each direction; UsageError if the level is
            not between 0 and 1.
        """
        check_level(level)
        expected = (self.largest.shape[1], "k")
        check_shape("eigenvalues", eigenvalues, expected, advice="a row a direction", finite=False)
        upper, lower = (
            tail(one.T, self.both_ends[:, None]).T for one in (eigenvalues, -eigenvalues)
        )
        one = torch.ones_like(upper)
        p_values = torch.where(eigenvalues > 0, upper, torch.where(eigenvalues < 0, lower, one))
        declared = p_values <= 1 - level + 1e-12
        return SignificantEigenvalues(
            positive=(declared & (eigenvalues > 0)).sum(dim=1),
            negative=(declared & (eigenvalues < 0)).sum(dim=1),
            p_values=p_values,
            level=level,
        )

    def _tail(self, name: str, observed: Tensor, lower: bool = False) -> Tensor:
        check_shape(name, observed, self.largest.shape[1:], advice="one a direction", finite=False)
        return tail(-observed if lower else observed, self.both_ends)


@frozen_result()
class SignificantEigenvalues:
    """Eigenvalues beyond the null distribution.

    Attributes:
        positive: (directions,) int64, how many positive eigenvalues are significant.
        negative: (directions,) int64.
        p_values: (directions, k), of every eigenvalue, for the end of its sign.
        level: 1 − the probability of a wrong count above zero, for each direction and sign.
    """

    positive: Tensor
    negative: Tensor
    p_values: Tensor
    level: float
    to_frame = frame("p_values", "direction", "pair")


def tail(observed: Tensor, null: Tensor) -> Tensor:
    """Return (2 + #{null ≥ observed}) / (2·samples + 2); `null` has two rows a sample."""
    beyond = (~(null < observed)).sum(dim=0).double()  # NaN counts as within
    return (2 + beyond) / (len(null) + 2)


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level={level!r}: a number between 0 and 1 was expected.")


def rotation_null(
    f: QuadraticMap,
    directions: Tensor | None,
    seed: int | torch.Generator = 0,
    num_samples: int = 99,
    embedding: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    memory_limit: int | str | None = None,
) -> RotationNull:
    """Sample the spectra of a layer with right ← right·O, O a random rotation (Haar measure).

    The rotation keeps left, right and down each as they are, up to the basis of right, and
    destroys only how left and right are aligned. Unlike the Wigner edge or a permutation of
    entries, it declares outliers in a purely random factored map at its level only. All
    directions share a rotation. Linear and constant terms take no part.

    **Behind an embedding.** Branches that read one embedding E share its row space and its
    stretching, trained or not. Rotating left·E and right·E against each other would destroy that
    too, and call every random classifier aligned. So f is the layer as it stands behind E, O
    turns there, and the spectra are those of Eᵀ Q E, in the basis before E.

    **Which branch.** Without an embedding it does not matter which one is turned: a spectrum does
    not see a common rotation. Behind one it does, because the other keeps how it lies to E. So each
    is turned, with the same draws, and every direction has the null that reaches further, by its
    95 % edge: beyond it is what chance gives neither to the one branch nor to the other.

    The level depends on what the function does not determine: which branch of a single neuron is
    called left, and, behind an embedding, the basis it is written in, up to rotations.

    Math: only O's action on the row space of right matters, a random orthonormal frame W: with
        right = T Vᵀ (thin QR), right·O is distributed as T Wᵀ. With Eᵀ = Y S the nonzero
        eigenvalues of Eᵀ Q E are those of S Q Sᵀ. If 2·hidden is less than the width, a second
        thin QR of both branches leaves a problem of that size.
    Cost: for each sample O(in · hidden²) time, and O(min(in, 2·hidden)³) for each direction, in
        the width of the layer; behind an embedding twice that. The whole spectra are needed for
        the effective rank, but only their ends are kept: memory is O(hidden · (in + directions) +
        samples · directions) beside the map, and four matrices for each of the directions that
        are solved together: as many as fit in 256 MiB, and in the limit.

    Args:
        f: the layer, in the space in which its branches are rotated.
        directions: (num, out), one output direction a row; None reads every output as it is.
        seed: of what is drawn; or a generator, which goes on from where it is.
        num_samples: number of rotations; 99 gives p-values down to 0.01.
        embedding: E, (in, in'), in front of the layer; None where there is none.
        progress: called with the number of samples done.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns: a direction that is not finite, whose form overflows, or that the solver fails on is
        flagged in `status` and holds NaN; the others are not affected.
    Raises: ShapeError if directions or embedding do not fit; NonFiniteError if the embedding holds
        NaN or infinity; UsageError if num_samples is less than 1, or f or seed is something
        else; MemoryLimitError if not even one direction at a time fits into the memory allowed.
    Source: the null follows the gauge freedom of the factors; see docs/math.md.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    generator = generator_of(seed)
    check_directions(directions, f.sizes.d_out)
    num = f.sizes.d_out if directions is None else len(directions)
    num_samples = check_count("num_samples", num_samples, minimum=1)
    if embedding is not None:
        check_shape("embedding", embedding, (f.sizes.d_in, "in'"))
    width_before = None if embedding is None else embedding.shape[1]
    width = solved_width(f.sizes, f.sizes.d_in if width_before is None else width_before)
    chunk = null_memory(f.sizes, num, num_samples, width_before).at_a_time(
        num,
        CHUNK_BYTES,
        f"a rotation null of {num} directions of width {width}",
        "read fewer directions at a time",
        memory_limit,
        device=f.device,
    )
    with torch.no_grad():
        down, left, right = (
            part.double() for part in (f.tensor.down, f.tensor.left, f.tensor.right)
        )
        weights = down if directions is None else directions.double() @ down
        left, right = in_one_order(left, right)
        pairs = [(left, corner_of(right))]  # what stays, and what is turned
        before = None if embedding is None else embedding_corner(embedding)
        if before is not None:
            pairs = [(left @ before, pairs[0][1]), (right @ before, corner_of(left))]
        samples: list[list[NullEnds]] = [[] for _ in pairs]
        for done in range(num_samples):
            rotated = random_frame(f.sizes.d_in, pairs[0][1].shape[1], generator).T.to(left)
            rotated = rotated if before is None else rotated @ before
            for (other, corner), ends in zip(pairs, samples, strict=True):
                ends.append(read_ends(other, corner @ rotated, weights, chunk))
            if progress is not None:
                progress(done + 1)
    if before is None:
        return replace(joined(samples[0]), basis=f.basis)
    return reaching_further(*map(joined, samples))


def reaching_further(one: RotationNull, other: RotationNull) -> RotationNull:
    """Return for every direction the null whose edge is farther from zero."""
    chosen = ~(one.edges()[1] < other.edges()[1])  # also where one failed, and is NaN
    status = (
        mine if mine is not Status.OK else theirs
        for mine, theirs in zip(one.status, other.status, strict=True)
    )
    failed = torch.isnan(one.largest + other.largest)
    largest, smallest, rank = (
        getattr(one, name).where(chosen, getattr(other, name)).masked_fill(failed, torch.nan)
        for name in ("largest", "smallest", "effective_rank")
    )
    return RotationNull(largest, smallest, rank, (*status,))


def joined(samples: list[NullEnds]) -> RotationNull:
    """Return the null of all samples; a direction that failed in one of them is left out of all."""
    status = tuple(
        next((one for one in each if one is not Status.OK), Status.OK)
        for each in zip(*(ends.status for ends in samples), strict=True)
    )
    numbers = torch.stack([ends.numbers for ends in samples], dim=1)  # (3, samples, num)
    failed = torch.tensor([one is not Status.OK for one in status], device=numbers.device)
    largest, smallest, rank = numbers.masked_fill(failed, torch.nan)
    return RotationNull(largest, smallest, rank, status)
