"""Guards against rules that say of a model what is not so, however the model or its rows are
written, and against a sentence of a rule that no model shows (`test_rules_of_*.py`)."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from msgspec import structs
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.findings import image_warnings
from bilens.findings.exact_classifier import class_centred
from bilens.findings.layer_reading import ReadingOptions
from bilens.findings.layer_walk import walk_layers
from bilens.findings.reference import POWER
from bilens.findings.rules.registry import REGISTRY, judge
from bilens.findings.rules.rule import Evidence
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import LayerView
from bilens.records.common import Finding, Share
from bilens.records.given_inputs import Area, Comparison, Gap, GivenInputs
from bilens.records.image_warnings import Overfitting, Trigger, Triggers
from builders import randn
from contract import (
    test_rules_of_classifiers,
    test_rules_of_comparisons,
    test_rules_of_layers,
    test_rules_of_readings,
    test_rules_of_stored_changes,
    test_rules_of_tables,
)
from contract.drawn import drawn, fewer
from contract.rule_cases import CATALOGUES
from contract.table import cell

D_IN, HIDDEN, D_OUT = 6, 9, 4
UP, BIAS = randn(HIDDEN, D_IN, seed=1), randn(HIDDEN, seed=2)
CASES = [
    *test_rules_of_classifiers.CASES,
    *test_rules_of_layers.CASES,
    *test_rules_of_readings.CASES,
    *test_rules_of_stored_changes.CASES,
    *test_rules_of_tables.CASES,
    *test_rules_of_comparisons.CASES,
]
Findings = Iterable[Finding]


# ---- layers, by their weights


def gated(activation: str = "identity", **parts: Tensor) -> GLUWeights:
    weights = {
        "down": randn(D_OUT, HIDDEN, seed=0),
        "gate": randn(HIDDEN, D_IN, seed=1),
        "value": randn(HIDDEN, D_IN, seed=2),
    }
    return GLUWeights(**{**weights, **parts}, activation=activation)  # type: ignore[arg-type]


def plain(activation: str = "relu", **parts: Tensor) -> MLPWeights:
    weights = {
        "down": randn(D_OUT, HIDDEN, seed=0),
        "up": randn(HIDDEN, D_IN, seed=1),
        "up_bias": randn(HIDDEN, seed=2),
    }
    return MLPWeights(**{**weights, **parts}, activation=activation)  # type: ignore[arg-type]


def changed(rows: Tensor, *edits: tuple[Any, Any]) -> Tensor:
    rows = rows.clone()
    for place, value in edits:
        rows[place] = value
    return rows


def layers(*some: Layer) -> Findings:
    def view(layer: Layer, name: str) -> LayerView:
        sizes = FactorSizes(len(layer.down), layer.down.shape[1], layer.d_in)
        kind = isinstance(layer, GLUWeights)
        return LayerView(sizes, layer.phi, layer.down.dtype, lambda: layer, kind, name=name)

    views = [view(one, f"layer {n}") for n, one in enumerate(some)]
    found = walk_layers(views, options=ReadingOptions(3, 0))
    return judge("layers", Evidence(layers=found.readings))


def network(factor: float) -> nn.Sequential:
    """An MLP that is nearly linear, or far from quadratic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        mlp[0].weight.mul_(factor)
    return mlp


# ---- classifiers


def classifier(edit: Callable[[BilinearClassifier], object] | None = None) -> BilinearClassifier:
    model = tiny.classifier(bias=True)
    if edit is not None:
        with torch.no_grad():
            edit(model)
    return model


def audited(model: nn.Module, *data: Any) -> Findings:
    return bl.audit(model, *data, null_samples=tiny.ROTATIONS).record.verdict


def exchanged(model: BilinearClassifier) -> None:
    """Class 2 reads units 4 to 7, which are units 0 to 3 of class 0 with branches exchanged."""
    left, right = model.layers[0].left, model.layers[0].right
    for one, other in ((left, right), (right, left)):
        one.weight[4:] = other.weight[:4]  # type: ignore[index]
        one.bias[4:] = other.bias[:4]  # type: ignore[index]
    head = model.head.weight
    head[0, 4:] = head[2, :4] = 0
    head[2, 4:] = head[0, :4]


