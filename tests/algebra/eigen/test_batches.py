"""Decompositions joined and taken apart: every part of the record goes with its form.

Broken once: `proof` left out of `take`; it stayed that of the forms before.
"""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.batches import assemble, stack, take, tensor_fields, tuple_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from builders import randn, random_map

NUM = 9


@pytest.fixture
def batch() -> EigenDecomposition:
    """Nine forms of several statuses and proofs, some of them bad."""
    rows = randn(NUM, 6)
    rows[4], rows[7, 1] = 0, torch.nan
    return eigendecompose_all(random_map(0, 6, 20, 24), rows, k=3, method="lanczos")


def assert_equal(found: EigenDecomposition, expected: EigenDecomposition) -> None:
    for field in fields(expected):
        here, there = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(there, Tensor):
            torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)
        else:
            assert here == there, field.name


def test_the_batch_of_the_test_holds_forms_of_many_kinds(batch: EigenDecomposition) -> None:
    assert set(batch.status) == {Status.OK, Status.NOT_FINITE}
    assert {Proof.MASS, Proof.NONE} <= set(batch.proof)


def test_a_batch_is_the_stack_of_its_forms(batch: EigenDecomposition) -> None:
    assert_equal(stack([batch[c] for c in range(NUM)]), batch)


@pytest.mark.parametrize("chosen", [[0], [8, 0, 3], [7, 4], list(range(NUM)), [2, 2], []], ids=str)
def test_some_forms_of_a_batch_are_those_at_their_positions(
    batch: EigenDecomposition, chosen: list[int]
) -> None:
    taken = take(batch, torch.tensor(chosen, dtype=torch.int64))
    assert len(taken) == len(chosen)
    for position, single in zip(chosen, (taken[i] for i in range(len(chosen))), strict=True):
        assert_equal(single, batch[position])


@pytest.mark.parametrize("seed", range(5))
def test_parts_in_any_order_are_put_together_by_their_positions(
    batch: EigenDecomposition, seed: int
) -> None:
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(seed))
    parts = [(rows, take(batch, rows)) for rows in torch.split(order, [1, 4, 0, 3, 1])]
    assert_equal(assemble(parts), batch)


def test_every_tensor_of_the_record_is_carried(batch: EigenDecomposition) -> None:
    names = tensor_fields(batch)
    assert {field.name for field in fields(batch)} - set(names) == {
        "method",
        "which",
        "basis",
        "status",
        "proof",
    }
    assert all(len(getattr(batch, name)) == NUM for name in names)


def test_a_single_form_is_no_batch(batch: EigenDecomposition) -> None:
    with pytest.raises(AssertionError, match="a batch has a tuple"):
        tuple_of(batch[0].status)
    with pytest.raises(AssertionError, match="a single form has one"):
        stack([batch, batch])
