"""Batches of forms through Lanczos' method, refined and judged in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.batches import take
from bilens.algebra.eigen.cost import Precision, later_batch, most_steps, usual_steps
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.lanczos import Product, lanczos
from bilens.algebra.eigen.mass import masses, most_rounding
from bilens.algebra.eigen.partial import (
    Refined,
    cluster_limit,
    partial_clusters,
    proven_by_mass,
    proven_by_rank,
    refine,
    rounding,
    skew,
    zeros_missed,
)
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.eigen.problem import OtherTerms, Problem
from bilens.algebra.eigen.ranking import Which

METHOD = "lanczos"
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES: dict[Precision, float] = {"float32": 1e-6, "float64": 1e-11}  # of ‖Q‖_F
MARGIN = 0.7  # of the tolerance: where the iteration stops, by its own estimate


def solve(
    problem: Problem,
    forms: BalancedForms,
    rows: Tensor,
    k: int,
    which: Which,
    plan: EigenPlan,
    seed: int,
) -> Iterator[tuple[Tensor, EigenDecomposition]]:
    """Yield k eigenpairs of some forms, in portions: positions and their decompositions.

    Forms that do not pass at first, because they need more steps than usual or more digits than
    float32 has, are done again in float64 with room for more steps. Those that fail then as well
    come with their best pairs, flagged.

    Cost: see `eigendecompose_all`.
    """
    forms = forms.rows(rows)
    in_float32 = plan.precision == "float32"
    mass, mass_error = masses(forms, in_float32)
    surely = (mass - mass_error).clamp(min=0.0).sqrt()
    allowed = TOLERANCES[plan.precision] * surely + rounding(forms, mass)
    rounds = (
        (DTYPES[plan.precision], plan.batch, usual_steps(k)),
        (torch.float64, later_batch(plan.batch, k), most_steps(k)),
    )
    waiting = torch.arange(len(rows))
    for dtype, batch, steps in rounds:
        if len(waiting) == 0:
            return
        factors = forms.to(dtype)
        start = first_vector(problem.d_in, seed).to(dtype)
        unsettled = []
        for chosen in torch.split(waiting, batch):
            mine, places = forms.rows(chosen), rows[chosen]
            product = batched_product(factors.left, factors.right, mine.weights.to(dtype))
            found = lanczos(product, start, MARGIN * allowed[chosen], k, which, steps)
            pairs = refine(mine, found.vectors, mass[chosen])
            passed = (pairs.residuals <= allowed[chosen, None]).all(dim=1)
            settled = passed | (steps == most_steps(k))
            worst = most_rounding(mine) + skew(pairs)
            proven = proven_by_mass(pairs, mass[chosen], mass_error[chosen], which, worst)
            if in_float32:
                least = mass[chosen] - mass_error[chosen]
                open_ = proven_by_mass(pairs, least, 0 * least, which, worst) & ~proven
                if bool(open_.any()):  # the norm in float64 may prove it
                    again = chosen[open_]
                    mass[again], mass_error[again] = masses(forms.rows(again))
                    proven = proven_by_mass(pairs, mass[chosen], mass_error[chosen], which, worst)
            by_rank = proven_by_rank(pairs, mine, which)
            terms = OtherTerms(problem.linear[places], problem.constant[places], problem.basis)
            result = record(
                terms,
                mine.units,
                pairs,
                mass[chosen],
                allowed[chosen],
                [
                    Proof.MASS if mass_does else Proof.RANK if rank_does else Proof.NONE
                    for mass_does, rank_does in zip(proven, by_rank, strict=True)
                ],
                zeros_missed(pairs, mine, which),
                found.rivals,
                which,
            )
            kept = settled.nonzero()[:, 0]
            yield places[kept], take(result, kept)
            unsettled.append(chosen[~settled])
        waiting = torch.cat(unsettled)


def batched_product(left: Tensor, right: Tensor, weights: Tensor) -> Product:
    """Return v ↦ ½[Lᵀ(s∘Rv) + Rᵀ(s∘Lv)] for a batch of forms, with (num, hidden) weights.

    Cost: 8 · hidden · in operations a vector, in four large products.
    """
    halves = weights / 2

    def product(rows: Tensor, vectors: Tensor) -> Tensor:
        mine = halves if len(rows) == len(halves) else halves[rows]
        different = vectors[:1] if vectors.stride(0) == 0 else vectors  # at first all are one
        result = (different @ right.T * mine) @ left
        return result.addmm_(different @ left.T * mine, right)

    return product


def first_vector(d_in: int, seed: int) -> Tensor:
    """Return the random unit vector that every basis starts from, (in,) float64."""
    vector = torch.randn(d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit: Tensor = vector / vector.norm()
    return unit


def record(
    terms: OtherTerms,
    units: Tensor,
    pairs: Refined,
    mass: Tensor,
    allowed: Tensor,
    proofs: Sequence[Proof],
    missed: Tensor,
    rivals: Tensor,
    which: Which,
) -> EigenDecomposition:
    """Return pairs in balanced units as the decomposition of a batch, in units of the output."""
    converged = pairs.residuals <= allowed[:, None]
    status = [
        Status.RESIDUAL_TOO_LARGE if not good else Status.MISSED if short else Status.OK
        for good, short in zip(converged.all(dim=1), missed, strict=True)
    ]
    proof = tuple(
        proof if good is Status.OK else Proof.NONE
        for proof, good in zip(proofs, status, strict=True)
    )
    complete = torch.tensor([sure is not Proof.NONE for sure in proof])
    labels, sizes = partial_clusters(pairs.values, rivals, cluster_limit(pairs))
    share = pairs.values.square().sum(dim=1) / torch.where(mass > 0, mass, 1.0)
    return EigenDecomposition(
        eigenvalues=pairs.values * units[:, None],
        eigenvectors=pairs.vectors,
        residuals=pairs.residuals * units[:, None],
        converged=converged,
        norm=mass.sqrt() * units,
        explained=torch.where(mass > 0, share, 1.0),
        complete=complete,
        noise=(pairs.noise + pairs.residuals.amax(dim=1)) * units,
        cluster=labels,
        cluster_size=sizes,
        linear=terms.linear,
        constant=terms.constant,
        method=METHOD,
        which=which,
        basis=terms.basis,
        status=tuple(status),
        proof=proof,
    )