def nearly_exchanged(model: BilinearClassifier) -> None:
    exchanged(model)
    model.layers[0].left.bias[4] += 0.01  # type: ignore[index,union-attr]


def labelled(wrong: bool) -> tuple[BilinearClassifier, tuple[Tensor, Tensor]]:
    model, x = classifier(), randn(60, tiny.PIXELS, seed=3)
    answers = model(x).argmax(dim=1)
    return model, (x, (answers + wrong) % 3)


# ---- records, filled by hand


def gap(low: float) -> Evidence:
    record = bl.audit(*labelled(wrong=False), null_samples=tiny.ROTATIONS).record
    area, none = Area(0.5, 0.4, 0.6, 0.5), ()
    sample = structs.replace(record.inputs.test, accuracy=Share(90, 100, 0.9, 0.8, 0.9, 0.5))
    compared = Comparison(area, None, Gap(low, low, low + 0.1), Gap(0.0, 0.0, 0.0))
    given = GivenInputs(sample, sample, None, compared, "", 0, none)
    return Evidence(
        inputs=given, overfitting=overfitting(0.2), output_names=("a", "b"), input_kind="images"
    )


def overfitting(rank: float) -> Overfitting:
    return Overfitting(0.01, 0.0, 0.03, rank, 0.6, (), "", 0.1, 0.3, POWER.overfitting)


def trigger(p_value: float) -> Evidence:
    suspect = Trigger(1, 4.0, "bright_4", (2, 3, 4, 4), (0.0,) * 64, 1.5, 1, 1, (1, 0))
    found = Triggers(4.0, p_value, 0.03, (), (suspect,), "", POWER.triggers)
    return Evidence(triggers=found, output_names=("a", "b"), input_kind="images")


# ---- every sentence of every rule


# what stands in documents of earlier releases alone
NEVER_SAID = {
    "r2.pass": "an approximation under an assumed input does not pass",
    "r2.pass_some": "nor does one of several layers of which one rests on such an input",
}
ENDING = re.compile(r"rule\.(\w+\.(?:pass|info|warn|fail)\w*)")


def test_each_sentence_of_each_rule_has_a_model_of_which_it_is_true() -> None:
    """Of which it is false are the models of the other endings, or of other numbers."""
    shown = Counter(sentence for case in CASES for sentence in case.sentences)
    asked = {found[1] for key in CATALOGUES["en"].sentences if (found := ENDING.fullmatch(key))}
    assert {*shown} == asked - NEVER_SAID.keys()
    for rule in REGISTRY:
        begin = f"{rule.sentences or rule.id}."
        assert sum(count for each, count in shown.items() if each.startswith(begin)) > 1, begin


def test_each_rule_is_shown_in_each_kind_of_document() -> None:
    shown = {(case.kind, each.partition(".")[0]) for case in CASES for each in case.sentences}
    for rule in REGISTRY:
        for kind in rule.readings:
            assert (kind, rule.sentences or rule.id) in shown


# ---- what the rules say does not depend on how a model is written


def units_of(layer: Layer) -> dict[str, Any]:
    told = ("dead_units", "duplicate_units", "unused_inputs")
    return {one.rule: one.values["value"] for one in layers(layer) if one.rule in told}


