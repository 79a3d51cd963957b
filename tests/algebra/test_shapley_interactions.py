"""Pairwise interactions against the definition: second differences averaged over coalitions."""

from itertools import combinations
from math import factorial

import pytest
import torch
from torch import Tensor

import bilens.algebra.attribution as shapley_interactions
from bilens.algebra.attribution import pairwise_interactions, top_interactions
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from builders import randn, random_map


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
    monkeypatch.setattr(shapley_interactions, "BLOCK_BYTES", rows * 32 * n)
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


def test_bad_input_is_refused_with_what_came() -> None:
    form, x = form_of_width(5), randn(5)
    with pytest.raises(UsageError, match="form is a QuadraticMap"):
        pairwise_interactions(random_map(), x)  # type: ignore[arg-type]
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
