"""What each input adds, against Shapley's definition over all coalitions and a path integral."""

from itertools import combinations
from math import factorial

import pytest
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NumericalError
from bilens.findings import explanation as input_attribution
from bilens.findings.explanation import attribute_prediction
from builders import D_IN, randn, random_map

X, START = randn(D_IN, seed=7), randn(D_IN, seed=8)


def score(f: QuadraticMap, winner: int, rival: int | None, x: Tensor) -> float:
    logits = f(x[None])[0]
    other = logits.mean() if rival is None else logits[rival]
    return float(logits[winner] - other)


def shapley(f: QuadraticMap, winner: int, rival: int | None, i: int) -> float:
    """The definition: the mean of what input i adds, over all orders."""
    others, total = [j for j in range(D_IN) if j != i], 0.0
    for size in range(D_IN):
        weight = factorial(size) * factorial(D_IN - size - 1) / factorial(D_IN)
        for chosen in combinations(others, size):
            without = START.clone()
            without[list(chosen)] = X[list(chosen)]
            joined = without.clone()
            joined[i] = X[i]
            gain = score(f, winner, rival, joined) - score(f, winner, rival, without)
            total += weight * gain
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_values_are_shapley_values_and_add_up(seed: int) -> None:
    f = random_map(seed)
    for part in attribute_prediction(f, X, START, None):
        expected = [shapley(f, part.output, part.rival, i) for i in range(D_IN)]
        assert part.values == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert part.score == pytest.approx(score(f, part.output, part.rival, X))
        assert part.score_at_baseline == pytest.approx(score(f, part.output, part.rival, START))
        assert sum(part.values) == pytest.approx(part.score - part.score_at_baseline)
        assert abs(part.residual) < 1e-12


def test_pairs_are_what_two_inputs_do_beyond_each_alone() -> None:
    f = random_map(1)
    for part in attribute_prediction(f, X, START, None):
        assert [abs(p.value) for p in part.pairs] == sorted(
            (abs(p.value) for p in part.pairs), reverse=True
        )
        for pair in part.pairs:
            corners = []
            for places in ([pair.first, pair.second], [pair.first], [pair.second], []):
                x = START.clone()
                x[places] = X[places]
                corners.append(score(f, part.output, part.rival, x))
            both, first, second, neither = corners
            assert pair.value == pytest.approx(both - first - second + neither, abs=1e-9)


def test_the_rival_is_the_label_of_a_wrong_answer_and_else_the_runner_up() -> None:
    f = random_map(0)
    order = f(X[None])[0].argsort(descending=True).tolist()
    for label, rival in ((None, order[1]), (order[0], order[1]), (order[2], order[2])):
        one, other = attribute_prediction(f, X, START, label)
        assert (one.kind, one.output, one.rival) == ("class", order[0], None)
        assert (other.kind, other.output, other.rival) == ("contrast", order[0], rival)


def test_values_that_do_not_add_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        input_attribution, "attribute", lambda f, x, _start: f(x)[..., None].expand(-1, -1, D_IN)
    )
    with pytest.raises(NumericalError, match="miss f"):
        attribute_prediction(random_map(0), X, START, None)
