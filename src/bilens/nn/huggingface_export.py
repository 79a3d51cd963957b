"""The files of a Hugging Face folder that plain `AutoModelForCausalLM` loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.base.checks import check_finite
from bilens.base.errors import OutputExistsError, UsageError
from bilens.base.files import write_files
from bilens.nn.llama_layout import llama_config, llama_shapes, llama_tensors
from bilens.nn.transformer_config import TransformerConfig
from bilens.version import VERSION


def write_huggingface(
    folder: Path,
    config: TransformerConfig,
    state: Mapping[str, Tensor],
    *,
    tokenizer: Path | None,
    end_of_text: str,
    provenance: Mapping[str, str],
    overwrite: bool,
) -> Path:
    """Write the folder of a model; see `BilinearTransformer.save_huggingface`."""
    files = huggingface_files(config, state, tokenizer, end_of_text, provenance)
    present = [name for name in files if (folder / name).exists()]
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds {', '.join(present)}: choose another folder, or pass "
            "overwrite=True (--overwrite) to replace it."
        )
    write_files({folder / name: content for name, content in files.items()})
    return folder


def huggingface_files(
    config: TransformerConfig,
    state: Mapping[str, Tensor],
    tokenizer: Path | None,
    end_of_text: str,
    provenance: Mapping[str, str],
) -> dict[str, bytes]:
    for name, tensor in state.items():
        check_finite(f"tensor {name!r}", tensor)
    written = llama_config(config, state["embed.weight"].dtype)
    files: dict[str, bytes] = {}
    if tokenizer is not None:
        content = read_tokenizer(tokenizer)
        written["eos_token_id"] = end_token(tokenizer, content, end_of_text, config.vocab_size)
        files["tokenizer.json"] = json.dumps(content, ensure_ascii=False, indent=2).encode()
        files["tokenizer_config.json"] = as_json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": end_of_text,
                "model_max_length": config.n_ctx,
                "clean_up_tokenization_spaces": False,
            }
        )
    metadata = {"format": "pt", "made_by": f"bilens {VERSION}"}
    metadata["provenance"] = json.dumps(dict(provenance), ensure_ascii=False, sort_keys=True)
    tensors = llama_tensors(config, state)
    if {name: tuple(t.shape) for name, t in tensors.items()} != llama_shapes(config, config.n_head):
        raise UsageError(
            "the weights do not have the shapes that the model was built with: build it with the "
            "sizes that it has."
        )
    files["model.safetensors"] = to_safetensors(tensors, metadata)
    files["config.json"] = as_json(written)
    files["README.md"] = model_card(config, provenance).encode()
    return files


def as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def read_tokenizer(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a tokenizer.json ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path}: is no tokenizer.json of the `tokenizers` library.")
    return content


def end_token(path: Path, tokenizer: Mapping[str, Any], end_of_text: str, vocab_size: int) -> int:
    """Return the number of the token that ends a text."""
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    vocab = tokenizer["model"].get("vocab", {})
    numbers = [*(vocab.values() if isinstance(vocab, dict) else range(len(vocab))), *added.values()]
    if max(numbers, default=-1) >= vocab_size:
        raise UsageError(
            f"{path}: has tokens up to {max(numbers)}; the model knows 0 to {vocab_size - 1}: use "
            "the tokenizer that it was trained with."
        )
    if end_of_text not in added:
        raise UsageError(
            f"{path}: has no special token {end_of_text!r}; expected one of "
            f"{', '.join(map(repr, added)) or 'none that it has'}: pass it as end_of_text."
        )
    number: int = added[end_of_text]
    return number


BILINEAR = """# Bilinear transformer

A Llama whose activation is **linear** (`"hidden_act": "linear"` in `config.json`): each MLP is
`down_proj(gate_proj(x) * up_proj(x))`, with nothing between the projections. Each is an exact
quadratic map of what it reads, so what it computes can be read from its weights
([arXiv:2410.08417](https://arxiv.org/abs/2410.08417)).

**A program that hard-codes SiLU runs a different model.** Some loaders of Llama weights never look
at `hidden_act`; they give other logits, without an error. With the right one
`model.model.layers[0].mlp.act_fn` is the identity.
"""
GATED = """# Gated transformer

A Llama with the activation **{activation}** (`"hidden_act": "{activation}"` in `config.json`):
each MLP is `down_proj({activation}(gate_proj(x)) * up_proj(x))`. It is not a quadratic map of what
it reads.

**A program that hard-codes another activation runs a different model**, without an error.
"""
USE = """
```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

No code of its own is needed (`trust_remote_code` stays off).
"""


def model_card(config: TransformerConfig, provenance: Mapping[str, str]) -> str:
    activation = config.gate or "linear"
    head = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
    head += "tags:\n- interpretability\n" + "- bilinear\n" * (config.gate is None) + "---\n\n"
    sizes = (
        f"{config.n_layer} blocks, width {config.d_model}, {config.d_hidden} products an MLP, "
        f"{config.n_head} heads, {config.vocab_size} tokens, context {config.n_ctx}"
    )
    rows = {"Sizes": sizes, **provenance, "Written by": f"bilens {VERSION}"}
    table = "\n| | |\n|---|---|\n" + "".join(
        f"| {cell(k)} | {cell(v)} |\n" for k, v in rows.items()
    )
    body = BILINEAR if config.gate is None else GATED.format(activation=activation)
    return head + body + USE + table


def cell(text: str) -> str:
    """Return a text that cannot end its cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
