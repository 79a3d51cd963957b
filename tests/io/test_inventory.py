"""What a file is said to be: against the package of each format, and never by running anything.

Damage seen to fail: subgraphs left out; a tensor of two bytes counted as one of four; a class of a
pickle imported; constants told as tied; a file of a folder left out.
"""

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bilens as bl
from bilens.api.comparison import changed_graph
from bilens.base.errors import CheckpointError
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.any_model import open_any
from bilens.io.file_kinds import is_known, models_in
from bilens.io.loaded_model import ReadOptions
from bilens.io.tflite_contents import read_tflite
from bilens.records.base import read_document
from bilens.records.inventory import Inventory
from bilens.report.sections.inventory_section import inventory_lines
from bilens.report.text import load_catalogue
from hostile_files import Bomb, field, hide, node


class Net(nn.Module):
    """An embedding, a convolution, an LSTM, a normalisation and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 3)
        self.lstm = nn.LSTM(4, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = torch.relu(self.conv(x))
        return rows.sigmoid()


NUMBERS = sum(one.numel() for one in Net().state_dict().values())  # a tied one in each place
PARTS = {"embedding": 1, "convolution": 1, "lstm": 1, "norm": 1, "head": 1}


def parts(found: Inventory) -> dict[str, int]:
    return {one.kind: one.count for one in found.parts}


def operations(found: Inventory) -> dict[str, int]:
    return {one.name.rpartition(".")[2]: one.count for one in found.operations}


def written(folder: Path, kind: str) -> Path:
    """Write the net in a format."""
    torch.manual_seed(0)
    net, path = Net().eval(), folder / f"model.{kind.partition(' ')[0]}"
    state = {name: one.clone() for name, one in net.state_dict().items()}
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "jit":
        torch.jit.script(net).save(path)
    elif kind == "npz":
        np.savez(path, **{name: one.numpy() for name, one in state.items()})
    else:
        content = {"pt": state, "pt old": state, "pth": net, "ckpt": {"state_dict": state, "x": 1}}
        torch.save(content[kind], path, _use_new_zipfile_serialization=kind != "pt old")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pt old", "ckpt", "pth", "jit", "npz"])
def test_the_same_net_is_the_same_in_every_format(tmp_path: Path, kind: str) -> None:
    found = bl.inventory(written(tmp_path, kind))
    assert (found.parameters, found.tensors, parts(found)) == (NUMBERS, 10, PARTS)
    assert found.bytes == (tmp_path / f"model.{kind.partition(' ')[0]}").stat().st_size
    assert sum(group.bytes for group in found.groups) == 4 * NUMBERS
    assert {group.dtype for group in found.groups} == {"float32"}
    if kind not in ("npz", "pt old"):  # equal bytes lie where nothing says it
        assert [{*names} for names in found.tied] == [{"embedding.weight", "head.weight"}]
    if kind in ("pth", "jit"):
        kinds = Counter(type(one).__name__ for one in Net().modules())
        assert kinds.items() <= operations(found).items()


@pytest.mark.parametrize(
    "save", [torch.save, lambda one, path: path.write_bytes(pickle.dumps(one))]
)
def test_nothing_in_a_pickle_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save({"a": Bomb(), "b": torch.ones(3, 2), "net": Net()}, tmp_path / "m.pkl")
    found = bl.inventory(tmp_path / "m.pkl")
    assert "mkdir" in " ".join(found.imports)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("joblib", 6),
        ("objects of joblib", 2),
        ("objects of npz", 2),
        ("npy", 1),
        ("behind the end", 1),
        ("behind a large one", 1),
        ("behind a torch file", 1),
    ],
)
def test_what_a_file_would_import_is_told_wherever_it_stands(
    where: str, shown: int, tmp_path: Path
) -> None:
    hide(path := tmp_path / ("m.npy" if where == "npy" else "m.pkl"), where)
    found = bl.inventory(path)
    assert "mkdir" in " ".join(found.imports)
    assert not any("not walked" in note for note in found.notes)
    assert found.tensors == shown
    assert found.parameters == (9 << 20 if "large" in where else 0 if where == "npy" else 12)


def test_codes_of_several_weights_each_are_counted_and_told(tmp_path: Path) -> None:
    """4-bit codes as MLX stores them were in no count: 800 weights in all of a model."""
    state = {
        "layers.0.q.weight": torch.zeros(16, 4, dtype=torch.uint32),
        "layers.0.q.scales": torch.ones(16, 2),
        "layers.0.q.lora.bias": torch.ones(1, 1, 8),
        "places": torch.zeros(7, dtype=torch.int64),
    }
    save_file(state, tmp_path / "m.safetensors")
    found = bl.inventory(tmp_path / "m.safetensors")
    assert (found.parameters, found.codes) == (64 + 32 + 8, 64)
    said = " ".join(inventory_lines(load_catalogue("en"), found))
    assert (
        "64 of these are whole numbers, each of which stands for a weight or for several." in said
    )
    report = bl.audit(open_any(tmp_path / "m.safetensors", ReadOptions()), null_samples=3)
    assert report.record.coverage.parameters == found.parameters


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"apache-2.0" # x', "apache-2.0"),
        ("mit # or another", "mit"),
        ("'a # b'", "a # b"),
        ("c#", "c#"),
    ],
)
def test_a_value_of_a_card_has_no_quotes_and_no_comment(
    written: str, value: str, tmp_path: Path
) -> None:
    save_file({"a": torch.ones(3, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text(f"---\nlicense: {written}\n---\n# Hi\n")
    assert [one.value for one in bl.inventory(tmp_path).card] == [value]


@pytest.mark.parametrize("cut", [40, 200, 400])
def test_a_pickle_that_is_not_walked_to_its_end_says_so(cut: int, tmp_path: Path) -> None:
    hide(tmp_path / "m.pkl", "joblib")
    path = tmp_path / "cut.pkl"
    path.write_bytes((tmp_path / "m.pkl").read_bytes()[:cut])
    assert "what else it would import is not known" in " ".join(bl.inventory(path).notes)


def test_a_graph_is_counted_with_what_is_inside_it(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float16).reshape(3, 4), "w")
    inner = onnx.numpy_helper.from_array(np.ones(4, np.float32), "b")
    value = make.make_tensor_value_info
    branch = make.make_graph(
        [make.make_node("Relu", ["z"], ["r"])], "g", [], [value("r", 1, None)], [inner]
    )
    twice = make.make_function(
        "own", "Twice", ["a"], ["c"], [make.make_node("Add", ["a", "a"], ["c"])],
        [make.make_opsetid("", 17)],
    )  # fmt: skip
    nodes = [
        make.make_node("MatMul", ["x", "w"], ["y"]),
        make.make_node("Softmax", ["y"], ["s"]),
        make.make_node("Dropout", ["s"], ["d"]),
        make.make_node("MatMul", ["d", "v"], ["z"]),
        make.make_node("Twice", ["z"], ["t"], domain="own"),
        make.make_node("If", ["q"], ["o"], then_branch=branch, else_branch=branch),
    ]
    given = [value("x", 10, ["batch", 3]), value("v", 10, None), value("q", kinds.BOOL, [])]
    graph = make.make_graph(nodes, "g", given, [value("o", 1, [None, 2])], [weight])
    model = make.make_model(graph, functions=[twice], producer_name="test")
    onnx.helper.set_model_props(model, {"license": "MIT"})
    onnx.save(model, tmp_path / "m.onnx")
    found = bl.inventory(tmp_path / "m.onnx")
    assert operations(found) == {
        "MatMul": 2,
        "Relu": 2,
        "Softmax": 1,
        "Dropout": 1,
        "Twice": 1,
        "Add": 1,
        "If": 1,
    }
    assert parts(found) == {"attention": 1, "matrix": 1}
    assert [(one.name, one.shape, one.dtype) for one in found.ports] == [
        ("x", "batch × 3", "float16"), ("v", "", "float16"), ("q", "1", "bool"),
        ("o", "? × 2", "float32"),
    ]  # fmt: skip
    assert (found.format, found.parameters) == ("ONNX of test", 12 + 2 * 4)
    assert [(one.name, one.value) for one in found.card if one.name == "license"] == [
        ("license", "MIT")
    ]
    onnx.save(
        model, tmp_path / "e.onnx", save_as_external_data=True, size_threshold=0, location="w.bin"
    )
    beside = bl.inventory(tmp_path / "e.onnx")
    assert beside.parameters == found.parameters
    assert beside.bytes == sum((tmp_path / name).stat().st_size for name in ("e.onnx", "w.bin"))


def test_a_gguf_is_as_its_own_package_reads_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.add_license("mit")
    kinds = gguf.GGMLQuantizationType
    for name, kind in (("a.0.w", "Q8_0"), ("a.1.w", "Q4_0"), ("b", "F16")):
        data = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
        packed = gguf.quants.quantize(data, kinds[kind])
        writer.add_tensor(name, packed, raw_dtype=kinds[kind])
    for write in (
        "write_header_to_file",
        "write_kv_data_to_file",
        "write_tensors_to_file",
        "close",
    ):
        getattr(writer, write)()
    found = bl.inventory(tmp_path / "m.gguf")
    expected = {one.name: int(one.n_bytes) for one in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert {group.name: group.bytes for group in found.groups} == expected
    assert [group.quantised for group in found.groups] == [True, True, False]
    assert (found.format, found.parameters) == ("GGUF mamba", 3 * 128)
    assert ("license", "mit") in [(one.name, one.value) for one in found.card]


def test_a_file_of_keras_is_its_layers(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    dense = {"class_name": "Dense", "config": {"name": "d"}}
    start = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 4]}}
    around = {"class_name": "Bidirectional", "config": {"layer": {"class_name": "LSTM"}}}
    config = {"class_name": "Sequential", "config": {"layers": [start, dense, around]}}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/lstm/cell/recurrent_kernel"] = np.ones((4, 16), np.float32)
        file["layers/dense/vars/0"] = np.ones((4, 3), np.float16)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.write(tmp_path / "w.h5", "model.weights.h5")
    found = bl.inventory(tmp_path / "m.keras")
    assert operations(found) == dict.fromkeys(("InputLayer", "Dense", "Bidirectional", "LSTM"), 1)
    assert (found.parameters, parts(found)) == (64 + 12, {"lstm": 1, "matrix": 1})
    assert [(one.name, one.shape) for one in found.ports] == [("x", "? × 4")]


# ---- TensorFlow: written here field by field


def test_a_frozen_graph_is_its_operations_and_constants(tmp_path: Path) -> None:
    shape = b"".join(field(2, field(1, side)) for side in (2, 3))
    proto = field(1, 1) + field(2, shape) + field(4, struct.pack("<6f", *range(6)))
    value = field(5, field(1, b"value") + field(2, field(8, proto)))
    path = tmp_path / "frozen.pb"
    path.write_bytes(node(b"w", b"Const", value) + node(b"m", b"MatMul") + node(b"c", b"Conv2D"))
    found = bl.inventory(path)
    assert operations(found) == {"Const": 1, "MatMul": 1, "Conv2D": 1}
    assert parts(found) == {"matrix": 1, "convolution": 1}
    assert [(one.name, one.shape, one.dtype) for one in found.groups] == [("w", "2 × 3", "float32")]


def emit(data: bytearray, value: Any) -> int:
    """Write a value of a flatbuffer behind all else; return its place."""
    if isinstance(value, str | bytes):
        text = value.encode() if isinstance(value, str) else value
        data += struct.pack("<I", len(text)) + text
        return len(data) - len(text) - 4
    if isinstance(value, dict):
        sizes = [4 + 4 * at if at in value else 0 for at in range(max(value) + 1)]
        head = struct.pack(f"<{2 + len(sizes)}H", 4 + 2 * len(sizes), 4 + 4 * len(sizes), *sizes)
        at = len(data) + len(head)
        data += head + struct.pack("<i", len(head)) + bytes(4 * len(sizes))
        places = {at + sizes[number]: part for number, part in value.items()}
    else:
        at, numbers = len(data), [part if isinstance(part, int) else 0 for part in value]
        data += struct.pack(f"<{1 + len(numbers)}i", len(numbers), *numbers)
        places = {at + 4 + 4 * number: part for number, part in enumerate(value)}
    for place, part in places.items():
        plain = part if isinstance(part, int) else emit(data, part) - place
        struct.pack_into("<i", data, place, plain)
    return at


def lite_file(path: Path, **said: Any) -> Path:
    """Write a model that subtracts, makes a bucket of each number and ends in an own operation."""
    names = [{0: [2], 1: 0, 2: 0, 3: said.get("names", "xkdbo")[at]} for at in range(5)]
    names[1][2] = 1  # a weight
    edges = {0: said.get("edges", [0, 1])}
    operators = [
        {0: 0, 1: said.get("reads", [0, 1]), 2: [2]},
        {0: 1, 1: [2], 2: [3], 3: 115, 4: edges},
        {0: 2, 1: [3], 2: [4], 5: said.get("own", b"at 0.6")},
    ]
    graph = {0: names, 1: [0], 2: said.get("ends", [3, 4]), 3: operators}
    codes = [{0: 41}, {0: 127, 3: 147}, {0: 32, 1: "Own"}]
    data = bytearray(b"\0\0\0\0TFL3")
    buffers = [{1: 0}, {0: bytes(range(8))}, {0: said.get("about", b"mean 0")}]
    about = [{0: "TFLITE_METADATA", 1: 2}, {0: "CONVERSION_METADATA", 1: 1}]
    root = emit(data, {1: codes, 2: [graph], 4: buffers, 6: about})
    struct.pack_into("<I", data, 0, root)
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:  # as its tools put files of labels behind it
        archive.writestr("labels.txt", said.get("labels", "cat\ndog"))
    return path


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({}, None), ({"names": "ABCDE"}, None), ({"reads": [1, 0]}, "inputs"),
        ({"edges": [0, 9]}, "options.option 0"), ({"own": b"at 0.1"}, "custom options"),
        ({"ends": [4, 3]}, "outputs"), ({"names": "     ", "reads": [1, 0]}, "inputs"),
        ({"about": b"mean 9"}, "TFLITE_METADATA"), ({"labels": "dog\ncat"}, "labels.txt"),
    ],
)  # fmt: skip
def test_all_fields_of_two_models_of_tensorflow_lite_are_compared(
    tmp_path: Path, said: dict[str, Any], where: str | None
) -> None:
    old = read_tflite(lite_file(tmp_path / "old.tflite", names=said.get("names", "xkdbo")))
    found = changed_graph(read_tflite(lite_file(tmp_path / "new.tflite", **said)), old)
    assert found is not None
    assert found.settings is not None
    assert [one.setting for one in found.settings][:1] == ([where] if where else [])


def test_a_model_of_tensorflow_lite_is_read_place_by_place(tmp_path: Path) -> None:
    scaled = {2: [1]}
    tensors = [
        {0: [1, 8], 1: 0, 2: 0, 3: "x"},
        {0: [4, 3, 3, 2], 1: 9, 2: 1, 3: "kernel", 4: scaled},
        {0: [4], 1: 2, 2: 2, 3: "bias", 4: scaled},
        {0: [2], 1: 2, 2: 3, 3: "shape"},
        {0: [1, 4], 1: 1, 2: 0, 3: "y"},
    ]
    codes = [{0: 3}, {0: 127, 3: 150}, {0: 32, 1: "Own"}]
    ops = [{0: 0}, {0: 0}, {0: 1}, {0: 2}]
    buffers: list[dict[int, bytes]] = [{}, {0: bytes(range(72))}, {0: bytes(16)}, {0: bytes(8)}]
    model = {1: codes, 2: [{0: tensors, 1: [0], 2: [4], 3: ops}], 3: "made here"}
    data = bytearray(b"\0\0\0\0TFL3")
    root = emit(data, {**model, 4: [one or {1: 0} for one in buffers]})
    struct.pack_into("<I", data, 0, root)
    (tmp_path / "m.tflite").write_bytes(data)
    found = bl.inventory(tmp_path / "m.tflite")
    assert operations(found) == {"CONV_2D": 2, "GELU": 1, "CUSTOM Own": 1}
    assert [(one.name, one.shape, one.dtype) for one in found.ports] == [
        ("x", "1 × 8", "float32"),
        ("y", "1 × 4", "float16"),
    ]
    assert {one.name: (one.parameters, one.quantised) for one in found.groups} == {
        "kernel": (72, True),
        "bias": (4, True),
        "shape": (2, False),
    }
    assert (found.parameters, parts(found)) == (76, {"convolution": 2})


# ---- others, and what is none


def test_trees_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("tree\nversion=v4\nobjective=binary\n\nTree=0\n\nTree=1\n")
    (tmp_path / "b.json").write_text(
        '{"learner":{"gradient_booster":{"model":{"gbtree_model_param":{"num_trees":"100"}}}}}'
    )
    (tmp_path / "c.json").write_text(
        json.dumps(json.loads((tmp_path / "b.json").read_text()), indent=1)
    )
    for name, kind, count in (
        ("a.txt", "LightGBM", 2), ("b.json", "XGBoost", 100), ("c.json", "XGBoost", 100),
    ):  # fmt: skip
        found = bl.inventory(tmp_path / name)
        assert (found.format, parts(found)) == (kind, {"trees": count})


def test_scores_of_words_are_counted(tmp_path: Path) -> None:
    scores = {"one": {f"w{at}": at - 30 for at in range(60)}, "two": {"の": 2.5, '"': -1}}
    (tmp_path / "m.json").write_text(json.dumps(scores, ensure_ascii=False))
    found = bl.inventory(tmp_path / "m.json")
    assert (found.format, found.tensors, found.parameters) == ("JSON of scores", 2, 62)
    other = tmp_path / "n.json"
    for content in ({"labels": {f"w{at}": str(at) for at in range(60)}}, scores["one"]):
        other.write_text(json.dumps(content))
        assert not is_known(other)
    other.write_text(json.dumps({"one": scores["one"], "two": {"w": "x"}}))
    with pytest.raises(CheckpointError, match="no scores"):
        bl.inventory(other)


def test_equal_constants_are_not_tied_and_equal_matrices_are(tmp_path: Path) -> None:
    same = torch.randn(3, 4)
    state = {"a": torch.zeros(3, 4), "b": torch.zeros(3, 4), "c": same, "d": same.clone()}
    save_file(state, tmp_path / "m.safetensors")
    save_file({**state, "d": same + 1e-6}, tmp_path / "n.safetensors")
    found = [bl.inventory(tmp_path / f"{name}.safetensors") for name in "mn"]
    assert [one.tied for one in found] == [(("c", "d"),), ()]
    views = {**state, "d": same, "e": torch.randn(3, 3), "ones": torch.ones(2000, 3)}
    views |= {"turned": views["e"].T, "f": views["e"].clone(), "again": torch.ones(2000, 3)}
    half = torch.arange(2000) < 1000
    views |= {name: half[:, None] * torch.ones(2000, 3) for name in "xy"}
    torch.save(views, tmp_path / "m.pt")
    assert bl.inventory(tmp_path / "m.pt").tied == (("c", "d"), ("e", "f"), ("x", "y"))


def test_every_file_of_a_folder_is_listed_with_what_became_of_it(tmp_path: Path) -> None:
    written(tmp_path, "safetensors")
    (tmp_path / "README.md").write_text("---\nlicense: mit\ntags:\n- small\n- own\n---\n# Hi\n")
    (tmp_path / "LICENSE").write_text("\nMIT License\n")
    (tmp_path / "config.json").write_text('{"model_type": "own", "architectures": ["Net"]}')
    (tmp_path / "deep" / "er").mkdir(parents=True)
    written(tmp_path / "deep" / "er", "pt")
    (tmp_path / "deep" / "broken.safetensors").write_bytes(b"damaged")
    (tmp_path / "notes").write_bytes(b"")
    found = bl.inventory(tmp_path)
    assert {one.name: one.state for one in found.files} == {
        "model.safetensors": "read",
        "deep/er/model.pt": "listed",
        **dict.fromkeys(("README.md", "LICENSE", "config.json"), "beside"),
        "deep/broken.safetensors": "refused",
        "notes": "no_model",
    }
    assert found.parameters == NUMBERS
    said = {(one.name, one.value, one.source) for one in found.card}
    assert said >= {
        *{("license", "mit", "README.md"), ("license", "MIT License", "LICENSE")},
        *{("tags", "small, own", "README.md"), ("architectures", "Net", "config.json")},
    }


@pytest.mark.parametrize("kind", ["safetensors", "pt", "jit", "npz"])
def test_half_a_file_is_damaged_and_no_model_is_told_by_its_bytes(
    tmp_path: Path, kind: str
) -> None:
    path = written(tmp_path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.\w+: .*check that the download is complete"):
        bl.inventory(path)
    path = tmp_path / "x.dat"
    path.write_bytes(b"no weights at all")
    with pytest.raises(
        CheckpointError, match=r"17 bytes that begin with 6e 6f.*SHA-256 [0-9a-f]{64}"
    ):
        bl.inventory(path)


def test_headers_are_read_without_torch_and_the_record_is_a_document(tmp_path: Path) -> None:
    path = written(tmp_path, "safetensors")
    code = (
        "import sys; from bilens.cli import main; sys.argv = ['bilens', 'inspect', sys.argv[1],"
        " '--json']\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"
    assert read_document(Inventory, json.loads(done.stdout)) == bl.inventory(path)


def compared(model: Path, baseline: Path) -> tuple[str, set[str]]:
    """What two files are said to be, and the names of the tensors that changed."""
    options = ReadOptions(allow_pickle=True)
    both = (open_any(path, options, compared=True) for path in (model, baseline))
    one, other = (opened.tensors for opened in both)
    found = compare_tensors(one, other)
    names = {change.name for change in found.changed if change.state != "moved"}
    assert found.headline is not None
    return found.headline.kind, names | {*found.model_alone}


HEAD, EMA, TEACHER = ({name: {"w": 2}} for name in ("head", "ema", "teacher"))
STATES = [{"state": {0: {"exp_avg": seed}}, "param_groups": []} for seed in (1, 2)]
OTHER = "optimizer.s"  # by its content it is no optimizer's state
CHECKPOINTS: dict[str, tuple[Any, Any, str]] = {  # one, what differs in the other, and its name
    "another head": ({"net": {"w": 1}, "head": {"w": 1}}, HEAD, "head.w"),
    "an average": ({"model": {"w": 1}, "ema": {"w": 1}}, EMA, "ema.w"),
    "a teacher": ({"state_dict": {"w": 1}, "teacher": {"w": 1}}, TEACHER, "teacher.w"),
    "inside": ({"model": {"net": {"w": 1}, "b": 1}}, {"model": {"net": {"w": 1}, "b": 2}}, "b"),
    "a key that is a tuple": ({("x", 1): 1, "w": 1}, {("x", 1): 2}, "('x', 1)"),
    "an optimizer": ({"model": {"w": 1}, "optimizer": STATES[0]}, {"optimizer": STATES[1]}, ""),
    "no optimizer": ({"model": {"w": 1}, "optimizer": {"s": 1}}, {"optimizer": {"s": 2}}, OTHER),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_stands_beside_the_weights_of_a_checkpoint_is_compared(
    name: str, tmp_path: Path
) -> None:
    first, changed, differs = CHECKPOINTS[name]

    def made(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: made(part) for key, part in one.items()}
        if isinstance(one, list):
            return one
        return torch.randn(4, 4, generator=torch.Generator().manual_seed(one))

    for file, content in (("a.pt", first), ("b.pt", {**first, **changed})):
        torch.save(made(content), tmp_path / file)
    kind, names = compared(tmp_path / "b.pt", tmp_path / "a.pt")
    assert names == ({differs} if differs else set())
    assert (kind in ("differ", "unrelated")) == bool(differs)


@pytest.mark.parametrize(
    "name",
    ["license_plate_detector.safetensors", "notice_classifier.pt", "labels_net.pb", "readme.npz"],
)
def test_a_model_is_one_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    """Names of what stands beside a model are no ground to pass over one."""
    path, weight = tmp_path / name, {"w": torch.ones(3, 3)}
    if path.suffix == ".safetensors":
        save_file(weight, path)
    elif path.suffix == ".pt":
        torch.save(weight, path)
    elif path.suffix == ".npz":
        np.savez(path, w=np.ones((3, 3)))
    else:  # one node, a Placeholder that is called x
        path.write_bytes(b"\x0a\x10\x0a\x01x\x12\x0bPlaceholder")
    for beside in ("LICENSE", "config.json", "labels.txt", "keras_metadata.pb", "tokenizer.model"):
        (tmp_path / beside).write_text("tree\n" if beside == "labels.txt" else "{}")
    found = {one.name: one.state for one in bl.inventory(tmp_path).files}
    assert found.pop(name) in ("read", "listed")
    assert {*found.values()} == {"beside"}


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_kind_are_listed_with_their_shapes(tmp_path: Path) -> None:
    marked = nn.Parameter(torch.ones(2, 7))
    marked.tag = 1  # type: ignore[attr-defined]
    numbers = torch.ones(4, 4)
    held = {
        "marked": (marked, "2 × 7", "float32", 56),
        "f8": (numbers.to(torch.float8_e4m3fn), "4 × 4", "float8e4m3fn", 16),
        "u16": (numbers.to(torch.uint16), "4 × 4", "uint16", 32),
        "complex": (numbers.to(torch.complex64), "4 × 4", "complex64", 128),
        "sparse": (torch.eye(3).to_sparse(), "3", "float32", 12),
        "rows": (torch.eye(5).to_sparse_csr(), "5", "float32", 20),
        "array": (np.ones((3, 5)), "3 × 5", "float64", 120),
    }
    torch.save({name: one for name, (one, *_) in held.items()}, tmp_path / "a.pt")
    found = bl.inventory(tmp_path / "a.pt")
    said = {one.name: (one.shape, one.dtype, one.bytes) for one in found.groups}
    assert said == {name: tuple(expected) for name, (_, *expected) in held.items()}
    changed = {name: one for name, (one, *_) in held.items()} | {"marked": 2 * marked.data}
    torch.save(changed, tmp_path / "b.pt")
    assert compared(tmp_path / "b.pt", tmp_path / "a.pt") == ("differ", {"marked"})


@pytest.mark.filterwarnings("ignore")
def test_weights_of_programs_are_listed(tmp_path: Path) -> None:
    """Of a frozen archive they are constants; of torch.export they lie beside the program."""
    net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.ones(1, 4)
    torch.jit.save(torch.jit.freeze(torch.jit.script(net)), tmp_path / "frozen.pt")
    torch.export.save(torch.export.export(net.float(), (x.float(),)), tmp_path / "m.pt2")
    for name in ("frozen.pt", "m.pt2"):
        found = bl.inventory(tmp_path / name)
        assert (found.parameters, found.tensors) == (23, 4)


@pytest.mark.parametrize("name", ["license", "licence.md", "LICENSE-MIT", "Copying"])
def test_a_licence_is_told_however_its_name_is_written(name: str, tmp_path: Path) -> None:
    for model in ("model", "license_plate"):
        save_file({"w": torch.ones(2, 2)}, tmp_path / f"{model}.safetensors")
    (tmp_path / name).write_text("MIT License\n")
    said = [(one.name, one.value) for one in bl.inventory(tmp_path / "model.safetensors").card]
    assert said == [("license", "MIT License")]


def test_a_link_to_a_folder_is_listed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    written(tmp_path / "model", "safetensors")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model" / "linked").symlink_to(tmp_path / "elsewhere")
    (entry,) = (one for one in bl.inventory(tmp_path / "model").files if one.name == "linked")
    assert (entry.state, entry.said) == ("refused", "is a link to a folder, not followed")


def split_gguf(folder: Path, parts: int) -> list[Path]:
    gguf = pytest.importorskip("gguf")
    paths = []
    for number in range(1, parts + 1):
        paths.append(folder / f"m-{number:05}-of-{parts:05}.gguf")
        writer = gguf.GGUFWriter(paths[-1], "mamba")
        writer.add_tensor(f"a{number}", np.ones((2, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_parts_that_are_not_there_are_noted(tmp_path: Path) -> None:
    first, second, third = split_gguf(tmp_path, 3)
    assert bl.inventory(first).notes == ()
    assert bl.inventory(third).notes == tuple(
        f"{one.name}, a part of the model, was not read with it" for one in (first, second)
    )
    second.unlink()
    assert bl.inventory(first).notes == (f"{second.name}, a part of the model, is not there",)
    for number in (1, 2, 3):
        save_file(
            {f"w{number}": torch.ones(2)}, tmp_path / f"model-{number:05}-of-00003.safetensors"
        )
    first.unlink()
    third.unlink()
    assert bl.inventory(tmp_path).notes == ()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert bl.inventory(tmp_path).notes == (
        "model-00002-of-00003.safetensors, a part of the model, is not there",
    )


def test_the_places_of_a_quantised_weight_are_no_parameters(tmp_path: Path) -> None:
    packed = {
        "up.qweight": torch.ones(4, 8, dtype=torch.int32),
        "up.g_idx": torch.arange(32, dtype=torch.int32),
        "up.scales": torch.ones(2, 8),
    }
    save_file(packed, tmp_path / "m.safetensors")
    assert bl.inventory(tmp_path / "m.safetensors").parameters == 32 + 16


def test_a_file_whose_tensors_are_not_listed_tells_no_number_of_them(tmp_path: Path) -> None:
    (tmp_path / "m.lz4").write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    found = bl.inventory(tmp_path / "m.lz4")
    assert (found.parameters, found.tensors) == (None, 0)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """Write a block of a table of names, none of which shares its start with the one before."""
    rows = (varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries.items())
    return b"".join(rows) + struct.pack("<II", 0, 1)


def test_the_variables_of_a_saved_model_are_its_weights(tmp_path: Path) -> None:
    """Constants of its graph are listed, the state of an optimizer is not; neither is counted."""
    shape = b"".join(field(2, field(1, side)) for side in (2, 3))
    proto = field(1, 1) + field(2, shape) + field(4, struct.pack("<6f", *range(6)))
    value = field(5, field(1, b"value") + field(2, field(8, proto)))
    graph = node(b"w", b"Const", value) + node(b"m", b"MatMul")
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(field(2, field(2, graph)))
    sizes = field(1, 1) + field(2, field(2, field(1, 4)))
    end = b"/.ATTRIBUTES/VARIABLE_VALUE"
    slot = b"dense/kernel/.OPTIMIZER_SLOT/optimizer/m" + end
    names = block({b"dense/kernel" + end: sizes, slot: sizes})
    index = block({b"z": varint(0) + varint(len(names))})
    footer = varint(0) + varint(0) + varint(len(names)) + varint(len(index))
    content = names + index + footer.ljust(40, b"\0") + bytes(8)
    (tmp_path / "variables" / "variables.index").write_bytes(content)
    found = bl.inventory(tmp_path)
    assert [one.name for one in found.groups] == ["w", "dense/kernel"]
    assert found.parameters == 4


def test_a_saved_model_without_a_graph_is_one_sentence(tmp_path: Path) -> None:
    """Seen red: a fault of bilens."""
    (tmp_path / "saved_model.pb").write_bytes(field(1, 1) + field(2, field(1, b"ab")))
    with pytest.raises(CheckpointError, match="is not a readable file of the kind tensorflow"):
        bl.inventory(tmp_path)


def test_parts_in_folders_below_are_one_model(tmp_path: Path) -> None:
    for name in ("tagger", "parser"):
        (tmp_path / "pipeline" / name).mkdir(parents=True)
        np.savez(tmp_path / "pipeline" / name / "model.npz", w=np.ones((2, 3)))
    found = bl.inventory(tmp_path / "pipeline")
    assert (found.format, found.parameters) == ("arrays of NumPy, 2 files", 12)
    assert [one.name for one in found.groups] == ["parser/w", "tagger/w"]
    assert {one.state for one in found.files} == {"read"}
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "deep" / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="holds no model"):
        bl.inventory(tmp_path / "empty")


def test_a_bias_of_several_axes_is_counted_and_a_mask_is_not(tmp_path: Path) -> None:
    shapes = {
        "fc1.weight": (20, 6), "fc1.bias": (1, 1, 20), "rel.bias": (2, 3, 3),
        "h.0.attn.bias": (1, 1, 9, 9), "h.0.attention.bias": (1, 1, 9, 9),
    }  # fmt: skip
    save_file(
        {name: torch.rand(shape) for name, shape in shapes.items()}, tmp_path / "m.safetensors"
    )
    assert bl.inventory(tmp_path / "m.safetensors").parameters == 20 * 6 + 20 + 18


def test_a_list_of_tensors_is_no_damaged_file(tmp_path: Path) -> None:
    """Seen red: "not a readable file": a list has no children."""
    torch.save([torch.ones(4, 5), torch.ones(5)], tmp_path / "list.pt")
    found = bl.inventory(tmp_path / "list.pt")
    assert (found.tensors, found.parameters) == (2, 25)


def test_the_first_part_of_a_gguf_is_the_model(tmp_path: Path) -> None:
    """Seen red: a folder with a file in two parts held two models."""
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00002-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    names = [path.name for path in models_in(tmp_path)]
    assert names == ["m-00001-of-00002.gguf", "n-00002-of-00002.gguf"]
