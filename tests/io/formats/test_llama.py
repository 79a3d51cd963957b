"""Llama folders: models of transformers come in as the same function, the rest is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bilens
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from bilens.base.files import file_sha256
from bilens.io.formats import safetensors_folder as module
from bilens.io.load import load
from bilens.nn import BilinearTransformer
from models import edit_config
from transformers_by_hand import make, some_tokens

transformers = pytest.importorskip("transformers")
TOKENS = some_tokens(3, 7)
SIZES: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 7,
    "hidden_act": "linear",
}
KINDS: dict[str, dict[str, Any]] = {
    "bilinear": {},
    "SwiGLU": {"hidden_act": "silu"},
    "GEGLU": {"hidden_act": "gelu"},
    "ReGLU": {"hidden_act": "relu"},
    "grouped heads": {"num_key_value_heads": 2},
    "one head of keys": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biases": {"mlp_bias": True},
    "another base": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "another epsilon": {"rms_norm_eps": 0.3},
}


def llama(gains: bool = True, seed: int = 0, **options: Any) -> nn.Module:
    """A Llama of transformers in float64 whose weights, gains too, are far from their start."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **options})).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm" in name:
                parameter.copy_(1 + 0.5 * noise if gains else torch.ones_like(noise))
            else:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return model.eval()


def float64_norm(self: nn.Module, x: Tensor) -> Tensor:
    """Llama's norm without its detour through float32."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, True) + self.variance_epsilon)


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = transformers.models.llama.modeling_llama.LlamaRMSNorm
    monkeypatch.setattr(norm, "forward", float64_norm)


@pytest.mark.parametrize("shards", ["50GB", "2KB"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_llama_comes_in_as_the_same_function(tmp_path: Path, kind: str, shards: str) -> None:
    theirs = llama(**KINDS[kind])
    theirs.save_pretrained(tmp_path, max_shard_size=shards)
    assert (tmp_path / module.INDEX_NAME).exists() is (shards == "2KB")
    ours = load(tmp_path).module
    assert isinstance(ours, BilinearTransformer)
    assert not ours.training
    assert ours.config.tied is False  # a gain of the last norm makes the tie another matrix
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        ours.float()(TOKENS), theirs.float()(TOKENS).logits, rtol=0, atol=1e-5
    )


def test_a_tie_without_a_gain_stays_a_tie(tmp_path: Path) -> None:
    theirs = llama(gains=False, tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path).module
    assert ours.config.tied
    torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("gains", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_gains_of_half_precision_are_multiplied_exactly(
    tmp_path: Path, gains: bool, dtype: torch.dtype
) -> None:
    llama(gains=gains).bfloat16().save_pretrained(tmp_path)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    ours = load(tmp_path).module
    assert ours.embed.weight.dtype is dtype
    torch.testing.assert_close(ours.double()(TOKENS), theirs(TOKENS).logits, rtol=0, atol=1e-12)


def test_where_it_comes_from_is_said(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.weights_sha256 == file_sha256(tmp_path / "model.safetensors")
    assert dict(loaded.provenance) == {"format": "Hugging Face Llama"}
    assert [*loaded.layers] == ["blocks.0.mlp", "blocks.1.mlp"]
    assert loaded.layers["blocks.0.mlp"].exact


def test_a_llama_that_comes_in_is_saved_as_a_model_folder(tmp_path: Path) -> None:
    llama(num_key_value_heads=2).save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs").module
    again = load(bilens.save(ours, tmp_path / "ours")).module
    assert torch.equal(ours(TOKENS), again(TOKENS))


def exported(folder: Path) -> Path:
    """A folder as we export it, for damage."""
    return make().save_huggingface(folder)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "code of its own": (
        {"auto_map": {"AutoModel": "x.py"}},
        r"code of its own \(auto_map\), which",
    ),
    "a quantised model": ({"quantization_config": {"bits": 4}}, "is quantised"),
    "a base of zero": ({"rope_parameters": {"rope_theta": 0}}, "rotary_base must be a positive"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "has num_key_value_heads 3"),
    "no heads of keys": ({"num_key_value_heads": 0}, "num_key_value_heads must be an integer of"),
    "a width that is a text": ({"hidden_size": "8"}, "d_model must be an integer of at least 1"),
    "no layers": ({"num_hidden_layers": 0}, "n_layer must be an integer of at least 1, got 0"),
    "another width": ({"hidden_size": 12, "head_dim": 6}, r"has shape \(11, 8\); .* \(11, 12\)"),
    "more layers": ({"num_hidden_layers": 3}, "missing 'model.layers.2.input_layernorm.weight'"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "says 1000000000 layers"),
    "fewer layers": ({"num_hidden_layers": 1}, "unexpected 'model.layers.1.input_layernorm.weig"),
    "biases that are not there": (
        {"mlp_bias": True},
        "missing 'model.layers.0.mlp.down_proj.bias'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_llama_is_refused(tmp_path: Path, name: str) -> None:
    change, message = REFUSED[name]
    edit_config(exported(tmp_path), lambda content: content.update(change))
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


LAYERS_ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "another activation": ({"hidden_act": "gelu_pytorch_tanh"}, "activation 'gelu_pytorch_tanh'"),
    "biases in the attention": ({"attention_bias": True}, r"in its attention \(attention_bias\)"),
    "long texts": ({"rope_parameters": {"rope_type": "llama3"}}, "of the type 'llama3'"),
    "long texts, as in version 4": (
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "of the type 'linear'",
    ),
    "rotations that are a text": ({"rope_parameters": "yarn"}, "of the type 'yarn'"),
    "half-turned heads": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "with the factor 0.5",
    ),
    "wider heads": ({"head_dim": 16}, "head_dim 16, and hidden_size / heads is 4"),
}


@pytest.mark.parametrize("name", LAYERS_ALONE)
def test_of_a_llama_that_is_none_of_ours_the_layers_are_read(tmp_path: Path, name: str) -> None:
    change, reason = LAYERS_ALONE[name]
    edit_config(exported(tmp_path), lambda content: content.update(change))
    loaded = load(tmp_path)
    assert loaded.module is None
    assert re.search(reason, loaded.provenance["read"])
    weights = loaded.layers["layers.1.mlp"].weights()
    x = torch.randn(3, 8, dtype=torch.float64)
    if name != "another activation":
        torch.testing.assert_close(weights(x), make().mlps[1](x))


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_attention_heads"])
def test_a_size_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    edit_config(exported(tmp_path), lambda content: content.pop(name))
    with pytest.raises(CheckpointError, match=f"config.json: lacks {name}: restore"):
        load(tmp_path)


def test_what_is_not_said_has_the_value_of_llama(tmp_path: Path) -> None:
    optional = (
        "rms_norm_eps",
        "rope_parameters",
        "rope_theta",
        "num_key_value_heads",
        "hidden_act",
    )
    edit_config(exported(tmp_path), lambda content: [content.pop(name) for name in optional])
    config = load(tmp_path).module.config
    assert (config.norm_epsilon, config.rotary_base, config.gate) == (1e-6, 10000.0, "silu")


def test_the_older_base_is_read_and_the_newer_one_wins(tmp_path: Path) -> None:
    edit_config(exported(tmp_path), lambda content: content.update(rope_theta=77.0))
    assert load(tmp_path).module.config.rotary_base == 10000.0
    edit_config(tmp_path, lambda content: content.pop("rope_parameters"))
    assert load(tmp_path).module.config.rotary_base == 77.0


def test_a_residual_path_is_no_question_of_a_language_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="language model, which always has residual paths"):
        load(exported(tmp_path), residual=True)


def test_tensors_that_follow_from_others_are_dropped(tmp_path: Path) -> None:
    model = make(tied=True)
    path = model.save_huggingface(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = torch.zeros(11, 8, dtype=torch.float64)  # transformers ties instead
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, path)
    assert torch.equal(load(tmp_path).module(TOKENS), model(TOKENS))


def in_shards(folder: Path) -> dict[str, Any]:
    """Cut the weights in a folder in two; returns the content of the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    return {"weight_map": {name: file for file, part in parts.items() for name in part}}


