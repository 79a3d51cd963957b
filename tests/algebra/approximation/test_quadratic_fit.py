"""Fits of layers: R² with its standard error, refitted weights, the record and its refusals."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights, in_float64
from bilens.algebra.approximation.quadratic_fit import (
    QuadraticFit,
    fit_layers,
    refit,
)
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from builders import randn, random_map, seeded

LAYER = MLPWeights(randn(3, 8), randn(8, 5, seed=1) / 2, "gelu", randn(8, seed=2))


def fit(layer: MLPWeights | GLUWeights = LAYER, **options: object) -> QuadraticFit:
    """The fit of one layer."""
    return fit_layers([layer], layer, **options)


def test_r_squared_by_degree_rises() -> None:
    found = fit()
    assert 0 < found.r_squared.linear.overall < found.r_squared.quadratic.overall < 1
    assert found.r_squared.rows == 10_000
    assert found.assumed_input == "a standard normal input"
    assert found.on_data is None
    assert found.least_squares is None
    assert found.usable
    found.check_usable()


def test_r_squared_is_that_of_other_samples() -> None:
    found, again = fit(), fit(generator=seeded(5))
    one, two = found.r_squared.quadratic, again.r_squared.quadratic
    assert one.overall != two.overall
    assert abs(one.overall - two.overall) < 4 * (one.standard_error + two.standard_error)
    assert fit().r_squared.quadratic.overall == one.overall


def test_a_bilinear_layer_is_exact() -> None:
    layer = GLUWeights(randn(3, 8), randn(8, 5, seed=1), randn(8, 5, seed=2), "identity")
    found = fit(layer)
    assert found.exact
    assert found.derivation == "exact"
    assert found.r_squared.quadratic.overall == pytest.approx(1, abs=1e-15)


def test_a_map_that_explains_too_little_is_refused() -> None:
    layer = MLPWeights(randn(3, 8), 8 * randn(8, 5, seed=1), "tanh")
    found = fit(layer)
    assert not found.usable
    with pytest.raises(NumericalError, match=r"explains too little.*R² = 0\.\d+ ± 0\.\d+ under a"):
        found.check_usable()
    assert fit(layer, threshold=0.1).usable


def test_data_are_looked_at_apart() -> None:
    data = 4 * randn(2000, 5, seed=3).abs()
    found = fit(data=data.float())
    assert found.on_data.rows == 2000
    assert "of 2,000 rows of data" in found.assumed_input
    assert found.least_squares.held_out.overall >= found.least_squares.closed_form_held_out.overall


def test_a_map_that_fails_on_the_data_is_refused() -> None:
    layer = MLPWeights(randn(3, 8), randn(8, 5, seed=1) / 4, "tanh", randn(8, seed=2))
    far = 10 * randn(500, 5, seed=3)
    found = fit(layer, mean=torch.zeros(5), data=far)
    assert found.r_squared.quadratic.overall > 0.9
    assert not found.usable
    with pytest.raises(NumericalError, match="on the data"):
        found.check_usable()


BAD = {
    "data of another width": ({"data": randn(9, 4)}, ShapeError, r"data have shape \(9, 4\)"),
    "one row": ({"data": randn(1, 5)}, UsageError, r"1 row\(s\)"),
    "data with NaN": ({"data": randn(9, 5) * torch.nan}, NonFiniteError, "data holds"),
    "a seed": ({"generator": 3}, UsageError, "generator is a int; expected Generator"),
    "few samples": ({"samples": 10}, UsageError, "samples must be"),
    "threshold": ({"threshold": 1.5}, UsageError, "threshold must be between 0 and 1"),
    "mean": ({"mean": randn(4)}, ShapeError, "mean has shape"),
    "covariance": ({"covariance": -torch.eye(5)}, UsageError, "eigenvalue"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        fit(**options)


def test_r_squared_is_the_formula() -> None:
    y, predicted = randn(200, 3) * torch.tensor([1.0, 5.0, 0.1]), randn(200, 3, seed=1) / 3
    found = r_squared_on(y, predicted)
    centred = y - y.mean(dim=0)
    each = 1 - (y - predicted).square().sum(dim=0) / centred.square().sum(dim=0)
    torch.testing.assert_close(found.outputs, each)
    whole = 1 - float((y - predicted).square().sum() / centred.square().sum())
    assert found.overall == pytest.approx(whole)


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    found = []
    for seed in range(300):
        x = randn(400, 1, seed=seed)
        found.append(r_squared_on(torch.tanh(x), 0.7 * x))
    values = torch.tensor([score.overall for score in found])
    errors = torch.tensor([score.standard_error for score in found])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)
    assert [float(score.outputs[0]) for score in found] == pytest.approx(values.tolist())


def test_an_error_in_proportion_to_the_spread_has_no_standard_error() -> None:
    """Residuals and deviations then rise and fall together, and their ratio does not move."""
    y = randn(400, 1)
    y = y - y.mean(dim=0)
    found = r_squared_on(y, y / 2)
    assert found.overall == pytest.approx(0.75)
    assert found.standard_error < 1e-12


def test_a_constant_output_is_met_or_missed() -> None:
    y = torch.ones(50, 2, dtype=torch.float64) * torch.tensor([2.0, 0.0])
    met = r_squared_on(y, y + torch.tensor([1e-14, 0.0]))
    assert met.outputs.tolist() == [1.0, 1.0]
    assert met.overall == 1.0
    missed = r_squared_on(y, y + 1)
    assert missed.outputs.tolist() == [-math.inf, -math.inf]
    assert missed.standard_error == 0


def test_the_best_constant_explains_nothing() -> None:
    y = randn(100, 2)
    assert r_squared_on(y, y.mean(dim=0).expand_as(y)).overall == pytest.approx(0, abs=1e-12)


F = random_map(seed=1, d_out=2, d_hidden=4, d_in=5)


def test_a_map_with_the_same_neurons_is_found_exactly() -> None:
    truth = replace(
        F, tensor=BilinearTensor(randn(2, 4, seed=9), F.tensor.left, F.tensor.right)
    ).plus_affine(randn(2, 5, seed=10), randn(2, seed=11))
    x = 3 + randn(300, 5, seed=2)
    found = refit(F, x, truth(x), seeded())
    assert found.held_out.overall == pytest.approx(1, abs=1e-9)
    assert found.closed_form_held_out.overall < 0.9
    assert found.rows == (240, 60)
    new = randn(50, 5, seed=3)
    torch.testing.assert_close(found.quadratic_map(new), truth(new), atol=1e-4, rtol=1e-4)


def test_inputs_that_never_vary_leave_the_map_as_it_was() -> None:
    x = randn(400, 5, seed=2)
    x[:, 3] = 0.5
    found = refit(F, x, F(x) + x[:, :1], seeded())
    assert found.held_out.overall == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(found.quadratic_map.linear[:, 3], F.linear[:, 3])


def test_too_few_rows_give_none() -> None:
    x = randn(11, 5)
    assert refit(F, x, F(x), seeded()) is None
    x = randn(12, 5)
    assert refit(F, x, F(x), seeded()) is not None


X = randn(2, 7, 5, seed=9)
DOWN, FIRST, SECOND = randn(3, 4), randn(4, 5, seed=1), randn(4, 5, seed=2)
BIAS, OTHER, PATH, END = randn(4, seed=3), randn(4, seed=4), randn(3, 5, seed=5), randn(3, seed=6)


def test_the_formulas() -> None:
    mlp = MLPWeights(DOWN, FIRST, "tanh", BIAS, PATH, END)
    expected = torch.tanh(X @ FIRST.T + BIAS) @ DOWN.T + X @ PATH.T + END
    torch.testing.assert_close(mlp(X), expected)
    glu = GLUWeights(DOWN, FIRST, SECOND, "tanh", BIAS, OTHER, PATH, END)
    hidden = torch.tanh(X @ FIRST.T + BIAS) * (X @ SECOND.T + OTHER)
    torch.testing.assert_close(glu(X), hidden @ DOWN.T + X @ PATH.T + END)
    bare = GLUWeights(DOWN, FIRST, SECOND, "identity")
    torch.testing.assert_close(bare(X), ((X @ FIRST.T) * (X @ SECOND.T)) @ DOWN.T)
    assert mlp.d_in == glu.d_in == 5


def test_a_layer_in_float64_is_cut_from_gradients() -> None:
    wide = in_float64(MLPWeights(DOWN.float().requires_grad_(), FIRST.float(), "relu"))
    assert wide.down.dtype == torch.float64
    assert not wide.down.requires_grad


MISFITS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "up": ({"up": FIRST[:3]}, ShapeError, r"up has shape \(3, 5\); expected \(4, 5\)"),
    "down": ({"down": DOWN[0]}, ShapeError, "2 axes"),
    "empty": ({"down": DOWN[:0]}, ShapeError, "every axis needs an entry"),
    "bias": ({"up_bias": BIAS[:2]}, ShapeError, "up_bias has shape"),
    "path": ({"linear": PATH.T}, ShapeError, "linear has shape"),
    "constant": ({"constant": END[:1]}, ShapeError, "constant has shape"),
    "dtype": ({"up": FIRST.float()}, ShapeError, "torch.float32"),
    "NaN": ({"up": FIRST * torch.nan}, NonFiniteError, "up holds 20"),
    "activation": ({"activation": "swish"}, UsageError, "'swish' is not known"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_are_refused(name: str) -> None:
    change, error, words = MISFITS[name]
    parts: dict[str, Any] = {"down": DOWN, "up": FIRST, "activation": "relu", **change}
    with pytest.raises(error, match=words):
        MLPWeights(**parts)


def test_the_second_branch_of_a_gated_layer_has_to_fit() -> None:
    with pytest.raises(ShapeError, match=r"value has shape \(4, 4\); expected \(4, 5\)"):
        GLUWeights(DOWN, FIRST, SECOND[:, :4], "silu")
    with pytest.raises(ShapeError, match="value_bias has shape"):
        GLUWeights(DOWN, FIRST, SECOND, "silu", value_bias=BIAS[:2])
