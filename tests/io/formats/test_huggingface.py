"""MLPs of every family, against the modules of transformers that saved them."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_language_models as tiny
from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.base.errors import CheckpointError, NonFiniteError, NumericalError, UsageError
from bilens.base.files import file_sha256
from bilens.io.byte_ranges import Block, Region
from bilens.io.formats import families, source
from bilens.io.formats.families import FAMILIES
from bilens.io.formats.safetensors_folder import INDEX_NAME
from bilens.io.load import LoadedModel, load
from bilens.io.loaded_model import WEIGHTS_NAME
from bilens.io.stored_mlp import WORKING_COPIES
from models import edit_config
from peak_memory import OVERHEAD, peak_of

transformers = pytest.importorskip("transformers")
X = tiny.inputs()


def expected_of(model: Any, name: str) -> Tensor:
    """What the module of transformers gives for X; of a mixture, what the one expert gives."""
    path, is_expert, index = name.partition(".experts.")
    if not is_expert:
        return tiny.run_mlp(model, path, X)
    experts: Any = tiny.module_at(model, f"{path}.experts")
    if model.config.model_type == "gpt_oss":
        i = int(index)
        both = experts._apply_gate(X @ experts.gate_up_proj[i] + experts.gate_up_proj_bias[i])
        found: Tensor = both @ experts.down_proj[i] + experts.down_proj_bias[i]
        return found
    gate, value = (X @ experts.gate_up_proj[int(index)].T).chunk(2, dim=-1)
    out: Tensor = (experts.act_fn(gate) * value) @ experts.down_proj[int(index)].T
    return out


def check_layers(model: LoadedModel, theirs: Any) -> None:
    for name, view in model.layers.items():
        torch.testing.assert_close(view.weights(torch.float64)(X), expected_of(theirs, name))


def test_the_table_is_tested_whole() -> None:
    assert {*tiny.FAMILIES} == {*FAMILIES}


@pytest.mark.parametrize("kind", tiny.FAMILIES)
def test_every_mlp_of_a_family_is_that_of_transformers(tmp_path: Path, kind: str) -> None:
    theirs = tiny.write(tmp_path, kind, torch.float32)
    model = load(tmp_path)
    assert model.module is None
    assert model.provenance["format"] == f"Hugging Face {kind}"
    assert model.provenance["mlp_input"].startswith("the residual stream")
    for name, view in model.layers.items():
        weights = view.weights(torch.float64)
        assert not view.exact
        assert view.gated is (kind not in tiny.ORDINARY)
        assert (view.reads, view.dtype) == ("residual stream", torch.float32)
        assert view.sizes == (*weights.down.shape, weights.d_in)
        torch.testing.assert_close(weights(X), expected_of(theirs, name), rtol=0, atol=1e-5)
    assert model.exactness.source.startswith("transformers' ")
    assert model.exactness.layer.split(" and ") == [[*model.layers][place] for place in (0, -1)]
    assert model.exactness.relative_error < 1e-12


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kind", ["gpt2", "bert", "vit", "llama"])
def test_pickled_weights_are_read_where_they_may_be(tmp_path: Path, kind: str, shards: int) -> None:
    theirs = tiny.write(tmp_path, kind, torch.float32)
    before, tensors = load(tmp_path), load_file(tmp_path / WEIGHTS_NAME)
    (tmp_path / WEIGHTS_NAME).unlink()
    for number in range(shards):
        part = {name: tensors[name] for name in [*tensors][number::shards]}
        ending = "" if shards == 1 else f"-0000{number + 1}-of-00002"
        torch.save(part, tmp_path / f"pytorch_model{ending}.bin")
    with pytest.raises(CheckpointError, match=r"is a pickle.*allow_pickle=True\)\.$"):
        load(tmp_path)
    model = load(tmp_path, allow_pickle=True)
    assert [*model.layers] == [*before.layers]
    assert {*model.tensors} == {*tensors}
    for name, view in model.layers.items():
        found = view.weights(torch.float64)(X)
        torch.testing.assert_close(found, expected_of(theirs, name), rtol=0, atol=1e-5)
    assert model.exactness.relative_error < 1e-12
    torch.save(tensors, tmp_path / "pytorch_model_copy.bin")
    with pytest.raises(CheckpointError, match="that another shard holds, too"):
        load(tmp_path, allow_pickle=True)


@pytest.mark.parametrize("kind", [kind for kind in tiny.FAMILIES if kind != "gpt_oss"])
def test_without_an_activation_the_map_is_the_module(tmp_path: Path, kind: str) -> None:
    options = tiny.LINEAR.get(kind, {"hidden_act": "linear"})
    theirs = tiny.write(tmp_path, kind, **options)
    for name, view in load(tmp_path).layers.items():
        assert view.exact
        assert view.fit is None
        torch.testing.assert_close(
            view.quadratic_map(X), expected_of(theirs, name), rtol=0, atol=1e-10
        )


LAYERS = {
    "mistral": ["layers.0.mlp", "layers.1.mlp"],
    "t5": [
        "encoder.block.0.layer.1.DenseReluDense",
        "encoder.block.1.layer.1.DenseReluDense",
        "decoder.block.0.layer.2.DenseReluDense",
    ],
    "mixtral": [f"layers.{i}.mlp.experts.{n}" for i in range(2) for n in range(3)],
    "deepseek_v3": [
        "layers.0.mlp",
        *[f"layers.1.mlp.experts.{n}" for n in range(4)],
        "layers.1.mlp.shared_experts",
    ],
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_called_as_in_transformers(tmp_path: Path, kind: str) -> None:
    tiny.write(tmp_path, kind)
    assert [*load(tmp_path).layers] == LAYERS[kind]


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"])
def test_experts_in_one_stack_are_the_same_layers(tmp_path: Path, kind: str) -> None:
    """As transformers 5 holds them in memory, and as the same model is on the disk."""
    theirs = tiny.write(tmp_path / "disk", kind)
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert any(name.endswith("experts.gate_up_proj") for name in state)
    (tmp_path / "memory").mkdir()
    save_file(state, tmp_path / "memory" / WEIGHTS_NAME)
    config = (tmp_path / "disk" / "config.json").read_text()
    (tmp_path / "memory" / "config.json").write_text(config)
    one, other = (load(tmp_path / name).layers for name in ("disk", "memory"))
    assert [*one] == [*other]
    for name in one:
        torch.testing.assert_close(one[name].weights()(X), other[name].weights()(X))


@pytest.mark.parametrize("old_names", [False, True])
def test_of_a_gemma_3_that_reads_images_the_language_model_is_read(
    tmp_path: Path, old_names: bool
) -> None:
    images = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "image_size": 28}
    config = transformers.Gemma3Config(
        text_config={**tiny.BASE, "head_dim": 4}, vision_config={**images, "num_attention_heads": 2}
    )
    theirs = transformers.Gemma3ForConditionalGeneration(config).double().eval()
    theirs.save_pretrained(tmp_path)
    state = {f"model.{name}": t for name, t in theirs.model.state_dict().items()}
    if old_names:
        state = {
            name.replace("model.language_model.", "language_model.model."): t
            for name, t in state.items()
        }
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / WEIGHTS_NAME)
    model = load(tmp_path)
    assert [*model.layers] == ["layers.0.mlp", "layers.1.mlp"]
    for index, view in enumerate(model.layers.values()):
        mlp = theirs.model.language_model.layers[index].mlp
        torch.testing.assert_close(view.weights(torch.float64)(X), mlp(X))
    assert model.exactness.source == "transformers' Gemma3MLP"


def test_shards_are_the_same_layers(tmp_path: Path) -> None:
    model = tiny.make("mistral")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="2KB")
    assert (tmp_path / "many" / INDEX_NAME).exists()
    one, many = load(tmp_path / "one"), load(tmp_path / "many")
    for name, view in many.layers.items():
        assert torch.equal(view.weights()(X), one.layers[name].weights()(X))
    assert one.weights_sha256 == file_sha256(tmp_path / "one" / WEIGHTS_NAME)
    assert many.weights_sha256 != one.weights_sha256


def test_a_model_without_a_head_has_the_same_layers(tmp_path: Path) -> None:
    theirs = tiny.make("qwen2")
    theirs.model.save_pretrained(tmp_path)
    assert not any(name.startswith("model.") for name in load_file(tmp_path / WEIGHTS_NAME))
    check_layers(load(tmp_path), theirs)


def test_the_encoder_of_a_t5_may_stand_alone(tmp_path: Path) -> None:
    theirs = tiny.make("t5")
    config = theirs.config
    encoder = transformers.T5EncoderModel(config).double()
    encoder.load_state_dict(theirs.state_dict(), strict=False)
    encoder.save_pretrained(tmp_path)
    assert [*load(tmp_path).layers] == LAYERS["t5"][:2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_it_is_and_is_computed_in_float64(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    theirs = tiny.write(tmp_path, "mistral", dtype)
    view = load(tmp_path).layers["layers.0.mlp"]
    assert view.dtype is view.weights().down.dtype is dtype
    assert view.quadratic_map.dtype is torch.float32
    torch.testing.assert_close(
        view.weights(torch.float64)(X), expected_of(theirs, "layers.0.mlp"), rtol=0, atol=1e-12
    )


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a folder."""
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME, {"format": "pt"})


