"""Surrogates and toy models of the paper's repository are the bilinear MLPs that they describe."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from builders import randn
from io_mapped import poisoned, write

N, R, M = 5, 4, 3


def surrogate() -> dict[str, Tensor]:
    return {"left": randn(N, R), "right": randn(N, R, seed=1), "down": randn(M, R, seed=2)}


def toy(*biases: str) -> dict[str, Tensor]:
    tensors = {f"{part}.weight": randn(R, N, seed=k) for k, part in enumerate(("left", "right"))}
    tensors["head.weight"] = randn(M, R, seed=2)
    sizes = {"left": R, "right": R, "head": M}
    return tensors | {f"{part}.bias": randn(sizes[part], seed=9) for part in biases}


def test_a_surrogate_is_its_tensor(tmp_path: Path) -> None:
    tensors = surrogate()
    model = bl.load(write(tmp_path, tensors))
    dense = torch.einsum("ir,jr,cr->cij", tensors["left"], tensors["right"], tensors["down"])
    dense = (dense + dense.transpose(1, 2)) / 2
    x = randn(9, N)
    expected = torch.einsum("bi,cij,bj->bc", x, dense, x)
    f = model.layers["layer"].quadratic_map
    torch.testing.assert_close(f(x), expected)
    torch.testing.assert_close(f.tensor.dense(), dense)
    assert model.layers["layer"].exact
    assert "surrogate" in model.provenance["format"]


@pytest.mark.parametrize("biases", [(), ("head",), ("left", "right", "head")])
def test_a_toy_model_is_its_formula(biases: tuple[str, ...], tmp_path: Path) -> None:
    tensors = toy(*biases)
    x = randn(9, N)
    left, right = (
        x @ tensors[f"{part}.weight"].T + tensors.get(f"{part}.bias", 0)
        for part in ("left", "right")
    )
    expected = (left * right) @ tensors["head.weight"].T + tensors.get("head.bias", 0)
    model = bl.load(write(tmp_path, tensors))
    torch.testing.assert_close(model.layers["layer"].quadratic_map(x), expected)


BAD: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "another rank": (
        {**surrogate(), "right": randn(N, R + 1)},
        CheckpointError,
        "'right.weight'",
    ),
    "another width": (
        {**toy(), "head.weight": randn(M, R + 1)},
        CheckpointError,
        "'down.weight'",
    ),
    "a vector": ({**surrogate(), "down": randn(M)}, CheckpointError, "expected two axes"),
    "mixed": ({**toy(), "left.weight": randn(R, N).float()}, CheckpointError, "mixes the dtypes"),
    "a bias": ({**toy(), "head.bias": randn(M + 1)}, CheckpointError, "'down.bias' has"),
    "NaN": (poisoned(surrogate()), NonFiniteError, "holds 1 non-finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    tensors, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.load(write(tmp_path, tensors))


def test_there_is_no_residual_path_to_ask_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no blocks to be residual"):
        bl.load(write(tmp_path, toy()), residual=True)
