"""Files of llama2.c: written here by the layout of its export, read back weight for weight."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.formats.llama2c import Header
from bilens.io.load import load

D, H, LAYERS, HEADS, KV, V, T = 8, 12, 2, 4, 2, 16, 5
X = torch.randn(9, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def write(path: Path, version: int = 0, shared: bool = True) -> dict[str, Tensor]:
    """A model as `export.py` of llama2.c lays it out; returns its tensors."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    parts = {
        "tok_embeddings": random(V, D),
        "attention_norm": random(LAYERS, D),
        "wq": random(LAYERS, D, D),
        "wk": random(LAYERS, KV * D // HEADS, D),
        "wv": random(LAYERS, KV * D // HEADS, D),
        "wo": random(LAYERS, D, D),
        "ffn_norm": random(LAYERS, D),
        "w1": random(LAYERS, H, D),
        "w2": random(LAYERS, D, H),
        "w3": random(LAYERS, H, D),
        "norm": random(D),
        "freqs": random(2, T, D // HEADS // 2),
        "output": random(V, D),
    }
    legacy = "tok_embeddings attention_norm wq wk wv wo ffn_norm w1 w2 w3 norm freqs output"
    newer = "attention_norm ffn_norm norm tok_embeddings wq wk wv wo w1 w2 w3 output"
    names = (newer if version == 1 else legacy).split()[: -1 if shared else None]
    sizes = (D, H, LAYERS, HEADS, KV, V if shared or version == 1 else -V, T)
    header = struct.pack("<7i", *sizes)
    if version == 1:
        header = struct.pack("<Ii7iB", 0x616B3432, 1, *sizes, shared).ljust(256, b"\0")
    body = torch.cat([parts[name].flatten() for name in names]).numpy().astype("<f4").tobytes()
    path.write_bytes(header + body)
    return parts


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_layers_are_those_that_were_written(tmp_path: Path, version: int, shared: bool) -> None:
    path = tmp_path / "stories.bin"
    parts = write(path, version, shared)
    model = load(path)
    assert model.module is None
    assert [*model.layers] == ["layers.0.mlp", "layers.1.mlp"]
    assert model.provenance["format"] == f"llama2.c, version {version}"
    for index, view in enumerate(model.layers.values()):
        w1, w2, w3 = (parts[name][index].double() for name in ("w1", "w2", "w3"))
        u = X @ w1.T
        expected = (u * torch.sigmoid(u) * (X @ w3.T)) @ w2.T
        torch.testing.assert_close(view.weights(torch.float64)(X), expected)
        assert (view.sizes, view.activation.name) == ((D, H, D), "silu")
    assert model.exactness.relative_error < 1e-12


def test_the_smallest_published_model_has_the_size_that_its_sizes_give() -> None:
    """stories260K: dim 64, hidden 172, 5 layers, 8 heads, 4 of keys, 512 tokens, context 512."""
    assert Header(0, True, 64, 172, 5, 8, 4, 512, 512).num_bytes == 1_056_540


def with_bytes(**changes: bytes) -> Any:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for place, new in changes.items():
            start = int(place.removeprefix("at_"))
            content[start : start + len(new)] = new
        path.write_bytes(content)

    return change


def number(value: int) -> bytes:
    return struct.pack("<i", value)


DAMAGE: dict[str, tuple[int, Any, str]] = {
    "empty": (0, lambda p: p.write_bytes(b""), r"is empty \(0 bytes\)"),
    "cut": (
        0,
        lambda p: p.write_bytes(p.read_bytes()[:-8]),
        r"is 4,572 bytes; .* has 4,580: check",
    ),
    "cut in the header": (1, lambda p: p.write_bytes(p.read_bytes()[:99]), "of version 1 of lla"),
    "too long": (1, lambda p: p.write_bytes(p.read_bytes() + b"more"), "check that the download"),
    "version 2": (1, with_bytes(at_4=number(2)), "version 2 .* two layouts that have the same"),
    "version 3": (1, with_bytes(at_4=number(3)), "of version 3 of llama2.c; versions 0 and 1"),
    "no layers": (0, with_bytes(at_8=number(0)), "is no model of llama2.c"),
    "a negative width": (0, with_bytes(at_0=number(-8)), "is no model of llama2.c"),
    "a huge width": (0, with_bytes(at_0=number(2**31 - 1)), "is no model of llama2.c"),
    "no heads": (0, with_bytes(at_12=number(0)), "is no model of llama2.c"),
    "heads that do not divide": (0, with_bytes(at_12=number(3)), "is no model of llama2.c"),
    "more layers": (0, with_bytes(at_8=number(3)), "check that the download is complete"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    version, damage, message = DAMAGE[name]
    path = tmp_path / "m.bin"
    write(path, version)
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def test_a_residual_path_is_no_question_of_it(tmp_path: Path) -> None:
    write(tmp_path / "m.bin")
    with pytest.raises(UsageError, match="language model, which always has residual paths"):
        load(tmp_path / "m.bin", residual=True)


def test_a_file_that_changes_after_loading_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    write(path)
    view = load(path).layers["layers.0.mlp"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="was changed or moved after the model was loaded"):
        view.weights()
