"""ONNX files: every layer is what onnx's own evaluator computes, and the rest is listed."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import CheckpointError, MemoryLimitError, NonFiniteError, NumericalError
from bilens.findings.coverage import measure_coverage
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from builders import randn
from raising import refusal

onnx = pytest.importorskip("onnx")
from onnx_files import export, matrices, write  # noqa: E402

D, H = 5, 8


class Gated(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], fused: bool = False) -> None:
        super().__init__()
        self.function, self.fused = function, fused
        self.gate = nn.Linear(D, 2 * H if fused else H)
        self.up, self.down = nn.Linear(D, H, bias=False), nn.Linear(H, D)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            gate, up = self.gate(x).split(H, dim=-1)
        else:
            gate, up = self.gate(x), self.up(x)
        y: Tensor = x + self.down(self.function(gate) * up)
        return y


class Sequences(nn.Sequential):
    """Runs on sequences, whose linear maps are exported as products and sums."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, None])[:, 0]  # type: ignore[no-any-return]


class Sliced(Gated):
    """A gate, a branch and a path past both in one product, cut in parts of several sizes."""

    def __init__(self, by_split: bool) -> None:
        super().__init__(functional.silu)
        self.gate, self.by_split = nn.Linear(D, 2 * H + D), by_split

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(x)
        parts = y[..., :H], y[..., H : 2 * H], y[..., 2 * H :]
        gate, up, past = y.split([H, H, D], dim=-1) if self.by_split else parts
        z: Tensor = past + self.down(self.function(gate) * up)
        return z


def normalised() -> nn.Module:
    norm = nn.BatchNorm1d(H)
    model = nn.Sequential(nn.Linear(D, H), nn.Tanh(), norm, nn.Linear(H, 3), nn.BatchNorm1d(3))
    for _ in range(3):
        model(3 + randn(20, D).float())
    assert norm.bias is not None
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return model


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(D, H), activation, nn.Linear(H, 3))


EXPORTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "relu": (lambda: mlp(nn.ReLU()), "relu"),
    "gelu": (lambda: mlp(nn.GELU()), "gelu"),
    "gelu tanh": (lambda: mlp(nn.GELU("tanh")), "gelu_tanh"),
    "silu": (lambda: mlp(nn.SiLU()), "silu"),
    "leaky": (lambda: mlp(nn.LeakyReLU(0.2)), "leaky_relu"),
    "tanh": (lambda: mlp(nn.Tanh()), "tanh"),
    "sigmoid": (lambda: mlp(nn.Sigmoid()), "sigmoid"),
    "dropout": (lambda: mlp(nn.Sequential(nn.ReLU(), nn.Dropout(0.3))), "relu"),
    "bilinear": (lambda: Gated(lambda t: t), "identity"),
    "SwiGLU": (lambda: Gated(functional.silu), "silu"),
    "fused": (lambda: Gated(functional.gelu, fused=True), "gelu"),
    "fused, of sequences": (lambda: Sequences(Gated(functional.silu, fused=True)), "silu"),
    "sliced": (lambda: Sliced(by_split=False), "silu"),
    "split in several sizes": (lambda: Sliced(by_split=True), "silu"),
    "normalised": (normalised, "tanh"),
    "GLU": (lambda: nn.Sequential(nn.Linear(D, 8), nn.GLU(), nn.Linear(4, 2)), "sigmoid"),
}


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("name", EXPORTED)
def test_what_torch_exports_is_read(tmp_path: Path, name: str, opset: int) -> None:
    torch.manual_seed(0)
    build, activation = EXPORTED[name]
    module = build()
    model = bl.load(export(module, randn(2, D).float(), tmp_path / "m.onnx", opset_version=opset))
    (view,) = model.layers.values()
    assert view.activation.name == activation
    assert model.load_report is not None
    (check,) = model.load_report.checks.values()
    assert check.source.startswith(("onnx's reference evaluator", "onnxruntime"))
    x = randn(20, D)
    with torch.no_grad():
        expected = module.double().eval()(x)
    torch.testing.assert_close(view.weights(torch.float64)(x), expected, atol=1e-6, rtol=1e-6)
    weights = (t.read_tensor() for t in model.tensors.values() if t.is_weight)
    assert sum(t.numel() for t in weights) == sum(view.tensors.values())


