"""Exact attribution of an output to its inputs, and to pairs of them (Shapley)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.gaussian import checked_covariance
from bilens.algebra.interactions.streaming_statistics import RunningTop
from bilens.algebra.quadratic_form import QuadraticForm, check_rows, checked_vector
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import as_integer, check_count, check_finite, check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.memory import MemoryEstimate, check_memory
from bilens.base.notebook import frozen_result

WORK_BYTES = 128 * 2**20  # what the rows at work may take beside the result


def attribute(
    f: QuadraticMap,
    x: Tensor,
    baseline: Tensor | None = None,
    *,
    outputs: Sequence[int] | None = None,
    target: Tensor | Sequence[int] | None = None,
    memory_limit: int | str | None = None,
) -> Tensor:
    """Return the exact share of each input in each output: φ sums over inputs to f(x) − f(x₀).

    For a quadratic map the Shapley values of the game that sets inputs to x one by one, the
    others at the baseline x₀, are the integrated gradients along the straight line from x₀ to x.

    Math: φ_ci = Δ_i (Q_c (x + x₀) + b_c)_i with Δ = x − x₀. From the factors, s = x + x₀:
        Q_c s = ½ Σ_h P_ch [(R s)_h l_h + (L s)_h r_h].
    Cost: 4 · batch · out · hidden · in operations in two large products, half of it where left is
        right; or 2 · out · in² · (hidden + batch), through one (in, in) array at a time, where
        that is less; 8 · batch · hidden · in for one `target` of each input. The result and
        128 MiB at most beside it.

    Args:
        f: the map.
        x: (batch, in), any floating dtype; read in the dtype of the map.
        baseline: x₀, (in,) for all inputs or (batch, in); None is zero.
        outputs: which outputs, in the order given; None for all.
        target: (batch,), instead: one output for each input, such as its class.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns: (batch, out, in) in the dtype of the map, in units of the output; (batch, 1, in) with
        `target`.
    Raises: UsageError if f is no map, there is no such output, or both outputs and target are
        given; ShapeError if x or the baseline does not fit; NonFiniteError if one is not finite
        or a value overflows; MemoryLimitError if the result does not fit.
    Source: M. Sundararajan, A. Taly, Q. Yan, Axiomatic Attribution for Deep Networks (2017), and
        L. S. Shapley (1953), in the closed form of a quadratic.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    with torch.no_grad():
        f = chosen_outputs(f, outputs)
        x = as_inputs(x, f)
        positions = None if target is None else as_target(target, outputs, f, len(x))
        rows = rows_at_work(f, len(x), 1 if positions is not None else f.sizes.d_out, memory_limit)
        total = delta = x
        if baseline is not None:
            start = as_baseline(baseline, x)
            total, delta = x + start, x - start
        if positions is None and cheaper_through_arrays(f, len(x)):
            result = in_arrays(f, total)
        else:
            result = in_factors(f, total, rows, positions)
        if f.linear is not None:
            result += f.linear if positions is None else f.linear[positions][:, None]
        result *= delta[:, None]
        return check_finite("the attribution", result)


