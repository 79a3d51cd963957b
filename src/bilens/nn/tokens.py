"""Tokens: what a language model may be given, how well it predicts them, and how it draws them."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bilens.base.checks import as_integer, check_count, generator_of
from bilens.base.errors import ShapeError, UsageError


def check_tokens(
    tokens: Tensor, padding_mask: Tensor | None, vocab_size: int, n_ctx: int
) -> tuple[int, int]:
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


def check_continuation(
    tokens: Tensor, max_new_tokens: int, end_token: int | None, vocab_size: int, n_ctx: int
) -> int:
    """Return how long texts are with all their new tokens; refuse what a model cannot write."""
    _, length = check_tokens(tokens, None, vocab_size, n_ctx)
    if end_token is not None and as_integer(end_token) not in range(vocab_size):
        raise UsageError(f"end_token is {end_token!r}; the model knows 0 to {vocab_size - 1}.")
    total = length + check_count("max_new_tokens", max_new_tokens, minimum=0)
    if total > n_ctx:
        raise UsageError(
            f"{length} tokens and {max_new_tokens} new ones are more than the context of "
            f"{n_ctx} (n_ctx): ask for fewer."
        )
    return total


def describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of dtype {value.dtype} and shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws tokens from logits."""

    temperature: float  # 0 takes the most probable token
    top_k: int | None
    generator: torch.Generator | None  # None for torch's own

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float)
        if not number or not 0 <= self.temperature < math.inf:
            raise UsageError(
                f"temperature must be a number of at least 0, got {self.temperature!r}."
            )
        if self.top_k is not None:
            check_count("top_k", self.top_k, minimum=1)

    def draw(self, logits: Tensor) -> Tensor:
        """Return a token for each row, (batch, vocab_size) → (batch, 1)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        # where the generator is: with the same seed the same text on every device
        at = logits.device if self.generator is None else self.generator.device
        found = self.drawn(logits.to(at).double() / self.temperature)
        return found.to(logits.device)

    def drawn(self, logits: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            top = logits.topk(self.top_k, dim=-1)
            drawn = torch.multinomial(top.values.softmax(-1), 1, generator=self.generator)
            return top.indices.gather(-1, drawn)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=self.generator)


class TextModel(nn.Module):
    """A language model that continues texts, drawing one token after another."""

    config: Any  # has vocab_size and n_ctx

    @abstractmethod
    def next_logits(self, texts: Tensor, total: int) -> Callable[[Tensor], Tensor]:
        """Return a function that reads on: the new tokens of each text, (batch, new), to logits.

        `texts` are those that are continued, to `total` tokens at most; they are read first.
        """

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | torch.Generator | None = None,
        end_token: int | None = None,
    ) -> Tensor:
        """Return the texts with new tokens behind them, (batch, tokens + new).

        Args:
            tokens: (batch, tokens), texts of one length.
            max_new_tokens: at most so many; with the text they must fit into `n_ctx`.
            temperature: the logits are divided by it; 0 takes the most probable token.
            top_k: draw among so many most probable tokens; None for all.
            seed: of the tokens drawn; or a generator, which goes on from where it is; None for
                torch's own.
            end_token: behind it a text goes on with this token alone, and when all texts have it
                the run ends; None for never.

        Raises: UsageError if a number is out of range, or the texts would outgrow the context;
            ShapeError if the tokens are no batch of texts.
        """
        sampler = Sampler(temperature, top_k, None if seed is None else generator_of(seed))
        sizes = self.config.vocab_size, self.config.n_ctx
        total = check_continuation(tokens, max_new_tokens, end_token, *sizes)
        read_on = self.next_logits(tokens, total)
        ended = torch.zeros(len(tokens), 1, dtype=torch.bool, device=tokens.device)
        text, new = [tokens], tokens
        for _ in range(max_new_tokens):
            new = sampler.draw(read_on(new)).to(tokens.dtype)
            if end_token is not None:
                new = new.masked_fill(ended, end_token)
                ended = ended | (new == end_token)
            text.append(new)
            if bool(ended.all()):
                break
        return torch.cat(text, dim=1)


# ---- cross-entropy of a linear head, rows at a time: no logits of all rows at once

CACHED_LOGITS = 2**20  # what a processor's cache holds: 4 MiB
FEWEST_ROWS = 256  # fewer make the products slow


def mean_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −log softmax(weight x)[target] over the rows, in nats.

    Cost: memory for max(256, 2²⁰/classes) rows of logits; 2⁶ times as many on an accelerator.
    """
    device = x.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):  # it would widen the logits by a copy
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            loss: Tensor = _MeanCrossEntropy.apply(x, weight, targets, cast)  # type: ignore[no-untyped-call]
            return loss
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for _, log_p, chosen in _pieces(x, weight.to(cast), targets):
            total -= log_p.gather(1, chosen).sum()
        return (total / len(x)).to(torch.promote_types(x.dtype, torch.float32))


def _pieces(x: Tensor, weight: Tensor, targets: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows, the logarithms of their probabilities, and their targets as a column."""
    logits = CACHED_LOGITS * (1 if x.device.type == "cpu" else 64)
    size = max(FEWEST_ROWS, logits // len(weight))
    wide = torch.promote_types(weight.dtype, torch.float32)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        scores = x[rows].to(weight.dtype) @ weight.T
        yield rows, scores.log_softmax(dim=1, dtype=wide), targets[rows, None]


class _MeanCrossEntropy(Function):
    """Loss and gradients in one pass: ∂/∂logits = (softmax − one-hot) / rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cast: torch.dtype) -> Tensor:
        """Return the loss; its gradients are kept, up to the factor 1 / rows."""
        narrow = weight.to(cast)
        x_grad, weight_grad = torch.empty_like(x), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for rows, log_p, chosen in _pieces(x, narrow, targets):
            total -= log_p.gather(1, chosen).sum()
            grad = log_p.exp_()
            grad.scatter_add_(1, chosen, grad.new_full(chosen.shape, -1))
            grad = grad.to(cast)
            x_grad[rows] = grad @ narrow
            weight_grad += grad.T @ x[rows].to(cast)
        ctx.save_for_backward(x_grad, weight_grad)
        ctx.rows = len(x)
        return (total / len(x)).to(torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of x and weight."""
        x_grad, weight_grad = ctx.saved_tensors
        scale = grad / ctx.rows
        return (
            (x_grad * scale).to(x_grad.dtype),
            (weight_grad * scale).to(weight_grad.dtype),
            None,
            None,
        )
