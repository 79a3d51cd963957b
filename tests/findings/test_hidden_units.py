"""Units that do nothing, and pairs that compute the same, beside the functions by hand."""

import pytest
import torch

from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights
from bilens.findings.hidden_units import null_overlap, read_units
from builders import randn

D_IN, HIDDEN, D_OUT = 6, 9, 4


def gated(activation: str = "identity", **parts: torch.Tensor) -> GLUWeights:
    weights = {
        "down": randn(D_OUT, HIDDEN, seed=0),
        "gate": randn(HIDDEN, D_IN, seed=1),
        "value": randn(HIDDEN, D_IN, seed=2),
        "gate_bias": randn(HIDDEN, seed=3),
        "value_bias": randn(HIDDEN, seed=4),
    }
    return GLUWeights(**{**weights, **parts}, activation=activation)  # type: ignore[arg-type]


def plain(activation: str, **parts: torch.Tensor) -> MLPWeights:
    weights = {
        "down": randn(D_OUT, HIDDEN, seed=0),
        "up": randn(HIDDEN, D_IN, seed=1),
        "up_bias": randn(HIDDEN, seed=2),
    }
    return MLPWeights(**{**weights, **parts}, activation=activation)  # type: ignore[arg-type]


def pair(activation: str, factor: float, shift: float = 0.0) -> MLPWeights:
    """Unit 3 is φ(factor · t), t that of unit 2, with its bias moved."""
    layer = plain(activation)
    up, bias = layer.up.clone(), layer.up_bias.clone()  # type: ignore[union-attr]
    up[3], bias[3] = factor * up[2], factor * bias[2] + shift
    return plain(activation, up=up, up_bias=bias)


@pytest.mark.parametrize(
    ("activation", "factor", "doubles"),
    [
        ("relu", 3.0, 1),  # relu(3t) is 3 relu(t)
        ("relu", -1.0, 0),  # relu(−t) is another function
        ("squared_relu", 2.0, 1),
        ("leaky_relu", -1.0, 0),
        ("identity", -2.0, 1),
        ("tanh", -1.0, 1),  # tanh(−t) is −tanh(t)
        ("tanh", 2.0, 0),
        ("gelu", 1.0, 1),
        ("gelu", 2.0, 0),
        ("gelu", -1.0, 0),
        ("sigmoid", -1.0, 0),  # 1 − σ(t)
    ],
)
def test_units_are_doubles_where_one_is_a_multiple_of_the_other(
    activation: str, factor: float, doubles: int
) -> None:
    layer = pair(activation, factor)
    x = randn(200, D_IN, seed=9)
    hidden = layer.hidden(x)[:, [2, 3]]
    assert int(torch.linalg.matrix_rank(hidden, rtol=1e-9)) == 2 - doubles  # by hand
    assert read_units(layer).duplicates == doubles
    assert read_units(pair(activation, factor, shift=0.5)).duplicates == 0  # another function


def test_a_large_bias_is_no_direction_and_a_small_one_counts() -> None:
    """Broken once: rows were compared with the bias as one more of many weights."""
    far = plain("relu", up_bias=torch.full((HIDDEN,), 400.0, dtype=torch.float64))
    assert read_units(far).duplicates == 0
    assert read_units(far).largest_overlap < 0.95
    wide, bias = randn(1, 400, seed=5).expand(2, 400), torch.tensor([1.0, -1.0]).double()
    assert read_units(MLPWeights(randn(2, 2), wide, "relu", bias)).duplicates == 0


def test_branches_may_be_exchanged_and_share_a_scale_where_they_are_multiplied() -> None:
    layer = gated()
    parts = {name: part.clone() for name, part in vars(layer).items() if torch.is_tensor(part)}
    for one, other, factor in (("gate", "value", -2.0), ("value", "gate", 3.0)):
        parts[one][3] = factor * parts[other][2]
        parts[f"{one}_bias"][3] = factor * parts[f"{other}_bias"][2]
    assert read_units(gated(**parts)).duplicates == 1
    assert read_units(gated("silu", **parts)).duplicates == 0
    parts["gate_bias"][3] += 0.1
    assert read_units(gated(**parts)).duplicates == 0
    assert read_units(layer).duplicates == 0


def test_what_adds_nothing_is_dead_and_an_open_gate_is_not() -> None:
    layer = gated()
    down, gate, bias = layer.down.clone(), layer.gate.clone(), layer.gate_bias.clone()  # type: ignore[union-attr]
    down[:, 0] = 0
    gate[1], bias[1] = 0, 0
    parts = {"down": down, "gate": gate, "gate_bias": bias}
    assert read_units(gated(**parts)).dead == 2
    assert read_units(gated("silu", **parts)).dead == 2
    assert read_units(gated("sigmoid", **parts)).dead == 1  # half of the other branch passes
    assert read_units(layer).dead == 0


def test_units_of_inputs_do_not_make_a_unit_dead() -> None:
    """An input of millions has weights of millionths, and may have a unit of its own."""
    up = randn(HIDDEN, D_IN, seed=1)
    up[0, 1:] = 0
    layer = plain("relu", up=up, up_bias=torch.zeros(HIDDEN).double())
    assert read_units(layer).dead == 0
    other = torch.tensor([1e-9, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert read_units(plain("relu", up=up * other, up_bias=layer.up_bias)).dead == 0


def test_a_relu_is_never_active_where_no_input_opens_it() -> None:
    up = torch.eye(4, dtype=torch.float64)
    bias = torch.tensor([0.0, -4.0, -600.0, 6.0], dtype=torch.float64)
    assert read_units(MLPWeights(randn(2, 4), up, "relu", bias)).never_active == 0
    up[2] = 0
    found = read_units(MLPWeights(randn(2, 4), up, "relu", bias))
    assert (found.never_active, found.dead) == (1, 0)
    assert read_units(MLPWeights(randn(2, 4), up, "gelu", bias / 100)).never_active == 0


def test_units_without_any_weight_are_padding_and_not_dead() -> None:
    layer = plain("relu")
    parts = {name: part.clone() for name, part in vars(layer).items() if torch.is_tensor(part)}
    parts["down"][:, 5:] = parts["up"][5:] = parts["up_bias"][5:] = 0
    found = read_units(plain("relu", **parts))
    assert (found.empty, found.dead, found.never_active, found.duplicates) == (4, 0, 0, 0)
    parts["down"][:, 5:] = 1.0  # with a weight somewhere it is one that died
    assert (read_units(plain("relu", **parts)).empty, read_units(plain("relu", **parts)).dead) == (
        *(0, 4),
    )


@pytest.mark.parametrize("branches", [1, 2])
def test_the_null_overlap_is_about_the_largest_one_of_random_rows(branches: int) -> None:
    largest = []
    for seed in range(20):
        rows = [randn(60, 12, seed=7 * seed + b) for b in range(branches)]
        units = [row / row.norm(dim=1, keepdim=True) for row in rows]
        overlap = torch.stack([(row @ row.T).abs() for row in units]).amin(dim=0)
        largest.append(float(overlap.triu(1).max()))
    null = null_overlap(60, 12, branches)
    assert 0.85 < null / (sum(largest) / len(largest)) < 1.1
