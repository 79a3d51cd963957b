"""A layer read through the autoencoders around it: what is found, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.direct.direct_interactions import direct_interactions
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count, check_memory
from bilens.errors import UsageError
from bilens.findings.subject import Progress
from bilens.interp.circuits import find_circuit
from bilens.interp.clusters import cluster_latents
from bilens.interp.contexts import top_contexts
from bilens.interp.contrasts import rank_contrasts
from bilens.interp.latent_map import latent_map
from bilens.interp.low_rank import low_rank_fit
from bilens.interp.ranking import rank_latents
from bilens.interp.records import (
    Circuit,
    Clusters,
    LayerTrace,
    LowRankFit,
    Ranking,
    TokenEffect,
)
from bilens.interp.token_reading import eigenvector_tokens, output_tokens
from bilens.interp.tracer import only, trace_layer
from bilens.train.activations import activations_of
from bilens.train.sae.metrics import measure_sae
from bilens.workflows.trace_causal import (
    LEAST_PLACES,
    MOST_BLOCKS,
    Behaviour,
    Change,
    causal_values,
    contrast_change,
    eigen_change,
    places,
    separating_tokens,
)
from bilens.workflows.trace_subject import TracedLayer, TracedSAE, TracedText
from bilens.workflows.trace_values import (
    SHOWN_EIGENVECTORS,
    cluster_values,
    correlation_values,
    ends,
    entry_values,
    fit_values,
    known,
    latent_values,
    short,
    spectrum_values,
)

LISTED_TOKENS = 8  # at each end of a direction
COMPARED_TOKENS = 3  # at each end, whose logits a causal check compares
CONTEXTS = 6  # of each latent
DRAWN_POINTS = 400  # of the latent against its approximation
DRAWN_RANK = 2  # eigenpairs of that approximation, the paper's choice
THRESHOLD = 0.5  # cosine above which output latents are grouped
LEAST_COMPARED = 50  # tokens at which an output latent is active, to be compared with others
CONTRAST_BUDGET = 30_000_000_000  # operations: pairs of latents · d_model³
LISTED_CONTRASTS, CHECKED_CONTRASTS = 15, 2
LEAST_ACTIVE = 10  # tokens at which an output latent is active, to be drawn without being named


@dataclass(frozen=True)
class LatentWishes:
    """What is to be drawn.

    Attributes:
        latents: output latents; None for the first of the ranking.
        outputs: how many of these.
        pairs: eigenpairs of each form.
        features: input latents of a circuit.
        top: interactions that are listed of each kind.
        seed: of random directions.
    """

    latents: tuple[int, ...] | None
    outputs: int
    pairs: int
    features: int
    top: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("outputs", "pairs", "features", "top"):
            check_count(name, getattr(self, name), minimum=1)
        check_count("seed", self.seed, minimum=0)


@dataclass(frozen=True, eq=False)
class LatentReader:
    """The layer, its autoencoders and what they do on text.

    Attributes:
        layer: the layer.
        before: the autoencoder at mlp_in.
        behind: the autoencoder at mlp_out.
        text: the text that was read.
        inputs: (n, d_model) float64, what the MLP read, without each first token.
        z: (n, input latents), their activations.
        activations: (n, output latents), of what the MLP wrote.
        wishes: what is to be drawn.
    """

    layer: TracedLayer
    before: TracedSAE
    behind: TracedSAE
    text: TracedText
    inputs: Tensor
    z: Tensor
    activations: Tensor
    wishes: LatentWishes

    @cached_property
    def g(self) -> QuadraticMap:
        """The pre-activations of the output latents."""
        return latent_map(self.layer.f, self.behind.sae.encoder, self.behind.sae.offset)

    @cached_property
    def dictionary(self) -> Tensor:
        """(d_model, input latents)."""
        return self.before.sae.decoder.detach().T

    @property
    def bias(self) -> Tensor:
        """(d_model,), what the MLP reads where no input latent is active."""
        return self.before.sae.decoder_bias.detach()

    @property
    def generator(self) -> torch.Generator:
        """Draws random directions, the same ones each time."""
        return torch.Generator().manual_seed(self.wishes.seed)

    def name(self, token: int) -> str:
        """Return a token as text."""
        return self.layer.tokenizer.token(token)

    def latent(self, number: int, activations: Tensor, tokens: dict[str, Any]) -> dict[str, Any]:
        """Return where a latent is active, and its tokens."""
        blocks = self.text.blocks
        values = activations[:, number].view(len(blocks), -1)
        contexts = top_contexts(blocks[:, 1:], values, number, num=CONTEXTS)
        return latent_values(contexts, tokens, self.name)


def latent_findings(
    layer: TracedLayer,
    saes: tuple[TracedSAE, TracedSAE],
    text: TracedText,
    wishes: LatentWishes,
    progress: Progress,
) -> dict[str, Any]:
    """Return ranking, agreement, circuits and latents of a layer as JSON values.

    Raises:
        UsageError: If an output latent does not exist, or none is active.
        MemoryLimitError: If the work would not fit.
        NonFiniteError: If an activation is NaN or infinite.
    """
    before, behind = saes
    check_latents(wishes.latents, behind)
    metrics = []
    for place, side in enumerate(saes):
        progress("measuring autoencoders", place, len(saes))
        sae = side.loaded.module
        metrics.append(measure_sae(layer.module, sae, side.hook, text.blocks))  # type: ignore[arg-type]
    reader = read_text(layer, before, behind, text, wishes)
    trace = trace_layer(
        reader.g,
        reader.dictionary,
        bias=reader.bias,
        top=wishes.top,
        k=min(wishes.pairs, layer.module.config.d_model),
        progress=lambda done, total: progress("interactions", done, total),
    )
    progress("agreement on text", 0, 1)
    fit = low_rank_fit(
        reader.g,
        trace.eigenpairs,
        reader.inputs,
        reader.activations > 0,
        reader.generator,
    )
    ranking = rank_latents(trace, reader.inputs)
    clusters = cluster_latents(reader.g, threshold=THRESHOLD)
    chosen = chosen_latents(wishes, ranking, fit, reader)
    circuits = []
    for place, latent in enumerate(chosen):
        progress("circuits", place, len(chosen))
        circuits.append(circuit_values(reader, trace, fit, ranking, latent))
    progress("circuits", len(chosen), len(chosen))
    progress("contrasts", 0, 1)
    contrasts = contrast_values(reader, ranking, fit)
    named = sorted({feature for circuit in circuits for feature in circuit["features"]})
    return {
        "saes": [
            {
                "hook": side.hook,
                "path": side.loaded.source,
                "weights_sha256": side.loaded.weights_sha256,
                "num_latents": side.sae.num_latents,
                "k": side.sae.k,
                "sign": side.sae.sign,
                "metrics": found.to_dict(),
            }
            for side, found in zip(saes, metrics, strict=True)
        ],
        "ranking": ranking_values(ranking, trace, fit, clusters, reader),
        "num_outputs": behind.sae.num_latents,
        "clusters": cluster_values(clusters),
        "cluster_threshold": THRESHOLD,
        "contrasts": contrasts,
        "correlations": correlation_values(fit),
        "circuits": circuits,
        "input_latents": [input_latent_values(reader, latent) for latent in named],
        "readings": [],
        "data": {
            "name": text.name,
            "source": text.source,
            "num_tokens": text.blocks.numel(),
            "sha256": text.sha256,
        },
    }


def check_latents(latents: Sequence[int] | None, behind: TracedSAE) -> None:
    """Refuse output latents that do not exist, and a list of none."""
    if latents is not None and not latents:
        raise UsageError(
            "latents is empty: name one, or leave it out for the first of the ranking."
        )
    for latent in latents or ():
        if not 0 <= latent < behind.sae.num_latents:
            raise UsageError(
                f"latent {latent} does not exist: the autoencoder at {behind.hook} has "
                f"{behind.sae.num_latents}, counted from 0."
            )


def read_text(
    layer: TracedLayer,
    before: TracedSAE,
    behind: TracedSAE,
    text: TracedText,
    wishes: LatentWishes,
) -> LatentReader:
    """Return what model and autoencoders do on text, without the first token of each block.

    Raises:
        MemoryLimitError: If the activations would not fit.
        NonFiniteError: If one is NaN or infinite.
    """
    rows = text.blocks.numel() - len(text.blocks)
    latents = before.sae.num_latents + behind.sae.num_latents
    check_memory(
        8 * 2 * rows * (latents + 2 * layer.module.config.d_model),
        f"the activations of {latents} latents at {rows} tokens",
        "read fewer tokens",
    )
    found = activations_of(layer.module, text.blocks, (before.hook, behind.hook))
    with torch.no_grad():
        inputs = found[before.hook].double()
        z = before.sae.encode(inputs)
        activations = behind.sae.encode(found[behind.hook].double())
    return LatentReader(layer, before, behind, text, inputs, z, activations, wishes)


def chosen_latents(
    wishes: LatentWishes, ranking: Ranking, fit: LowRankFit, reader: LatentReader
) -> list[int]:
    """Return the output latents to draw: those that were named, or the first active ones.

    Raises:
        UsageError: If none is active on the text.
    """
    if wishes.latents is not None:
        return list(dict.fromkeys(wishes.latents))
    order = [int(ranking.latents[place]) for place in ranking.order]
    alive = [latent for latent in order if int(fit.num_active[latent]) >= LEAST_ACTIVE]
    if not alive:
        raise UsageError(
            f"no output latent is active at {LEAST_ACTIVE} of {len(reader.inputs)} tokens: read "
            "more tokens, or name latents."
        )
    return alive[: wishes.outputs]


def circuit_values(
    reader: LatentReader, trace: LayerTrace, fit: LowRankFit, ranking: Ranking, latent: int
) -> dict[str, Any]:
    """Return the circuit of one output latent."""
    pairs = trace.eigenpairs[latent]
    interactions = direct_interactions(
        reader.g,
        reader.dictionary,
        unit(reader.g.sizes.d_out, latent)[None],
        bias=reader.bias,
        top=reader.wishes.top,
    )[0]
    embed = reader.layer.module.embed.weight.detach()
    unembed = reader.layer.module.unembed.weight.detach()
    circuit: Circuit = find_circuit(
        reader.g,
        reader.dictionary,
        latent,
        pairs,
        bias=reader.bias,
        num_features=min(reader.wishes.features, reader.before.sae.num_latents),
        activations=reader.z,
    )
    effect = output_tokens(reader.behind.sae.decoder[latent], unembed, LISTED_TOKENS)
    tokens = ends(effect.promoted, effect.suppressed, reader.name)
    output = reader.latent(latent, reader.activations, tokens)
    readings = eigenvector_tokens(pairs, embed, LISTED_TOKENS)[:SHOWN_EIGENVECTORS]
    features: list[int] = circuit.features.tolist()
    return {
        "latent": latent,
        "place": ranking.order.tolist().index(latent) + 1,
        "output": output,
        "spectrum": spectrum_values(pairs, readings, trace.nearest, latent, reader.name),
        "self": entry_values(interactions.self_interactions, float(interactions.self_share)),
        "cross": entry_values(interactions.cross_interactions, float(interactions.cross_share)),
        "features": features,
        "matrix": circuit.matrix.tolist(),
        "linear": circuit.linear.tolist(),
        "constant": circuit.constant,
        "projections": circuit.projections.tolist(),
        "share_of_norm": circuit.share_of_norm,
        "share_of_variance": known(circuit.share_of_variance),
        "correlation": known(circuit.correlation),
        "num_active": int(fit.num_active[latent]),
        "example": example(reader, output, features),
        "fits": fit_values(fit, latent),
        "points": points(reader, trace, latent),
        "causal": causal_findings(
            reader,
            effect,
            (latent, None),
            lambda generator: eigen_change(pairs, reader.inputs, generator),
        ),
    }


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
    other = None if second is None else second.view(-1, length)
    on, off = places(first.view(-1, length), other, generator)
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


def contrast_values(reader: LatentReader, ranking: Ranking, fit: LowRankFit) -> dict[str, Any]:
    """Return the pairs of output latents whose difference is most nearly one product.

    Of many latents the first of the ranking are compared, as many as the budget allows.
    """
    width = reader.g.sizes.d_in
    most = max(2, math.isqrt(2 * CONTRAST_BUDGET // width**3))
    order = [int(ranking.latents[place]) for place in ranking.order]
    alive = [latent for latent in order if int(fit.num_active[latent]) >= LEAST_COMPARED]
    chosen = sorted(alive[:most])
    if len(chosen) < 2:
        return {"num_compared": len(chosen), "pairs": []}
    found = rank_contrasts(
        only(reader.g, torch.tensor(chosen)),
        reader.inputs,
        reader.activations[:, chosen],
        least_active=LEAST_COMPARED,
    )
    pairs = []
    for row in range(min(LISTED_CONTRASTS, len(found.score))):
        pair = chosen[int(found.first[row])], chosen[int(found.second[row])]
        pairs.append(
            {
                "first": pair[0],
                "second": pair[1],
                "score": float(found.score[row]),
                "nonlinear_share": float(found.nonlinear_share[row]),
                "pair_share": float(found.pair_share[row]),
                "causal": contrast_check(reader, pair) if row < CHECKED_CONTRASTS else None,
            }
        )
    return {"num_compared": len(chosen), "pairs": pairs}


def contrast_check(reader: LatentReader, pair: tuple[int, int]) -> dict[str, Any]:
    """Return whether the product that decides between two output latents does so in the logits."""

    def active(x: Tensor) -> Tensor:
        z = reader.behind.sae.encode(reader.layer.f(x.double()))
        return (z[..., list(pair)] > 0).any(dim=-1)

    def change(generator: torch.Generator) -> Change:
        read = (reader.inputs, reader.activations)
        return contrast_change(reader.g, pair, *read, active, generator)

    return causal_findings(reader, None, pair, change)


def example(reader: LatentReader, output: dict[str, Any], features: list[int]) -> list[float]:
    """Return the input latents of a circuit at the strongest context of its output latent."""
    if not output["contexts"]:
        return []
    first = output["contexts"][0]
    length = reader.text.blocks.shape[1] - 1
    row = first["sequence"] * length + first["start"] + first["peak"]
    return [short(value) for value in reader.z[row, features].tolist()]


def points(reader: LatentReader, trace: LayerTrace, latent: int) -> dict[str, Any]:
    """Return an output latent and its approximation at some tokens, half of them active ones."""
    pairs = trace.eigenpairs[latent]
    rank = min(DRAWN_RANK, len(pairs.eigenvalues))
    active = reader.activations[:, latent] > 0
    order = torch.randperm(len(active), generator=reader.generator)
    on, off = order[active[order]], order[~active[order]]
    half = DRAWN_POINTS // 2
    rows = torch.cat([on[:half], off[: DRAWN_POINTS - min(len(on), half)]])
    x = reader.inputs[rows]
    truth = reader.g.form(unit(reader.g.sizes.d_out, latent))(x)
    return {
        "rank": rank,
        "truth": [short(value) for value in truth.tolist()],
        "approximation": [short(value) for value in pairs.truncate(rank)(x).tolist()],
        "active": active[rows].tolist(),
    }


def unit(size: int, place: int) -> Tensor:
    """Return the vector that is 1 at one place."""
    vector = torch.zeros(size, dtype=torch.float64)
    vector[place] = 1.0
    return vector


def input_latent_values(reader: LatentReader, latent: int) -> dict[str, Any]:
    """Return one input latent; its tokens are those whose embeddings it resembles."""
    embed = reader.layer.module.embed.weight.detach()
    found = output_tokens(reader.dictionary[:, latent], embed, LISTED_TOKENS)
    return reader.latent(latent, reader.z, ends(found.promoted, found.suppressed, reader.name))


def ranking_values(
    ranking: Ranking, trace: LayerTrace, fit: LowRankFit, clusters: Clusters, reader: LatentReader
) -> list[dict[str, Any]]:
    """Return all output latents by falling score."""
    values = trace.eigenpairs.eigenvalues
    rank = torch.arange(values.shape[1]) < DRAWN_RANK
    norm = trace.eigenpairs.norm.clamp(min=torch.finfo(torch.float64).tiny)
    two = (values[:, rank] / norm[:, None]).square().sum(dim=1)
    column = int((fit.ranks - DRAWN_RANK).abs().argmin())
    density = (reader.activations > 0).double().mean(dim=0)
    peaks = reader.text.blocks[:, 1:].flatten()[reader.activations.argmax(dim=0)]
    return [
        {
            "latent": int(ranking.latents[row]),
            "score": float(ranking.score[row]),
            "pair_share": float(ranking.pair_share[row]),
            "sign_contrast": float(ranking.sign_contrast[row]),
            "interaction_share": float(ranking.interaction_share[row]),
            "positive": short(float(values[row].max().clamp(min=0))),
            "negative": short(float(values[row].min().clamp(max=0))),
            "explained_by_two": short(float(two[row])),
            "correlation_active": known(float(fit.correlation_active[row, column])),
            "density": float(density[row]),
            "peak": reader.name(int(peaks[row])) if density[row] > 0 else None,
            "cluster": int(clusters.labels[row]),
        }
        for row in ranking.order.tolist()
    ]
