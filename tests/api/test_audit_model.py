"""`bl.audit`: what may be passed in, and what the document says of where it comes from."""

import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

import bilens as bl
import tiny
from bilens.api.audit_model import audit
from bilens.api.examiners import EXAMINERS
from bilens.api.provenance import this_command
from bilens.base.errors import ShapeError, UsageError
from bilens.records.audit import Audit
from bilens.records.column_readings import ColumnChanges
from bilens.records.common import Reading
from bilens.records.guarantees import Guarantees
from bilens.records.image_warnings import Triggers
from bilens.records.performance import Performance
from bilens.report.sections.audit_page import SECTIONS
from bilens.version import VERSION

DATA = tiny.images()
KEYS = [
    "schema_version",
    "kind",
    "read_as",
    "passed",
    "model",
    "coverage",
    "verdict",
    "conditions",
    "decision",
    "exactness",
    "inventory",
    "performance",
    "classes",
    "layers",
    "columns",
    "inputs",
    "overfitting",
    "triggers",
    "guarantees",
    "difference",
    "column_changes",
    "null_samples",
    "seed",
    "source",
    "data",
    "text",
    "reproduce",
    "people",
]


def document(*arguments: Any, **options: Any) -> dict[str, Any]:
    return audit(*arguments, null_samples=tiny.ROTATIONS, **options).to_dict()


def test_the_document_has_these_keys_in_this_order() -> None:
    assert list(document(tiny.classifier())) == KEYS


def test_a_module_has_no_file() -> None:
    found = document(tiny.classifier())
    assert not any(found["source"].values())
    assert found["model"]["input_shape_assumed"]
    assert found["model"]["output_names"] == ["0", "1", "2"]
    assert found["data"] is None
    assert found["performance"] is None


def test_a_loaded_model_brings_shape_names_and_provenance(tmp_path: Path) -> None:
    bl.save(
        tiny.classifier(),
        tmp_path / "model",
        input_shape=(4, 9),
        output_names=DATA.class_names,
        provenance={"seed": "3"},
    )
    loaded = bl.load(tmp_path / "model")
    found = document(loaded)
    assert found["source"] == {
        "path": str(tmp_path / "model"),
        "weights_sha256": loaded.weights_sha256,
        "provenance": {"seed": "3"},
        "files": found["source"]["files"],
        "given_in_training": False,
        "hooks": [],
    }
    assert set(found["source"]["files"]) == {"config.json", "model.safetensors"}
    assert found["model"]["input_shape"] == [4, 9]
    assert not found["model"]["input_shape_assumed"]
    assert [reading["name"] for reading in found["classes"]["readings"]] == list(DATA.class_names)


def test_the_test_images_of_a_data_set_are_judged() -> None:
    found = document(tiny.trained(), DATA)
    assert found["data"] == {
        "name": "tiny",
        "source": "strokes drawn for a test",
        "notes": [],
        "source_kind": "data-dir",
        "num_images": tiny.NUM_TEST,
        "sha256": DATA.fingerprint,
    }
    share = found["performance"]["classification"]["accuracy"]
    assert share["total"] == tiny.NUM_TEST
    assert share["value"] > 0.9


def test_a_pair_of_tensors_is_judged_alike() -> None:
    model = tiny.loaded(tiny.trained(), data_name="tiny")  # as a training of images says
    pair = document(model, (DATA.test_images, DATA.test_labels))
    whole = document(model, DATA)
    for key in ("classes", "verdict"):
        assert pair[key] == whole[key]
    share = [found["performance"]["classification"] for found in (pair, whole)]
    assert share[0] == share[1]
    assert pair["data"]["source_kind"] == "tensors"
    assert (pair["data"]["name"], pair["data"]["sha256"]) == ("", "")


@pytest.mark.parametrize(
    ("shift", "times", "passed"), [(0, 1, True), (1, 1, None), (1, 5, False), (None, 5, None)]
)
def test_data_that_cannot_tell_vouch_for_nothing(
    shift: int | None, times: int, passed: bool | None
) -> None:
    """Wrong answers on few rows, or right ones of one class, are no failure and no pass."""
    module, x, right = tiny.trained(), DATA.test_images, DATA.test_labels
    if shift is None:
        x, right = x[right == 0], right[right == 0]
    wanted = (right + (shift or 0)) % tiny.CLASSES
    x, wanted = x.repeat(times, 1), wanted.repeat(times)
    assert bl.audit(module, (x, wanted), null_samples=tiny.ROTATIONS).passed is passed


def test_rules_of_every_model_stand_first_and_those_of_layers_last() -> None:
    rules = [one["rule"] for one in document(tiny.classifier(), seed=5)["verdict"]]
    assert rules[:4] == ["coverage", "layout", "exact", "complete"]
    assert rules[-4:] == ["dead_units", "duplicate_units", "unused_inputs", "unstable_directions"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [DATA.test_images, DATA.test_labels],
            "data is a list; expected an ImageDataset or a pair",
        ),
        ((DATA.test_images,), "data is a tuple"),
        ((DATA.test_images, [0] * 60), "data is a tuple"),
        (DATA.test_images, "data is a Tensor"),
    ],
)
def test_other_data_are_refused(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        audit(tiny.classifier(), data)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_to_be_loaded_first(kind: type) -> None:
    message = "an audit reads a model, got the path 'runs/one': pass bl.load('runs/one')."
    with pytest.raises(UsageError, match=re.escape(message)):
        audit(kind("runs/one"))


def test_what_cannot_be_audited_is_refused_with_the_message_of_the_findings() -> None:
    with pytest.raises(UsageError, match="no MLP is found in the Linear"):
        audit(torch.nn.Linear(2, 2))
    with pytest.raises(ShapeError, match="the model reads 9 inputs"):
        audit(tiny.classifier(d_input=9), DATA)


def test_the_document_says_how_to_make_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = document(tiny.classifier(), seed=4, command="my notebook, cell 3")["reproduce"]
    assert (found["command"], found["seed"]) == ("my notebook, cell 3", 4)
    assert found["versions"]["bilens"] == VERSION
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["versions"]) == {"bilens", "python", "torch", "numpy"}
    assert found["hardware"].endswith(" threads")
    assert len(found["date"].split("-")) == 3
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/bilens", "audit", "my run", "--seed", "4"])
    found = document(tiny.classifier())["reproduce"]
    assert found["command"] == "bilens audit 'my run' --seed 4"


