"""What a language model may be given: whole numbers in range, no longer than its context."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.errors import ShapeError, UsageError


def check_tokens(
    tokens: Tensor, padding_mask: Tensor | None, vocab_size: int, n_ctx: int
) -> tuple[int, int]:
    """Return (batch, tokens) of a batch of texts.

    Args:
        tokens: (batch, tokens), int64 or int32.
        padding_mask: None, or (batch, tokens), True at real tokens.
        vocab_size: every token is below it.
        n_ctx: longest text.

    Raises:
        ShapeError: If the tokens are not such a tensor, or the mask does not fit them.
        UsageError: If a token is out of range, or the texts are empty or too long.
    """
    integers = isinstance(tokens, Tensor) and tokens.dtype in (torch.int64, torch.int32)
    if not integers or tokens.ndim != 2:
        raise ShapeError(
            f"tokens are {describe(tokens)}; expected int64 or int32 of shape (batch, tokens), for "
            "instance torch.tensor([tokenizer.encode(text)])."
        )
    batch, length = tokens.shape
    if not 1 <= length <= n_ctx or batch == 0:
        raise UsageError(
            f"tokens have shape {(batch, length)}; expected at least one text of 1 to {n_ctx} "
            "tokens (n_ctx): cut the texts, or train a model with a longer context."
        )
    low, high = (int(end) for end in torch.aminmax(tokens))
    if low < 0 or high >= vocab_size:
        raise UsageError(
            f"tokens range from {low} to {high}; the model knows 0 to {vocab_size - 1}: use the "
            "tokenizer that it was trained with."
        )
    if padding_mask is not None:
        fits = isinstance(padding_mask, Tensor) and padding_mask.dtype is torch.bool
        if not fits or padding_mask.shape != tokens.shape:
            raise ShapeError(
                f"padding_mask must be a tensor of bool and shape {(batch, length)}, True at real "
                f"tokens; got {describe(padding_mask)}."
            )
    return batch, length


def describe(value: object) -> str:
    """Return a value's dtype and shape, or its type, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of dtype {value.dtype} and shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
