"""Which eigenvectors of two forms correspond, beside what random vectors would give."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import how_to_compare
from bilens.algebra.random_rotations import random_frame
from bilens.base.checks import check_choice, check_count, check_type, generator_of
from bilens.base.errors import ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

Method = Literal["assignment", "subspace"]
TIE = 1e-9  # relative: scores that agree to this are equal, so that rounding decides nothing
Group = tuple[int, ...]  # positions of eigenvectors that belong together


@frozen_result("method", "score", "chance", "p_value", "cosines")
class EigenvectorMatch:
    """The eigenvectors of two decompositions in pairs, with the overlap of each pair.

    Attributes:
        method: "assignment" or "subspace".
        pairs: positions in the first and in the second decomposition that were compared: one
            eigenvector each, several where eigenvalues cannot be told apart, or whole subspaces.
        cosines: assignment: (pairs,), the overlap of each pair, |cos| where both are one vector;
            subspace: the cosines of the principal angles of all pairs, one after the other.
        score: assignment: the mean of the cosines; subspace: the sum of their squares.
        chance: the mean score where the second vectors are a random orthonormal frame: by
            sampling for an assignment, exactly Σ k₁ k₂ / in for subspaces.
        chance_cosine: exactly E|cos| of two random unit vectors, about √(2 / (π in)): the level
            of one pair that was not picked among others.
        p_value: (1 + #{samples with a score as high}) / (samples + 1).
        num_samples: number of random frames.
    """

    method: Method
    pairs: tuple[tuple[Group, Group], ...]
    cosines: Tensor
    score: float
    chance: float
    chance_cosine: float
    p_value: float
    num_samples: int
    to_frame = frame("cosines", "match")


def match_eigenvectors(
    first: EigenDecomposition,
    second: EigenDecomposition,
    seed: int | torch.Generator = 0,
    method: Method = "assignment",
    k: int | None = None,
    signed: bool = True,
    num_samples: int = 99,
) -> EigenvectorMatch:
    """Match the eigenvectors of one form with those of another, over the same input.

    Eigenvalues that cannot be told apart are one group, compared as the space that they span; what
    cannot be told from zero has neither sign nor vector and is left out.

    Math: of groups with orthonormal rows V₁ (a) and V₂ (b), the overlap ‖V₁V₂ᵀ‖_F / √max(a, b):
        |cos| of two vectors, 1 for equal spaces.
        "assignment": the pairing of groups with the largest sum of overlaps (Hungarian method).
        "subspace": the principal angles between all leading vectors together; their cosines are
        the singular values of V₁V₂ᵀ.
    Chance: the second frame turned at random (Haar). A frame of smooth vectors overlaps another
        smooth one more than that, whatever it means: compare with other pairs of models, too.
    Cost: O(k² · in) and O(k³) for each sample.

    Args:
        first: the decomposition of one form.
        second: that of another form, in the same basis.
        seed: of the null distribution; or a generator, which goes on from where it is.
        method: "assignment" or "subspace".
        k: how many leading pairs of each to use; None for all that were computed.
        signed: match positive with positive and negative with negative eigenvalues only.
        num_samples: number of random frames; 99 gives p-values down to 0.01.

    Raises: ShapeError if one is a batch, or they differ in inputs; UsageError for an argument that
        is not one of the above, other bases, a k that cuts through eigenvalues that cannot be told
        apart, or where nothing is left to match; NumericalError for one that failed its checks.
    """
    check_choice("method", method, get_args(Method))
    check_count("num_samples", num_samples, minimum=1)
    check_comparable(first, second)
    generator, width = generator_of(seed), first.eigenvectors.shape[-1]
    classes = groups_to_match(first, second, k, signed)
    pairs, cosines = compare(first.eigenvectors @ second.eigenvectors.T, classes, method)
    used = sorted(index for _, groups in classes for group in groups for index in group)
    samples = []
    for _ in range(num_samples):
        turned = random_cosines(first, second, used, generator)
        samples.append(score_of(compare(turned, classes, method)[1], method))
    score = score_of(cosines, method)
    as_high = sum(sample >= score * (1 - TIE) for sample in samples)
    exact = sum(len(sum(a, ())) * len(sum(b, ())) for a, b in classes) / width
    return EigenvectorMatch(
        method=method,
        pairs=pairs,
        cosines=cosines,
        score=score,
        chance=exact if method == "subspace" else sum(samples) / num_samples,
        chance_cosine=mean_cosine(width),
        p_value=(1 + as_high) / (num_samples + 1),
        num_samples=num_samples,
    )


def random_cosines(
    first: EigenDecomposition,
    second: EigenDecomposition,
    used: list[int],
    generator: torch.Generator,
) -> Tensor:
    """Return the cosines of the first vectors with a random frame in the place of those used."""
    width = first.eigenvectors.shape[-1]
    frame = random_frame(width, len(used), generator).to(first.eigenvectors)
    found = frame.new_zeros(len(first.eigenvectors), len(second.eigenvectors))
    found[:, used] = first.eigenvectors @ frame
    return found


def check_comparable(first: EigenDecomposition, second: EigenDecomposition) -> None:
    """Refuse two decompositions whose eigenvectors are not of the same inputs in one basis."""
    for name, eig in (("first", first), ("second", second)):
        check_type(name, eig, EigenDecomposition, "use eigendecompose(form)")
    width, other = first.eigenvectors.shape[-1], second.eigenvectors.shape[-1]
    if other != width:
        raise ShapeError(
            f"the decompositions read {width} and {other} inputs; vectors are matched over the "
            "same input."
        )
    if first.basis != second.basis:
        raise UsageError(
            f"the decompositions are in the {first.basis} and the {second.basis} basis: vectors "
            f"are matched in one basis; {how_to_compare(first.basis, second.basis)}"
        )


def groups_to_match(
    first: EigenDecomposition, second: EigenDecomposition, k: int | None, signed: bool
) -> tuple[tuple[tuple[Group, ...], tuple[Group, ...]], ...]:
    """Return the groups of both that may be matched with each other: of each sign, or of all."""
    mine, theirs = by_sign("first", first, k), by_sign("second", second, k)
    if not signed:
        mine, theirs = ((*mine[0], *mine[1]),), ((*theirs[0], *theirs[1]),)
    classes = tuple((a, b) for a, b in zip(mine, theirs, strict=True) if a and b)
    if not classes:
        raise UsageError(
            "there is nothing to match: no eigenvalues of one sign, distinct from zero, in both"
            + (" (signed=False matches across signs)." if signed else ".")
        )
    return classes


def by_sign(name: str, eig: EigenDecomposition, k: int | None) -> tuple[tuple[Group, ...], ...]:
    """Return the groups of leading eigenvalues, (positive ones, negative ones)."""
    if eig.eigenvalues.ndim != 1:
        raise ShapeError(f"the {name} decomposition is a batch: match eigs[c] with another one.")
    k = len(eig.eigenvalues) if k is None else check_count("k", k, minimum=1)
    if k > len(eig.eigenvalues):
        raise UsageError(
            f"k={k}, but the {name} decomposition has {len(eig.eigenvalues)} pairs: "
            "decompose with a larger k."
        )
    positive: list[Group] = []
    negative: list[Group] = []
    for subspace in eig.subspaces():
        group = tuple(index for index in subspace.indices if index < k)
        if not group or abs(subspace.eigenvalue) <= float(eig.rounding_bound):
            continue
        if len(group) < subspace.size:
            raise UsageError(
                f"{subspace.size} eigenvalues near {subspace.eigenvalue:.6g} of the {name} "
                f"decomposition cannot be told apart, and only {len(group)} are among the "
                f"leading {k}: use another k, in the decomposition too if it ends there."
            )
        (positive if subspace.eigenvalue > 0 else negative).append(group)
    return tuple(positive), tuple(negative)


Classes = tuple[tuple[tuple[Group, ...], tuple[Group, ...]], ...]


def compare(
    cosines: Tensor, classes: Classes, method: Method
) -> tuple[tuple[tuple[Group, Group], ...], Tensor]:
    """Return the pairs and their cosines, from V₁V₂ᵀ of all vectors, class by class of sign."""
    matched = [COMPARE[method](cosines, first, second) for first, second in classes]
    pairs = tuple(pair for found, _ in matched for pair in found)
    return pairs, torch.cat([sizes for _, sizes in matched]).clamp(max=1.0)


def assignment(
    cosines: Tensor, first: tuple[Group, ...], second: tuple[Group, ...]
) -> tuple[list[tuple[Group, Group]], Tensor]:
    from scipy.optimize import linear_sum_assignment  # slow to import, needed only here

    sides = (first, len(cosines)), (second, cosines.shape[1])
    rows, columns = (indicator(*side).to(cosines) for side in sides)
    sizes = torch.maximum(rows.sum(dim=1)[:, None], columns.sum(dim=1))
    overlap = (rows @ cosines.square() @ columns.T / sizes).sqrt()
    chosen = [
        index.tolist() for index in linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
    ]
    pairs = [(first[i], second[j]) for i, j in zip(*chosen, strict=True)]
    return pairs, overlap[chosen[0], chosen[1]]


def subspace(
    cosines: Tensor, first: tuple[Group, ...], second: tuple[Group, ...]
) -> tuple[list[tuple[Group, Group]], Tensor]:
    rows, columns = (tuple(sorted(sum(groups, ()))) for groups in (first, second))
    return [(rows, columns)], torch.linalg.svdvals(cosines[list(rows)][:, list(columns)])


COMPARE = {"assignment": assignment, "subspace": subspace}


def indicator(groups: tuple[Group, ...], num: int) -> Tensor:
    """Return (groups, num): 1 where a vector belongs to a group."""
    member = torch.zeros(len(groups), num, dtype=torch.float64)
    for row, group in zip(member, groups, strict=True):
        row[list(group)] = 1.0
    return member


def score_of(cosines: Tensor, method: Method) -> float:
    return float(cosines.mean() if method == "assignment" else cosines.square().sum())


def mean_cosine(d_in: int) -> float:
    """Return E|cos| between two random directions: Γ(n/2) / (√π Γ((n + 1)/2))."""
    return math.exp(math.lgamma(d_in / 2) - math.lgamma((d_in + 1) / 2)) / math.sqrt(math.pi)
