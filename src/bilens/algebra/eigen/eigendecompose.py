"""Eigenpairs of one form, or of a map along many output directions."""

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from typing import Protocol, get_args

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.directions import check_directions
from bilens.algebra.eigen.decomposition import (
    EigenDecomposition,
    Proof,
    Status,
    assemble,
    stack,
    take,
    tuple_of,
)
from bilens.algebra.eigen.plan import SOLVERS, WHOLE_SPECTRUM, EigenPlan, make_plan
from bilens.algebra.eigen.ranking import Which, clusters, same_values
from bilens.algebra.eigen.solver import (
    BalancedForms,
    EigenTask,
    Method,
    OneForm,
    Precision,
    Sizes,
    problem_of_form,
    problem_of_map,
)
from bilens.algebra.eigen.whole_spectrum import failed, spectrum_values
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import silent
from bilens.base.checks import check_choice, check_count, check_type
from bilens.base.errors import NumericalError, TruncationWarning, UsageError
from bilens.base.keyword_options import described, takes_options
from bilens.base.option_rules import refuse_idle

Progress = Callable[[int, int], None]


def eigendecompose(
    form: QuadraticForm,
    k: int | None = None,
    which: Which = "magnitude",
    method: Method = "auto",
    *,
    precision: Precision = "float64",
    verify: bool = False,
    memory_limit: int | str | None = None,
    seed: int = 0,
) -> EigenDecomposition:
    """Return eigenpairs of the Q of a form, by falling |eigenvalue|.

    Cost and arguments are those of `eigendecompose_all` for one direction; all pairs for k = None.
    Eigenvalues are in units of the output per squared unit of the input.

    Math: Q = Σ_i λ_i v_i v_iᵀ, so q(x) = Σ_i λ_i (v_i·x)² + linear·x + constant.
    Raises: UsageError for an argument that is not one of those; NumericalError if products of the
        factors overflow, or the solver does not converge; MemoryLimitError if no method fits.
    Source: arXiv:2410.08417, §3.2, equations 3 and 4.
    """
    check_choices(which, method, precision, verify)
    if not isinstance(form, QuadraticForm):
        raise UsageError(
            f"eigendecompose takes a QuadraticForm, got a {type(form).__name__}: read one output "
            "of a map with f.form(u), or all of them with eigendecompose_all(f)."
        )
    kept = clip_k(k, form.d_in)
    itemsize = 8 if form.matrix.left.dtype == torch.float64 else 4
    sizes = Sizes(1, form.matrix.d_hidden, form.d_in, kept, itemsize)
    plan = make_plan(sizes, method, precision, memory_limit, verify, form.device)
    task = EigenTask(problem_of_form(form), kept, which, plan.precision, plan.batch, seed)
    result = solve(task, plan, verify, lambda _done: None)[0]
    if result.status in (Status.NOT_FINITE, Status.NOT_CONVERGED):
        assert isinstance(result.status, Status), "one form has one status"
        raise NumericalError(
            f"the form of width {form.d_in} was not decomposed: {result.status.value}; "
            "rescale the output direction or the factors."
        )
    return result


@dataclass(frozen=True)
class EigenOptions:
    """The directions and the pairs of a decomposition, and how they are found."""

    directions: Tensor | None = described(
        None, "(num, out), one output direction a row; None reads every output as it is."
    )
    k: int | None = described(
        None, "How many pairs of each form; None for all `in`, at the cost of whole spectra."
    )
    which: Which = described(
        "magnitude",
        '"magnitude" (largest |λ|), "largest", "smallest" (by sign), or "both": half from each '
        "end, the extra one from the upper end.",
    )
    method: Method = described(
        "auto",
        '"auto" takes the cheapest that fits into the memory allowed; or one of "dense", '
        '"lanczos", "factored".',
    )
    _: KW_ONLY
    precision: Precision = described(
        "float64",
        'Of the iteration of "lanczos". "float64": residuals within 1e-11 ‖Q‖_F; "float32": within '
        "1e-6 ‖Q‖_F, measured in float64, in a third of the time, and norms to about 1e-6, with a "
        "proven bound that proofs allow for. The error of an eigenvalue is at most its residual, "
        "and of the order of its square over the gap.",
    )
    verify: bool = described(
        False,
        "Answer with a dense solver, which needs O(in²) memory, what is not proven complete. "
        "Without, a pair can have been missed where `complete` is False, for instance the second "
        "of two equal eigenvalues.",
    )
    memory_limit: int | str | None = described(
        None,
        'Bytes, or a text such as "4GiB", that the work may take beside the map; None for '
        "$BILENS_MEMORY_LIMIT or 75 % of the memory at hand.",
    )
    seed: int = described(0, "Of the vector that the iteration starts from.")
    progress: Progress = described(silent, "Called with (directions done, directions).")


