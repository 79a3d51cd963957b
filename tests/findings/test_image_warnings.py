"""Overfitting and triggers of models of other kinds: one map is read alike, however it is written.

Damage seen to fail: the identity of a converted model taken for its first weights, an approximation
that is judged by a threshold.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.findings.exact_classifier import class_centred
from bilens.findings.image_warnings import (
    classifier_map,
    layer_map,
    read_layer_warnings,
    read_warnings,
    rows_of,
)
from bilens.findings.layer_reading import fit_layer
from bilens.findings.overfitting import readings
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import classifier_of_layers
from bilens.nn.module_layers import layer_views
from bilens.records.audit import Audit
from bilens.report.sections.decision_page import looked_lines
from bilens.report.text import load_catalogue
from builders import randn

SHAPE, PIXELS, CLASSES = (14, 14), 196, 5


def mlp(d_output: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(PIXELS, 6), nn.ReLU(), nn.Linear(6, d_output))


def audited(model: Any, **options: Any) -> Audit:
    return bl.audit(trained_on_images(model), null_samples=3, **options).record


def trained_on_images(module: nn.Module) -> LoadedModel:
    """A model that says what it was trained on."""
    return replace(bl.from_module(module), provenance={"data_name": "drawn"}, input_shape=SHAPE)


def test_a_classifier_and_the_same_weights_as_a_layer_are_read_alike() -> None:
    torch.manual_seed(0)
    model = BilinearClassifier(PIXELS, 6, CLASSES, bias=True, residual=True).double()
    (view,) = layer_views(model).values()
    fitted = fit_layer(view, seed=0)
    whole, layer = classifier_map(model, class_centred(model)), layer_map(fitted)
    found, expected = (readings(one.leads(SHAPE), one.first) for one in (layer, whole))
    assert found == pytest.approx(expected)
    (_, one), (_, other) = read_warnings(whole, SHAPE), read_layer_warnings(fitted, SHAPE)
    assert other.score == pytest.approx(one.score)
    assert other.reason == one.reason == "not_measured"


@pytest.mark.parametrize("d_hidden", [3, PIXELS])
def test_first_weights_of_a_converted_model_are_those_of_its_branches(d_hidden: int) -> None:
    gate, value = randn(d_hidden, PIXELS, seed=1), randn(d_hidden, PIXELS, seed=2)
    biases = randn(2, d_hidden, seed=3)
    layer = GLUWeights(randn(CLASSES, d_hidden), gate, value, "identity", *biases)
    rows = rows_of(classifier_of_layers([layer]))
    assert torch.allclose(rows, torch.cat([gate, value]).to(rows))


def test_an_ordinary_mlp_is_ranked_and_not_judged() -> None:
    found = audited(mlp())
    assert (found.model.input_shape, found.model.output_names) == (SHAPE, (*"01234",))
    assert found.overfitting is not None
    assert found.triggers is not None
    assert found.overfitting.threshold is None
    assert (found.triggers.threshold, found.triggers.reason) == (None, "approximated")
    assert found.triggers.score is not None
    assert not {"overfitting", "trigger"} & {finding.rule for finding in found.verdict}


def test_what_an_approximation_explains_too_little_of_is_not_read() -> None:
    found = audited(mlp(), threshold=1.0)
    assert found.overfitting is not None
    assert found.triggers is not None
    for one in (found.overfitting, found.triggers):
        assert (one.score, one.reason) == (None, "refused")


@pytest.mark.parametrize(
    "model",
    [
        mlp(d_output=1),
        mlp(d_output=PIXELS),  # an autoencoder
        nn.Sequential(*mlp(), nn.Sigmoid()),
        nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 3)),  # 3 × 3 by a guess alone
        nn.Sequential(*mlp(), nn.ReLU(), nn.Linear(CLASSES, 3)),
    ],
)
def test_what_is_no_classifier_of_images_is_not_searched(model: nn.Module) -> None:
    found = bl.audit(model, null_samples=3).record
    assert found.model.input_shape is None
    assert (found.overfitting, found.triggers) == (None, None)


def test_nothing_is_searched_in_what_is_not_known_to_read_images() -> None:
    """Sounds and texts may have as many numbers as a square."""
    report = bl.audit(mlp(), null_samples=3)
    assert (report.record.overfitting, report.record.triggers) == (None, None)
    said = dict(looked_lines(load_catalogue("en"), report.record))
    assert not [line for line in said["What was not looked at"] if "image" in line]


def test_the_page_says_through_what_it_reads() -> None:
    report = bl.audit(trained_on_images(mlp()), null_samples=3)
    for lang, said in (("en", "whose R² is 0."), ("ja", "R²は0.")):
        assert said in report.to_html(lang=lang)