UP = "model.layers.1.mlp.up_proj.weight"


def test_mixed_dtypes_of_a_layer_are_read_in_the_narrowest_that_holds_all(tmp_path: Path) -> None:
    theirs = tiny.write(tmp_path, "mistral", torch.bfloat16)
    edit(tmp_path, lambda t: t.update({UP: t[UP].half()}))
    model = load(tmp_path)
    assert [view.dtype for view in model.layers.values()] == [torch.bfloat16, torch.float32]
    check_layers(model, theirs)


def test_nothing_is_read_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path, "mistral")
    read: list[tuple[int, int]] = []
    fetch = Region.fetch

    def counted(place: Region, block: Block) -> Tensor:
        read.extend((start, stop) for _, start, stop in place.spans(block))
        return fetch(place, block)

    monkeypatch.setattr(Region, "fetch", counted)
    model = load(tmp_path)
    layers = model.layers
    assert [view.sizes for view in layers.values()] == [(tiny.D, tiny.H, tiny.D)] * 2
    assert read == []
    _ = layers["layers.1.mlp"].quadratic_map
    names = ("gate_proj", "up_proj", "down_proj")
    parts = [model.tensors[f"model.layers.1.mlp.{name}.weight"] for name in names]
    parts.append(model.tensors["model.embed_tokens.weight"].rows(0, 16))  # its basis
    assert sorted(read) == sorted(span[1:] for part in parts for span in part.spans)


