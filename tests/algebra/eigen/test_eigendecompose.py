"""The way in: choices, batches, odd inputs, and a solver that fails in every way it can."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.base.errors import (
    MemoryLimitError,
    NonFiniteError,
    NumericalError,
    ShapeError,
    TruncationWarning,
    UsageError,
)
from builders import D_IN, D_OUT, randn, random_map, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, SOUND, Odd

EIGH = torch.linalg.eigh


def dense_spectrum(form: QuadraticForm) -> Tensor:
    matrix = form.matrix
    return torch.linalg.eigvalsh(oracles.dense_weighted(matrix.left, matrix.right, matrix.weight))


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
@pytest.mark.parametrize("k", [1, 2, 3, D_IN])
def test_the_pairs_asked_for_are_returned(which: str, k: int) -> None:
    form = random_map().form(randn(D_OUT))
    eig = eigendecompose(form, k=k, which=which)
    expected = torch.tensor(oracles.chosen(dense_spectrum(form), k, which), dtype=torch.float64)
    torch.testing.assert_close(eig.eigenvalues, expected)
    assert eig.eigenvectors.shape == (k, D_IN)
    assert eig.which == which


def test_all_pairs_are_returned_where_nothing_is_said() -> None:
    assert len(eigendecompose(random_map().form(randn(D_OUT))).eigenvalues) == D_IN
    assert eigendecompose_all(random_map()).eigenvalues.shape == (D_OUT, D_IN)


def test_linear_and_constant_terms_are_carried_along() -> None:
    form = random_map().form(randn(D_OUT))
    eig = eigendecompose(form, k=1)
    assert torch.equal(eig.linear, form.linear)
    assert torch.equal(eig.constant, form.constant)


def test_directions_other_than_the_outputs_can_be_read() -> None:
    f, rows = random_map(), centred_directions(D_OUT)
    eigs = eigendecompose_all(f, rows, k=None)
    for row, single in zip(rows, eigs, strict=True):
        torch.testing.assert_close(single.eigenvalues, eigendecompose(f.form(row)).eigenvalues)


def test_more_pairs_than_exist_are_all_returned_with_a_warning() -> None:
    message = "k=9, but a form of 5 inputs has 5 pairs: returning all of them"
    with pytest.warns(TruncationWarning, match=message) as caught:
        eig = eigendecompose(random_map().form(randn(D_OUT)), k=9)
    assert len(eig.eigenvalues) == D_IN
    assert caught[0].filename == __file__  # it points at the caller
    with pytest.warns(TruncationWarning, match=message):
        eigendecompose_all(random_map(), k=9)


BAD_CHOICES: list[tuple[dict[str, object], str]] = [
    ({"k": 0}, "k must be an integer of at least 1, got 0"),
    ({"k": -2}, "k must be an integer of at least 1, got -2"),
    ({"k": 2.0}, "k must be an integer of at least 1, got 2.0"),
    ({"k": True}, "k must be an integer of at least 1, got True"),
    ({"which": "top"}, "which='top' is not known: use one of magnitude, largest, smallest, both"),
    ({"which": None}, "which=None is not known"),
    ({"method": "arpack"}, "method='arpack' is not known: use one of auto, dense"),
]


@pytest.mark.parametrize(("choice", "message"), BAD_CHOICES, ids=str)
def test_a_choice_that_does_not_exist_is_refused(choice: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        eigendecompose(random_map().form(randn(D_OUT)), **choice)
    with pytest.raises(UsageError, match=message):
        eigendecompose_all(random_map(), **choice)


@pytest.mark.parametrize("method", ["auto", "dense"])
def test_the_method_that_ran_is_recorded(method: str) -> None:
    assert eigendecompose(random_map().form(randn(D_OUT)), method=method).method == "dense"


def never(_: Tensor) -> None:
    raise AssertionError("the solver was called")


@pytest.mark.parametrize("slot", ["left", "right", "weight", "linear", "constant"])
@pytest.mark.parametrize("n", [3, 128])
@pytest.mark.parametrize("odd", NOT_FINITE, ids=str)
def test_nan_and_infinity_never_reach_the_solver(
    odd: Odd, n: int, slot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.linalg, "eigh", never)
    parts = {"left": randn(2, n), "right": randn(2, n), "weight": randn(2)}
    parts |= {"linear": randn(n), "constant": randn(1)[0]}
    parts[slot] = odd.of(parts[slot])
    with pytest.raises(NonFiniteError, match=f"^{slot} holds {odd.message}"):
        eigendecompose(
            QuadraticForm(
                InteractionMatrix(parts["left"], parts["right"], parts["weight"]),
                parts["linear"],
                parts["constant"],
            )
        )


def test_finite_factors_whose_product_overflows_are_a_numerical_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.linalg, "eigh", never)
    factor = 1e200 * torch.eye(3, dtype=torch.float64)
    matrix = InteractionMatrix(factor, factor, torch.ones(3, dtype=torch.float64))
    huge = QuadraticForm(matrix, factor[0], factor[0, 0])
    with pytest.raises(NumericalError, match=r"width 3 was not decomposed: .* NaN .*; rescale"):
        eigendecompose(huge)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_is_decomposed_in_float64(dtype: torch.dtype) -> None:
    f = random_map().to(dtype)
    eig = eigendecompose(f.form(torch.ones(D_OUT)))
    assert eig.eigenvalues.dtype is eig.linear.dtype is torch.float64
    assert eigendecompose_all(f, k=2).eigenvectors.dtype is torch.float64


def test_no_gradient_is_kept_and_none_is_asked_for() -> None:
    """The gradient of an eigenvector does not exist where eigenvalues meet."""
    embed = torch.eye(D_IN, dtype=torch.float64).requires_grad_()
    f = random_map().compose_input(embed)
    for eig in (eigendecompose(f.form(randn(D_OUT))), eigendecompose_all(f, k=2)):
        assert not any(
            part.requires_grad for part in vars(eig).values() if isinstance(part, Tensor)
        )
    assert embed.grad is None


@pytest.mark.parametrize("odd", NOT_DENSE_FLOAT, ids=str)
def test_odd_directions_are_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=f"directions (has|is) .*{odd.message.partition(' ')[2]}"):
        eigendecompose_all(random_map(), odd.of(torch.eye(D_OUT, dtype=torch.float64)), k=2)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_directions_change_nothing(odd: Odd) -> None:
    rows = randn(2, D_OUT)
    expected = eigendecompose_all(random_map(), rows, k=2).eigenvalues
    torch.testing.assert_close(
        eigendecompose_all(random_map(), odd.of(rows), k=2).eigenvalues, expected
    )


@pytest.mark.parametrize("shape", [(D_OUT,), (1, 2, D_OUT), (2, D_OUT + 1), (0, D_OUT)])
def test_directions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"directions has shape .* expected"):
        eigendecompose_all(random_map(), randn(*shape), k=2)


@pytest.mark.parametrize("odd", NOT_FINITE, ids=str)
def test_a_row_that_is_not_finite_is_flagged_and_the_others_go_on(odd: Odd) -> None:
    rows = torch.eye(D_OUT, dtype=torch.float64)
    rows[1] = odd.of(rows[1])
    eigs = eigendecompose_all(random_map(), rows, k=2)
    good = eigendecompose_all(random_map(), k=2)
    assert eigs.status == (Status.OK, Status.NOT_FINITE, Status.OK)
    assert bool(eigs.eigenvalues[1].isnan().all())
    assert torch.equal(eigs.eigenvalues[[0, 2]], good.eigenvalues[[0, 2]])
    assert eigs.complete.tolist() == [True, False, True]


def test_a_row_that_overflows_is_flagged_and_the_others_go_on() -> None:
    """1e200 · 1e200 is beyond float64 although both are finite."""
    scale = torch.diag(vector(1.0, 1e200, 1.0))
    f = random_map().compose_output(scale)
    assert eigendecompose_all(f, scale, k=2).status == (Status.OK, Status.NOT_FINITE, Status.OK)


# How a solver can fail: name → (a replacement of eigh, the status of the form).
BROKEN_SOLVERS: dict[str, tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Status]] = {
    "raises": (lambda q: _raise(q), Status.NOT_CONVERGED),
    "returns NaN": (lambda q: (EIGH(q)[0] * torch.nan, EIGH(q)[1]), Status.NOT_CONVERGED),
    "returns one NaN in a vector": (
        lambda q: (EIGH(q)[0], EIGH(q)[1].index_fill(1, torch.tensor(0), torch.nan)),
        Status.NOT_CONVERGED,
    ),
    "returns the identity": (
        lambda q: (EIGH(q)[0], torch.eye(len(q)).to(q)),
        Status.RESIDUAL_TOO_LARGE,
    ),
    "returns zeros": (lambda q: (EIGH(q)[0], 0 * q), Status.RESIDUAL_TOO_LARGE),
    "returns rows for columns": (lambda q: (EIGH(q)[0], EIGH(q)[1].T), Status.RESIDUAL_TOO_LARGE),
    "returns values of another matrix": (
        lambda q: (EIGH(q)[0] + 1e-6, EIGH(q)[1]),
        Status.RESIDUAL_TOO_LARGE,
    ),
}


def _raise(_: Tensor) -> tuple[Tensor, Tensor]:
    raise torch.linalg.LinAlgError("ill-conditioned or has too many repeated eigenvalues")


@pytest.fixture(params=BROKEN_SOLVERS)
def broken(request: pytest.FixtureRequest) -> tuple[Callable[[Tensor], object], Status]:
    """A solver that fails, and how its answer is to be judged."""
    return BROKEN_SOLVERS[request.param]


def test_a_failing_solver_is_an_error_or_is_flagged(
    broken: tuple[Callable[[Tensor], object], Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, status = broken
    monkeypatch.setattr(torch.linalg, "eigh", solver)
    form = random_map().form(randn(D_OUT))
    if status is Status.NOT_CONVERGED:
        with pytest.raises(NumericalError, match=r"width 5 .*the solver did not converge; rescale"):
            eigendecompose(form)
    else:
        eig = eigendecompose(form)
        assert eig.status is status
        assert not bool(eig.complete)
        assert not bool(eig.converged.all())
        with pytest.raises(NumericalError, match="nothing can be built"):
            eig.truncate(1)


def test_a_solver_that_fails_on_one_form_does_not_stop_the_sweep(
    broken: tuple[Callable[[Tensor], object], Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, status = broken
    good = eigendecompose_all(random_map(), k=None)
    turns: Iterator[Callable[[Tensor], object]] = iter([EIGH, solver, EIGH])
    monkeypatch.setattr(torch.linalg, "eigh", lambda q: next(turns)(q))
    eigs = eigendecompose_all(random_map(), k=None)
    assert eigs.status == (Status.OK, status, Status.OK)
    assert torch.equal(eigs.eigenvalues[[0, 2]], good.eigenvalues[[0, 2]])


def test_a_sweep_beyond_the_memory_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "999")
    message = (
        r"width 5 need at least 0\.0\d MiB .* the limit is .*memory_limit or BILENS_MEMORY_LIMIT"
    )
    with pytest.raises(MemoryLimitError, match=message):
        eigendecompose_all(random_map(), k=2)
    with pytest.raises(MemoryLimitError, match=message):
        eigendecompose(random_map().form(randn(D_OUT)))
    assert (
        len(eigendecompose_all(random_map(), memory_limit="1M", k=2)) == D_OUT
    )  # the argument counts


def test_a_form_that_does_not_fit_is_refused_before_it_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bilens.algebra.eigen.eigendecompose.problem_of_form", pytest.fail)
    with pytest.raises(MemoryLimitError):
        eigendecompose(random_map().form(randn(D_OUT)), memory_limit=1000)


@pytest.mark.parametrize("limit", [0, -1, True, "", "much", 1.5])
def test_a_limit_that_is_no_size_is_refused(limit: object) -> None:
    with pytest.raises(UsageError, match="memory"):
        eigendecompose_all(random_map(), memory_limit=limit, k=2)
