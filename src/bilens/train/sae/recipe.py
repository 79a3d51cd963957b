"""The recipe of sparse autoencoders: everything that decides the weights, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.nn.topk_sae import Sign
from bilens.train.schedule import Schedule

CHOICES = {"sign": get_args(Sign), "schedule": get_args(Schedule)}


@dataclass(frozen=True)
class SAERecipe:
    """How to train sparse autoencoders. The defaults suit a layer of a few hundred neurons.

    Attributes:
        hooks: hook points of the model, such as "blocks.0.mlp_out"; one autoencoder each.
        num_latents: directions in each dictionary; None is `expansion` times the layer's width.
        expansion: used where `num_latents` is None.
        k: latents that an input keeps.
        sign: "relu", or "raw" for negative activations as well (see `TopKSAE`).
        tokens: activations to train on, rounded up to whole buffers.
        batch_size: activations a step.
        buffer_size: activations that are computed at a time and then shuffled.
        learning_rate: of Adam, at the end of the warm-up.
        schedule: how it falls to zero from there: "cosine" or "linear".
        warmup: share of the steps in which it rises.
        auxiliary: weight of the loss by which dead latents learn what the others leave over.
        dead_after: tokens without being kept once, after which a latent is dead.
        seed: of initialisation and order.
    """

    hooks: tuple[str, ...]
    num_latents: int | None = None
    expansion: int = 4
    k: int = 30
    sign: Sign = "relu"
    tokens: int = 2_000_000
    batch_size: int = 1024
    buffer_size: int = 131_072
    learning_rate: float = 5e-3
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    auxiliary: float = 1 / 32
    dead_after: int = 131_072
    seed: int = 0

    def __post_init__(self) -> None:
        hooks: Any = self.hooks
        if isinstance(hooks, str) or not hooks:
            raise UsageError(f"hooks is {hooks!r}; expected one or more hook points in a tuple.")
        object.__setattr__(self, "hooks", tuple(hooks))
        if len(set(self.hooks)) < len(self.hooks):
            raise UsageError(f"hooks {', '.join(self.hooks)}: one of them is given twice.")
        for name in ("expansion", "k", "tokens", "batch_size", "buffer_size", "dead_after"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "seed", check_count("seed", self.seed, minimum=0))
        if self.num_latents is not None:
            size = check_count("num_latents", self.num_latents, minimum=2)
            object.__setattr__(self, "num_latents", size)
        for name in ("learning_rate", "warmup", "auxiliary"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
            object.__setattr__(self, name, float(value))
        if self.learning_rate == 0:
            raise UsageError("learning_rate must be above 0.")
        if self.warmup >= 1:
            raise UsageError(f"warmup must be below 1, got {self.warmup!r}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} is not known: use one of {', '.join(allowed)}."
                )

    def latents_for(self, d_in: int) -> int:
        """Return the size of the dictionary for activations of a width."""
        return self.num_latents if self.num_latents is not None else self.expansion * d_in

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return {**dataclasses.asdict(self), "hooks": list(self.hooks)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SAERecipe:
        """Return the recipe of `to_dict`."""
        return cls(**{**content, "hooks": tuple(content["hooks"])})
