"""A transformer from a configuration and weights that were checked to fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from bilens.nn import BilinearTransformer
from bilens.nn.transformer_config import TransformerConfig


def build_transformer(
    config: TransformerConfig, state: Mapping[str, Tensor]
) -> BilinearTransformer:
    """Return the model in evaluation mode; it is tied where there is no `unembed.weight`."""
    arguments = {**asdict(config), "tied": "unembed.weight" not in state}
    with torch.device("meta"):
        model = BilinearTransformer(**arguments)
    model = model.to(state["embed.weight"].dtype).to_empty(device="cpu")
    model.load_state_dict(dict(state), strict=True)
    return model.eval()
