"""One prediction taken apart, and what each input adds to it."""

from collections.abc import Callable
from itertools import combinations
from math import factorial

import pytest
import torch
from torch import Tensor

import tiny
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NumericalError
from bilens.findings import explanation as input_attribution
from bilens.findings.exact_classifier import class_centred
from bilens.findings.explanation import attribute_prediction, choose_examples, explain
from bilens.nn import BilinearClassifier
from bilens.records.class_readings import ClassScore
from builders import D_IN, randn, random_map

DATA = tiny.images()
IMAGES = DATA.test_images.double()
MODELS: dict[str, Callable[[], BilinearClassifier]] = {
    "random": tiny.classifier,
    "bias and residual": lambda: tiny.classifier(1, bias=True, residual=True),
    "trained": tiny.trained,
}


def total(score: ClassScore) -> float:
    return sum(part.value for part in score.contributions) + (
        score.rest + score.linear + score.constant
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("index", [0, 7, 59])
def test_the_parts_sum_to_the_class_centred_logit(name: str, index: int) -> None:
    model = MODELS[name]()
    logits = model(IMAGES[index]).detach()
    centred = (logits - logits.mean()).tolist()
    label = int(DATA.test_labels[index])
    explanation = explain(class_centred(model), IMAGES[index], logits, label, index)
    assert explanation.scores == pytest.approx(centred, rel=1e-10)
    for score in explanation.classes:
        assert score.score == pytest.approx(centred[score.index], rel=1e-10)
        assert total(score) == pytest.approx(score.score, rel=1e-10)
    assert explanation.image == pytest.approx(IMAGES[index].tolist(), abs=5e-6)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_shown_are_the_largest_contributions(name: str) -> None:
    """Each is λ(v·x)²; the rank says where λ stands by falling size."""
    model, x = MODELS[name](), IMAGES[3]
    eigs = class_centred(model)
    for score in explain(eigs, x, model(x).detach(), label=None).classes:
        values, vectors = eigs.eigenvalues[score.index], eigs.eigenvectors[score.index]
        every = (values * (vectors @ x) ** 2).tolist()
        expected = sorted(every, key=abs, reverse=True)[:4]
        assert [part.value for part in score.contributions] == pytest.approx(expected, rel=1e-12)
        for part in score.contributions:
            assert part.eigenvalue == float(values[part.rank - 1])
            assert part.overlap == pytest.approx(float(vectors[part.rank - 1] @ x), rel=1e-9)
            assert part.value == pytest.approx(part.eigenvalue * part.overlap**2, rel=1e-9)
            assert part.vector == pytest.approx(vectors[part.rank - 1].tolist(), abs=5e-6)


def ranked_classes(model: BilinearClassifier, x: Tensor) -> list[int]:
    order: list[int] = model(x).argsort(descending=True).tolist()
    return order


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_the_two_highest_classes_are_shown_and_the_right_one(place: int | None) -> None:
    """Of three classes the label adds a third only where it is the last."""
    model = MODELS["random"]()
    order = ranked_classes(model, IMAGES[0])
    label = None if place is None else order[place]
    logits = model(IMAGES[0]).detach()
    explanation = explain(class_centred(model), IMAGES[0], logits, label, 5, "wrong")
    assert [score.index for score in explanation.classes] == order[: 3 if place == 2 else 2]
    assert (explanation.kind, explanation.index, explanation.label) == ("wrong", 5, label)
    assert explanation.predicted == order[0]


def test_parts_that_are_not_the_models_are_refused() -> None:
    """Logits that are off by one part in a million of the parts, in one class."""
    model, x = MODELS["random"](), IMAGES[0]
    logits = model(x).detach()
    logits[1] += 1e-6 * logits.abs().max()
    with pytest.raises(NumericalError, match="the parts of input 4 miss the model's scores by"):
        explain(class_centred(model), x, logits, None, 4)


def scores_of(margins: list[float]) -> Tensor:
    """Rows (margin, 0, -9): class 0 wins by a positive margin, class 1 by a negative one."""
    return torch.tensor([[margin, 0.0, -9.0] for margin in margins], dtype=torch.float64)


@pytest.mark.parametrize(
    ("margins", "labels", "expected"),
    [
        # Right are 0, 1, 2 and 4, by margin 4 (0.5), 0 (1), 2 (2), 1 (3): the median of an even
        # number is the upper one, 2; wrong are 3 (margin 5) and 5 (margin 4).
        (
            [1.0, 3.0, 2.0, 5.0, 0.5, -4.0],
            [0, 0, 0, 1, 0, 0],
            {"typical": 2, "narrow": 4, "wrong": 3},
        ),
        ([1.0, 3.0, 2.0], [0, 0, 0], {"typical": 2, "narrow": 0}),
        ([1.0, 3.0, 2.0], [1, 2, 1], {"wrong": 1}),
        ([2.0], [0], {"typical": 0, "narrow": 0}),
        ([-2.0, 1.0], [1, 2], {"typical": 0, "narrow": 0, "wrong": 1}),
    ],
    ids=["some wrong", "all right", "all wrong", "one", "one each"],
)
def test_the_examples_are_the_ones_defined(
    margins: list[float], labels: list[int], expected: dict[str, int]
) -> None:
    assert choose_examples(scores_of(margins), torch.tensor(labels)) == expected


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
