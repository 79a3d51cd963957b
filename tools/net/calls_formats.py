"""Calls that read and write the formats of others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import bilens as bl
from tools.net.calls import attempts
from tools.net.inputs import autoencoder, randn, transformer


def _read(path: Path | str, **options: Any) -> Any:
    loaded = bl.load(path, **options)
    views: Mapping[str, Any] = {} if isinstance(loaded.module, bl.nn.TopKSAE) else loaded.layers
    exactness = loaded.exactness if views else None
    return {
        "module": loaded.module,
        "provenance": {**loaded.provenance},
        "layers": {
            name: {"sizes": view.sizes, "activation": view.activation, "weights": view.weights()}
            for name, view in views.items()
        },
        "exactness": exactness and {"layer": exactness.layer, "source": exactness.source},
    }


def _all(folder: str, **options: Any) -> Any:
    paths = sorted(Path(folder).iterdir())
    return attempts({path.name: partial(_read, path, **options) for path in paths})


def hugging_face() -> Any:
    """Tiny families, one refused, one quantised."""
    return _all("hf")


def gguf() -> Any:
    """Files of llama.cpp, one cut short."""
    return _all("gguf")


def official() -> Any:
    """Checkpoints of the paper's repository."""
    return {
        "as they are": _all("official"),
        "residual": attempts({"image": lambda: _read("official/image.safetensors", residual=True)}),
        "pickle": attempts(
            {"image": lambda: _read("official/image.pt", residual=False, allow_pickle=True)}
        ),
    }


def autoencoders() -> Any:
    """SAELens, sparsify, the paper's; one of another kind."""
    return _all("saes")


def mapped() -> Any:
    """Safetensors files whose names say little."""
    roles = {"up": "fc1.weight", "down": "fc2.weight"}
    return attempts(
        {
            "guessed": lambda: _read("files/pair.safetensors", activation="gelu"),
            "roles": lambda: _read("files/pair.safetensors", roles=roles, activation="relu"),
            "chain": lambda: _read("files/chain.safetensors", activation="tanh,relu"),
            "glu": lambda: _read("files/glu.safetensors", activation="silu", transposed=False),
            "transposed": lambda: _read("files/glu.safetensors", activation="silu"),
            "poisoned": lambda: _read("files/poisoned.safetensors", activation="relu"),
            "unsaid": lambda: _read("files/pair.safetensors"),
        }
    )


def export_sae() -> Any:
    """Each layout, read back, and what a layout cannot say."""
    said = {"hook": "blocks.1.mlp_in", "model": "tiny"}
    signs: dict[Any, Any] = {"saelens": "relu", "sparsify": "relu", "official": "raw"}
    x = randn(3, 6, seed=1).float()
    found: dict[str, Any] = {}
    for layout, sign in signs.items():
        out = bl.export_sae(autoencoder(sign=sign), f"out/sae_{layout}", layout, provenance=said)
        module: Any = bl.load(out).module
        found[layout] = {"read": _read(out), "values": module(x)}
    bad: Any = "pickle"
    return found | attempts(
        {
            "sign": lambda: bl.export_sae(autoencoder(sign="raw"), "out/no", "saelens"),
            "no hook": lambda: bl.export_sae(autoencoder(sign="raw"), "out/no", "official"),
            "layout": lambda: bl.export_sae(autoencoder(), "out/no", bad),
        }
    )


def save_huggingface() -> Any:
    """A language model as Llama, read back by bilens and by transformers."""
    import transformers

    model = transformer("silu")
    folder = model.save_huggingface("out/llama")
    tokens = torch.arange(7)[None]
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return {
        "files": sorted(path.name for path in Path(folder).iterdir()),
        "read": _read(folder),
        "logits": model(tokens),
        "their logits": theirs(tokens).logits,
    }
