"""A plan carried out: what is bad is flagged, what is doubtful is verified, the rest goes on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen import lanczos as lanczos_module, lanczos_solver
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.eigendecompose import (
    eigendecompose,
    eigendecompose_all,
    plan_eigendecomposition,
)
from bilens.algebra.eigen.lanczos import RitzPairs
from bilens.algebra.eigen.solver import balance_all
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NumericalError
from builders import form_from_pairs, form_of, randn, random_map, rotation, vector
from odd_tensors import LOW_PRECISION, SOUND, Odd

METHODS = ("dense", "lanczos", "factored")
D_OUT, D_HIDDEN, D_IN = 40, 64, 48
LANCZOS = lanczos_module.lanczos
EPS = torch.finfo(torch.float64).eps


def wide_map(seed: int = 0) -> QuadraticMap:
    return random_map(seed, D_OUT, D_HIDDEN, D_IN)


def diagonal_map(spectra: Tensor, turn: Tensor) -> QuadraticMap:
    """Output c has the eigenvalues spectra[c], and the rows of `turn` as eigenvectors."""
    return QuadraticMap(BilinearTensor(spectra, turn, turn))


def assert_same(found: EigenDecomposition, expected: EigenDecomposition) -> None:
    """Equal up to the rounding that the records themselves state."""
    noise = (found.rounding_bound + expected.rounding_bound)[:, None]
    assert bool(((found.eigenvalues - expected.eigenvalues).abs() <= noise).all())
    overlap = (found.eigenvectors * expected.eigenvectors).sum(dim=2)
    torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-9, rtol=0)
    assert found.status == expected.status


@pytest.mark.parametrize("method", METHODS)
def test_a_direction_of_zeros_among_others_is_a_form_of_zeros(method: str) -> None:
    """A dead output must not stop the rest."""
    directions = torch.eye(D_OUT, dtype=torch.float64)
    directions[7] = 0
    eigs = eigendecompose_all(wide_map(), directions, method=method, k=2)
    assert set(eigs.status) == {Status.OK}
    assert eigs.eigenvalues[7].tolist() == [0, 0]
    assert bool(eigs.complete[7])
    torch.testing.assert_close(
        eigs.eigenvectors[7] @ eigs.eigenvectors[7].T, torch.eye(2, dtype=torch.float64)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_direction_among_thousands_changes_nothing_for_the_others(method: str) -> None:
    f = random_map(0, 6, 8, 10)
    directions = randn(1300, 6)
    good = torch.ones(1300, dtype=torch.bool)
    good[[3, 1200]] = False
    directions[3, 2], directions[1200, 0] = torch.nan, -torch.inf
    eigs = eigendecompose_all(f, directions, method=method, k=2)
    assert [i for i, s in enumerate(eigs.status) if s is Status.NOT_FINITE] == [3, 1200]
    assert bool(eigs.eigenvalues[~good].isnan().all())
    assert not bool(eigs.complete[~good].any())
    some = good.nonzero()[::10, 0]
    alone = eigendecompose_all(f, directions[some], method=method, k=2)
    scale = alone.frobenius_squared.sqrt()[:, None]
    difference = (eigs.eigenvalues[some] - alone.eigenvalues).abs()
    assert bool((difference <= 1e-12 * scale).all())
    assert bool(eigs.eigenvalues[good].isfinite().all())


@pytest.mark.parametrize("method", METHODS)
def test_rows_as_long_as_float64_can_write_are_no_obstacle(method: str) -> None:
    """Two rows whose lengths are beyond float64, though no entry and no eigenvalue is."""
    rows = torch.full((2, 8), 1.5e308, dtype=torch.float64)
    rows[1, ::2] *= -1
    other = 1e-300 * torch.eye(8, dtype=torch.float64)[:2]
    f = QuadraticMap(BilinearTensor(torch.ones(1, 2).double(), rows, other))
    exact = torch.linalg.eigvalsh(oracles.dense_weighted(rows, other, vector(1, 1)))
    found = eigendecompose_all(f, method=method, k=2).eigenvalues[0]
    torch.testing.assert_close(found, vector(*oracles.chosen(exact, 2, "magnitude")))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [0.7e308, 0.89e308])
def test_an_eigenvalue_beyond_float64_is_flagged(method: str, size: float) -> None:
    """Ten neurons of 0.7e308 along one axis: each can be written, their sum cannot."""
    rows = torch.cat([rotation(6)[:1]] * 10)
    weights = torch.full((2, 10), size, dtype=torch.float64)
    weights[1] = 1
    f = QuadraticMap(BilinearTensor(weights, rows, rows))
    eigs = eigendecompose_all(f, k=1, method=method)
    assert eigs.status == (Status.NOT_FINITE, Status.OK)
    torch.testing.assert_close(eigs.eigenvalues[1], vector(10))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_with_verify_everything_is_proven(k: int, which: str) -> None:
    """Random forms, the identity, ties and a form of zeros, in one batch."""
    spectra = randn(8, 24)
    spectra[1], spectra[2] = 1.0, 0.0
    spectra[3, :6] = 7.0
    spectra[4, :4] = vector(9, -9, 9, -9)
    eigs = eigendecompose_all(
        diagonal_map(spectra, rotation(24)), k=k, which=which, method="lanczos", verify=True
    )
    assert bool(eigs.complete.all())
    assert set(eigs.status) == {Status.OK}
    assert Proof.NONE not in eigs.proof
    for found, spectrum in zip(eigs.eigenvalues, spectra, strict=True):
        expected = vector(*oracles.chosen(spectrum, k, which))
        torch.testing.assert_close(found.abs(), expected.abs(), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("multiplicity", [2, 3, 5, 11])
def test_a_comparison_knows_how_many_eigenvalues_are_equal(multiplicity: int) -> None:
    values = torch.linspace(-1, 1, 12, dtype=torch.float64)
    values[:multiplicity] = 2
    form = form_from_pairs(values, rotation(12))
    for k in (1, 2):
        eig = eigendecompose(form, k=k, method="lanczos", verify=True)
        assert eig.cluster_size.tolist() == [multiplicity] * k
        assert len(eig.subspaces()) == 1


def test_a_pair_that_was_missed_is_found_by_verify() -> None:
    """The start has no part along the largest eigenvector, so only a dense solver meets it."""
    start = lanczos_solver.first_vector(12, 0)
    basis = torch.linalg.qr(torch.cat([start[:, None], randn(12, 11)], dim=1)).Q.T
    values = torch.cat([torch.linspace(-1, 2, 11), torch.tensor([5.0])]).double()
    form = form_from_pairs(values, basis)
    eig = eigendecompose(form, k=1, method="lanczos", verify=True)
    torch.testing.assert_close(eig.eigenvalues, vector(5))
    assert bool(eig.complete)


def garbage(kind: str) -> Callable[..., RitzPairs]:
    """Lanczos' method with the answer for the last form damaged."""

    def broken(*arguments: object) -> RitzPairs:
        found = LANCZOS(*arguments)
        vectors = found.vectors.clone()
        damaged = vectors[-1:]
        if kind == "NaN":
            damaged[...] = torch.nan
        elif kind == "one NaN":
            damaged[0, 0, 0] = torch.nan
        elif kind == "zeros":
            damaged[...] = 0
        elif kind == "copies":
            damaged[0, 1] = damaged[0, 0]
        else:
            damaged[...] = randn(*damaged.shape).to(damaged.dtype)
        return replace(found, vectors=vectors)

    return broken


