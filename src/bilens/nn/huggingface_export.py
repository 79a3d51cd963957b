"""The files of a Hugging Face folder that plain `AutoModelForCausalLM` loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.base.atomic import write_files
from bilens.base.checks import check_finite
from bilens.base.errors import OutputExistsError, UsageError
from bilens.nn.llama_layout import llama_config, llama_shapes, llama_tensors
from bilens.nn.model_card import model_card
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
    """Return name → content of every file of the folder.

    Args:
        config: of the model.
        state: its state dict.
        tokenizer: a tokenizer.json; None for none.
        end_of_text: the token of it that ends a text.
        provenance: where the weights come from.

    Raises:
        UsageError: If the model is no Llama, was altered, or the tokenizer does not fit it.
        NonFiniteError: If a weight is NaN or infinite.
    """
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
    """Return the text of a JSON file."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Return the content of a tokenizer.json.

    Raises:
        UsageError: If there is no such file, or it is not one of the `tokenizers` library.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a tokenizer.json ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UsageError(f"{path}: is no tokenizer.json of the `tokenizers` library.")
    return content


def end_token(path: Path, tokenizer: Mapping[str, Any], end_of_text: str, vocab_size: int) -> int:
    """Return the number of the token that ends a text.

    Raises:
        UsageError: If the tokenizer has no such token, or one that the model does not know.
    """
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
