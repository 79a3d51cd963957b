"""Saved models and transformers come back bit for bit, and what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils import parametrizations

import bilens
from bilens.base.errors import CheckpointError, NonFiniteError, OutputExistsError, UsageError
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import BilinearClassifier, BilinearLayer, BilinearMLP, BilinearTransformer
from models import CLASSIFIER_CONFIG, MAKERS, edit_config, make, same_weights
from transformers_by_hand import KINDS, make as make_transformer, some_tokens

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("gate", [None, "relu", "gelu", "silu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_saved_model_comes_back_bit_for_bit(
    tmp_path: Path, kind: str, dtype: torch.dtype, bias: bool, gate: str | None
) -> None:
    module = make(kind, bias=bias, gate=gate).to(dtype)
    back = load(save(module, tmp_path / "m")).module
    assert same_weights(module, back)
    assert type(back) is type(module)
    assert not back.training
    x = torch.linspace(-1, 1, 12).reshape(2, 6).to(dtype)
    assert torch.equal(back(x), module(x))


def test_what_is_said_about_a_model_comes_back(tmp_path: Path) -> None:
    said = {"input_shape": (2, 3), "output_names": ("ア", "b", 'c"'), "input_names": (*"uvwxyz",)}
    said["provenance"] = {"seed": "3", "data": "MNIST – 手書き"}
    model = load(save(make(), tmp_path, **said))
    assert (model.input_shape, model.output_names) == ((2, 3), ("ア", "b", 'c"'))
    assert model.input_names == (*"uvwxyz",)
    assert dict(model.provenance) == {"seed": "3", "data": "MNIST – 手書き"}
    assert model.source == str(tmp_path)


def test_the_public_names_are_these_functions() -> None:
    assert bilens.save is save
    assert bilens.load is load


def test_config_json_is_a_promise(tmp_path: Path) -> None:
    """A folder written today loads in every later release."""
    save(make(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == CLASSIFIER_CONFIG
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    save(make("MLP"), tmp_path, input_shape=[6], output_names="abc", overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "format": "bilens-model",
        "format_version": 1,
        "class": "BilinearMLP",
        "arguments": {"d_model": 6, "d_hidden": 4, "d_output": 3, "bias": False, "gate": None},
        "input_shape": [6],
        "output_names": ["a", "b", "c"],
    }
    save(make("layer"), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "config.json").read_text())["arguments"] == {
        "d_input": 6,
        "d_output": 4,
        "bias": False,
        "gate": None,
    }


def test_the_weights_file_is_a_promise(tmp_path: Path) -> None:
    save(make(bias=True), tmp_path, provenance={"seed": "0"})
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        assert sorted(file.keys()) == [
            "embed.weight",
            "head.weight",
            "layers.0.left.bias",
            "layers.0.left.weight",
            "layers.0.right.bias",
            "layers.0.right.weight",
        ]
        metadata = file.metadata()
    assert set(metadata) == {"format", "bilens_format_version", "function_sha256", "provenance"}
    assert (metadata["format"], metadata["bilens_format_version"]) == ("pt", "1")
    assert json.loads(metadata["provenance"]) == {"seed": "0"}


def test_the_hash_of_a_function_is_a_promise(tmp_path: Path) -> None:
    """sha256 of '["BilinearClassifier", {"bias": false, "d_hidden": 4, …}]', keys sorted."""
    save(make(), tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        assert file.metadata()["function_sha256"] == (
            "37ebd0ceaf16345a911b78c2b215fc5cd5f10d74496d4c75f9721ff70d6f7385"
        )


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    save(make(seed=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputExistsError, match=r"already holds model.safetensors, config.json"):
        save(make(seed=2), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    save(make(seed=2), tmp_path, overwrite=True)
    assert same_weights(load(tmp_path).module, make(seed=2))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_a_model_is_not_overwritten_either(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"holds {name}:.*overwrite=True \(--overwrite\)"):
        save(make(), tmp_path)


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save(make(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_saving_changes_neither_the_model_nor_the_random_state(tmp_path: Path) -> None:
    module, state = make(), torch.get_rng_state()
    save(module, tmp_path)
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert same_weights(module, make())


def test_a_loaded_model_can_be_trained_on(tmp_path: Path) -> None:
    module = load(save(make(), tmp_path)).module
    module(torch.ones(6)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in module.parameters())


def test_a_loaded_model_does_not_hold_on_to_its_file(tmp_path: Path) -> None:
    module = load(save(make(seed=1), tmp_path)).module
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert same_weights(module, make(seed=1))


class Doubled(BilinearMLP):
    """A subclass, whose forward pass config.json cannot describe."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def altered(change: Callable[[Any], object], kind: str = "MLP") -> nn.Module:
    """A model that somebody has changed after it was built."""
    module = make(kind)
    with torch.no_grad():
        change(module)
    return module


