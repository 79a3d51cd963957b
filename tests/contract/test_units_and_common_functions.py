"""Guards against numbers and rules that hang on units of inputs, common functions, or notation."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import bilens as bl
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import MLPWeights
from bilens.algebra.gaussian import GaussianInput, mean_and_covariance
from bilens.api.layer_reading import layer_map
from bilens.api.network_conversion import RECIPE
from bilens.base.errors import NotQuadraticError
from bilens.findings.column_effects import largest_part
from bilens.findings.hidden_units import read_units
from bilens.findings.subject import gauge_free
from bilens.records.column_readings import TableColumn, TableReading
from contract.table import cell


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier() -> bl.nn.BilinearClassifier:
    model = bl.nn.BilinearClassifier(6, 9, 4, bias=True).double()
    with torch.no_grad():
        for seed, part in enumerate(model.parameters()):
            part.copy_(randn(*part.shape, seed=seed))
    return model


def outcome(report: Any, rule: str) -> Any:
    return next(found for found in report.record.verdict if found.rule == rule)


def steep(common: float) -> nn.Sequential:
    """Three classes of steep units, and units that are nearly straight and the same to all."""
    net = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3), nn.Softmax(-1)).double()
    with torch.no_grad():
        for seed, part in enumerate(net.parameters()):
            part.copy_(randn(*part.shape, seed=seed))
        net[0].weight[:8].mul_(5)
        net[0].weight[8:].mul_(0.01)
        net[0].bias[8:] = 0
        net[2].weight[:, 8:].add_(common * randn(4, seed=9))
    return net


@cell("fit", "common function")
@cell("audit", "common function")
def test_r_squared_of_classes_is_of_what_answers_hang_on() -> None:
    """One function in all logits lifted R² from .68 to .9999, and the audit passed."""
    x, rows, reports, scores = randn(1500, 5, seed=20), randn(400, 5, seed=21), [], []
    for common in (0.0, 3000.0):
        net = steep(common)
        torch.testing.assert_close(net(x), steep(0.0)(x))
        logits = net[:3](x).detach()
        fit, view = bl.quadratic_fit(net, data=x, held_out=rows), bl.from_module(net)
        (layer,) = view.layers.values()
        truth, said = net[:3](rows).detach(), fit.quadratic_map(rows)
        truth, said = (one - one.mean(dim=1, keepdim=True) for one in (truth, said))
        by_hand = 1 - (truth - said).square().sum() / (truth - truth.mean(dim=0)).square().sum()
        assert fit.r_squared.quadratic.overall == pytest.approx(float(by_hand), abs=1e-9)
        assert not fit.usable
        assert not layer.fit.usable
        with pytest.raises(NotQuadraticError):
            layer_map(view, layer.name, "input")
        report = bl.audit(net, data=(x, logits.argmax(dim=1)))
        reports.append([(one.rule, one.outcome) for one in report.record.verdict])
        scores.append(report.record.performance.approximation[0].r_squared)
        assert outcome(report, "r2").outcome == "warn"
    assert reports[0] == reports[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@cell("fit", "common function")
def test_what_is_fitted_to_classes_hangs_on_nothing_common() -> None:
    """Ridge and training were chosen on raw logits: R² of the trained map fell from .44 to −2.7."""
    x, rows, scores = randn(90, 5, seed=40), randn(400, 5, seed=21), []
    for common in (0.0, 1000.0):
        fit = bl.quadratic_fit(steep(common), data=x, held_out=rows, train_steps=20)
        assert {"refitted", "trained", "ceiling"} <= fit.ladder.keys()
        scores.append({name: one.quadratic.overall for name, one in fit.ladder.items()})
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@cell("convert", "common function")
def test_a_conversion_of_classes_hangs_on_nothing_common(tmp_path: Path) -> None:
    x, answers, scores = randn(600, 5, seed=22), [], []
    labels = steep(0.0)(x).argmax(dim=1)
    recipe = replace(RECIPE, layer_steps=20, skip=("distillation",))
    for common in (0.0, 300.0):
        folder = tmp_path / str(common)
        found = bl.convert_network(steep(common), (x, labels), folder, recipe)
        scores.append(found["layers"][0]["r_squared"])
        said = bl.load(folder).network[0].quadratic_map.to(torch.float64)(x)
        answers.append(said - said.mean(dim=1, keepdim=True))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    torch.testing.assert_close(*answers, atol=1e-3 * float(answers[0].abs().max()), rtol=0)


@cell("fit", "common function")
def test_exact_r_squared_of_two_layers_is_of_class_centred_outputs() -> None:
    """The error of two bilinear layers is known in closed form; it was that of raw logits."""
    scores = []
    for common in (0.0, 100.0):
        model = bl.nn.BilinearClassifier(4, 6, 3, n_layers=2).double()
        with torch.no_grad():
            for seed, part in enumerate(model.parameters()):
                part.copy_(randn(*part.shape, seed=seed))
            model.head.weight.add_(common * randn(6, seed=30))
        fit = bl.quadratic_fit(model)
        assert fit.r_squared.quadratic.standard_error == 0
        scores.append(fit.r_squared.quadratic.overall)
    x = randn(200_000, 4, seed=31)
    truth, said = model(x).detach(), fit.quadratic_map(x)
    truth, said = (one - one.mean(dim=1, keepdim=True) for one in (truth, said))
    sampled = 1 - (truth - said).square().sum() / (truth - truth.mean(dim=0)).square().sum()
    assert scores[0] == pytest.approx(scores[1], abs=1e-8)
    assert scores[1] == pytest.approx(float(sampled), abs=0.05)


@pytest.mark.parametrize("outputs", [1, 3])
@cell("audit", "same function")
def test_a_pair_of_columns_dominates_through_all_of_its_inputs(outputs: int) -> None:
    """Of a pair of categories the 20 listed pairs of inputs were summed: 24 % in place of 99.7."""
    levels, width = 9, 20  # two columns of nine inputs, and two numbers
    columns = [("a", levels), ("b", levels), ("c", 1), ("d", 1)]
    model = bl.nn.BilinearClassifier(width, 40, outputs, bias=True).double()
    with torch.no_grad():
        for seed, part in enumerate(model.parameters()):
            part.copy_(0.01 * randn(*part.shape, seed=seed))
        model.embed.weight.copy_(randn(40, width, seed=8))
        model.layers[0].left.weight[:20, :] = model.layers[0].right.weight[:20, :] = 0
        for at in range(20):  # each unit is a product of one input of a and one of b
            read = torch.linalg.pinv(model.embed.weight)[[at % levels, levels + at % 7]]
            model.layers[0].left.weight[at], model.layers[0].right.weight[at] = read
        model.head.weight[:, :20] = randn(outputs, 20, seed=10)
    f = model.quadratic_map().detach()
    f = gauge_free(f) if outputs > 1 else f
    read = TableReading(
        tuple(
            TableColumn(name, "category", tuple(f"{name}={k}" for k in range(count)))
            for name, count in columns
        ),
        (),
    )
    owner = [name for name, count in columns for _ in range(count)]
    sums = dict[tuple[str, ...], float]()
    for q, b in zip(f.tensor.dense().numpy(), f.linear.numpy(), strict=True):
        for i, j in np.ndindex(width, width):
            key = tuple(sorted({owner[i], owner[j]}))
            sums[key] = sums.get(key, 0.0) + 2 * q[i, j] ** 2 + (b[i] ** 2 if i == j else 0)
    names, share = largest_part(f, read)
    assert names == ("a", "b")
    assert share == pytest.approx(sums[names] / sum(sums.values()))
    assert share > 0.9


UNITS = [(1e4, 1.0, 1e-3), (1e8, 1.0, 1e-2), (1e-9, 1e5, 1.0)]


@pytest.mark.parametrize("units", UNITS)
@cell("decompose", "other units")
def test_moments_and_whitened_spectra_know_narrow_inputs(units: tuple[float, ...]) -> None:
    """Inputs 10⁻⁸ of the widest counted as constant: the variance was 60 % of what it is."""
    scale = torch.tensor(units, dtype=torch.float64)
    f = bl.QuadraticMap(
        bl.BilinearTensor(randn(2, 4, seed=1), randn(4, 3, seed=2), randn(4, 3, seed=3)),
        randn(2, 3, seed=4),
        randn(2, seed=5),
    )
    z = randn(500, 3, seed=6) @ randn(3, 3, seed=7)
    g, x = f.compose_input(torch.diag(1 / scale)), z * scale  # the same function
    found, known = (
        bl.gaussian_moments(h, rows.mean(dim=0), rows.T.cov(correction=0))
        for h, rows in ((g, x), (f, z))
    )
    torch.testing.assert_close(found.mean, known.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance, known.variance, rtol=1e-9, atol=1e-9)
    spectra = [
        bl.eigendecompose_all(bl.whiten(h, rows.T.cov(correction=0))).eigenvalues
        for h, rows in ((g, x), (f, z))
    ]
    torch.testing.assert_close(*spectra, rtol=1e-5, atol=1e-5)
    q, mean, covariance = f.tensor.dense(), z.mean(dim=0), z.T.cov(correction=0)  # by hand
    slope = 2 * q @ mean + f.linear
    for output in range(2):
        product = q[output] @ covariance
        by_hand = 2 * (product @ product).trace() + slope[output] @ covariance @ slope[output]
        assert float(found.variance[output]) == pytest.approx(float(by_hand), rel=1e-9)


@pytest.mark.parametrize("units", UNITS)
@cell("fit", "other units")
def test_the_closed_form_is_the_same_in_other_units(units: tuple[float, ...]) -> None:
    scale = torch.tensor(units, dtype=torch.float64)
    layer = bl.MLPWeights(randn(2, 6, seed=1), randn(6, 3, seed=2), "tanh", randn(6, seed=3))
    other = bl.MLPWeights(layer.down, layer.up / scale, "tanh", layer.up_bias)
    z = randn(500, 3, seed=6) @ randn(3, 3, seed=7) + 3
    maps = [
        approximate_layer(one, GaussianInput.of_data(rows))(rows)
        for one, rows in ((layer, z), (other, z * scale))
    ]
    torch.testing.assert_close(*maps, rtol=1e-8, atol=1e-8)


@cell("decompose", "other units")
def test_a_constant_input_has_no_variance_in_any_unit() -> None:
    x = randn(300, 3, seed=1)
    x[:, 1] = 0.1
    covariance = mean_and_covariance(x)[1]
    assert not covariance[1].any()
    assert not GaussianInput.of_data(x).root[1].any()


@pytest.mark.parametrize("steps", [0, 30])
@cell("fit", "other units")
def test_fits_to_data_are_the_same_in_other_units(steps: int) -> None:
    """Of a quadratic in inputs of different units the ceiling missed 18 %; training diverged."""
    units, shift = torch.tensor([1e3, 1.0, 1e-3]).double(), torch.tensor([0.0, 5.0, 1.0]).double()
    layer = bl.MLPWeights(randn(2, 8, seed=1), randn(8, 3, seed=2), "tanh", randn(8, seed=3))
    x = randn(900, 3, seed=4)
    up, bias = layer.up / units, layer.up_bias - (layer.up / units) @ shift
    other = bl.MLPWeights(layer.down, up, "tanh", bias)
    rows = x * units + shift
    torch.testing.assert_close(other(rows), layer(x))
    scores = [
        bl.quadratic_fit(one, data=data[:600], held_out=data[600:], train_steps=steps).ladder
        for one, data in ((layer, x), (other, rows))
    ]
    for name in scores[0]:
        if name != "standard normal":  # which is another input
            here, there = (ladder[name].quadratic.overall for ladder in scores)
            assert there == pytest.approx(here, abs=0.02 if name == "trained" else 1e-5), name
    first, second = np.triu_indices(3)
    features = np.c_[np.ones(900), x, (x[:, first] * x[:, second])]  # the ceiling by hand
    y = layer(x).numpy()
    weights = np.linalg.lstsq(features[:600], y[:600], rcond=None)[0]
    lost = np.square(features[600:] @ weights - y[600:]).sum()
    by_hand = 1 - lost / np.square(y[600:] - y[600:].mean(axis=0)).sum()
    assert scores[1]["ceiling"].quadratic.overall == pytest.approx(by_hand, abs=2e-3)


@pytest.mark.parametrize("weight", [0.0, 1.7])
@cell("audit", "common function")
def test_a_unit_that_adds_the_same_to_all_classes_is_dead(weight: float) -> None:
    model = classifier()
    with torch.no_grad():
        model.head.weight[:, 3] = weight
    without, x = copy.deepcopy(model), randn(200, 6, seed=9)
    with torch.no_grad():
        without.layers[0].left.weight[3] = without.layers[0].left.bias[3] = 0
    torch.testing.assert_close(without(x).softmax(dim=1), model(x).softmax(dim=1))
    found = outcome(bl.audit(model, null_samples=39), "dead_units")
    assert (found.outcome, found.values["value"]) == ("warn", 1)


def wine(scaled: bool) -> Any:
    """A pipeline of four inputs, a narrow one far from zero, with two pairs of units that differ.

    Of the first pair the narrow weights are the same, of the second one all weights.
    """
    x = randn(400, 4, seed=1).numpy() * [0.0006, 15, 33, 1.4] + [0.9967, 40, 46, 2.5]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    fitted = MLPClassifier((6,), max_iter=5, random_state=0).fit(z, (z[:, 0] > z[:, 1]) * 1)
    up = fitted.coefs_[0]
    up[:, :] = randn(4, 6, seed=2).numpy()
    up[:, 1] = [up[0, 0], *-up[1:, 0]]
    up[:, 3], fitted.intercepts_[0][[2, 3]] = up[:, 2], [-1.0, 1.0]
    scaler = StandardScaler().fit(x)
    hidden = np.maximum(z @ up + fitted.intercepts_[0], 0)
    assert np.corrcoef(hidden[:, 0], hidden[:, 1])[0, 1] < 0.9
    assert np.corrcoef(hidden[:, 2], hidden[:, 3])[0, 1] < 0.9
    return make_pipeline(scaler, fitted) if scaled else fitted


@pytest.mark.parametrize("double", [False, True])
@cell("audit", "other units")
def test_units_are_doubles_in_any_unit_of_the_inputs(double: bool) -> None:
    """Weights of a narrow input decided alone: units with correlation −0.15 were "the same"."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for scaled in (False, True):
            model = wine(scaled)
            fitted = model[-1] if scaled else model
            if double:
                fitted.coefs_[0][:, 5] = 3 * fitted.coefs_[0][:, 4]
                fitted.intercepts_[0][5] = 3 * fitted.intercepts_[0][4]
            found.append(outcome(bl.audit(model), "duplicate_units"))
    assert [one.values["value"] for one in found] == [int(double)] * 2
    assert found[0].values["overlap"] == pytest.approx(found[1].values["overlap"])


