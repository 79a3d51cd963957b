"""Models of which no layer is read: an audit says what they are, and compares them."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bilens.base.errors import Retry
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from commands import FILE, USAGE, Shell, assert_one_line, model_folder
from onnx_files import write

FEW = ("--null-samples", 3)


def recurrent(folder: Path, name: str = "a.safetensors", **changes: torch.Tensor) -> Path:
    """Write an LSTM and a convolution."""
    torch.manual_seed(0)
    state = {f"lstm.{key}": one for key, one in nn.LSTM(4, 5).state_dict().items()}
    state |= nn.Conv2d(3, 4, 3).state_dict(prefix="conv.")
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(state | changes, path)
    else:
        torch.save(state | changes, path)
    return path


def read(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    document: dict[str, Any] = result.json()
    return document


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_a_file_without_a_layer_ends_in_an_inventory(
    bilens: Shell, tmp_path: Path, name: str
) -> None:
    path = recurrent(tmp_path, name)
    page = tmp_path / "page.html"
    document = read(bilens("audit", path, *FEW, "--json", "--html", page))
    found = {one["kind"]: (one["count"], one["read"]) for one in document["inventory"]["parts"]}
    assert found == {"lstm": (1, 0), "convolution": (1, 0)}
    assert document["layers"]["readings"] == []
    coverage = document["coverage"]
    numbers = sum(
        one.numel() for one in (*nn.LSTM(4, 5).parameters(), *nn.Conv2d(3, 4, 3).parameters())
    )
    assert (coverage["parameters"], coverage["unread"]) == (numbers, numbers)
    assert document["inventory"]["parameters"] == numbers
    assert document["source"]["weights_sha256"] == document["inventory"]["sha256"]
    assert "LSTM" in page.read_text("utf-8")
    result = bilens("audit", path, *FEW, "--lang", "ja")
    assert "これは何か" in result.out
    assert "no layers" in result.err


def test_a_pickle_says_what_is_in_it_and_how_its_layers_are_read(
    bilens: Shell, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    torch.save(net.state_dict(), tmp_path / "m.pt")
    result = bilens("audit", tmp_path / "m.pt", *FEW)
    assert result.code == 0
    assert "--allow-pickle --activation ACTIVATION" in result.err
    assert "51 weights in 4 tensors" in result.out
    torch.save(net, tmp_path / "whole.pt")
    result = bilens("audit", tmp_path / "whole.pt", *FEW)
    assert "torch.nn.modules.container.Sequential" in result.out
    assert "would import" in result.out


def test_two_files_without_a_layer_are_compared(bilens: Shell, tmp_path: Path) -> None:
    old = recurrent(tmp_path)
    new = recurrent(tmp_path, "b.safetensors", **{"conv.bias": torch.ones(4)})
    document = read(bilens("audit", new, "--baseline", old, *FEW, "--json"))
    assert [one["name"] for one in document["difference"]["whole"]["changed"]] == ["conv.bias"]


FILES = {  # name → bytes of which no tensor is read, and the same with another number
    "m.json": [b'{"learner":{"gradient_booster":{"split_conditions":[%d.5]}}}' % k for k in (1, 2)],
    "m.lz4": [b"\x04\x22\x4d\x18" + bytes([k]) * 20 for k in (1, 2)],
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_opened_is_a_copy_by_its_sha256_alone(
    bilens: Shell, tmp_path: Path, name: str
) -> None:
    (old, new, copy) = (tmp_path / f"{one}-{name}" for one in ("old", "new", "copy"))
    for path, content in zip((old, new, copy), (FILES[name][0], *FILES[name][::-1]), strict=True):
        path.write_bytes(content)
    for path, kind, decided in (
        (new, "not_compared", "what was decided on the baseline does not hold"),
        (copy, "identical", "what was decided on the baseline holds for it"),
    ):
        line = ("audit", path, "--baseline", old, *FEW)
        document = read(bilens(*line, "--json"))
        assert document["difference"]["whole"]["headline"]["kind"] == kind
        assert "changed_tensors" not in [one["rule"] for one in document["verdict"]]
        words = " ".join(bilens(*line).out.split())
        assert decided in words
        assert "0 tensors" not in words


UNKNOWN = {  # name of a kind → name of a file of it, and how it begins
    "fasttext": ("lid.bin", b"\xba\x16\x4f\x2f" + bytes(80)),
    "compressed": ("w.pt", b"\x1f\x8b" + bytes(40)),
    "dynet": ("net.model", b"#Parameter# /w {2,3} 7 ZERO_GRAD\n+1 +2 +3 +4 +5 +6\n"),
    "coreml": ("net.mlmodel", b"\x08\x06"),
    "trees": ("trees.bin", b"tree\nversion=v4\n\nTree=0\n"),
    "lightgbm": ("trees.txt", b"tree\nversion=v4\n\nTree=0\n"),
    "catboost": ("m.ckpt", b"CBM1" + bytes(20)),
}


@pytest.mark.parametrize("kind", [*UNKNOWN, "pipeline", "package"])
def test_an_audit_of_what_can_be_inventoried_ends_in_the_inventory(
    bilens: Shell, tmp_path: Path, kind: str
) -> None:
    """Whatever the kind and however the file is called."""
    path = tmp_path / "m"
    path.mkdir()
    if kind == "pipeline":
        (path / "ner").mkdir()
        np.savez(path / "ner" / "model", w=np.ones((2, 3)))
    elif kind == "package":
        (path / "Data" / "com").mkdir(parents=True)
        (path / "Data" / "com" / "model.mlmodel").write_bytes(b"\x08\x06")
        (path / "Manifest.json").write_text("{}")
    else:
        name, start = UNKNOWN[kind]
        path = path / name
        path.write_bytes(start)
    assert bilens("inspect", path).code == 0
    result = bilens("audit", path, *FEW)
    assert result.code == 0, result.err
    assert "Inventoried; its function was not read" in " ".join(result.out.split())


def test_a_file_of_no_known_kind_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"no weights at all")
    code = (
        "import sys; from bilens.cli import main; sys.argv = ['bilens', 'audit', sys.argv[1]]\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.dat"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (3, "False")


def test_a_graph_with_another_operation_is_no_copy(bilens: Shell, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    weights = {"w": np.ones((3, 4), np.float32), "v": np.arange(6, dtype=np.float32)[:, None]}
    for name, kinds in (("old", "Relu Tanh"), ("new", "Sigmoid Tanh"), ("turned", "Tanh Relu")):
        first, second = kinds.split()
        nodes = [(first, "x", "a"), (second, "a", "b"), ("Einsum", "b w v", "y", {"equation": ""})]
        write(tmp_path / f"{name}.onnx", nodes, weights)
    for name, said in (
        ("new", "Relu 1 → 0, Sigmoid 0 → 1"),
        ("turned", "Tanh a: operation ai.onnx Relu → ai.onnx Tanh"),
    ):
        result = bilens("audit", tmp_path / f"{name}.onnx", "--baseline", tmp_path / "old.onnx")
        words = " ".join(result.out.split())
        assert result.code == 0, result.err
        assert said in words
        assert "holds for it" not in words


def test_what_is_damaged_or_cannot_be_run_is_still_one_sentence(
    bilens: Shell, tmp_path: Path
) -> None:
    path = recurrent(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    result = bilens("audit", path, "--data", tmp_path / "x.csv")
    assert (result.code, "no layer is read: omit them" in result.err) == (USAGE, True)
    path.write_bytes(path.read_bytes()[:-3])
    assert_one_line(bilens("audit", path), FILE, ["is not a readable safetensors file"])
    (tmp_path / "x.dat").write_bytes(b"no weights at all")
    assert_one_line(bilens("audit", tmp_path / "x.dat"), FILE, ["not a supported model file"])


def test_a_sparse_autoencoder_is_told_to_be_one(bilens: Shell, tmp_path: Path) -> None:
    import bilens as bl

    bl.save(bl.nn.TopKSAE(4, 6, 2), tmp_path / "sae")
    document = read(bilens("audit", tmp_path / "sae", *FEW, "--json"))
    assert document["inventory"]["tensors"] > 0


def test_a_folder_is_told_file_by_file(bilens: Shell, tmp_path: Path) -> None:
    recurrent(tmp_path, "a.safetensors")
    (tmp_path / "notes.txt").write_text("no model")
    result = bilens("audit", tmp_path, *FEW)
    assert "notes.txt: no model" in result.err
    result = bilens("inspect", tmp_path, "--json")
    assert [one["name"] for one in json.loads(result.out)["files"]] == [
        "a.safetensors",
        "notes.txt",
    ]


def test_what_is_read_and_what_is_not_is_counted_as_coverage_does(
    bilens: Shell, tmp_path: Path
) -> None:
    exact = read(bilens("audit", model_folder(tmp_path / "m"), "--null-samples", 39, "--json"))
    assert exact["coverage"]["unread"] == 0
    assert all(one["read"] == one["count"] > 0 for one in exact["inventory"]["parts"])
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    save_file(net.state_dict(), tmp_path / "m.safetensors")
    line = ("audit", tmp_path / "m.safetensors", "--activation", "relu", *FEW, "--json")
    assumed = read(bilens(*line))  # an input that nobody gave
    assert [one["read"] for one in assumed["inventory"]["parts"]] == [0]


@pytest.mark.parametrize("damage", ["a bit", "a cut"])
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_a_damaged_file_of_arrays_is_refused_in_one_sentence(
    name: str, damage: str, bilens: Shell, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, w=np.ones((8, 8)))
    else:
        np.save(path, np.ones((8, 8)))
    data = path.read_bytes()
    if damage == "a cut":
        path.write_bytes(data[:300])
    elif name == "a.npz":
        path.write_bytes(data[:300] + b"x" + data[301:])
    else:
        return  # nothing in it tells
    assert_one_line(bilens("audit", path), FILE, [name])


def test_a_folder_of_a_graph_and_its_numbers_is_one_model(bilens: Shell, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    matrix = np.ones((4, 4), np.float32)
    path = write(
        tmp_path / "m.onnx", [("MatMul", "x w", "y")], {"w": matrix},
        save_as_external_data=True, location="w.bin", size_threshold=0,
    )  # fmt: skip
    assert (path.parent / "w.bin").exists()
    assert read(bilens("audit", tmp_path, "--json", *FEW))["coverage"]["parameters"] == 16


def test_options_that_are_suggested_are_as_a_shell_takes_them(tmp_path: Path) -> None:
    roles = {"up": "my net/w 1"}
    retry = Retry("a file", {"roles": roles, "module_class": "m.net(num_classes=7)"})
    line = retry.line("bilens", "audit")
    words = ["--map", "up=my net/w 1", "--class", "m.net(num_classes=7)"]
    assert shlex.split(line) == ["bilens", "audit", "a file", *words]
    assert shlex.split(retry.line()) == words
    square = {"fc1.weight": torch.ones(4, 4), "fc2.weight": torch.ones(4, 4)}
    save_file(square, tmp_path / "m.safetensors")
    said = open_any(tmp_path / "m.safetensors", ReadOptions()).provenance["read"]
    assert "--no-transposed, or --activation ACTIVATION --transposed." in said
