"""Output directions: one output, class-centred outputs, a contrast, and duals of given ones."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import (
    as_integer,
    check_count,
    check_dense_tensor,
    check_float_tensor,
    check_type,
)
from bilens.base.errors import ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

EPS = torch.finfo(torch.float64).eps


def raw_directions(d_out: int, outputs: Sequence[int] | None = None) -> Tensor:
    """Return float64 rows of the (out, out) identity: row c reads output c as it is.

    `outputs` are the rows to return, in the order given; None for all of them.
    """
    chosen = range(check_count("d_out", d_out, minimum=1)) if outputs is None else outputs
    rows = torch.zeros(len(chosen), d_out, dtype=torch.float64)
    rows[torch.arange(len(chosen)), torch.tensor(chosen)] = 1.0
    return rows


def centred_directions(d_out: int, outputs: Sequence[int] | None = None) -> Tensor:
    """Return float64 rows e_c − 1/out of an (out, out) array: output c against the mean.

    Adding one form to all classes changes no softmax prediction, so a reading of a class is
    defined only up to that form; the class-centred reading removes it (softmax gauge).
    `outputs` as in `raw_directions`.
    """
    return raw_directions(d_out, outputs) - 1 / d_out


def largest_outputs(scores: Tensor, whole: Tensor) -> Tensor:
    """Return which of the outputs of a truncated map is the largest, (outputs, …) → (…).

    It is −1, no answer, where several are that are not so of the whole map, whose scores are given.
    """
    largest = scores == scores.amax(dim=0)
    cut = (largest.sum(dim=0) > 1) & (largest != (whole == whole.amax(dim=0))).any(dim=0)
    return scores.argmax(dim=0).masked_fill(cut, -1)


def check_directions(directions: Tensor | None, d_out: int) -> None:
    """Refuse what are no (num, out) directions; a row that is not finite passes."""
    if directions is None:
        return
    shape = check_dense_tensor("directions", directions, num_axes=2)
    if shape[1] != d_out or shape[0] == 0:
        raise ShapeError(
            f"directions has shape {shape}; expected (num, {d_out}), one output direction a row."
        )


def with_outputs(f: QuadraticMap, read: Callable[[Tensor], Tensor]) -> QuadraticMap:
    """Return a map whose parts are read along their output axis; factors are shared."""
    return QuadraticMap(
        BilinearTensor(read(f.tensor.down), f.tensor.left, f.tensor.right),
        None if f.linear is None else read(f.linear),
        None if f.constant is None else read(f.constant),
        f.basis,
    )


def outputs_of(
    f: QuadraticMap, outputs: Sequence[int] | None = None, *, centred: bool = False
) -> QuadraticMap:
    """Return the map of some outputs, or of each against the mean of all; factors are shared."""
    chosen = None if outputs is None else torch.tensor(outputs, device=f.tensor.down.device)

    def select_outputs(part: Tensor) -> Tensor:
        kept = part if chosen is None else part[chosen]
        return kept - part.mean(dim=0) if centred else kept

    return with_outputs(f, select_outputs)


def output_form(f: QuadraticMap, output: int) -> QuadraticForm:
    down, left, right = f._factors()
    linear, constant = f._affine()
    matrix = InteractionMatrix(left, right, down[output])
    return QuadraticForm(matrix, linear[output], constant[output], f.basis)


def contrast_direction(
    d_out: int | Sequence[str], positive: int | str, negative: int | str
) -> Tensor:
    """Return the (out,) float64 direction e_positive − e_negative: one logit against another.

    Args:
        d_out: how many outputs there are, or their names, such as `model.output_names`.
        positive: the number of an output, from 0, or its name where names are given.
        negative: the other one.

    Raises: UsageError if one is no output, or both are the same.
    """
    names = list(d_out) if isinstance(d_out, list | tuple) else []
    outputs = range(len(names) or check_count("d_out", d_out, minimum=1))  # type: ignore[arg-type]
    first, second = (
        names.index(one) if isinstance(one, str) and one in names else as_integer(one)
        for one in (positive, negative)
    )
    if first not in outputs or second not in outputs or first == second:
        known = f", or of {', '.join(names)}" if names else ""
        raise UsageError(
            f"a contrast needs two different outputs between 0 and {len(outputs) - 1}{known}, "
            f"got {positive!r} and {negative!r}."
        )
    direction = torch.zeros(len(outputs), dtype=torch.float64)
    direction[first], direction[second] = 1.0, -1.0
    return direction


def in_centred_basis(f: QuadraticMap) -> QuadraticMap:
    """Return the out − 1 coordinates of class-centred outputs in an orthonormal basis."""
    # Lengths and singular values are those of `outputs_of(f, centred=True)`, and no coordinate
    # depends on the others. Row k of the basis, which is not built, is (e_0 + … + e_k − (k + 1)
    # e_{k+1}) / √((k + 1)(k + 2)) (Helmert).
    sizes = torch.arange(
        1, check_count("d_out", f.sizes.d_out, minimum=2), device=f.tensor.down.device
    )

    def contrast_outputs(part: Tensor) -> Tensor:
        count = sizes.to(part).view(-1, *[1] * (part.ndim - 1))
        return (part[:-1].cumsum(dim=0) - count * part[1:]) / (count * (count + 1)).sqrt()

    return with_outputs(f, contrast_outputs)


def from_centred_basis(direction: Tensor) -> Tensor:
    """Return (..., out − 1) directions of `in_centred_basis` as directions of the outputs."""
    count = torch.arange(1, direction.shape[-1] + 1).to(direction)
    share = direction / (count * (count + 1)).sqrt()
    result = direction.new_zeros(*direction.shape[:-1], direction.shape[-1] + 1)
    result[..., :-1] = share.flip(-1).cumsum(dim=-1).flip(-1)  # e_j is in every row from j on
    result[..., 1:] -= count * share
    return result


@frozen_result()
class DualExpression:
    """f ≈ Σ_k dual_k q_k with q_k = u_k·f, for given output directions u_k; float64.

    Exact if the directions span the outputs; otherwise it is U⁺U f, the part of f in their span.

    Attributes:
        directions: U, (num, out), the rows u_k.
        duals: U⁺, (out, num), the columns u_k⁺.
        forms: the q_k, with linear and constant terms.
        relative_error: ‖B − Σ_k u_k⁺ ⊗ Q_{u_k}‖/‖B‖, exactly 0 if the directions span the outputs.
        linear_error: the same of the linear term; 0 if it is zero.
        constant_error: the same of the constant; 0 if it is zero.
        rank: how many of the directions are independent: singular values of U above
            max(num, out) · eps of the largest.
        condition: largest over smallest of those singular values: how much the duals amplify an
            error of the forms.
        biorthogonal: u_j·u_k⁺ = 1 for j = k and 0 otherwise: dual k is seen by direction k alone.
            That needs independent directions: never with more of them than outputs.
        map: the expression as a map of hidden units with the original input factors.
    """

    directions: Tensor
    duals: Tensor
    forms: tuple[QuadraticForm, ...]
    relative_error: float
    linear_error: float
    constant_error: float
    rank: int
    condition: float
    biorthogonal: bool
    map: QuadraticMap
    to_frame = frame("duals", "output", "direction", without=("directions", "forms"))


def dual_expression(f: QuadraticMap, directions: Tensor) -> DualExpression:
    """Write a map through the forms of the given output directions.

    Math: f → U⁺U f, so B = Σ_k u_k⁺ ⊗ Q_{u_k} where U⁺U = I; U⁺ from the singular value
        decomposition U = W S Vᵀ. What is lost is f − V Vᵀ f, the part of f along the directions
        orthogonal to all rows of U.
    Cost: O(num · out · (min(num, out) + hidden + in)); O(hidden² · (in + out)) more for the error
        if the directions do not span the outputs. Memory of the order of the arguments and the
        result, all in float64, and at most 128 MiB: no (out, out) array.

    Args:
        f: the map, any floating dtype.
        directions: U, (num, out), one output direction a row, in any scale.

    Raises: ShapeError if the directions do not have one entry for each output; NonFiniteError if
        one holds NaN or infinity; UsageError if every direction is zero, or f is no map.
    Source: arXiv:2410.08417, App. K. Its remark that the duals are biorthogonal holds for
        independent directions only.
    """
    check_type("f", f, QuadraticMap, "one form is read with f.form(u)")
    shape = check_float_tensor("directions", directions, num_axes=2)
    check_directions(directions, f.sizes.d_out)
    f = f.detach().to(torch.float64)
    rows = directions.detach().double().to(f.tensor.down.device)
    largest = rows.abs().max()
    if not largest > 0:
        raise UsageError("every direction is zero: pass at least one that reads an output.")
    # In a scale of its own, where the squares of a decomposition are harmless.
    outer, sizes, inner = torch.linalg.svd(rows / largest, full_matrices=False)
    rank = int((sizes > max(shape) * EPS * sizes[0]).sum())
    inner = inner[:rank]  # (rank, out), an orthonormal basis of what is read
    duals = (inner.T / sizes[:rank]) @ outer[:, :rank].T / largest
    read = f.compose_output(rows)
    return DualExpression(
        directions=rows,
        duals=duals,
        forms=tuple(f.form(row) for row in rows),
        relative_error=_lost_share(f.tensor, inner),
        linear_error=_lost_part(f.linear, inner),
        constant_error=_lost_part(f.constant, inner),
        rank=rank,
        condition=float(sizes[0] / sizes[rank - 1]),
        biorthogonal=rank == len(rows),
        map=read.compose_output(duals),
    )


def _lost_share(tensor: BilinearTensor, basis: Tensor) -> float:
    """Return the share of ‖B‖ orthogonal to the orthonormal rows of `basis`."""
    if len(basis) == tensor.sizes.d_out:
        return 0.0
    norm = float(tensor.norm())
    part = BilinearTensor(_orthogonal_part(tensor.down, basis), tensor.left, tensor.right)
    return float(part.norm()) / norm if norm > 0 else 0.0


def _lost_part(part: Tensor | None, basis: Tensor) -> float:
    """Return the share of the norm of an (out, ...) term orthogonal to the rows of `basis`."""
    if part is None or len(basis) == len(part) or not bool(part.any()):
        return 0.0
    return float(_orthogonal_part(part, basis).norm() / part.norm())


def _orthogonal_part(part: Tensor, basis: Tensor) -> Tensor:
    return part - basis.T @ (basis @ part)
