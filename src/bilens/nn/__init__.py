"""PyTorch modules that know their quadratic map."""

from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer
from bilens.nn.mlp import BilinearMLP

__all__ = ["BilinearClassifier", "BilinearLayer", "BilinearMLP"]
