"""The tokens that an update of a language model writes and responds to, from its weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bilens.algebra.matrix_change import leading_singular_vectors
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.token_pairs import strongest_pairs
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.vocabulary import Vocabulary
from bilens.nn.layer_view import LayerView
from bilens.records.layer_readings import TokenPair
from bilens.records.tensor_changes import TensorChange, TokenScore, UpdateDirection, WholeDifference

WRITES = ("o", "down")  # matrices whose outputs are the residual stream
READS = ("q", "k", "v", "qkv", "gate", "up", "gate_up")  # whose inputs are
LISTED, SHOWN = 5, 12  # tokens of a direction; directions
MOST_PRODUCTS = 1.5e11  # about ten seconds
MOVED = ("low_rank", "rescaled", "changed")  # states that are no rounding and no noise


def update_directions(
    model: Store,
    baseline: Store,
    whole: WholeDifference,
    vocabulary: Vocabulary | None,
    progress: Progress = silent,
) -> tuple[UpdateDirection, ...]:
    """Return the leading directions of the matrices that changed, most telling first.

    Math: of ΔW = W − W₀ the leading singular triple; u of ΔO and Δdown is what the change writes,
        v of ΔQ, ΔK, ΔV, Δgate and Δup what it answers to. A token's score is what u adds to its
        logit, through the norms behind the matrix and before the head, or what v gives for its
        embedding, through the norm before the matrix; less their mean, in standard deviations
        over all tokens; where both ends are equally right, u is turned to the larger score.
    Cost: a truncated SVD of each such matrix, and tokens · width for its tokens.
    """
    if vocabulary is None:
        return ()
    found = list[UpdateDirection]()
    changes = [one for one in whole.changed if one.state in MOVED and one.kind in WRITES + READS]
    changes = [one for one in changes if one.name in model and one.baseline_name in baseline]
    for done, change in enumerate(changes):
        progress("directions", done, len(changes))
        pair = model[change.name], baseline[change.baseline_name]
        found += direction_of(change, *pair, vocabulary)
    return tuple(sorted(found, key=lambda one: -one.tokens[0].score)[:SHOWN])


def direction_of(
    change: TensorChange,
    new: StoredTensor,
    old: StoredTensor,
    vocabulary: Vocabulary,
) -> Iterator[UpdateDirection]:
    """Yield the leading direction of one matrix, where it is one of the residual stream."""
    writes, width = change.kind in WRITES, vocabulary.embedding.shape[1]
    turned = vocabulary.ends.transposed
    if len(new.shape) != 2 or new.shape[0 if writes != turned else 1] != width:
        return
    try:
        delta = new.read_tensor().double() - old.read_tensor().double()
    except NonFiniteError:
        return
    left, _, right = leading_singular_vectors(delta.T if turned else delta, 1)
    direction = (left if writes else right)[:, 0]
    read = vocabulary.promoted if writes else vocabulary.answered
    raw = read(direction, change.name)
    if raw is None:
        return
    scores, ids = token_scores(raw, LISTED)
    listed = tuple(TokenScore(vocabulary.token(i), x) for i, x in zip(ids, scores, strict=True))
    side = "writes" if writes else "reads"
    yield UpdateDirection(change.name, change.kind, change.layer, side, change.top_share, listed)


def token_scores(raw: Tensor, count: int) -> tuple[list[float], list[int]]:
    """Return the largest scores of tokens along a direction of either sign, and which they are."""
    scores = (raw - raw.mean()) / raw.std().clamp(min=torch.finfo(raw.dtype).tiny)
    if -scores.min() > scores.max():
        scores = -scores
    best = scores.topk(min(count, len(scores)))
    return best.values.tolist(), best.indices.tolist()


def token_pairs(
    delta: QuadraticMap, vocabulary: Vocabulary, layer: LayerView
) -> tuple[TokenPair, ...]:
    """Return the pairs of tokens that a change of an exact layer pulls most, at RMS 1 each.

    They are exact where the layer reads embeddings as they are; behind other layers they say what
    it would do to them. Nothing where sizes differ, or it would take more than `MOST_PRODUCTS`.
    """
    sizes, (tokens, width) = delta.sizes, vocabulary.embedding.shape
    products = tokens * tokens / 2 * sizes.d_hidden * sizes.d_out
    if (sizes.d_in, sizes.d_out) != (width, width) or products > MOST_PRODUCTS:
        return ()
    read, heads = vocabulary.read_by(layer, divided=True), vocabulary.unembedding_of(layer)
    if read is None or heads is None:
        return ()
    found = strongest_pairs(delta.tensor, read.double(), heads.double(), LISTED)
    name = vocabulary.token
    rows = zip(found.pairs.tolist(), found.outputs.tolist(), found.pulls.tolist(), strict=True)
    return tuple(TokenPair((name(a), name(b)), name(y), pull) for (a, b), y, pull in rows)
