"""Guards against a Llama that is read as another function than the one that its files hold.

Damage that it notices: heads of keys and values shared by other heads of queries.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
from contract.table import cell

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 13, "hidden_size": 24, "intermediate_size": 10, "num_hidden_layers": 2}
TOKENS = torch.randint(13, (3, 9), generator=torch.Generator().manual_seed(0))


def llama(**heads: int) -> Any:
    """A Llama whose weights, gains of norms too, are far from their start."""
    config = transformers.LlamaConfig(**SIZES, **heads, max_position_embeddings=16)
    model = transformers.LlamaForCausalLM(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, part in model.named_parameters():
            noise = torch.randn(part.shape, generator=draw)
            part.copy_(1 + 0.5 * noise if "norm" in name else noise / part.shape[-1] ** 0.5)
    return model


@cell("load file", "own object")
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (4, 1), (6, 3), (6, 2)])
def test_a_llama_answers_as_the_one_of_transformers(
    heads: int, shared: int, tmp_path: Path
) -> None:
    theirs = llama(num_attention_heads=heads, num_key_value_heads=shared)
    theirs.save_pretrained(tmp_path / "m")
    ours = bl.load(tmp_path / "m").module
    assert isinstance(ours, nn.Module)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        torch.testing.assert_close(ours(TOKENS), expected, rtol=0, atol=1e-4)
    assert float(expected.abs().max()) > 1
