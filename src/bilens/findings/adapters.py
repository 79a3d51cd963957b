"""What an update of a language model writes and answers to, from its weights, as tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.matrix_change import leading_singular_vectors
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.token_pairs import strongest_pairs
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import LAYER, kind_of, paired
from bilens.records.layer_audit import (
    TensorChange,
    TokenPair,
    TokenScore,
    UpdateDirection,
    WholeDifference,
)

WRITES = ("o", "down")  # matrices whose outputs are the residual stream
READS = ("q", "k", "v", "qkv", "gate", "up", "gate_up")  # whose inputs are
OTHER_TABLES = re.compile(r"pos|wpe|type|patch")  # embeddings of what is no token
LISTED, SHOWN = 5, 12  # tokens of a direction; directions
MOST_PRODUCTS = 1.5e11  # about ten seconds
MOVED = ("low_rank", "rescaled", "changed")  # states that are no rounding and no noise


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What tokens look like in the residual stream of a model."""

    embedding: Tensor  # (tokens, width), rows of length 1
    unembedding: Tensor  # (tokens, width), behind the gain of the last norm
    token: Callable[[int], str]  # how one is called

    @property
    def width(self) -> int:
        return self.embedding.shape[1]


def vocabulary_of(store: Store, token: Callable[[int], str]) -> Vocabulary | None:
    """Return embedding and unembedding of a language model; None where there are none."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in store.items():
        kind, stem = kind_of(name, tensor.shape), name.removesuffix(".weight")
        if kind == "norm" and (LAYER.search(name) or not stem.endswith(("norm", "ln_f"))):
            continue
        if kind in ("embedding", "head", "norm") and not OTHER_TABLES.search(name):
            found.setdefault(kind, tensor)
    embedding = found.get("embedding")
    if embedding is None or len(embedding.shape) != 2:
        return None
    table = embedding.read().float()
    head = found.get("head", embedding)
    reads = head.read().float() if head.shape == embedding.shape else table
    gain = found.get("norm")
    if gain is not None and gain.shape == table.shape[1:]:
        reads = reads * gain.read().float()
    lengths = table.norm(dim=1, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)
    return Vocabulary(table / lengths, reads, token)


def update_directions(
    model: Store,
    baseline: Store,
    whole: WholeDifference,
    vocabulary: Vocabulary | None,
    progress: Progress = silent,
) -> tuple[UpdateDirection, ...]:
    """Return the leading directions of the matrices that changed, most telling first.

    Math: of ΔW = W − W₀ the leading singular triple; u of ΔO and Δdown is what the change writes,
        v of ΔQ, ΔK, ΔV, Δgate and Δup what it answers to. A token's score is U u (through the gain
        of the last norm) or Ê v (embeddings of length 1), less their mean, in standard deviations
        over all tokens; where both ends are equally right, u is turned to the larger score.
    Cost: a truncated SVD of each such matrix, and tokens · width for its tokens.
    """
    if vocabulary is None:
        return ()
    names, found = paired(model, baseline), list[UpdateDirection]()
    changes = [one for one in whole.changed if one.state in MOVED and one.kind in WRITES + READS]
    for done, change in enumerate(changes):
        progress("directions", done, len(changes))
        old = baseline[names[change.name]]
        found += direction_of(change, model[change.name], old, vocabulary)
    return tuple(sorted(found, key=lambda one: -one.tokens[0].score)[:SHOWN])


def direction_of(
    change: TensorChange,
    new: StoredTensor,
    old: StoredTensor,
    vocabulary: Vocabulary,
) -> Iterator[UpdateDirection]:
    """Yield the leading direction of one matrix, where it is one of the residual stream."""
    writes = change.kind in WRITES
    if len(new.shape) != 2 or new.shape[0 if writes else 1] != vocabulary.width:
        return
    if "attn.c_proj" in change.name:  # of GPT-2, whose matrices are (in, out)
        return
    try:
        delta = new.read().double() - old.read().double()
    except NonFiniteError:
        return
    left, _, right = leading_singular_vectors(delta, 1)
    direction = (left if writes else right)[:, 0].float()
    table = vocabulary.unembedding if writes else vocabulary.embedding
    scores, ids = token_scores(table, direction, LISTED)
    listed = tuple(TokenScore(vocabulary.token(i), x) for i, x in zip(ids, scores, strict=True))
    side = "writes" if writes else "reads"
    yield UpdateDirection(change.name, change.kind, change.layer, side, change.top_share, listed)


def token_scores(table: Tensor, direction: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the largest scores of tokens along a direction of either sign, and which they are."""
    raw = table @ direction
    scores = (raw - raw.mean()) / raw.std().clamp(min=torch.finfo(raw.dtype).tiny)
    if -scores.min() > scores.max():
        scores = -scores
    best = scores.topk(min(count, len(scores)))
    return best.values.tolist(), best.indices.tolist()


def token_pairs(delta: QuadraticMap, vocabulary: Vocabulary) -> tuple[TokenPair, ...]:
    """Return the pairs of tokens that a change of an exact layer pulls most, at RMS 1 each.

    They are exact where the layer reads embeddings as they are; behind other layers they say what
    it would do to them. Nothing where sizes differ, or it would take more than `MOST_PRODUCTS`.
    """
    sizes, width = delta.sizes, vocabulary.width
    tokens = len(vocabulary.embedding)
    products = tokens * tokens / 2 * sizes.d_hidden * sizes.d_out
    if (sizes.d_in, sizes.d_out) != (width, width) or products > MOST_PRODUCTS:
        return ()
    embedding = vocabulary.embedding.double() * width**0.5
    found = strongest_pairs(delta.tensor, embedding, vocabulary.unembedding.double(), LISTED)
    name = vocabulary.token
    rows = zip(found.pairs.tolist(), found.outputs.tolist(), found.pulls.tolist(), strict=True)
    return tuple(TokenPair((name(a), name(b)), name(y), pull) for (a, b), y, pull in rows)
