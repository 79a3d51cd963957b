"""The audit as a whole: planted truths, gauges that may change nothing, what it refuses.

The findings of one small model are kept number by number. To make their file anew, after a change
that is meant to move the numbers:

    BILENS_UPDATE_GOLDEN=1 python -m pytest tests/findings/test_exact_classifier.py"""

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from bilens.api.audit_model import examine_subject
from bilens.api.audit_subject import AuditSubject
from bilens.api.examiners import EXAMINERS
from bilens.api.options import AuditOptions
from bilens.base.errors import (
    BilensError,
    MemoryLimitError,
    NonFiniteError,
    NotQuadraticError,
    UsageError,
)
from bilens.data.model_interface import LabelledData
from bilens.findings import exact_classifier
from bilens.findings.certificate import certify_classifier
from bilens.findings.exact_classifier import ExactClassifier
from bilens.findings.subject import as_loaded, image_shape
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.audit import Audit
from bilens.records.base import to_json
from bilens.records.common import Exactness
from builders import randn

DATA = tiny.images()
TEST = tiny.labelled(DATA.test_images, DATA.test_labels)
OF_CLASSES = {name: one for name, one in EXAMINERS.items() if name != "performance"}


def audited(
    model: LoadedModel | nn.Module, data: LabelledData | None = None, **options: Any
) -> Audit:
    asked = {"null_samples": tiny.ROTATIONS, "command": "", **options}
    subject = AuditSubject(as_loaded(model), data, asked=AuditOptions(**asked))
    return examine_subject(subject, examiners=OF_CLASSES)


def eigenvalues(findings: Audit) -> list[list[float]]:
    return [list(reading.eigenvalues) for reading in findings.classes.readings]


# Two logits q and −q: against their mean, class 0 reads exactly q (paper, boolean ground truth).
GATES: dict[str, tuple[list[tuple[list[float], list[float], list[float]]], list[float]]] = {
    "xor: (x − y)²": ([([1, -1], [1, -1], [1, -1])], [2, 0]),
    "and: xy": ([([1, 0], [0, 1], [1, -1])], [0.5, -0.5]),
    "or: x² + y² − xy": (
        [([1, 0], [1, 0], [1, -1]), ([0, 1], [0, 1], [1, -1]), ([1, 0], [0, 1], [-1, 1])],
        [1.5, 0.5],
    ),
}


@pytest.mark.parametrize("gate", GATES)
def test_a_boolean_gate_has_the_eigenvalues_of_the_book(gate: str) -> None:
    products, expected = GATES[gate]
    findings = audited(tiny.planted(products, d_input=2))
    first, second = eigenvalues(findings)
    assert first == pytest.approx(expected, abs=1e-14)
    assert second == pytest.approx([-value for value in reversed(expected)], abs=1e-14)
    assert all(one.outcome != "fail" for one in findings.verdict)


def test_the_gates_are_what_they_are_called() -> None:
    """The model's own forward pass on the four pairs of bits is the truth table."""
    bits = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    tables = [
        tiny.planted(GATES[gate][0], d_input=2)(bits)[:, 0].detach().round().int().tolist()
        for gate in GATES
    ]
    assert tables == [[0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 1, 1]]


def test_the_way_the_embedding_is_written_changes_no_reading_in_the_input_basis() -> None:
    """(A·embed, left·A⁻¹, right·A⁻¹) is the same function; the paper's convention sees it."""
    model = tiny.classifier(bias=True)
    twin = copy.deepcopy(model)
    a = torch.diag(torch.linspace(0.5, 3.0, 8).double()) + 0.1 * randn(8, 8)
    with torch.no_grad():
        twin.embed.weight.copy_(a @ model.embed.weight)
        for branch in (twin.layers[0].left, twin.layers[0].right):
            branch.weight.copy_(branch.weight @ torch.linalg.inv(a))
    x = DATA.test_images.double()
    torch.testing.assert_close(twin(x), model(x))
    before, after = audited(model, TEST), audited(twin, TEST)
    for old, new in zip(before.classes.readings, after.classes.readings, strict=True):
        for name in ("eigenvalues", "effective_rank", "effective_rank_raw", "frobenius_norm"):
            assert getattr(new, name) == pytest.approx(getattr(old, name), rel=1e-9, abs=1e-12)
        assert new.effective_rank_embedding != pytest.approx(old.effective_rank_embedding, rel=0.01)
    assert after.classes.truncation == before.classes.truncation


def test_the_readings_of_all_classes_sum_to_nothing() -> None:
    """Each is against the mean of all: Σ_c tr Q_c = 0, and Σ_c c_c = 0."""
    findings = audited(tiny.classifier(bias=True, residual=True))
    assert sum(sum(values) for values in eigenvalues(findings)) == pytest.approx(0, abs=1e-12)
    assert sum(reading.constant for reading in findings.classes.readings) == pytest.approx(
        0, abs=1e-12
    )


