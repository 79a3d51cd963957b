"""Compares every tensor of a model with the baseline's, readable as a layer or not."""

import math
from dataclasses import replace as replaced

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.matrix_change import is_low, matrix_change
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import LAYER, is_stack, kind_of, paired
from bilens.records.layer_readings import FileChange, TensorChange, WholeDifference


def compare_tensors(
    model: Store,
    baseline: Store,
    files: tuple[FileChange, ...] | None = None,
    *,
    gguf: bool = False,
    progress: Progress = silent,
) -> WholeDifference:
    """Compare all tensors with a baseline's, one pair in memory at a time.

    `files` are those beside the weights; a `gguf` file stacks what others have one by one.
    """
    if gguf:
        model, baseline = apart(model), apart(baseline)
    names = paired(model, baseline)
    alike = {n: other for n, other in names.items() if model[n].shape == baseline[other].shape}
    changes = []
    for done, (name, other) in enumerate(alike.items()):
        progress("tensors", done, len(alike))
        changes.append(compare_pair(baseline[other], model[name]))
    known = {*names.values()}
    return WholeDifference(
        tensors=len(alike),
        changed=tuple(change for change in changes if change is not None),
        model_alone=tuple(name for name in model if name not in names),
        baseline_alone=tuple(name for name in baseline if name not in known),
        other_shape=tuple(name for name in names if name not in alike),
        files=files,
    )


def apart(store: Store) -> Store:
    """Return tensors with stacks of experts of GGUF one by one, as other files have them."""
    found = dict[str, StoredTensor]()
    for name, tensor in store.items():
        stem, stacked, end = name.partition("_exps")
        names = [f"{stem}.{k}{end}" for k in range(tensor.shape[0] if stacked else 0)]
        parts = {key: replaced(tensor.at_index(k), name=key) for k, key in enumerate(names)}
        found |= parts or {name: tensor}
    return found


def compare_pair(old: StoredTensor, new: StoredTensor) -> TensorChange | None:
    """Compare two tensors; None where all bits are the same."""
    kind, number = kind_of(new.name, new.shape), LAYER.search(new.name)
    layer = int(number[1]) if number else None
    found = TensorChange(new.name, kind, layer, new.storage, old.storage, "not_finite")
    try:
        before, after = old.read_tensor(), new.read_tensor()
    except NonFiniteError:
        return None if same_bits(*(one.fetch(one.block) for one in (old, new))) else found
    if same_bits(before, after):
        return None
    if not before.is_floating_point() or before.element_size() == 1:  # what is not computed in
        before, after = before.double(), after.double()
    pairs = [*zip(matrices(new.name, before), matrices(new.name, after), strict=True)]
    parts = [matrix_change(*pair) for pair in pairs]
    full = min(pairs[0][0].shape) if before.ndim > 1 else 0
    ranks = [part.rank for part in parts if part.rank is not None]
    rank = max(ranks) if len(ranks) == len(parts) else None
    size = float(torch.linalg.vector_norm(before, dtype=torch.float64))
    change = math.hypot(*(part.norm for part in parts)) / size if size > 0 else None
    summed = new.dtype != old.dtype and torch.float64 in (new.dtype, old.dtype)
    if summed and change is not None and change <= torch.finfo(torch.float32).eps:
        rank = 0  # a sum in float64 beside one that is stored
    state = "changed"
    if rank == 0:
        state = "rounding"
    elif rank is not None and is_low(rank, full) and rank < full - 1:  # one row less than all is
        state = "low_rank"  # what a change of the rows of a softmax leaves, whose sum is free
    elif full and new.rescaled:
        state = "rescaled"
    elif full and (rank is None or rank == full) and all(part.is_noise for part in parts):
        state = "noise"
    top = max(part.top_share for part in parts)
    rank = rank if full else None
    return replace(found, state=state, change=change, rank=rank, full=full, top_share=top)


def same_bits(one: Tensor, other: Tensor) -> bool:
    bits = (part.contiguous().reshape(-1).view(torch.uint8) for part in (one, other))
    return one.dtype == other.dtype and torch.equal(*bits)


def matrices(name: str, tensor: Tensor) -> list[Tensor]:
    """Return a tensor as matrices: a stack one by one, a kernel with its outputs as rows."""
    if is_stack(name, tuple(tensor.shape)):
        return [*tensor]
    return [tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(1, -1)]
