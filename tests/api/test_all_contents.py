"""Guards against a tensor of a file that a comparison neither compares nor counts as left out."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from bilens.records.tensor_changes import WholeDifference

Write = Callable[[Path, Any], None]
TABLE = np.random.default_rng(0).normal(size=(6, 4)).astype("f")


def compared(path: Path, baseline: Path) -> WholeDifference:
    both = (
        open_any(one, ReadOptions(allow_pickle=True), compared=True) for one in (path, baseline)
    )
    model, before = both
    difference = bl.audit(model, baseline=before).record.difference
    assert difference is not None
    assert difference.whole is not None
    return difference.whole


def of_safetensors(kind: str, count: int, size: int) -> Write:
    """Return what writes a file by hand, numbers of a type in bytes of one value."""

    def write(path: Path, value: Any) -> None:
        ends = {"emb": [0, 96], "t": [96, 96 + size]}
        about = {
            "emb": {"dtype": "F32", "shape": [6, 4], "data_offsets": ends["emb"]},
            "t": {"dtype": kind, "shape": [2, count // 2], "data_offsets": ends["t"]},
        }
        text = json.dumps(about).encode()
        text += b" " * (-len(text) % 8)
        content = struct.pack("<Q", len(text)) + text + TABLE.tobytes() + bytes([value]) * size
        path.with_suffix(".safetensors").write_bytes(content)

    return write


def with_codes_beside(name: str) -> Write:
    """Return what writes tensors of which one differs, beside another one of uint16."""

    def write(path: Path, value: Any) -> None:
        held = {
            "emb": torch.from_numpy(TABLE), "bn.running_mean": torch.ones(4),
            "ids": torch.arange(6), "keep": torch.ones(6, dtype=torch.bool),
            "rel.bias": torch.ones(1, 2, 2), "u": torch.arange(3).to(torch.uint16),
        }  # fmt: skip
        held[name] = held[name] if value == 1 else (held[name].long() + 1).to(held[name].dtype) * 0
        save_file(held, path.with_suffix(".safetensors"))

    return write


def arrays(path: Path, value: Any) -> None:
    np.savez(path.with_suffix(".npz"), emb=TABLE, t=value)


def groups(path: Path, value: Any) -> None:
    with pytest.importorskip("h5py").File(path.with_suffix(".h5"), "w") as file:
        file["emb"], file["t"] = TABLE, value


def graph(path: Path, value: Any) -> None:
    onnx = pytest.importorskip("onnx")
    arrays = {"w": np.ascontiguousarray(TABLE[:4]), "e": np.asarray(value)}
    held = [onnx.numpy_helper.from_array(one, name) for name, one in arrays.items()]
    make = onnx.helper.make_tensor_value_info
    ends = [make("y", 1, ["n", 4]), make("z", held[1].data_type, None)]
    nodes = [("MatMul", ["x", "w"], ["y"]), ("Identity", ["e"], ["z"])]
    made = [onnx.helper.make_node(*node) for node in nodes]
    whole = onnx.helper.make_graph(made, "g", [make("x", 1, ["n", 4])], ends, held)
    onnx.save(onnx.helper.make_model(whole), str(path.with_suffix(".onnx")))


COUNTS: Any = np.arange(4)
FILES: dict[str, tuple[Write, Any, Any]] = {
    "BOOL": (of_safetensors("BOOL", 8, 8), 0, 1),
    **{kind: (of_safetensors(kind, 8, size), 17, 34) for kind, size in (
        ("U16", 16), ("U32", 32), ("U64", 64), ("I32", 32),  ("C64", 64),
        ("F8_E8M0", 8), ("F4", 4), ("F6_E2M3", 6), ("OF_LATER_16", 16), ("OF_LATER_3", 3),
    )},
    **{f"{name} beside uint16": (with_codes_beside(name), 1, 2)
       for name in ("bn.running_mean", "ids", "keep", "rel.bias", "u")},
    **{f"{kind} {write.__name__}": (write, one, other) for write in (arrays, groups, graph)
       for kind, one, other in (
        ("uint16", COUNTS.astype("u2"), COUNTS[::-1].astype("u2")),
        ("uint64", COUNTS.astype("u8") + 2**60, COUNTS.astype("u8") + 2**60 + (COUNTS == 1)),
        ("int64", COUNTS + 2**60, COUNTS + 2**60 + (COUNTS == 1)),
        ("bool", COUNTS > 1, COUNTS > 2),
        ("complex", COUNTS * (1 + 1j), COUNTS * (1 + 2j)),
        ("one", np.float64(1), np.float64(1 + 1e-12)),
    )},
    "text graph": (graph, np.array(["a", "b"], object), np.array(["a", "c"], object)),
    "text arrays": (arrays, np.array(["a", "b"]), np.array(["a", "c"])),
    "big-endian arrays": (arrays, COUNTS.astype(">f4"), COUNTS.astype(">f4") * 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_tensor_of_any_type_is_compared(kind: str, tmp_path: Path) -> None:
    write, one, other = FILES[kind]
    for name, value in (("old", one), ("same", one), ("new", other)):
        write(tmp_path / name, value)
    old, same, new = (next(tmp_path.glob(f"{name}.*")) for name in ("old", "same", "new"))
    assert compared(same, old).changed == ()
    found = compared(new, old)
    assert found.headline is not None
    assert len(found.changed) == 1
    assert found.headline.kind in ("differ", "reordered", "unrelated")
    assert found.headline.differing == 1
    assert not any(found.headline.unread)


def test_objects_are_not_opened_and_counted(tmp_path: Path) -> None:
    for name, value in (("old", {1}), ("new", {2})):
        np.savez(tmp_path / f"{name}.npz", emb=TABLE, t=np.array([value], object))
    found = compared(tmp_path / "new.npz", tmp_path / "old.npz").headline
    assert found is not None
    assert (found.kind, found.unread) == ("not_compared", (1, 1))


def test_codes_that_are_unpacked_are_compared_with_their_scales(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    paths = [tmp_path / f"{name}.onnx" for name in ("old", "same", "code", "scale")]
    codes = np.arange(64, dtype="i1").reshape(4, 16)
    for path, code, scale in zip(paths, (0, 0, 1, 0), (0.1, 0.1, 0.1, 0.2), strict=True):
        held = {"w": codes + np.int8(code), "s": np.float32(scale), "z": np.int8(0)}
        make, onto = onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
        nodes = [("DequantizeLinear", ["w", "s", "z"], ["f"]), ("MatMul", ["x", "f"], ["h"])]
        nodes += [("Relu", ["h"], ["r"]), ("MatMul", ["r", "v"], ["y"])]
        held["v"] = np.random.default_rng(1).normal(size=(16, 3)).astype("f")
        whole = onnx.helper.make_graph(
            [onnx.helper.make_node(*node) for node in nodes], "g", [make("x", 1, ["n", 4])],
            [make("y", 1, ["n", 3])], [onto(one, name) for name, one in held.items()],
        )  # fmt: skip
        onnx.save(onnx.helper.make_model(whole), str(path))
    old, same, code, scale = paths
    assert compared(same, old).changed == ()
    for new in (code, scale):
        found = compared(new, old)
        assert [one.name for one in found.changed] == ["w"]
        assert found.headline is not None
        assert (found.headline.kind, found.headline.unread) == ("differ", (0, 0))
        assert found.headline.types == ("int8",)


KERAS = {
    "class_name": "Sequential",
    "config": {
        "name": "s",
        "layers": [{"class_name": "Dense", "config": {"name": "d", "activation": "relu"}}],
    },
}


@pytest.mark.parametrize("before_3", [True, False])
@pytest.mark.parametrize("name", ["optimizer_net/w", "other/w", "optimizer", "model_weights_2/w"])
def test_arrays_beside_the_weights_of_keras_are_compared(
    name: str, before_3: bool, tmp_path: Path
) -> None:
    both = [tmp_path / f"{each}.h5" for each in ("new", "old")]
    for factor, path in enumerate(both):
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["model_weights/d/kernel:0" if before_3 else "d/kernel:0"] = TABLE
            file[name] = factor * TABLE
            file["optimizer_weights/m"] = factor * TABLE
            if before_3:
                file.attrs["model_config"] = json.dumps(KERAS)
    whole = compared(both[0], both[1])
    assert whole.headline is not None
    assert (whole.headline.kind, whole.headline.names) == ("differ", (name,))
    assert whole.not_compared == ("optimizer_weights",)
    with pytest.importorskip("h5py").File(both[0], "a") as file:
        del file[name]
    whole = compared(both[0], both[1])
    assert whole.headline is not None
    assert (whole.headline.alone, whole.baseline_alone) == (1, (name,))
    told = [one.operation for one in getattr(whole.headline.graph, "settings", None) or ()]
    assert told == (["tensors"] if before_3 else [])


def test_the_state_of_a_training_is_named(tmp_path: Path) -> None:
    state = {"w": torch.from_numpy(TABLE)}
    more = {"opt": {"state": {0: torch.ones(4)}, "param_groups": []}, "epoch": 3}
    torch.save({"state_dict": state, **more}, tmp_path / "old.pt")
    torch.save({"state_dict": state}, tmp_path / "new.pt")
    one, other = (tmp_path / f"{name}.pt" for name in ("new", "old"))
    for both in ((one, other), (other, one)):
        whole = compared(*both)
        assert whole.headline is not None
        assert whole.headline.kind == "same_tensors"
        assert whole.not_compared == ("epoch", "opt")
    assert compared(other, other).not_compared == ()
    model, baseline = (
        open_any(each, ReadOptions(allow_pickle=True), True) for each in (one, other)
    )
    report = bl.audit(model, baseline=baseline)
    assert "Not compared: 2 files or parts of files (epoch, opt)." in report.to_markdown()
