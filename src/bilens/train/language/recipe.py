"""The recipe of a language model: everything that decides the weights, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

import torch

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.data.text import GRAMMAR
from bilens.data.tokenizer import TokenizerKind
from bilens.nn.mlp import Gate
from bilens.nn.transformer_config import MLPType
from bilens.train.device import best_precision
from bilens.train.recipe import Precision
from bilens.train.schedule import Schedule

CPU = torch.device("cpu")
CHOICES = {
    "gate": (None, *get_args(Gate)),
    "mlp_type": get_args(MLPType),
    "tokenizer": get_args(TokenizerKind),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
}


@dataclass(frozen=True)
class LanguageRecipe:
    """How to train a language model. The defaults suit a megabyte of simple stories.

    Attributes:
        d_model: width of the residual stream.
        d_hidden: products in each MLP.
        n_layer: blocks.
        n_head: attention heads in each block.
        n_ctx: tokens that a prediction can look back on.
        gate: None (bilinear), "relu", "gelu" or "silu".
        mlp_type: "gated" (bilinear and with a gate), or "ordinary": GELU with equally many weights.
        tied: whether the unembedding is the embedding.
        tokenizer: kind of the tokenizer that is trained on the corpus.
        vocab_size: its tokens; None, for "word" alone, is every word.
        epochs: passes over the training tokens.
        steps: updates; None is as many as `epochs` asks for, and a number takes its place.
        batch_size: texts of `n_ctx` tokens a step.
        learning_rate: of AdamW, at the end of the warm-up.
        schedule: how it falls to zero from there: "linear" or "cosine".
        warmup: share of the steps in which it rises.
        weight_decay: of AdamW, decoupled, on every weight.
        clip: greatest norm of the gradient of a step.
        dropout: probability of dropping an entry of the embedding and of what each attention
            and MLP adds.
        evaluations: how often the held-out loss is measured, evenly over the steps.
        seed: of initialisation, order and dropout.
        precision: of the forward and backward products; weights, gradients and updates are
            float32. "auto" is bfloat16 where the device multiplies it natively.
    """

    d_model: int = 192
    d_hidden: int = 512
    n_layer: int = 4
    n_head: int = 3
    n_ctx: int = 256
    gate: Gate | None = None
    mlp_type: MLPType = "gated"
    tied: bool = False
    tokenizer: TokenizerKind = "byte-bpe"
    vocab_size: int | None = 2048
    epochs: float = 10.0
    steps: int | None = None
    batch_size: int = 8
    learning_rate: float = 3e-3
    schedule: Schedule = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip: float = 1.0
    dropout: float = 0.1
    evaluations: int = 10
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("d_model", "d_hidden", "n_layer", "n_head", "batch_size", "evaluations"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "n_ctx", check_count("n_ctx", self.n_ctx, minimum=2))
        object.__setattr__(self, "seed", check_count("seed", self.seed, minimum=0))
        if self.steps is not None:
            object.__setattr__(self, "steps", check_count("steps", self.steps, minimum=1))
        for name in ("epochs", "learning_rate", "warmup", "weight_decay", "clip", "dropout"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
            object.__setattr__(self, name, float(value))
        for name in ("epochs", "learning_rate", "clip"):
            if getattr(self, name) == 0:
                raise UsageError(f"{name} must be above 0.")
        for name in ("dropout", "warmup"):
            if getattr(self, name) >= 1:
                raise UsageError(f"{name} must be below 1, got {getattr(self, name)!r}.")
        if not isinstance(self.tied, bool):
            raise UsageError(f"tied must be True or False, got {self.tied!r}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} is not known: use one of "
                    f"{', '.join(map(str, allowed))}."
                )

    def resolved(self, device: torch.device = CPU) -> LanguageRecipe:
        """Return the recipe with `precision="auto"` replaced by what it means on a device."""
        if self.precision != "auto":
            return self
        return dataclasses.replace(self, precision=best_precision(device))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LanguageRecipe:
        """Return the recipe of `to_dict`."""
        return cls(**content)


TEXT_RECIPE = LanguageRecipe()
GRAMMAR_RECIPE = LanguageRecipe(  # one layer: what it computes can be read off one MLP
    d_model=64,
    d_hidden=128,
    n_layer=1,
    n_head=4,
    n_ctx=64,
    tokenizer="word",
    vocab_size=None,
    epochs=6.0,
    batch_size=8,
    dropout=0.0,
    evaluations=20,
    learning_rate=5e-3,  # slower or in larger batches, some seeds learn the rule late or never
)


def default_recipe(corpus: str) -> LanguageRecipe:
    """Return the recipe for a corpus: a small model for the story grammar, or one for text."""
    return GRAMMAR_RECIPE if corpus == GRAMMAR else TEXT_RECIPE
