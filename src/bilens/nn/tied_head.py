"""An unembedding that is the embedding itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class TiedHead(nn.Module):
    """x ↦ embed.weight x. It owns no weight, so that files and optimisers see it once."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple: a module kept as an attribute would be a child

    @property
    def weight(self) -> Tensor:
        """(vocab_size, d_model), the embedding's."""
        return self._embed[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (..., d_model) → (..., vocab_size)."""
        return functional.linear(x, self.weight)
