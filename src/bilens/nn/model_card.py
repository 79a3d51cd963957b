"""README.md of an exported model: what it is, and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Mapping

from bilens.nn.llama_layout import ACTIVATIONS
from bilens.nn.transformer_config import TransformerConfig
from bilens.version import VERSION

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
    """Return the text of the model card.

    Args:
        config: of the model.
        provenance: where the weights come from: seed, data, versions.
    """
    activation = ACTIVATIONS[config.gate]
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