def test_a_network_is_read_end_to_end(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)
    )
    model = bl.load(export(module, randn(2, 2, 3).float(), tmp_path / "m.onnx"))
    assert len(model.network) == 2
    x = randn(9, 2, 3)
    y = x.flatten(1)
    for view in model.network:
        y = view.weights(torch.float64)(y)
    with torch.no_grad():
        torch.testing.assert_close(y, module.double()(x), atol=1e-6, rtol=1e-6)


def test_a_convolutional_network_is_read_in_part(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 2, 3),
    )
    module(randn(9, 3, 16, 16).float())
    model = bl.load(export(module, randn(1, 3, 16, 16).float(), tmp_path / "m.onnx"))
    (view,) = model.layers.values()
    assert view.about_input.startswith("a patch of 3×3×3 at each place in steps of 2")
    assert model.load_report is not None
    assert [text for text in model.load_report.left_out if "5.weight" in text]


@pytest.mark.parametrize(("axis", "rank"), [(0, 2), (1, 2), (-1, 2), (1, 3), (2, 3), (-1, 3)])
def test_a_softmax_is_one_of_classes_along_the_last_axis(
    tmp_path: Path, axis: int, rank: int
) -> None:
    class Behind(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(axis)  # type: ignore[no-any-return]

    x = torch.zeros((1, 4, D)[3 - rank :])
    model = bl.load(export(Behind(mlp(nn.ReLU())), x, tmp_path / "m.onnx"))
    assert model.load_report is not None
    assert bool(model.load_report.head) == bool(model.network) == (axis in (-1, rank - 1))


CHAIN = [
    ("MatMul", "x w0", "a"), ("Add", "a b0", "p"), ("Relu", "p", "h"),
    ("MatMul", "h w1", "c"), ("Add", "c b1", "y"),
]  # fmt: skip


def test_every_tensor_is_listed_wherever_it_lies(tmp_path: Path) -> None:
    """Packed numbers, constants, trees and the graphs inside nodes are no silent rest."""
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["deep"], ["z"])], "inner", [],
        [onnx.helper.make_tensor_value_info("z", 1, None)],
        [onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "deep")],
    )  # fmt: skip
    nodes: list[Any] = [
        *CHAIN[:-1], ("Add", "c b1", "d"),
        ("If", "flag", "e", {"then_branch": inner, "else_branch": inner}),
        ("Constant", "", "k", {"value": onnx.numpy_helper.from_array(np.ones((4, 3), np.float32))}),
        ("DequantizeLinear", "packed scale", "q"), ("MatMul", "q k", "r"), ("Add", "d r", "y"),
    ]  # fmt: skip
    packed = {"packed": np.ones((1, 4), np.int8), "scale": np.float32(0.1), "flag": np.array(True)}
    model = bl.load(write(tmp_path / "m.onnx", nodes, {**matrices(D, H, 3), **packed}))
    read = {name for view in model.layers.values() for name in view.tensors}
    assert read == {"w0", "b0", "w1", "b1"}
    deep = {"e.then_branch.deep", "e.else_branch.deep"}
    weights = {name for name, one in model.tensors.items() if one.is_weight}
    assert weights == {*read, "packed", "k", *deep}  # and no numbers without axes
    assert {*model.tensors} == {*weights, "flag"}  # which are compared with other files' alone
    assert model.tensors["packed"].dtype.is_floating_point  # counts as weights
    assert model.load_report is not None
    assert "tensor packed" in model.load_report.left_out


@pytest.mark.parametrize("opset", [10, 13, 17, 18, 19, 21])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_packed_weights_of_any_version_are_unpacked(
    tmp_path: Path, opset: int, axis: int | None
) -> None:
    """(x − zero point) · scale, of the whole tensor or along an axis, as since version 13."""
    axis = None if opset < 13 else axis
    packed = np.random.default_rng(0).integers(0, 255, (D, H)).astype(np.uint8)
    scale = np.float32(0.02) if axis is None else np.linspace(0.01, 0.02, (D, H)[axis], dtype="f4")
    zero = np.full(np.shape(scale), 120, np.uint8)
    said = {} if axis is None else {"axis": axis}
    nodes: list[Any] = [
        ("DequantizeLinear", "q s z", "w0", said), ("DequantizeLinear", "n s1", "b0"), *CHAIN,
    ]  # fmt: skip
    rest = {"w1": matrices(D, H, 3)["w1"], "b1": matrices(D, H, 3)["b1"]}
    tensors = {"q": packed, "s": scale, "z": zero, "n": np.arange(H, dtype="i4"), **rest}
    tensors["s1"] = np.float32(0.5)
    model = bl.load(write(tmp_path / "m.onnx", nodes, tensors, opset))
    (view,) = model.layers.values()
    wide = scale if axis is None else np.expand_dims(scale, 1 - axis)
    expected = torch.from_numpy((packed.astype("f8") - 120) * wide).T
    layer = view.weights(torch.float64)
    torch.testing.assert_close(layer.up, expected, atol=1e-6, rtol=0)  # type: ignore[union-attr]
    bias = torch.arange(H, dtype=torch.float64) / 2
    torch.testing.assert_close(layer.up_bias, bias)  # type: ignore[union-attr]


