"""State dicts in the class that somebody names: the module is built, filled strictly, and read."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import BilensError, CheckpointError, UsageError
from bilens.io.any_model import open_any
from bilens.io.formats.known_classes import TORCHVISION, class_of
from bilens.io.loaded_model import ReadOptions
from builders import randn
from raising import refusal

HOME = "module_classes_of_tests"
CODE = """
import torch
from torch import nn

class Swapped(nn.Module):
    def __init__(self, width, depth=1):
        super().__init__()
        self.fc2, self.fc1 = nn.Linear(5, 2 * width), nn.Linear(width, 3)
        self.register_buffer("scale", torch.eye(2), False)

    def forward(self, x):
        up, gate = self.fc2(x).chunk(2, -1)
        return self.fc1(nn.functional.silu(gate) * up)

class Tied(Swapped):
    def __init__(self, width):
        super().__init__(width)
        self.again = self.fc1

def none():
    return 3
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{HOME}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, HOME, raising=False)
    return HOME


def state_of(name: str = "Swapped", *given: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    module: nn.Module = getattr(__import__(HOME), name)(*given)
    return module, {key: one.clone() for key, one in module.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_module_is_built_and_read_as_it_runs(
    home: str, tmp_path: Path, suffix: str, dtype: torch.dtype
) -> None:
    """Names and shapes give two orders of the branches; the module has one."""
    module, state = state_of("Swapped", 8)
    state = {name: one.to(dtype) for name, one in state.items()}
    path = tmp_path / f"m{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)  # type: ignore[operator]
    model = bl.load(path, allow_pickle=True, module_class=f"{home}.Swapped(width=8)")
    (view,) = model.layers.values()
    assert (view.gated, view.activation.name, view.dtype) == (True, "silu", dtype)
    module.load_state_dict(state)
    x = randn(9, 5)
    with torch.no_grad():
        expected = module.double()(x)
    torch.testing.assert_close(view.weights(torch.float64)(x), expected, atol=1e-9, rtol=0)
    assert model.exactness is not None
    assert model.source == str(path)
    plainly = {"roles": {"up": "fc1.weight"}, "transposed": False}
    plain = bl.load(path, allow_pickle=True, activation="silu", **plainly)
    assert model.weights_sha256 == plain.weights_sha256


def test_arguments_come_from_the_configuration_beside_it(home: str, tmp_path: Path) -> None:
    _, state = state_of("Swapped", 8)
    save_file(state, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"width": 8, "other": 1}))
    model = bl.load(tmp_path / "m.safetensors", module_class=f"{home}.Swapped")
    assert len(model.layers) == 1
    refusal(CheckpointError, r"other shapes: fc1.weight \(3, 8\) for \(3, 9\)", load_in,
            tmp_path / "m.safetensors", f"{home}.Swapped(width=9)")  # fmt: skip


def load_in(path: Path, name: str) -> Any:
    return bl.load(path, module_class=name)


def test_what_is_saved_once_may_have_two_names_and_nothing_else_is_passed_over(
    home: str, tmp_path: Path
) -> None:
    _, state = state_of("Tied", 8)
    once = {name: one for name, one in state.items() if not name.startswith("again")}
    path = tmp_path / "m.safetensors"
    save_file(once, path)
    assert load_in(path, f"{home}.Tied(8)").layers
    save_file({**once, "scale": torch.eye(2)}, path)
    assert load_in(path, f"{home}.Tied(8)").layers
    save_file({**once, "scale": torch.ones(2, 2)}, path)  # which a module has itself, but otherwise
    refusal(CheckpointError, "unexpected keys: scale", load_in, path, f"{home}.Tied(8)")
    save_file({name: one for name, one in once.items() if name != "fc2.bias"}, path)
    refusal(CheckpointError, r"missing keys: fc2.bias", load_in, path, f"{home}.Tied(8)")


@pytest.mark.usefixtures("home")
def test_other_options_about_its_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(state_of("Swapped", 8)[1], path)
    with pytest.raises(UsageError, match="says what its tensors are: leave roles"):
        bl.load(path, module_class=f"{HOME}.Swapped(8)", activation="silu")


