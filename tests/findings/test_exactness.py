"""The reading against the model's own forward pass: rounding apart, there is no difference."""

import copy
from dataclasses import replace

import pytest
import torch

import oracles
import tiny
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.subject import TOLERANCES, check_exactness, read_densely
from bilens.nn import BilinearClassifier
from builders import randn, random_map

OPTIONS = [
    {"bias": bias, "residual": residual} for bias in (False, True) for residual in (False, True)
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_reading_is_exact(options: dict[str, bool], dtype: torch.dtype) -> None:
    """A thousand inputs, 1e-5 in float32 and 1e-12 in float64, whatever the model's own dtype."""
    single, double = check_exactness(tiny.classifier(dtype=dtype, **options), seed=0)
    assert (single.precision, double.precision) == ("float32", "float64")
    assert (single.tolerance, double.tolerance) == (1e-5, 1e-12)
    assert single.num_inputs == double.num_inputs == 1000
    assert 0 < single.relative_error < 1e-5
    assert double.relative_error < 1e-12
    assert single.passed
    assert double.passed


def test_the_errors_are_those_of_the_forward_pass() -> None:
    """In float64 both are tiny; the relative one is the absolute one over the largest logit."""
    model = tiny.classifier(bias=True, residual=True)
    single, _ = check_exactness(model, seed=3)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1000, tiny.PIXELS, generator=generator, dtype=torch.float64)
    largest = float(model(x).detach().abs().max())
    assert single.largest_error / single.relative_error == pytest.approx(largest, rel=1e-4)


def damaged(how: str) -> QuadraticMap:
    f = tiny.classifier(bias=True, residual=True).quadratic_map().detach()
    if how == "no linear term":
        return replace(f, linear=None)
    if how == "no constant":
        return replace(f, constant=None)
    return QuadraticMap(replace(f.tensor, left=f.tensor.left * 1.0001), f.linear, f.constant)


@pytest.mark.parametrize("how", ["no linear term", "no constant", "one part in 10,000"])
def test_a_wrong_map_fails(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f = damaged(how)

    def wrong_map(self: BilinearClassifier) -> QuadraticMap:
        return f.to(self.embed.weight.dtype)

    monkeypatch.setattr(BilinearClassifier, "quadratic_map", wrong_map)
    findings = check_exactness(tiny.classifier(bias=True, residual=True), seed=0)
    assert [finding.passed for finding in findings] == [False, False]


def test_a_model_of_zeros_is_read_exactly() -> None:
    """The largest logit is 0, by which nothing can be divided."""
    model = tiny.planted([([0.0] * 4, [0.0] * 4, [0.0] * 3)], d_input=4)
    for finding in check_exactness(model, seed=0):
        assert (finding.largest_error, finding.relative_error) == (0.0, 0.0)
        assert finding.passed


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_is(training: bool) -> None:
    model = tiny.classifier(dtype=torch.float32, bias=True).train(training)
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    check_exactness(model, seed=0)
    assert tiny.same_weights(model, before)
    assert model.training == training
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_reading_densely_is_the_map_written_out() -> None:
    f, x = random_map(), randn(6, 5, seed=9)
    tensor = f.tensor
    expected = oracles.evaluate_map(tensor.down, tensor.left, tensor.right, f.linear, f.constant, x)
    torch.testing.assert_close(read_densely(f, x), expected, rtol=1e-13, atol=1e-13)


def test_the_tolerances_are_those_that_are_promised() -> None:
    assert TOLERANCES == {"float32": 1e-5, "float64": 1e-12}