@pytest.mark.parametrize("off", [1e-3, -1e-3])
def test_packed_weights_that_are_unpacked_wrongly_are_found(tmp_path: Path, off: float) -> None:
    """The tolerance is that of rounding: a scale that is one part in a thousand off is beyond."""
    from bilens.io.formats import onnx as reader

    packed = np.random.default_rng(0).integers(0, 255, (D, H)).astype(np.uint8)
    nodes: list[Any] = [("DequantizeLinear", "q s z", "w0"), *CHAIN]
    rest = {name: one for name, one in matrices(D, H, 3).items() if name != "w0"}
    tensors = {"q": packed, "s": np.float32(0.02), "z": np.uint8(120), **rest}
    path = write(tmp_path / "m.onnx", nodes, tensors, 13)
    assert len(bl.load(path).layers) == 1
    with pytest.MonkeyPatch.context() as patch:
        run = reader.run_nodes

        def unpack(model: Any, nodes: list[Any], *given: Any) -> Any:
            is_code = nodes[0].op_type == "DequantizeLinear"
            return run(model, nodes, *given) * (1 + off if is_code else 1)

        patch.setattr(reader, "run_nodes", unpack)
        refusal(NumericalError, "another function than its source", bl.load, path)


@pytest.mark.parametrize(
    "names", [("half", "train"), ("fc.float", "fc"), ("a", "a.b"), ("x..y", ".")]
)
def test_tensors_have_any_names(tmp_path: Path, names: tuple[str, str]) -> None:
    """Those of methods of a module of torch, and of one within another."""
    called = dict(zip(("w0", "b0"), names, strict=True))
    nodes = [
        (kind, " ".join(called.get(one, one) for one in given.split()), made)
        for kind, given, made in CHAIN
    ]
    tensors = {called.get(one, one): array for one, array in matrices(D, H, 3).items()}
    model = bl.load(write(tmp_path / "m.onnx", nodes, tensors))
    (view,) = model.layers.values()
    assert {*view.tensors} == {*names, "w1", "b1"} == {*model.tensors}


def test_what_only_looks_like_a_layer_is_found_out(tmp_path: Path) -> None:
    """A reading is compared with the operations of the file, not with our own of them."""
    from bilens.io.formats import onnx as reader

    good = bl.load(write(tmp_path / "m.onnx", CHAIN, matrices(D, H, 3)))
    assert len(good.layers) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reader.FUNCTIONS, "Relu", torch.tanh)
        with pytest.raises(CheckpointError, match=r"what was read differs by .* from the module"):
            bl.load(tmp_path / "m.onnx")


class RuntimeHere:
    """Stands in for a session of onnxruntime: what the evaluator gives times a number."""

    factor: float | None = 1.0  # None where it opens no file

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        options.add_session_config_entry.assert_called_with("session.disable_quant_qdq", "1")
        if self.factor is None:
            raise RuntimeError("Unsupported model IR version")
        assert providers == ["CPUExecutionProvider"]
        self.evaluator = onnx.reference.ReferenceEvaluator(onnx.load(path))

    def run(self, names: None, given: dict[str, Any]) -> list[Any]:
        assert self.factor is not None
        return [self.factor * one for one in self.evaluator.run(names, given)]


def whole_file(path: Path) -> Any:
    """Return what a network in a file was compared with, as a whole."""
    model = bl.load(write(path, CHAIN, matrices(D, H, 3)))
    assert model.load_report is not None
    (check,) = model.load_report.checks.values()
    assert check.passed
    return check.source


