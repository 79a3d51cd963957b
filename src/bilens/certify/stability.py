"""Bounds how far eigenvalues and eigenvectors can move when the weights change."""

from contextlib import suppress
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.directions import check_directions, output_form
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.eigen.proofs import EPS, SMALLEST, worst_rounding
from bilens.algebra.eigen.solver import problem_of_form
from bilens.algebra.map_comparison import Kind, quantise
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap, how_to_compare
from bilens.base.checks import check_type
from bilens.base.errors import MemoryLimitError, NumericalError, ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.certify.spectrum_enclosure import enclose_spectrum, quadratic_difference
from bilens.certify.truncation import frobenius_bound, truncation_error

ARRAYS = 5  # (in, in) float64 arrays alive at once while ‖Δ‖₂ is proven
Norm = Literal["spectral", "frobenius"]


@frozen_result()
class SpectrumStability:
    """Proven bounds on how far a change of weights Δ moves the eigenpairs of a form.

    Assumes nothing about Δ but its size; both forms in the same basis, as their weights stand.

    Attributes:
        decomposition: of the form as it was.
        change: a proven bound on ‖Δ‖₂, in units of the eigenvalues.
        norm: "spectral", within rounding of ‖Δ‖₂; or "frobenius", ‖Δ‖_F, where ‖Δ‖₂ is not proven.
        movement: `change`, and the residuals and rounding of the decomposition. The eigenvalues of
            both forms pair off, those of equal rank by value, and no pair is farther apart.
        gap: (k,), from the eigenvalues of a pair's cluster to all others of the form, at least; 0
            where that is not proven.
        sine: (k,), sin of the largest angle between the space of the pair's cluster, as computed,
            and the space of the same eigenvalues, by rank, after the change, at most; 1 where
            nothing is guaranteed.
    """

    decomposition: EigenDecomposition
    change: float
    norm: Norm
    movement: float
    gap: Tensor
    sine: Tensor
    to_frame = frame("gap", "pair")


@frozen_result()
class QuantisationStability:
    """Proven bounds on how far rounding the weights moves the eigenpairs of a map.

    Attributes:
        kind: of the rounding.
        quadratic_map: the rounded map, in float64.
        forms: one record for each direction.
    """

    kind: Kind
    quadratic_map: QuadraticMap
    forms: tuple[SpectrumStability, ...]


def spectrum_stability(
    form: QuadraticForm, changed: QuadraticForm, k: int | None = None
) -> SpectrumStability:
    """Return how far each eigenpair of a form can be from that of a form with other weights.

    Math: with Δ the difference of the two Q, |λ_i(Q + Δ) − λ_i(Q)| ≤ ‖Δ‖₂ by falling value (Weyl);
        sin θ ≤ ‖Δ‖₂ / (gap − ‖Δ‖₂) ≤ 2 ‖Δ‖₂ / gap where gap > 2 ‖Δ‖₂ (Davis–Kahan, with the gap of
        the changed form bounded by Weyl). Residuals of the decomposition are counted with ‖Δ‖₂.
    Cost: that of `eigendecompose` for the form; for ‖Δ‖₂, O(hidden · in² + in³) time, five (in, in)
        arrays and a copy of the branches (less where the neurons of both forms are fewer than half
        of the inputs), or, where memory does not allow that, ‖Δ‖_F in O(hidden² · in).

    Args:
        form: as it was.
        changed: as it is; hidden sizes may differ.
        k: how many pairs of the form, by falling |λ|; None for all.

    Raises: UsageError if one is no form, or they read different bases; ShapeError if they differ
        in width; NumericalError if a form did not pass its checks.
    Source: H. Weyl (1912); C. Davis, W. Kahan, The rotation of eigenvectors by a perturbation III
        (1970).
    """
    check_comparable(form, changed)
    return stability_of(eigendecompose(form, k), form, changed)


def stability_of(
    eig: EigenDecomposition, form: QuadraticForm, changed: QuadraticForm
) -> SpectrumStability:
    """Return `spectrum_stability` for pairs of the form that are at hand."""
    known = enclose_spectrum(eig)
    change, norm = norm_bound(changed, form)
    movement = change + known.slack
    gap, beyond = torch.zeros_like(eig.eigenvalues), eig.eigenvalues.new_zeros(0)
    for label in sorted(set(eig.cluster.tolist())):
        mine = eig.cluster == label
        low, high = eig.eigenvalues[mine].min(), eig.eigenvalues[mine].max()
        if known.low <= known.high:  # an interval: as far as its nearest point
            beyond = torch.stack([low, high]).clamp(known.low, known.high)
        others = torch.cat([eig.eigenvalues[~mine], beyond])
        apart = torch.maximum(low - others, others - high).clamp(min=0.0)
        gap[mine] = apart.min() if len(apart) else torch.inf
    guaranteed = gap > 2 * movement
    room = torch.where(guaranteed, gap - movement, 1.0)
    sine = torch.where(guaranteed, movement / room, 1.0)
    return SpectrumStability(eig, change, norm, movement, gap, sine)


