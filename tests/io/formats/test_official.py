"""Image checkpoints, surrogates and toy models of the paper's repository, as they describe."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from bilens.io.load import load
from builders import randn
from checkpoints import official_logits, official_state
from io_mapped import poisoned, write as write_small

State = dict[str, Tensor]
X = torch.linspace(-1, 1, 30).reshape(5, 6)
LAYOUTS = [(n_layer, bias) for n_layer in (1, 2, 3) for bias in (False, True)]


def as_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "m.safetensors")
    return folder / "m.safetensors"


def as_state_dict(state: State, folder: Path) -> Path:
    torch.save(state, folder / "m.pt")
    return folder / "m.pt"


def as_parameters(state: State, folder: Path) -> Path:
    torch.save({name: torch.nn.Parameter(value) for name, value in state.items()}, folder / "m.pth")
    return folder / "m.pth"


FILES = [as_safetensors, as_state_dict, as_parameters]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("n_layer", "bias"), LAYOUTS)
@pytest.mark.parametrize("write", FILES)
def test_logits_are_those_of_the_official_layout(
    tmp_path: Path, write: Callable[[State, Path], Path], n_layer: int, bias: bool, residual: bool
) -> None:
    state = official_state(n_layer, bias)
    model = load(write(state, tmp_path), residual=residual, allow_pickle=True)
    with torch.no_grad():
        assert torch.equal(model.module(X).isfinite(), torch.ones(5, 3, dtype=torch.bool))
        logits, expected = model.module(X), official_logits(state, X, residual)
        rounding = 1e-5 * float(expected.abs().max())  # of float32, where large terms cancel
        torch.testing.assert_close(logits, expected, rtol=0, atol=rounding)
    assert sorted(model.layers) == [f"layers.{n}" for n in range(n_layer)]
    assert model.provenance == {"format": "image checkpoint of the paper's official repository"}


def test_the_left_half_of_a_block_comes_first(tmp_path: Path) -> None:
    state = official_state()
    layer = load(as_safetensors(state, tmp_path), residual=False).module.layers[0]
    assert torch.equal(layer.left.weight, state["blocks.0.weight"][:4])
    assert torch.equal(layer.right.weight, state["blocks.0.weight"][4:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_dtype_of_the_file_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in official_state().items()}
    module = load(as_safetensors(state, tmp_path), residual=True).module
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}


@pytest.mark.parametrize("write", FILES)
def test_a_file_that_does_not_say_whether_there_is_a_residual_path_needs_to_be_told(
    tmp_path: Path, write: Callable[[State, Path], Path]
) -> None:
    path = write(official_state(), tmp_path)
    with pytest.raises(UsageError) as caught:
        load(path, allow_pickle=True)
    assert str(caught.value).startswith(f"{path}: does not say whether the model has a residual")
    calls = [f"bl.load({str(path)!r}, residual={way})" for way in (True, False)]
    assert str(caught.value).endswith(f"Call {', or '.join(calls)}.")


@pytest.fixture
def config_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """The class image.model.Config of the official repository, as a pickle names it."""
    config = type("Config", (), {"__module__": "image.model", "__qualname__": "Config"})
    for name in ("image", "image.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["image.model"].Config = config
    return config


def wrapped(folder: Path, config: object, state: State) -> Path:
    torch.save({"config": config, "model": state}, folder / "m.pt")
    sys.modules.pop("image.model", None)  # a reader does not have the official repository
    sys.modules.pop("image", None)
    return folder / "m.pt"


def config_of(config_class: type, **fields: object) -> object:
    config = config_class()
    config.__dict__.update(fields)
    return config


@pytest.mark.parametrize("residual", [False, True])
def test_a_wrapped_checkpoint_says_itself_whether_there_is_a_residual_path(
    tmp_path: Path, config_class: type, residual: bool
) -> None:
    state = official_state()
    config = config_of(config_class, residual=residual, n_layer=1, bias=False, seed=42)
    model = load(wrapped(tmp_path, config, state), allow_pickle=True)
    torch.testing.assert_close(model.module(X), official_logits(state, X, residual))


def test_the_caller_may_not_contradict_what_the_file_says(
    tmp_path: Path, config_class: type
) -> None:
    """With another answer it would be another model."""
    path = wrapped(tmp_path, config_of(config_class, residual=True), official_state())
    with pytest.raises(UsageError, match="saved with residual=True, and residual=False was asked"):
        load(path, residual=False, allow_pickle=True)
    assert load(path, residual=True, allow_pickle=True).module.residual is True


@pytest.mark.parametrize("config", [{"residual": True}, {}, None, "residual", 3, [True]], ids=str)
def test_a_config_that_is_no_object_is_read_where_it_says_something(
    tmp_path: Path, config: object
) -> None:
    path = wrapped(tmp_path, config, official_state())
    if config == {"residual": True}:
        assert load(path, allow_pickle=True).module.residual is True
    else:
        with pytest.raises(UsageError, match="does not say whether"):
            load(path, allow_pickle=True)


@pytest.mark.parametrize("said", ["yes", 1, None])
def test_a_config_that_says_it_in_another_way_is_not_guessed_at(
    tmp_path: Path, config_class: type, said: object
) -> None:
    path = wrapped(tmp_path, config_of(config_class, residual=said), official_state())
    with pytest.raises(UsageError, match="does not say whether"):
        load(path, allow_pickle=True)


def test_a_class_of_another_name_is_read_the_same_way(tmp_path: Path, config_class: type) -> None:
    """No class is imported, whatever its name."""
    other = type("Config2", (config_class,), {"__module__": "image.model"})
    sys.modules["image.model"].Config2 = other
    path = wrapped(tmp_path, config_of(other, residual=True), official_state())
    assert load(path, allow_pickle=True).module.residual is True


def older(folder: Path, state: State, **config: object) -> Path:
    """A folder of the older repository: config.json with d_hidden, n_layer, residual."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("residual", [False, True])
