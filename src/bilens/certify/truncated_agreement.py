"""Which predictions provably survive that every class form keeps its k leading eigenpairs alone."""

import torch
from torch import Tensor

from bilens.algebra.directions import largest_outputs
from bilens.algebra.eigen.decomposition import EigenDecomposition, checked_k
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import NumericalError, ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result
from bilens.certify.inputs import checked_inputs
from bilens.certify.spectrum_enclosure import EPS
from bilens.certify.truncation import truncated_input_bound


@frozen_result()
class CertifiedAgreement:
    """How many predictions of the truncated map are proven to be those of the whole one.

    A certificate reads the truncated map and the norm of an input alone: it does not evaluate the
    map. It assumes the map, with its biases and exact arithmetic, and argmax as the decision.

    Attributes:
        certified: (batch,) bool, the class of the truncated map is provably that of the map.
        agrees: (batch,) bool, the two classes are equal, by evaluating both.
        predicted: (batch,) int64, class of the truncated map.
        margin: (batch,), the least margin against any other class that is guaranteed, in units of
            the output; positive where certified.
        k: pairs kept in each class form.
        certified_share: mean of `certified`.
        agreeing_share: mean of `agrees`; never smaller.
    """

    certified: Tensor
    agrees: Tensor
    predicted: Tensor
    margin: Tensor
    k: int
    certified_share: float
    agreeing_share: float
    to_frame = frame("margin", "row")


def certified_agreement(
    f: QuadraticMap, k: int, x: Tensor, eigs: EigenDecomposition | None = None
) -> CertifiedAgreement:
    """Return which predictions provably survive that every class form keeps k pairs alone.

    Math: with t_c the truncated logits and l_c ≤ q_c − t_c ≤ h_c from `truncated_input_bound`, the
        class a of the truncated map is that of the map if t_a + l_a > t_b + h_b for all b ≠ a.
    Cost: O(out · k · batch · in) time, O(batch · (out + k + in)) memory; without `eigs`
        a decomposition with all pairs first.

    Args:
        f: the map; its outputs are the classes.
        k: how many pairs each class form keeps.
        x: (batch, in), any floating dtype.
        eigs: `eigendecompose_all(f, k=...)` along the outputs as they are, complete, to spare the
            work; for class-centred forms pass the map `f.compose_output(centred_directions(m))`
            and its decomposition.

    Raises: as `truncated_input_bound`; UsageError, too, if there is no input, or `eigs` is not of
        f; NumericalError if a certified class is not that of f.
    Source: docs/guarantees.md.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    if f.sizes.d_out < 2:
        raise UsageError("the map has one output; a decision needs two classes.")
    x = checked_inputs(x, f.sizes.d_in)
    if len(x) == 0:
        raise UsageError("x holds no input: a share needs one.")
    f = f.detach().to(torch.float64)
    eigs = eigendecompose_all(f, k=None) if eigs is None else check_own(eigs, f)
    k = checked_k(eigs, k)
    limits = truncated_input_bound(eigs, k, x)
    logits, rounding = truncated_logits(eigs, k, x)
    predicted = logits.argmax(dim=0)
    rows = torch.arange(len(x))
    sure = (logits + limits.low - rounding)[predicted, rows]
    rivals = logits + limits.high + rounding
    rivals[predicted, rows] = -torch.inf
    margin = sure - rivals.amax(dim=0)
    certified = margin > 0
    whole = f(x).T
    agrees = whole.argmax(dim=0) == largest_outputs(logits, whole)
    if bool((certified & ~agrees).any()):
        raise NumericalError(
            f"{int((certified & ~agrees).sum())} certified classes are not those of f: eigs is of "
            "another map, or the outputs of f are rounding of terms that cancel."
        )
    return CertifiedAgreement(
        certified,
        agrees,
        predicted,
        margin,
        k,
        float(certified.double().mean()),
        float(agrees.double().mean()),
    )


def truncated_logits(eigs: EigenDecomposition, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the truncated forms and a bound on their rounding, (out, batch) each."""
    # Math: a product of n terms is off by n · eps of the lengths that go into it.
    length = x.norm(dim=1)
    pairs, sizes = [], []
    for values, vectors in zip(eigs.eigenvalues[:, :k], eigs.eigenvectors[:, :k], strict=True):
        overlaps = x @ vectors.T
        pairs.append(overlaps.square() @ values)
        sizes.append(overlaps.abs() @ values.abs() * length)
    size = torch.stack(sizes) + eigs.linear.norm(dim=1)[:, None] * length
    size = size + eigs.constant.abs()[:, None]
    logits = torch.stack(pairs) + eigs.linear @ x.T + eigs.constant[:, None]
    return logits, EPS * (2 * x.shape[1] + k + 16) * size


def check_own(eigs: EigenDecomposition, f: QuadraticMap) -> EigenDecomposition:
    check_type("eigs", eigs, EigenDecomposition, "use eigendecompose_all(f)")
    d_out, _, d_in = f.sizes
    if eigs.eigenvectors.ndim != 3 or eigs.linear.shape != (d_out, d_in):
        raise ShapeError(
            f"eigs has vectors of shape {tuple(eigs.eigenvectors.shape)}; expected "
            f"({d_out}, pairs, {d_in}), one form for each output."
        )
    same = f.basis == eigs.basis
    for own, theirs in ((f.linear, eigs.linear), (f.constant, eigs.constant)):
        same = same and torch.equal(theirs, torch.zeros_like(theirs) if own is None else own)
    if not same:
        raise UsageError(
            "eigs has other linear or constant terms, or another basis, than f: pass "
            "eigendecompose_all(f), or leave it out."
        )
    return eigs
