"""How good predictions are: scikit-learn's numbers, intervals, and what is left out."""

import numpy as np
import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.gaussian import GaussianInput
from bilens.api.quadratic_fit import layers_and_run
from bilens.api.subject import open_subject
from bilens.findings.performance import approximation_on_data, classification, regression
from bilens.findings.rules.registry import find_rule, judge
from bilens.findings.rules.rule import Evidence
from bilens.nn.layer_view import LayerView
from bilens.records.performance import Performance
from sklearn import metrics


def layers_read(model: nn.Module) -> tuple[LayerView, ...]:
    return tuple(open_subject(model, "a test").layers.values())


def drawn(classes: int, rows: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with ties, and labels that they say something about."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    noise = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    hot = torch.nn.functional.one_hot(labels, classes)
    return ((noise + 2 * hot) * 2).round() / 2, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_the_numbers_are_those_of_scikit_learn(classes: int) -> None:
    logits, labels = drawn(classes)
    names = [*"abcd"[:classes]]
    found, y = classification(logits, labels, names), labels.numpy()
    p, answers = logits.softmax(dim=1).numpy(), logits.argmax(dim=1).numpy()
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(y, answers))
    assert np.array_equal(found.confusion, metrics.confusion_matrix(y, answers))
    recall = metrics.recall_score(y, answers, average=None)
    precision = metrics.precision_score(y, answers, average=None)
    ranked = p.round(12)  # which ties what is equal but for rounding
    for one, item in enumerate(found.classes):
        assert item.recall is not None
        assert item.precision is not None
        assert (item.recall.value, item.precision.value) == pytest.approx(
            (recall[one], precision[one])
        )
        assert item.recall.low < item.recall.value < item.recall.high
        assert item.auc == pytest.approx(metrics.roc_auc_score(y == one, ranked[:, one]))
        assert item.average_precision == pytest.approx(
            metrics.average_precision_score(y == one, ranked[:, one])
        )
    hot = np.eye(classes)[y]
    assert found.brier == pytest.approx(((p - hot) ** 2).sum(axis=1).mean())
    if classes == 2:
        assert found.brier == pytest.approx(2 * metrics.brier_score_loss(y, p[:, 1]))
        fpr, tpr, _ = metrics.roc_curve(y, p[:, 1], drop_intermediate=False)
        assert np.allclose(found.roc, np.stack([fpr, tpr], axis=1), atol=1e-5)
    else:
        assert (found.roc, found.precision_recall) == ((), ())


def test_calibration_counts_bins_and_what_chance_would_show() -> None:
    """Two bins by hand; and labels drawn from the probabilities come near the null."""
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65]], dtype=torch.float64)
    found = classification(p.log(), torch.tensor([0, 1, 1]), "ab")
    bins = [(round(one.confidence, 9), one.accuracy.total) for one in found.reliability]
    assert bins == [(0.65, 1), (0.95, 2)]
    assert found.ece == pytest.approx((0.35 + 2 * 0.45) / 3)
    generator, eces = torch.Generator().manual_seed(1), []
    p = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    p = torch.cat([p, 1 - p], dim=1)
    for _ in range(20):
        labels = torch.multinomial(p, 1, generator=generator)[:, 0]
        eces.append(classification(p.log(), labels, "ab").ece)
    assert np.mean(eces) == pytest.approx(found_null(p), rel=0.25)


def found_null(p: torch.Tensor) -> float:
    return classification(p.log(), p.argmax(dim=1), "ab").ece_null


def test_a_class_without_rows_has_no_recall_and_no_area() -> None:
    found = classification(torch.eye(3).double() * 9, torch.tensor([0, 1, 1]), "abc")
    assert found.classes[2].recall is None
    assert found.classes[2].auc is None
    assert found.classes[2].precision is not None
    assert (found.classes[2].name, found.roc) == ("c", ())


def test_numbers_are_measured_as_scikit_learn_does() -> None:
    target = torch.randn(900, generator=torch.Generator().manual_seed(0)).double()
    predicted = 0.8 * target + 0.1
    found = regression(predicted, target, range(len(target)))
    t, p = target.numpy(), predicted.numpy()
    assert found.r_squared == pytest.approx(metrics.r2_score(t, p))
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(t, p))
    assert found.mae == pytest.approx(metrics.mean_absolute_error(t, p))
    assert [found.residuals[0].index, found.residuals[-1].index] == [0, 899]
    assert regression(predicted, 0 * target, range(len(target))).r_squared is None


def test_r2_on_data_is_that_of_what_reaches_a_layer_within_each_class() -> None:
    model = tiny.classifier(n_layers=2, gate="relu")
    x, labels = tiny.images().test_images.double(), tiny.images().test_labels
    layers, *_ = layers_and_run(model)
    members, of_data = [labels == one for one in range(3)], GaussianInput.of_data
    found = approximation_on_data(layers_read(model), layers, x, members)
    assert [one.layer for one in found] == ["layers.0", "layers.1"]
    inside = layers[0](x)
    for one, layer, rows in zip(found, layers, (x, inside), strict=True):
        f = bl.quadratic_fit(layer, samples=100).quadratic_map
        y, expected, fitted = layer(rows), f(rows), approximate_layer(layer, of_data(rows))(rows)
        if layer is layers[1]:  # its outputs are logits
            y, expected, fitted = (p - p.mean(dim=1, keepdim=True) for p in (y, expected, fitted))
        for value, part in zip(one.classes, (labels == k for k in range(3)), strict=True):
            lost = (y[part] - expected[part]).square().sum()
            score = 1 - lost / (y[part] - y[part].mean(dim=0)).square().sum()
            assert value == pytest.approx(float(score))
        assert one.fitted == pytest.approx(r_squared_on(y, fitted).overall)
    exact = tiny.classifier()
    assert approximation_on_data(layers_read(exact), layers_and_run(exact)[0], x, members) == ()


@pytest.mark.parametrize(("missed", "outcome"), [(0, "pass"), (24, "pass"), (60, "warn")])
def test_a_class_that_is_surely_recognised_worse_asks_for_caution(
    missed: int, outcome: str
) -> None:
    """100 rows of class 0 are right; of 100 of class 1 some are not."""
    labels = torch.arange(2).repeat_interleave(100)
    answers = labels.clone()
    answers[100 : 100 + missed] = 0
    logits = 5.0 * torch.nn.functional.one_hot(answers, 2).double()
    names = ("first", "second")
    found = classification(logits, labels, names)
    performance = Performance(len(labels), names, None, found, None, (), (), ())
    evidence = Evidence(performance=performance)
    rules = {finding.rule: finding for finding in judge("classes", evidence)}
    worst = rules["worst_class_recall"]
    assert worst.outcome == outcome
    assert worst.values["name"] == ("second" if missed else "first")
    assert find_rule("calibration", "columns") is not None
    assert rules["calibration"].values["value"] == found.ece


def test_rows_whose_probability_rounds_to_one_are_ranked() -> None:
    logits = torch.tensor([[50.0, 0], [40, 0], [0, 50]], dtype=torch.float64)
    found = classification(logits, torch.tensor([0, 1, 1]), "ab")
    assert [one.auc for one in found.classes] == [1.0, 1.0]
    assert [one.average_precision for one in found.classes] == [1.0, 1.0]
