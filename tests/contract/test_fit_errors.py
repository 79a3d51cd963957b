"""Guards against an R² whose error does not reach the truth, and fits that hang on notation."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

import bilens as bl
from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.algebra.approximation.quadratic_fit import QuadraticFit, fit_layers
from bilens.algebra.approximation.r_squared import r_squared_on
from contract.drawn import drawn
from contract.table import cell

SEEDS = st.integers(0, 10**6)
WIDTH = 3


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(seed: int) -> list[GLUWeights]:
    """Two bilinear layers, with biases, constants and a linear path: a quartic, of heavy tails."""
    return [
        GLUWeights(
            *(randn(*shape, seed=seed + index + at) for index, shape in enumerate(shapes)),
            activation="identity",
            gate_bias=randn(4, seed=seed + 10 + at),
            value_bias=randn(4, seed=seed + 11 + at),
            linear=randn(shapes[0][0], WIDTH, seed=seed + 12 + at),
            constant=randn(shapes[0][0], seed=seed + 13 + at),
        )
        for at, shapes in (
            (0, ((WIDTH, 4), (4, WIDTH), (4, WIDTH))),
            (50, ((2, 4), (4, 3), (4, 3))),
        )
    ]


def run(layers: list[GLUWeights]) -> Callable[[Tensor], Tensor]:
    """The layers by hand."""

    def answer(x: Tensor) -> Tensor:
        for one in layers:
            u, v = x @ one.gate.T + one.gate_bias, x @ one.value.T + one.value_bias
            x = (u * v) @ one.down.T + x @ one.linear.T + one.constant
        return x

    return answer


def quadrature(mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate polynomials of degree 8 under N(mean, root rootᵀ)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    points = torch.tensor(list(itertools.product(nodes, repeat=WIDTH)), dtype=torch.float64)
    mass = torch.tensor([math.prod(one) for one in itertools.product(weights, repeat=WIDTH)])
    return points @ root.T + mean, mass.double()


def true_r_squared(fit: QuadraticFit, layers: list[GLUWeights], x: Tensor, w: Tensor) -> Tensor:
    y = run(layers)(x)
    missed = w @ (y - fit.quadratic_map(x)).square()
    total = w @ (y - w @ y).square()
    return 1 - torch.cat([missed.sum()[None] / total.sum(), missed / total])


@cell("fit", "own object", "other function")
def test_two_standard_errors_of_two_bilinear_layers_reach_the_truth() -> None:
    x, w = quadrature(torch.zeros(WIDTH), torch.eye(WIDTH).double())
    reached = 0
    for seed in range(60):
        layers = pair(100 * seed)
        fit = fit_layers(layers, run(layers), seed=seed, samples=1000)
        truth = true_r_squared(fit, layers, x, w)
        found = fit.r_squared.quadratic
        reached += abs(float(truth[0]) - found.overall) <= 2 * found.standard_error + 1e-12
        torch.testing.assert_close(found.outputs, truth[1:], rtol=0, atol=1e-10)
    assert reached == 60  # in closed form


@cell("fit", "own object")
def test_r_squared_is_that_of_the_model_that_runs_where_it_is_not_its_layers() -> None:
    layers = pair(7)
    fit = fit_layers(layers, lambda x: run(layers)(x) + 50 * x[:, :1].sin(), samples=1000)
    assert fit.r_squared.quadratic.standard_error > 0


@cell("fit", "other units", "other function")
@drawn
@given(SEEDS)
def test_under_any_normal_input_r_squared_of_two_bilinear_layers_is_exact(seed: int) -> None:
    layers, mean, root = (
        pair(seed),
        randn(WIDTH, seed=seed + 80),
        randn(WIDTH, WIDTH, seed=seed + 81),
    )
    fit = fit_layers(layers, run(layers), mean=mean, covariance=root @ root.T, samples=1000)
    truth = true_r_squared(fit, layers, *quadrature(mean, root))
    assert math.isclose(fit.r_squared.quadratic.overall, float(truth[0]), abs_tol=1e-9)
    assert fit.r_squared.quadratic.standard_error == 0


@cell("fit", "other function")
def test_two_standard_errors_reach_the_truth_with_heavy_tails() -> None:
    count, rows, reached = 240, 2000, 0
    laws = [  # an error of mean zero, and the mean of its square
        (lambda e: (e / 2).exp() * e.flip(0).sign(), math.exp(0.5)),
        (lambda e: e.exp() * e.flip(0).sign(), math.exp(2.0)),
        (lambda e: e**3, 15.0),
        (lambda e: e.square() - 1, 2.0),
    ]
    for seed in range(count):
        law, lost = laws[seed % len(laws)]
        predicted, error = randn(rows, 1, seed=2 * seed), law(randn(rows, 1, seed=2 * seed + 1))
        found = r_squared_on(predicted + error, predicted)
        truth = 1 / (1 + lost)
        reached += abs(found.overall - truth) <= 2 * found.standard_error
    # 95.4 % less twice the binomial error of 240 cases
    assert reached >= (0.954 - 2 * math.sqrt(0.954 * 0.046 / count)) * count


@cell("fit", "permuted units", "same function", "scaled branches", "other dtype")
@drawn
@given(SEEDS)
def test_a_fit_does_not_hang_on_how_a_layer_is_written(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    order = torch.randperm(6)
    with torch.no_grad():
        other = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
        other[0].weight.copy_(2 * net[0].weight[order])
        other[0].bias.copy_(2 * net[0].bias[order])
        other[2].weight.copy_(net[2].weight[:, order] / 2)
        other[2].bias.copy_(net[2].bias)
    x = randn(5, 3, seed=seed)
    fits = [bl.quadratic_fit(one, samples=500) for one in (net, other)]
    torch.testing.assert_close(*(one.quadratic_map(x) for one in fits))
    scores = [one.r_squared.quadratic for one in fits]
    assert math.isclose(scores[0].overall, scores[1].overall, abs_tol=1e-9)
    narrow = bl.quadratic_fit(net.float(), samples=500).r_squared.quadratic
    assert math.isclose(narrow.overall, scores[0].overall, abs_tol=1e-4)


@pytest.mark.parametrize("heavy", [True, False])
def test_an_audit_does_not_vouch_where_one_row_carries_much(heavy: bool) -> None:
    """Told 0.95 on rows of Student's t with 2.5 degrees, and −9 on fresh ones."""
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.SiLU(), torch.nn.Linear(24, 3))
    model = model.double().eval()
    x = torch.randn(2000, 6).double()
    x = torch.distributions.StudentT(2.5).sample((2000, 6)).double() if heavy else x
    report = bl.audit(model, data=(x, model(x).argmax(-1)))
    fit = report.record.layers.readings[0].fit
    assert fit.seen
    assert fit.usable
    for lang, said in (
        ("en", "R² is uncertain by a tenth or more"),
        ("ja", "R²に0.1以上の不確かさ"),
    ):
        assert (said in report.to_html(lang=lang)) == heavy
    (found,) = [one for one in report.record.verdict if one.rule == "r2"]
    assert found.outcome == ("info" if heavy else "pass")


@pytest.mark.parametrize("rows", [499, 500])
def test_a_page_says_how_many_rows_a_fit_takes(rows: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 3))
    x = torch.randn(rows, 6).double()
    report = bl.audit(model.double().eval(), data=(x, model(x).argmax(-1)))
    assert report.record.layers.readings[0].fit.seen == (rows >= 500)
    assert ("500 different rows of data" in report.to_markdown(lang="en")) == (rows < 500)
    assert ("500行以上のデータ" in report.to_markdown(lang="ja")) == (rows < 500)
