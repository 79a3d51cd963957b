"""Plain weights: the function that they are, and parts that do not fit."""

from typing import Any

import pytest
import torch

from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights, in_float64
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn

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


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
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


@pytest.mark.parametrize("name", BAD)
def test_parts_that_do_not_fit_are_refused(name: str) -> None:
    change, error, words = BAD[name]
    parts: dict[str, Any] = {"down": DOWN, "up": FIRST, "activation": "relu", **change}
    with pytest.raises(error, match=words):
        MLPWeights(**parts)


def test_the_second_branch_of_a_gated_layer_has_to_fit() -> None:
    with pytest.raises(ShapeError, match=r"value has shape \(4, 4\); expected \(4, 5\)"):
        GLUWeights(DOWN, FIRST, SECOND[:, :4], "silu")
    with pytest.raises(ShapeError, match="value_bias has shape"):
        GLUWeights(DOWN, FIRST, SECOND, "silu", value_bias=BIAS[:2])