@cell("audit", "permuted units", "scaled branches", "permuted inputs")
@fewer(1)
@given(st.integers(0, 10**6), st.sampled_from(["identity", "relu", "silu"]))
def test_units_are_counted_however_a_layer_is_written(seed: int, activation: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(HIDDEN, generator=generator)
    gate, value = randn(HIDDEN, D_IN, seed=seed), randn(HIDDEN, D_IN, seed=seed + 1)
    down = randn(D_OUT, HIDDEN, seed=seed + 2)
    gate[pick[0]], value[pick[0]] = 2 * gate[pick[1]], -value[pick[1]]  # one double
    down[:, pick[2]] = 0  # one dead unit
    doubles = 0 if activation == "silu" else 1  # silu(2t) is no multiple of silu(t)
    expected = {"dead_units": 1, "duplicate_units": doubles, "unused_inputs": 0}
    order = torch.randperm(HIDDEN, generator=generator)
    scale = torch.rand(HIDDEN, 1, generator=generator).double() + 0.5
    columns = torch.randperm(D_IN, generator=generator)
    written = [
        gated(activation, down=down, gate=gate, value=value),
        gated(activation, down=down[:, order], gate=gate[order], value=value[order]),
        gated(activation, down=down, gate=gate[:, columns], value=value[:, columns]),
    ]
    if activation != "silu":
        written.append(gated(activation, down=down, gate=gate * scale, value=value / scale))
    if activation == "identity":
        written.append(gated(activation, down=down, gate=value, value=gate))
    for layer in written:
        assert units_of(layer) == expected


@cell("audit", "common function", "other units")
@pytest.mark.parametrize("common", [0.0, 1.0, 1e4])
def test_twins_are_twins_beside_any_common_function_and_in_any_unit(common: float) -> None:
    def edited(make: Callable[[BilinearClassifier], object]) -> str:
        def edit(model: BilinearClassifier) -> None:
            make(model)
            model.head.weight += common * randn(1, 8, seed=9)
            model.embed.weight *= 1e-3 if common else 1.0  # the inputs in another unit

        (found,) = (one for one in audited(classifier(edit)) if one.rule == "twin_classes")
        return str(found.values["pairs"])

    assert edited(exchanged) == "0 = 2"
    assert edited(lambda _model: None) == edited(nearly_exchanged) == ""


@cell("audit", "other units")
def test_the_unit_of_an_input_kills_no_hidden_unit() -> None:
    up = changed(UP, ((0, slice(1, None)), 0))  # unit 0 reads input 0 alone
    for unit in (1.0, 1e-9):
        scaled = up * torch.tensor([unit, 1, 1, 1, 1, 1]).double()
        assert units_of(plain(up=scaled, up_bias=0 * BIAS))["dead_units"] == 0


# ---- what rests on an assumed input


@cell("audit", "own object")
def test_an_assumed_input_earns_no_tick_accuses_nobody_and_is_no_reading() -> None:
    """Inputs of deviation 143, as of a real file: R² told on N(0, I) said nothing of them."""
    up = randn(24, 24, seed=1)
    layer = plain(up=up, up_bias=-5.5 * up.norm(dim=1), down=randn(4, 24))
    x = 143 * randn(500, 24, seed=3)
    assert int((layer.hidden(x) > 0).any(dim=0).sum()) == 24  # all of them fire
    found = {one.rule: one for one in layers(layer)}
    assert found["dead_units"].values["value"] == found["duplicate_units"].values["value"] == 0
    record = bl.audit(network(0.5)).record
    maps = {"coverage", "r2", "dominant_inputs", "low_rank", "unstable_directions"}
    told = {one.rule: one.outcome for one in record.verdict if one.rule in maps}
    assert told.pop("coverage") == "warn"
    assert {*told.values()} == {"info"}
    assert record.coverage is not None
    assert record.coverage.share == 0
    assert record.decision is not None
    assert record.decision.answer == "not_read"
    assert record.passed is None


def test_what_was_measured_silences_the_guess_and_one_gate_serves_both_searches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for low in (0.2, 0.0):
        assert "overfitting" not in [one.rule for one in judge("classes", gap(low))]
    monkeypatch.setattr(image_warnings, "MEASURED", ((6, 6), 3))
    alarm = trigger(0.001).triggers
    monkeypatch.setattr(image_warnings, "read_triggers", lambda _: alarm)
    for reason in ("", "unlike"):
        none = Overfitting(None, None, None, None, None, (), reason)
        known = none if reason else overfitting(0.2)
        monkeypatch.setattr(image_warnings, "read_overfitting", lambda *_, known=known: known)
        model = classifier()
        found = image_warnings.classifier_map(model, class_centred(model))
        weights, planted = image_warnings.read_warnings(found, (6, 6))
        both = Evidence(
            overfitting=weights, triggers=planted, output_names=("a", "b", "c"), input_kind="images"
        )
        said = {one.rule for one in judge("classes", both)}
        assert said == (set() if reason else {"overfitting", "trigger"})
        assert planted.reason == reason


# ---- rows of data


def guaranteed(order: Tensor, x: Tensor, y: Tensor) -> Any:
    report = bl.certify_model(classifier(), (x[order], y[order]), samples=60)
    return report.record


@cell("certify", "sorted rows", "shuffled rows")
def test_a_sample_is_of_all_rows_and_the_longest_input_is_the_longest() -> None:
    x = randn(400, tiny.PIXELS, seed=4)
    x[-1] *= 10
    y = classifier()(x).argmax(dim=1)
    for order in (y.argsort(stable=True), torch.randperm(400)):
        found = guaranteed(order, x, y)
        assert found.truncation.radius == pytest.approx(float(x.norm(dim=1).max()))
        assert {one.label for one in found.l2.inputs} == {*y.tolist()}
        for one in found.l2.inputs:  # its number is that in the data
            assert one.label == int(y[order][one.index])


@cell("audit", "repeated rows", "shuffled rows", "sorted rows")
def test_the_order_of_rows_changes_no_outcome() -> None:
    model, (x, y) = labelled(wrong=False)
    y = changed(y, (slice(None, None, 10), (y[::10] + 1) % 3))  # a tenth is wrong
    usual = {one.rule: one.outcome for one in audited(model, (x, y))}
    for order in (torch.randperm(len(x)), y.argsort(stable=True), torch.arange(len(x)).repeat(2)):
        found = {one.rule: one.outcome for one in audited(model, (x[order], y[order]))}
        assert found == usual


@cell("fit", "repeated rows", "shuffled rows", "sorted rows")
@drawn
@given(st.integers(0, 10**5))
def test_no_row_is_both_fitted_to_and_judged(seed: int) -> None:
    """Of 70 rows a map with 91 numbers learns all by heart: judged on them, R² would be 1."""
    up = 30 * randn(40, 12, seed=seed)
    layer = MLPWeights(randn(3, 40, seed=seed + 1), up, "tanh", randn(40, seed=seed + 2))
    x = randn(70, 12, seed=seed + 3)
    twice = torch.cat([x, x + 1e-9 * randn(*x.shape, seed=seed)])
    generator = torch.Generator().manual_seed(seed)
    for order in (torch.randperm(len(twice), generator=generator), twice[:, 0].argsort()):
        found = bl.quadratic_fit(layer, data=twice[order])
        assert found.ladder["ceiling"].quadratic.overall < 0.7


@cell("fit", "permuted units", "other dtype")
@drawn
@given(st.integers(0, 10**5))
def test_a_fit_does_not_depend_on_how_its_layer_is_written(seed: int) -> None:
    layer = plain("gelu", up=randn(HIDDEN, D_IN, seed=seed))
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(seed))
    assert layer.up_bias is not None
    other = plain(
        "gelu", up=layer.up[order], up_bias=layer.up_bias[order], down=layer.down[:, order]
    )
    x = randn(300, D_IN, seed=seed + 1)
    told = bl.quadratic_fit(layer, data=x).r_squared.quadratic.overall
    for one, data in ((other, x), (layer, x.float().double())):
        again = bl.quadratic_fit(one, data=data).r_squared.quadratic.overall
        assert again == pytest.approx(told, abs=1e-5)


def test_units_with_one_direction_and_other_biases_are_no_doubles() -> None:
    assert units_of(plain(up=changed(UP, (3, UP[2]))))["duplicate_units"] == 0
    far = plain(up_bias=400 + 0 * BIAS)  # no biases make one direction of many
    assert units_of(far)["duplicate_units"] == 0


@cell("audit", "own object")
@pytest.mark.parametrize("name", ["ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU"])
def test_a_unit_without_weights_does_nothing_where_its_activation_is_zero(name: str) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 6), getattr(nn, name)(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        module[0].weight[2] = 0
        module[0].bias[2] = -1
    verdict = bl.audit(module, null_samples=3).record.verdict
    (found,) = (one for one in verdict if one.rule == "dead_units")
    assert found.values["value"] == (1 if name == "ReLU" else 0)
