"""Finds batch normalisations of one file that are multiplied into the weights of the other.

Behind a linear map or convolution y = W x + b, (y − mean) γ / √(variance + ε) + β is one map again:
W' = s W and b' = s (b − mean) + β, with s = γ / √(variance + ε) for each output.
"""

import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.findings.tensor_likeness import Matching, TensorPair, in_shape_of, numbers_in
from bilens.io.stored_mlp import StoredTensor
from bilens.records.tensor_changes import TensorChange

ENDINGS = (  # of gain, shift, mean and variance, as torch, Keras and Paddle call them
    ("weight", "bias", "running_mean", "running_var"),
    ("gamma", "beta", "moving_mean", "moving_variance"),
    ("w_0", "b_0", "w_1", "w_2"),
)
COUNTER = "num_batches_tracked"
OPPOSITE = {"model": "baseline", "baseline": "model"}
LARGEST_EPSILON = 0.1
ROUNDINGS = 16  # of the coarser type: of products, sums and a root


class Norm(NamedTuple):
    """A batch normalisation: how its tensors are called, and their numbers."""

    name: str
    tensors: tuple[str, ...]
    gain: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor


def match_folded(found: Matching) -> list[TensorChange]:
    """Take what is folded out of a matching; return what became of each weight.

    Only where all four tensors of a normalisation are left of one file. Cost: each of them is held
    to the weights of as many outputs.
    """
    changes = list[TensorChange]()
    for side, left, other in (
        ("baseline", found.baseline, found.model),
        ("model", found.model, found.baseline),
    ):
        for norm in [*norms_in(left)]:
            if change := fold(found, norm, side, left, other):
                changes.append(change)
    return changes


def norms_in(left: Mapping[str, StoredTensor]) -> Iterator[Norm]:
    """Yield the normalisations of which all four tensors are there."""
    for name in left:
        for endings in ENDINGS:
            stem, ending, port = re.fullmatch(rf"(.*?)({endings[2]})?(:0)?", name).groups()  # type: ignore[union-attr]
            names = tuple(f"{stem}{one}{port or ''}" for one in endings)
            shapes = {left[one].shape for one in names if one in left}
            if ending and {*names} <= {*left} and shapes == {left[name].shape[:1]}:
                numbers = (numbers_in(left[one]).double() for one in names)
                beside = [f"{stem}{COUNTER}"] if f"{stem}{COUNTER}" in left else []
                yield Norm(stem.rstrip("./"), (*names, *beside), *numbers)


def fold(
    found: Matching,
    norm: Norm,
    side: str,
    left: dict[str, StoredTensor],
    other: dict[str, StoredTensor],
) -> TensorChange | None:
    """Look for the weights that a normalisation stands behind, and is part of in the other file."""
    for plain, made, axis in weights_of(found, norm, side, left, other):
        before, after = numbers_in(plain).double(), numbers_in(made).double()
        rows, scaled = (part.movedim(axis, 0).flatten(1) for part in (before, after))
        if len(rows) != len(norm.gain):
            continue
        ratio = (rows * scaled).sum(1) / rows.square().sum(1)
        guesses = (norm.gain / ratio).square() - norm.variance
        epsilon = float(guesses[guesses.isfinite()].median()) if guesses.isfinite().any() else -1.0
        if not 0 <= epsilon <= LARGEST_EPSILON:
            continue
        scale = norm.gain / (norm.variance + epsilon).sqrt()
        size = float(after.norm())
        residual = float((scaled - scale[:, None] * rows).norm()) / size if size else 1.0
        eps = max(torch.finfo(one.dtype).eps for one in (plain, made))
        bias = bias_of(found, norm, scale, side, left, other, ROUNDINGS * eps)
        if residual <= ROUNDINGS * eps and bias is not None:
            mine, theirs = {*norm.tensors, plain.name, *bias[1:]}, {made.name, bias[0]}
            for store, used in ((left, mine), (other, theirs)):
                for name in used & store.keys():
                    del store[name]
            found.pairs[:] = [
                one
                for one in found.pairs
                if getattr(one, side).name not in mine
                and getattr(one, OPPOSITE[side]).name not in theirs
            ]
            new, old = (made, plain) if side == "baseline" else (plain, made)
            found.pairs.append(TensorPair(new, old, "folded"))
            stored = new.storage, old.storage
            return TensorChange(
                new.name, "other", None, *stored, "folded", baseline_name=old.name,
                entries=prod(new.shape), size=float(numbers_in(old).double().norm()),
                norm=norm.name, residual=residual,
            )  # fmt: skip
    return None


def weights_of(
    found: Matching,
    norm: Norm,
    side: str,
    left: Mapping[str, StoredTensor],
    other: Mapping[str, StoredTensor],
) -> Iterator[tuple[StoredTensor, StoredTensor, int]]:
    """Yield weights with as many outputs, what may be the same in the other file, and the axis."""
    pairs = [one for one in found.pairs if not one.same]
    both = [(getattr(one, side), getattr(one, OPPOSITE[side])) for one in pairs]
    both += [(one, two) for one in left.values() for two in other.values()]
    for plain, made in both:
        if len(plain.shape) > 1 and sorted(plain.shape) == sorted(made.shape):
            turned = plain if plain.shape == made.shape else None
            if turned is None and len(plain.shape) == 2:
                turned = in_shape_of(made, plain, (1, 0))
            for axis in (0, 1, len(plain.shape) - 1):
                if turned is not None and made.shape[axis] == len(norm.gain):
                    yield turned, made, axis


def bias_of(
    found: Matching,
    norm: Norm,
    scale: Tensor,
    side: str,
    left: Mapping[str, StoredTensor],
    other: Mapping[str, StoredTensor],
    most: float,
) -> tuple[str, ...] | None:
    """Return the name of the bias without the normalisation, and of the one with it if it has any.

    None where no bias is what the normalisation makes of one.
    """
    mine = [*left.values(), *(getattr(one, side) for one in found.pairs)]
    theirs = [*other.values(), *(getattr(one, OPPOSITE[side]) for one in found.pairs)]
    vectors = [one for one in mine if one.shape == norm.gain.shape and one.name not in norm.tensors]
    for made in (one for one in theirs if one.shape == norm.gain.shape):
        value = numbers_in(made).double()
        for bias in (None, *vectors):
            given = torch.zeros_like(scale) if bias is None else numbers_in(bias).double()
            wanted = scale * (given - norm.mean) + norm.shift
            size = norm.shift.norm() + (scale * norm.mean).norm() + (scale * given).norm()
            if float((value - wanted).norm()) <= most * float(size):
                return (made.name,) if bias is None else (made.name, bias.name)
    return None