def test_a_file_is_compared_with_onnxruntime_as_a_whole(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert whole_file(tmp_path / "m.onnx") == "onnxruntime on the whole file"


def test_onnxruntime_goes_before_the_evaluator_and_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx.reference")
    path = tmp_path / "m.onnx"
    runtime = SimpleNamespace(InferenceSession=RuntimeHere, SessionOptions=Mock)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    assert whole_file(path) == "onnxruntime on the whole file"
    monkeypatch.setattr(RuntimeHere, "factor", 1.01)
    refusal(NumericalError, "another function than its source", bl.load, path)
    monkeypatch.setattr(RuntimeHere, "factor", None)  # as if it were too old for the file
    assert whole_file(path) == "onnx's reference evaluator on the whole file"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    assert whole_file(path) == "onnx's reference evaluator on the whole file"


@pytest.mark.parametrize("to", ["FLOAT", "DOUBLE", "INT32", "BOOL"])
@pytest.mark.parametrize("kind", ["Cast", "CastLike"])
def test_a_cast_to_other_than_floats_is_not_read(tmp_path: Path, kind: str, to: str) -> None:
    """Relu, then whole numbers or truth values, is no ReLU."""
    number = getattr(onnx.TensorProto, to)
    like = np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(number))
    cast: Any = ("Cast", "h", "k", {"to": number}) if kind == "Cast" else (kind, "h like", "k")
    nodes = [*CHAIN[:3], cast, ("Cast", "k", "f", {"to": 1}), ("MatMul", "f w1", "y")]
    path = write(tmp_path / "m.onnx", nodes, {**matrices(D, H, 3), "like": like})
    if kind == "Cast" and to in ("INT32", "BOOL"):
        refusal(CheckpointError, "no MLP is found.*the operation Cast", bl.load, path)
    else:
        (view,) = bl.load(path).layers.values()
        assert ("w1" in view.tensors) == (to in ("FLOAT", "DOUBLE"))


