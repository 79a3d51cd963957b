"""The record: R² measured on the model, a threshold that refuses, data looked at apart."""

import pytest
import torch

from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights
from bilens.algebra.approximation.quadratic_fit import QuadraticFit, fit_layers
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from builders import randn

LAYER = MLPWeights(randn(3, 8), randn(8, 5, seed=1) / 2, "gelu", randn(8, seed=2))


def fit(layer: MLPWeights | GLUWeights = LAYER, **options: object) -> QuadraticFit:
    """The fit of one layer."""
    return fit_layers([layer], layer, **options)  # type: ignore[arg-type]


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
    found, again = fit(), fit(generator=torch.Generator().manual_seed(5))
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
    assert found.on_data is not None
    assert found.on_data.rows == 2000
    assert "of 2,000 rows of data" in found.assumed_input
    assert found.least_squares is not None
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
        fit(**options)  # type: ignore[arg-type]
