"""Guards against equal scores that are taken for an answer, which hangs on the order of classes.

Damage that it notices: a form of which no eigenvector is kept, whose scores are all 0, is right
wherever the first class is.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.algebra.directions import outputs_of
from bilens.api.network_conversion import RECIPE
from bilens.certify import certified_agreement
from bilens.findings.given_inputs import leads
from bilens.findings.performance import classification
from bilens.findings.subject import truncation_curve
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.train.tasks.table import chance_outputs, score
from contract.table import cell

ROWS = 400


def model(flipped: bool) -> LoadedModel:
    """Two classes of a model without biases."""
    module = tiny.classifier(d_input=4, d_output=2)
    if flipped:
        with torch.no_grad():
            module.head.weight.copy_(module.head.weight.flip(0))
    names = ("fault", "fine") if flipped else ("fine", "fault")
    return LoadedModel(module, "m", "0" * 64, None, names, {})


def rows(module: BilinearClassifier) -> Tensor:
    """All but two rows are of the first class."""
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first = module(x).argmax(dim=1) == 0
    return torch.cat([x[first][: ROWS - 2], x[~first][:2]]).detach()


@cell("audit", "permuted outputs")
@cell("certify", "permuted outputs")
@pytest.mark.parametrize("flipped", [False, True])
def test_no_eigenvector_gives_no_answer_whatever_the_order_of_classes(flipped: bool) -> None:
    """It was 99.5 % for the one order, and "no direction is needed"; 0.5 % for the other."""
    x, loaded = rows(model(False).module), model(flipped)
    y = loaded.module(x).argmax(dim=1)
    record = bl.audit(loaded, (x, y), null_samples=39).record
    first = record.classes.truncation[0]
    assert (first.k, first.accuracy, first.agreement) == (0, 0.0, 0.0)
    (found,) = (one for one in record.verdict if one.rule == "few_directions")
    assert found.values["k"] >= 1
    cut = bl.certify_model(loaded, (x, y), truncate=0).record.truncation
    assert [one.agreement for one in cut.points if one.k == 0] == [0.0]
    assert certified_agreement(loaded.module.quadratic_map(), 0, x).agreeing_share == 0.0
    mpl.use("Agg")
    eigs = bl.eigendecompose_all(loaded.module.quadratic_map(), k=None)
    shares = bl.plot.truncation(eigs, x, y).lines[0].get_ydata()
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_a_whole_model_agrees_with_itself_where_its_own_scores_are_equal() -> None:
    module = tiny.classifier(d_input=4, d_output=2)
    with torch.no_grad():
        module.head.weight[1] = module.head.weight[0]
    f, x = module.quadratic_map(), torch.randn(20, 4, dtype=torch.float64)
    eigs = bl.eigendecompose_all(outputs_of(f, centred=True), k=None)
    zeros = torch.zeros(20, dtype=torch.int64)
    curve, _ = truncation_curve(eigs, x, zeros, f(x).argmax(dim=1))
    assert (curve[-1].accuracy, curve[-1].agreement) == (1.0, 1.0)


def test_a_doubled_class_does_not_agree_where_nothing_is_kept() -> None:
    """Seen: 49.5 %, of no answer on either side."""
    module = tiny.classifier(d_input=6, d_output=3)
    with torch.no_grad():
        module.head.weight[1] = module.head.weight[0]
    f, x = module.quadratic_map(), torch.randn(200, 6, dtype=torch.float64)
    assert certified_agreement(f, 0, x).agreeing_share == 0.0
    assert certified_agreement(f, 6, x).agreeing_share == 1.0
    eigs = bl.eigendecompose_all(outputs_of(f, centred=True), k=None)
    answers = f(x).argmax(dim=1)
    curve, _ = truncation_curve(eigs, x, answers, answers)
    assert (curve[0].accuracy, curve[0].agreement) == (0.0, 0.0)
    assert (curve[-1].accuracy, curve[-1].agreement) == (1.0, 1.0)
    mpl.use("Agg")
    shares = bl.plot.truncation(eigs, x, answers).lines[0].get_ydata()
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_the_answer_to_equal_outputs_is_that_of_argmax() -> None:
    rows = [[0.0, 1.0, 1.0], [1.0, 1 + 1e-15, 0.0], [0.0, 2e-14, 0.0]]
    logits = torch.tensor(rows, dtype=torch.float64)
    found = classification(logits, torch.tensor([1, 0, 1]), ("a", "b", "c"))
    assert (found.accuracy.right, found.accuracy.total) == (3, 3)
    assert found.confusion == ((1, 0, 0), (0, 2, 0), (0, 0, 0))
    f, x = doubled(4, 3).quadratic_map(), torch.randn(40, 4, dtype=torch.float64)
    assert torch.equal(leads(f, x)[:, 0].long(), f(x).argmax(dim=1))


def doubled(d_input: int, d_output: int) -> BilinearClassifier:
    """A model whose last two classes are one and the same."""
    module = tiny.classifier(d_input=d_input, d_output=d_output)
    with torch.no_grad():
        module.head.weight[-1] = module.head.weight[-2]
    return module


@cell("audit", "permuted outputs")
def test_accuracy_is_that_of_the_own_predict() -> None:
    """Seen: 53 %, of a scikit-learn classifier that itself says 100 %."""
    x = np.random.default_rng(0).normal(size=(300, 4))
    own = MLPClassifier((8,), max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.fit(x, np.digitize(x[:, 0], [-0.5, 0.5]))
    own.coefs_[-1][:, 1], own.intercepts_[-1][1] = own.coefs_[-1][:, 0], own.intercepts_[-1][0]
    said = own.predict(x)
    found = bl.audit(bl.from_sklearn(own), (x, said), null_samples=3).record.performance
    assert found.classification.accuracy.value == own.score(x, said) == 1.0


def test_the_most_frequent_class_is_right_on_balanced_rows() -> None:
    """Seen: 0 %. Equal counts are no equal scores."""
    target = torch.arange(40) % 2
    outputs = chance_outputs(torch.zeros(40, 2), target, torch.ones(40, dtype=torch.bool))
    assert score(outputs, target, torch.ones(40, dtype=torch.bool)) == 0.5


@cell("attack", "permuted outputs")
@cell("convert", "permuted outputs")
def test_attacks_and_conversions_take_the_answer_of_argmax(tmp_path: Path) -> None:
    x = torch.randn(200, 4, dtype=torch.float64)
    y = torch.arange(200) % 2
    module = tiny.classifier(d_input=4, d_output=2)
    with torch.no_grad():
        module.head.weight[1] = module.head.weight[0]
    loaded = LoadedModel(module, "m", "0" * 64, None, None, {})
    effect = bl.attack_model(loaded, (x, y), target=1, epsilons=[0, 1]).record.curves[0].effect
    assert {*effect.accuracy} == {1.0}
    assert {*effect.target_rate} == {0.0}
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        net[2].weight[:2], net[2].bias[:2] = 0, 5
    recipe = replace(RECIPE, layer_steps=0, skip=("distillation",))
    (domain,) = bl.convert_network(net, (x, 0 * y), tmp_path / "c", recipe)["domains"]
    assert domain["teacher_accuracy"] == 1.0
