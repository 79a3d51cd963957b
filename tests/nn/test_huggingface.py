"""Folders for Hugging Face: plain transformers loads them and gives the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from bilens.base.errors import NonFiniteError, OutputExistsError, UsageError
from bilens.io.load import load
from bilens.nn import BilinearMLP
from transformers_by_hand import KINDS, make, some_tokens

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
LLAMAS = [kind for kind in KINDS if not kind.startswith("ordinary")]
TOKENS = some_tokens(3, 7)


def float64_norm(self: nn.Module, x: Tensor) -> Tensor:
    """Llama's norm without its detour through float32."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, True) + self.variance_epsilon)


def theirs(folder: Path, **options: Any) -> nn.Module:
    """The model as a user of transformers loads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    assert type(model) is transformers.LlamaForCausalLM
    return model


@pytest.mark.parametrize("kind", LLAMAS)
def test_logits_are_equal_in_float32(tmp_path: Path, kind: str) -> None:
    model = make(**KINDS[kind], dtype=torch.float32)
    loaded = theirs(model.save_huggingface(tmp_path / "m"))
    assert loaded.dtype is torch.float32
    expected = loaded(TOKENS).logits
    assert float((model(TOKENS) - expected).detach().abs().max()) <= 1e-5
    assert float(expected.detach().abs().max()) > 1


@pytest.mark.parametrize("kind", LLAMAS)
def test_logits_are_equal_in_float64_but_for_llamas_norm_in_float32(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(**KINDS[kind])
    loaded = theirs(model.save_huggingface(tmp_path))
    assert loaded.dtype is torch.float64
    assert float((model(TOKENS) - loaded(TOKENS).logits).detach().abs().max()) < 1e-5
    norm = transformers.models.llama.modeling_llama.LlamaRMSNorm
    monkeypatch.setattr(norm, "forward", float64_norm)
    torch.testing.assert_close(model(TOKENS), loaded(TOKENS).logits, rtol=0, atol=1e-13)


def test_padded_batches_agree_too(tmp_path: Path) -> None:
    model = make(dtype=torch.float32)
    loaded = theirs(model.save_huggingface(tmp_path))
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    tokens = some_tokens(2, 5)
    expected = loaded(tokens, attention_mask=mask.long()).logits
    torch.testing.assert_close(model(tokens, mask)[mask], expected[mask], rtol=0, atol=1e-5)


def test_greedy_texts_agree(tmp_path: Path) -> None:
    model = make(dtype=torch.float32)
    loaded = theirs(model.save_huggingface(tmp_path))
    tokens = some_tokens(1, 2)
    text = loaded.generate(tokens, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert torch.equal(text, model.generate(tokens, 5, temperature=0))


@pytest.mark.parametrize("kind", LLAMAS)
def test_what_is_exported_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = make(**KINDS[kind], dtype=torch.float32)
    back = load(model.save_huggingface(tmp_path)).module
    assert back.config == model.config
    state = back.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    """Its SHA-256 is what results are known by; with two keys and more the library shuffles."""
    model = make(dtype=torch.float32)
    files = [model.save_huggingface(tmp_path / f"{k}") / "model.safetensors" for k in range(8)]
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "pt") as file:
        assert {"format", "made_by", "provenance"} <= {*file.metadata()}


def test_the_configuration_is_a_promise(tmp_path: Path) -> None:
    make(bias=True, dtype=torch.float32).save_huggingface(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "linear",
        "vocab_size": 11,
        "hidden_size": 8,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 7,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": True,
        "dtype": "float32",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_the_file_says_where_the_weights_come_from(tmp_path: Path) -> None:
    make().save_huggingface(tmp_path, provenance={"seed": "3"})
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"  # transformers asks for it
    assert json.loads(metadata["provenance"]) == {"seed": "3"}


def test_the_card_warns_of_loaders_that_know_silu_alone(tmp_path: Path) -> None:
    card = (
        make().save_huggingface(tmp_path, provenance={"seed|": "3\n4"}) / "README.md"
    ).read_text()
    assert '`"hidden_act": "linear"`' in card
    assert "A program that hard-codes SiLU runs a different model." in card
    assert "| seed\\| | 3 4 |" in card
    gated = make(gate="relu").save_huggingface(tmp_path, overwrite=True) / "README.md"
    assert "relu(gate_proj(x))" in gated.read_text()
    assert "not a quadratic map" in gated.read_text()


WORDS = {"<|endoftext|>": 0, "[UNK]": 1, "a": 2, "dog": 3, "ran": 4}


def write_tokenizer(
    path: Path, words: dict[str, int] = WORDS, special: str = "<|endoftext|>"
) -> Path:
    """A tokenizer of whole words."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if special:
        inner.add_special_tokens([special])
    inner.save(str(path))
    return path