def set_nan(module: BilinearMLP) -> None:
    module.left.weight[1, 0] = torch.nan


def set_gate(module: nn.Module) -> None:
    module.layers[1].gate = "relu"


# What could not be loaded again, or would come back as another function.
UNSAVABLE: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "a module of torch": (lambda: nn.Linear(3, 3), UsageError, "a Linear cannot be saved"),
    "a subclass": (lambda: Doubled(3, 4), UsageError, "a Doubled cannot be saved .* expected one"),
    "NaN": (lambda: altered(set_nan), NonFiniteError, r"'left.weight' holds 1 .* index \(1, 0\)"),
    "mixed dtypes": (
        lambda: altered(lambda m: m.left.double()),
        UsageError,
        "could not be loaded again: .* mixes the dtypes torch.float32, torch.float64",
    ),
    "complex": (lambda: make().to(torch.complex64), UsageError, "dtype torch.complex64"),
    "float8": (lambda: make().to(torch.float8_e5m2), UsageError, "dtype torch.float8_e5m2"),
    "meta": (lambda: make().to("meta"), UsageError, "could not be loaded again: .* device meta"),
    "layers of different gates": (
        lambda: altered(set_gate, "deep classifier"),
        UsageError,
        "the layers differ in gate or bias",
    ),
    "a parametrized layer": (
        lambda: altered(lambda m: parametrizations.weight_norm(m.left)),
        UsageError,
        "could not be loaded again: .* missing 'left.weight', unexpected 'left.parametrizations",
    ),
    "a replaced layer": (
        lambda: altered(lambda m: setattr(m, "down", nn.Linear(5, 3, bias=False))),
        UsageError,
        r"'down.weight' has shape \(3, 5\)",
    ),
}


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("name", UNSAVABLE)
def test_what_could_not_come_back_is_not_saved(tmp_path: Path, name: str) -> None:
    build, error, message = UNSAVABLE[name]
    with pytest.raises(error, match=message):
        save(build(), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_folder_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^folder is a NoneType; expected a text or a Path"):
        save(make(), None)


def test_sizes_of_numpy_are_saved(tmp_path: Path) -> None:
    sizes = np.array([6, 4, 3, 2])
    for kind, number in ((BilinearLayer, 2), (BilinearMLP, 2), (BilinearClassifier, 4)):
        model = kind(*sizes[:number])
        save(model, tmp_path / kind.__name__)
        assert same_weights(load(tmp_path / kind.__name__).module, model)


def test_weights_that_share_memory_are_saved_one_by_one(tmp_path: Path) -> None:
    module = altered(lambda m: setattr(m.right, "weight", m.left.weight))
    assert same_weights(load(save(module, tmp_path)).module, module)


def test_weights_that_lie_scattered_in_memory_are_saved(tmp_path: Path) -> None:
    module = make("MLP")
    module.left.weight = nn.Parameter(module.left.weight.detach().T.contiguous().T)
    assert same_weights(load(save(module, tmp_path)).module, module)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"input_names": ["a"]}, "input_names has 1 names; .* reads 6 inputs"),
        ({"input_names": [*"abcdea"]}, "6 names, 5 of them different"),
        ({"input_names": [1, *"abcde"]}, "input_names is .*expected texts"),
        ({"input_shape": (2, 2)}, r"input_shape \(2, 2\) has 4 entries; .* reads 6 inputs"),
        ({"input_shape": ()}, r"has 1 entries; .* reads 6 inputs"),
        ({"input_shape": (-2, -3)}, "expected positive integers"),
        ({"input_shape": (2.0, 3.0)}, "expected positive integers"),
        ({"input_shape": (True, 6)}, "expected positive integers"),
        ({"output_names": ("a", "b")}, "output_names has 2 names; .* has 3 outputs"),
        ({"output_names": ("a", "b", "a")}, "has 3 names, 2 of them different: no two"),
        ({"output_names": (0, 1, 2)}, "expected texts, one for each output"),
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        save(make(), tmp_path / "m", **said)
    assert not (tmp_path / "m").exists()


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "residual": (lambda c: c["arguments"].update(residual=True), "function_sha256 differs"),
    "gate": (lambda c: c["arguments"].update(gate="relu"), "function_sha256 differs"),
    "bias": (lambda c: c["arguments"].update(bias=True), "missing 'layers.0.left.bias'"),
    "width": (lambda c: c["arguments"].update(d_hidden=5), r"\(4, 6\); config.json says \(5, 6\)"),
    "one more layer": (lambda c: c["arguments"].update(n_layers=2), "missing 'layers.1.left.weig"),
    "an option of truth": (lambda c: c["arguments"].update(residual="no"), "function_sha256 diff"),
    "names": (lambda c: c.update(output_names=["a"]), "has 1 names; .* has 3 outputs"),
    "shape": (lambda c: c.update(input_shape=[7]), "has 7 entries; .* reads 6 inputs"),
    "negative shape": (lambda c: c.update(input_shape=[-2, -3]), "expected positive integers"),
    # Sizes that no machine could hold are compared with the file before anything is allocated.
    "huge width": (lambda c: c["arguments"].update(d_output=10**13), "config.json says"),
    "absurd width": (lambda c: c["arguments"].update(d_hidden=10**30), "do not fit"),
    "absurd product": (
        lambda c: c["arguments"].update(d_hidden=2**62, d_input=2**62),
        "do not fit",
    ),
    "a billion layers": (lambda c: c["arguments"].update(n_layers=10**9), "4 tensors; .* layers"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_config_is_noticed(tmp_path: Path, name: str) -> None:
    change, message = EDITS[name]
    save(make(), tmp_path)
    edit_config(tmp_path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_weights_of_another_function_are_noticed(tmp_path: Path) -> None:
    """The same shapes with and without a residual path: only the hash tells them apart."""
    save(make("classifier"), tmp_path / "plain")
    save(make("residual classifier"), tmp_path / "residual")
    (tmp_path / "plain/model.safetensors").replace(tmp_path / "residual/model.safetensors")
    with pytest.raises(CheckpointError, match=r"were not saved together .*: restore the pair"):
        load(tmp_path / "residual")


def test_mean_and_scale_of_the_inputs_are_kept_and_checked(tmp_path: Path) -> None:
    module = BilinearClassifier(2, 3, 2)
    numbers = {"input_mean": [0.1, -2000.0], "input_scale": [1 / 3, 5e-3]}
    save(module, tmp_path / "model", **numbers)
    loaded = load(tmp_path / "model")
    assert loaded.input_mean == (0.1, -2000.0)
    assert loaded.input_scale == (1 / 3, 5e-3)
    for wrong, message in (
        ({"input_mean": [1.0]}, "input_mean has 1 numbers; expected 2"),
        ({"input_scale": [1.0, 0.0]}, "not above 0"),
        ({"input_scale": [1.0, float("nan")]}, "finite"),
    ):
        with pytest.raises(UsageError, match=message):
            save(module, tmp_path / "other", **wrong)
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace("-2000.0", '"-2000"'))
    with pytest.raises(CheckpointError, match=r"input_mean is .* expected finite numbers"):
        load(tmp_path / "model")


TOKENS = some_tokens(2, 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_transformer_comes_back_bit_for_bit(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    model = make_transformer(**KINDS[kind], dtype=dtype)
    back = load(save(model, tmp_path)).module
    assert isinstance(back, BilinearTransformer)
    assert same_weights(model, back)
    assert back.config == model.config
    assert not back.training
    assert torch.equal(back(TOKENS), model(TOKENS))


def test_config_json_of_a_transformer_is_a_promise(tmp_path: Path) -> None:
    """A folder written today loads in every later release."""
    save(make_transformer(), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content == {
        "format": "bilens-model",
        "format_version": 1,
        "class": "BilinearTransformer",
        "arguments": {
            "vocab_size": 11,
            "d_model": 8,
            "d_hidden": 6,
            "n_layer": 2,
            "n_head": 2,
            "n_ctx": 7,
            "gate": None,
            "tied": False,
            "bias": False,
            "rotary_base": 10000.0,
            "norm_epsilon": 1e-05,
            "mlp_type": "gated",
        },
    }


def test_layers_are_its_mlps(tmp_path: Path) -> None:
    model = make_transformer()
    loaded = load(save(model, tmp_path))
    assert [*loaded.layers] == ["blocks.0.mlp", "blocks.1.mlp"]
    names = ("blocks.1.mlp_in", "blocks.1.mlp_out")
    _, found = model.run(TOKENS, capture=names)
    view = loaded.layers["blocks.1.mlp"]
    assert view.exact
    torch.testing.assert_close(view.quadratic_map(found[names[0]]), found[names[1]])
    assert not view.quadratic_map.tensor.left.requires_grad


@pytest.mark.parametrize("kind", ["relu", "ordinary"])
def test_layers_that_are_not_exact_have_the_closest_map(tmp_path: Path, kind: str) -> None:
    model = make_transformer(**KINDS[kind])
    view = load(save(model, tmp_path)).layers["blocks.0.mlp"]
    assert not view.exact
    assert view.gated is (kind == "relu")
    assert view.quadratic_map.sizes == view.sizes
    x = torch.randn(5, view.sizes.d_in, dtype=torch.float64)
    torch.testing.assert_close(view.weights(torch.float64)(x), model.mlps[0].double()(x))


def test_names_belong_to_tokens_and_there_is_no_shape_of_an_input(tmp_path: Path) -> None:
    names = [f"token {number}" for number in range(11)]
    assert load(save(make_transformer(), tmp_path, output_names=names)).output_names == tuple(names)
    with pytest.raises(UsageError, match=r"output_names has 2 names; .* has 11 outputs"):
        save(make_transformer(), tmp_path, output_names=["a", "b"], overwrite=True)
    with pytest.raises(UsageError, match=r"input_shape is \(8,\); .* reads tokens: leave it out"):
        save(make_transformer(), tmp_path, input_shape=[8], overwrite=True)


def test_an_altered_model_is_not_saved(tmp_path: Path) -> None:
    model = make_transformer()
    model.blocks[0].mlp = BilinearMLP(8, 6, gate="relu").double()
    with pytest.raises(UsageError, match="the layers differ in gate or bias"):
        save(model, tmp_path)
    model = make_transformer()
    model.blocks[0].mlp = BilinearMLP(8, 5).double()
    with pytest.raises(UsageError, match=r"could not be loaded again: .* has shape \(5, 8\)"):
        save(model, tmp_path)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another gate": ({"gate": "relu"}, "were not saved together"),
    "another base": ({"rotary_base": 500.0}, "were not saved together"),
    "another context": ({"n_ctx": 8}, "were not saved together"),
    "a tie": ({"tied": True}, "unexpected 'unembed.weight'"),
    "more layers": ({"n_layer": 3}, "missing 'blocks.2.attention.out.weight'"),
    "a billion layers": ({"n_layer": 10**9}, "config.json says 1000000000 layers"),
    "odd heads": ({"n_head": 8}, "do not fit BilinearTransformer"),
    "another MLP": ({"mlp_type": "ordinary"}, "missing 'blocks.0.mlp.up.weight'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    save(make_transformer(), tmp_path)
    edit_config(tmp_path, lambda content: content["arguments"].update(change))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_a_tied_matrix_is_in_the_file_once(tmp_path: Path) -> None:
    save(make_transformer(tied=True), tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        assert "unembed.weight" not in file.keys()  # noqa: SIM118 - safe_open is no mapping