def test_what_is_said_of_the_model() -> None:
    model = tiny.classifier(dtype=torch.float32, bias=True)
    summary = audited(LoadedModel(model, "", "", (4, 9), ("a", "b", "c"))).model
    assert (summary.kind, summary.dtype) == ("BilinearClassifier", "float32")
    assert (summary.d_input, summary.d_hidden, summary.d_output) == (36, 8, 3)
    assert (summary.bias, summary.residual) == (True, False)
    # embed 8·36, two branches of 8·8 weights and 8 biases, head 3·8
    assert summary.num_parameters == 288 + 2 * 72 + 24
    assert (summary.input_shape, summary.input_shape_assumed) == ((4, 9), False)
    assert summary.output_names == ("a", "b", "c")
    summary = audited(tiny.classifier(residual=True)).model
    assert (summary.bias, summary.residual) == (False, True)
    assert (summary.input_shape, summary.input_shape_assumed) == ((6, 6), True)
    assert summary.output_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("width", "given", "expected"),
    [
        (36, None, (6, 6)),
        (12, None, (1, 12)),
        (12, (3, 4), (3, 4)),
        (36, (36,), (1, 36)),
        (36, (1, 6, 6), (1, 36)),
    ],
)
def test_inputs_are_drawn_as_they_are_laid_out(
    width: int, given: tuple[int, ...] | None, expected: tuple[int, int]
) -> None:
    assert image_shape(width, given) == expected


def test_without_data_nothing_is_said_about_predictions() -> None:
    findings = audited(tiny.classifier())
    assert findings.performance is None
    assert (findings.classes.truncation, findings.classes.explanations) == ((), ())


def test_with_data_accuracy_and_examples_are_those_of_the_model() -> None:
    model = tiny.trained()
    findings = audited(model, TEST)
    predicted = model(DATA.test_images.double()).argmax(dim=1)
    right = float((predicted == DATA.test_labels).double().mean())
    assert findings.classes.truncation[-1].accuracy == pytest.approx(right)
    assert findings.classes.truncation[-1].agreement == 1.0
    for explanation in findings.classes.explanations:
        assert explanation.predicted == int(predicted[explanation.index])
        assert explanation.label == int(DATA.test_labels[explanation.index])
        right = explanation.kind in ("typical", "narrow")
        assert right == (explanation.predicted == explanation.label)


@pytest.mark.parametrize("training", [False, True])
def test_the_model_the_data_and_the_global_generator_are_left_alone(training: bool) -> None:
    model = tiny.classifier(dtype=torch.float32).train(training)
    before, images = copy.deepcopy(model), DATA.test_images.clone()
    state = torch.get_rng_state()
    audited(model, TEST)
    assert tiny.same_weights(model, before)
    assert model.training == training
    assert torch.equal(images, DATA.test_images)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_findings_and_another_one_another_chance_level() -> None:
    model = tiny.classifier()
    first, second, other = audited(model), audited(model), audited(model, seed=1)
    assert to_json(first) == to_json(second)
    assert other.classes.readings[0].upper_edge != first.classes.readings[0].upper_edge
    assert eigenvalues(other) == eigenvalues(first)