REFUSED = {
    "nowhere.Net": r"cannot be imported \(ModuleNotFoundError",
    f"{HOME}.Other": r"cannot be imported \(AttributeError",
    f"{HOME}.Swapped": r"cannot be built \(TypeError: .*width.*say its arguments",
    f"{HOME}.none": "is no torch.nn.Module",
    "Net": "expected a class or a function of a package",
    f"{HOME}.Swapped(width=open('x'))": "expected a class or a function of a package",
    f"{HOME}.Swapped[0].x": "expected a class or a function of a package",
    "transformers.BertModel": r"cannot be built .*config.json beside",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("home")
def test_what_is_no_class_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("transformers"):
        pytest.importorskip("transformers")
    path = tmp_path / "m.safetensors"
    save_file(state_of("Swapped", 8)[1], path)
    refusal(UsageError, REFUSED[name], load_in, path, name)


SHOWN = ("resnet18", "mobilenet_v2", "squeezenet1_1", "vgg11_bn", "vit_b_16", "shufflenet_v2_x0_5")


@pytest.mark.parametrize("classes", [1000, 7])
@pytest.mark.parametrize("name", SHOWN)
def test_a_classifier_of_torchvision_is_named(name: str, classes: int) -> None:
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        state = models.get_model(name, weights=None, num_classes=classes).state_dict()
    said = f"torchvision.models.{name}" + ("" if classes == 1000 else "(num_classes=7)")
    said = "" if name.startswith("shuffle") else said  # in no table
    shapes = {key: tuple(one.shape) for key, one in state.items()}
    assert class_of(Path("nowhere"), shapes) == said.replace("()", "")
    assert class_of(Path("nowhere"), {**shapes, "more": (3,)}) == ""


def test_every_line_of_the_table_is_a_model_of_torchvision() -> None:
    models = pytest.importorskip("torchvision").models
    names = [word for line in TORCHVISION.split("\n")[1:-1] for word in line.split(":")[1].split()]
    assert {*names[1::2]} <= {*models.list_models(module=models)}
    assert len({*names[1::2]}) == len(names) / 2


def test_the_class_that_is_named_reads_the_file(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "m.pt")
    with pytest.raises(BilensError, match="this imports the package") as caught:
        bl.load(tmp_path / "m.pt")
    model = bl.load(tmp_path / "m.pt", **caught.value.retries[0].said)  # type: ignore[arg-type]
    assert "features.3.expand1x1" in model.layers
    assert ("--class", "torchvision.models.squeezenet1_1") in caught.value.retries[0].options()


def test_a_family_that_is_in_no_table_is_read_in_the_class_of_its_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 99}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    module = transformers.BartModel(transformers.BartConfig(**sizes))
    module.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"have the names of transformers.BartModel"
    ) as caught:
        bl.load(tmp_path)
    model = bl.load(tmp_path, **caught.value.retries[0].said)  # type: ignore[arg-type]
    x = randn(9, 16)
    block = module.double().encoder.layers[0]
    with torch.no_grad():
        expected = block.fc2(block.activation_fn(block.fc1(x)))
    made = model.layers["encoder.layers.0"].weights(torch.float64)(x)
    torch.testing.assert_close(made, expected, atol=1e-9, rtol=0)


def test_a_file_of_a_folder_that_is_a_model_names_the_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 99}
    transformers.BertModel(transformers.BertConfig(num_attention_heads=2, **sizes)).save_pretrained(
        tmp_path
    )
    with pytest.raises(BilensError, match="The folder that it lies in is a model") as caught:
        bl.load(tmp_path / "model.safetensors")
    assert bl.load(caught.value.retries[0].path).layers


@pytest.mark.parametrize(
    ("name", "family", "tensor"),
    [
        ("BertForSounds", "bert", "embeddings.word_embeddings.weight"),  # no such class
        ("BertModel", "bert", "other.weight"),  # a class of other parts
        ("BertModel", "other", "embeddings.word_embeddings.weight"),
        ("BertModel", "bert", "embeddings.word_embeddings.weight"),
    ],
)
def test_a_class_is_named_only_where_it_is_and_the_tensors_are_its_own(
    name: str, family: str, tensor: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    config = {"architectures": [name], "model_type": family}
    (tmp_path / "config.json").write_text(json.dumps(config))
    known = (name, family, tensor[:5]) == ("BertModel", "bert", "embed")
    assert class_of(tmp_path, {tensor: (3, 4)}) == ("transformers.BertModel" if known else "")


def test_a_command_that_is_named_is_quoted(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.save(models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "m.pt")
    said = open_any(tmp_path / "m.pt", ReadOptions(allow_pickle=True)).provenance["read"]
    assert "--class 'torchvision.models.squeezenet1_1(num_classes=7)'" in said
