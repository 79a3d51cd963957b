"""`bl.quadratic_fit`: whatever can be passed is read, and R² is that of the thing itself."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.api import quadratic_fit as fitting
from bilens.api.classifier import explain_predictions
from bilens.api.convert import convert_model
from bilens.api.layer_decomposition import plan_layers, prepare, run_job
from bilens.api.layer_reading import Request
from bilens.api.quadratic_fit import fit_layers_of, offering_a_fit
from bilens.base.errors import (
    BilensError,
    NonFiniteError,
    NotQuadraticError,
    ShapeError,
    UsageError,
)
from bilens.findings.guarantees import finite
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.base import to_json
from bilens.report.terminal_readings import decomposition_lines
from builders import randn
from raising import raising


def test_a_one_layer_model_without_a_gate_is_exact() -> None:
    model = tiny.classifier(bias=True, residual=True)
    fit = bl.quadratic_fit(tiny.loaded(model))
    x = randn(40, tiny.PIXELS)
    assert fit.exact
    torch.testing.assert_close(fit.quadratic_map(x), model(x).detach(), rtol=1e-12, atol=1e-12)


def test_modules_and_their_weights_give_the_same_fit() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2))
    up, down = module[0], module[2]
    weights = bl.MLPWeights(down.weight, up.weight, "relu", up.bias, constant=down.bias)
    one, two = bl.quadratic_fit(module, samples=500), bl.quadratic_fit(weights, samples=500)
    x = randn(20, 6)
    torch.testing.assert_close(one.quadratic_map(x), two.quadratic_map(x))
    assert one.r_squared.quadratic.overall == pytest.approx(two.r_squared.quadratic.overall)
    assert one.derivation == two.derivation == "closed form, the least-squares map"


def test_layers_of_a_loaded_model_are_fitted_one_by_one() -> None:
    model = tiny.classifier(n_layers=2, gate="silu", residual=True)
    loaded = tiny.loaded(model)
    x = randn(500, tiny.PIXELS)
    embedded = model.embed(x)
    first = model.layers[0](embedded) + embedded
    last = model.head(model.layers[1](first) + first)
    for name, inputs, outputs in (("layers.0", x, first), ("layers.1", first, last)):
        fit = bl.quadratic_fit(loaded.layers[name], data=inputs)
        rest = (fit.quadratic_map(inputs.detach()) - outputs.detach()).square().sum()
        spread = (outputs - outputs.mean(dim=0)).detach().square().sum()
        assert fit.r_squared.quadratic.overall == pytest.approx(1 - float(rest / spread), abs=0.1)
        assert fit.r_squared.quadratic.overall > 0.5


def test_a_sequence_of_weights_is_a_network() -> None:
    layers = [
        bl.MLPWeights(torch.eye(5).double(), randn(5, 4) / 2, "tanh"),
        bl.MLPWeights(randn(2, 6), randn(6, 5, seed=1) / 2, "relu"),
    ]
    fit = bl.quadratic_fit(layers, samples=2000)
    x = randn(2000, 4, seed=5)
    y = layers[1](layers[0](x))
    rest = (y - fit.quadratic_map(x)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert 1 - float(rest) == pytest.approx(fit.r_squared.quadratic.overall, abs=0.05)


def test_blocks_of_a_transformer_are_fitted() -> None:
    torch.manual_seed(0)
    for kind in ("gated", "ordinary"):
        gate = "silu" if kind == "gated" else None
        model = bl.nn.BilinearTransformer(11, 8, 12, 1, 2, 8, gate, mlp_type=kind)  # type: ignore[arg-type]
        fit = bl.quadratic_fit(model.mlps[0], samples=500)
        assert fit.usable
        with pytest.raises(UsageError, match=r"fit one of its MLPs.*blocks\[0\]"):
            bl.quadratic_fit(model)


def test_neither_model_nor_generator_of_torch_is_touched() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    state = torch.random.get_rng_state()
    fit = bl.quadratic_fit(module, samples=200)
    assert fit.quadratic_map.dtype == torch.float64
    assert module.training
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(state, torch.random.get_rng_state())


def broken() -> nn.Module:
    """An MLP with a weight that is NaN."""
    module = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    with torch.no_grad():
        module[2].weight[0, 0] = torch.nan  # type: ignore[index, operator]
    return module


def broken_classifier() -> nn.Module:
    """A classifier of ours with a weight that is NaN."""
    model = tiny.classifier()
    with torch.no_grad():
        model.layers[0].left.weight[1, 1] = torch.nan  # type: ignore[index, union-attr]
    return model


MODULE = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
ONE = bl.MLPWeights(randn(3, 5), randn(5, 4), "relu")
BAD: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "a path": ("a/folder", {}, UsageError, r"a quadratic fit reads .*bl.load\('a/folder'\)"),
    "a Path": (Path("a"), {}, UsageError, "bl.load"),
    "a tensor": (randn(3, 4), {}, UsageError, "got a Tensor"),
    "no layers": ([], {}, UsageError, "at least one"),
    "layers that do not fit": ([ONE, ONE], {}, ShapeError, "layer 0 has 3 outputs and layer 1"),
    "NaN": (broken(), {}, NonFiniteError, r"2.weight holds 1"),
    "NaN in ours": (broken_classifier(), {}, NonFiniteError, r"layers.0.left.weight holds 1"),
    "mean": (MODULE, {"mean": randn(3)}, ShapeError, r"mean has shape \(3,\)"),
    "covariance": (MODULE, {"covariance": randn(4, 4)}, UsageError, "not symmetric"),
    "no covariance": (MODULE, {"covariance": -torch.eye(4)}, UsageError, "eigenvalue -1"),
    "data": (
        MODULE,
        {"data": randn(9, 3)},
        ShapeError,
        r"data has shape \(9, 3\); expected \(rows, 4\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    subject, options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.quadratic_fit(subject, **options)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 2)
    ).double()


def test_data_run_through_the_layers_below() -> None:
    module, data = network(), randn(300, 5) + 1
    document = to_json(fit_layers_of(bl.from_module(module), data, command="test"))
    json.dumps(document, allow_nan=False)
    assert [fit["name"] for fit in document["fits"]] == ["model", "0", "2"]
    with torch.no_grad():
        reached = module[:2](data)
        y = module(data)
    last = document["fits"][2]
    fit = bl.quadratic_fit(bl.from_module(module).layers["2"], data=reached)
    assert [one["fit"] for one in last["ladder"]] == [*fit.ladder]
    assert last["chosen"] == fit.chosen
    for one, scores in zip(last["ladder"], fit.ladder.values(), strict=True):
        assert one["quadratic"]["value"] == pytest.approx(scores.quadratic.overall)
        assert one["trimmed"]["value"] == pytest.approx(scores.quadratic.trimmed)
        assert one["median"] == pytest.approx(
            [scores.quadratic.median, *scores.quadratic.median_interval]
        )
    assert last["ladder"][0]["rows"] == 60
    assert last["activation"] == "silu"
    rest = y - bl.quadratic_fit(module, data=data).quadratic_map(data)
    overall = 1 - float(rest.square().sum() / (y - y.mean(dim=0)).square().sum())
    whole = document["fits"][0]
    assert [one["fit"] for one in whole["ladder"]][:3] == ["standard normal", "normal", "refitted"]
    found = next(one for one in whole["ladder"] if one["fit"] == whole["chosen"])
    assert found["quadratic"]["value"] == pytest.approx(overall, abs=0.1)


def test_without_data_each_input_is_standard_normal() -> None:
    model = tiny.loaded(tiny.classifier(gate="gelu", n_layers=2))
    fits = fit_layers_of(model, samples=200).fits
    assert [fit.name for fit in fits] == ["model", "layers.0", "layers.1"]
    assert {fit.assumed_input for fit in fits} == {"a standard normal input"}
    assert all([one.fit for one in fit.ladder] == ["standard normal"] for fit in fits)
    (one,) = fit_layers_of(model, layers=["layers.1"], samples=200).fits
    assert one == fits[2]


class Parallel(nn.Module):
    """Two MLPs that are not one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4))
        self.b = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.b(self.norm(self.a(x)))
        return y


BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a layer": ({"layers": ["c"]}, UsageError, "has the layers a, b; got 'c'"),
    "data of both": ({"data": randn(9, 4)}, UsageError, "2 layers that are not one behind"),
    "another width": (
        {"data": randn(9, 3), "layers": ["a"]},
        ShapeError,
        r"data has shape \(9, 3\); expected \(rows, 4\)",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_what_does_not_fit_is_refused(name: str) -> None:
    options, error, words = BAD_CALLS[name]
    with pytest.raises(error, match=words):
        fit_layers_of(bl.from_module(Parallel()), **{"data": None, **options})


def test_data_of_one_layer_that_is_named_are_its_own() -> None:
    model, data = bl.from_module(Parallel()), randn(50, 4)
    (fit,) = fit_layers_of(model, data, layers=["b"]).fits
    assert fit.ladder[0].rows == 10


def test_a_number_that_is_none_is_null() -> None:
    assert (finite(1.5), finite(-math.inf)) == (1.5, None)


DATA = tiny.images()
READERS: dict[str, Callable[[LoadedModel], object]] = {
    "certify": bl.certify_model,
    "explain": lambda model: explain_predictions(model, DATA, [0]),
    "attack": lambda model: bl.attack_model(model, DATA),
}
OFFER = r"The quadratic approximation under a standard normal input has R² = -?\d\.\d{3} ± 0\.\d{3}"


@pytest.mark.parametrize("name", READERS)
def test_every_refusal_offers_the_closest_map(name: str) -> None:
    for options in ({"gate": "silu"}, {"n_layers": 2}):
        model = tiny.loaded(tiny.classifier(**options))  # type: ignore[arg-type]
        with pytest.raises(NotQuadraticError, match=OFFER) as caught:
            READERS[name](model)
        text = str(caught.value)
        assert "bl.quadratic_fit(model)" in text
        assert "nothing is proven of the model by it" in text
        assert "\n" not in text
        assert caught.value.exit_code == 3


def test_decomposing_a_gated_layer_offers_the_layer() -> None:
    model = tiny.loaded(tiny.classifier(gate="silu"))
    with pytest.raises(NotQuadraticError, match=rf"gate 'silu'.*{OFFER}") as caught:
        prepare(model, Request())
    assert "bl.quadratic_fit(model.layers['layers.0'])" in str(caught.value)


def nearly_quadratic() -> LoadedModel:
    """A gated classifier whose gates hardly leave the range in which SiLU is a parabola."""
    model = tiny.classifier(gate="silu")
    with torch.no_grad():
        model.layers[0].left.weight.mul_(0.01)
    return tiny.loaded(model)


def test_a_gated_layer_that_is_nearly_quadratic_is_read_through_its_closest_map() -> None:
    model = nearly_quadratic()
    record = run_job(prepare(model, Request(reading="raw", outputs="1"))).record
    view, said = model.layers["layers.0"], record.approximation
    assert view.fit is not None
    assert said is not None
    assert (said.activation, said.r_squared) == ("silu", view.fit.r_squared.quadratic.overall)
    assert said.r_squared > said.threshold == 0.9
    expected = torch.linalg.eigvalsh(view.quadratic_map.form(torch.eye(3)[1].double()).dense())
    assert record.outputs[0].pairs[0].eigenvalue == pytest.approx(
        float(expected[expected.abs().argmax()])
    )
    (line,) = decomposition_lines(record)
    assert line.startswith(f"layers.0: R² = {said.r_squared:.3f} ± ")
    (plan,) = plan_layers(model, Request())
    assert plan.approximation == record.approximation


def test_what_is_exact_says_nothing_of_an_approximation() -> None:
    record = run_job(prepare(tiny.loaded(tiny.classifier()), Request(top=1))).record
    assert record.approximation is None
    assert decomposition_lines(record) == []


LAYERS_ALONE = LoadedModel(None, "a/folder", "", views=nearly_quadratic().layers)
WHOLE_MODELS: dict[str, Callable[[LoadedModel], object]] = {
    **READERS,
    "convert": lambda model: convert_model(model, "bilens", Path("somewhere")),
    "trace": lambda model: bl.trace(model, 0),
}


@pytest.mark.parametrize("name", WHOLE_MODELS)
def test_what_runs_a_whole_model_says_what_to_do_with_layers_alone(name: str) -> None:
    with pytest.raises(UsageError, match=r"runs a whole model, and of a/folder .* layers alone"):
        WHOLE_MODELS[name](LAYERS_ALONE)
    assert run_job(prepare(LAYERS_ALONE, Request(top=1))).record.layer == "layers.0"


def refused(model: BilinearClassifier) -> str:
    """What a refusal of a reading of a model says."""
    with pytest.raises(NotQuadraticError) as caught, offering_a_fit(model):
        raise NotQuadraticError("No.")
    return str(caught.value)


def test_the_number_is_that_of_the_fit_and_its_threshold_is_said() -> None:
    model = tiny.classifier(gate="silu")
    fit = bl.quadratic_fit(model, samples=fitting.OFFER_SAMPLES)
    assert f"R² = {fit.r_squared.quadratic.overall:.3f}" in refused(model)
    assert ("below the 0.9" in refused(model)) is not fit.usable
    assert "below the 0.9" in refused(tiny.classifier(n_layers=3))


def test_without_a_fit_the_refusal_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "quadratic_fit", raising(BilensError()))
    assert refused(tiny.classifier(gate="relu")) == "No."


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), offering_a_fit(tiny.classifier()):
        raise ZeroDivisionError
