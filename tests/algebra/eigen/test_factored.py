"""Forms with few products: the spectrum of the row space, and zeros on all the rest."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.decomposition import Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.solver import problem_of_map
from bilens.algebra.eigen.whole_spectrum import row_space
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn, random_map, vector

WHICH = ("magnitude", "largest", "smallest", "both")
NUM, HIDDEN, N = 3, 4, 20


def few_neurons(hidden: int = HIDDEN, same: bool = False, positive: bool = False) -> QuadraticMap:
    left = randn(hidden, N)
    right = left if same else randn(hidden, N, seed=1)
    down = randn(NUM, hidden, seed=2)
    return QuadraticMap(BilinearTensor(down.abs() if positive else down, left, right))


def spectra(f: QuadraticMap) -> Tensor:
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    return torch.linalg.eigvalsh(dense)


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k", [1, 2, 8, 9, 15, N])
@pytest.mark.parametrize("hidden", [1, HIDDEN, 9, 10, 30])
def test_the_spectrum_is_that_of_the_dense_matrix(hidden: int, k: int, which: str) -> None:
    f = few_neurons(hidden)
    eigs = eigendecompose_all(f, k=k, which=which, method="factored")
    assert set(eigs.status) == {Status.OK}
    assert set(eigs.proof) == {Proof.SPECTRUM}
    for found, spectrum in zip(eigs.eigenvalues, spectra(f), strict=True):
        expected = vector(*oracles.chosen(spectrum, k, which))
        torch.testing.assert_close(
            found.sort().values, expected.sort().values, atol=1e-12, rtol=1e-12
        )


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k", [3, 12, N])
@pytest.mark.parametrize("same", [False, True])
def test_vectors_are_orthonormal_eigenvectors_of_the_factors(
    k: int, which: str, same: bool
) -> None:
    f = few_neurons(same=same)
    eigs = eigendecompose_all(f, k=k, which=which, method="factored")
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    for c, single in enumerate(eigs):
        v = single.eigenvectors
        torch.testing.assert_close(v @ v.T, torch.eye(k).double(), atol=1e-13, rtol=0)
        residual = (v @ dense[c] - single.eigenvalues[:, None] * v).norm(dim=1)
        assert bool((residual <= single.rounding_bound + single.residuals).all())
        assert bool((v.gather(1, v.abs().argmax(dim=1, keepdim=True)) > 0).all())


def test_the_smallest_pairs_of_a_positive_form_are_zeros_outside_the_row_space() -> None:
    f = few_neurons(same=True, positive=True)
    eigs = eigendecompose_all(f, k=5, which="smallest", method="factored")
    assert bool((eigs.eigenvalues.abs() <= eigs.rounding_bound[:, None]).all())
    assert not bool(eigs.distinct_from_zero.any())
    overlap = eigs.eigenvectors @ f.tensor.left.T
    torch.testing.assert_close(overlap, torch.zeros_like(overlap), atol=1e-12, rtol=0)
    assert eigs.cluster_size.tolist() == [[N - HIDDEN] * 5] * NUM
    assert bool(eigs.complete.all())


def test_all_zeros_of_the_spectrum_are_one_cluster() -> None:
    """Rank 2 · hidden = 8 of 20: twelve zeros, of which k = 10 shows two."""
    eigs = eigendecompose_all(few_neurons(), k=10, method="factored")
    assert eigs.cluster_size.tolist() == [[1] * 8 + [12] * 2] * NUM
    assert eigs[0].subspaces()[-1].size == 12


def test_the_row_space_keeps_every_form() -> None:
    """Y Q' Yᵀ = Q, with orthonormal Y, and nothing outside it."""
    f = few_neurons()
    forms = problem_of_map(f).forms
    space = row_space(forms)
    assert space.basis.shape == (N, 2 * HIDDEN)
    torch.testing.assert_close(space.basis.T @ space.basis, torch.eye(2 * HIDDEN).double())
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    for c in range(NUM):
        small = space.small.one(c)
        q = forms.units[c] * small.units[0] * small.dense(0)
        torch.testing.assert_close(space.basis @ q @ space.basis.T, dense[c])
    outside = space.outside(5)
    torch.testing.assert_close(outside @ outside.T, torch.eye(5).double())
    assert float((outside @ space.basis).abs().max()) < 1e-14


def test_the_rounding_bound_does_not_know_how_a_neuron_is_written() -> None:
    """Along directions too, where what was summed to the weights counts."""
    f, rows = few_neurons(), torch.eye(NUM).double()[:2] - 1 / NUM
    b = f.tensor
    same = QuadraticMap(BilinearTensor(b.down * 2.0**40, b.left * 2.0**-20, b.right * 2.0**-20))
    bounds = [
        eigendecompose_all(each, rows, method="factored").rounding_bound for each in (f, same)
    ]
    assert torch.equal(*bounds)


@pytest.mark.parametrize("exponent", [-140, 0, 140])
def test_the_scale_of_the_factors_does_not_matter(exponent: int) -> None:
    f = few_neurons()
    scaled = QuadraticMap(
        BilinearTensor(
            f.tensor.down, f.tensor.left * 10.0**exponent, f.tensor.right * 10.0**-exponent
        )
    )
    found, plain = (eigendecompose_all(g, k=3, method="factored") for g in (scaled, f))
    torch.testing.assert_close(found.eigenvalues, plain.eigenvalues)


@pytest.mark.parametrize("method", ["dense", "factored", "lanczos"])
@pytest.mark.parametrize("exponent", [-500, -520, -530, -535, -540, -600])
def test_what_leaves_float64_downwards_passes_within_its_bound(method: str, exponent: int) -> None:
    """Q is 2^2e of one in the middle of float64: some digits of it are left, or none."""
    f = few_neurons()
    rows = (2.0**exponent * part for part in (f.tensor.left, f.tensor.right))
    tiny = QuadraticMap(BilinearTensor(f.tensor.down, *rows))
    found, plain = (
        eigendecompose_all(g, k=3, method=method)  # type: ignore[arg-type]
        for g in (tiny, f)
    )
    assert found.status == (Status.OK,) * NUM
    torch.testing.assert_close(found.explained, plain.explained)
    unit = Fraction(2) ** (2 * exponent)
    for c in range(NUM):
        bound = Fraction(float(found.rounding_bound[c]))
        assert bound >= unit * Fraction(float(plain.rounding_bound[c]))
        for small, large in zip(found.eigenvalues[c], plain.eigenvalues[c], strict=True):
            assert abs(Fraction(float(small)) - unit * Fraction(float(large))) <= bound


def test_linear_terms_of_the_whole_input_are_kept() -> None:
    f = random_map(0, 3, 2, N)
    eigs = eigendecompose_all(f, method="factored")
    assert torch.equal(eigs.linear, f.linear)
    assert torch.equal(eigs.constant, f.constant)
