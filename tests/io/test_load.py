"""`bl.load`: what a path may be, what comes back, and how each layer is read."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from bilens.base.files import file_sha256
from bilens.io.file_kinds import PICKLES
from bilens.io.load import from_module, load
from bilens.io.model_folder import save
from bilens.nn import BilinearMLP
from bilens.nn.mlp import Gate
from checkpoints import official, official_state
from io_mapped import pair, write
from models import MAKERS, edit_config, make
from raising import raising, refusal

GOLDEN = Path(__file__).parent / "golden_mlp"
X = torch.linspace(-1, 1, 12).reshape(2, 6)


def test_a_folder_of_the_first_release_still_loads() -> None:
    """BilinearMLP(2, 3, 1, bias=True) with whole numbers as weights, written by version 0.1.0.

    left = [[1, 2], [0, 1], [3, −1]] + [1, 0, −2], right = [[1, 0], [2, 2], [−1, 1]] + [0, 1, 1],
    down = [[1, −1, 2]] + [5]. At x = (1, 2): left x = (5, 2, 1) + (1, 0, −2) = (6, 2, −1),
    right x = (1, 6, 1) + (0, 1, 1) = (1, 7, 2), product (6, 14, −2), y = 6 − 14 − 4 + 5 = −7.
    """
    model = load(GOLDEN)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert isinstance(model.module, BilinearMLP)
    assert model.module(x).tolist() == [-7.0]
    assert model.layers["layer"].quadratic_map(x).tolist() == [-7.0]
    assert (model.input_shape, model.output_names) == ((2,), ("y",))
    assert model.provenance == {"made by": "hand"}


@pytest.mark.parametrize("kind", MAKERS)
def test_layers_compose_to_the_model(tmp_path: Path, kind: str) -> None:
    model = load(save(make(kind, bias=True).double(), tmp_path))
    h = X.double()
    for name, layer in model.layers.items():
        assert name.startswith("layer")
        assert layer.exact
        assert layer.fit is None
        h = layer.quadratic_map(h)
    torch.testing.assert_close(h, model.module(X.double()))


def test_a_map_is_kept_while_it_is_held(tmp_path: Path) -> None:
    layer = load(write(tmp_path, pair()), activation="relu").layers["layer"]
    f, fit = layer.quadratic_map, layer.fit
    assert layer.quadratic_map is f
    assert layer.fit is fit


def test_of_a_module_that_changes_none_is_kept(tmp_path: Path) -> None:
    ours, theirs = load(save(make(), tmp_path)), nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    for module, layers in ((ours.module, ours.layers), (theirs, from_module(theirs).layers)):
        (layer, *_) = layers.values()
        before, fit = layer.quadratic_map, layer.fit
        assert not before.tensor.left.requires_grad
        for parameter in module.parameters():
            parameter.data.mul_(2)  # which torch counts as no change of it
        assert not torch.equal(layer.quadratic_map.tensor.left, before.tensor.left)
        assert fit is None or layer.fit is not fit


@pytest.mark.parametrize(
    ("dtype", "read"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_products_of_the_weights_are_rounded_once(
    tmp_path: Path, dtype: torch.dtype, read: torch.dtype
) -> None:
    """left · embed in float64, then in the dtype of the weights, and never below float32."""
    model = load(save(make().to(dtype), tmp_path))
    f = model.layers["layers.0"].quadratic_map
    exact = model.module.layers[0].left.weight.double() @ model.module.embed.weight.double()
    assert f.dtype is read
    assert torch.equal(f.tensor.left, exact.to(read))
    assert next(model.module.parameters()).dtype is dtype  # the model itself stays as it was


@pytest.mark.parametrize("kind", MAKERS)
def test_a_gated_layer_is_not_exact_and_has_the_closest_map(tmp_path: Path, kind: str) -> None:
    for layer in load(save(make(kind, gate="gelu").double(), tmp_path)).layers.values():
        assert not layer.exact
        fit = layer.fit
        assert fit is not None
        x = torch.randn(9, layer.sizes.d_in, generator=torch.Generator().manual_seed(0)).double()
        torch.testing.assert_close(layer.quadratic_map(x), fit.quadratic_map(x))


@pytest.mark.parametrize("gate", [None, "silu"])
@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_layer_is_is_known_before_it_is_read(
    tmp_path: Path, kind: str, gate: Gate | None
) -> None:
    for name, layer in load(save(make(kind, gate=gate, bias=True), tmp_path)).layers.items():
        unread = replace(layer, read=lambda: pytest.fail("was read"))
        weights = layer.weights()
        assert isinstance(weights, GLUWeights)
        assert unread.sizes == (*weights.down.shape, weights.d_in) == layer.quadratic_map.sizes
        assert unread.activation == weights.phi
        assert unread.dtype is weights.down.dtype is torch.float32
        assert layer.weights(torch.float64).down.dtype is torch.float64
        assert unread.gated
        assert unread.exact is (gate is None)
        assert unread.reads == ("neurons" if name == "layers.1" else "inputs")


def test_a_map_that_nobody_holds_is_let_go(tmp_path: Path) -> None:
    layer = load(write(tmp_path, pair()), activation="relu").layers["layer"]
    first = weakref.ref(layer.quadratic_map)
    second = weakref.ref(layer.fit)
    gc.collect()
    assert first() is None
    assert second() is None


def test_a_loaded_model_says_where_it_comes_from(tmp_path: Path) -> None:
    model = load(str(save(make(), tmp_path)))  # a text is a path too
    assert model.source == str(tmp_path)
    assert model.weights_sha256 == file_sha256(tmp_path / "model.safetensors")
    assert (model.input_shape, model.output_names, dict(model.provenance)) == (None, None, {})


def test_records_cannot_be_changed(tmp_path: Path) -> None:
    model = load(save(make(), tmp_path))
    with pytest.raises(FrozenInstanceError):
        model.source = "elsewhere"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        model.layers["layers.0"].gated = False  # type: ignore[misc]


def make_text(folder: Path) -> Path:
    (folder / "model.safetensors").write_text("weights will follow")
    return folder / "model.safetensors"


def make_numpy(folder: Path) -> Path:
    (folder / "weights.npz").write_bytes(b"PK")
    return folder / "weights.npz"


def make_file_for_a_folder(folder: Path) -> Path:
    (folder / "model").write_text("weights")
    return folder / "model"


def make_empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def make_run(folder: Path) -> Path:
    (folder / "run" / "checkpoints").mkdir(parents=True)
    return folder / "run"


def make_config_only(folder: Path) -> Path:
    (save(make(), folder) / "model.safetensors").unlink()
    return folder


def make_weights_only(folder: Path) -> Path:
    (save(make(), folder) / "config.json").unlink()
    return folder


def make_other_format(folder: Path) -> Path:
    edit_config(save(make(), folder), lambda c: c.update(format="onnx"))
    return folder


def make_huggingface(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_act": "silu"}')
    (folder / "model.safetensors").write_bytes(official())
    return folder


def make_other_tensors(folder: Path) -> Path:
    save_file({"fc1.weight": torch.zeros(2, 2)}, folder / "m.safetensors")
    return folder / "m.safetensors"


def make_swapped(folder: Path) -> Path:
    save(make("MLP"), folder)
    (folder / "model.safetensors").write_bytes(official())
    return folder


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda p: p / "none", r"no such file or folder; expected a model folder"),
    "a name with NUL": (lambda p: p / "a\0b", "no such file or folder"),
    "a name too long": (lambda p: p / ("a" * 5000), r"cannot be read \(File name too long\)"),
    "a text named .safetensors": (make_text, "is not a readable safetensors file"),
    "an unknown suffix": (make_numpy, r"is not a supported model file; .*\.safetensors, \.gguf"),
    "a file for a folder": (make_file_for_a_folder, "is not a supported model file"),
    "an empty folder": (make_empty, "holds no model; expected config.json and model.safetensors"),
    "a run that is not finished": (
        make_run,
        "has not finished: repeat its `bilens train` command with --resume",
    ),
    "no weights": (make_config_only, r"model.safetensors: no such file"),
    "no config": (make_weights_only, r"config.json: no such file; .* needs it beside the weights"),
    "another format": (make_other_format, "has format 'onnx'; expected 'bilens-model'"),
    "a Hugging Face folder": (make_huggingface, "lacks vocab_size, hidden_size, intermediate_size"),
    "other tensors": (make_other_tensors, "no MLP that names and shapes give away"),
    "weights of another model": (make_swapped, "missing 'down.weight', 'left.weight'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    path_of, message = WRONG[name]
    path = path_of(tmp_path)
    assert refusal(CheckpointError, message, load, path).startswith(str(path))


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^path is a NoneType; expected a text or a Path"):
        load(None)


ODD = {
    "roles": (["up"], "roles is a list; expected Mapping: say which tensor is what"),
    "transposed": ("no", "transposed='no' is not known: use one of None, True, False"),
    "residual": ("no", "residual='no' is not known: use one of None, True, False"),
    "base": ("base", "is no adapter of PEFT, and base=base is what one is added to: leave"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_option_that_it_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    value, words = ODD[name]
    refusal(UsageError, words, partial(load, **{name: value}), write(tmp_path, pair()))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_pickle_of_any_suffix_needs_the_flag(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    torch.save(official_state(), path)
    with pytest.raises(CheckpointError, match="is a pickle"):
        load(path, residual=False)
    assert load(path, residual=False, allow_pickle=True).module.residual is False


def test_weights_of_nan_are_refused_with_file_and_tensor(tmp_path: Path) -> None:
    state = make().state_dict()
    state["head.weight"][2, 3] = torch.inf
    save(make(), tmp_path)
    save_file(state, tmp_path / "model.safetensors", {"function_sha256": "whatever"})
    with pytest.raises(NonFiniteError, match=r"safetensors: tensor 'head.weight' holds 1 non"):
        load(tmp_path)


@pytest.mark.parametrize("residual", [False, True])
def test_a_residual_that_contradicts_the_folder_is_refused(tmp_path: Path, residual: bool) -> None:
    save(make("residual classifier" if residual else "classifier"), tmp_path)
    assert load(tmp_path, residual=residual).module.residual is residual
    message = f"saved with residual={residual}, and residual={not residual} was asked for"
    with pytest.raises(UsageError, match=message):
        load(tmp_path, residual=not residual)


def test_a_path_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "stat", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\): check the"):
        load(tmp_path)


def test_every_supported_suffix_is_named_in_the_help_of_the_error(tmp_path: Path) -> None:
    path = make_numpy(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert all(suffix in str(caught.value) for suffix in (*PICKLES, ".safetensors"))
