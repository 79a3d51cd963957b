"""Whole spectra: dense matrices against 50 digits of mpmath, and forms with few products."""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen import whole_spectrum
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.eigen.ranking import clusters
from bilens.algebra.eigen.solver import balance_all, problem_of_form, problem_of_map
from bilens.algebra.eigen.whole_spectrum import WholeSpectrum, checked_spectrum, failed, row_space
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from builders import D_IN, form_from_pairs, form_of, randn, random_map, rotation, vector

EPS = torch.finfo(torch.float64).eps


def diagonal(*values: float) -> Tensor:
    return torch.diag(vector(*values))


def arrow(n: int) -> Tensor:
    q = diagonal(*range(1, n + 1))
    q[0, :] = q[:, 0] = 1
    return q


def hilbert(n: int) -> Tensor:
    i = torch.arange(n, dtype=torch.float64)
    return 1 / (i[:, None] + i + 1)


def tridiagonal(main: Tensor, side: Tensor) -> Tensor:
    return torch.diag(main) + torch.diag(side, 1) + torch.diag(side, -1)


def turned(values: Tensor, seed: int = 0) -> Tensor:
    turn = rotation(len(values), seed)
    return turn.T @ torch.diag(values) @ turn


TEN = torch.arange(-10, 11, dtype=torch.float64).abs()  # 10 … 1 0 1 … 10
HAND_MADE: dict[str, Tensor] = {
    "1 x 1": diagonal(-3.0),
    "zero": diagonal(0.0, 0.0, 0.0),
    "identity": diagonal(1.0, 1.0, 1.0, 1.0),
    "diagonal": diagonal(3.0, -7.0, 0.5),
    "rank one": torch.outer(randn(6), randn(6)),
    "minus rank one": -torch.outer(randn(6), randn(6)),
    "XOR (x - y)^2, eigenvalues 0 and 2": vector(1.0, -1.0, -1.0, 1.0).reshape(2, 2),
    "AND xy, eigenvalues 1/2 and -1/2": vector(0.0, 0.5, 0.5, 0.0).reshape(2, 2),
    "pairs of both signs": turned(vector(2.0, -2.0, 1.0, -1.0, 0.0)),
    "Wilkinson W21+": tridiagonal(TEN, torch.ones(20, dtype=torch.float64)),
    "Hilbert 8": hilbert(8),
    "Hilbert 12": hilbert(12),
    "arrow": arrow(8),
    "a cluster of width 1e-12": turned(1 + 1e-12 * torch.arange(6, dtype=torch.float64)),
    "a cluster beside a large one": turned(vector(1e6, 1.0, 1 + 1e-12, -1.0)),
    "graded 1e±100": diagonal(1e100, -1.0, 1e-100),
    "graded and coupled": tridiagonal(
        vector(1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10), vector(1e-1, 1e-3, 1e-5, 1e-7, 1e-9)
    ),
    "all of size 1e100": 1e100 * randn(4, 4),
    "all of size 1e-100": 1e-100 * randn(4, 4),
    "all of size 1e150": 1e150 * randn(4, 4),
    "so small that the squares vanish": 1e-170 * randn(4, 4),
    "Toeplitz (2, -1)": tridiagonal(vector(*[2.0] * 12), vector(*[-1.0] * 11)),
    "ones with a large and a small corner": vector(*[1.0] * 144).reshape(12, 12)
    + diagonal(1e5, *[0.0] * 10, 1e-5),
}
RANDOM = {
    f"random {n}, seed {seed}": randn(n, n, seed=seed) for n in (2, 3, 5) for seed in range(6)
}


@pytest.fixture(autouse=True)
def digits() -> object:
    with mpmath.workdps(50):
        yield


