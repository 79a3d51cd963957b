"""PyTorch modules that know their quadratic map."""

import sys
from typing import Any

from bilens.nn.classifier import BilinearClassifier, in_standard_units as in_standard_units
from bilens.nn.layer_view import LayerView as LayerView
from bilens.nn.mlp import MLP, BilinearLayer, BilinearMLP
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.sparse_autoencoder import SparseAutoencoder as SparseAutoencoder
from bilens.nn.threshold_sae import ThresholdSAE
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer

__all__ = [
    "MLP",
    "BilinearClassifier",
    "BilinearLayer",
    "BilinearMLP",
    "BilinearTransformer",
    "PolynomialTransformer",
    "ThresholdSAE",
    "TopKSAE",
]


def __dir__() -> list[str]:
    return [*__all__, "load_converted"]


def __getattr__(name: str) -> Any:
    if name != "load_converted":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(sys.modules["bilens"], name)  # files are a layer above: the public table has it
