"""Decompositions joined to batches, and batches taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status


def stack(singles: Sequence[EigenDecomposition]) -> EigenDecomposition:
    """Return decompositions of one form each as a batch."""
    tensors: dict[str, Any] = {
        name: torch.stack([getattr(single, name) for single in singles])
        for name in tensor_fields(singles[0])
    }
    return replace(
        singles[0],
        **tensors,
        status=tuple(one_of(Status, single.status) for single in singles),
        proof=tuple(one_of(Proof, single.proof) for single in singles),
    )


def take(batch: EigenDecomposition, chosen: Tensor) -> EigenDecomposition:
    """Return some forms of a batch, by (num,) positions."""
    status, proof = tuple_of(batch.status), tuple_of(batch.proof)
    tensors: dict[str, Any] = {name: getattr(batch, name)[chosen] for name in tensor_fields(batch)}
    positions = chosen.tolist()
    return replace(
        batch,
        **tensors,
        status=tuple(status[index] for index in positions),
        proof=tuple(proof[index] for index in positions),
    )


def assemble(parts: Sequence[tuple[Tensor, EigenDecomposition]]) -> EigenDecomposition:
    """Return one batch of several, in the order of the positions that come with each.

    Args:
        parts: positions (num,) and the batch of that many forms; together every position from 0
            on exactly once.
    """
    batches = [batch for _, batch in parts]
    order = torch.cat([positions for positions, _ in parts])
    joined: dict[str, Any] = {}
    for name in tensor_fields(batches[0]):
        whole = getattr(batches[0], name)
        joined[name] = whole.new_empty(len(order), *whole.shape[1:])
        for positions, batch in parts:
            joined[name][positions] = getattr(batch, name)
    for name in ("status", "proof"):
        values = [value for batch in batches for value in tuple_of(getattr(batch, name))]
        joined[name] = tuple(values[place] for place in torch.argsort(order).tolist())
    return replace(batches[0], **joined)


Kind = TypeVar("Kind", Status, Proof)


def one_of(kind: type[Kind], value: object) -> Kind:
    """Return the status or proof of a single form."""
    assert isinstance(value, kind), "a single form has one"
    return value


def tuple_of(value: Any) -> tuple[Any, ...]:
    """Return the statuses or proofs of a batch."""
    assert isinstance(value, tuple), "a batch has a tuple"
    return value


def tensor_fields(record: EigenDecomposition) -> list[str]:
    """Return the names of the fields that hold a tensor."""
    names = [field.name for field in fields(record)]
    return [name for name in names if isinstance(getattr(record, name), Tensor)]