@takes_options(EigenOptions)
def eigendecompose_all(f: QuadraticMap, options: EigenOptions) -> EigenDecomposition:
    """Return eigenpairs of a map along many output directions, as one batch.

    Values, vectors and residuals are float64 whatever the method and precision.

    Cost: method "dense": O(hidden · in² + in³) time a direction, O(in²) memory. "factored", where
        2·hidden < in: O(hidden³) a direction after one QR in O(in · hidden²). "lanczos": about
        15 products of 8 · hidden · in operations a direction where the leading eigenvalues stand
        apart, three to five times as many where there is no gap, k products in float64 to refine
        and check them, and O(hidden² · (in + directions)) for the exact norms; no (in, in) array.
        The result takes O(directions · k · in) memory. `plan_eigendecomposition` says what will
        be done and what it needs, without doing it.

    Args:
        f: the map.
        options: an `EigenOptions`, or its fields:

    Returns: a batch: `eigs[c]` is the decomposition along row c. A row that is not finite,
        overflows, or that the solver fails on is flagged in `status` and holds NaN, or its best
        pairs; the others are not affected.
    Raises: ShapeError if the directions do not have one entry for each output; UsageError for an
        argument that is not one of the above; MemoryLimitError if no method fits.
    Source: arXiv:2410.08417, §3.2; the iteration: C. Lanczos, J. Res. Natl. Bur. Stand. 45 (1950).
    """
    check_type("f", f, QuadraticMap, "pass a map; one form f.form(u) goes to eigendecompose(form)")
    directions, verify = options.directions, options.verify
    check_choices(options.which, options.method, options.precision, verify)
    sizes = sizes_of(f, directions, options.k, 5)  # frames to who is warned
    asked = options.method, options.precision, options.memory_limit, verify
    plan = make_plan(sizes, *asked, f.device)
    num = sizes.num

    def some(first: int, last: int) -> tuple[Tensor, EigenDecomposition]:
        problem = problem_of_map(f, directions, slice(first, last))
        which, seed = options.which, options.seed
        task = EigenTask(problem, sizes.k, which, plan.precision, plan.batch, seed)
        part = solve(task, plan, verify, lambda done: options.progress(first + done, num))
        return torch.arange(first, last, device=f.device), part

    starts = range(0, num, plan.portion)  # as many at a time as have room for their weights
    parts = [some(first, min(first + plan.portion, num)) for first in starts]
    return parts[0][1] if len(parts) == 1 else assemble(parts)


