"""Fits to inputs against naive twins: least squares neuron by neuron, and of `down`."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from bilens.algebra.approximation import data_fit
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.data_fit import (
    fit_neurons,
    gaussian_neurons,
    quadratic_ceiling,
    refit_down,
    row_weights,
    rows_to_refit,
)
from bilens.algebra.approximation.layer_weights import (
    GLUWeights,
    Layer,
    MLPWeights,
    as_gated,
    in_dtype,
)
from bilens.algebra.approximation.neuron_products import branches
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.gaussian import GaussianInput
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn

MEAN, COVARIANCE = randn(5, seed=20), randn(5, 5, seed=21) @ randn(5, 5, seed=21).T
X = MEAN + randn(900, 5, seed=22) @ randn(5, 5, seed=23)
PARTS = randn(3, 8), randn(8, 5, seed=1)
PATH = {"linear": randn(3, 5, seed=5), "constant": randn(3, seed=6)}
LAYERS: dict[str, Layer] = {
    "swiglu": GLUWeights(*PARTS, randn(8, 5, seed=2), "silu", randn(8, seed=3), **PATH),
    "geglu": GLUWeights(*PARTS, randn(8, 5, seed=2), "gelu", value_bias=randn(8, seed=4)),
    "relu": MLPWeights(*PARTS, "relu", randn(8, seed=3), **PATH),
    "gelu": MLPWeights(*PARTS, "gelu"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("linear", [True, False])
def test_a_neuron_under_a_normal_input_is_the_closed_form(name: str, linear: bool) -> None:
    layer = LAYERS[name]
    for mean, covariance in ((MEAN, COVARIANCE), (None, None), (MEAN, torch.diag(MEAN > 0) * 1.0)):
        expected = approximate_layer(layer, GaussianInput.from_moments(5, mean, covariance))
        found = gaussian_neurons(layer, mean, covariance, linear=linear)
        torch.testing.assert_close(found(X), expected(X), rtol=1e-10, atol=1e-10)


def least_squares(features: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    root = weights.sqrt()[:, None]
    return features @ torch.linalg.lstsq(features * root, y * root).solution


@pytest.mark.parametrize("name", LAYERS)
def test_each_neuron_is_its_least_squares_from_one_pass(name: str) -> None:
    layer, weights = LAYERS[name], randn(900, seed=30).abs()
    u, v = branches(as_gated(layer), X)
    ones, gated = torch.ones_like(u), isinstance(layer, GLUWeights)
    hidden = []
    for one, other, truth in zip(u.T, v.T, layer.hidden(X).T, strict=True):
        features = [one**2, one, ones[:, 0], *([one * other, other] if gated else [])]
        hidden.append(least_squares(torch.stack(features, 1), truth[:, None], weights)[:, 0])
    expected = torch.stack(hidden, 1) @ layer.down.T
    expected += 0 if layer.linear is None else X @ layer.linear.T
    expected += 0 if layer.constant is None else layer.constant
    found = fit_neurons(layer, X.split(130), weights=weights)
    torch.testing.assert_close(found(X), expected, rtol=1e-9, atol=1e-9)
    left, right = (branch.square() @ torch.eye(8).double() for branch in branches(found, X))
    torch.testing.assert_close(weights @ left, weights @ right)


def test_a_bilinear_layer_stays_what_it_is() -> None:
    layer = dataclasses.replace(LAYERS["swiglu"], activation="identity")
    for found in (fit_neurons(layer, X), gaussian_neurons(layer, MEAN, COVARIANCE)):
        torch.testing.assert_close(found(X), layer(X), rtol=1e-10, atol=1e-10)


def at_the_turning_point(scale: float) -> GLUWeights:
    """Gates around the minimum of SiLU: e₁ ≈ 0, so that shifts e₀/e₁ are large and cancel."""
    bias = -1.278464542761074 + scale * randn(8, seed=3) / 10
    value_bias = 1 + randn(8, seed=4)
    return GLUWeights(*PARTS[:1], scale * PARTS[1], randn(8, 5, seed=2), "silu", bias, value_bias)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("scale", [1e-1, 1e-2, 1e-4])
def test_storage_in_bfloat16_costs_no_more_than_its_rounding(scale: float, linear: bool) -> None:
    layer, x = at_the_turning_point(scale), randn(2000, 5, seed=9)
    found, y = fit_neurons(layer, x, linear=linear), layer(x)
    lost = [
        float((in_dtype(in_dtype(one, torch.bfloat16), torch.float64)(x) - one(x)).norm())
        for one in (layer, found)
    ]
    assert lost[1] < 5 * lost[0]
    assert r_squared_on(y, found(x)).overall > 0.99
    assert (found.linear is None) is not linear
    normal = gaussian_neurons(layer, None, None, linear=linear)
    assert (normal.linear is None) is not linear
    assert r_squared_on(y, normal(x)).overall > r_squared_on(y, found(x)).overall - 0.003


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([*LAYERS]), st.floats(-4, 4), st.floats(-4, 4), st.floats(-3, 3), st.booleans()
)
def test_units_of_inputs_and_outputs_do_not_matter(
    name: str, size: float, height: float, offset: float, linear: bool
) -> None:
    """A neuron's fit on inputs in other units is the same function, in other units."""
    layer, unit, out = LAYERS[name], 10.0**size, 10.0**height
    first, second = dataclasses.fields(layer)[1].name, dataclasses.fields(layer)[2].name
    scaled = {first: getattr(layer, first) / unit, "down": out * layer.down}
    if isinstance(layer, GLUWeights):
        scaled[second] = layer.value / unit
    other = dataclasses.replace(layer, linear=None, constant=None, **scaled)
    plain = dataclasses.replace(layer, linear=None, constant=None)
    x = X + offset
    expected = fit_neurons(plain, x, linear=linear)(x)
    found = fit_neurons(other, unit * x, linear=linear)(unit * x) / out
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_neurons_that_stand_still_and_inputs_that_are_constant() -> None:
    closed = dataclasses.replace(LAYERS["relu"], up_bias=torch.full((8,), -1e3).double())
    torch.testing.assert_close(fit_neurons(closed, X)(X), closed(X), atol=1e-9, rtol=1e-9)
    still = X[:1].expand(40, 5)
    for layer in LAYERS.values():
        found = fit_neurons(layer, still)
        torch.testing.assert_close(found(still), layer(still), atol=1e-9, rtol=1e-9)
        again = refit_down(found, still, layer(still))
        torch.testing.assert_close(again(still), layer(still), atol=1e-9, rtol=1e-9)


