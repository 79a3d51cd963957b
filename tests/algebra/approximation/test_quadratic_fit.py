"""Fits of layers: R² with its standard error, refitted weights, the record and its refusals."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from bilens.algebra.approximation.data_fit import fit_neurons
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights, in_float64
from bilens.algebra.approximation.quadratic_fit import QuadraticFit, fit_layers
from bilens.algebra.approximation.r_squared import RSquared, r_squared_on
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from builders import randn, seeded

LAYER = MLPWeights(randn(3, 8), randn(8, 5, seed=1) / 2, "gelu", randn(8, seed=2))


def fit(layer: MLPWeights | GLUWeights = LAYER, **options: object) -> QuadraticFit:
    """The fit of one layer."""
    return fit_layers([layer], layer, **options)


def test_r_squared_by_degree_rises() -> None:
    found = fit()
    assert 0 < found.r_squared.linear.overall < found.r_squared.quadratic.overall < 1
    assert found.r_squared.rows == 10_000
    assert found.assumed_input == "a standard normal input"
    assert [*found.ladder] == [found.chosen] == ["standard normal"]
    assert found.usable
    found.check_usable()


def test_r_squared_is_that_of_other_samples() -> None:
    found, again = fit(), fit(seed=seeded(5))
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
    with pytest.raises(NumericalError, match=r"explains too little.*R² = 0\.\d+ ± 0\.\d+ on a"):
        found.check_usable()
    assert fit(layer, threshold=0.1).usable


DATA = 4 * randn(2000, 5, seed=3).abs()
GATED = GLUWeights(randn(3, 8), randn(8, 5, seed=1) / 2, randn(8, 5, seed=2), "silu")


@pytest.mark.parametrize("layer", [LAYER, GATED])
def test_the_best_fit_to_data_on_rows_held_out_is_handed_out(layer: Layer) -> None:
    found = fit_layers([layer], layer, data=DATA.float(), train_steps=200)
    names = ["standard normal", "normal", "neurons", "refitted", "trained", "ceiling"]
    scores = {name: one.quadratic.overall for name, one in found.ladder.items()}
    assert [*scores] == names
    assert not found.missing
    assert scores["standard normal"] < scores["normal"] < scores["neurons"] < scores["refitted"]
    assert abs(scores["trained"] - scores["ceiling"]) < 0.002
    assert found.chosen == max(names[:-1], key=scores.__getitem__)
    assert found.r_squared is found.ladder[found.chosen]
    assert (found.derivation, found.r_squared.rows) == ("least squares on data", 400)
    assert found.assumed_input == "400 rows of data held out of 2,000"
    held = DATA[torch.randperm(2000, generator=seeded())[:400]].float().double()
    again = r_squared_on(layer(held), found.quadratic_map(held))
    assert again.overall == pytest.approx(found.r_squared.quadratic.overall)


def test_parts_that_take_more_rows_are_missing_with_what_they_take() -> None:
    found = fit(data=DATA[:15])
    assert [*found.ladder] == ["standard normal", "normal", "neurons"]
    assert found.missing == (
        "refitted: 12 rows of inputs: 14 unknowns take as many or more.",
        "ceiling: 12 rows of inputs: 21 unknowns take as many or more.",
    )
    wide = MLPWeights(randn(2, 3), randn(3, 65), "relu")
    assert "ceiling" not in fit(wide, data=randn(40, 65)).ladder


@pytest.mark.parametrize("layer", [LAYER, GATED])
def test_inputs_that_are_constant_and_layers_that_never_answer_are_met(layer: Layer) -> None:
    still = fit_layers([layer], layer, data=DATA[:1].expand(40, 5), train_steps=3)
    assert still.ladder["refitted"].quadratic.overall == 1
    silent = replace(layer, down=torch.zeros(3, 8).double())
    found = fit_layers([silent], silent, data=DATA[:200], train_steps=3)
    assert {one.quadratic.overall for one in found.ladder.values()} == {1.0}
    assert found.chosen == "standard normal"  # the simplest of equal ones
    assert found.usable


def test_a_normal_input_that_is_given_takes_part() -> None:
    found = fit(mean=DATA.mean(dim=0), data=DATA)
    assert [*found.ladder][:2] == ["given normal", "normal"]
    exact = replace(GATED, activation="identity")
    assert [*fit(exact, data=DATA).ladder] == ["standard normal"]


def test_a_few_massive_rows_do_not_decide() -> None:
    """Without weights they alone are fitted: others have an R² below zero."""
    data = torch.cat([randn(2000, 5, seed=3), 1e4 * randn(6, 5, seed=4)])
    found = fit(data=data)
    assert found.ladder["neurons"].quadratic.median > 0.8
    plain = fit_neurons(LAYER, data)
    assert r_squared_on(LAYER(data), plain(data)).median < 0


def test_a_map_that_fails_on_the_data_is_refused() -> None:
    layer = MLPWeights(randn(3, 8), 9 * randn(8, 5, seed=1), "tanh", randn(8, seed=2))
    found = fit(layer, data=randn(500, 5, seed=3))
    assert not found.usable
    with pytest.raises(NumericalError, match="on 100 rows of data held out of 500"):
        found.check_usable()
    massive = replace(found.r_squared.quadratic, overall=0.99, trimmed=0.5)
    ladder = {found.chosen: replace(found.r_squared, quadratic=massive)}
    assert not replace(found, ladder=ladder).usable


BAD = {
    "data of another width": ({"data": randn(9, 4)}, ShapeError, r"data has shape \(9, 4\)"),
    "few rows": ({"data": randn(12, 5)}, UsageError, r"12 row\(s\): fit and R² take 13"),
    "data with NaN": ({"data": randn(9, 5) * torch.nan}, NonFiniteError, "data holds"),
    "a seed": ({"seed": -3}, UsageError, "seed is -3; expected an integer from 0 on"),
    "few samples": ({"samples": 10}, UsageError, "samples must be"),
    "training": ({"train_steps": -1}, UsageError, "train_steps must be"),
    "threshold": ({"threshold": 1.5}, UsageError, "threshold must be between 0 and 1"),
    "mean": ({"mean": randn(4)}, ShapeError, "mean has shape"),
    "covariance": ({"covariance": -torch.eye(5)}, UsageError, "eigenvalue"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        fit(**options)


def test_r_squared_without_the_largest_rows_and_of_the_median_row() -> None:
    y, predicted = randn(2001, 3), randn(2001, 3, seed=1) / 3
    y[:2] *= 1e4
    found, kept = r_squared_on(y, predicted), r_squared_on(y[3:], predicted[3:])
    assert found.trimmed == pytest.approx(kept.overall, abs=0.01)
    assert found.trimmed_error == pytest.approx(kept.standard_error, rel=0.1)
    assert abs(found.trimmed - found.overall) > 0.1
    y, predicted = randn(2000, 3), randn(2000, 3, seed=1)
    y[:20] *= 1e4  # sinks: far more than 0.1 %, met exactly, while nothing else is
    predicted[:20] = y[:20]
    found = r_squared_on(y, predicted)
    assert found.overall > 0.99
    assert found.trimmed < 0


def test_rows_of_zero_are_no_measure_of_the_others() -> None:
    y = randn(2000, 3)
    y[:1200] = 0
    found = r_squared_on(y, y + 0.01 * randn(2000, 3, seed=1))
    assert min(found.overall, found.trimmed) > 0.99
    layer = MLPWeights(randn(3, 8), randn(8, 5, seed=1), "relu", -4 - randn(8, seed=2).abs())
    x = randn(4000, 5, seed=3)
    assert (layer(x) == 0).all(dim=1).float().mean() > 0.5
    ladder = fit(layer, data=x).ladder
    assert ladder["refitted"].quadratic.overall > ladder["standard normal"].quadratic.overall


def test_r_squared_of_the_median_row_is_around_the_mean_of_the_others() -> None:
    y, predicted = randn(2001, 3), randn(2001, 3, seed=1) / 3
    y[:2] *= 1e4
    found = r_squared_on(y, predicted)
    centred = y - y[2:].mean(dim=0)
    each = 1 - (y - predicted).square().sum(dim=1) / centred.square().sum(dim=1)
    assert found.median == pytest.approx(float(each.median()), abs=0.02)
    share = [float((each < end).double().mean()) for end in found.median_interval]
    assert share == pytest.approx([0.5 - 0.98 / 2001**0.5, 0.5 + 0.98 / 2001**0.5], abs=0.005)


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
        x, noise = randn(4000, 2, seed=seed).split(1, dim=1)
        found.append(r_squared_on(x + noise.sign() * noise.abs().clamp(max=1), x))
    values = torch.tensor([score.overall for score in found])
    errors = torch.tensor([score.standard_error for score in found])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)
    assert [float(score.outputs[0]) for score in found] == pytest.approx(values.tolist())


def test_of_a_skewed_error_it_is_more_and_two_of_them_reach_the_truth() -> None:
    many = randn(10**6, 1, seed=-1)
    truth = r_squared_on(torch.tanh(many), 0.7 * many).overall
    found = []
    for seed in range(300):
        x = randn(400, 1, seed=seed)
        found.append(r_squared_on(torch.tanh(x), 0.7 * x))
    values = torch.tensor([score.overall for score in found])
    errors = torch.tensor([score.standard_error for score in found])
    assert float(values.std()) < float(errors.mean()) < 2.5 * float(values.std())
    assert float(((values - truth).abs() <= 2 * errors).double().mean()) > 0.94


def test_of_an_error_that_few_rows_carry_two_of_them_reach_the_truth_where_none_is_there() -> None:
    """As of loud frames of a recording: one row in a hundred is larger, its residual more so."""

    def scored(rows: int, seed: int) -> RSquared:
        y, noise = randn(rows, 1, seed=seed), randn(rows, 1, seed=10_000 + seed)
        rare = randn(rows, 1, seed=20_000 + seed) > 2.326  # 1 %
        y = torch.where(rare, 3 * y, y)
        return r_squared_on(y, y + torch.where(rare, 0.8, 0.1) * noise)

    truth = scored(10**6, -1).overall
    found = [scored(80, seed) for seed in range(300)]
    values = torch.tensor([score.overall for score in found])
    errors = torch.tensor([score.standard_error for score in found])
    met = ((values - truth).abs() <= 2 * errors).double().mean()
    assert float(met) > 0.94  # of the spread of those that are there alone: 0.65
    assert float(errors.median()) < 0.02


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