def test_a_file_that_changes_after_loading_is_not_read(tmp_path: Path) -> None:
    tiny.write(tmp_path, "mistral")
    view = load(tmp_path).layers["layers.0.mlp"]
    edit(tmp_path, lambda t: t[UP].add_(1))
    for change in (lambda: None, (tmp_path / WEIGHTS_NAME).unlink):
        change()
        with pytest.raises(CheckpointError, match="was changed or moved after the model was load"):
            view.weights()


def test_weights_that_are_not_finite_are_refused_where_they_are_read(tmp_path: Path) -> None:
    tiny.write(tmp_path, "mistral")
    edit(tmp_path, lambda t: t[UP][0, 0].fill_(torch.nan))
    layers = load(tmp_path).layers
    layers["layers.0.mlp"].weights()
    with pytest.raises(NonFiniteError, match=rf"model.safetensors: tensor '{UP}' holds 1 non-fin"):
        layers["layers.1.mlp"].weights()


def test_without_transformers_nothing_says_that_it_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("phi3", "mixtral", "t5"):
        tiny.write(tmp_path / kind, kind)
        with monkeypatch.context() as missing:
            missing.setattr(source, "module_of_transformers", lambda *_: None)
            assert load(tmp_path / kind).exactness is None


def test_what_is_another_function_than_its_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path, "mistral")
    monkeypatch.setitem(families.SPELLINGS, "silu", "gelu")
    with pytest.raises(NumericalError, match=r"another function than its source: layers\.0\.mlp"):
        _ = load(tmp_path).exactness


def test_a_whole_llama_is_compared_with_its_source_behind_the_gain(tmp_path: Path) -> None:
    theirs = tiny.write(tmp_path, "llama", attention_bias=False)
    model = load(tmp_path)
    assert model.module is not None
    gain = theirs.model.layers[0].post_attention_layernorm.weight.detach()
    assert float((gain - 1).abs().max()) > 0.1
    assert model.exactness.source == "transformers' LlamaMLP"
    assert model.exactness.relative_error < 1e-12
    torch.testing.assert_close(
        model.layers["blocks.0.mlp"].weights()(X), theirs.model.layers[0].mlp(gain * X)
    )