class SizedMap(Protocol):
    """A map of known sizes and dtype: a `QuadraticMap`, or a layer that is not read yet."""

    @property
    def sizes(self) -> FactorSizes:
        """(d_out, d_hidden, d_in)."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""


def plan_eigendecomposition(
    f: SizedMap,
    directions: Tensor | None = None,
    k: int | None = None,
    method: Method = "auto",
    *,
    precision: Precision = "float64",
    verify: bool = False,
    memory_limit: int | str | None = None,
) -> EigenPlan:
    """Return how `eigendecompose_all` would work with the same arguments, without doing it.

    A layer of a model, `model.layers[name]`, is planned by its sizes, and its weights are not read.

    `verify` takes part in what must fit, not in the choice: how many forms a proof will be missing
    for is not known before.

    Raises: as `eigendecompose_all`.
    """
    check_choices("magnitude", method, precision, verify)
    if not isinstance(getattr(f, "sizes", None), FactorSizes):
        check_type("f", f, QuadraticMap, "pass a map, or a layer of a model")
    device = f.device if isinstance(f, QuadraticMap) else None
    sizes = sizes_of(f, directions, k)
    return make_plan(sizes, method, precision, memory_limit, verify, device)


def sizes_of(f: SizedMap, directions: Tensor | None, k: int | None, stacklevel: int = 4) -> Sizes:
    """Return the sizes that the cost of a decomposition depends on; its arguments are checked."""
    check_directions(directions, f.sizes.d_out)
    num = f.sizes.d_out if directions is None else len(directions)
    itemsize = 8 if f.dtype == torch.float64 else 4
    return Sizes(num, f.sizes.d_hidden, f.sizes.d_in, clip_k(k, f.sizes.d_in, stacklevel), itemsize)


def check_choices(which: str, method: str, precision: str, verify: bool) -> None:
    check_choice("which", which, get_args(Which))
    check_choice("method", method, get_args(Method))
    check_choice("precision", precision, get_args(Precision))
    if verify and method not in ("lanczos", "auto"):
        refuse_idle("eigenpairs", {"verify": verify})


def clip_k(k: int | None, d_in: int, stacklevel: int = 3) -> int:
    if k is None:
        return d_in
    if check_count("k", k, minimum=1) > d_in:
        warnings.warn(
            f"k={k}, but a form of {d_in} inputs has {d_in} pairs: returning all of them.",
            TruncationWarning,
            stacklevel=stacklevel,
        )
    return min(k, d_in)


def solve(
    task: EigenTask, plan: EigenPlan, verify: bool, progress: Callable[[int], None]
) -> EigenDecomposition:
    """Return the decompositions of all forms of a task as one batch, in their order."""
    forms = task.problem.forms

    @cache
    def fallback() -> OneForm:  # made where it is needed, and only once
        assert plan.fallback is not None, "looked at before"
        return WHOLE_SPECTRUM[plan.fallback].prepared(task.problem)

    largest = forms.units * forms.sizes_before_cancelling  # factors may be finite, this not
    usable = task.problem.usable & largest.isfinite()
    parts = []
    for index in (~usable).nonzero()[:, 0].tolist():
        terms = task.problem.terms(index)
        refused = failed(terms, task.k, task.which, plan.method, Status.NOT_FINITE)
        parts.append((largest.new_tensor([index], dtype=torch.int64), stack([refused])))
    done = len(parts)
    if parts:
        progress(done)
    for rows, batch in SOLVERS[plan.method].solve(task, usable.nonzero()[:, 0]):
        if len(rows) == 0:
            continue
        if plan.method == "lanczos" and plan.fallback is not None:
            batch = verified(task, rows, batch, fallback, plan.fallback == "dense", verify)
        parts.append((rows, batch))
        done += len(rows)
        progress(done)
    return assemble(parts)


def verified(
    task: EigenTask,
    rows: Tensor,
    batch: EigenDecomposition,
    fallback: Callable[[], OneForm],
    compare: bool,
    everything: bool,
) -> EigenDecomposition:
    """Return a batch in which a solver of whole spectra has answered what was left open."""
    # That is every form whose pairs did not converge, or are known to lack some, and with
    # `everything` each that is not proven complete. With `compare` eigenvalues alone are cheaper,
    # and enough if they are those found.
    doubtful = batch.complete.new_tensor(
        [end in (Status.RESIDUAL_TOO_LARGE, Status.MISSED) for end in tuple_of(batch.status)]
    )
    if everything:
        doubtful |= ~batch.complete
    if not bool(doubtful.any()):
        return batch
    done = (~doubtful).nonzero()[:, 0]
    parts = [(done, take(batch, done))]
    for position in doubtful.nonzero()[:, 0].tolist():
        found, index = batch[position], int(rows[position])
        single = compared(task.problem.forms.form_at(index), found) if compare else None
        if single is None:
            single = fallback()(index, len(found.eigenvalues), found.which)
            single = replace(single, method=found.method)  # of the batch
        parts.append((done.new_tensor([position]), stack([single])))
    return assemble(parts)


def compared(form: BalancedForms, found: EigenDecomposition) -> EigenDecomposition | None:
    """Return eigenpairs marked as proven if a dense solver finds the same values; else None."""
    if found.status is not Status.OK:
        return None
    values = spectrum_values(form)
    if values is None:
        return None
    whole, bound = values * form.units[0], found.rounding_bound
    if not bool(same_values(found.eigenvalues[None], whole[None], found.which, bound[None])):
        return None
    labels, sizes = clusters(whole, float(found.rounding_bound))
    nearest = (found.eigenvalues[:, None] - whole).abs().argmin(dim=1)
    return replace(
        found,
        complete=torch.ones_like(found.complete),
        proof=Proof.COMPARISON,
        cluster=labels[nearest],
        cluster_size=sizes[nearest],
    )
