"""Files of Keras: the layers that a configuration describes, compared with Keras itself."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
import keras_files as files
from bilens.base.errors import CheckpointError, MemoryLimitError, NonFiniteError, UsageError
from bilens.io.formats.keras import histories
from builders import randn
from raising import refusal

h5py = pytest.importorskip("h5py")


def leaky() -> Any:
    layers = files.library().layers
    return files.sequential(layers.Dense(8), layers.LeakyReLU(0.1), layers.Dense(3))


MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "relu": (files.mlp, ["relu", "tanh"]),
    "gelu": (lambda: files.mlp("gelu"), ["gelu", "tanh"]),
    "sigmoid": (lambda: files.mlp("sigmoid", use_bias=False), ["sigmoid", "tanh"]),
    "leaky": (lambda: files.mlp("leaky_relu"), ["leaky_relu", "tanh"]),
    "gated": (files.gated, ["silu"]),
    "nested and normalised": (files.nested, ["relu", "relu", "sigmoid"]),
    "a layer of its own": (leaky, ["leaky_relu"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_are_the_model(tmp_path: Path, name: str) -> None:
    build, activations = MODELS[name]
    theirs = build()
    theirs.save(tmp_path / "model.keras")
    model = bl.load(tmp_path / "model.keras")
    assert [view.activation.name for view in model.network] == activations
    y = x = randn(20, 5).float()
    for view in model.network:
        y = view.weights(torch.float32)(y)
    expected = theirs.predict(x.numpy(), verbose=0)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-4)
    read = {tensor for view in model.layers.values() for tensor in view.tensors}
    assert read == {*model.tensors}
    assert model.load_report is not None
    assert model.load_report.checks


def test_convolutions_are_those_of_keras(tmp_path: Path) -> None:
    theirs = files.convolutional(padding="same", use_bias=False)
    theirs.save(tmp_path / "m.keras")
    model = bl.load(tmp_path / "m.keras")
    view = next(iter(model.layers.values()))
    assert view.about_input.startswith("a patch of 3×3×3")
    assert {*model.tensors} == {name for one in model.layers.values() for name in one.tensors}
    x, (_, *first) = randn(2, 8, 8, 3).float(), [*theirs.layers]
    expected: Any = x.numpy() / 255 - 1
    for layer in first[:3]:  # the convolution, its normalisation and the activation
        expected = layer(expected, training=False)
    scaled = (x / 255 - 1).movedim(3, 1)
    patches = torch.nn.functional.unfold(scaled, 3, padding=1).mT  # (images, places, patch)
    found = view.weights(torch.float32)(patches).detach().numpy().reshape(2, 8, 8, 4)
    np.testing.assert_allclose(found, np.asarray(expected.detach()), rtol=1e-4, atol=1e-4)


def test_the_rest_of_a_model_is_listed(tmp_path: Path) -> None:
    files.convolutional(strides=2, padding="same").save(tmp_path / "m.keras")
    model = bl.load(tmp_path / "m.keras")
    (view,) = model.layers.values()
    assert view.sizes == (2, 7, 16)
    assert model.load_report is not None
    assert "tensor layers/conv2d/vars/0" in model.load_report.left_out


def test_weights_alone_are_a_guess(tmp_path: Path) -> None:
    files.mlp().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(UsageError, match="does not say its activation"):
        bl.load(tmp_path / "m.weights.h5")
    model = bl.load(tmp_path / "m.weights.h5", activation="relu,tanh")
    assert [view.sizes for view in model.network] == [(8, 8, 5), (3, 6, 8)]
    assert model.load_report is not None
    assert model.load_report.guessed
    assert not model.load_report.verified


def hostile(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    """A model with another configuration."""

    def build(folder: Path) -> Path:
        files.mlp().save(folder / "good.keras")
        with (
            zipfile.ZipFile(folder / "good.keras") as good,
            zipfile.ZipFile(folder / "m.keras", "w") as bad,
        ):
            content = json.loads(good.read("config.json"))
            change(content)
            bad.writestr("config.json", json.dumps(content))
            bad.writestr("model.weights.h5", good.read("model.weights.h5"))
        return folder / "m.keras"

    return build


def cut(folder: Path, suffix: str) -> Path:
    path = folder / f"m{suffix}"
    files.mlp().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def linking(folder: Path) -> Path:
    """A file whose weights are said to lie in another one."""
    with h5py.File(folder / "secret.h5", "w") as file:
        file["kernel"] = np.ones((5, 8))
    with h5py.File(folder / "m.weights.h5", "w") as file:
        file["kernel"] = h5py.ExternalLink(str(folder / "secret.h5"), "kernel")
    return folder / "m.weights.h5"


def circular(folder: Path) -> Path:
    with h5py.File(folder / "m.weights.h5", "w") as file:
        file["a"] = file.create_group("b")
        file["a"]["c"] = file["b"]
    return folder / "m.weights.h5"


def broken(folder: Path) -> Path:
    model = files.mlp()
    model.layers[1].kernel.assign(np.full((8, 6), np.nan))
    model.save(folder / "m.keras")
    return folder / "m.keras"


def saved_model(folder: Path) -> Path:
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "half an archive": (lambda folder: cut(folder, ".keras"), CheckpointError, "is no readable"),
    "half a file": (lambda folder: cut(folder, ".h5"), CheckpointError, "is no readable"),
    "a link": (linking, CheckpointError, "leads out of the file"),
    "a circle": (circular, CheckpointError, "no readable HDF5 file"),
    "NaN": (broken, NonFiniteError, "holds 48"),
    "SavedModel": (saved_model, CheckpointError, r"is a SavedModel .* model.save\('model.keras'\)"),
    "no layers": (hostile(lambda c: c["config"].pop("layers")), CheckpointError, "no readable S"),
    "a text": (hostile(lambda c: c.update(config="x")), CheckpointError, "no readable S"),
    "other weights": (
        hostile(lambda c: c["config"]["layers"][1]["config"].update(units=9)),
        CheckpointError, "is not of 9 units",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    build, error, words = BAD[name]
    refusal(error, words, bl.load, build(tmp_path))


CODE = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": "x"}}


@pytest.mark.parametrize(
    ("change", "unread"),
    [
        (lambda layers: layers.insert(2, CODE), set()),
        (
            lambda layers: layers[1].update(module="own"),
            {"layers/dense/vars/0", "layers/dense/vars/1"},
        ),
        (lambda layers: layers[1]["config"].update(activation="softplus"), set()),
    ],
)
def test_what_is_not_of_keras_itself_is_taken_as_it_comes(
    tmp_path: Path, change: Callable[[list[Any]], None], unread: set[str]
) -> None:
    model = bl.load(hostile(lambda content: change(content["config"]["layers"]))(tmp_path))
    assert not model.network
    read = {tensor for view in model.layers.values() for tensor in view.tensors}
    assert {*model.tensors} - read == unread | {"layers/dense/vars/0", "layers/dense/vars/1"} - read


def test_a_file_that_would_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.mlp().save(tmp_path / "m.keras")
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    with pytest.raises(MemoryLimitError, match="load a smaller file"):
        bl.load(tmp_path / "m.keras")


def test_calls_are_read_as_keras_2_writes_them(tmp_path: Path) -> None:
    keras = files.library()
    x = keras.Input((5,))
    y = keras.layers.Dense(1, "sigmoid")(keras.layers.Dense(8, "relu")(x))
    files.scattered(keras.Model(x, y)).save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new:
        content = json.loads(new.read("config.json"))
        for one in content["config"]["layers"]:
            nodes = one["inbound_nodes"]
            one["inbound_nodes"] = [[[*call, 0, {}] for call in histories(node)] for node in nodes]
        with zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
            old.writestr("config.json", json.dumps(content))
            old.writestr("model.weights.h5", new.read("model.weights.h5"))
    views = bl.load(tmp_path / "old.keras").network
    assert [tuple(view.sizes) for view in views] == [(8, 8, 5), (1, 1, 8)]


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_a_narrow_column_is_scaled_as_keras_does(tmp_path: Path, size: float) -> None:
    layers = files.library().layers
    data = np.random.default_rng(0).normal(size=(20, 5)).astype("f4")
    data[:, 1] *= size
    scaler = layers.Normalization()
    scaler.adapt(data)
    theirs = files.sequential(scaler, layers.Dense(4, "relu"), layers.Dense(1))
    theirs.save(tmp_path / "m.keras")
    (view,) = bl.load(tmp_path / "m.keras").network
    found = view.weights(torch.float64)(torch.from_numpy(data).double()).detach().numpy()
    np.testing.assert_allclose(found, theirs.predict(data, verbose=0), rtol=1e-4, atol=1e-4)
