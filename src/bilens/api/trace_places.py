"""Where a latent speaks and where it does not, and which tokens tell such places apart."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn import functional

from bilens.nn.transformer import BilinearTransformer

MOST_PLACES = 200  # tokens at which the latent is active, and as many at which it is not
LEAST_PLACES = 10


def places_of_latent(activations: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return where a latent is most active, and as many random places where it is not.

    Args:
        activations: (texts, length − 1), of all but the first token of each text.
        generator: draws the latter.

    Returns:
        Two of (n,), places among texts · length.
    """
    values = padded(activations)
    on = strongest(values)[:MOST_PLACES]
    silent = (values == 0).nonzero()[:, 0]
    off = silent[torch.randperm(len(silent), generator=generator)[: len(on)]]
    return on[: len(off)], off


def places_of_contrast(first: Tensor, second: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return where one latent is most active and another is not, and the other way round.

    Both kinds of places read the same tokens equally often: what differs between them is the rest
    of the context, not the token at which a latent speaks at all.

    Args:
        first: (texts, length − 1), activations of all but the first token of each text.
        second: the same of another latent.
        blocks: (texts, length), the tokens.

    Returns:
        Two of (n,), places among texts · length.
    """
    one, other = padded(first), padded(second)
    tokens = blocks.flatten()
    on = numbered(strongest(one.where(other <= 0, -1.0)), tokens)
    off = numbered(strongest(other.where(one <= 0, -1.0)), tokens)
    kept = [key for key in on if key in off][:MOST_PLACES]
    return (
        torch.tensor([on[key] for key in kept], dtype=torch.long),
        torch.tensor([off[key] for key in kept], dtype=torch.long),
    )


def padded(activations: Tensor) -> Tensor:
    """Return activations of all tokens, (texts · length,): below zero at each first one."""
    return functional.pad(activations, (1, 0), value=-1.0).flatten()


def strongest(values: Tensor) -> Tensor:
    """Return the places of the values above zero, by falling value."""
    order = values.argsort(descending=True, stable=True)
    return order[: int((values > 0).sum())]


def numbered(found: Tensor, tokens: Tensor) -> dict[tuple[int, int], int]:
    """Return (token, how often it came before) → place, in the order of the places."""
    seen: Counter[int] = Counter()
    named = {}
    for place, token in zip(found.tolist(), tokens[found].tolist(), strict=True):
        named[token, seen[token]] = place
        seen[token] += 1
    return named


def separating_tokens(
    model: BilinearTransformer, blocks: Tensor, on: Tensor, off: Tensor, num: int
) -> tuple[list[int], list[int]]:
    """Return the tokens whose mean probability differs most between two kinds of places.

    Args:
        model: the model, unchanged.
        blocks: (texts, length).
        on: (n,), places among texts · length.
        off: (n,), other places.
        num: how many tokens of each kind.

    Returns:
        Those that are likelier at the first places, and those that are likelier at the others.
    """
    with torch.no_grad():
        logits = model(blocks).flatten(0, 1).float()
    difference = logits[on].softmax(dim=-1).mean(dim=0) - logits[off].softmax(dim=-1).mean(dim=0)
    num = min(num, len(difference) // 2)
    return difference.topk(num).indices.tolist(), (-difference).topk(num).indices.tolist()
