"""Activations of a language model as a shuffled stream, a buffer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.memory import check_memory
from bilens.nn.hooks import hook_layer
from bilens.nn.tokens import check_tokens
from bilens.nn.transformer import BilinearTransformer
from bilens.train.device import device_of
from bilens.train.randomness import ORDER, stream

TOKENS_AT_ONCE = 8192  # that run through the model together
ROWS = 1  # beside ORDER: the order of the rows in a buffer


@dataclass(frozen=True, eq=False)
class ActivationBuffer:
    """Activations at the hook points, each in the same shuffled order."""

    activations: Mapping[str, Tensor]  # hook point → (rows, d_model), in the order of the texts
    order: Tensor  # (rows,), in which they are handed out

    @cached_property
    def variances(self) -> Mapping[str, float]:
        """Hook point → mean of ‖x − mean‖² over the rows."""
        return {
            hook: float(rows.double().var(dim=0, correction=0).sum())
            for hook, rows in self.activations.items()
        }

    def batch(self, hook: str, step: int, size: int) -> Tensor:
        """Return the rows of a step, (size, d_model)."""
        return self.activations[hook][self.order[step * size : (step + 1) * size]]


class ActivationStream:
    """The activations of a model at hook points: each buffer is a function of seed and number."""

    def __init__(
        self,
        model: BilinearTransformer,
        texts: Tensor,
        hooks: tuple[str, ...],
        buffer_size: int,
        seed: int,
    ) -> None:
        for hook in hooks:
            hook_layer(hook, model.config.n_layer)
        num_texts, length = check_tokens(texts, None, model.config.vocab_size, model.config.n_ctx)
        if length < 2:
            raise UsageError(
                f"the texts have {length} token each, and the first one is left out: pass texts of "
                "at least 2 tokens."
            )
        self.model, self.texts, self.hooks, self.seed = model, texts, hooks, seed
        self.texts_per_buffer = min(max(buffer_size // (length - 1), 1), num_texts)
        self.rows = self.texts_per_buffer * (length - 1)
        check_memory(
            4 * self.rows * model.config.d_model * len(hooks),
            f"a buffer of {self.rows} activations at {len(hooks)} hook point(s)",
            "choose a smaller buffer",
        )

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, by one run of the model up to the last hook point."""
        first, num_texts = index * self.texts_per_buffer, len(self.texts)
        positions = [divmod(first + i, num_texts) for i in range(self.texts_per_buffer)]
        orders = {
            number: torch.randperm(num_texts, generator=stream(self.seed, ORDER, number))
            for number in {number for number, _ in positions}
        }
        chosen = [int(orders[number][position]) for number, position in positions]
        found = activations_of(self.model, self.texts[chosen], self.hooks)
        generator = stream(self.seed, ORDER, index, ROWS)
        order = torch.randperm(self.rows, generator=generator)
        return ActivationBuffer(found, order.to(device_of(self.model)))


@torch.no_grad()
def activations_of(
    model: BilinearTransformer, texts: Tensor, hooks: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return hook point → (num_texts · (n_ctx − 1), d_model) float32, without first tokens."""
    was_training, device = model.training, device_of(model)
    model.eval()
    parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for some in torch.split(texts, max(1, TOKENS_AT_ONCE // texts.shape[1])):
        for hook, value in model.activations(some.to(device), hooks).items():
            parts[hook].append(value[:, 1:].flatten(0, 1).float())
    model.train(was_training)
    found = {hook: torch.cat(values) for hook, values in parts.items()}
    for hook, rows in found.items():
        try:
            check_finite(f"the activations at {hook}", rows)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} The model is broken: train it again.") from None
    return found
