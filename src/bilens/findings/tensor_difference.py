"""Compares every tensor of a model with the baseline's, readable as a layer or not."""

import math
from math import prod

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.matrix_change import is_low, matrix_change
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError
from bilens.findings.difference_headline import headline_of
from bilens.findings.tensor_likeness import TensorPair, correlation, rounded_to
from bilens.findings.tensor_matching import match_tensors
from bilens.io.stored_mlp import Store
from bilens.io.tensor_names import LAYER, is_stack, kind_of, paired
from bilens.records.layer_readings import FileChange, TensorChange, WholeDifference

BLOCK = 16  # numbers with one scale, in all formats of codes, or more


def compare_tensors(
    model: Store,
    baseline: Store,
    files: tuple[FileChange, ...] | None = None,
    *,
    same_file: bool = False,
    progress: Progress = silent,
) -> WholeDifference:
    """Compare all tensors with a baseline's, one pair in memory at a time.

    `files` are those beside the weights; `same_file` says that these have the same SHA-256.
    """
    found = match_tensors(model, baseline, progress)
    changes = []
    for done, pair in enumerate(found.pairs):
        progress("tensors", done, len(found.pairs))
        if not pair.same or pair.moved:
            changes.append(compare_pair(pair))
    names = paired(found.model, found.baseline)
    whole = WholeDifference(
        tensors=len(found.pairs),
        changed=tuple(changes),
        model_alone=tuple(name for name in found.model if name not in names),
        baseline_alone=tuple(name for name in found.baseline if name not in names.values()),
        other_shape=tuple(names),
        files=files,
    )
    return replace(whole, headline=headline_of(whole, found, same_file=same_file))


def compare_pair(pair: TensorPair) -> TensorChange:
    """Compare two tensors that are not the same, bit for bit, or not under the same name."""
    old, new = pair.baseline, pair.model
    kinds = [kind_of(one.name, new.shape) for one in (new, old)]
    kind, number = kinds[kinds[0] == "other"], LAYER.search(new.name) or LAYER.search(old.name)
    layer = int(number[1]) if number else None
    found = TensorChange(new.name, kind, layer, new.storage, old.storage, "not_finite")
    found = replace(found, baseline_name=old.name, entries=prod(new.shape))
    try:
        before, after = old.read_tensor(), new.read_tensor()
    except NonFiniteError:
        return found
    rounded = rounded_to(after, before)
    widened = "" if rounded else rounded_to(before, after)
    if not before.is_floating_point() or before.element_size() == 1:  # what is not computed in
        before, after = before.double(), after.double()
    parts = [
        matrix_change(*both)
        for both in zip(matrices(new.name, before), matrices(new.name, after), strict=True)
    ]
    full = min(matrices(new.name, before)[0].shape) if before.ndim > 1 else 0
    ranks = [part.rank for part in parts if part.rank is not None]
    rank = max(ranks) if len(ranks) == len(parts) else None
    size = float(torch.linalg.vector_norm(before, dtype=torch.float64))
    change = math.hypot(*(part.norm for part in parts)) / size if size > 0 else None
    summed = new.dtype != old.dtype and torch.float64 in (new.dtype, old.dtype)
    if summed and change is not None and change <= torch.finfo(torch.float32).eps:
        rank = 0  # a sum in float64 beside one that is stored
    state = "changed"
    if pair.moved:
        state = "moved"
    elif rank == 0 or rounded or widened:
        state = "rounding"
    elif rank is not None and is_low(rank, full) and rank < full - 1:  # one row less than all is
        state = "low_rank"  # what a change of the rows of a softmax leaves, whose sum is free
    elif full and new.rescaled:
        state = "rescaled"
    elif new.quantised_as != old.quantised_as and is_nearest(before, after, old.quantised_as):
        state = "quantised"
    elif same_numbers(before, after):
        state = "reordered"
    elif full and (rank is None or rank == full) and all(part.is_noise for part in parts):
        state = "noise"
    return replace(
        found,
        state=state,
        change=change,
        rank=rank if full else None,
        full=full,
        top_share=max(part.top_share for part in parts),
        rounded_to=rounded,
        baseline_rounded_to=widened,
        size=size,
        correlation=correlation(before, after),
    )


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, each as often, in whatever order."""
    sums = [float(part.double().sum()) for part in (one, other)]
    near = abs(sums[0] - sums[1]) <= 1e-9 * float(one.double().abs().sum())
    return near and torch.equal(one.flatten().sort().values, other.flatten().sort().values)


def is_nearest(before: Tensor, after: Tensor, quantised_before: str) -> bool:
    """Tell whether numbers were each rounded to the nearest that codes can say, in every block.

    Blocks have one scale: of sixteen along rows, as no format has smaller ones, or along columns.
    """
    wide, levels = (after, before) if quantised_before else (before, after)
    for turn in (False, True):
        if wide.ndim > 1 and not wide.shape[0 if turn else -1] % BLOCK:
            exact, rounded = (
                (part.flatten(1).T if turn else part).reshape(-1, 1, BLOCK)
                for part in (wide, levels)
            )
            away = (exact.transpose(1, 2) - rounded).abs()  # of each number from each level
            own = away.diagonal(dim1=1, dim2=2)
            slack = torch.finfo(torch.float16).eps * rounded.abs().amax(2)
            if bool((own <= away.amin(2) + slack).all()):
                return True
    return False


def matrices(name: str, tensor: Tensor) -> list[Tensor]:
    """Return a tensor as matrices: a stack one by one, a kernel with its outputs as rows."""
    if is_stack(name, tuple(tensor.shape)):
        return [*tensor]
    return [tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(1, -1)]
