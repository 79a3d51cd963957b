"""A plan carried out: the solver runs, bad forms are flagged, doubtful ones are settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from bilens.algebra.eigen import dense, factored, iterative
from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.batches import assemble, stack, take, tuple_of
from bilens.algebra.eigen.checked import clusters, failed
from bilens.algebra.eigen.cost import Solver
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.partial import same_values
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.eigen.problem import Problem
from bilens.algebra.eigen.ranking import Which

WholeSolver = Callable[[int, int, Which], EigenDecomposition]  # of form, k, which


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
    forms = problem.balanced()

    @cache
    def settler() -> WholeSolver:  # made where there is something to settle, and only once
        assert plan.settler is not None, "looked at before"
        return one_by_one(problem, forms, plan.settler)

    largest = forms.units * forms.sizes_before_cancelling  # factors may be finite, this not
    usable = problem.usable & largest.isfinite()
    parts: list[tuple[Tensor, EigenDecomposition]] = []
    done = 0
    for rows, batch in portions(problem, forms, usable, k, which, plan, seed):
        if len(rows) == 0:
            continue
        if plan.method == "lanczos" and plan.settler is not None:
            compare = plan.settler == "dense"
            batch = settled(forms, rows, batch, settler, compare, verify)
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
    solver = one_by_one(problem, forms, plan.method)
    for index in rows.tolist():
        yield torch.tensor([index]), stack([solver(index, k, which)])


def one_by_one(problem: Problem, forms: BalancedForms, method: Solver) -> WholeSolver:
    """Return a solver of whole spectra: (form, k, which) → its decomposition."""
    if method == "dense":
        return lambda index, k, which: dense.solve(problem.terms(index), forms.one(index), k, which)
    space = factored.row_space(problem, forms)
    small = space.balanced(forms)
    return lambda index, k, which: factored.solve(
        problem.terms(index), space, small.one(index), forms.one(index), k, which
    )


def settled(
    forms: BalancedForms,
    rows: Tensor,
    batch: EigenDecomposition,
    settler: Callable[[], WholeSolver],
    compare: bool,
    verify: bool,
) -> EigenDecomposition:
    """Return a batch in which a solver of whole spectra has answered what was left open.

    That is every form whose pairs did not converge, or are known to lack some, and with `verify`
    every form that is not proven complete.

    Args:
        forms: all forms.
        rows: which of them the batch holds.
        batch: what the iteration found.
        settler: makes the solver.
        compare: whether eigenvalues alone are cheaper, and enough if they are those found.
        verify: whether to settle what is not proven.
    """
    status = tuple_of(batch.status)
    doubtful = torch.tensor([end in (Status.RESIDUAL_TOO_LARGE, Status.MISSED) for end in status])
    if verify:
        finite = [end is not Status.NOT_FINITE for end in status]
        doubtful |= torch.tensor(finite) & ~batch.complete
    if not bool(doubtful.any()):
        return batch
    done = (~doubtful).nonzero()[:, 0]
    parts = [(done, take(batch, done))]
    for position in doubtful.nonzero()[:, 0].tolist():
        found, index = batch[position], int(rows[position])
        single = compared(forms.one(index), found) if compare else None
        if single is None:
            single = settler()(index, len(found.eigenvalues), found.which)
            single = replace(single, method=found.method)  # of the batch
        parts.append((torch.tensor([position]), stack([single])))
    return assemble(parts)


def compared(form: BalancedForms, found: EigenDecomposition) -> EigenDecomposition | None:
    """Return what was found, proven, if its values are those of a dense solver; else None."""
    if found.status is not Status.OK:
        return None
    values = dense.spectrum_values(form)
    if values is None:
        return None
    whole, noise = values * form.units[0], found.noise
    if not bool(same_values(found.eigenvalues[None], whole[None], found.which, noise[None])):
        return None
    return agreed(found, whole)


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