def test_the_command_line_is_quoted_and_names_no_folder_of_the_program() -> None:
    assert this_command(["/usr/bin/bilens", "demo", "--out", "a b"]) == "bilens demo --out 'a b'"
    assert this_command(["/site/bilens/__main__.py", "demo"]) == "bilens demo"
    assert this_command([""]) == "python"


def test_the_report_can_be_written_in_both_languages(tmp_path: Path) -> None:
    report = audit(tiny.loaded(tiny.trained()), DATA, null_samples=tiny.ROTATIONS)
    assert report.passed
    report.to_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report.to_dict()
    for lang in ("en", "ja"):
        report.to_html(tmp_path / f"{lang}.html", lang=lang)
        assert f'lang="{lang}"' in (tmp_path / f"{lang}.html").read_text()


def test_progress_is_passed_on() -> None:
    stages: list[str] = []
    audit(
        tiny.classifier(),
        DATA,
        null_samples=tiny.ROTATIONS,
        progress=lambda stage, _done, _total: stages.append(stage),
    )
    assert list(dict.fromkeys(stages)) == [
        "exactness",
        "spectra",
        "null distribution",
        "data",
        "warnings",
        "radii",
        "truncation",
        "use of inputs",
        "inputs",
    ]


@pytest.mark.parametrize("good", [True, False])
def test_a_model_of_numbers_is_judged_by_its_own_numbers(good: bool) -> None:
    """A random one explains nothing of a target that has nothing to do with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        ).double()
        rows = torch.randn(200, 3, dtype=torch.float64)
        target = model(rows).detach()[:, 0] if good else torch.randn(200, dtype=torch.float64)
    record = audit(model, (rows, target), null_samples=3).record
    (finding,) = (one for one in record.verdict if one.rule == "r_squared")
    assert finding.outcome == ("info" if good else "warn")
    assert record.decision is not None
    assert record.decision.inputs == 200
    assert ("guess" in record.decision.reasons) != good
    assert (record.decision.answer == "do_not_use") != good


@pytest.mark.parametrize("apart", [False, True])
def test_an_operation_without_parameters_around_the_layers_is_no_reading_of_the_model(
    apart: bool,
) -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * (x > 0.5) if apart else x
            return self.down(self.up(x) ** 2)  # type: ignore[no-any-return]

    report = audit(Masked(), null_samples=3)
    found = report.record.coverage
    assert found is not None
    assert (found.unread, found.connected, found.is_whole) == (0, not apart, not apart)
    assert ("what connects them" in report.to_markdown()) == apart
    assert "matched those of the model" not in report.to_markdown()


@pytest.mark.parametrize("layers", [1, 2])
def test_a_classifier_of_ours_is_connected(layers: int) -> None:
    model = tiny.classifier(n_layers=layers)
    coverage = audit(model, null_samples=tiny.ROTATIONS).record.coverage
    assert coverage is not None
    assert coverage.connected


def test_a_layer_whose_output_is_constant_is_refused_like_any_that_is_not_explained() -> None:
    """Broken once: its R², −∞, is no number of JSON, and there was no audit at all."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.fill_(0.01)
        model[0].bias.fill_(-0.1)  # more than four standard deviations from zero
    report = audit(model, null_samples=3)
    fit = report.record.layers.readings[0].fit
    assert fit is not None
    assert (fit.linear, fit.quadratic, fit.usable) == (None, None, False)
    (found,) = (one for one in report.record.verdict if one.rule == "r2")
    assert (found.outcome, found.values["value"]) == ("warn", 0.0)
    for lang in ("en", "ja"):
        assert "| −∞ ± 0.000" in report.to_markdown(lang=lang)
        assert "−∞ ± 0.000" in report.to_html(lang=lang)


def test_words_are_tried_beside_a_baseline_alone() -> None:
    with pytest.raises(UsageError, match=r"try_words \(--try-words\): only with a baseline"):
        bl.audit(tiny.trained(), try_words=3)


def test_each_reading_of_an_audit_has_its_examiner_and_its_place_on_the_page() -> None:
    types = {name: get_type_hints(Audit)[name] for name in Audit.__struct_fields__}
    parts = {name: get_args(kind)[0] for name, kind in types.items() if get_args(kind)}
    readings = {
        name: kind
        for name, kind in parts.items()
        if isinstance(kind, type) and issubclass(kind, Reading)
    }
    assert set(EXAMINERS) == set(readings)
    drawn = {kind for kind, *_ in SECTIONS}
    beside = {Performance, Triggers, Guarantees, ColumnChanges}  # sections of which ask for them
    assert set(readings.values()) <= drawn | beside
