"""The recipe of a training run: everything that decides the weights, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.data.augment import Augmentation, parse_augmentation
from bilens.nn.mlp import Gate

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How to train an image classifier. The defaults are the paper's (App. C of 2410.08417).

    Attributes:
        d_hidden: width of the embedding and of every layer.
        n_layers: number of bilinear layers.
        bias: whether the branches of the layers have biases.
        residual: whether each layer adds its input.
        gate: None (bilinear), "relu", "gelu" or "silu".
        epochs: passes over the training set; the learning rate falls by a cosine over them.
        batch_size: images a step; the last, smaller batch of an epoch is dropped.
        learning_rate: of AdamW, at the start.
        weight_decay: of AdamW, decoupled.
        noise: standard deviation of Gaussian noise on every pixel, in units of the pixel range.
        model_noise: standard deviation of Gaussian noise on the embedding and layer outputs.
        dropout: probability of dropping an entry of the embedding and layer outputs.
        augmentations: further augmentations in the spelling of `parse_augmentation`.
        seed: of initialisation, order, noise and augmentations.
        precision: of the forward and backward products; weights, gradients and updates are
            float32. "auto" is bfloat16 where the processor multiplies it natively.
    """

    d_hidden: int = 256
    n_layers: int = 1
    bias: bool = False
    residual: bool = False
    gate: Gate | None = None
    epochs: int = 100
    batch_size: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    noise: float = 0.5
    model_noise: float = 0.0
    dropout: float = 0.0
    augmentations: tuple[str, ...] = ()
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("d_hidden", "n_layers", "epochs", "batch_size"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "seed", check_count("seed", self.seed, minimum=0))
        for name in ("weight_decay", "noise", "model_noise", "dropout", "learning_rate"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
        for name in ("bias", "residual"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        if self.learning_rate == 0:
            raise UsageError("learning_rate must be above 0.")
        if self.dropout >= 1:
            raise UsageError(f"dropout must be below 1, got {self.dropout!r}.")
        for name, value, allowed in (
            ("precision", self.precision, get_args(Precision)),
            ("gate", self.gate, (None, *get_args(Gate))),
        ):
            if value not in allowed:
                raise UsageError(
                    f"{name}={value!r} is not known: use one of {', '.join(map(str, allowed))}."
                )
        self.parsed_augmentations()

    def parsed_augmentations(self) -> tuple[Augmentation, ...]:
        """Return the further augmentations, ready to use."""
        return tuple(parse_augmentation(text) for text in self.augmentations)

    def resolved(self) -> Recipe:
        """Return the recipe with `precision="auto"` replaced by what it means on this machine."""
        if self.precision != "auto":
            return self
        precision: Precision = "bfloat16" if has_native_bfloat16() else "float32"
        return dataclasses.replace(self, precision=precision)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {**dataclasses.asdict(self), "augmentations": list(self.augmentations)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Recipe:
        """Return the recipe of `to_dict`."""
        return cls(**{**content, "augmentations": tuple(content["augmentations"])})


def has_native_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 in hardware."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
