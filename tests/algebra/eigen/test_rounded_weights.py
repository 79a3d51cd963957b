"""Weights that are sums: what cancels in them is rounding, and dead neurons have no size."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn, vector

METHODS = ["dense", "factored", "lanczos"]


@pytest.mark.parametrize("method", METHODS)
def test_equal_outputs_have_nothing_left_when_read_against_their_mean(method: str) -> None:
    row = randn(1, 40, seed=1)
    f = QuadraticMap(
        BilinearTensor(row.expand(3, -1), randn(40, 30, seed=2), randn(40, 30, seed=3))
    )
    eigs = eigendecompose_all(f, centred_directions(3), k=5, method=method)  # type: ignore[arg-type]
    assert float(eigs.distinct_from_zero.abs().max()) == 0
    assert float(effective_rank(eigs.distinct_from_zero).max()) == 0


@pytest.mark.parametrize("directions", [None, torch.eye(2).double()], ids=["outputs", "along"])
@pytest.mark.parametrize("method", METHODS)
def test_a_dead_neuron_with_huge_rows_changes_nothing(
    method: str, directions: Tensor | None
) -> None:
    rows = torch.stack([vector(1, 0, 0), vector(1e180, 0, 0)])
    f = QuadraticMap(BilinearTensor(torch.stack([vector(1, 0), vector(2, 0)]), rows, rows))
    eigs = eigendecompose_all(f, directions, k=1, method=method)  # type: ignore[arg-type]
    assert eigs.status == (Status.OK, Status.OK)
    torch.testing.assert_close(eigs.eigenvalues[:, 0], vector(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_a_neuron_of_tiny_weight_and_huge_rows_is_as_large_along_directions(method: str) -> None:
    """2⁻¹⁰⁵⁰ of rows of 2⁵²⁵ each: the size of its rows alone is beyond float64."""
    rows = torch.stack([vector(2.0**525, 0, 0), vector(0, 2.0**525, 0)])
    f = QuadraticMap(BilinearTensor(2.0**-1050 * torch.eye(2).double(), rows, rows))
    plain, along = (
        eigendecompose_all(f, directions, k=1, method=method)  # type: ignore[arg-type]
        for directions in (None, torch.eye(2).double())
    )
    assert along.status == (Status.OK, Status.OK)
    assert torch.equal(along.eigenvalues, vector(1, 1)[:, None])
    assert torch.equal(along.rounding_bound, plain.rounding_bound)


@pytest.mark.parametrize("method", METHODS)
def test_directions_of_which_none_can_be_used_are_flagged(method: str) -> None:
    f = QuadraticMap(BilinearTensor(randn(2, 3), randn(3, 8, seed=1), randn(3, 8, seed=2)))
    eigs = eigendecompose_all(
        f,
        torch.full((2, 2), torch.nan).double(),
        k=1,
        method=method,  # type: ignore[arg-type]
    )
    assert eigs.status == (Status.NOT_FINITE, Status.NOT_FINITE)
    assert bool(eigs.eigenvalues.isnan().all())


def test_a_row_of_nan_beside_huge_ones_stops_nobody() -> None:
    directions = torch.stack([vector(1, 0), vector(torch.nan, 0), vector(0, 1)])
    rows = 1e150 * randn(4, 6, seed=1)
    f = QuadraticMap(BilinearTensor(1e-300 * randn(2, 4, seed=2), rows, rows))
    eigs = eigendecompose_all(f, directions, k=1, method="lanczos")
    assert eigs.status == (Status.OK, Status.NOT_FINITE, Status.OK)


def test_forms_of_few_neurons_are_proven_by_their_rank() -> None:
    f = QuadraticMap(BilinearTensor(torch.eye(3).double(), randn(3, 90), randn(3, 90, seed=1)))
    eigs = eigendecompose_all(f, k=4, method="lanczos")
    assert bool(eigs.complete.all())
    assert eigs.proof == (Proof.RANK,) * 3
    whole = eigendecompose_all(f, k=4, method="dense")
    assert float((eigs.eigenvalues - whole.eigenvalues).abs().max()) < 1e-9
    largest = eigendecompose_all(f, k=4, which="largest", method="lanczos")  # zeros belong to it
    assert not bool((largest.complete & (largest.eigenvalues.amin(dim=1) < -1e-9)).any())