def external(folder: Path, location: str) -> Path:
    path = write(
        folder / "m.onnx", CHAIN, matrices(D, H, 3), save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_tensors_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    (view,) = bl.load(external(tmp_path, "w.bin")).layers.values()
    expected = torch.from_numpy(matrices(D, H, 3)["w0"]).T
    torch.testing.assert_close(view.weights().up, expected)  # type: ignore[union-attr]


def with_nan() -> dict[str, np.ndarray]:
    found = matrices(D, H, 3)
    found["w1"][2, 1] = np.nan
    return found


def linked(folder: Path) -> Path:
    path = external(folder, "link.bin")
    (folder.parent / "secret.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    return path


def cut(folder: Path, share: float) -> Path:
    path = write(folder / "m.onnx", CHAIN, matrices(D, H, 3))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def text(folder: Path, content: bytes) -> Path:
    (folder / "m.onnx").write_bytes(content)
    return folder / "m.onnx"


def lying(folder: Path) -> Path:
    """A tensor that claims a terabyte."""
    path = write(folder / "m.onnx", CHAIN, matrices(D, H, 3))
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    return text(folder, model.SerializeToString())


BAD: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "empty": (lambda folder: text(folder, b""), CheckpointError, "is empty"),
    "noise": (lambda folder: text(folder, b"\x93ONNX" * 99), CheckpointError, "no readable ONNX"),
    "arrays": (lambda folder: text(folder, b"\x93NUMPY" * 99), CheckpointError, "arrays of NumPy"),
    "half": (lambda folder: cut(folder, 0.5), CheckpointError, "no readable ONNX file"),
    "nearly all": (lambda folder: cut(folder, 0.99), CheckpointError, "no readable ONNX"),
    "a lie": (lying, CheckpointError, "no readable ONNX file"),
    "NaN": (
        lambda folder: write(folder / "m.onnx", CHAIN, with_nan()), NonFiniteError, "'w1' holds 1",
    ),
    "outside": (lambda folder: external(folder, "../w.bin"), CheckpointError, "outside of its"),
    "absolute": (lambda folder: external(folder, "/etc/passwd"), CheckpointError, "outside of"),
    "a link": (linked, CheckpointError, "is a link to .*, outside of its folder"),
    "missing": (lambda folder: external(folder, "v.bin"), CheckpointError, "FileNotFound.*v.bin"),
    "no MLP": (
        lambda folder: write(folder / "m.onnx", [("Conv", "x w0", "y")], matrices(D, H)),
        CheckpointError, "no MLP is found.*Not read: .*tensor w0",
    ),
    "dangling": (
        lambda folder: write(folder / "m.onnx", [("Relu", "a", "y")], {}),
        CheckpointError, "KeyError: 'a'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    build, error, words = BAD[name]
    folder = tmp_path / "inner"
    folder.mkdir()
    refusal(error, words, bl.load, build(folder))


def test_a_file_that_would_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.onnx", CHAIN, matrices(D, H, 3))
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    with pytest.raises(MemoryLimitError, match="load a smaller file"):
        bl.load(path)


# ---- graphs inside nodes


def body_of(name: str, given: list[str], nodes: list[Any], end: str, held: dict[str, Any]) -> Any:
    """A graph for an attribute of a node."""
    helper, made = onnx.helper, []
    for kind, inputs, outputs in nodes:
        made.append(helper.make_node(kind, inputs.split(), outputs.split()))
    infos = [[helper.make_tensor_value_info(n, 1, None) for n in part] for part in (given, [end])]
    stored = [onnx.numpy_helper.from_array(array, called) for called, array in held.items()]
    return helper.make_graph(made, name, *infos, stored)


def by_hand(w: dict[str, np.ndarray], x: Tensor, outer: dict[str, Any] | None = None) -> Tensor:
    w0, b0, w1, b1 = (
        torch.from_numpy({**(outer or {}), **w}[n]).double() for n in matrices(1, 1, 1)
    )
    return (x @ w0 + b0).relu() @ w1 + b1


INSIDE = [(*one[:2], one[2].replace("y", "z")) for one in CHAIN]


@pytest.mark.parametrize("outside", [[], ["w1"], ["w0", "b0", "w1", "b1"]])
def test_layers_in_the_branches_of_an_if_are_read(tmp_path: Path, outside: list[str]) -> None:
    """Both branches use the same names, and weights of the graph around them."""
    first, second = matrices(D, H, 3), matrices(D, H, 3, seed=1)
    outer = {name: first.pop(name) for name in outside}
    second = {name: array for name, array in second.items() if name not in outside}
    branches = {
        f"{part}_branch": body_of(part, [], INSIDE, "z", held)
        for part, held in (("then", first), ("else", second))
    }
    nodes: list[Any] = [
        ("ReduceSum", "x", "s", {"keepdims": 0}), ("Greater", "s zero", "flag"),
        ("If", "flag", "y", branches),
    ]  # fmt: skip
    path = write(tmp_path / "m.onnx", nodes, {"zero": np.float32(0), **outer})
    model = bl.load(path)
    x = randn(1, D).float()
    owner = onnx.reference.ReferenceEvaluator(str(path))
    assert len(model.layers) == 2
    assert not model.network  # which of them runs is not known
    for (name, view), part in zip(model.layers.items(), ("else", "then"), strict=True):
        held = first if part == "then" else second
        if len(outside) < 4:
            assert name == f"y.{part}_branch"
        assert view.about_input.endswith("holds" if part == "then" else "does not hold")
        way = x if (part == "then") == bool(x.sum() > 0) else -x
        (told,) = owner.run(None, {"x": way.numpy()})
        made = view.weights(torch.float64)(way.double())
        torch.testing.assert_close(made, torch.from_numpy(told).double(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made, by_hand(held, way.double(), outer))
    assert len({*model.tensors} - {"zero"}) == 8 - len(outside)


def test_layers_in_a_loop_and_in_a_scan_are_read(tmp_path: Path) -> None:
    weights = matrices(D, H, D)
    inside = [(*one[:2], one[2].replace("y", "z")) for one in CHAIN]
    keep = ("Identity", "go", "more")
    loop = body_of("turns", ["i", "go", "x"], [*inside, keep], "z", weights)
    kinds = onnx.TensorProto
    helper = onnx.helper
    ends = [
        helper.make_tensor_value_info(*one, []) for one in (("i", kinds.INT64), ("go", kinds.BOOL))
    ]
    loop.input[0].CopyFrom(ends[0])
    loop.input[1].CopyFrom(ends[1])
    loop.output.insert(0, helper.make_tensor_value_info("more", kinds.BOOL, []))
    scan = body_of("scan", ["x"], inside, "z", matrices(D, H, 3, seed=1))
    nodes: list[Any] = [
        ("Loop", "turns true x", "t", {"body": loop}),
        ("Scan", "t", "y", {"body": scan, "num_scan_inputs": 1}),
    ]  # fmt: skip
    tensors = {"turns": np.array(3), "true": np.array(True)}
    path = write(tmp_path / "m.onnx", nodes, tensors)
    model = bl.load(path)
    assert [*model.layers] == ["t.body", "y.body"]
    looped, scanned = model.layers.values()
    assert looped.about_input.endswith("run in each turn of the Loop t")
    x = randn(4, D)
    y = x
    for _ in range(3):
        y = looped.weights(torch.float64)(y)
    y = scanned.weights(torch.float64)(y)
    (told,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x.float().numpy()})
    torch.testing.assert_close(y, torch.from_numpy(told).double(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("twice", [False, True])
def test_layers_in_functions_are_read(tmp_path: Path, twice: bool) -> None:
    """A function of the file, which is called once or twice."""
    width = D if twice else 3
    names = [*matrices(D, H, width)]
    made = [onnx.helper.make_node(k, i.split(), o.split()) for k, i, o in CHAIN]
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("mine", 1)]
    function = onnx.helper.make_function("mine", "MLP", ["x", *names], ["y"], made, opsets[:1])
    calls = [("x", "h" if twice else "y")] + [("h", "y")] * twice
    path = write(tmp_path / "m.onnx", [], matrices(D, H, width))
    model = onnx.load(path)
    model.graph.node.extend(
        onnx.helper.make_node("MLP", [a, *names], [b], domain="mine") for a, b in calls
    )
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    onnx.save(model, path)
    found = bl.load(path)
    x = randn(7, D)
    (told,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x.float().numpy()})
    assert len(found.network) == len(calls)
    y = x
    for view in found.network:
        y = view.weights(torch.float64)(y)
    torch.testing.assert_close(y, torch.from_numpy(told).double(), atol=1e-4, rtol=1e-5)
    assert {*found.tensors} == {*names}


# ---- constants with axes of length 1, and other ways to write the same


def shaped(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A network whose biases have a shape."""
    return {n: a.reshape(shape) if n[0] == "b" else a for n, a in matrices(D, H, 3).items()}


@pytest.mark.parametrize("shape", [(1, -1), (1, 1, -1)])
def test_biases_may_have_axes_of_length_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (view,) = bl.load(write(tmp_path / "m.onnx", CHAIN, shaped(shape))).layers.values()
    x = randn(9, D)
    made = view.weights(torch.float64)(x)
    torch.testing.assert_close(made, by_hand(matrices(D, H, 3), x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gain", [(H,), (1, 1, H)])
def test_a_gain_may_have_axes_of_length_one(tmp_path: Path, gain: tuple[int, ...]) -> None:
    nodes = [*CHAIN[:3], ("Mul", "h g", "k"), ("MatMul", "k w1", "c"), CHAIN[-1]]
    g = np.linspace(1, 2, H, dtype="f4").reshape(gain)
    (view,) = bl.load(
        write(tmp_path / "m.onnx", nodes, {**matrices(D, H, 3), "g": g})
    ).layers.values()
    expected = {**matrices(D, H, 3)}
    expected["w1"] = expected["w1"] * g.reshape(-1, 1)
    x = randn(9, D)
    torch.testing.assert_close(
        view.weights(torch.float64)(x), by_hand(expected, x), atol=1e-6, rtol=0
    )
    assert {*view.tensors} == {"w0", "b0", "w1", "b1", "g"}


@pytest.mark.parametrize("shape", [(1, H, 1, 1), (H, 1, 1), (1, 1, 1, H)])
def test_biases_along_channels_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Of images numbers for the channels are no numbers for the columns; kernels say their size."""
    kernels = {"w0": randn(H, 3, 3, 3).numpy(), "w1": randn(2, H, 1, 1).numpy()}
    bias = np.linspace(-1, 1, H).reshape(shape)
    nodes: list[Any] = [
        ("Conv", "x w0", "a"), ("Add", "a b", "p"), ("Relu", "p", "h"), ("Conv", "h w1", "y"),
    ]  # fmt: skip
    tensors = {name: one.astype("f4") for name, one in {**kernels, "b": bias}.items()}
    model = write(tmp_path / "m.onnx", nodes, tensors)
    if shape[-1] == H:
        refusal(CheckpointError, "no MLP is found", bl.load, model)
        return
    (view,) = bl.load(model).layers.values()
    layer = view.weights(torch.float64)
    torch.testing.assert_close(layer.up_bias, torch.from_numpy(tensors["b"].ravel()).double())  # type: ignore[union-attr]


@pytest.mark.parametrize(("nodes", "activation"), [
    ([("Max", "p zero", "h")], "relu"), ([("Max", "zero p", "h")], "relu"),
    ([("Mul", "p c", "q"), ("Mul", "p q", "h")], "identity"),
    ([("Mul", "p c", "q"), ("Mul", "p q", "s"), ("Mul", "p s", "t"), ("Add", "p t", "u"),
      ("Mul", "k u", "v"), ("Tanh", "v", "w"), ("Add", "one w", "z"), ("Mul", "half z", "g"),
      ("Mul", "p g", "h")], "gelu_tanh"),
])  # fmt: skip
def test_an_activation_may_be_written_out(
    tmp_path: Path, nodes: list[Any], activation: str
) -> None:
    numbers = {"zero": 0, "c": 0.044715, "k": (2 / np.pi) ** 0.5, "one": 1, "half": 0.5}
    tensors = {**matrices(D, H, 3), **{name: np.float32(one) for name, one in numbers.items()}}
    path = write(tmp_path / "m.onnx", [*CHAIN[:2], *nodes, *CHAIN[3:]], tensors)
    (view,) = bl.load(path).layers.values()
    assert view.activation.name == activation
    x = randn(9, D)
    (told,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x.float().numpy()})
    made = view.weights(torch.float64)(x)
    torch.testing.assert_close(made, torch.from_numpy(told).double(), atol=1e-5, rtol=1e-5)
    assert {*view.tensors} == {"w0", "b0", "w1", "b1"}


def test_a_limit_that_is_not_zero_is_no_relu(tmp_path: Path) -> None:
    nodes = [*CHAIN[:2], ("Max", "p low", "h"), *CHAIN[3:]]
    path = write(tmp_path / "m.onnx", nodes, {**matrices(D, H, 3), "low": np.float32(-2)})
    refusal(CheckpointError, "no MLP is found", bl.load, path)


def in_function(numbers: Any) -> Any:
    """A node of a function of the file, in whose body the numbers are."""
    weights = onnx.numpy_helper.from_array(np.asarray(numbers, np.float32))
    nodes = [
        onnx.helper.make_node("Constant", [], ["w"], value=weights),
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    versions = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_function("own", "F", ["x"], ["y"], nodes, versions)


def written(path: Path, kind: str, numbers: Any) -> Path:
    """Write a file that holds numbers at a place of a kind."""
    helper, array = onnx.helper, np.asarray(numbers)
    wide = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    if kind == "function":
        write(path, [("F", "x", "y", {"domain": "own"})], {})
        model = onnx.load(str(path))
        model.functions.append(in_function(numbers))
        model.opset_import.append(helper.make_opsetid("own", 1))
        onnx.save(model, str(path))
        return path
    if kind == "sparse":
        values, places = (
            onnx.numpy_helper.from_array(*one)
            for one in ((np.ones(3, np.float32), "s"), (array, "s_places"))
        )
        write(path, [("MatMul", "x s", "y")], {})
        model = onnx.load(str(path))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))
        onnx.save(model, str(path))
        return path
    if kind == "body":
        weights = [onnx.numpy_helper.from_array(array.astype(np.float32), "w")]
        end = helper.make_tensor_value_info("z", 1, None)
        bodies = {
            name: helper.make_graph(
                [helper.make_node("MatMul", ["x", "w"], ["z"])], name, [], [end], weights
            )
            for name in ("then_branch", "else_branch")
        }
        return write(path, [("If", "flag", "y", bodies)], {"flag": np.array(True)})
    nodes: dict[str, list[Any]] = {
        "scalar": [("MatMul", "x w", "h"), ("Mul", "h n", "y")],
        "scale": [("DequantizeLinear", "q n", "d"), ("MatMul", "x d", "y")],
        "bias": [("DequantizeLinear", "n s", "d"), ("MatMul", "x w", "h"), ("Add", "h d", "y")],
        "rows": [("Gather", "x n", "h"), ("MatMul", "h w", "y")],
        "network": [
            ("Gather", "x n", "h", {"axis": 1}), ("MatMul", "h w", "a"), ("Relu", "a", "r"),
            ("MatMul", "r w1", "y"),
        ],
    }  # fmt: skip
    more = {"w": wide, "w1": wide, "s": np.float32(0.1), "q": np.ones((4, 4), np.int8)}
    return write(path, nodes[kind], {**more, "n": array})


HELD: dict[str, tuple[Any, Any]] = {
    "function": (np.eye(4), 3 * np.eye(4)),
    "body": (np.eye(4), 3 * np.eye(4)),
    "sparse": (np.array([0, 5, 9]), np.array([1, 2, 3])),
    "scalar": (np.float32(1), np.float32(-5)),
    "scale": (np.float32(0.1), np.float32(0.2)),
    "bias": (np.array([1, 2, 3, 4], np.int32), np.array([1000, 2, 3, 4], np.int32)),
    "rows": (np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])),
    "network": (np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])),
}


