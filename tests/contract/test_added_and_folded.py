"""Guards against files of other libraries that are read as another formula than they stand for.

Damage that it notices: an adapter scaled by the rank of another matrix; an autoencoder's bias
folded in with the wrong sign.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from contract.table import cell

D, HIDDEN, LAYERS = 8, 6, 2
SHAPES = {"gate_proj": (HIDDEN, D), "up_proj": (HIDDEN, D), "down_proj": (D, HIDDEN)}
NAMES = [f"layers.{layer}.mlp.{name}" for layer in range(LAYERS) for name in SHAPES]


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written_base(folder: Path) -> dict[str, torch.Tensor]:
    """Write the MLPs of a Llama; returns its matrices by the names of their modules."""
    shapes = [SHAPES[name.rpartition(".")[2]] for name in NAMES]
    tensors = {
        name: drawn(*shape, seed=at)
        for at, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))
    }
    folder.mkdir()
    save_file(
        {f"model.{name}.weight": one for name, one in tensors.items()}, folder / "model.safetensors"
    )
    about = {"model_type": "llama", "hidden_act": "silu", "hidden_size": D}
    (folder / "config.json").write_text(json.dumps(about | {"num_hidden_layers": LAYERS}))
    return tensors


SCALES: dict[str, dict[str, Any]] = {
    "one rank": {},
    "ranks of some": {"rank_pattern": {"up_proj": 3, "layers.1.mlp.down_proj": 1}},
    "numbers of some": {"alpha_pattern": {"gate_proj": 32, "layers.0.mlp.up_proj": 5}},
    "both": {"rank_pattern": {"up_proj": 3}, "alpha_pattern": {"up_proj": 5, "down_proj": 7}},
}


def said_for(patterns: dict[str, int], module: str, otherwise: int) -> int:
    """What a pattern says of a module: it ends with that name."""
    found = [value for name, value in patterns.items() if f".{module}".endswith(f".{name}")]
    return found[0] if found else otherwise


@cell("load file", "own object", "other function")
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("case", SCALES)
def test_an_adapter_adds_b_times_a_scaled_by_its_own_rank(
    case: str, root: bool, tmp_path: Path
) -> None:
    """By hand: W + α / r · B A, or α / √r, with the rank r of those two matrices."""
    base, patterns = written_base(tmp_path / "base"), SCALES[case]
    (folder := tmp_path / "adapter").mkdir()
    parts, expected = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for at, (name, weight) in enumerate(base.items()):
        rank = said_for(patterns.get("rank_pattern", {}), name, 2)
        alpha = said_for(patterns.get("alpha_pattern", {}), name, 6)
        a, b = drawn(rank, weight.shape[1], seed=50 + at), drawn(len(weight), rank, seed=90 + at)
        parts |= {
            f"base_model.model.model.{name}.lora_{role}.weight": one
            for role, one in (("A", a), ("B", b))
        }
        scale = alpha / (rank**0.5 if root else rank)
        expected[name] = weight.double() + scale * (b.double() @ a.double())
    save_file(parts, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_rslora": root, **patterns}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    model = bl.load(folder, base=tmp_path / "base")
    for name, truth in expected.items():
        found = model.tensors[f"model.{name}.weight"].read_tensor().double()
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)


@cell("load file", "own object", "other function")
@pytest.mark.parametrize(("subtracts", "rescales"), [*product([True, False], repeat=2)])
def test_an_autoencoder_encodes_and_decodes_as_its_file_says(
    subtracts: bool, rescales: bool, tmp_path: Path
) -> None:
    """By hand: the k largest of W (x − d) + b, or of W x + b, each by the length of its row."""
    latents, k = 20, 5
    shapes = {"W_enc": (D, latents), "b_enc": (latents,), "W_dec": (latents, D), "b_dec": (D,)}
    tensors = {name: drawn(*shape, seed=at) for at, (name, shape) in enumerate(shapes.items())}
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    about = {"architecture": "topk", "d_in": D, "d_sae": latents, "k": k}
    about |= {"apply_b_dec_to_input": subtracts, "rescale_acts_by_decoder_norm": rescales}
    about |= {"metadata": {"sae_lens_version": "6.0.0"}}
    (tmp_path / "cfg.json").write_text(json.dumps(about))
    w, b, decoder, d = (one.double().numpy() for one in tensors.values())
    lengths = np.linalg.norm(decoder, axis=1) if rescales else np.ones(latents)
    x = drawn(40, D, seed=9)
    given = x.double().numpy() - (d if subtracts else 0)
    before = (given @ w + b) * lengths
    codes = np.where(before >= np.sort(before, axis=1)[:, [-k]], before.clip(min=0), 0)
    sae: Any = bl.load(tmp_path).module
    with torch.no_grad():
        np.testing.assert_allclose(sae.encode(x), codes, atol=1e-4)
        np.testing.assert_allclose(sae(x), codes / lengths @ decoder + d, atol=1e-4)