GARBAGE = ("NaN", "one NaN", "zeros", "copies", "wrong")


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_garbage_for_one_form_is_settled_by_a_dense_solver(
    kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, rows = wide_map(), torch.eye(D_OUT, dtype=torch.float64)[:3]
    good = eigendecompose_all(f, rows, method="lanczos", precision=precision, k=2)
    monkeypatch.setattr(lanczos_solver, "lanczos", garbage(kind))
    eigs = eigendecompose_all(f, rows, method="lanczos", precision=precision, k=2)
    assert_same(eigs, good)
    assert torch.equal(eigs.eigenvalues[:2], good.eigenvalues[:2])


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_for_one_form_is_flagged_where_a_dense_solver_does_not_fit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Width 48 fits in any memory, so the plan is told otherwise."""
    f, rows = wide_map(), torch.eye(D_OUT, dtype=torch.float64)[:3]
    monkeypatch.setattr(lanczos_solver, "lanczos", garbage(kind))
    monkeypatch.setattr("bilens.algebra.eigen.eigendecompose.verified", lambda *given: given[2])
    eigs = eigendecompose_all(f, rows, method="lanczos", k=2)
    assert eigs.status == (Status.OK, Status.OK, Status.RESIDUAL_TOO_LARGE)
    assert not bool(eigs.complete[2])
    assert eigs.proof[2] is Proof.NONE
    assert not bool(eigs.converged[2].all())
    with pytest.raises(NumericalError, match="nothing can be built"):
        eigs[2].truncate(1)
    assert eigs[0].truncate(1) is not None


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_ends_the_sweep_and_leaves_everything_as_it_was(method: str) -> None:
    f, rows = wide_map(), randn(300, D_OUT)
    before = [part.clone() for part in (f.tensor.down, f.tensor.left, f.tensor.right, rows)]

    def stop(done: int, total: int) -> None:
        assert 0 < done <= total == 300
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eigendecompose_all(f, rows, method=method, progress=stop, k=2)
    after = (f.tensor.down, f.tensor.left, f.tensor.right, rows)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert set(eigendecompose_all(f, rows, method=method, k=2).status) == {Status.OK}


@pytest.mark.parametrize("method", METHODS)
def test_progress_rises_to_the_number_of_directions(method: str) -> None:
    seen: list[tuple[int, int]] = []
    rows = randn(300, D_OUT)
    rows[5] = torch.nan
    eigendecompose_all(
        wide_map(),
        rows,
        method=method,
        progress=lambda done, total: seen.append((done, total)),
        k=2,
    )
    assert seen == sorted(set(seen))
    assert seen[-1] == (300, 300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_factors_change_nothing_and_are_not_changed(odd: Odd, method: str) -> None:
    f = random_map(0, 3, 6, 20)
    parts = [odd.of(part) for part in (f.tensor.down, f.tensor.left, f.tensor.right)]
    before = [part.detach().clone() for part in parts]
    twin = QuadraticMap(BilinearTensor(*parts), f.linear, f.constant)
    found, expected = (eigendecompose_all(g, method=method, k=2) for g in (twin, f))
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues)
    assert not found.eigenvalues.requires_grad
    assert all(torch.equal(*pair) for pair in zip(before, parts, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_factors_are_read_exactly(dtype: torch.dtype, method: str) -> None:
    f = wide_map().to(dtype)
    found = eigendecompose_all(f, method=method, k=2).eigenvalues
    down, left, right = f.tensor.down.double(), f.tensor.left.double(), f.tensor.right.double()
    exact = torch.linalg.eigvalsh(oracles.dense_tensor(down, left, right)[0])
    assert found.dtype is torch.float64
    torch.testing.assert_close(found[0], vector(*oracles.chosen(exact, 2, "magnitude")))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_call_gives_the_same_bytes(method: str, precision: str) -> None:
    first, second = (
        eigendecompose_all(wide_map(), k=3, method=method, precision=precision) for _ in range(2)
    )
    assert torch.equal(first.eigenvalues, second.eigenvalues)
    assert torch.equal(first.eigenvectors, second.eigenvectors)
    assert torch.equal(first.residuals, second.residuals)


def test_a_smaller_memory_limit_makes_smaller_batches_and_the_same_result() -> None:
    """Width 512: a matrix product rounds differently for another number of rows."""
    f = random_map(0, 60, 40, 512)
    full = eigendecompose_all(f, method="lanczos", k=2)
    small = eigendecompose_all(f, method="lanczos", memory_limit="300MiB", k=2)
    assert_same(small, full)


def test_verify_that_does_not_fit_is_refused_before_any_work() -> None:
    f = random_map(0, 2, 1600, 3000)
    with pytest.raises(MemoryLimitError, match=r"verify=True needs 6\d\d\.\d+ MiB .* eigenvalues"):
        eigendecompose_all(
            f, method="lanczos", verify=True, memory_limit="500MiB", progress=never_called, k=2
        )


def test_what_no_dense_array_fits_for_is_settled_on_the_row_space() -> None:
    """Width 6000 takes 1.5 GiB as arrays; the eigenvalue zero is there 5,984 times."""
    f = random_map(0, 2, 8, 6000)
    arguments = {"k": 20, "which": "smallest", "method": "lanczos", "memory_limit": "1GiB"}
    assert (
        plan_eigendecomposition(f, k=20, method="lanczos", memory_limit="1GiB").fallback
        == "factored"
    )
    eigs = eigendecompose_all(f, verify=True, **arguments)
    assert bool(eigs.complete.all())
    assert_same(eigs, eigendecompose_all(f, **{**arguments, "method": "factored"}))


def negative_form() -> QuadraticForm:
    """Rank 60: zero, −1 and −2 stand apart from all others, and float32 sees them at once."""
    values = torch.cat([vector(1, 2), torch.linspace(29, 30, 58).double()])
    return form_from_pairs(-values, rotation(300)[:60])


def turned_round(form: QuadraticForm) -> QuadraticForm:
    matrix = replace(form.matrix, weight=-form.matrix.weight)
    return replace(form, matrix=matrix)


@pytest.mark.parametrize("which", ["largest", "smallest", "both"])
def test_zeros_that_the_rank_makes_certain_are_not_missed(which: str) -> None:
    """The three largest eigenvalues of a negative form of low rank: one zero is met at first."""
    form = negative_form() if which != "smallest" else turned_round(negative_form())
    eig = eigendecompose(form, k=3, which=which, method="lanczos", precision="float32")
    assert eig.status is Status.OK
    expected = {"both": vector(-30, 0, 0)}.get(which, vector(0, 0, 0))
    error = (eig.eigenvalues - expected).abs()
    assert bool((error <= eig.residuals + 1e-8).all())  # −30 has neighbours: its residual bounds it
    assert bool((error[expected == 0] <= 1e-8).all())
    assert bool(eig.complete) or which == "both"  # there the iteration itself came upon the zeros


def test_zeros_that_were_missed_are_said_to_be_where_nobody_settles_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bilens.algebra.eigen.eigendecompose.verified", lambda *given: given[2])
    form = negative_form()
    eig = eigendecompose(form, k=3, which="largest", method="lanczos", precision="float32")
    assert eig.status is Status.MISSED
    assert not bool(eig.complete)


def test_more_outputs_than_have_room_are_taken_in_portions() -> None:
    """Weights of 300 forms take 180 MiB while they are scaled; the answer is the same."""
    f = random_map(0, 300, 10_000, 4).to(torch.float32)
    plan = plan_eigendecomposition(f, k=1, method="dense", memory_limit="100MiB")
    assert plan.portion < 200
    assert plan.peak_bytes <= plan.limit_bytes
    seen: list[int] = []
    eigs = eigendecompose_all(
        f, k=1, method="dense", memory_limit="100MiB", progress=lambda done, _: seen.append(done)
    )
    assert seen == list(range(1, 301))
    assert_same(eigs, eigendecompose_all(f, k=1, method="dense"))


def never_called(_done: int, _total: int) -> None:
    raise AssertionError("work was done")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_the_smallest_forms(n: int, which: str, method: str) -> None:
    """Widths of 1, 2 and 3: symmetric, all equal, and of one neuron."""
    q = randn(n, n)
    forms = [form_of((q + q.T) / 2), form_of(torch.eye(n, dtype=torch.float64))]
    forms.append(random_map(1, 1, 1, n).form(vector(1)))
    for form in forms:
        matrix = form.matrix
        dense = oracles.dense_weighted(matrix.left, matrix.right, matrix.weight)
        exact = torch.linalg.eigvalsh(dense)
        for k in range(1, n + 1):
            eig = eigendecompose(form, k=k, which=which, method=method)
            expected = vector(*oracles.chosen(exact, k, which))
            torch.testing.assert_close(eig.eigenvalues.sort().values, expected.sort().values)
            assert eig.status is Status.OK
            assert bool((eig.cluster_size <= n).all())


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_pairs_of_forms_that_cancel_have_converged_where_they_say_so(precision: str) -> None:
    """s and −s with rows 1e-12 to 1e-10 apart: ‖Q‖² from the factors is mostly rounding."""
    for seed in range(30):
        left, right, weights = (randn(*s, seed=seed) for s in ((12, 40), (12, 40), (20, 12)))
        right = right.roll(1, 0)
        near = left + 10 ** (seed / 15 - 12.5) * randn(12, 40, seed=seed + 100)
        down = torch.cat([weights, -weights], dim=1)
        rows, other = torch.cat([left, near]), torch.cat([right, right])
        f = QuadraticMap(BilinearTensor(down, rows, other))
        eigs = eigendecompose_all(f, method="lanczos", precision=precision, k=2)
        half = weights[:, :, None, None] * (left - near)[:, :, None] * right[:, None, :]
        q = (half + half.mT).sum(dim=1) / 2  # left − near is exact
        true = (eigs.eigenvectors @ q - eigs.eigenvalues[..., None] * eigs.eigenvectors).norm(dim=2)
        forms = balance_all(rows, other, down)
        noise = 10 * EPS * forms.sizes_before_cancelling * forms.units
        size = q.flatten(1).norm(dim=1)
        allowed = (1e-6 if precision == "float32" else 1e-11) * size + 1000 * EPS * size + noise
        assert not bool((eigs.converged & (true > allowed[:, None])).any())