def write_index(folder: Path, content: Any) -> None:
    (folder / module.INDEX_NAME).write_text(json.dumps(content))


def test_shards_are_read_without_what_else_the_index_may_say(tmp_path: Path) -> None:
    write_index(exported(tmp_path), in_shards(tmp_path))
    loaded = load(tmp_path)
    assert torch.equal(loaded.module(TOKENS), make()(TOKENS))
    before = loaded.weights_sha256
    tensors = load_file(tmp_path / "two.safetensors")
    tensors["model.norm.weight" if "model.norm.weight" in tensors else next(iter(tensors))] += 1
    save_file(tensors, tmp_path / "two.safetensors")
    assert load(tmp_path).weights_sha256 != before


def escape(content: dict[str, Any], name: str) -> None:
    first = next(iter(content["weight_map"]))
    content["weight_map"][first] = name


BAD_INDEX: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a path upwards": (lambda c: escape(c, "../one.safetensors"), "names the file '../one.safete"),
    "an absolute path": (lambda c: escape(c, "/etc/one.safetensors"), "names the file '/etc/one."),
    "another folder": (lambda c: escape(c, "a/one.safetensors"), "names the file 'a/one.safetens"),
    "a backslash": (lambda c: escape(c, "a\\one.safetensors"), "names the file"),
    "two points": (
        lambda c: escape(c, "..safetensors"),
        "names the file '..safetensors'; expected",
    ),
    "a line end": (lambda c: escape(c, "one.safetensors\n"), "names the file"),
    "a pickle": (lambda c: escape(c, "one.bin"), "names the file 'one.bin'; expected plain names"),
    "a file that is not there": (lambda c: escape(c, "three.safetensors"), "three.*: no such file"),
    "a tensor that is elsewhere": (lambda c: escape(c, "two.safetensors"), "one.*: unexpected"),
    "a number": (lambda c: escape(c, 3), "has no weight_map of tensors to file names"),
    "no map": (lambda c: c.clear(), "has no weight_map of tensors to file names"),
    "a map that is a list": (lambda c: c.update(weight_map=[]), "has no weight_map of tensors"),
}


@pytest.mark.parametrize("name", BAD_INDEX)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    change, message = BAD_INDEX[name]
    folder = tmp_path / "m"
    content = in_shards(exported(folder))
    save_file({"x": torch.zeros(1)}, tmp_path / "one.safetensors")  # what "../" would reach
    change(content)
    write_index(folder, content)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = exported(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][0, 0] = torch.inf
    save_file(tensors, path)
    with pytest.raises(NonFiniteError, match=r"lm_head.weight"):
        load(tmp_path)


def test_a_pickle_beside_the_configuration_is_called_one(tmp_path: Path) -> None:
    (exported(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"in pytorch_model\.bin\. It is a pickle"):
        load(tmp_path)


def test_of_mixed_dtypes_the_layers_are_read(tmp_path: Path) -> None:
    path = exported(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, path)
    loaded = load(tmp_path)
    assert loaded.module is None
    assert loaded.provenance["read"].endswith("its tensors are of several dtypes")
    assert loaded.exactness.layer == "layers.0.mlp and layers.1.mlp"


def test_a_folder_without_weights_says_which_file_it_lacks(tmp_path: Path) -> None:
    (exported(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: no such file"):
        load(tmp_path)