def test_progress_tells_each_stage_and_each_rotation() -> None:
    calls: list[tuple[str, int, int]] = []
    audited(tiny.classifier(), TEST, progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == [
        *(
            "exactness",
            "spectra",
            "null distribution",
            "data",
            "warnings",
            "radii",
            "truncation",
            "use of inputs",
            "inputs",
        )
    ]
    assert [done for stage, done, _ in calls if stage == "null distribution"] == list(
        range(1, tiny.ROTATIONS + 1)
    )


def broken(value: float) -> BilinearClassifier:
    model = tiny.classifier()
    with torch.no_grad():
        model.head.weight[1, 2] = value
    return model


TOO_LARGE = (
    r"exceed the range of float(32 \(±3.4e\+38|64 \(±1.8e\+308)\), .*: scale the weights down"
)
REFUSED: list[tuple[nn.Module, type[BilensError], str]] = [
    (tiny.classifier(gate="relu"), NotQuadraticError, r"gate 'relu'.* gate=None"),
    (tiny.classifier(n_layers=2), NotQuadraticError, "2 layers.*polynomial of degree 4"),
    (tiny.classifier(d_output=1), UsageError, "one output: take it apart with"),
    (broken(math.nan), NonFiniteError, "1 non-finite value"),
    (broken(math.inf), NonFiniteError, "1 non-finite value"),
    (tiny.enlarged(1e150), NonFiniteError, TOO_LARGE),  # in float64 too
    (tiny.enlarged(1e20, torch.float32), NonFiniteError, TOO_LARGE),  # products of two weights
    (tiny.enlarged(2e9, torch.float32), NonFiniteError, TOO_LARGE),  # the logits
]


@pytest.mark.parametrize(("model", "error", "message"), REFUSED)
def test_a_model_that_cannot_be_audited_is_refused(
    model: nn.Module, error: type[BilensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        ExactClassifier(as_loaded(model)).exactness  # noqa: B018 - the first that is asked for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null_samples": 38}, "null_samples must be an integer of at least 39, got 38"),
        ({"null_samples": 39.0}, "null_samples must be an integer of at least 39"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be below 2\*\*32"),
    ],
)
def test_an_argument_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExactClassifier(as_loaded(tiny.classifier()), **options)


def test_a_model_that_would_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    with pytest.raises(MemoryLimitError, match=r"the limit is 0\.00 MiB: use matvec"):
        audited(tiny.classifier())


def test_what_an_audit_proves_is_what_a_certificate_proves() -> None:
    found = audited(tiny.trained(), TEST).guarantees
    proven = certify_classifier(tiny.trained(), TEST)
    assert found is not None
    assert (found.box, found.truncation) == (proven.box, proven.truncation)
    assert found.l2 is not None
    assert proven.l2 is not None
    radii = [[one.radius for one in each.inputs] for each in (found.l2, proven.l2)]
    assert radii[0] == pytest.approx(radii[1], rel=1e-9)
    assert (found.input_use, found.linf, found.stability) == (proven.input_use, None, ())


def test_nothing_is_proven_where_formula_and_model_disagree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = Exactness("float64", 1.0, 0.5, 1e-12, 1000, False)
    monkeypatch.setattr(exact_classifier, "check_exactness", lambda *_: (wrong,))
    found = audited(tiny.classifier())
    assert found.guarantees is None
    assert "fail" in [one.outcome for one in found.verdict]


GOLDEN = Path(__file__).with_name("golden_audit.json")
ROUNDING = ("error", "residual", "largest_residual", "largest_error", "relative_error")
DRAWN = ("vector", "image")  # five decimals


def findings() -> dict[str, Any]:
    """A float64 model of 9 inputs, 4 hidden units and 3 classes, and ten images."""
    model = tiny.classifier(4, d_input=9, d_hidden=4, bias=True, residual=True)
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(10, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (10,), generator=generator)
    found = to_json(audited(model, tiny.labelled(images, labels), seed=4))
    del found["reproduce"]  # the date and the machine
    content: dict[str, Any] = json.loads(json.dumps(found))
    return content


def compare(found: Any, expected: Any, place: str) -> None:
    """Numbers within 1e-8 of each other, rounding errors small, everything else equal."""
    key = place.rsplit(".", 1)[-1].split("[")[0]
    if isinstance(expected, dict):
        assert list(found) == list(expected), place
        for name in expected:
            compare(found[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for index, item in enumerate(expected):
            compare(found[index], item, f"{place}[{index}]")
    elif not isinstance(expected, float):
        assert found == expected, place
    elif key in ROUNDING:
        assert 0 <= found < 1e-5, place
    else:
        tolerance = 1.5e-5 if key in DRAWN else 1e-12
        assert found == pytest.approx(expected, rel=1e-8, abs=tolerance), place


def test_the_findings_are_as_they_were() -> None:
    found = findings()
    if os.environ.get("BILENS_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    compare(found, json.loads(GOLDEN.read_text()), "")


def test_the_comparison_sees_a_small_change() -> None:
    expected = json.loads(GOLDEN.read_text())
    expected["classes"]["readings"][1]["effective_rank"] *= 1 + 1e-7
    with pytest.raises(AssertionError, match=r"classes\.readings\[1\]\.effective_rank"):
        compare(findings(), expected, "")


@pytest.mark.parametrize(
    ("shape", "classes", "rules", "reason"),
    [
        ((28, 28), 10, set(), "unlike"),  # it was never trained; broken once: triggers spoke
        ((14, 20), 10, set(), "not_measured"),
    ],
)
def test_a_finding_speaks_only_where_its_power_was_measured(
    shape: tuple[int, int],
    classes: int,
    rules: set[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exact_classifier, "classifier_guarantees", lambda *_: None)
    model = BilinearClassifier(math.prod(shape), 8, classes)
    findings = audited(LoadedModel(model, "", "", shape))
    said = {finding.rule for finding in findings.verdict} & {"overfitting", "trigger"}
    assert said == rules
    assert findings.triggers is not None
    assert findings.triggers.p_value is not None
    assert (findings.triggers.threshold is None, findings.triggers.reason) == (bool(reason), reason)
    assert findings.overfitting is not None  # of a model that was never trained
    assert (findings.overfitting.score, findings.overfitting.reason) == (None, "unlike")