def test_a_llama_that_does_not_fit_into_memory_is_read_by_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path, "llama", attention_bias=False)
    size = sum(one.nbytes for one in load_file(tmp_path / WEIGHTS_NAME).values())
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", str(2 * size - 1))
    model = load(tmp_path)
    assert model.module is None
    assert "does not fit into memory as a whole" in model.provenance["read"]
    model.layers["layers.1.mlp"].weights()


def test_a_configuration_hands_no_text_to_transformers_that_could_name_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tmp_path, "mistral")
    names = {"attn_implementation": "someone/kernel", "_attn_implementation": "someone/kernel"}
    edit_config(
        tmp_path, lambda content: content.update(names, custom={"code": "x.py"}, more=["x"])
    )
    built: list[Any] = []
    build = transformers.AutoModel.from_config

    def watched(config: Any, **options: Any) -> Any:
        built.append((config, options))
        return build(config, **options)

    monkeypatch.setattr(transformers.AutoModel, "from_config", watched)
    assert load(tmp_path).exactness.source == "transformers' MistralMLP"
    (config, options), _ = built  # of the first layer and of the last
    assert "someone" not in str(config.to_dict()) + str(options) + str(vars(config))
    assert not hasattr(config, "custom")
    assert options == {"attn_implementation": "eager"}


CODE = """
from pathlib import Path
from bilens.io.load import LoadedModel, load
model = load(Path({folder!r}))
def walk():
    for view in model.layers.values():
        view.quadratic_map
measure(walk)
"""


@pytest.mark.slow
def test_a_walk_over_the_layers_needs_the_memory_of_one(tmp_path: Path) -> None:
    d, h = 768, 3072
    one = {"gate_proj": (h, d), "up_proj": (h, d), "down_proj": (d, h)}
    in_float64 = 8 * 3 * d * h

    def peak_of_a_walk(layers: int) -> int:
        folder = tmp_path / str(layers)
        folder.mkdir()
        names = {
            f"model.layers.{index}.mlp.{name}.weight": torch.full(shape, 0.01).bfloat16()
            for index in range(layers)
            for name, shape in one.items()
        }
        save_file(names, folder / WEIGHTS_NAME)
        config = {"model_type": "mistral", "hidden_size": d, "num_hidden_layers": layers}
        (folder / "config.json").write_text(json.dumps(config))
        return peak_of(CODE.format(folder=str(folder)))

    few, many = peak_of_a_walk(2), peak_of_a_walk(6)
    assert many - few < in_float64 / 2
    before = 4 / 3  # the map of the last layer, whose down and gate are the layer's, and its right
    assert many < (WORKING_COPIES + before) * in_float64 + OVERHEAD


def test_a_residual_path_is_no_question_of_a_language_model(tmp_path: Path) -> None:
    tiny.write(tmp_path, "mistral")
    with pytest.raises(UsageError, match="language model, which always has residual paths"):
        load(tmp_path, residual=False)


def test_old_configurations_of_gemma_mean_the_tanh_form(tmp_path: Path) -> None:
    tiny.write(tmp_path, "gemma")
    edit_config(tmp_path, lambda content: content.update(hidden_act="gelu"))
    model = load(tmp_path)
    assert model.layers["layers.0.mlp"].activation.name == "gelu_tanh"
    assert model.exactness.source == "transformers' GemmaMLP"


def test_hidden_act_of_gemma_2_is_ignored(tmp_path: Path) -> None:
    tiny.write(tmp_path, "gemma2")
    edit_config(tmp_path, lambda content: content.update(hidden_act="relu"))
    assert load(tmp_path).layers["layers.0.mlp"].activation.name == "gelu_tanh"
    edit_config(tmp_path, lambda content: content.update(hidden_activation=None))
    assert load(tmp_path).layers["layers.0.mlp"].activation.name == "gelu_tanh"


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    tiny.write(tmp_path, "deepseek_v3")
    name = "model.layers.2.mlp.gate_proj.weight"
    edit(tmp_path, lambda t: t.update({name: torch.zeros(3, 3)}))
    edit_config(tmp_path, lambda content: content.update(num_nextn_predict_layers=1))
    assert [*load(tmp_path).layers] == LAYERS["deepseek_v3"]


def change_config(**options: Any) -> Callable[[Path], object]:
    return lambda folder: edit_config(folder, lambda content: content.update(options))


def change_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    return lambda folder: edit(folder, change)


def cut(folder: Path) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS_NAME), folder / "pytorch_model.bin")
    (folder / WEIGHTS_NAME).unlink()


