"""PyTorch modules that know their quadratic map."""

from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer
from bilens.nn.mlp import BilinearMLP
from bilens.nn.topk_sae import TopKSAE

__all__ = ["BilinearClassifier", "BilinearLayer", "BilinearMLP", "TopKSAE"]