@pytest.mark.parametrize("kind", HELD)
def test_all_numbers_of_a_graph_are_compared(kind: str, tmp_path: Path) -> None:
    """In bodies and functions, of no axes, and whole ones, whether or not a layer is read."""
    files = [written(tmp_path / f"{n}.onnx", kind, one) for n, one in enumerate(HELD[kind])]
    one, other = (open_any(path, ReadOptions(), compared=True) for path in files)
    assert (kind == "network") == bool(one.layers)
    assert compare_tensors(one.tensors, one.tensors, same_file=False).changed == ()
    changed = compare_tensors(other.tensors, one.tensors).changed
    assert len(changed) == 1 + (kind == "body")
    assert all(found.baseline_name == found.name for found in changed)
    counted = measure_coverage(one.tensors, [], {}, "known", None, False).parameters
    assert counted == bl.inventory(files[0]).parameters - 4 * (kind == "bias")


def test_tensors_of_a_body_without_nodes_are_listed(tmp_path: Path) -> None:
    held = [onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "z")]
    end = onnx.helper.make_tensor_value_info("z", 1, None)
    body = onnx.helper.make_graph([], "inner", [], [end], held)
    bodies = {"then_branch": body, "else_branch": body}
    write(tmp_path / "m.onnx", [("If", "flag", "y", bodies)], {"flag": np.array(True)})
    assert bl.inventory(tmp_path / "m.onnx").parameters == 12


