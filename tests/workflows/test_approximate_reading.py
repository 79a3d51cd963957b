"""Where a claim is refused, the approximate reading is offered with its R², everywhere alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import bilens as bl
import tiny
from bilens.errors import BilensError, NotQuadraticError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.workflows import approximate_reading
from bilens.workflows.approximate_reading import offering_a_fit
from bilens.workflows.decompose import decompose
from bilens.workflows.explain import explain_image

DATA = tiny.images()
READERS: dict[str, Callable[[LoadedModel], object]] = {
    "audit": bl.audit,
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