def test_a_tokenizer_comes_along(tmp_path: Path) -> None:
    written = write_tokenizer(tmp_path / "tokenizer.json")
    folder = make().save_huggingface(tmp_path / "m", tokenizer=written)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a dog ran<|endoftext|>").input_ids
    assert ids == tokenizers.Tokenizer.from_file(str(written)).encode("a dog ran<|endoftext|>").ids
    assert ids == [2, 3, 4, 0]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    assert tokenizer.model_max_length == 7
    assert theirs(folder).config.eos_token_id == 0


def test_another_end_of_text_can_be_named(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "t.json", {**WORDS, "</s>": 5}, "</s>")
    folder = make().save_huggingface(tmp_path / "m", tokenizer=path, end_of_text="</s>")
    assert transformers.AutoTokenizer.from_pretrained(folder).eos_token_id == 5


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    large = write_tokenizer(tmp_path / "large.json", {**WORDS, "x": 11})
    with pytest.raises(
        UsageError, match=r"large.json: has tokens up to 11; the model knows 0 to 10"
    ):
        make().save_huggingface(tmp_path / "m", tokenizer=large)
    endless = write_tokenizer(tmp_path / "endless.json", special="")
    with pytest.raises(UsageError, match=r"no special token '<|endoftext|>'; .*pass it as end_of"):
        make().save_huggingface(tmp_path / "m", tokenizer=endless)
    (tmp_path / "text.json").write_text('["no tokenizer"]')
    with pytest.raises(UsageError, match=r"text.json: is no tokenizer.json"):
        make().save_huggingface(tmp_path / "m", tokenizer=tmp_path / "text.json")
    with pytest.raises(UsageError, match=r"missing.json: cannot be read as a tokenizer.json"):
        make().save_huggingface(tmp_path / "m", tokenizer=tmp_path / "missing.json")
    assert not (tmp_path / "m").exists()


def test_an_ordinary_model_is_no_llama(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ordinary MLPs is no Llama"):
        make(mlp_type="ordinary").save_huggingface(tmp_path / "m")


@pytest.mark.parametrize(
    ("mlp", "message"),
    [
        (BilinearMLP(8, 6, gate="relu"), "built with None: a Llama has one for all"),
        (BilinearMLP(8, 5), "do not have the shapes that the model was built with"),
        (BilinearMLP(8, 6, skip=True), "linear path, or biases"),
        (BilinearMLP(8, 6, bias=True), "linear path, or biases"),
    ],
)
def test_an_altered_model_is_not_exported(tmp_path: Path, mlp: BilinearMLP, message: str) -> None:
    model = make(dtype=torch.float32)
    model.blocks[0].mlp = mlp
    with pytest.raises(UsageError, match=message):
        model.save_huggingface(tmp_path / "m")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    make(seed=1).save_huggingface(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match=r"already holds model.safetensors, config.json"):
        make(seed=2).save_huggingface(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    make(seed=2).save_huggingface(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before


def test_a_broken_model_is_not_exported(tmp_path: Path) -> None:
    model = make()
    with torch.no_grad():
        model.blocks[1].mlp.left.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"blocks.1.mlp.left.weight"):
        model.save_huggingface(tmp_path / "m")
    assert not (tmp_path / "m").exists()
