"""Decompositions joined to batches, and batches taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.ranking import Which, chosen_positions


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


def select(batch: EigenDecomposition, k: int, which: Which) -> EigenDecomposition:
    """Return k pairs of each form of a batch of whole spectra, from another end of the spectrum.

    Args:
        batch: whole spectra.
        k: how many pairs, or all if there are fewer.
        which: the end of the spectrum.
    """
    kept = min(k, batch.eigenvalues.shape[1])
    chosen = torch.stack([chosen_positions(values, kept, which) for values in batch.eigenvalues])
    pairs = {
        name: getattr(batch, name).gather(1, chosen)
        for name in ("eigenvalues", "residuals", "converged", "cluster", "cluster_size")
    }
    rows = chosen[:, :, None].expand(-1, -1, batch.eigenvectors.shape[2])
    everything = batch.eigenvalues.square().sum(dim=1)
    share = pairs["eigenvalues"].square().sum(dim=1) / torch.where(everything > 0, everything, 1.0)
    return replace(
        batch,
        **pairs,
        eigenvectors=batch.eigenvectors.gather(1, rows),
        explained=batch.explained * torch.where(everything > 0, share, 1.0),
        which=which,
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