@cell("audit", "other units")
def test_one_unit_with_large_weights_makes_no_others_the_same() -> None:
    up = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 1e6], [2.0, 2.0]]).double()
    units = read_units(MLPWeights(randn(3, 4, seed=1), up, "relu"))
    assert units.duplicates == 1  # the first and the last


@pytest.mark.parametrize("unit", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("gap", [0.0, 1.0])
@cell("audit", "other units")
def test_twin_classes_are_twins_in_any_unit(gap: float, unit: float) -> None:
    """Beside an input in small units what two classes differ by was rounding, and they twins."""
    model = bl.nn.BilinearClassifier(4, 12, 3, bias=True, residual=True).double()
    with torch.no_grad():
        for seed, part in enumerate(model.parameters()):
            part.copy_(randn(*part.shape, seed=seed))
        model.head.weight[1] = model.head.weight[0]
        layer = model.layers[0]  # its last unit passes input 1 on, to class 1 alone
        model.embed.weight[-1] = torch.tensor([0.0, 1, 0, 0])
        layer.left.weight[-1], layer.left.bias[-1] = 0, 0
        model.head.weight[:, -1] = torch.tensor([0.0, gap, 0])
        model.embed.weight[:, 0] *= unit
    x = randn(500, 4, seed=20)
    x[:, 0] /= unit
    scores = model(x).detach()
    assert float((scores[:, 0] - scores[:, 1]).abs().max()) == pytest.approx(3 * gap, rel=0.3)
    found = outcome(bl.audit(model, null_samples=39), "twin_classes")
    assert found.values["value"] == (0 if gap else 1)
    single = outcome(bl.audit(model.float(), null_samples=39), "twin_classes")
    assert single.values["value"] == found.values["value"]