def test_a_folder_of_the_older_repository_is_read(tmp_path: Path, residual: bool) -> None:
    state = official_state(3)
    folder = older(tmp_path, state, d_hidden=4, n_layer=3, residual=residual, wd=0.5)
    model = load(folder)
    torch.testing.assert_close(model.module(X), official_logits(state, X, residual))
    assert model.source == str(tmp_path)


def test_an_older_folder_that_does_not_say_needs_to_be_told(tmp_path: Path) -> None:
    folder = older(tmp_path, official_state(), d_hidden=4, n_layer=1)
    with pytest.raises(UsageError, match="does not say whether"):
        load(folder)
    assert load(folder, residual=True).module.residual is True


DAMAGES: dict[str, tuple[dict[str, Tensor | None], str]] = {  # None: left out
    "no head": ({"head.weight": None}, "are not those of a model"),
    "no embedding": ({"embed.weight": None}, "are not those of a model"),
    "a missing block": ({"blocks.2.weight": torch.zeros(8, 4)}, "missing 'blocks.1.weight'"),
    "a missing bias": (
        {"blocks.1.weight": torch.zeros(8, 4), "blocks.1.bias": torch.zeros(8)},
        "missing 'blocks.0.bias'",
    ),
    "a head with bias": ({"head.bias": torch.zeros(3)}, "unexpected 'head.bias'"),
    "a block of one half": (
        {"blocks.0.weight": torch.zeros(4, 4)},
        r"'blocks.0.weight' has shape \(4, 4\); embed.weight \(4, 6\) asks for \(8, 4\)",
    ),
    "a block of another width": ({"blocks.0.weight": torch.zeros(8, 5)}, r"has shape \(8, 5\)"),
    "a block with one axis": ({"blocks.0.weight": torch.zeros(32)}, r"has shape \(32,\)"),
    "a head of another width": (
        {"head.weight": torch.zeros(3, 5)},
        r"'head.weight' has shape \(3, 5\)",
    ),
    "an embedding with three axes": ({"embed.weight": torch.zeros(4, 6, 1)}, "expected two axes"),
    "an empty input": ({"embed.weight": torch.zeros(4, 0)}, "expected two axes with entries"),
    "mixed dtypes": ({"head.weight": torch.zeros(3, 4).double()}, "mixes the dtypes"),
    # Indices that would make a list of the blocks longer than any memory.
    "a block of index 10^12": (
        {"blocks.1000000000000.weight": torch.zeros(8, 4)},
        "unexpected 'blocks.1000000000000.weight'",
    ),
    "a block of index with 5000 digits": (
        {f"blocks.{'9' * 5000}.weight": torch.zeros(8, 4)},
        "unexpected 'blocks.9999",
    ),
}


