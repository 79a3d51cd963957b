"""What operations of two files are set to and read, where their tensors are the same.

Damage seen to fail: values left out that are those without a word; inputs not compared; settings of
operations of other names compared by name alone.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bilens.api.comparison import changed_graph
from bilens.io.any_model import header_of, open_any
from bilens.io.loaded_model import ReadOptions
from bilens.records.tensor_changes import GraphChange
from onnx_files import write

WEIGHTS = {
    "k": np.ones((2, 2, 3, 3), np.float32),
    "v": np.arange(4, dtype=np.float32).reshape(2, 2),
    "g": np.ones(2, np.float32),
}
Nodes = list[tuple[Any, ...]]
NODES: Nodes = [
    ("Conv", "x k", "a", {"strides": [1, 1], "pads": [1, 1, 1, 1]}),
    ("LayerNormalization", "a g", "b", {"epsilon": 1e-5}),
    ("Softmax", "b", "c", {"axis": -1}),
    ("Clip", "c", "d", {"max": 6.0}),
    ("Relu", "d", "e"),
    ("Add", "e d", "y"),
]


def changed_at(at: int, node: tuple[Any, ...]) -> Nodes:
    return [*NODES[:at], node, *NODES[at + 1 :]]


CHANGES: dict[str, tuple[Nodes, list[str]]] = {
    "nothing": (NODES, []),
    "a default that is written": (changed_at(2, ("Softmax", "b", "c")), []),
    "a stride": (
        changed_at(0, ("Conv", "x k", "a", {"strides": [2, 2], "pads": [1, 1, 1, 1]})),
        ["Conv a: strides 1, 1 → 2, 2"],
    ),
    "padding": (
        changed_at(0, ("Conv", "x k", "a", {"strides": [1, 1]})),
        ["Conv a: pads 1, 1, 1, 1 → –"],
    ),
    "an epsilon": (
        changed_at(1, ("LayerNormalization", "a g", "b", {"epsilon": 0.5})),
        ["LayerNormalization b: epsilon 9.999999747378752e-06 → 0.5"],
    ),
    "an axis": (changed_at(2, ("Softmax", "b", "c", {"axis": 1})), ["Softmax c: axis -1 → 1"]),
    "a bound": (changed_at(3, ("Clip", "c", "d", {"max": 1.0})), ["Clip d: max 6.0 → 1.0"]),
    "what is read": (changed_at(5, ("Add", "e c", "y")), ["Add y: inputs e, d → e, c"]),
}


def graph_change(model: Path, baseline: Path) -> GraphChange:
    both = (
        open_any(path, ReadOptions(allow_pickle=True), compared=True) for path in (model, baseline)
    )
    found = changed_graph(*map(header_of, both))
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_operation_is_set_to_is_compared(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    nodes, expected = CHANGES[name]
    for file, made in (("old", NODES), ("new", nodes)):
        write(tmp_path / f"{file}.onnx", made, WEIGHTS)
    found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
    assert found.operations == ()
    assert [str(one) for one in found.settings or ()] == expected


def test_operations_of_other_names_are_compared_by_kind(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    names = dict(zip("abcde", "pqrst", strict=True))

    def renamed(nodes: Nodes) -> Nodes:
        turn = lambda text: " ".join(names.get(word, word) for word in text.split())  # noqa: E731
        return [(kind, turn(given), turn(made), *more) for kind, given, made, *more in nodes]

    write(tmp_path / "old.onnx", NODES, WEIGHTS)
    for name, said in (
        ("nothing", []),
        ("a stride", ["Conv p: strides 1, 1 → 2, 2"]),
    ):
        write(tmp_path / "new.onnx", renamed(CHANGES[name][0]), WEIGHTS)
        found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
        assert found.operations == ()
        assert [str(one) for one in found.settings or ()] == said


def test_tensors_of_other_names_are_no_other_inputs(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    write(tmp_path / "old.onnx", NODES, WEIGHTS)
    nodes = changed_at(0, ("Conv", "x kernel", *NODES[0][2:]))
    write(
        tmp_path / "new.onnx", nodes, {"kernel": WEIGHTS["k"], "v": WEIGHTS["v"], "g": WEIGHTS["g"]}
    )
    found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
    assert (found.operations, found.settings) == ((), ())


def test_another_set_of_operations_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for opset in (11, 13):
        write(
            tmp_path / f"{opset}.onnx", [("Einsum", "x v", "y", {"equation": ""})], WEIGHTS, opset
        )
    found = graph_change(tmp_path / "13.onnx", tmp_path / "11.onnx")
    assert "graph: opset ai.onnx 11 → ai.onnx 13" in [str(one) for one in found.settings or ()]


def keras_file(path: Path, **said: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
    dense = {"class_name": "Dense", "config": {"name": "d", "activation": "relu"} | said}
    with zipfile.ZipFile(path, "w") as archive:
        config = {"class_name": "Sequential", "config": {"layers": [dense]}}
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


def test_layers_of_keras_are_set_to_something_too(tmp_path: Path) -> None:
    old = keras_file(tmp_path / "old.keras", kernel_initializer="zeros")
    for said, expected in (
        ({"activation": "tanh"}, ["Dense d: activation relu → tanh"]),
        ({"kernel_initializer": "ones"}, []),
    ):
        found = graph_change(keras_file(tmp_path / "new.keras", **said), old)
        assert [str(one) for one in found.settings or ()] == expected


def test_the_program_of_an_archive_and_the_header_of_a_gguf_are_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    for name, act in (("old", nn.ReLU()), ("same", nn.ReLU()), ("new", nn.LeakyReLU(0.3))):
        torch.jit.save(torch.jit.script(nn.Sequential(linear, act)), tmp_path / f"{name}.pt")
    assert graph_change(tmp_path / "same.pt", tmp_path / "old.pt").settings == ()
    assert graph_change(tmp_path / "new.pt", tmp_path / "old.pt").settings != ()
    gguf = pytest.importorskip("gguf")
    for name, epsilon in (("old", 1e-5), ("new", 1e-3)):
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", "mamba")
        writer.add_layer_norm_rms_eps(epsilon)
        writer.add_tensor("a", np.ones((2, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = graph_change(tmp_path / "new.gguf", tmp_path / "old.gguf")
    assert [one.setting for one in found.settings or ()] == [
        "mamba.attention.layer_norm_rms_epsilon"
    ]


def test_tensors_alone_say_nothing_of_operations(tmp_path: Path) -> None:
    for name in ("old", "new"):
        save_file({"w": torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
    both = (
        open_any(tmp_path / f"{one}.safetensors", ReadOptions(), compared=True)
        for one in ("new", "old")
    )
    assert changed_graph(*map(header_of, both)) is None
