"""Attributions are the Shapley values by enumeration, and so are their pairwise interactions."""

from collections.abc import Callable
from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import bilens.algebra.attribution as attribution
from bilens.algebra.attribution import (
    attribute,
    attribute_to_background,
    pairwise_interactions,
    top_interactions,
)
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from builders import randn, random_map
from strategies import maps_with_inputs


def shapley(value: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """φ_i = Σ_S |S|! (n − |S| − 1)! / n! (v(S + i) − v(S)), over all S without i; (out, n)."""
    worth = {}
    for size in range(n + 1):
        for members in combinations(range(n), size):
            mask = torch.zeros(n, dtype=torch.bool)
            mask[list(members)] = True
            worth[members] = value(mask)
    columns = []
    for i in range(n):
        total = torch.zeros_like(worth[()])
        others = [j for j in range(n) if j != i]
        for size in range(n):
            share = factorial(size) * factorial(n - size - 1) / factorial(n)
            for members in combinations(others, size):
                total += share * (worth[tuple(sorted((*members, i)))] - worth[members])
        columns.append(total)
    return torch.stack(columns, dim=1)


def integrated_gradients(f: QuadraticMap, x: Tensor, start: Tensor) -> Tensor:
    """Δ_i ∫ ∂_i f(x₀ + tΔ) dt by Gauss–Legendre with 12 points, one output at a time."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    rows = []
    for output in range(f.sizes.d_out):
        total = torch.zeros_like(x)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            point = (start + node * (x - start)).requires_grad_()
            (slope,) = torch.autograd.grad(f(point)[output], point)
            total += weight * slope
        rows.append((x - start) * total)
    return torch.stack(rows)


MAPS = {
    "wide": random_map(seed=1, d_in=7),
    "many neurons": random_map(seed=2, d_hidden=40, d_in=6),
    "one input": random_map(seed=3, d_in=1),
    "symmetric": QuadraticMap(
        BilinearTensor(randn(2, 5), randn(5, 8, seed=1), randn(5, 8, seed=1))
    ),
    "quadratic alone": QuadraticMap(random_map(seed=4, d_in=5).tensor),
}


@pytest.mark.parametrize("name", MAPS)
def test_attribution_is_the_shapley_value_by_enumeration(name: str) -> None:
    f = MAPS[name]
    n = f.sizes.d_in
    x, start = randn(2, n, seed=5), randn(n, seed=6)
    for baseline in (None, start):
        found = attribute(f, x, baseline)
        zero = torch.zeros(n, dtype=torch.float64) if baseline is None else baseline
        for row, values in zip(x, found, strict=True):
            game = shapley(lambda mask, row=row, zero=zero: f(torch.where(mask, row, zero)), n)
            torch.testing.assert_close(values, game, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_attribution_is_the_integrated_gradient(name: str) -> None:
    f = MAPS[name]
    x, start = randn(3, f.sizes.d_in, seed=7), randn(3, f.sizes.d_in, seed=8)
    found = attribute(f, x, start)
    for row, zero, values in zip(x, start, found, strict=True):
        expected = integrated_gradients(f, row, zero)
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


@given(maps_with_inputs())
def test_attributions_sum_to_the_difference(pair: tuple[QuadraticMap, Tensor]) -> None:
    f, x = pair
    baseline = x[0] / 2 + 1
    total = attribute(f, x, baseline).sum(dim=-1)
    torch.testing.assert_close(total, f(x) - f(baseline), rtol=1e-9, atol=1e-9)


def test_factors_arrays_and_chunks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, f in MAPS.items():
        total = randn(50, f.sizes.d_in, seed=9)
        arrays = attribution.in_arrays(f, total)
        for rows in (1, 7, 50):
            torch.testing.assert_close(attribution.in_factors(f, total, rows), arrays, msg=name)
    assert attribution.cheaper_through_arrays(MAPS["many neurons"], 500)
    assert not attribution.cheaper_through_arrays(random_map(d_hidden=2, d_in=30), 500)
    f, x = MAPS["many neurons"], randn(500, 6, seed=10)
    through_arrays = attribute(f, x)
    monkeypatch.setattr(attribution, "cheaper_through_arrays", lambda *_: False)
    monkeypatch.setattr(attribution, "WORK_BYTES", 10_000)
    torch.testing.assert_close(attribute(f, x), through_arrays)


def test_outputs_are_chosen_in_order() -> None:
    f, x = random_map(seed=5, d_out=4), randn(3, 5)
    whole = attribute(f, x)
    torch.testing.assert_close(attribute(f, x, outputs=[2, 0, 2]), whole[:, [2, 0, 2]])
    for outputs in ([], [4], [-1], [True], [0.0]):
        with pytest.raises(UsageError, match="outputs 0 to 3"):
            attribute(f, x, outputs=outputs)


def test_the_result_has_the_dtype_of_the_map() -> None:
    f, x = random_map(seed=6), randn(4, 5)
    exact = attribute(f, x.float())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, attribute(f, x.float().double()))
    single = attribute(f.to(torch.float32), x)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), attribute(f, x), rtol=1e-4, atol=1e-4)
    half = attribute(f.to(torch.bfloat16), x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), attribute(f, x), rtol=0.1, atol=0.5)
    assert attribute(f, x[:0]).shape == (0, 3, 5)


def test_background_attribution_is_the_interventional_shapley_value() -> None:
    """The worth of a coalition is the mean of f with the others drawn from the background."""
    f, n = random_map(seed=7, d_in=6), 6
    samples, x = randn(9, n, seed=11) @ randn(n, n, seed=12), randn(2, n, seed=13)
    mean, covariance = samples.mean(dim=0), torch.cov(samples.T, correction=0)
    found = attribute_to_background(f, x, mean, covariance)
    for row, values in zip(x, found, strict=True):
        game = shapley(lambda mask, row=row: f(torch.where(mask, row, samples)).mean(dim=0), n)
        torch.testing.assert_close(values, game, rtol=1e-11, atol=1e-11)
    average = torch.stack([attribute(f, x, z) for z in samples]).mean(dim=0)
    torch.testing.assert_close(found, average, rtol=1e-11, atol=1e-11)
    some = attribute_to_background(f, x, mean, covariance, outputs=[1])
    torch.testing.assert_close(some, found[:, [1]])


def test_bad_input_is_refused_with_what_came() -> None:
    f, x = random_map(), randn(2, 5)
    with pytest.raises(UsageError, match="f is a Tensor"):
        attribute(x, x)
    with pytest.raises(ShapeError, match=r"x has shape \(5,\).*x\[None\]"):
        attribute(f, x[0])
    with pytest.raises(ShapeError, match=r"x has shape \(2, 4\).*flatten images"):
        attribute(f, x[:, :4])
    with pytest.raises(ShapeError, match="int64"):
        attribute(f, x.long())
    with pytest.raises(ShapeError, match=r"baseline has shape \(3, 5\)"):
        attribute(f, x, randn(3, 5))
    with pytest.raises(NonFiniteError, match=r"x holds 1 .* index \(1, 2\)"):
        attribute(
            f, x.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan).double())
        )
    with pytest.raises(NonFiniteError, match="in the dtype of the map"):
        attribute(f.to(torch.float32), 1e300 * x)
    with pytest.raises(NonFiniteError, match="the attribution"):
        attribute(f, 1e200 * x)
    with pytest.raises(MemoryLimitError, match="2 inputs to 3 outputs"):
        attribute(f, x, memory_limit=100)
    mean, covariance = randn(5), torch.eye(5).double()
    with pytest.raises(ShapeError, match=r"mean has shape \(4,\)"):
        attribute_to_background(f, x, mean[:4], covariance)
    with pytest.raises(ShapeError, match=r"covariance has shape \(5,\)|2 axes"):
        attribute_to_background(f, x, mean, mean)
    with pytest.raises(UsageError, match="not symmetric"):
        attribute_to_background(f, x, mean, covariance + randn(5, 5))


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_one_target_for_each_input(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "rows_at_work", lambda *_: rows)
    f = random_map(0, 3, 4, 5).plus_affine(randn(3, 5))
    x, start = randn(60, 5), randn(60, 5, seed=9)  # so many that arrays would be the cheaper way
    target = torch.tensor([2, 0, 1, 1, 2, 0]).repeat(10)
    found = attribute(f, x, start, target=target)
    expected = attribute(f, x, start)[torch.arange(60), target][:, None]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("target", [[0, 1], [0, 1, 3], [0, 1, -1], [0, 1, 0.5], [[0], [1], [2]], 1])
def test_targets_that_are_none_are_refused(target: object) -> None:
    given = torch.tensor(target) if target == 1 else target
    with pytest.raises(UsageError, match="one of the outputs 0 to 2 for each of the 3 inputs"):
        attribute(random_map(0, 3, 4, 5), randn(3, 5), target=given)
    with pytest.raises(UsageError, match="both outputs and target"):
        attribute(random_map(0, 3, 4, 5), randn(3, 5), target=[0, 1, 2], outputs=[0])


def form_of_width(n: int, seed: int = 1) -> QuadraticForm:
    return random_map(seed=seed, d_in=n).form(randn(3, seed=seed))


def interaction_index(form: QuadraticForm, x: Tensor, start: Tensor, i: int, j: int) -> float:
    """Σ_S |S|! (n − |S| − 2)! / (n − 1)! of the second difference of v at S, S without i and j."""
    n = len(x)

    def worth(members: tuple[int, ...]) -> float:
        point = start.clone()
        point[list(members)] = x[list(members)]
        return float(form(point))

    total = 0.0
    others = [m for m in range(n) if m not in (i, j)]
    for size in range(n - 1):
        share = factorial(size) * factorial(n - size - 2) / factorial(n - 1)
        for s in combinations(others, size):
            total += share * (worth((*s, i, j)) - worth((*s, i)) - worth((*s, j)) + worth(s))
    return total


@pytest.mark.parametrize("n", [2, 5, 7])
def test_interactions_are_the_index_by_enumeration(n: int) -> None:
    form, x, start = form_of_width(n), randn(n, seed=2), randn(n, seed=3)
    found = pairwise_interactions(form, x, start)
    assert bool((found.diagonal() == 0).all())
    for i, j in combinations(range(n), 2):
        expected = interaction_index(form, x, start, i, j)
        assert float(found[i, j]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert float(found[j, i]) == float(found[i, j])


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_top_interactions_are_the_largest_of_all(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 23
    monkeypatch.setattr(attribution, "BLOCK_BYTES", rows * 32 * n)
    form, x, start = form_of_width(n), randn(n, seed=4), randn(n, seed=5)
    x[3] = start[3]  # an input that does not move interacts with nothing
    dense = pairwise_interactions(form, x, start)
    i, j = torch.triu_indices(n, n, offset=1)
    order = dense[i, j].abs().argsort(descending=True)
    found = top_interactions(form, x, 10, start)
    assert found.first.tolist() == i[order[:10]].tolist()
    assert found.second.tolist() == j[order[:10]].tolist()
    torch.testing.assert_close(found.values, dense[i, j][order[:10]])
    everything = top_interactions(form, x, 10_000, start)
    assert len(everything.values) == n * (n - 1) // 2
    zeros = everything.values == 0
    assert int(zeros.sum()) == n - 1
    assert everything.first[zeros].tolist() == [0, 1, 2] + [3] * (n - 4)  # ties by place


def test_single_precision_and_no_baseline() -> None:
    form, x = form_of_width(6).to(torch.float32), randn(6, seed=6).float()
    found = pairwise_interactions(form, x)
    assert found.dtype == torch.float64
    zero = torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close(
        found, pairwise_interactions(form.to(torch.float64), x.double(), zero)
    )
    assert len(top_interactions(form_of_width(1), randn(1), 3).values) == 0


def test_bad_input_of_interactions_is_refused() -> None:
    form, x = form_of_width(5), randn(5)
    with pytest.raises(UsageError, match="form is a QuadraticMap"):
        pairwise_interactions(random_map(), x)
    with pytest.raises(ShapeError, match=r"x has shape \(2, 5\).*one input"):
        top_interactions(form, randn(2, 5), 1)
    with pytest.raises(NonFiniteError, match="baseline holds"):
        top_interactions(form, x, 1, x * torch.inf)
    with pytest.raises(NonFiniteError, match="interactions"):
        pairwise_interactions(form, 1e200 * x)
    with pytest.raises(NonFiniteError, match="interactions"):
        top_interactions(form, 1e200 * x, 1)
    with pytest.raises(UsageError, match="k must be"):
        top_interactions(form, x, 0)
    with pytest.raises(MemoryLimitError, match="use top_interactions"):
        pairwise_interactions(form, x, memory_limit=100)