@pytest.mark.parametrize("name", [*HAND_MADE, *RANDOM])
def test_eigenvalues_agree_with_fifty_digits(name: str) -> None:
    """Backward stability (Weyl): each eigenvalue within 100 eps ‖Q‖ of the true one."""
    q = {**HAND_MADE, **RANDOM}[name]
    q = (q + q.T) / 2
    eig = eigendecompose(form_of(q))
    exact = mpmath.eigsy(mpmath.matrix(q.tolist()), eigvals_only=True)
    ours = sorted(eig.eigenvalues.tolist())
    scale = max(abs(value) for value in exact) or mpmath.mpf(1)
    worst = max(abs(a - b) for a, b in zip(ours, sorted(exact), strict=True))
    assert worst <= 100 * EPS * scale
    assert eig.status is Status.OK
    assert bool(eig.complete)
    assert float(eig.residuals.max()) <= 1000 * EPS * float(scale)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 128])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_residuals_orthogonality_trace_and_mass(n: int, dtype: torch.dtype) -> None:
    """All at most 1000 eps ‖Q‖ in float64, whatever the dtype of the factors."""
    form = form_of(randn(n, n, seed=n)).to(dtype)
    eig = eigendecompose(form)
    values, vectors = eig.eigenvalues, eig.eigenvectors
    limit = 1000 * EPS * max(float(form.norm()), 1.0)
    assert values.dtype is vectors.dtype is torch.float64
    q = form.matrix.right.double()
    q = (q + q.T) / 2
    assert float((q @ vectors.T - vectors.T * values).norm(dim=0).max()) <= limit
    assert float((vectors @ vectors.T - torch.eye(n).double()).abs().max()) <= 1000 * EPS
    assert float((values.sum() - q.trace()).abs()) <= limit
    assert float((values.square().sum() - q.square().sum()).abs()) <= limit * float(form.norm() + 1)


def test_a_cluster_of_which_every_vector_would_do_still_has_orthonormal_vectors() -> None:
    eig = eigendecompose(form_of(torch.eye(20, dtype=torch.float64)))
    torch.testing.assert_close(
        eig.eigenvectors @ eig.eigenvectors.T, torch.eye(20, dtype=torch.float64)
    )


def test_factors_that_cancel_are_judged_by_their_size_before_they_do() -> None:
    """Q = 1e8 (v vᵀ − w wᵀ) with w = v + 1e-9 e: what remains is of the size of rounding."""
    v = rotation(6)[:1]
    pair = torch.cat([v, v + 1e-9])
    eig = eigendecompose(form_from_pairs(vector(1e8, -1e8), pair))
    assert eig.status is Status.OK


def test_vectors_that_lost_their_orthogonality_are_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As divide and conquer loses it: between neighbours, by more than a thousand roundings."""
    solver = torch.linalg.eigh

    def careless(array: Tensor) -> tuple[Tensor, Tensor]:
        values, columns = solver(array)
        skewed = columns.clone()
        skewed[:, 1] += 3e-12 * columns[:, 0]
        return values, skewed

    form = form_from_pairs(vector(1, 1 + 1e-3, 2, 3), rotation(4))
    monkeypatch.setattr(torch.linalg, "eigh", careless)
    eig = eigendecompose(form, method="dense")
    assert bool(eig.complete)
    overlap = eig.eigenvectors @ eig.eigenvectors.T - torch.eye(4, dtype=torch.float64)
    assert float(overlap.abs().max()) < 1e-15


def test_the_rounding_of_many_overlaps_counts_as_what_it_can_do_to_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond 4,000 inputs it is above the tolerance; here, with a smaller one, at 300."""
    form = form_of(randn(300, 300))
    usual = eigendecompose(form, method="dense")
    overlap = usual.eigenvectors @ usual.eigenvectors.T - torch.eye(300, dtype=torch.float64)
    size = float(overlap.norm())  # another one on every processor
    assert size < 300 * EPS
    monkeypatch.setattr(whole_spectrum, "SOLVER_TOLERANCE", size / 6)
    wide = eigendecompose(form, method="dense")
    assert bool(wide.complete)
    more = size * float(wide.eigenvalues[0].abs())
    assert float(wide.rounding_bound - usual.rounding_bound) == pytest.approx(more, rel=0.2)
    monkeypatch.setattr(whole_spectrum, "orthonormal", lambda columns: columns * (1 + 1e-13))
    assert not bool(eigendecompose(form, method="dense").complete)


