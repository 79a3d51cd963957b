"""What decides the shape and the function of a transformer, beside its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.nn.mlp import Gate

MLPType = Literal["gated", "ordinary"]
SIZES = ("vocab_size", "d_model", "d_hidden", "n_layer", "n_head", "n_ctx")


@dataclass(frozen=True)
class TransformerConfig:
    """The arguments of `BilinearTransformer`, checked."""

    vocab_size: int
    d_model: int
    d_hidden: int
    n_layer: int
    n_head: int
    n_ctx: int
    gate: Gate | None
    tied: bool
    bias: bool
    rotary_base: float
    norm_epsilon: float
    mlp_type: MLPType

    def __post_init__(self) -> None:
        for name in SIZES:  # numpy's integers become Python's, which JSON can hold
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        for name in ("rotary_base", "norm_epsilon"):
            object.__setattr__(self, name, check_positive(name, getattr(self, name)))
        if self.d_model % (2 * self.n_head) != 0:
            raise UsageError(
                f"d_model is {self.d_model} and n_head is {self.n_head}: each head needs an even "
                f"width, so d_model must be a multiple of {2 * self.n_head}."
            )
        if self.gate is not None and self.gate not in get_args(Gate):
            raise UsageError(
                f"gate={self.gate!r} is not known: use None (bilinear), "
                f"{', '.join(get_args(Gate))}."
            )
        if self.mlp_type not in get_args(MLPType):
            raise UsageError(f'mlp_type={self.mlp_type!r} is not known: use "gated" or "ordinary".')
        if self.mlp_type == "ordinary" and (self.gate is not None or self.d_hidden % 2 == 1):
            raise UsageError(
                f"gate={self.gate!r} and d_hidden={self.d_hidden} do not fit an ordinary MLP: it "
                "has no gate, and 3/2 · d_hidden neurons must be a whole number."
            )

    @property
    def d_head(self) -> int:
        """Width of each head."""
        return self.d_model // self.n_head


def check_positive(name: str, value: float) -> float:
    """Return a positive, finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise UsageError(f"{name} must be a positive number, got {value!r}.")
    return float(value)
