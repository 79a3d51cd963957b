"""A plan carried out: the solver runs, bad forms are flagged, doubtful ones are settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.eigen import dense, factored, iterative
from bilens.algebra.eigen.balance import Balanced, BalancedForms
from bilens.algebra.eigen.batches import assemble, stack, take, tuple_of
from bilens.algebra.eigen.checked import clusters, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.partial import same_values
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.eigen.problem import OtherTerms, Problem
from bilens.algebra.eigen.ranking import Which
from bilens.checks import readable
from bilens.errors import MemoryLimitError


def solve(
    problem: Problem,
    k: int,
    which: Which,
    plan: EigenPlan,
    verify: bool,
    seed: int,
    progress: Callable[[int, int], None],
) -> EigenDecomposition:
    """Return the decompositions of all forms of a problem as one batch, in their order."""
    dense_fits = plan.costs["dense"].peak_bytes <= plan.limit_bytes
    if verify and plan.method == "lanczos" and not dense_fits:
        raise MemoryLimitError(
            f"verify=True needs {readable(plan.costs['dense'].peak_bytes)} for a dense solver of "
            f"width {problem.d_in}, the limit is {readable(plan.limit_bytes)}: allow more, or "
            "read `complete` for what is proven without."
        )
    forms = problem.balanced()
    largest = forms.units * forms.sizes_before_cancelling  # factors may be finite, this not
    usable = problem.usable & largest.isfinite()
    parts: list[tuple[Tensor, EigenDecomposition]] = []
    done = 0
    for rows, batch in portions(problem, forms, usable, k, which, plan, seed):
        if len(rows) == 0:
            continue
        if plan.method == "lanczos" and dense_fits:
            batch = settled(problem, forms, rows, batch, verify)
        parts.append((rows, batch))
        done += len(rows)
        progress(done, problem.num)
    return assemble(parts)


def portions(
    problem: Problem,
    forms: BalancedForms,
    usable: Tensor,
    k: int,
    which: Which,
    plan: EigenPlan,
    seed: int,
) -> Iterator[tuple[Tensor, EigenDecomposition]]:
    """Yield positions and decompositions of all forms, as they get done."""
    for index in (~usable).nonzero()[:, 0].tolist():
        refused = failed(problem.terms(index), k, which, plan.method, Status.NOT_FINITE)
        yield torch.tensor([index]), stack([refused])
    rows = usable.nonzero()[:, 0]
    if plan.method == "lanczos":
        yield from iterative.solve(problem, forms, rows, k, which, plan, seed)
        return
    if plan.method == "factored":
        space = factored.row_space(problem, forms)
        small = space.small.balanced()
        sizes = forms.sizes_before_cancelling / small.units  # what cancelled in the weights
        small = replace(
            small,
            units=small.units * forms.units,
            sizes_before_cancelling=small.sizes_before_cancelling.maximum(sizes),
        )
    else:
        wide = forms.to(torch.float64)
    for index in rows.tolist():
        terms = problem.terms(index)
        if plan.method == "factored":
            single = factored.solve(terms, space, small.one(index), k, which)
        else:
            single = dense.solve(terms, wide.one(index), k, which)
        yield torch.tensor([index]), stack([single])


def settled(
    problem: Problem,
    forms: BalancedForms,
    rows: Tensor,
    batch: EigenDecomposition,
    verify: bool,
) -> EigenDecomposition:
    """Return a batch in which a dense solver has answered what the iteration left open.

    That is every form whose pairs did not converge, and with `verify` every form that is not
    proven complete.
    """
    doubtful = torch.tensor(
        [status is Status.RESIDUAL_TOO_LARGE for status in tuple_of(batch.status)]
    )
    if verify:
        finite = [status is not Status.NOT_FINITE for status in tuple_of(batch.status)]
        doubtful |= torch.tensor(finite) & ~batch.complete
    if not bool(doubtful.any()):
        return batch
    wide = forms.rows(rows).to(torch.float64)
    done = (~doubtful).nonzero()[:, 0]
    parts = [(done, take(batch, done))]
    for position in doubtful.nonzero()[:, 0].tolist():
        terms = problem.terms(int(rows[position]))
        single = compared(terms, wide.one(position), batch[position])
        parts.append((torch.tensor([position]), stack([single])))
    return assemble(parts)


def compared(
    terms: OtherTerms, balanced: Balanced, found: EigenDecomposition
) -> EigenDecomposition:
    """Return what was found if its values are those of a dense solver, else the dense answer."""
    if found.status is Status.OK:
        values = dense.spectrum_values(balanced)
        if values is not None:
            whole, noise = values * balanced.unit, found.noise
            if bool(same_values(found.eigenvalues[None], whole[None], found.which, noise[None])):
                return agreed(found, whole)
    k = len(found.eigenvalues)
    return replace(
        dense.solve(terms, balanced, k, found.which), method=found.method
    )  # of the batch


def agreed(found: EigenDecomposition, whole: Tensor) -> EigenDecomposition:
    """Return what was found as proven by the whole spectrum, with the clusters that it has there.

    Args:
        found: one form.
        whole: all eigenvalues, (in,).
    """
    labels, sizes = clusters(whole, float(found.noise))
    nearest = (found.eigenvalues[:, None] - whole).abs().argmin(dim=1)
    return replace(
        found,
        complete=torch.tensor(True),
        proof=Proof.COMPARISON,
        cluster=labels[nearest],
        cluster_size=sizes[nearest],
    )