N = 6
VALUES = vector(5, 3, 2, 2, -1, 0)
VECTORS = rotation(N)
Pairs = tuple[Tensor, Tensor]


def make() -> QuadraticForm:
    return form_of(VECTORS.T @ torch.diag(VALUES) @ VECTORS)


def judged(values: Tensor, vectors: Tensor, k: int = N) -> EigenDecomposition:
    """What is said about an answer for the form of VALUES and VECTORS."""
    matrix = make().matrix
    form = balance_all(matrix.left, matrix.right, matrix.weight[None])
    array, scaled = form.dense(0), values / form.units[0]
    residuals = (vectors @ array - scaled[:, None] * vectors).norm(dim=1)
    mass = array.square().sum()
    spectrum = WholeSpectrum(scaled, vectors, residuals, mass, torch.zeros_like(mass))
    return checked_spectrum(
        problem_of_form(make()).terms(0), form, spectrum, k, "magnitude", "by hand"
    )


def moved(tensor: Tensor, index: int, value: object) -> Tensor:
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def test_true_pairs_pass() -> None:
    result = judged(VALUES, VECTORS)
    assert (result.status, result.method, result.which) == (Status.OK, "by hand", "magnitude")
    assert bool(result.complete)
    assert bool(result.converged.all())
    torch.testing.assert_close(result.eigenvalues, VALUES)
    torch.testing.assert_close(result.frobenius_squared, vector(43)[0])  # 25 + 9 + 4 + 4 + 1
    torch.testing.assert_close(judged(VALUES, VECTORS, k=2).explained, vector(34 / 43)[0])


WRONG: dict[str, Callable[[Tensor, Tensor], Pairs]] = {
    "a value is off": lambda v, w: (moved(v, 0, 5 + 1e-9), w),
    "a vector is off": lambda v, w: (v, moved(w, 0, w[0] + 1e-9 * w[1])),
    "two vectors are swapped": lambda v, w: (v, w[[1, 0, 2, 3, 4, 5]]),
    "a vector is not of unit length": lambda v, w: (v, moved(w, 0, 2 * w[0])),
    "all vectors are zero": lambda v, w: (v, torch.zeros_like(w)),
    "the vectors are the identity": lambda v, w: (v, torch.eye(N).to(w)),
    "a tie has the same vector twice": lambda v, w: (v, moved(w, 3, w[2])),
    "a pair is counted twice": lambda v, w: (moved(v, 1, v[0]), moved(w, 1, w[0])),
    "signs are lost": lambda v, w: (v.abs(), w),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pairs_are_flagged(name: str) -> None:
    result = judged(*WRONG[name](VALUES, VECTORS))
    assert result.status is Status.RESIDUAL_TOO_LARGE
    assert not bool(result.complete)


def test_a_wrong_vector_is_flagged_and_the_good_ones_are_not() -> None:
    """v_1 + v_6 for v_1: both the first and the last pair are no longer orthonormal."""
    vectors = moved(VECTORS, 0, (VECTORS[0] + VECTORS[5]) / 2**0.5)
    assert judged(VALUES, vectors, k=N - 1).converged.tolist() == [False, True, True, True, True]


def test_a_flag_stays_with_its_pair_whatever_the_order_of_the_solver() -> None:
    """Values rising, as solvers give them: the wrong one, 5, is the last and comes out first."""
    values = moved(VALUES, 0, 5 + 1e-9)
    assert judged(values.flip(0), VECTORS.flip(0), k=3).converged.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "values",
    [
        vector(5, 3, 2, 2, 0),  # −1 is lost
        vector(5, 3, 2, 2, 1, 0),  # −1 lost its sign
        vector(5, 3, 2.5, 1.5, -1, 0),  # 2 and 2 were mixed up
    ],
    ids=["a pair", "a sign", "a tie"],
)
def test_a_spectrum_that_is_not_whole_is_noticed_though_the_returned_pairs_are_right(
    values: Tensor,
) -> None:
    """The two pairs that are returned, of 5 and 3, have no residual."""
    vectors = VECTORS[[0, 1, 2, 3, 5]] if len(values) < N else VECTORS
    result = judged(values, vectors, k=2)
    assert bool(result.converged.all())
    assert not bool(result.complete)
    assert result.status is Status.RESIDUAL_TOO_LARGE