def test_places_of_a_graph_are_nothing_more_than_its_weights(tmp_path: Path) -> None:
    """A file of weights alone has none of them, and may hold the same weights."""
    module, path = Gated(functional.silu, fused=True), tmp_path / "m.safetensors"
    del module.up
    save_file(module.state_dict(), path)
    model = export(module, randn(2, D).float(), tmp_path / "m.onnx", opset_version=13)
    one, other = (open_any(each, ReadOptions(), compared=True).tensors for each in (model, path))
    assert len(one) > len(other)
    for pair in ((one, other), (other, one)):
        found = compare_tensors(*pair)
        assert found.headline is not None
        assert (found.headline.kind, found.headline.alone) == ("same_tensors", 0)


@pytest.mark.parametrize(("kind", "dtype"), [(16, torch.bfloat16), (17, torch.float8_e4m3fn)])
def test_narrow_floats_are_stored_as_they_are(
    kind: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    weight = randn(4, 3).to(dtype)
    raw = weight.view(torch.uint8).numpy().tobytes()
    nodes: list[Any] = [("Cast", "w", "c", {"to": 1}), ("MatMul", "x c", "y")]
    path, plain = write(tmp_path / "m.onnx", nodes, {}), tmp_path / "m.safetensors"
    model = onnx.load(str(path))
    model.graph.initializer.append(onnx.helper.make_tensor("w", kind, [4, 3], raw, raw=True))
    onnx.save(model, str(path))
    save_file({"w": weight}, plain)
    one, other = (open_any(each, ReadOptions(), compared=True).tensors for each in (path, plain))
    assert one["w"].dtype is dtype
    found = compare_tensors(one, other)
    assert (found.changed, found.model_alone) == ((), ())
