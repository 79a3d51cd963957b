"""Edges of a trace through the attention before the MLP: features that meet, and what it writes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilens.api.attention_reading import read_heads
from bilens.interp.random_dictionaries import LEVEL, chance_of, random_turn
from bilens.interp.traced_layer import LatentReader, LoadedSAE, short
from bilens.polynomial.attention_head import AttentionHead
from bilens.polynomial.largest_products import largest_products
from bilens.records.attention_edges import AttentionEdges, ScoreEdge, WriteEdge
from bilens.train.activations import activations_of

Edge = tuple[int, int, int, float]  # head, two numbers of features or latents, and its strength


@torch.no_grad()
def attention_edges(
    reader: LatentReader, attended: LoadedSAE | None, latents: Sequence[int]
) -> AttentionEdges | None:
    """Return the strongest edges of features that the attention before the MLP reads.

    Math: with d the decoder's directions and e the encoder's of an input latent, a score is
        d_mᵀ M_h d_n, M_h the form of head h at a distance, and a write is e · W_O W_V d_n: both for
        streams of root mean square 1, by which the norms divide.
    Cost: O(heads · features² · d_head) for all pairs, and as much for each random dictionary.
    """
    if attended is None:
        return None
    layer, options = reader.layer, reader.options
    heads = read_heads(layer.module, layer.index)
    x = activations_of(layer.module, reader.text.blocks, (attended.hook,))[attended.hook].double()
    features, encoder = attended.sae.decoder.double().cpu(), reader.before.sae.encoder
    listed = torch.tensor(latents, dtype=torch.int64)
    ends = encoder.double().cpu()[listed]

    def scores(rows: Tensor, k: int) -> list[Edge]:
        forms = (head.form(options.distance) for head in heads)
        return strongest([(rows @ one.query.T, rows @ one.key.T) for one in forms], k)

    def writes(rows: Tensor, k: int) -> list[Edge]:
        return strongest([(rows @ one.value.T, ends @ one.out) for one in heads], k)

    generator, best = reader.generator, list[tuple[float, float]]()
    for index in range(options.dictionaries):
        options.progress("edges of random features", index, options.dictionaries)
        turned = turned_features(features, x.cpu(), generator)
        best.append((abs(scores(turned, 1)[0][-1]), abs(writes(turned, 1)[0][-1])))
    peaks = peaks_of(attended, x, reader)
    found = []
    for head, query, key, score in scores(features, options.top):
        chance = chance_of(abs(score), [one for one, _ in best])
        edge = (head, query, peaks(query), key, peaks(key), short(score), chance)
        found.append(ScoreEdge(*edge))
    written = []
    for head, key, end, weight in writes(features, options.top):
        query, score = best_query(heads[head], features, key, options.distance)
        chance = chance_of(abs(weight), [one for _, one in best])
        latent, known = int(listed[end]), (query, peaks(query), short(score), chance)
        written.append(WriteEdge(head, key, peaks(key), latent, short(weight), *known))
    return AttentionEdges(
        hook=attended.hook,
        path=attended.loaded.source,
        weights_sha256=attended.loaded.weights_sha256,
        num_features=len(features),
        num_heads=len(heads),
        distance=options.distance,
        scores=tuple(found),
        writes=tuple(written),
        num_null=len(best),
        level=LEVEL,
        checked_against=heads[0].checked_against,
    )


def turned_features(features: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn all features together, as a random dictionary does, each as long as it was."""
    turned = features @ random_turn(x, generator)[1].T
    now = turned.norm(dim=1, keepdim=True).clamp(min=torch.finfo(turned.dtype).tiny)
    return turned * features.norm(dim=1, keepdim=True) / now


def strongest(factors: Sequence[tuple[Tensor, Tensor]], k: int) -> list[Edge]:
    """Return the k largest products of any head, by falling size."""
    edges = list[Edge]()
    for head, (firsts, seconds) in enumerate(factors):
        pairs, values = largest_products([firsts], [seconds], k, absolute=True)
        rows = zip(pairs.tolist(), values.tolist(), strict=True)
        edges += [(head, first, second, value) for (first, second), value in rows]
    return sorted(edges, key=lambda edge: -abs(edge[-1]))[:k]


def best_query(head: AttentionHead, features: Tensor, key: int, distance: int) -> tuple[int, float]:
    """Return the feature whose presence at the query raises the score of a key feature most."""
    form = head.form(distance)
    scores = (features @ form.query.T) @ (form.key @ features[key])
    return int(scores.argmax()), float(scores.max())


def peaks_of(side: LoadedSAE, x: Tensor, reader: LatentReader) -> Callable[[int], str | None]:
    """Return a function that names the token at which a feature is strongest."""
    activations = side.sae.encode(x.to(side.sae.decoder))
    tokens, values = reader.text.blocks[:, 1:].flatten(), activations.amax(dim=0)
    places = tokens[activations.argmax(dim=0)]

    def peak(feature: int) -> str | None:
        return reader.name(int(places[feature])) if values[feature] > 0 else None

    return peak
