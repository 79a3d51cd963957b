"""Whether residual streams of two language models are the same coordinates, or can be turned so.

Nothing in an MLP says in which coordinates it reads: the same language model may be written in any
others. What ties them down are the tokens, whose embeddings have to lie where they lay.
"""

from typing import Literal

import torch
from torch import Tensor

from bilens.io.loaded_model import LoadedModel
from bilens.io.vocabulary import vocabulary_of

CLOSE = 0.5  # ‖ΔW‖ / ‖W‖ of what one was made from the other; of two trainings it is √2
ROUNDED = 1e-5  # of the size of an embedding: what rounding to float32 leaves of a turn
Turn = Tensor | Literal["same", "unknown"]  # x of the baseline = turn @ x of the model


def find_turn(model: LoadedModel, baseline: LoadedModel) -> Turn:
    """Return the orthogonal matrix that makes embeddings and unembeddings equal, if any does.

    Math: the orthogonal Procrustes problem, min ‖E_baseline − E_model Rᵀ‖, whose R is U Vᵀ of
        E_baselineᵀ E_model = U S Vᵀ; it is taken where both tables then agree within rounding.
    """
    found = [vocabulary_of(one) for one in (baseline, model)]
    if found[0] is None or found[1] is None:
        return "unknown"
    before, after = found[0].embedding, found[1].embedding
    if before.shape != after.shape:
        return "unknown"
    if distance(before, after) < CLOSE:
        return "same"
    left, values, right = torch.linalg.svd(before.double().T @ after.double())
    if float(values[-1]) <= ROUNDED * float(values[0]):
        return "unknown"  # tokens do not reach all of the stream
    turn = left @ right
    tables = (before, after), (found[0].unembedding, found[1].unembedding)
    fits = all(distance(one.double(), other.double() @ turn.T) < ROUNDED for one, other in tables)
    return turn if fits else "unknown"


def distance(one: Tensor, other: Tensor) -> float:
    """Return ‖one − other‖ / ‖one‖."""
    return float((other - one).norm() / one.norm().clamp(min=torch.finfo(one.dtype).tiny))
