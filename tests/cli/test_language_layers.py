"""Layers of other people's language models on the command line: exact, approximate, refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_language_models as tiny
from commands import Shell

pytest.importorskip("transformers")
LINE = (
    "layers.0.mlp and layers.1.mlp as read against transformers' MistralMLP on 16 inputs: "
    "largest error "
)
COMMAND = ("decompose", "--top", 1, "--outputs", 0)


def almost_linear(folder: Path) -> None:
    """A SwiGLU whose gates hardly leave the range in which SiLU is a parabola."""
    model: Any = tiny.make("mistral")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight.mul_(0.01)
    model.save_pretrained(folder)


def test_a_bilinear_layer_is_taken_apart_and_its_exactness_printed(
    bilens: Shell, tmp_path: Path
) -> None:
    theirs = tiny.write(tmp_path, "mistral", hidden_act="linear").requires_grad_(False)
    result = bilens(*COMMAND, tmp_path, "--layer", "layers.0.mlp", "--json")
    assert result.code == 0
    assert LINE in result.err
    (record,) = result.json()["layers"]
    assert record["approximation"] is None
    assert record["about_input"] == "the residual stream behind an RMSNorm, times its gain"
    assert record["exactness"]["relative_error"] < 1e-12
    mlp = theirs.model.layers[0].mlp
    q = torch.einsum(
        "h,hi,hj->ij", mlp.down_proj.weight[0], mlp.gate_proj.weight, mlp.up_proj.weight
    )
    values = torch.linalg.eigvalsh(q + q.T) / 2
    assert record["outputs"][0]["pairs"][0]["eigenvalue"] == pytest.approx(
        float(values[values.abs().argmax()])
    )


def test_an_approximate_layer_says_r_squared_first(bilens: Shell, tmp_path: Path) -> None:
    almost_linear(tmp_path)
    result = bilens(*COMMAND, tmp_path, "--layer", "layers.1.mlp")
    assert result.code == 0
    first, second, *_ = result.out.splitlines()
    assert first.startswith("layers.1.mlp: R² = ")
    assert "proves nothing of the layer" in first
    assert second == "layers.1.mlp reads the residual stream behind an RMSNorm, times its gain."
    assert bilens(*COMMAND, tmp_path, "--layer", "layers.1.mlp", "--plan").code == 0


def test_below_the_threshold_it_is_refused_with_its_r_squared(
    bilens: Shell, tmp_path: Path
) -> None:
    tiny.write(tmp_path, "mistral")
    result = bilens("--quiet", *COMMAND, tmp_path, "--layer", "layers.0.mlp")
    assert result.code == 3
    assert "has the gate 'silu'" in result.err
    assert "below the 0.9 at which it would stand for the model" in result.err
    assert result.out == ""


@pytest.mark.parametrize("command", [("certify",), ("convert", "--to=bilens", "--out=x")])
def test_what_needs_the_whole_model_says_what_to_do(
    bilens: Shell, tmp_path: Path, command: tuple[object, ...]
) -> None:
    tiny.write(tmp_path, "mistral")
    result = bilens(command[0], tmp_path, *command[1:])
    assert result.code == 2
    error = result.err.splitlines()[-1]
    assert "the layers alone are read: read one of its 2 layers with `bilens decompose" in error


def test_a_layer_that_is_not_there_is_named(bilens: Shell, tmp_path: Path) -> None:
    tiny.write(tmp_path, "mistral")
    result = bilens("--quiet", *COMMAND, tmp_path, "--layer", "layers.9.mlp")
    assert result.code == 2
    assert "has the layers layers.0.mlp, layers.1.mlp; got 'layers.9.mlp'" in result.err
