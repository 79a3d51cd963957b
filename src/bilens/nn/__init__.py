"""PyTorch modules that know their quadratic map."""

from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer
from bilens.nn.mlp import BilinearMLP
from bilens.nn.ordinary_mlp import MLP
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
