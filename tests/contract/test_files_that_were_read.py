"""Every file that a tensor was read from counts: in the state of a model, and in its identity.

Each was seen to fail: an acceptance that outlived another matrix behind a model of sentences, a
model in several files that was "changed" as soon as it was audited, for ever.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from bilens.api.register_state import AuditedFiles, compare_with_audit
from bilens.base.errors import CheckpointError
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from contract.table import cell
from onnx_files import matrices, write as write_onnx

FEW: dict[str, Any] = {"null_samples": 3}


def sentences(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "vocab_size": 20}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    BertModel(BertConfig(**sizes, **layers)).save_pretrained(folder)
    (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "2_Dense"}]))
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text("{}")
    save_file({"linear.weight": torch.randn(4, 8)}, folder / "2_Dense" / "model.safetensors")
    return folder


def external(nodes: list[Any], tensors: Mapping[str, Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        beside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
        return write_onnx(folder / "m.onnx", nodes, dict(tensors), **beside)

    return make


def gguf_parts(folder: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part in range(2):
        writer = gguf.GGUFWriter(folder / f"part-{part + 1:05}-of-00002.gguf", "llama")
        writer.add_block_count(1)
        for key, value in (("no", part), ("count", 2), ("tensors.count", 3)):
            writer.add_uint16(f"split.{key}", value)
        for end in (("gate", "up"), ("down",))[part]:
            writer.add_tensor(f"blk.0.ffn_{end}.weight", rng.normal(size=(4, 4)).astype("f4"))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / "part-00001-of-00002.gguf"


CHAIN = [
    ("MatMul", "x w0", "a"), ("Add", "a b0", "b"), ("Relu", "b", "c"), ("MatMul", "c w1", "d"),
    ("Add", "d b1", "y"),
]  # fmt: skip
TABLE = {"w0": np.random.default_rng(0).normal(size=(300, 4)).astype("f4")}
MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "sentences": (sentences, "2_Dense/model.safetensors"),
    "sentences, main file": (sentences, "model.safetensors"),
    "onnx": (external(CHAIN, matrices(4, 6, 3)), "w.bin"),
    "onnx without layers": (external([("Gather", "w0 x", "y")], TABLE), "w.bin"),
    "gguf": (gguf_parts, "part-00002-of-00002.gguf"),
}


def change_last_number(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-4] + np.float32(2.5).tobytes())


@cell("audit", "other function")
@pytest.mark.parametrize("name", MODELS)
def test_each_file_of_tensors_counts(name: str, tmp_path: Path) -> None:
    make, changed = MODELS[name]  # the last bytes of which are numbers
    path = make(tmp_path / "m")

    def audited() -> tuple[AuditedFiles, Any]:
        record = bl.audit(open_any(path, ReadOptions()), **FEW).record
        source = record.source
        assert source.files[changed]
        assert record.reproduce.identity is not None
        files = tuple(source.files.items())
        return AuditedFiles(path, source.weights_sha256, files), record.reproduce.identity

    files, identity = audited()
    assert compare_with_audit(files).state == "audited"
    assert audited()[1] == identity
    change_last_number(tmp_path / "m" / changed)
    state = compare_with_audit(files)
    assert (state.state, [one.name for one in state.differences]) == ("changed", [changed])
    assert audited()[1] != identity


@cell("audit", "other function")
def test_a_part_behind_a_link_is_refused(tmp_path: Path) -> None:
    folder = sentences(tmp_path / "m")
    (folder / "2_Dense").rename(tmp_path / "elsewhere")
    (folder / "2_Dense").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="2_Dense: is a link, and a part of the model"):
        open_any(folder, ReadOptions())
