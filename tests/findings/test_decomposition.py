"""The record of a layer's spectra: shares, subspaces, the whole spectrum."""

import json

import pytest
import torch

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.decomposition import select
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.spectra import summarise_spectra
from bilens.records.base import to_json
from bilens.records.decomposition import FormSpectrum
from builders import random_map

F = random_map(2)  # 5 inputs, 3 outputs


def outputs(f: QuadraticMap = F, top: int = 3) -> tuple[FormSpectrum, ...]:
    names = tuple("abc")[: f.sizes.d_out]
    whole = eigendecompose_all(f, k=None)
    ranks = effective_rank(whole.distinct_from_zero)
    return summarise_spectra(select(whole, top, "magnitude"), names, f.tensor.traces(), ranks)


@pytest.mark.parametrize("top", [1, 3, 5, 9])
def test_each_output_is_its_dense_spectrum(top: int) -> None:
    dense = oracles.dense_tensor(F.tensor.down, F.tensor.left, F.tensor.right)
    assert F.linear is not None
    assert F.constant is not None
    for c, output in enumerate(outputs(top=top)):
        every = torch.linalg.eigvalsh(dense[c])
        leading = oracles.chosen(every, min(top, 5), "magnitude")
        mass = float((every**2).sum())
        assert output.name == "abc"[c]
        assert [pair.eigenvalue for pair in output.pairs] == pytest.approx(leading, rel=1e-12)
        shares = [value**2 / mass for value in leading]
        assert [pair.explained for pair in output.pairs] == pytest.approx(shares, rel=1e-12)
        assert output.explained == pytest.approx(sum(shares), rel=1e-12)
        assert output.effective_rank == pytest.approx(float(oracles.effective_rank(every)))
        assert output.frobenius_norm == pytest.approx(mass**0.5, rel=1e-12)
        assert output.trace == pytest.approx(float(every.sum()), rel=1e-10)
        assert output.linear_norm == pytest.approx(float(F.linear[c].norm()), rel=1e-12)
        assert output.constant == float(F.constant[c])
        assert output.complete
        assert output.status == "every check passed"
        assert all(pair.converged and pair.residual < 1e-13 for pair in output.pairs)


def test_equal_eigenvalues_say_how_many_they_are() -> None:
    """Σ w_h x_h² with w = (3, 2, 2, −2): 2 and −2 are equal in size, but not to each other."""
    identity = torch.eye(4, dtype=torch.float64)
    weight = torch.tensor([[3.0, 2.0, 2.0, -2.0]], dtype=torch.float64)
    (output,) = outputs(QuadraticMap(BilinearTensor(weight, identity, identity)), top=4)
    sizes = {round(pair.eigenvalue): pair.subspace_size for pair in output.pairs}
    assert sizes == {3: 1, 2: 2, -2: 1}


def test_a_form_of_zeros_has_nothing_to_explain() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    (output,) = outputs(
        QuadraticMap(BilinearTensor(zero, zero.new_ones(2, 3), zero.new_ones(2, 3)))
    )
    assert [pair.explained for pair in output.pairs] == [0.0, 0.0, 0.0]
    assert output.effective_rank == 0.0


@pytest.mark.parametrize("scale", [1e-180, 1e180])
def test_a_norm_whose_square_leaves_float64_is_told(scale: float) -> None:
    identity = torch.eye(2, dtype=torch.float64)
    weight = scale * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    (output,) = outputs(QuadraticMap(BilinearTensor(weight, identity, identity)))
    assert output.frobenius_norm == pytest.approx(5 * scale)
    assert [pair.explained for pair in output.pairs] == pytest.approx([0.64, 0.36])


def test_an_output_that_was_not_decomposed_says_so_and_the_others_stand() -> None:
    directions = torch.eye(3, dtype=torch.float64)
    directions[1, 0] = torch.nan
    eigs = eigendecompose_all(F, directions, k=None)
    found = summarise_spectra(select(eigs, 2, "magnitude"), "abc", torch.zeros(3), torch.ones(3))
    first, second, third = (to_json(output) for output in found)
    assert second["status"] == "it holds NaN or infinity, or leaves float64, so there is no result"
    assert (second["pairs"], second["complete"]) == ([], False)
    assert second["effective_rank"] is second["frobenius_norm"] is second["trace"] is None
    assert len(first["pairs"]) == len(third["pairs"]) == 2
    json.dumps([first, second, third], allow_nan=False)


def test_leading_pairs_alone_say_nothing_of_the_effective_rank() -> None:
    eigs = eigendecompose_all(F, k=2)
    found = summarise_spectra(eigs, "abc", F.tensor.traces(), None)
    assert [output.effective_rank for output in found] == [None] * 3
    assert [output.trace for output in found] == F.tensor.traces().tolist()
