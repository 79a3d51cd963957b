"""PyTorch modules that know their quadratic map."""

from bilens.nn.classifier import BilinearClassifier
from bilens.nn.mlp import MLP, BilinearLayer, BilinearMLP
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer

__all__ = [
    "MLP",
    "BilinearClassifier",
    "BilinearLayer",
    "BilinearMLP",
    "BilinearTransformer",
    "TopKSAE",
]
