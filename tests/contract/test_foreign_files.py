"""Guards against a file of another library read as another function than that library computes."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
import keras_files as files
import onnx_files
from bilens.base.errors import BilensError, CheckpointError, NumericalError, UsageError
from bilens.io.formats import keras as reader, keras_run, onnx as onnx_reader, source
from builders import randn
from contract.drawn import drawn, fewer
from contract.table import cell

SEEDS = st.integers(0, 10_000)
WIDTH = 5


def outputs(model: Any, x: Tensor) -> Any:
    y = x.double()
    for view in model.network:
        y = view.weights(torch.float64)(y)
    head = model.load_report.head
    return (y if head is None else getattr(torch, head)(y, dim=-1)).numpy()


def rows(seed: int) -> Tensor:
    """Inputs of four sizes, one of them zero."""
    x = torch.cat([scale * randn(6, WIDTH, seed=seed) for scale in (0.1, 1, 5, 20)])
    x[0] = 0
    return x.float()


# ---- Keras


def layers() -> Any:
    return files.library().layers


def with_statistics(**options: Any) -> Any:
    scaler = layers().Normalization(**options)
    scaler.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(40, WIDTH)))
    return scaler


BEFORE: dict[str, Callable[[], list[Any]]] = {
    "nothing": list,
    "rescaled": lambda: [layers().Rescaling(1 / 255, offset=-0.5)],
    "normalised": lambda: [with_statistics()],
}
BETWEEN: dict[str, Callable[[], list[Any]]] = {
    "relu": lambda: [layers().Dense(6, "relu")],
    "gelu": lambda: [layers().Dense(6, "gelu"), layers().Dropout(0.5)],
    "swish": lambda: [layers().Dense(6, "swish", use_bias=False)],
    "leaky": lambda: [layers().Dense(6, "leaky_relu")],
    "sloped": lambda: [layers().Dense(6), layers().ReLU(negative_slope=0.3)],
    "a leaky layer": lambda: [layers().Dense(6), layers().LeakyReLU(0.07)],
    "tanh, normalised": lambda: [layers().Dense(6, "tanh"), layers().BatchNormalization()],
    "bare normalised": lambda: [
        layers().Dense(6, "sigmoid"),
        layers().BatchNormalization(scale=False, center=False, epsilon=0.3),
    ],
    "deep": lambda: [layers().Dense(6, "relu"), layers().Dense(4, "tanh")],
}
AFTER: dict[str, Callable[[], list[Any]]] = {
    "numbers": lambda: [layers().Dense(3)],
    "softmax": lambda: [layers().Dense(3, "softmax")],
    "a softmax layer": lambda: [layers().Dense(3), layers().Softmax()],
    "sigmoid": lambda: [layers().Dense(1, "sigmoid")],
}


@cell("load file", "own object", "saved")
@pytest.mark.parametrize("between", BETWEEN)
@fewer(3)
@given(before=st.sampled_from(sorted(BEFORE)), after=st.sampled_from(sorted(AFTER)), seed=SEEDS)
def test_a_model_of_keras_is_what_predict_gives(
    tmp_path_factory: pytest.TempPathFactory, before: str, between: str, after: str, seed: int
) -> None:
    theirs = files.sequential(*BEFORE[before](), *BETWEEN[between](), *AFTER[after](), width=WIDTH)
    path, x = tmp_path_factory.mktemp("m") / "m.keras", rows(seed)
    theirs.save(path)
    model = bl.load(path)
    expected = theirs.predict(x.numpy(), verbose=0)
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-3, atol=1e-4)
    assert "Keras' own predict" in model.load_report.comparison()


NOT_READ: dict[str, Callable[[], list[Any]]] = {
    "bounded by 0": lambda: [layers().Dense(6), layers().ReLU(max_value=0)],
    "bounded by 6": lambda: [layers().Dense(6), layers().ReLU(max_value=6)],
    "bounded far out": lambda: [layers().Dense(6), layers().ReLU(max_value=1e8)],
    "a threshold": lambda: [layers().Dense(6), layers().ReLU(threshold=0.01)],
    "elu": lambda: [layers().Dense(6), layers().ELU(0.5)],
    "prelu": lambda: [layers().Dense(6), layers().PReLU()],
    "an object as activation": lambda: [layers().Dense(6, activation=layers().ReLU(max_value=1.0))],
    "selu": lambda: [layers().Dense(6, "selu")],
    "relu6": lambda: [layers().Dense(6, "relu6")],
    "softmax of rows": lambda: [layers().Dense(6, "relu"), layers().Dense(3), softmax_of_rows()],
    "each sample by itself": lambda: [layers().Dense(6, "relu"), layers().UnitNormalization()],
    "undone": lambda: [with_statistics(invert=True), layers().Dense(6, "relu")],
    "one mean for all": lambda: [with_statistics(axis=None), layers().Dense(6, "relu")],
}


def softmax_of_rows() -> Any:
    return layers().Softmax(axis=0)


@cell("load file", "other function")
@pytest.mark.parametrize("name", NOT_READ)
def test_what_keras_computes_otherwise_is_no_network(name: str, tmp_path: Path) -> None:
    theirs = files.sequential(*NOT_READ[name](), layers().Dense(3), width=WIDTH)
    if name == "softmax of rows":
        theirs = files.sequential(*NOT_READ[name](), width=WIDTH)
    theirs.save(tmp_path / "m.keras")
    with suppress(CheckpointError):  # no MLP is found
        model = bl.load(tmp_path / "m.keras")
        assert not model.network
        assert not model.load_report.verified
        assert any("Keras ran no whole model" in line for line in model.load_report.lines())


@cell("load file", "other function")
def test_a_mistake_of_the_reader_is_seen_by_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.mlp("gelu").save(tmp_path / "m.keras")
    monkeypatch.setitem(reader.ACTIVATIONS, "gelu", (torch.nn.functional.silu,))
    with pytest.raises(NumericalError, match="Keras' own predict"):
        bl.load(tmp_path / "m.keras")


def test_without_keras_nothing_says_that_it_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.mlp().save(tmp_path / "m.keras")
    monkeypatch.setattr(keras_run, "find_spec", lambda _: None)
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.delitem(sys.modules, "keras")
    model = bl.load(tmp_path / "m.keras")
    assert not model.load_report.verified
    assert "Unverified: Keras ran no whole model" in "\n".join(model.load_report.lines())


HARMFUL: list[Any] = [
    {"module": "os", "class_name": "system", "config": {}},
    {"module": "keras.utils", "class_name": "get_file", "config": {}},
    {"module": "builtins", "class_name": "function", "config": "eval"},
    {"module": "keras.initializers", "class_name": "function", "config": "x"},
    {"module": "keras.layers", "class_name": "Lambda", "config": {}},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}},
    {"class_name": "__lambda__", "config": {"value": "x"}},
    {"module": "keras.layers", "class_name": "Dense", "registered_name": "me>Dense"},
]


@pytest.mark.parametrize("part", HARMFUL)
def test_keras_is_not_asked_to_build_what_a_file_names(part: dict[str, Any]) -> None:
    plain = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}
    assert reader.is_inert({**plain, "config": {"units": 3, "activation": "relu"}})
    assert not reader.is_inert({**plain, "config": {"layers": [{"kernel": [part]}]}})


@cell("load file", "permuted units", "permuted inputs", "permuted outputs", "other dtype")
@fewer(2)
@given(SEEDS, st.sampled_from(["float32", "float16", "mixed_float16"]))
def test_weights_of_keras_in_another_order_are_the_same_function(
    tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: str
) -> None:
    dense, folder = layers().Dense, tmp_path_factory.mktemp("m")
    theirs = files.sequential(dense(6, "relu", dtype=dtype), dense(3), width=WIDTH)
    theirs.save(folder / "m.keras")
    generator = np.random.default_rng(seed)
    units, inputs, answers = (generator.permutation(n) for n in (6, WIDTH, 3))
    up, bias, down, shift = theirs.get_weights()
    theirs.set_weights([up[inputs][:, units], bias[units], down[units][:, answers], shift[answers]])
    theirs.save(folder / "turned.keras")
    before, after = (bl.load(folder / f"{name}.keras") for name in ("m", "turned"))
    x = rows(seed)
    expected = outputs(before, x)[:, answers]
    np.testing.assert_allclose(outputs(after, x[:, inputs]), expected, rtol=1e-9, atol=1e-9)


# ---- ONNX


def graph(path: Path, between: list[tuple[Any, ...]], end: list[Any], **more: Any) -> Path:
    nodes = [("Gemm", "x w0 b0", "h"), *between, ("Gemm", "a w1 b1", "z" if end else "y"), *end]
    tensors = {**onnx_files.matrices(WIDTH, 6, 3, seed=more.pop("seed", 0)), **more.pop("with", {})}
    return onnx_files.write(path, nodes, tensors, **more)


def evaluated(path: Path, x: Tensor) -> Any:
    onnx = pytest.importorskip("onnx.reference")
    with np.errstate(all="ignore"):  # of an exponential that overflows
        return onnx.ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})[0]


NORM = {n: np.abs(randn(6, seed=k).float().numpy()) + 0.3 for k, n in enumerate("gsmv")}
ONNX: dict[str, tuple[list[tuple[Any, ...]], dict[str, Any]]] = {
    "relu": ([("Relu", "h", "a")], {}),
    "a clamp": ([("Clip", "h lo", "a")], {"lo": np.float32(0)}),
    "leaky": ([("LeakyRelu", "h", "a", {"alpha": 0.3})], {}),
    "leaky by itself": ([("LeakyRelu", "h", "a")], {}),
    "gelu": ([("Gelu", "h", "a")], {}),
    "gelu of tanh": ([("Gelu", "h", "a", {"approximate": "tanh"})], {}),
    "squared": ([("Relu", "h", "r"), ("Mul", "r r", "a")], {}),
    "times a vector": ([("Mul", "h s", "m"), ("Tanh", "m", "a")], {"s": NORM["g"]}),
    "over a number": ([("Div", "h s", "m"), ("Relu", "m", "a")], {"s": np.float32(4)}),
    "normalised": (
        [("BatchNormalization", "h g s m v", "n", {"epsilon": 0.5}), ("Relu", "n", "a")], NORM,
    ),
}  # fmt: skip
ENDS: dict[str, list[Any]] = {
    "numbers": [],
    "softmax": [("Softmax", "z", "y", {"axis": 1})],
    "log": [("LogSoftmax", "z", "y")],
    "sigmoid": [("Sigmoid", "z", "y")],
}


@cell("load file", "own object")
@pytest.mark.parametrize("name", ONNX)
@fewer(3)
@given(end=st.sampled_from(sorted(ENDS)), seed=SEEDS)
def test_an_onnx_file_is_what_its_evaluator_gives(
    tmp_path_factory: pytest.TempPathFactory, name: str, end: str, seed: int
) -> None:
    between, tensors = ONNX[name]
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    graph(path, between, ENDS[end], seed=seed, **{"with": tensors})
    model, x = bl.load(path), rows(seed)
    expected = evaluated(path, x)
    if end == "log":  # of probabilities that onnx rounds to 0
        expected, found = np.exp(expected), np.exp(outputs(model, x))
    else:
        found = outputs(model, x)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert "on the whole file" in model.load_report.comparison()


ONNX_NOT_READ: dict[str, tuple[list[tuple[Any, ...]], dict[str, Any]]] = {
    "bounded": ([("Clip", "h lo hi", "a")], {"lo": np.float32(0), "hi": np.float32(6)}),
    "bounded far out": ([("Clip", "h lo hi", "a")], {"lo": np.float32(0), "hi": np.float32(1e7)}),
    "a threshold": ([("ThresholdedRelu", "h", "a", {"alpha": 0.01})], {}),
    "elu": ([("Elu", "h", "a")], {}),
    "whole numbers": (
        [("Cast", "h", "c", {"to": 7}), ("Cast", "c", "d", {"to": 1}), ("Relu", "d", "a")], {},
    ),
    "statistics of the rows": (
        [("BatchNormalization", "h g s m v", "n q r", {"training_mode": 1}), ("Relu", "n", "a")],
        NORM,
    ),
}  # fmt: skip


@cell("load file", "other function")
@pytest.mark.parametrize("name", ONNX_NOT_READ)
def test_what_onnx_computes_otherwise_is_no_network(name: str, tmp_path: Path) -> None:
    between, tensors = ONNX_NOT_READ[name]
    graph(tmp_path / "m.onnx", between, [], **{"with": tensors})
    with pytest.raises(BilensError, match="no MLP is found"):
        bl.load(tmp_path / "m.onnx")


@cell("load file", "other function")
def test_a_mistake_of_the_reader_is_seen_by_the_evaluator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph(tmp_path / "m.onnx", [("Relu", "h", "a")], [("Sigmoid", "z", "y")])
    monkeypatch.setitem(onnx_reader.FUNCTIONS, "Sigmoid", torch.tanh)
    monkeypatch.setattr(onnx_reader.OnnxGraph, "compare", lambda _, found: [None] * len(found))
    with pytest.raises(NumericalError, match="on the whole file"):
        bl.load(tmp_path / "m.onnx")


# ---- tensors under names, and Hugging Face

ENCODERS = [
    ("encoder", "decoder"),
    ("enc", "dec"),
    ("m.encoder.0", "m.decoder.0"),
    ("first", "out"),
]


def autoencoder(path: Path, first: str, second: str, seed: int, wide: int) -> dict[str, Tensor]:
    tensors = {
        f"{first}.weight": randn(wide, 8, seed=seed),
        f"{first}.bias": randn(wide, seed=seed + 1),
        f"{second}.weight": randn(8, wide, seed=seed + 2),
        f"{second}.bias": randn(8, seed=seed + 3),
    }
    save_file(tensors, path)
    return tensors


@cell("load file", "other names", "own object")
@drawn
@given(st.sampled_from(ENCODERS), SEEDS, st.sampled_from([3, 20]))
def test_an_encoder_is_before_its_decoder(
    tmp_path_factory: pytest.TempPathFactory, names: tuple[str, str], seed: int, wide: int
) -> None:
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    parts = [*autoencoder(path, *names, seed, wide).values()]
    (view,) = bl.load(path, activation="relu").layers.values()
    x = randn(4, 8, seed=seed)
    hidden = (x @ parts[0].T + parts[1]).relu()
    torch.testing.assert_close(view.weights(x.dtype)(x), hidden @ parts[2].T + parts[3])


@cell("load file", "other names")
@pytest.mark.parametrize(
    "names", [("a", "b"), ("b", "a"), ("to_code", "from_code"), ("adapter.down", "adapter.up")]
)
def test_names_that_do_not_say_the_order_are_asked_about(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    autoencoder(tmp_path / "m.safetensors", *names, 0, 3)
    with pytest.raises(BilensError, match="Say which is what") as caught:
        bl.load(tmp_path / "m.safetensors", activation="relu")
    assert isinstance(caught.value, UsageError) or "either order" in str(caught.value)


def test_a_deep_autoencoder_is_read_from_its_input(tmp_path: Path) -> None:
    sizes = {"encoder.0": (7, 9), "encoder.2": (3, 7), "decoder.0": (7, 3), "decoder.2": (9, 7)}
    tensors = {f"{n}.weight": randn(*s) for n, s in sizes.items()}
    tensors |= {f"{n}.bias": randn(s[0]) for n, s in sizes.items()}
    save_file(tensors, tmp_path / "m.safetensors")
    model = bl.load(tmp_path / "m.safetensors", activation="relu")
    assert [view.sizes.d_in for view in model.network] == [9, 7, 3]


@cell("load file", "other function")
def test_another_activation_than_that_of_transformers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    import tiny_language_models as tiny
    from bilens.io.formats import families

    tiny.write(tmp_path / "m", "gpt2")
    assert "transformers" in str(bl.load(tmp_path / "m").exactness)
    with monkeypatch.context() as changed:
        changed.setitem(families.SPELLINGS, "gelu_new", "gelu")
        with pytest.raises(NumericalError, match="transformers"):
            _ = bl.load(tmp_path / "m").exactness
    monkeypatch.setattr(source, "module_of_transformers", lambda *_: None)
    assert bl.load(tmp_path / "m").exactness is None
