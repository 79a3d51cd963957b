"""What could run code when it is opened is told, in whatever it is hidden; plain files are not."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

import keras_files
from bilens.base.errors import CheckpointError
from bilens.io.code_in_files import code_in
from hostile_files import field, hide, node

WEIGHTS = save({"w": torch.ones(2, 2)})


def archive(path: Path, **entries: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("__", "."), content)
    return path


def keras(path: Path, *layers: dict[str, Any]) -> Path:
    h5py, weights = pytest.importorskip("h5py"), io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": layers}}
    entries = {"config.json": json.dumps(config), "model.weights.h5": weights.getvalue()}
    return archive(path, **entries)


def after(content: bytes, path: Path) -> Path:
    """Write a file that begins as one kind and ends as an archive of PyTorch."""
    torch.save({"w": torch.ones(2)}, path)
    path.write_bytes(content + path.read_bytes())
    return path


def skops(path: Path, module: str) -> Path:
    text = json.dumps({"__class__": "C", "__module__": module}).replace("__m", "\\u005f_m")
    return archive(path, **{"schema.json": text, "0.npy": npy()})


def npy() -> bytes:
    held = io.BytesIO()
    np.save(held, np.ones(2))
    return held.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d"}}
UNSAFE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "m.pt": (lambda at: torch.save({"w": torch.ones(2)}, at), "is opened as a pickle"),
    "m.bin": (lambda at: torch.save({"w": torch.ones(2)}, at), "is opened as a pickle"),
    "old.bin": (lambda at: hide(at, "behind a torch file"), "mkdir"),
    "m.joblib": (lambda at: hide(at, "joblib"), "mkdir"),
    "two.bin": (lambda at: hide(at, "behind the end"), "mkdir"),
    "o.npy": (lambda at: hide(at, "npy"), "mkdir"),
    "o.npz": (lambda at: hide(at, "objects of npz"), "mkdir"),
    "named.pkl": (lambda at: at.write_bytes(WEIGHTS), "is opened as a pickle"),
    "ends.safetensors": (lambda at: after(WEIGHTS, at), "is opened as a pickle"),
    "plain.bin": (lambda at: at.write_bytes(b"cos\nmkdir\n(S'ran'\ntR."), "not known"),
    "m.bin.gz": (lambda at: at.write_bytes(gzip.compress(b"x")), "compressed, which is not opened"),
    "lambda.keras": (
        lambda at: keras(at, DENSE, {"module": "keras.layers", "class_name": "Lambda"}),
        "keras.layers.Lambda",
    ),
    "inner.keras": (
        lambda at: keras(at, DENSE | {"config": {"activation": {"class_name": "__lambda__"}}}),
        "__lambda__",
    ),
    "own.keras": (lambda at: keras(at, {"module": "os", "class_name": "system"}), "os.system"),
    "own.skops": (lambda at: skops(at, "mine.layers"), "mine.layers"),
    "reads.pb": (
        lambda at: at.write_bytes(node(b"a", b"ReadFile") + node(b"p", b"EagerPyFunc")),
        "EagerPyFunc, ReadFile",
    ),
    "program.pt2": (
        lambda at: archive(at, **{"serialized_exported_program.json": "{}"}),
        "",
    ),
    "damaged.safetensors": (lambda at: at.write_bytes(WEIGHTS[:-3]), ""),
    "empty.onnx": (lambda at: at.write_bytes(b""), ""),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_a_file_that_could_run_code_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, word = UNSAFE[name]
    make(tmp_path / name)
    (said,) = code_in(tmp_path / name)
    assert said.startswith(f"{tmp_path / name}: ")
    assert word in said
    assert not (tmp_path / "ran").exists()


def test_a_file_without_code_is_not_told(tmp_path: Path) -> None:
    good = [
        written(tmp_path / "m.safetensors", WEIGHTS),
        written(tmp_path / "a.npy", npy()),
        written(tmp_path / "g.pb", node(b"c", b"MatMul") + field(4, b"")),
        keras(tmp_path / "m.keras", DENSE),
        skops(tmp_path / "m.skops", "sklearn.neural_network._multilayer_perceptron"),
    ]
    assert [said for path in good for said in code_in(path)] == []
    assert code_in(tmp_path) == []
    torch.save({}, tmp_path / "m.pt")
    assert len(code_in(tmp_path)) == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match="holds no model file"):
        code_in(tmp_path / "none")


def test_models_that_keras_itself_saves_are_not_told(tmp_path: Path) -> None:
    keras_files.mlp().save(tmp_path / "m.keras")
    keras_files.gated().save(tmp_path / "g.h5")
    assert code_in(tmp_path) == []
