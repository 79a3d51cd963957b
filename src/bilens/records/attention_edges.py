"""Edges of a trace through the attention in front of its MLP."""

from typing import Annotated

from bilens.records.base import Count, Record
from bilens.records.view import View


class ScoreEdge(Record, frozen=True):
    """A query feature that attends to a key feature in one head."""

    head: Annotated[Count, View("head of the attention of the block", "count")]
    query: Annotated[Count, "number of the feature where the query is"]
    query_peak: Annotated[str | None, "its strongest token; null if it is never active"]
    key: Annotated[Count, "number of the feature where the key is"]
    key_peak: Annotated[str | None, "its strongest token"]
    score: Annotated[float, View("both at 1 add it to the score before the softmax", "signed")]
    p_value: Annotated[
        float, View("how often the largest of random features is as large", "fixed2")
    ]


class WriteEdge(Record, frozen=True):
    """A key feature that a head writes into an input latent of the MLP."""

    head: Annotated[Count, View("head of the attention of the block", "count")]
    key: Annotated[Count, "number of the feature where the key is"]
    key_peak: Annotated[str | None, "its strongest token"]
    latent: Annotated[Count, "number of the input latent of a circuit"]
    weight: Annotated[
        float, View("the key at 1, fully attended to, adds it to the latent", "signed")
    ]
    query: Annotated[Count, "number of the query feature with the largest score for this key"]
    query_peak: Annotated[str | None, "its strongest token"]
    score: Annotated[float, View("of the two in this head", "signed")]
    p_value: Annotated[
        float, View("how often the largest of random features is as large", "fixed2")
    ]


class AttentionEdges(Record, frozen=True):
    """Edges through the attention in front of the MLP, for streams of root mean square 1."""

    hook: Annotated[str, "point of the model whose features they are"]
    path: Annotated[str, "of the autoencoder"]
    weights_sha256: Annotated[str, "of its weights"]
    num_features: Annotated[Count, "its latents"]
    num_heads: Annotated[Count, "heads of the attention"]
    distance: Annotated[Count, "tokens from the key to the query"]
    scores: Annotated[tuple[ScoreEdge, ...], "by falling size"]
    writes: Annotated[tuple[WriteEdge, ...], "by falling size"]
    num_null: Annotated[
        Count, "random dictionaries: the features turned together, each as long as before"
    ]
    level: Annotated[float, "a p-value above it is taken for chance"]
    checked_against: Annotated[str, "what the heads were compared with; empty: not verified"]