def quantisation_stability(
    f: QuadraticMap, kind: Kind, directions: Tensor | None = None, k: int | None = None
) -> QuantisationStability:
    """Return how far rounding the weights can move the eigenpairs along each output direction.

    Cost: that of `spectrum_stability` for each direction.

    Args:
        f: the map.
        kind: "float16", "bfloat16" or "int8"; see `quantise`.
        directions: (num, out), one output direction a row; None reads every output as it is.
        k: how many pairs of each form; None for all.

    Raises: UsageError if f is no map, the kind is not known, or a weight does not fit; ShapeError
        if the directions do not fit; NonFiniteError if one holds NaN or infinity; NumericalError
        if a form did not pass its checks.
    """
    short = quantise(f, kind)
    check_directions(directions, f.sizes.d_out)
    whole = f.detach().to(torch.float64)
    if directions is None:
        outputs = range(f.sizes.d_out)
        pairs = ((output_form(whole, output), output_form(short, output)) for output in outputs)
    else:
        pairs = ((whole.form(row), short.form(row)) for row in directions)
    forms = (spectrum_stability(*pair, k) for pair in pairs)
    return QuantisationStability(kind, short, tuple(forms))


def norm_bound(changed: QuadraticForm, form: QuadraticForm) -> tuple[float, Norm]:
    """Return a proven bound on ‖Q' − Q‖₂, and which norm it is."""
    n, both = form.d_in, (changed, form)
    hidden = [one.matrix.d_hidden for one in both]
    if 2 * sum(hidden) < n:  # the whole spectrum of Δ in the row space of its factors
        eig = eigendecompose(quadratic_difference(changed, form), 1)
        if bool(eig.complete):
            return float(truncation_error(eig, 0, 1.0).bound), "spectral"
    what, advice = f"the ({n}, {n}) array of a difference of forms", "read ‖Δ‖_F"
    try:
        check_memory(8 * n * (ARRAYS * n + 2 * max(hidden)), what, advice, device=form.device)
    except MemoryLimitError:
        return frobenius_bound(quadratic_difference(changed, form)), "frobenius"
    parts = [balanced_array(one) for one in both]
    unit = max((part.unit for part in parts if part.lost > 0), default=1.0)  # zeros have none
    if unit == torch.inf:
        raise NumericalError("products of the factors are beyond float64: rescale the weights.")
    if any(part.unit == 0 < part.lost for part in parts):  # its bound counts what is below float64
        return frobenius_bound(quadratic_difference(changed, form)), "frobenius"
    for part in parts:
        part.array.mul_(part.unit / unit if part.lost > 0 else 1.0)
    lost = sum(part.lost * (part.unit / unit) for part in parts if part.lost > 0)
    (delta, *_), (before, *_) = parts
    delta -= before
    del parts, part, before  # an array less
    bound, norm = array_norm(delta)
    return (bound + lost) * (1 + 8 * EPS) * unit + SMALLEST, norm


def array_norm(delta: Tensor) -> tuple[float, Norm]:
    """Return a proven bound on ‖Δ‖₂ of a symmetric array, and which norm it is."""
    # Math: let c be a little above the largest |λ| of Δ, as a solver found it, which need not be
    # trusted: where Cholesky's method runs to its end on A = cI ± Δ, A has no eigenvalue below
    # −γ tr A, γ = (n + 1) u / (1 − (n + 1) u), whatever the order of its sums, and tr A ≤ 2nc.
    # Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.3; S. M.
    # Rump, BIT 46 (2006), for this use of it.
    n = len(delta)
    if not bool(delta.any()):
        return 0.0, "spectral"
    with suppress(RuntimeError):  # torch.linalg.LinAlgError is one
        c = float(torch.linalg.eigvalsh(delta).abs().max()) * (1 + 4 * n**2 * EPS)
        level = c * torch.eye(n, dtype=delta.dtype, device=delta.device)
        ends = (torch.add(level, delta, alpha=sign) for sign in (1, -1))
        if all(int(torch.linalg.cholesky_ex(end).info) == 0 for end in ends):
            return c * (1 + 2 * n * (n + 4) * EPS), "spectral"
    return float(delta.norm()) * (1 + n**2 * EPS), "frobenius"


class BalancedArray(NamedTuple):
    """Q of a form as an array in a unit, and what forming it lost at most, in Frobenius norm."""

    array: Tensor
    unit: float
    lost: float


def balanced_array(form: QuadraticForm) -> BalancedArray:
    forms = problem_of_form(form).forms
    return BalancedArray(forms.dense(0), float(forms.units[0]), float(worst_rounding(forms)[0]))


def check_comparable(form: QuadraticForm, changed: QuadraticForm) -> None:
    for name, one in (("form", form), ("changed", changed)):
        check_type(name, one, QuadraticForm, "read one output of a map with f.form(u)")
    if form.d_in != changed.d_in:
        raise ShapeError(f"the forms read {form.d_in} and {changed.d_in} inputs: they must agree.")
    if form.basis != changed.basis:
        raise UsageError(
            f"the forms read the {form.basis} and the {changed.basis} basis: "
            f"{how_to_compare(form.basis, changed.basis)}"
        )
