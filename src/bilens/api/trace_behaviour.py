"""The behaviour that goes with a latent, and whether directions cause it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch.nn import functional

from bilens.api.trace_causal import MOST_BLOCKS, Behaviour, causal_values
from bilens.api.trace_changes import Change
from bilens.api.trace_places import (
    LEAST_PLACES,
    places_of_contrast,
    places_of_latent,
    separating_tokens,
)
from bilens.api.trace_reader import LatentReader
from bilens.interp.records import TokenEffect

COMPARED_TOKENS = 3  # at each end, whose logits a causal check compares


def causal_findings(
    reader: LatentReader,
    effect: TokenEffect | None,
    latents: tuple[int, int | None],
    change: Callable[[torch.Generator], Change],
) -> dict[str, Any]:
    """Return whether directions cause the difference of logits that goes with a latent.

    Nothing is said where a latent is active too rarely, or there is no difference.

    Args:
        reader: the layer and what was read.
        effect: the tokens that are compared; None for those whose probability differs most.
        latents: active at places with the behaviour, and at those without; None for inactivity.
        change: makes what is changed.
    """
    blocks = reader.text.blocks[:MOST_BLOCKS]
    length, generator = reader.text.blocks.shape[1] - 1, reader.generator
    first, second = (
        None if latent is None else reader.activations[: len(blocks) * length, latent]
        for latent in latents
    )
    assert first is not None, "there is a latent that the behaviour goes with"
    values = first.view(-1, length)
    if second is None:
        on, off = places_of_latent(values, generator)
    else:
        on, off = places_of_contrast(values, second.view(-1, length), blocks)
    if len(on) < LEAST_PLACES:
        return {"behaviour": None, "checks": []}
    module = reader.layer.module
    if effect is None:
        high, low = separating_tokens(module, blocks, on, off, COMPARED_TOKENS)
    else:
        high, low = (
            [score.token for score in end[:COMPARED_TOKENS]]
            for end in (effect.promoted, effect.suppressed)
        )
    silent = first <= 0 if second is None else (first <= 0) & (second <= 0)
    elsewhere = functional.pad(silent.view(-1, length), (1, 0), value=False)
    hook = reader.before.hook
    behaviour = Behaviour(module, hook, blocks, high, low, on, off, elsewhere)
    inputs = reader.inputs.view(-1, length, reader.inputs.shape[1])[: len(blocks)]
    checks = causal_values(behaviour, change(generator), inputs, generator)
    names = {
        "high": [reader.name(token) for token in high],
        "low": [reader.name(token) for token in low],
    }
    return {"behaviour": names if checks else None, "checks": [asdict(item) for item in checks]}
