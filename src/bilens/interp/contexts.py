"""The stretches of text at which a latent is most active."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError
from bilens.interp.records import Context, LatentContexts


def top_contexts(
    tokens: Tensor,
    activations: Tensor,
    latent: int,
    *,
    num: int = 10,
    before: int = 20,
    after: int = 5,
) -> LatentContexts:
    """Return where a latent is most active, with the text around.

    A stretch that overlaps a stronger one is left out, so that one passage is shown once.

    Cost: O(tokens · log tokens).

    Args:
        tokens: (sequences, positions) int64.
        activations: (sequences, positions) of the latent, after its activation function.
        latent: its number, for the record.
        num: how many stretches; fewer where the latent is active in fewer.
        before: tokens shown before the peak, fewer at the start of a sequence.
        after: tokens shown behind it.

    Raises:
        ShapeError: If tokens and activations have different shapes, or no axis of positions.
        NonFiniteError: If an activation is NaN or infinite.
        UsageError: If a number is negative, or `num` less than 1.
    """
    num = check_count("num", num, minimum=1)
    before, after = check_count("before", before, 0), check_count("after", after, 0)
    shape = check_float_tensor("activations", activations, num_axes=2)
    if tuple(tokens.shape) != shape or 0 in shape:
        raise ShapeError(
            f"tokens has shape {tuple(tokens.shape)} and activations {shape}; one activation for "
            "each token, (sequences, positions), was expected."
        )
    values = activations.detach().cpu()
    length = shape[1]
    taken = torch.zeros(shape, dtype=torch.bool)
    contexts: list[Context] = []
    for place in values.flatten().argsort(descending=True, stable=True).tolist():
        row, peak = divmod(place, length)
        if len(contexts) == num or float(values[row, peak]) <= 0:
            break
        start, stop = max(0, peak - before), min(length, peak + after + 1)
        if bool(taken[row, start:stop].any()):
            continue
        taken[row, start:stop] = True
        contexts.append(
            Context(
                sequence=row,
                start=start,
                peak=peak - start,
                tokens=tuple(tokens[row, start:stop].tolist()),
                activations=tuple(values[row, start:stop].tolist()),
            )
        )
    return LatentContexts(
        latent=latent,
        contexts=tuple(contexts),
        density=float((values > 0).double().mean()),
        largest=float(values.max()),
    )