@pytest.mark.parametrize("write", [as_safetensors, as_state_dict])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, write: Callable[[State, Path], Path], name: str
) -> None:
    changes, message = DAMAGES[name]
    state = official_state() | changes
    path = write({key: value for key, value in state.items() if value is not None}, tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path, residual=False, allow_pickle=True)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("write", [as_safetensors, as_state_dict])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, write: Callable[[State, Path], Path]
) -> None:
    state = official_state()
    state["embed.weight"][1, 2] = torch.nan
    path = write(state, tmp_path)
    with pytest.raises(
        NonFiniteError, match=r"'embed.weight' holds 1 non-finite .* \(1, 2\).* train again"
    ) as caught:
        load(path, residual=False, allow_pickle=True)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_flag_is_needed_even_for_a_harmless_pickle(tmp_path: Path) -> None:
    path = as_state_dict(official_state(), tmp_path)
    for said, calls in ((False, 1), (None, 2)):  # of a residual path, which the file does not say
        with pytest.raises(CheckpointError, match=r"is a pickle, .* allow_pickle=True") as caught:
            load(path, residual=said)
        assert str(caught.value).count("bl.load(") == calls


N, R, M = 5, 4, 3


def surrogate() -> dict[str, Tensor]:
    return {"left": randn(N, R), "right": randn(N, R, seed=1), "down": randn(M, R, seed=2)}


def toy(*biases: str) -> dict[str, Tensor]:
    tensors = {f"{part}.weight": randn(R, N, seed=k) for k, part in enumerate(("left", "right"))}
    tensors["head.weight"] = randn(M, R, seed=2)
    sizes = {"left": R, "right": R, "head": M}
    return tensors | {f"{part}.bias": randn(sizes[part], seed=9) for part in biases}


def test_a_surrogate_is_its_tensor(tmp_path: Path) -> None:
    tensors = surrogate()
    model = bl.load(write_small(tmp_path, tensors))
    dense = torch.einsum("ir,jr,cr->cij", tensors["left"], tensors["right"], tensors["down"])
    dense = (dense + dense.transpose(1, 2)) / 2
    x = randn(9, N)
    expected = torch.einsum("bi,cij,bj->bc", x, dense, x)
    f = model.layers["layer"].quadratic_map
    torch.testing.assert_close(f(x), expected)
    torch.testing.assert_close(f.tensor.dense(), dense)
    assert model.layers["layer"].exact
    assert "surrogate" in model.provenance["format"]


@pytest.mark.parametrize("biases", [(), ("head",), ("left", "right", "head")])
def test_a_toy_model_is_its_formula(biases: tuple[str, ...], tmp_path: Path) -> None:
    tensors = toy(*biases)
    x = randn(9, N)
    left, right = (
        x @ tensors[f"{part}.weight"].T + tensors.get(f"{part}.bias", 0)
        for part in ("left", "right")
    )
    expected = (left * right) @ tensors["head.weight"].T + tensors.get("head.bias", 0)
    model = bl.load(write_small(tmp_path, tensors))
    torch.testing.assert_close(model.layers["layer"].quadratic_map(x), expected)


MISFITS: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "another rank": ({**surrogate(), "right": randn(N, R + 1)}, CheckpointError, "'right.weight'"),
    "another width": ({**toy(), "head.weight": randn(M, R + 1)}, CheckpointError, "'down.weight'"),
    "a vector": ({**surrogate(), "down": randn(M)}, CheckpointError, "expected two axes"),
    "mixed": ({**toy(), "left.weight": randn(R, N).float()}, CheckpointError, "mixes the dtypes"),
    "a bias": ({**toy(), "head.bias": randn(M + 1)}, CheckpointError, "'down.bias' has"),
    "NaN": (poisoned(surrogate()), NonFiniteError, "holds 1 non-finite"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    tensors, error, words = MISFITS[name]
    with pytest.raises(error, match=words):
        bl.load(write_small(tmp_path, tensors))


def test_there_is_no_residual_path_to_ask_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no blocks to be residual"):
        bl.load(write_small(tmp_path, toy()), residual=True)
