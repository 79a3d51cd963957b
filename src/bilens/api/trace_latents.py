"""A layer read through the autoencoders around it: ranking, circuits and contrasts of latents."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.interactions.direct_interactions import direct_interactions
from bilens.api.trace_attention import attention_edges, heads_of_edges
from bilens.api.trace_records import (
    DRAWN_RANK,
    causal_reading,
    correlations,
    interaction_entries,
    numbers,
    rank_fits,
    ranked_latents,
    shorts,
    token_ends,
    traced_sae,
    traced_spectrum,
)
from bilens.base import Progress
from bilens.base.errors import UsageError
from bilens.findings.guarantees import finite
from bilens.interp.behaviour import (
    DIRECTIONS,
    Shares,
    Trial,
    contrast_change,
    eigen_change,
    trial_of_latents,
)
from bilens.interp.circuits import LowRankFit, find_circuit, low_rank_fit
from bilens.interp.contrasts import rank_contrasts
from bilens.interp.layer_trace import (
    LayerTrace,
    Ranking,
    cluster_latents,
    only,
    rank_latents,
    trace_layer,
)
from bilens.interp.random_dictionaries import LEVEL, chance_of
from bilens.interp.trace_options import TraceOptions
from bilens.interp.traced_layer import (
    LatentReader,
    LoadedSAE,
    TokensAtEnds,
    TracedLayer,
    TracedText,
    eigenvector_tokens,
    output_tokens,
    read_text,
)
from bilens.records import mlp_trace as records
from bilens.records.common import TextOrigin
from bilens.train.activations import measure_sae

THRESHOLD = 0.5  # cosine above which output latents are grouped
LISTED_TOKENS = 8  # at each end of a direction
SHOWN_EIGENVECTORS = 2  # with their nearest latents and tokens
LEAST_ACTIVE = 10  # tokens at which an output latent is active, to be drawn without being named
DRAWN_POINTS = 400  # of the latent against its approximation
LEAST_COMPARED = 50  # tokens at which an output latent is active, to be compared with others
CONTRAST_BUDGET = 6_000_000_000  # operations of each dictionary: pairs of latents · d_model³
LISTED_CONTRASTS, CHECKED_CONTRASTS = 15, 2


def latent_findings(
    layer: TracedLayer,
    saes: tuple[LoadedSAE, LoadedSAE],
    text: TracedText,
    options: TraceOptions,
    attended: LoadedSAE | None = None,
) -> dict[str, Any]:
    """Trace the latents of a layer; return the fields of a `records.Trace` that are about them."""
    (before, behind), progress = saes, options.progress
    options.check_latents(behind.hook, behind.sae.num_latents)
    heads = () if attended is None else heads_of_edges(layer, options.distance)
    measured = measured_autoencoders(layer, saes, text, progress)
    reader = read_text(layer, before, behind, text, options)
    generator = reader.generator  # of the random dictionaries, one after the other
    progress("eigenvectors", 0, 1)
    most = min(options.pairs, layer.module.config.d_model)
    trace = trace_layer(reader.g, reader.dictionary, k=most)
    progress("agreement on text", 0, 1)
    fit = low_rank_fit(
        reader.g, trace.eigenpairs, reader.inputs, reader.activations > 0, reader.generator
    )
    ranking = rank_latents(reader.g, trace.eigenpairs, reader.inputs)
    clusters = cluster_latents(reader.g, threshold=THRESHOLD)
    chosen = chosen_latents(reader, ranking, fit)
    most = max(2, math.isqrt(2 * CONTRAST_BUDGET // reader.g.sizes.d_in**3))  # of wide layers
    compared = sorted(active_latents(ranking, fit, LEAST_COMPARED)[:most])
    null = chances_in_random_dictionaries(reader, generator, chosen, compared)
    circuits = []
    for index, latent in enumerate(chosen):
        progress("circuits", index, len(chosen))
        circuits.append(circuit_of(reader, trace, fit, ranking, latent, null))
    progress("circuits", len(chosen), len(chosen))
    progress("contrasts", 0, 1)
    contrasts = contrasts_of(reader, compared, null)
    named = sorted({feature for circuit in circuits for feature in circuit.features})
    return {
        "saes": tuple(measured),
        "ranking": ranked_latents(
            ranking, trace, fit, clusters, reader, [one.scores for one in null]
        ),
        "num_outputs": behind.sae.num_latents,
        "clusters": tuple(group for group in clusters.members if len(group) > 1),
        "cluster_threshold": THRESHOLD,
        "contrasts": contrasts,
        "correlations": correlations(fit),
        "circuits": tuple(circuits),
        "input_latents": tuple(input_latent(reader, latent) for latent in named),
        "data": TextOrigin(text.name, text.source, text.blocks.numel(), text.sha256),
        "readings": (),
        "attention_edges": attention_edges(reader, attended, heads, named),
        "null": describe_chances(null),
    }


def measured_autoencoders(
    layer: TracedLayer, saes: tuple[LoadedSAE, LoadedSAE], text: TracedText, progress: Progress
) -> list[records.TracedSAE]:
    """Return the autoencoders with what each does to the model on the text."""
    found = []
    for index, side in enumerate(saes):
        progress("measuring autoencoders", index, len(saes))
        metrics = measure_sae(layer.module, side.stored, side.hook, text.blocks, side.reads)
        found.append(traced_sae(side, metrics))
    return found


@dataclass(frozen=True, eq=False)
class Chance:
    """The scores and shares of a random dictionary, found by the steps of a trace."""

    scores: Tensor  # of all of its latents, falling
    shares: dict[int, Shares]  # of the causal checks of the latents that are drawn
    contrasts: list[float]  # the largest scores of pairs
    contrast_shares: list[Shares]  # of the causal checks of the first pairs


def chance_in(reader: LatentReader, chosen: list[int], compared: list[int]) -> Chance:
    """Rank and check the latents of a random dictionary as those of the trained one."""
    ends = eigendecompose_all(reader.g, k=min(2, reader.g.sizes.d_in), which="both")
    scores = rank_latents(reader.g, ends, reader.inputs).score
    shares, pair_shares = {}, []
    for latent in chosen:
        pairs = eigendecompose_all(reader.g, unit(reader.g.sizes.d_out, latent)[None], DIRECTIONS)
        trial = latent_trial(reader, latent, pairs[0])
        shares[latent] = {} if trial is None else trial.shares()
    ranked = ranked_contrasts(reader, compared)
    for _, pair in ranked[:CHECKED_CONTRASTS]:
        trial = contrast_trial(reader, pair)
        pair_shares.append({} if trial is None else trial.shares())
    return Chance(
        scores.sort(descending=True).values, shares, [one[0][0] for one in ranked], pair_shares
    )


def describe_chances(null: list[Chance]) -> records.RandomDictionaries:
    """Describe the best that each random dictionary reaches."""
    scores = tuple(float(one.scores[0]) for one in null)
    contrasts = tuple(one.contrasts[0] for one in null if one.contrasts)
    return records.RandomDictionaries(len(null), LEVEL, scores, contrasts)


def chances_in_random_dictionaries(
    reader: LatentReader, generator: torch.Generator, chosen: list[int], compared: list[int]
) -> list[Chance]:
    """Return scores and shares of each random dictionary, drawn one after the other."""
    found, options = [], reader.options
    for index in range(options.dictionaries):
        options.progress("random dictionaries", index, options.dictionaries)
        found.append(chance_in(reader.turned(generator), chosen, compared))
    return found


def chosen_latents(reader: LatentReader, ranking: Ranking, fit: LowRankFit) -> list[int]:
    """Return the output latents to draw: those that were named, or the first active ones."""
    options = reader.options
    if options.latents is not None:
        return list(dict.fromkeys(options.latents))
    alive = active_latents(ranking, fit, LEAST_ACTIVE)
    if not alive:
        raise UsageError(
            f"no output latent is active at {LEAST_ACTIVE} of {len(reader.inputs)} tokens: read "
            "more tokens, or name latents."
        )
    return alive[: options.outputs]


def active_latents(ranking: Ranking, fit: LowRankFit, least: int) -> list[int]:
    return [one for one in ranking.order.tolist() if int(fit.num_active[one]) >= least]


def circuit_of(
    reader: LatentReader,
    trace: LayerTrace,
    fit: LowRankFit,
    ranking: Ranking,
    latent: int,
    null: list[Chance],
) -> records.Circuit:
    """Return one output latent, the input latents that build it, and whether it is a cause."""
    pairs = trace.eigenpairs[latent]
    interactions = direct_interactions(
        reader.g,
        reader.dictionary,
        unit(reader.g.sizes.d_out, latent)[None],
        bias=reader.bias,
        top=reader.options.top,
    )[0]
    found = find_circuit(
        reader.g,
        reader.dictionary,
        latent,
        pairs,
        bias=reader.bias,
        num_features=min(reader.options.features, reader.before.sae.num_latents),
        activations=reader.z,
    )
    vocabulary = reader.layer.vocabulary
    tokens = token_ends(promoted_tokens(reader, latent), reader.name)
    output = structs.replace(reader.contexts(latent, reader.activations), tokens=tokens)
    readings = eigenvector_tokens(pairs, vocabulary.embedding, LISTED_TOKENS)[:SHOWN_EIGENVECTORS]
    features: list[int] = found.features.tolist()
    trial = latent_trial(reader, latent, pairs)
    return records.Circuit(
        latent=latent,
        position=ranking.order.tolist().index(latent) + 1,
        output=output,
        spectrum=traced_spectrum(pairs, readings, trace.nearest, latent, reader.name),
        self_interactions=interaction_entries(
            interactions.self_interactions, float(interactions.self_share)
        ),
        cross_interactions=interaction_entries(
            interactions.cross_interactions, float(interactions.cross_share)
        ),
        features=tuple(features),
        matrix=tuple(map(numbers, found.matrix)),
        linear=numbers(found.linear),
        constant=found.constant,
        projections=tuple(map(numbers, found.projections)),
        share_of_norm=found.share_of_norm,
        share_of_variance=finite(found.share_of_variance),
        correlation=finite(found.correlation),
        num_active=int(fit.num_active[latent]),
        example=example(reader, output, features),
        fits=rank_fits(fit, latent),
        points=points(reader, trace, latent),
        causal=causal_reading(
            trial, reader.generator, [one.shares[latent] for one in null], reader.name
        ),
    )


def promoted_tokens(reader: LatentReader, latent: int) -> TokensAtEnds:
    unembedding = reader.layer.vocabulary.unembedding
    return output_tokens(reader.behind.decoder[latent], unembedding, LISTED_TOKENS)


def latent_trial(reader: LatentReader, latent: int, pairs: EigenDecomposition) -> Trial | None:
    """Return whether the leading eigenvectors of an output latent may cause what goes with it."""
    change = partial(eigen_change, pairs, reader.inputs)
    return trial_of_latents(reader, promoted_tokens(reader, latent), (latent, None), change)


def example(
    reader: LatentReader, output: records.LatentReading, features: list[int]
) -> tuple[float, ...]:
    """Return the input latents of a circuit at the strongest context of its output latent."""
    if not output.contexts:
        return ()
    first = output.contexts[0]
    length = reader.text.blocks.shape[1] - 1
    row = first.sequence * length + first.start + first.peak
    return shorts(reader.z[row, features])


def points(reader: LatentReader, trace: LayerTrace, latent: int) -> records.Points:
    """Return an output latent and its approximation at some tokens, half of them active ones."""
    pairs = trace.eigenpairs[latent]
    rank = min(DRAWN_RANK, len(pairs.eigenvalues))
    active = reader.activations[:, latent] > 0
    order = torch.randperm(len(active), generator=reader.generator).to(active.device)
    on, off = order[active[order]], order[~active[order]]
    half = DRAWN_POINTS // 2
    rows = torch.cat([on[:half], off[: DRAWN_POINTS - min(len(on), half)]])
    x = reader.inputs[rows]
    truth = reader.g.form(unit(reader.g.sizes.d_out, latent))(x)
    return records.Points(
        rank, shorts(truth), shorts(pairs.truncate(rank)(x)), tuple(active[rows].tolist())
    )


def unit(size: int, index: int) -> Tensor:
    vector = torch.zeros(size, dtype=torch.float64)
    vector[index] = 1.0
    return vector


def input_latent(reader: LatentReader, latent: int) -> records.LatentReading:
    embed = reader.layer.vocabulary.embedding
    found = output_tokens(reader.dictionary[:, latent], embed, LISTED_TOKENS)
    return structs.replace(reader.contexts(latent, reader.z), tokens=token_ends(found, reader.name))


def ranked_contrasts(
    reader: LatentReader, compared: list[int]
) -> list[tuple[tuple[float, float, float], tuple[int, int]]]:
    """Return score, nonlinear share and pair share of the first pairs of latents, and the pairs."""
    activations = reader.activations[:, compared]
    if int(((activations > 0).sum(dim=0) >= LEAST_COMPARED).sum()) < 2:
        return []
    g = only(reader.g, torch.tensor(compared))
    found = rank_contrasts(g, reader.inputs, activations, least_active=LEAST_COMPARED)
    columns = (found.score, found.nonlinear_share, found.pair_share, found.first, found.second)
    rows = zip(*(column[:LISTED_CONTRASTS].tolist() for column in columns), strict=True)
    return [(row[:3], (compared[row[3]], compared[row[4]])) for row in rows]


def contrasts_of(
    reader: LatentReader, compared: list[int], null: list[Chance]
) -> records.Contrasts:
    """Return the pairs of output latents whose difference is most nearly one product."""
    best = [one.contrasts[0] if one.contrasts else None for one in null]
    pairs = []
    for row, (shares, pair) in enumerate(ranked_contrasts(reader, compared)):
        causal = None
        if row < CHECKED_CONTRASTS:
            found = [shares for one in null for shares in one.contrast_shares[row : row + 1]]
            found += [{}] * (len(null) - len(found))
            trial = contrast_trial(reader, pair)
            causal = causal_reading(trial, reader.generator, found, reader.name)
        (first, second), (score, nonlinear, product) = pair, shares
        chance = chance_of(score, best)
        pairs.append(
            records.LatentContrast(first, second, score, nonlinear, product, causal, p_value=chance)
        )
    return records.Contrasts(len(compared), tuple(pairs))


def contrast_trial(reader: LatentReader, pair: tuple[int, int]) -> Trial | None:
    """Return whether the product that decides between two output latents may do so in logits."""
    where, data = partial(active, reader, pair), (reader.inputs, reader.activations)
    return trial_of_latents(
        reader, None, pair, partial(contrast_change, reader.g, pair, *data, where)
    )


def active(reader: LatentReader, latents: tuple[int, ...], x: Tensor) -> Tensor:
    """Return which inputs of the MLP activate one of some output latents."""
    with torch.no_grad():
        x = x.double()
        z = reader.behind.encode(x if reader.transcodes else reader.layer.f(x))
    return (z[..., list(latents)] > 0).any(dim=-1)
