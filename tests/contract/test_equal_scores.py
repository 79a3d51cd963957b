"""Guards against equal scores that are taken for an answer, which hangs on the order of classes.

Damage that it notices: a form of which no eigenvector is kept, whose scores are all 0, is right
wherever the first class is.
"""

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.algebra.directions import largest_outputs
from bilens.api.network_conversion import RECIPE
from bilens.certify import certified_agreement
from bilens.findings.performance import classification
from bilens.findings.subject import truncation_curve
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
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
    eigs = bl.eigendecompose_all(f.compose_output(bl.centred_directions(2)), k=None)
    zeros = torch.zeros(20, dtype=torch.int64)
    curve, enough = truncation_curve(eigs, x, zeros, largest_outputs(f(x)))
    assert [one.accuracy for one in curve] == [0.0] * len(curve)
    assert curve[-1].agreement == 1.0
    assert enough == 0


def test_equal_outputs_are_right_of_no_class() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = classification(logits, torch.tensor([0, 1, 0]), ("a", "b", "c"))
    assert (found.accuracy.right, found.accuracy.total) == (1, 3)
    assert found.classes[0].recall is not None
    assert (found.classes[0].recall.right, found.classes[0].recall.total) == (0, 2)
    assert found.classes[0].precision is None
    assert found.confusion == ((0, 0, 0), (0, 1, 0), (0, 0, 0))


@cell("attack", "permuted outputs")
@cell("convert", "permuted outputs")
def test_attacks_and_conversions_count_no_equal_scores(tmp_path: Path) -> None:
    x = torch.randn(200, 4, dtype=torch.float64)
    y = torch.arange(200) % 2
    module = tiny.classifier(d_input=4, d_output=2)
    with torch.no_grad():
        module.head.weight[1] = module.head.weight[0]
    loaded = LoadedModel(module, "m", "0" * 64, None, None, {})
    effect = bl.attack_model(loaded, (x, y), target=1, epsilons=[0, 1]).record.curves[0].effect
    assert {*effect.accuracy, *effect.target_rate} == {0.0}
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        net[2].weight[1], net[2].bias[1] = net[2].weight[0], net[2].bias[0]
    recipe = replace(RECIPE, layer_steps=0, skip=("distillation",))
    (domain,) = bl.convert_network(net, (x, y), tmp_path / "c", recipe)["domains"]
    assert domain["teacher_accuracy"] == 0.0
