"""A module made from a map computes that map.

Broken once: the constant written into the right branch.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError
from bilens.nn import BilinearClassifier
from bilens.nn.exact_classifier import classifier_of_map, in_standard_units


def some_map(same: bool, affine: bool) -> QuadraticMap:
    generator = torch.Generator().manual_seed(0)

    def factor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    left = factor(4, 3)
    tensor = BilinearTensor(factor(2, 4), left, left.clone() if same else factor(4, 3))
    return QuadraticMap(tensor, factor(2, 3), factor(2)) if affine else QuadraticMap(tensor)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_the_module_is_the_map_of_standardised_inputs(same: bool, affine: bool) -> None:
    f = some_map(same, affine)
    mean, scale = torch.tensor([[2000.0, 0.0, -3.0], [5.0, 1.0, 0.1]]).double()
    x = mean + scale * torch.randn(7, 3, dtype=torch.float64)
    expected = f((x - mean) / scale)
    torch.testing.assert_close(classifier_of_map(f, mean, scale)(x), expected)
    torch.testing.assert_close(classifier_of_map(f)(x), f(x))
    torch.testing.assert_close(classifier_of_map(f, mean, scale).quadratic_map()(x), expected)


def test_a_mean_of_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match="mean has 2 entries; the map reads 3"):
        classifier_of_map(some_map(True, True), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["exact", "bias", "plain", "residual"])
def test_a_classifier_in_standard_units_is_the_same_function(kind: str) -> None:
    torch.manual_seed(0)
    mean, scale = torch.tensor([[2000.0, 0.0, -3.0], [5.0, 1.0, 0.1]]).double()
    module = (
        classifier_of_map(some_map(True, True), mean, scale)
        if kind == "exact"
        else BilinearClassifier(3, 4, 2, bias=kind != "plain", residual=kind == "residual")
    )
    before = module.double().embed.weight.clone()
    z = torch.randn(7, 3, dtype=torch.float64)
    twin = in_standard_units(module, mean, scale)
    torch.testing.assert_close(twin(z), module(mean + scale * z), rtol=1e-9, atol=1e-9)
    assert torch.equal(module.embed.weight, before)
