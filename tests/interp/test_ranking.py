"""Planted products come first, squares last."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError
from bilens.interp.layer_trace import interaction_share, rank_latents, trace_layer
from builders import randn

EYE = torch.eye(6).double()


def planted() -> QuadraticMap:
    """Output 0 is x₀², output 1 is x₁ x₂, output 2 is random."""
    left = torch.cat([EYE[:2], randn(4, 6, seed=1)])
    right = torch.cat([EYE[[0, 2]], randn(4, 6, seed=2)])
    down = torch.zeros(3, 6).double()
    down[0, 0], down[1, 1], down[2, 2:] = 1.0, 1.0, randn(4, seed=3)
    return QuadraticMap(BilinearTensor(down, left, right))


def bits(num: int, width: int) -> Tensor:
    return torch.randint(0, 2, (num, width), generator=torch.Generator().manual_seed(0)) * 2.0 - 1


def test_a_product_is_first_and_a_square_last() -> None:
    found = rank_latents(trace_layer(planted(), EYE, k=6))
    assert found.order.tolist() == [1, 2, 0]
    assert found.score.tolist()[:2] == pytest.approx([0, 1])
    assert not found.data


def test_with_data_a_product_of_independent_signs_is_all_interaction() -> None:
    x = bits(2000, 6).double()
    found = rank_latents(trace_layer(planted(), EYE, k=6), x)
    assert found.data
    assert float(found.interaction_share[1]) > 0.98
    x[:, 2] = x[:, 1]  # now the product is a square of one
    tied = rank_latents(trace_layer(planted(), EYE, k=6), x)
    assert float(tied.interaction_share[1]) < 0.02


def test_an_interaction_is_what_no_sum_of_functions_explains() -> None:
    first, second = randn(4000, seed=1), randn(4000, seed=2)
    assert float(interaction_share(first, second)) > 0.7  # the rest is within the bins
    assert float(interaction_share(first, first)) < 0.05
    assert float(interaction_share(first, torch.ones(4000).double())) == pytest.approx(0, abs=1e-9)
    assert float(interaction_share(first * 0, second)) == 0


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(ShapeError, match="inputs have 5 entries"):
        rank_latents(trace_layer(planted(), EYE, k=6), randn(10, 5))
