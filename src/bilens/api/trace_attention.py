"""Edges of a trace through the attention before the MLP: features that meet, and what it writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.api.attention_reading import read_heads
from bilens.interp.random_dictionaries import LEVEL, chance_of, random_turn
from bilens.interp.traced_layer import LatentReader, LoadedSAE, TracedLayer, short
from bilens.polynomial.attention_head import AttentionHead
from bilens.polynomial.largest_products import largest_products
from bilens.records.attention_edges import AttentionEdges, ScoreEdge, WriteEdge
from bilens.train.activations import activations_of

Edge = tuple[int, int, int, float]  # head, two numbers of features or latents, and its strength


@dataclass(frozen=True, eq=False)
class EdgeSearch:
    """The heads of a block, and the directions that latents behind them read.

    Math: a score is d_mᵀ M_h d_n of two directions of features, M_h the form of head h at a
        distance; a write is e · W_O W_V d_n, e the direction that a latent reads. Both are for
        streams of root mean square 1, by which the norms divide.
    Cost: O(heads · features² · d_head) for all scores, and no array of them.
    """

    heads: tuple[AttentionHead, ...]
    distance: int
    ends: Tensor  # (latents, d_model)

    def find_scores(self, features: Tensor, k: int) -> list[Edge]:
        """Find the largest scores of features (n, d_model): head, query, key."""
        forms = (head.form(self.distance) for head in self.heads)
        return strongest([(features @ one.query.T, features @ one.key.T) for one in forms], k)

    def find_writes(self, features: Tensor, k: int) -> list[Edge]:
        """Find the largest writes of features (n, d_model): head, key, latent."""
        pairs = [(features @ one.value.T, self.ends @ one.out) for one in self.heads]
        return strongest(pairs, k)


def strongest(factors: Sequence[tuple[Tensor, Tensor]], k: int) -> list[Edge]:
    """Return the k largest products of any head, by falling size."""
    edges = list[Edge]()
    for head, (firsts, seconds) in enumerate(factors):
        pairs, values = largest_products([firsts], [seconds], k, absolute=True)
        rows = zip(pairs.tolist(), values.tolist(), strict=True)
        edges += [(head, first, second, value) for (first, second), value in rows]
    return sorted(edges, key=lambda edge: -abs(edge[-1]))[:k]


def heads_of_edges(layer: TracedLayer, distance: int) -> tuple[AttentionHead, ...]:
    """Read the heads before the MLP; refuse a distance at which they see nothing."""
    heads = read_heads(layer.loaded, layer.index)
    heads[0].form(distance)
    return heads


@torch.no_grad()
def attention_edges(
    reader: LatentReader,
    attended: LoadedSAE | None,
    heads: tuple[AttentionHead, ...],
    latents: Sequence[int],
) -> AttentionEdges | None:
    """Return the strongest edges of the features that the heads before the MLP read.

    Cost: that of a search, once more for each random dictionary, and two short runs of the model.
    """
    if attended is None:
        return None
    module, blocks, options = reader.layer.module, reader.text.blocks, reader.options
    x = activations_of(module, blocks, (attended.hook,))[attended.hook].double()
    features, listed = attended.sae.decoder.double().cpu(), torch.tensor(latents)
    ends = reader.before.sae.encoder.double().cpu()[listed]
    search = EdgeSearch(heads, options.distance, ends)
    best_scores, best_writes = best_of_random(search, features, x.cpu(), reader)
    peaks, writes = peaks_of(attended, x, reader), list[WriteEdge]()
    scores = [
        ScoreEdge(
            head=head,
            query=query,
            query_peak=peaks(query),
            key=key,
            key_peak=peaks(key),
            score=short(score),
            p_value=chance_of(abs(score), best_scores),
        )
        for head, query, key, score in search.find_scores(features, options.top)
    ]
    for head, key, end, weight in search.find_writes(features, options.top):
        form = search.heads[head].form(search.distance)
        raised = (features @ form.query.T) @ (form.key @ features[key])
        query, score = int(raised.argmax()), float(raised.max())
        edge = WriteEdge(
            head=head,
            key=key,
            key_peak=peaks(key),
            latent=int(listed[end]),
            weight=short(weight),
            query=query,
            query_peak=peaks(query),
            score=short(score),
            p_value=chance_of(abs(weight), best_writes),
        )
        writes.append(edge)
    return AttentionEdges(
        hook=attended.hook,
        path=attended.loaded.source,
        weights_sha256=attended.loaded.weights_sha256,
        num_features=len(features),
        num_heads=len(search.heads),
        distance=options.distance,
        scores=tuple(scores),
        writes=tuple(writes),
        num_null=options.dictionaries,
        level=LEVEL,
        checked_against=search.heads[0].checked_against,
    )


def best_of_random(
    search: EdgeSearch, features: Tensor, x: Tensor, reader: LatentReader
) -> tuple[list[float], list[float]]:
    """Return the largest score and the largest write in each random dictionary."""
    scores, writes, options = list[float](), list[float](), reader.options
    generator = reader.generator  # a new one each time that it is asked for
    for index in range(options.dictionaries):
        options.progress("edges of random features", index, options.dictionaries)
        # all features together, as a random dictionary does, each as long as it was
        turned = features @ random_turn(x, generator)[1].T
        now = turned.norm(dim=1, keepdim=True).clamp(min=torch.finfo(turned.dtype).tiny)
        turned = turned * features.norm(dim=1, keepdim=True) / now
        scores.append(abs(search.find_scores(turned, 1)[0][-1]))
        writes.append(abs(search.find_writes(turned, 1)[0][-1]))
    return scores, writes


def peaks_of(side: LoadedSAE, x: Tensor, reader: LatentReader) -> Callable[[int], str | None]:
    """Return a function that names the token at which a feature is strongest."""
    activations = side.sae.encode(x.to(side.sae.decoder))
    tokens, values = reader.text.blocks[:, 1:].flatten(), activations.amax(dim=0)
    places = tokens[activations.argmax(dim=0)]

    def peak(feature: int) -> str | None:
        return reader.name(int(places[feature])) if values[feature] > 0 else None

    return peak