def test_residuals_come_from_the_factors() -> None:
    """‖Qv − λv‖ with λ off by 0.25 is 0.25."""
    residuals = judged(VALUES + 0.25, VECTORS).residuals
    torch.testing.assert_close(residuals, torch.full((N,), 0.25, dtype=torch.float64))


def test_clusters_are_found_in_the_whole_spectrum_whatever_its_order() -> None:
    """Neighbours within 1e-8 of the largest size, in a chain: 2, 2 + 1e-9 and 2 + 2e-9."""
    values = vector(2 + 1e-9, -5, 2, 0, 2 + 2e-9, -2)
    labels, sizes = clusters(values, rounding_bound=0.0)
    assert sizes.tolist() == [3, 1, 3, 1, 3, 1]
    assert len({int(labels[i]) for i in (0, 2, 4)}) == 1
    assert len(set(labels.tolist())) == 4


def test_eigenvalues_within_the_noise_are_one_cluster() -> None:
    _, sizes = clusters(vector(1, 0.5, 0.45), rounding_bound=0.1)
    assert sizes.tolist() == [1, 2, 2]


@pytest.mark.parametrize("k", [1, D_IN])
def test_a_failed_form_claims_nothing(k: int) -> None:
    form = random_map().form(randn(3))
    result = failed(problem_of_form(form).terms(0), k, "both", "dense", Status.NOT_CONVERGED)
    assert result.eigenvalues.shape == result.cluster.shape == (k,)
    assert result.eigenvectors.shape == (k, D_IN)
    for part in ("eigenvalues", "eigenvectors", "residuals", "frobenius_squared", "explained"):
        assert bool(getattr(result, part).isnan().all())
    assert bool(result.rounding_bound.isnan())
    assert not bool(result.complete)
    assert not bool(result.converged.any())
    assert torch.equal(result.linear, form.linear)


WHICH = ("magnitude", "largest", "smallest", "both")
NUM, HIDDEN, WIDTH = 3, 4, 20


def few_neurons(hidden: int = HIDDEN, same: bool = False, positive: bool = False) -> QuadraticMap:
    left = randn(hidden, WIDTH)
    right = left if same else randn(hidden, WIDTH, seed=1)
    down = randn(NUM, hidden, seed=2)
    return QuadraticMap(BilinearTensor(down.abs() if positive else down, left, right))


def spectra(f: QuadraticMap) -> Tensor:
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    return torch.linalg.eigvalsh(dense)


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("k", [1, 2, 8, 9, 15, WIDTH])
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
@pytest.mark.parametrize("k", [3, 12, WIDTH])
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
    assert eigs.cluster_size.tolist() == [[WIDTH - HIDDEN] * 5] * NUM
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
    assert space.basis.shape == (WIDTH, 2 * HIDDEN)
    torch.testing.assert_close(space.basis.T @ space.basis, torch.eye(2 * HIDDEN).double())
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    for c in range(NUM):
        small = space.small.form_at(c)
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
        eigendecompose_all(each, rows, method="factored", k=2).rounding_bound for each in (f, same)
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
    found, plain = (eigendecompose_all(g, k=3, method=method) for g in (tiny, f))
    assert found.status == (Status.OK,) * NUM
    torch.testing.assert_close(found.explained, plain.explained)
    unit = Fraction(2) ** (2 * exponent)
    for c in range(NUM):
        bound = Fraction(float(found.rounding_bound[c]))
        assert bound >= unit * Fraction(float(plain.rounding_bound[c]))
        for small, large in zip(found.eigenvalues[c], plain.eigenvalues[c], strict=True):
            assert abs(Fraction(float(small)) - unit * Fraction(float(large))) <= bound


def test_linear_terms_of_the_whole_input_are_kept() -> None:
    f = random_map(0, 3, 2, WIDTH)
    eigs = eigendecompose_all(f, method="factored", k=2)
    assert torch.equal(eigs.linear, f.linear)
    assert torch.equal(eigs.constant, f.constant)
