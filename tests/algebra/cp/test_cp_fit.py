"""CP decompositions of maps: several starts, and what they take in memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.cp import cp_fit
from bilens.algebra.cp.cp_fit import (
    STRONG_RIDGE,
    CPOptions,
    Method,
    best_attempt,
    cp_decompose,
    fit_bytes,
    in_order,
    random_start,
    run_starts,
    strongest_start,
)
from bilens.algebra.cp.optimisers import alternating_least_squares
from bilens.algebra.cp.target import Factors, Model, Target
from bilens.algebra.gram.kernel import unit_rows
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NumericalError, UsageError
from builders import D_HIDDEN, randn, random_map, random_tensor, rotation, vector
from odd_tensors import LOW_PRECISION
from peak_memory import OVERHEAD, peak_of
from planted import dense_of, planted_map
from strategies import maps

MODELS: tuple[Model, ...] = ("pairs", "symmetric")
METHODS: tuple[Method, ...] = ("als", "gradient")


@settings(max_examples=15)
@given(maps(), st.sampled_from(MODELS), st.sampled_from(METHODS))
def test_fit_and_error_are_those_of_the_map_that_is_given_back(
    f: QuadraticMap, model: Model, method: Method
) -> None:
    found = cp_decompose(f, 1, model=model, method=method, num_starts=2, max_sweeps=30)
    dense = dense_of(f)
    norm = float(oracles.norm(dense))
    if found.starts[0].kind == "zero":
        assert norm < 1e-12
        return
    error = float(oracles.norm(dense - dense_of(found.quadratic_map()))) / norm
    assert found.relative_error == pytest.approx(error, abs=found.resolution + 1e-12)
    assert found.fit == pytest.approx(1 - error**2)
    assert list(found.losses) == sorted(found.losses, reverse=True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(0, 240, 8))
def test_losses_do_not_rise_where_the_start_is_the_minimum(seed: int, model: Model) -> None:
    """One hidden unit is met by the first start, and only rounding is left."""
    f = QuadraticMap(random_tensor(d_out=1, d_hidden=1, d_in=2, seed=seed))
    found = cp_decompose(f, 1, model=model, method="gradient", num_starts=2, max_sweeps=30)
    assert list(found.losses) == sorted(found.losses, reverse=True)


@settings(max_examples=6)
@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from(METHODS))
def test_planted_pairs_that_hidden_units_mix_are_found(
    seed: int, rank: int, method: Method
) -> None:
    """Twice the planted hidden units, each in two parts: the rank is not to be read off them."""
    f = planted_map(seed, rank, "pairs", d_in=8)
    t = f.tensor
    split = BilinearTensor(
        torch.cat([t.down, t.down], dim=1),
        torch.cat([t.left, t.left]),
        torch.cat([0.3 * t.right, 0.7 * t.right]),
    )
    found = cp_decompose(replace(f, tensor=split), rank, method=method, num_starts=5)
    assert found.relative_error < 1e-4
    assert found.unique is True
    reference = cp_decompose(f, rank, num_starts=1)
    assert_close(found.left, reference.left, rtol=1e-3, atol=1e-3)
    assert_close(found.down, reference.down, rtol=1e-3, atol=1e-3)


def written_otherwise(f: QuadraticMap) -> QuadraticMap:
    """The same map: hidden units in another order and scale, left and right swapped."""
    tensor = f.tensor
    order = torch.arange(f.sizes.d_hidden).flip(0)
    tensor = BilinearTensor(
        tensor.down[:, order] / 6, -3 * tensor.right[order], -2 * tensor.left[order]
    )
    return replace(f, tensor=tensor)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_the_way_a_map_is_written_changes_nothing(model: Model, method: Method) -> None:
    f = random_map(0, d_hidden=6)
    ours, theirs = (
        cp_decompose(g, 2, model=model, method=method, max_sweeps=2000, tolerance=1e-12)
        for g in (f, written_otherwise(f))
    )
    assert theirs.fit == pytest.approx(ours.fit, abs=1e-10)
    assert_close(
        dense_of(theirs.quadratic_map()), dense_of(ours.quadratic_map()), rtol=1e-4, atol=1e-4
    )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_start() -> None:
    f = random_map(2, d_hidden=6)
    first, second, other = (cp_decompose(f, 2, seed=seed, max_sweeps=5) for seed in (3, 3, 4))
    assert torch.equal(first.down, second.down)
    assert first.starts == second.starts
    assert [start.fit for start in other.starts] != [start.fit for start in first.starts]


def test_the_seed_decides_where_the_map_gives_no_start() -> None:
    """Three of four units are zero; the generator of torch plays no part."""
    tensor = random_tensor()
    left = tensor.left * torch.tensor([1.0, 0.0, 0.0, 0.0]).double()[:, None]
    f, found = QuadraticMap(replace(tensor, left=left)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(cp_decompose(f, 3, num_starts=3, max_sweeps=1))
    for one, other in zip(*(run.starts for run in found), strict=True):
        assert one == other
    assert torch.equal(found[0].left, found[1].left)


def test_a_rotation_of_the_input_rotates_the_components() -> None:
    f = planted_map(3, 2, "pairs")
    turn = rotation(f.sizes.d_in)
    found = cp_decompose(f.compose_input(turn), 2, num_starts=1)
    ours = cp_decompose(f, 2, num_starts=1)
    assert_close(
        dense_of(found.quadratic_map()), dense_of(ours.quadratic_map().compose_input(turn))
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_a_map_that_is_zero_has_components_of_size_zero(model: Model, method: Method) -> None:
    f = random_map()
    zero = replace(f, tensor=replace(f.tensor, down=0 * f.tensor.down))
    found = cp_decompose(zero, 2, model=model, method=method)
    assert (found.fit, found.relative_error, found.unique) == (1.0, 0.0, False)
    assert_close(found.quadratic_map()(torch.ones(5).double()), f.linear.sum(1) + f.constant)
    assert not bool(found.sizes.any())


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_scale_of_a_map_changes_nothing_but_down(scale: float) -> None:
    tensor = random_tensor(2, d_hidden=6)
    plain = cp_decompose(QuadraticMap(tensor), 2, max_sweeps=20)
    f = QuadraticMap(replace(tensor, down=scale * tensor.down))
    scaled = cp_decompose(f, 2, max_sweeps=20)
    assert scaled.fit == pytest.approx(plain.fit)
    assert_close(scaled.down / scale, plain.down)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_maps_are_decomposed_in_float64(dtype: torch.dtype) -> None:
    f = random_map(1).to(dtype)
    found = cp_decompose(f, 2, max_sweeps=20)
    exact = cp_decompose(f.to(torch.float64), 2, max_sweeps=20)
    assert found.down.dtype is torch.float64
    assert torch.equal(found.down, exact.down)


def test_one_input_one_output_one_hidden_unit() -> None:
    f = random_map(d_out=1, d_hidden=1, d_in=1)
    for model in MODELS:
        found = cp_decompose(f, 1, model=model)
        assert found.relative_error < 1e-9
        assert found.converged


def test_a_decomposition_needs_no_gradients_and_leaves_the_map_alone() -> None:
    f = random_map(1)
    left = torch.nn.Parameter(f.tensor.left.clone())
    found = cp_decompose(replace(f, tensor=replace(f.tensor, left=left)), 2, max_sweeps=5)
    assert not found.left.requires_grad
    assert torch.equal(left, f.tensor.left)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"rank": 2.0}, "rank must be an integer"),
        ({"rank": True}, "rank must be an integer"),
        ({"rank": D_HIDDEN + 1}, r"rank=5, but the 4 hidden units .* at most 4"),
        ({"rank": 2 * D_HIDDEN + 1, "model": "symmetric"}, "a sum of 8 such components"),
        ({"model": "cp"}, "model='cp' is not known: use one of pairs, symmetric"),
        ({"method": "adam"}, "method='adam' is not known: use one of als, gradient"),
        ({"num_starts": 0}, "num_starts must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"max_sweeps": 0}, "max_sweeps must be an integer of at least 1"),
        ({"tolerance": 0.0}, "tolerance=0.0: a number between 0 and 1"),
        ({"tolerance": float("nan")}, "tolerance=nan: a number between 0 and 1"),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        cp_decompose(random_map(), **{"rank": 2, **options})


def test_forms_and_fits_beyond_the_memory_limit_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^f is a QuadraticForm; expected QuadraticMap: .* eigendecompose"
    ):
        cp_decompose(random_map().form(torch.ones(3).double()), 1)
    for method in METHODS:
        need = fit_bytes(random_map().sizes, 2, method, num_starts=1)
        with pytest.raises(
            MemoryLimitError, match=r"a CP fit of rank 2 to 4 hidden .* smaller rank"
        ):
            cp_decompose(random_map(), 2, method=method, num_starts=1, memory_limit=need - 1)
        within = cp_decompose(random_map(), 2, method=method, num_starts=1, memory_limit=need)
        assert torch.equal(
            within.down, cp_decompose(random_map(), 2, method=method, num_starts=1).down
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_is_at_least_that_of_tensorly_on_the_dense_tensor(method: Method) -> None:
    """The symmetric part of any CP model of a symmetric tensor is a sum of pairs, and closer."""
    tensorly = pytest.importorskip("tensorly", reason="TensorLy is not installed")
    parafac = pytest.importorskip("tensorly.decomposition").parafac
    assert tensorly.get_backend() == "numpy"
    f = random_map(4, d_out=12, d_hidden=24, d_in=10)
    dense = dense_of(f)
    errors = [
        parafac(
            dense.numpy(), 4, n_iter_max=300, init="random", random_state=s, return_errors=True
        )[1][-1]
        for s in range(3)
    ]
    ours = cp_decompose(f, 4, method=method, num_starts=3)
    assert ours.relative_error <= min(float(error) for error in errors)


SIZES = FactorSizes(512, 256, 768)
RANK = 256
CODE = """
from bilens.algebra.cp.cp_fit import cp_decompose
from builders import random_map
f = random_map(0, *{sizes})
scipy.optimize.minimize
measure(lambda: cp_decompose(f, {rank}, method="{method}", num_starts=1, max_sweeps=25))
"""


@pytest.mark.parametrize("method", ["als", pytest.param("gradient", marks=pytest.mark.slow)])
def test_a_fit_takes_no_more_than_was_counted(method: str) -> None:
    peak = peak_of(
        "import scipy.optimize" + CODE.format(sizes=tuple(SIZES), rank=RANK, method=method)
    )
    assert peak <= fit_bytes(SIZES, RANK, method, num_starts=1) + OVERHEAD


def test_every_start_keeps_its_model() -> None:
    one, five = (fit_bytes(SIZES, RANK, "als", num) for num in (1, 5))
    assert five - one == 4 * 8 * RANK * (512 + 2 * 768)


TARGET = Target.from_tensor(random_tensor(1, d_hidden=6))
OPTIONS = CPOptions(max_sweeps=20)


def failing_at(monkeypatch: pytest.MonkeyPatch, calls: set[int], error: BaseException) -> None:
    """Let some of the fits raise an error instead."""
    made = iter(range(100))

    def sometimes(*arguments: Any) -> Any:
        if next(made) in calls:
            raise error
        return alternating_least_squares(*arguments)

    monkeypatch.setitem(cp_fit.FITS, "als", sometimes)


def test_the_strongest_hidden_units_come_first_and_progress_is_told() -> None:
    told: list[int] = []
    attempts = run_starts(TARGET, 2, replace(OPTIONS, progress=told.append))
    assert [attempt.start.kind for attempt in attempts] == ["neurons", "random", "random"]
    assert told == [1, 2, 3]
    fits = [attempt.start.fit for attempt in attempts]
    assert best_attempt(attempts).start.fit == max(fits)


def test_more_starts_keep_the_earlier_ones() -> None:
    few, many = (
        run_starts(TARGET, 2, replace(OPTIONS, num_starts=2, seed=5)),
        run_starts(TARGET, 2, replace(OPTIONS, num_starts=4, seed=5)),
    )
    assert [attempt.start for attempt in many[:2]] == [attempt.start for attempt in few]


@pytest.mark.parametrize("error", [NumericalError("no"), torch._C._LinAlgError("not positive")])
def test_a_start_that_fails_does_not_lose_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(monkeypatch, {0, 2}, error)
    attempts = run_starts(TARGET, 2, replace(OPTIONS, num_starts=4))
    assert [bool(attempt.start.failure) for attempt in attempts] == [True, False, True, False]
    assert str(error) in attempts[0].start.failure
    assert best_attempt(attempts) in (attempts[1], attempts[3])


def test_if_every_start_fails_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, {0, 1}, NumericalError("no"))
    attempts = run_starts(TARGET, 2, replace(OPTIONS, num_starts=2))
    with pytest.raises(
        NumericalError, match=r"none of 2 starts .*NumericalError: no.* smaller rank"
    ):
        best_attempt(attempts)


def test_an_interrupt_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, {1}, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_starts(TARGET, 2, OPTIONS)


def test_components_that_grow_and_cancel_are_stopped_and_reported() -> None:
    """(x₁², x₁x₂) is the limit of sums of the squares x₁² and (x₁ + x₂/n)², and no such sum."""
    first, second = torch.eye(2, dtype=torch.float64)
    tensor = BilinearTensor(
        torch.diag(vector(1.0, 1.0)), torch.stack([first, first]), torch.stack([first, second])
    )
    options = CPOptions(model="symmetric", method="gradient", max_sweeps=3000, tolerance=1e-12)
    attempts = run_starts(Target.from_tensor(tensor), 2, options)
    stopped = [attempt for attempt in attempts if attempt.start.degenerate]
    assert stopped
    for attempt in stopped:
        assert attempt.ridge == STRONG_RIDGE
        assert attempt.start.fit > 0.999
        assert float(attempt.fitted.factors.down.norm()) < 100


TENSOR = BilinearTensor(torch.diag(vector(1.0, 9.0, 3.0)), randn(3, 5, seed=1), randn(3, 5, seed=2))
# The size of a unit includes the lengths of its rows: made equal here, so that `down` decides.
UNIT = BilinearTensor(TENSOR.down, unit_rows(TENSOR.left)[0], unit_rows(TENSOR.right)[0])


def start(tensor: BilinearTensor, rank: int, model: Model = "pairs", seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return strongest_start(Target.from_tensor(tensor), rank, model, generator)


def as_sets(factors: Factors) -> list[set[tuple[float, ...]]]:
    return [
        {tuple(row.round(decimals=9).tolist()) for row in pair}
        for pair in zip(factors.left, factors.right, strict=True)
    ]


def test_the_strongest_units_come_first() -> None:
    found = as_sets(start(UNIT, 2))
    expected = as_sets(Factors(UNIT.down, UNIT.left[[1, 2]], UNIT.right[[1, 2]]))
    assert found == expected


def test_squares_start_from_the_eigenvectors_of_units() -> None:
    """For orthogonal l and r both eigenvalues have the size of the unit: its pair comes first."""
    left = torch.eye(4, dtype=torch.float64)[:2]
    right = torch.eye(4, dtype=torch.float64)[2:]
    tensor = BilinearTensor(torch.diag(vector(1.0, 5.0)), left, right)
    rows = start(tensor, 2, "symmetric").left
    half = 0.5**0.5
    assert_close(rows, torch.tensor([[0, half, 0, half], [0, half, 0, -half]]).double())


def test_rows_that_are_missing_or_zero_are_random() -> None:
    dead = BilinearTensor(UNIT.down, UNIT.left * vector(1, 0, 1)[:, None], UNIT.right)
    rows = start(dead, 5).left
    assert bool((rows.norm(dim=1) > 0).all())
    assert len({tuple(row.tolist()) for row in rows}) == 5


def rewritten(tensor: BilinearTensor) -> BilinearTensor:
    order = torch.tensor([2, 0, 1])
    down, left, right = tensor.down[:, order], tensor.left[order], tensor.right[order]
    return BilinearTensor(down / 6, 3 * right, 2 * left)


def test_the_way_a_map_is_written_changes_no_start() -> None:
    for model in ("pairs", "symmetric"):
        ours, theirs = start(TENSOR, 2, model), start(rewritten(TENSOR), 2, model)
        assert_close(theirs.left.abs(), ours.left.abs())
        assert_close(theirs.right.abs(), ours.right.abs())


def test_random_starts_depend_on_the_seed_alone() -> None:
    target = Target.from_tensor(random_tensor())

    def draw(seed: int) -> Tensor:
        return random_start(target, 3, "pairs", torch.Generator().manual_seed(seed)).left

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    symmetric = random_start(target, 3, "symmetric", torch.Generator().manual_seed(0))
    assert symmetric.left is symmetric.right


def test_a_pair_is_ordered_by_its_first_difference() -> None:
    first = torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 1.0]]).double()
    second = torch.tensor([[1.0, 3.0], [1.0 + 1e-12, 2.0], [1.0, 1.0]]).double()
    left, right = in_order(first, second)
    assert left[:, 1].tolist() == [3.0, 3.0, 1.0]
    assert right[:, 1].tolist() == [2.0, 2.0, 1.0]