def attribute_to_background(
    f: QuadraticMap,
    x: Tensor,
    mean: Tensor,
    covariance: Tensor,
    *,
    outputs: Sequence[int] | None = None,
    memory_limit: int | str | None = None,
) -> Tensor:
    """Return exact interventional Shapley values against background data: they sum to f(x) − E f.

    The mean of `attribute(f, x, z)` over a background z, of which only mean and covariance
    matter: for samples Z these are Z.mean(0) and torch.cov(Z.T, correction=0).

    Math: φ_ci = (x − μ)_i (Q_c (x + μ) + b_c)_i − (Q_c Σ)_ii.
    Cost: that of `attribute`, and O(hidden · in²) for the last term.

    Args:
        f: the map.
        x: (batch, in), any floating dtype.
        mean: μ of the background, (in,).
        covariance: Σ of the background, (in, in).
        outputs: as in `attribute`.
        memory_limit: as in `attribute`.

    Returns: (batch, out, in) in the dtype of the map.
    Raises: as `attribute`, and UsageError if Σ is not symmetric.
    Source: D. Janzing, L. Minorics, P. Blöbaum, Feature relevance quantification in explainable
        AI: a causal problem (2020), in the closed form of a quadratic.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    d_in = f.sizes.d_in
    checked_vector("mean", mean, d_in)
    covariance = checked_covariance(covariance, d_in)
    result = attribute(f, x, mean, outputs=outputs, memory_limit=memory_limit)
    with torch.no_grad():
        down, left, right = factors(chosen_outputs(f.detach(), outputs))
        sigma = covariance.to(left)
        spread = left * (right @ sigma) + right * (left @ sigma)
        result -= (down @ spread) / 2
        return check_finite("the attribution", result)


def in_factors(f: QuadraticMap, total: Tensor, rows: int, target: Tensor | None = None) -> Tensor:
    """Return Q_c s for every row s of `total`, (batch, out, in), from the factors."""
    down, left, right = factors(f)
    d_out, d_hidden, d_in = f.sizes
    result = total.new_empty(len(total), d_out if target is None else 1, d_in)
    same = is_symmetric(f)
    weights = down if same else down / 2
    for start in range(0, len(total), rows):
        part = total[start : start + rows]
        flat = result[start : start + rows].view(-1, d_in)
        half = weights if target is None else weights[target[start : start + rows]][:, None]
        weighted = ((part @ right.T)[:, None] * half).view(-1, d_hidden)
        torch.mm(weighted, left, out=flat)
        if not same:
            torch.mul((part @ left.T)[:, None], half, out=weighted.view(len(part), -1, d_hidden))
            flat.addmm_(weighted, right)
    return result


def in_arrays(f: QuadraticMap, total: Tensor) -> Tensor:
    """The same, one (in, in) array at a time."""
    down, left, right = factors(f)
    result = total.new_empty(len(total), f.sizes.d_out, f.sizes.d_in)
    for output, weight in enumerate(down):
        half = (left.T * (weight / 2)) @ right
        result[:, output] = total @ half.add_(half.T.clone())
    return result


def cheaper_through_arrays(f: QuadraticMap, batch: int) -> bool:
    """Tell whether 2 in² (hidden + batch) is less than what the factors take, for each output."""
    _, d_hidden, d_in = f.sizes
    products = 1 if is_symmetric(f) else 2
    fits = 2 * d_in**2 * f.tensor.down.element_size() <= WORK_BYTES
    return fits and d_in * (d_hidden + batch) < products * batch * d_hidden


def is_symmetric(f: QuadraticMap) -> bool:
    return torch.equal(f.tensor.left, f.tensor.right)


def factors(f: QuadraticMap) -> tuple[Tensor, Tensor, Tensor]:
    return f.tensor.down, f.tensor.left, f.tensor.right


def chosen_outputs(f: QuadraticMap, outputs: Sequence[int] | None) -> QuadraticMap:
    """Return the map that has some of the outputs only, without a copy of left and right."""
    if outputs is None:
        return f
    positions = [as_integer(output) for output in outputs]
    if not positions or any(position not in range(f.sizes.d_out) for position in positions):
        raise UsageError(
            f"outputs={list(outputs)!r}; the map has outputs 0 to {f.sizes.d_out - 1}: pass a "
            "list of at least one of them."
        )
    return outputs_of(f, [position for position in positions if position is not None])


def as_target(
    target: Tensor | Sequence[int], outputs: Sequence[int] | None, f: QuadraticMap, batch: int
) -> Tensor:
    if outputs is not None:
        raise UsageError("both outputs and target are given: pass one of them.")
    d_out = f.sizes.d_out
    if isinstance(target, Tensor) and not target.is_floating_point():
        positions = target
    else:
        given = target.reshape(-1).tolist() if isinstance(target, Tensor) else target
        whole = [as_integer(position) for position in given]
        positions = torch.tensor([-1 if position is None else position for position in whole])
    if positions.shape != (batch,) or not bool(((positions >= 0) & (positions < d_out)).all()):
        raise UsageError(
            f"target must name one of the outputs 0 to {d_out - 1} for each of the {batch} "
            f"inputs, got {str(target)[:80]}."
        )
    return positions.to(device=f.tensor.down.device, dtype=torch.int64)


def as_inputs(x: Tensor, f: QuadraticMap) -> Tensor:
    check_rows(x, f.sizes.d_in)
    rows = x.detach().to(f.tensor.down)
    return rows if rows.dtype == x.dtype else check_finite("x in the dtype of the map", rows)


def as_baseline(baseline: Tensor, x: Tensor) -> Tensor:
    shape = check_float_tensor("baseline", baseline)
    if shape not in ((x.shape[1],), tuple(x.shape)):
        raise ShapeError(
            f"baseline has shape {shape}; expected ({x.shape[1]},) for all inputs, or "
            f"{tuple(x.shape)}, one each."
        )
    return check_finite("the baseline in the dtype of the map", baseline.detach().to(x))


def rows_at_work(f: QuadraticMap, batch: int, d_out: int, limit: int | str | None) -> int:
    _, d_hidden, d_in = f.sizes
    itemsize = f.tensor.down.element_size()
    result, row = batch * d_out * d_in * itemsize, (d_out + 2) * d_hidden * itemsize
    return MemoryEstimate(result, row).at_a_time(
        batch,
        WORK_BYTES,
        f"the attribution of {batch} inputs to {d_out} outputs",
        "pass fewer inputs at a time, choose some outputs with outputs=[...]",
        limit,
        device=f.device,
    )


BLOCK_BYTES = 64 * 2**20  # a block of the matrix that is streamed


@frozen_result()
class TopInteractions:
    """The pairs of inputs that interact most, by falling |value|.

    Attributes:
        first: (k,) int64, input i.
        second: (k,) int64, input j > i.
        values: (k,), the Shapley interaction index 2 q_ij Δ_i Δ_j, in units of the output; the
            smaller (i, j) comes first where sizes are equal.
    """

    first: Tensor
    second: Tensor
    values: Tensor
    to_frame = frame("values", "place")


def pairwise_interactions(
    form: QuadraticForm,
    x: Tensor,
    baseline: Tensor | None = None,
    *,
    memory_limit: int | str | None = None,
) -> Tensor:
    """Return the Shapley interaction index of every pair of inputs, exactly.

    It says how much setting two inputs to x at once does beyond setting each: whatever the other
    inputs are, f(both) − f(first) − f(second) + f(neither) is the same.

    Math: I_ij = 2 q_ij Δ_i Δ_j for i ≠ j, Δ = x − x₀; zeros on the diagonal.
    Cost: 2 · hidden · in² operations, 4 · in² numbers; `top_interactions` builds no array.

    Args:
        form: one output direction of a map.
        x: (in,), any floating dtype.
        baseline: x₀, (in,); None is zero.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns: (in, in) float64, symmetric.
    Raises: UsageError if form is no form; ShapeError if x or the baseline does not fit;
        NonFiniteError if one is not finite or a value overflows; MemoryLimitError if the array
        does not fit.
    Source: M. Grabisch, M. Roubens, An axiomatic approach to the concept of interaction (1999).
    """
    left, right, weight = scaled_factors(form, x, baseline)
    check_memory(
        8 * 4 * form.d_in**2,
        f"the interactions of {form.d_in} inputs with each other",
        "use top_interactions",
        memory_limit,
        device=form.device,
    )
    half = (left.T * weight) @ right
    result = half.add_(half.T.clone())
    result.fill_diagonal_(0.0)
    return check_finite("the matrix of interactions", result)


def top_interactions(
    form: QuadraticForm, x: Tensor, k: int, baseline: Tensor | None = None
) -> TopInteractions:
    """Return the k pairs of inputs with the largest Shapley interaction index, exactly.

    Fewer where there are fewer. Arguments and errors otherwise as `pairwise_interactions`; the
    upper triangle is streamed in blocks of rows.

    Cost: 2 · hidden · in² operations; memory of a float64 copy of the factors and 64 MiB.
    Raises: UsageError, too, if k is no positive integer.
    """
    k = check_count("k", k, minimum=1)
    return strongest_pairs(*scaled_factors(form, x, baseline), k)[0]


def strongest_pairs(
    left: Tensor, right: Tensor, weight: Tensor, k: int
) -> tuple[TopInteractions, float]:
    """Return the k pairs with the largest |2 Q_ij|, and the sum of the squares of all."""
    d_in, total = left.shape[1], 0.0
    top = RunningTop.empty(k, left.device)
    rows = max(BLOCK_BYTES // (32 * d_in), 1)
    for start in range(0, d_in - 1, rows):
        mine = slice(start, min(start + rows, d_in))
        block = (left[:, mine].T * weight) @ right[:, start:]
        block.addmm_(right[:, mine].T * weight, left[:, start:])
        check_finite("a block of interactions", block)
        i, j = torch.triu_indices(len(block), d_in - start, offset=1, device=left.device)
        values = block[i, j]
        total += float(values.square().sum())
        top = top.added(values, ((i + start) * d_in + (j + start)).__getitem__)
    return TopInteractions(top.keys // d_in, top.keys % d_in, top.values), total


def scaled_factors(
    form: QuadraticForm, x: Tensor, baseline: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return left Δ, right Δ and the weights, float64: the factors of q_ij Δ_i Δ_j."""
    check_type("form", form, QuadraticForm, "read one output of a map with f.form(u)")
    form = form.detach()
    delta = as_row("x", x, form)
    if baseline is not None:
        delta = delta - as_row("baseline", baseline, form)
    matrix = form.matrix
    return matrix.left.double() * delta, matrix.right.double() * delta, matrix.weight.double()


def as_row(name: str, row: Tensor, form: QuadraticForm) -> Tensor:
    check_shape(name, row, (form.d_in,), advice="one input: x[i]")
    return row.detach().to(form.linear.device).double()