def index_naming(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        names = [*load_file(folder / WEIGHTS_NAME)]
        (folder / WEIGHTS_NAME).rename(folder / "a.safetensors")
        placed = {**dict.fromkeys(names, "a.safetensors"), UP: file}
        (folder / INDEX_NAME).write_text(json.dumps({"weight_map": placed}))
        save_file({"x": torch.zeros(1)}, folder.parent / "b.safetensors")

    return write


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "images, and no language": (change_config(model_type="gemma3"), "lacks text_config"),
    "an unknown type": (change_config(model_type="wonder"), "of the type 'wonder', which is not"),
    "no type": (change_config(model_type=None), "of the type None, which is not known"),
    "a type that is a list": (change_config(model_type=["mistral"]), r"of the type \['mistral'\]"),
    "code of its own": (change_config(auto_map={"AutoModel": "x.py"}), r"\(auto_map\), which is n"),
    "a quantised model": (change_config(quantization_config={"bits": 4}), "is quantised"),
    "an unknown activation": (change_config(hidden_act="mish"), "has the activation 'mish'"),
    "an activation that is a list": (change_config(hidden_act=["silu"]), r"activation \['silu'\]"),
    "no layers": (change_config(num_hidden_layers=0), "has num_hidden_layers 0; expected a pos"),
    "a text for a number": (change_config(num_hidden_layers="2"), "has num_hidden_layers '2'"),
    "no number": (change_config(num_hidden_layers=None), "lacks num_hidden_layers"),
    "a billion layers": (change_config(num_hidden_layers=10**9), "has num_hidden_layers 10000000"),
    "more layers": (change_config(num_hidden_layers=3), "missing 'model.layers.2.mlp.down_proj"),
    "fewer layers": (change_config(num_hidden_layers=1), "unexpected 'model.layers.1.mlp.down_pro"),
    "another width": (change_config(hidden_size=16), r"shape \(12, 8\); expected the width 16"),
    "a missing tensor": (change_tensors(lambda t: t.pop(UP)), f"missing '{UP}'"),
    "an unknown tensor": (
        change_tensors(lambda t: t.update({UP.replace("up_proj", "norm"): torch.ones(3)})),
        "unexpected 'model.layers.1.mlp.norm.weight'",
    ),
    "biases that nobody announced": (
        change_tensors(lambda t: t.update({UP.replace("weight", "bias"): torch.ones(12)})),
        "unexpected 'model.layers.1.mlp.up_proj.bias'",
    ),
    "a wrong shape": (
        change_tensors(lambda t: t.update({UP: torch.ones(12, 7)})),
        r"up_proj.weight' has shape \(12, 7\); expected \(12, 8\), beside",
    ),
    "a vector": (change_tensors(lambda t: t.update({UP: torch.ones(12)})), r"has shape \(12,\)"),
    "integers": (
        change_tensors(lambda t: t.update({UP: torch.ones(12, 8, dtype=torch.int8)})),
        "up_proj.weight' is of I8; expected one of F64, F32, F16, BF16",
    ),
    "8-bit floats": (
        change_tensors(lambda t: t.update({UP: torch.ones(12, 8).to(torch.float8_e4m3fn)})),
        "is of 8-bit floats, which mean nothing without their scales",
    ),
    "an empty file": (lambda p: (p / WEIGHTS_NAME).write_bytes(b""), r"is empty \(0 bytes\)"),
    "a file cut in the middle": (cut, "is not a readable safetensors file"),
    "a pickle": (as_pickle, r"in pytorch_model\.bin\. It is a pickle, which can hold code"),
    "no weights": (lambda p: (p / WEIGHTS_NAME).unlink(), "model.safetensors: no such file"),
    "a shard that is not there": (index_naming("0.safetensors"), "0.safetensors: no such file"),
    "a shard elsewhere": (index_naming("../b.safetensors"), r"names the file '\.\./b.safetensors'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    folder = tmp_path / "model"
    tiny.write(folder, "mistral")
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


MIXTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "more experts": (change_config(num_local_experts=4), "missing '.*experts.3.w1.weight'"),
    "fewer experts": (change_config(num_local_experts=2), "unexpected '.*experts.2.w1.weight'"),
    "a million experts": (change_config(num_local_experts=10**6), "num_local_experts 1000000"),
    "no router": (
        change_tensors(lambda t: t.pop("model.layers.0.block_sparse_moe.gate.weight")),
        "missing 'model.layers.0.block_sparse_moe.gate.weight'",
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_damaged_mixture_is_refused(tmp_path: Path, name: str) -> None:
    damage, message = MIXTURES[name]
    tiny.write(tmp_path, "mixtral")
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


def test_a_t5_without_a_gate_has_ordinary_mlps(tmp_path: Path) -> None:
    theirs = tiny.write(tmp_path, "t5", feed_forward_proj="relu")
    model = load(tmp_path)
    assert [*model.layers] == LAYERS["t5"]
    check_layers(model, theirs)
    assert {(view.gated, view.activation.name) for view in model.layers.values()} == {
        (False, "relu")
    }
    assert model.exactness.source == "transformers' T5DenseActDense"


def test_the_quick_gelu_is_read_with_its_number_in_the_weights(tmp_path: Path) -> None:
    theirs = tiny.write(tmp_path, "vit", torch.float32, hidden_act="quick_gelu")
    model = load(tmp_path)
    assert model.provenance["activation"] == "silu with 1.702 in the weights (quick GELU)"
    check_layers(model, theirs)
    assert {view.activation.name for view in model.layers.values()} == {"silu"}
    assert model.exactness.relative_error < 1e-12
    assert model.layers["encoder.layer.0"].fit is not None


def test_what_an_mlp_reads_is_said_with_its_norm(tmp_path: Path) -> None:
    for before, words in (
        (True, "behind a LayerNorm, with its gain and bias"),
        (False, "itself; "),
    ):
        tiny.write(tmp_path / str(before), "opt", do_layer_norm_before=before)
        model = load(tmp_path / str(before))
        assert f"the residual stream {words}" in model.provenance["mlp_input"]
        assert words in model.layers["decoder.layers.0"].about_input
        assert model.provenance["read"] == "the ordinary MLPs alone"


def test_biases_of_an_ordinary_mlp_may_be_left_out(tmp_path: Path) -> None:
    theirs = tiny.write(tmp_path, "falcon", bias=False)
    model = load(tmp_path)
    check_layers(model, theirs)
    assert all(view.weights().constant is None for view in model.layers.values())


@pytest.mark.parametrize("kind", ["gpt2", "bert", "vit"])
def test_a_model_without_a_head_has_the_same_ordinary_mlps(tmp_path: Path, kind: str) -> None:
    theirs = tiny.make(kind)
    theirs.base_model.save_pretrained(tmp_path)
    check_layers(load(tmp_path), theirs)


def test_a_layer_is_gated_weights(tmp_path: Path) -> None:
    tiny.write(tmp_path, "modernbert")
    weights = load(tmp_path).layers["layers.0.mlp"].weights()
    assert isinstance(weights, GLUWeights)
    assert weights.gate_bias is not None
    assert weights.constant is not None


@pytest.mark.parametrize("key", ["intermediate_size", "vocab_size", "hidden_size"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2"])
def test_absurd_sizes_are_refused_or_not_looked_at(tmp_path: Path, kind: str, key: str) -> None:
    tiny.write(tmp_path, kind, **({"attention_bias": False} if kind == "llama" else {}))
    key = "n_embd" if (kind, key) == ("gpt2", "hidden_size") else key
    edit_config(tmp_path, lambda content: content.update({key: 2**70}))
    read = kind != "llama" and key not in ("hidden_size", "n_embd")  # the MLPs have their own sizes
    expected = nullcontext() if read else pytest.raises(CheckpointError, match=str(2**70))
    with expected:
        _ = load(tmp_path).exactness


def linked(folder: Path, home: Path) -> None:
    """Put a link in the place of the weights."""
    home.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_NAME).rename(home / "weights")
    (folder / WEIGHTS_NAME).symlink_to(home / "weights")


def test_weights_that_are_a_link_out_of_their_folder_are_refused(tmp_path: Path) -> None:
    tiny.write(tmp_path / "model", "mistral")
    linked(tmp_path / "model", tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"is a link to .*elsewhere/weights, outside"):
        load(tmp_path / "model")


def test_links_of_a_cache_of_the_hub_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0a1b"
    tiny.write(snapshot, "mistral")
    linked(snapshot, tmp_path / "models--a--b" / "blobs")
    assert [*load(snapshot).layers] == LAYERS["mistral"]
    (tmp_path / "seen").symlink_to(snapshot)  # a link to the folder itself is the caller's own
    assert [*load(tmp_path / "seen").layers] == LAYERS["mistral"]
