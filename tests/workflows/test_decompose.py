"""Taking a layer of a loaded model apart: which layer, in which basis, read how.

Broken once: `reading == "centred"` made the default for every layer; the raw first layer failed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import tiny
from bilens.errors import NotQuadraticError, UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearMLP
from bilens.workflows.decompose import decompose

ONE = tiny.loaded(tiny.classifier(bias=True))
TWO = tiny.loaded(tiny.classifier(n_layers=2))
MLP = LoadedModel(BilinearMLP(5, 7, 4).double(), "an/mlp", "")
X = tiny.images().test_images.double()


def values(result: Any, x: Tensor) -> Tensor:
    """Σ λ (v·x)² + linear + constant: (batch, outputs)."""
    total: Tensor = result.pairs.contributions(x).total().T
    return total


def test_the_logits_of_one_layer_are_read_class_centred() -> None:
    result = decompose(ONE, top=2)
    assert (result.record.layer, result.record.basis) == ("layers.0", "input")
    assert result.record.reading == "class-centred"
    assert [output.name for output in result.record.outputs] == ["upright", "level", "slanting"]
    assert [len(output.pairs) for output in result.record.outputs] == [2, 2, 2]
    assert result.record.d_in == tiny.PIXELS
    logits = ONE.module(X)
    torch.testing.assert_close(values(result, X), logits - logits.mean(dim=1, keepdim=True))


def test_raw_logits_are_the_logits() -> None:
    result = decompose(ONE, reading="raw")
    assert result.record.reading == "raw"
    torch.testing.assert_close(values(result, X), ONE.module(X))


def test_a_contrast_is_one_logit_against_another() -> None:
    result = decompose(ONE, contrast=(2, 0))
    assert result.record.reading == "contrast"
    assert [output.name for output in result.record.outputs] == ["slanting − upright"]
    logits = ONE.module(X)
    torch.testing.assert_close(values(result, X)[:, 0], logits[:, 2] - logits[:, 0])


def test_the_embedding_basis_reads_what_the_embedding_gives() -> None:
    result = decompose(ONE, basis="embedding", reading="raw")
    assert (result.record.basis, result.record.d_in) == ("embedding", 8)
    torch.testing.assert_close(values(result, ONE.module.embed(X)), ONE.module(X))


def test_a_layer_inside_is_read_raw_and_the_last_one_to_the_logits() -> None:
    first, last = decompose(TWO, layer="layers.0"), decompose(TWO, layer="layers.1")
    assert (first.record.reading, first.record.d_in) == ("raw", tiny.PIXELS)
    assert [output.name for output in first.record.outputs] == [str(index) for index in range(8)]
    assert (last.record.reading, last.record.d_in) == ("class-centred", 8)
    hidden = values(first, X)
    torch.testing.assert_close(hidden, TWO.module.layers[0](TWO.module.embed(X)))
    logits = TWO.module(X)
    torch.testing.assert_close(values(last, hidden), logits - logits.mean(dim=1, keepdim=True))


def test_a_layer_that_stands_alone_is_read_raw() -> None:
    result = decompose(MLP)
    assert (result.record.layer, result.record.reading) == ("layer", "raw")
    x = torch.ones(2, 5, dtype=torch.float64)
    torch.testing.assert_close(values(result, x), MLP.module(x))
    assert decompose(MLP, reading="centred").record.reading == "class-centred"


def test_float32_weights_are_multiplied_in_float64() -> None:
    model = tiny.classifier(dtype=torch.float32)
    twin = tiny.classifier(dtype=torch.float32).double()
    pairs, expected = decompose(tiny.loaded(model)).pairs, decompose(tiny.loaded(twin)).pairs
    assert torch.equal(pairs.eigenvalues, expected.eigenvalues)
    assert model.embed.weight.dtype == torch.float32


REFUSED: list[tuple[LoadedModel, dict[str, Any], type[Exception], str]] = [
    (TWO, {}, UsageError, "has the layers layers.0, layers.1; got None: name one .*--layer"),
    (ONE, {"layer": "layers.1"}, UsageError, "has the layers layers.0; got 'layers.1'"),
    (TWO, {"layer": "layers.1", "basis": "embedding"}, UsageError, "no embedding before it"),
    (MLP, {"basis": "embedding"}, UsageError, "a BilinearMLP has no embedding"),
    (ONE, {"basis": "pixels"}, UsageError, "basis='pixels' is not known"),
    (ONE, {"reading": "cooked"}, UsageError, "reading='cooked' is not known"),
    (ONE, {"top": 0}, UsageError, "top must be an integer of at least 1"),
    (ONE, {"contrast": (0, 3)}, UsageError, "two different outputs between 0 and 2, got 0 and 3"),
    (ONE, {"contrast": (1, 1)}, UsageError, "got 1 and 1"),
    (ONE, {"contrast": (-1, 1)}, UsageError, "between 0 and 2, got -1 and 1"),
    (tiny.loaded(tiny.classifier(gate="silu")), {}, NotQuadraticError, "gate 'silu'"),
]


@pytest.mark.parametrize(("model", "options", "error", "message"), REFUSED)
def test_what_does_not_exist_is_refused(
    model: LoadedModel, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        decompose(model, **options)


def test_the_pairs_can_be_saved_and_read_by_anyone(tmp_path: Path) -> None:
    result = decompose(ONE, top=4)
    result.save(tmp_path / "pairs.safetensors", top=4)
    with safe_open(tmp_path / "pairs.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record = json.loads(file.metadata()["bilens"])
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "eigenvalues": (3, 4),
        "eigenvectors": (3, 4, tiny.PIXELS),
        "residuals": (3, 4),
        "frobenius_squared": (3,),
    }
    assert torch.equal(tensors["eigenvalues"], result.pairs.eigenvalues[:, :4])
    assert torch.equal(tensors["eigenvectors"], result.pairs.eigenvectors[:, :4])
    assert record == json.loads(json.dumps(result.record.to_dict()))
    shown = [pair["eigenvalue"] for pair in record["outputs"][1]["pairs"]]
    assert tensors["eigenvalues"][1].tolist() == shown


def test_more_pairs_than_there_are_is_all_of_them(tmp_path: Path) -> None:
    result = decompose(ONE, top=100)
    result.save(tmp_path / "pairs.safetensors", top=100)
    assert len(result.record.outputs[0].pairs) == tiny.PIXELS