def test_down_is_least_squares_where_the_ridge_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_fit, "RIDGES", (1e-13,))
    layer, weights = LAYERS["swiglu"], randn(900, seed=31).abs()
    fit, y = fit_neurons(layer, X), layer(X)
    features = torch.cat([fit.hidden(X), X, torch.ones(900, 1).double()], dim=1)
    found = refit_down(fit, X, y, weights=weights)
    expected = least_squares(features, y, weights)
    torch.testing.assert_close(found(X), expected, rtol=1e-6, atol=1e-6)
    without = refit_down(dataclasses.replace(fit, linear=None), X, y)
    assert without.linear is None


def test_the_ridge_is_chosen_on_rows_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty rows for 39 unknowns of noise: without a ridge the fit is useless elsewhere."""
    wide = GLUWeights(randn(1, 38) / 38, randn(38, 5, seed=1), randn(38, 5, seed=2), "identity")
    x, new = randn(40, 5, seed=3), randn(500, 5, seed=4)
    y = wide(x) + randn(40, 1, seed=5)
    chosen = r_squared_on(wide(new), refit_down(wide, x, y)(new)).overall
    monkeypatch.setattr(data_fit, "RIDGES", (1e-9,))
    least = r_squared_on(wide(new), refit_down(wide, x, y)(new)).overall
    assert least < 0.2 < 0.5 < chosen


def test_the_ceiling_is_least_squares_over_all_quadratics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_fit, "RIDGES", (1e-13,))
    y = torch.tanh(X[:, :2] @ randn(2, 2)) + X[:, 2:4] * X[:, 1:3]
    first, second = torch.triu_indices(5, 5)
    features = torch.cat([X[:, first] * X[:, second], X, torch.ones(900, 1).double()], dim=1)
    found = quadratic_ceiling(X, y)
    expected = least_squares(features, y, torch.ones(900).double())
    torch.testing.assert_close(found(X), expected, rtol=1e-6, atol=1e-6)


def test_weights_of_rows() -> None:
    y = torch.tensor([[3.0, 4.0], [0.0, 0.0], [60.0, 80.0]])
    assert row_weights(y).tolist() == pytest.approx([1 / 10, 1 / 5, 1 / 105])


FIT = fit_neurons(LAYERS["gelu"], X)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "few rows": (lambda: fit_neurons(LAYERS["relu"], X[:9]), UsageError, "9 rows.*10 or more"),
    "no rows": (lambda: fit_neurons(LAYERS["relu"], []), UsageError, "0 rows"),
    "width": (lambda: fit_neurons(LAYERS["relu"], X[:, :4]), ShapeError, r"expected \(rows, 5\)"),
    "NaN": (lambda: fit_neurons(LAYERS["relu"], X * torch.nan), NonFiniteError, "inputs holds"),
    "weights": (lambda: fit_neurons(LAYERS["relu"], X, weights=X[:3, 0]), ShapeError, "weights"),
    "rows of y": (lambda: refit_down(FIT, X, X[:, :2]), ShapeError, r"expected \(900, 3\)"),
    "NaN in y": (lambda: refit_down(FIT, X, X[:, :3] * torch.nan), NonFiniteError, "y holds"),
    "few": (lambda: refit_down(FIT, X[:8], X[:8, :3]), UsageError, "8 rows.*9 unknowns take"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()


def test_what_a_refit_needs() -> None:
    assert rows_to_refit(FIT) == 9
    assert rows_to_refit(dataclasses.replace(FIT, linear=PATH["linear"])) == 14
