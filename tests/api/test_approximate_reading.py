"""Where a claim is refused, the approximate reading is offered with its R², everywhere alike.

Broken once: the refusal raised again as it was; no reader offered the closest map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bilens as bl
import tiny
from bilens.api import approximate_reading
from bilens.api.approximate_reading import offering_a_fit
from bilens.api.convert import convert_model
from bilens.api.decompose import decompose
from bilens.api.decomposition_request import Request
from bilens.api.explain import explain_image
from bilens.api.layer_job import plan_layers
from bilens.base.errors import BilensError, NotQuadraticError, UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.report.terminal_readings import decomposition_lines

DATA = tiny.images()
READERS: dict[str, Callable[[LoadedModel], object]] = {
    "certify": bl.certify_model,
    "explain": lambda model: explain_image(model, DATA, [0]),
    "attack": lambda model: bl.attack_model(model, DATA),
}
OFFER = r"The closest quadratic map under a standard normal input has R² = -?\d\.\d{3} ± 0\.\d{3}"


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
        decompose(model)
    assert "bl.quadratic_fit(model.layers['layers.0'])" in str(caught.value)


def nearly_quadratic() -> LoadedModel:
    """A gated classifier whose gates hardly leave the range in which SiLU is a parabola."""
    model = tiny.classifier(gate="silu")
    with torch.no_grad():
        model.layers[0].left.weight.mul_(0.01)
    return tiny.loaded(model)


def test_a_gated_layer_that_is_nearly_quadratic_is_read_through_its_closest_map() -> None:
    model = nearly_quadratic()
    record = decompose(model, Request(reading="raw", outputs="1")).record
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
    record = decompose(tiny.loaded(tiny.classifier()), Request(top=1)).record
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
    assert decompose(LAYERS_ALONE, Request(top=1)).record.layer == "layers.0"


def refused(model: BilinearClassifier) -> str:
    """What a refusal of a reading of a model says."""
    with pytest.raises(NotQuadraticError) as caught, offering_a_fit(model):
        raise NotQuadraticError("No.")
    return str(caught.value)


def test_the_number_is_that_of_the_fit_and_its_threshold_is_said() -> None:
    model = tiny.classifier(gate="silu")
    fit = bl.quadratic_fit(model, samples=approximate_reading.SAMPLES)
    assert f"R² = {fit.r_squared.quadratic.overall:.3f}" in refused(model)
    assert ("below the 0.9" in refused(model)) is not fit.usable
    assert "below the 0.9" in refused(tiny.classifier(n_layers=3))


def test_without_a_fit_the_refusal_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise BilensError

    monkeypatch.setattr(approximate_reading, "quadratic_fit", fails)
    assert refused(tiny.classifier(gate="relu")) == "No."


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), offering_a_fit(tiny.classifier()):
        raise ZeroDivisionError
