"""Converts what tracing finds to records: tensors to numbers, token ids to texts."""

from collections.abc import Callable, Sequence

import torch
from msgspec.structs import fields
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.interactions.record import MULTIPLICITY, Interactions
from bilens.findings.guarantees import finite
from bilens.interp.behaviour import Shares, Trial
from bilens.interp.circuits import LowRankFit
from bilens.interp.layer_trace import Clusters, LayerTrace, NearestLatents, Ranking
from bilens.interp.random_dictionaries import chance_of
from bilens.interp.traced_layer import LatentReader, LoadedSAE, TokensAtEnds, short
from bilens.nn.topk_sae import TopKSAE
from bilens.records import mlp_trace as records
from bilens.train.activations import OF_RECORD, HookMetrics

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 40  # of the distribution of correlations, from -1 to 1
DRAWN_RANK = 2  # eigenpairs of an approximation, the paper's choice

Naming = Callable[[int], str]  # a token by its id


def numbers(tensor: Tensor) -> tuple[float, ...]:
    return tuple(tensor.tolist())


def shorts(tensor: Tensor) -> tuple[float, ...]:
    """Round a vector to numbers that a document holds."""
    return tuple(map(short, tensor.tolist()))


def token_ends(found: TokensAtEnds, name: Naming) -> records.TokenEnds:
    """Return tokens with their texts."""
    high, low = (
        tuple(records.TokenValue(one.token, name(one.token), short(one.value)) for one in scores)
        for scores in (found.high, found.low)
    )
    return records.TokenEnds(high, low)


def causal_reading(
    trial: Trial | None,
    generator: torch.Generator,
    null: Sequence[Shares],
    name: Naming,
    create: bool = True,
) -> records.CausalReading:
    """Return the checks of a trial beside the shares of random dictionaries."""
    checks = () if trial is None else trial.checks(generator, null, create)
    if trial is None or not checks:
        return records.CausalReading(None, ())
    high, low = (tuple(map(name, end)) for end in (trial.behaviour.high, trial.behaviour.low))
    return records.CausalReading(records.Behaviour(high, low), checks)


def traced_spectrum(
    pairs: EigenDecomposition,
    readings: Sequence[TokensAtEnds],
    nearest: NearestLatents | None,
    row: int,
    name: Naming,
) -> records.TracedSpectrum:
    def near(index: int) -> tuple[records.NearLatent, ...]:
        if nearest is None:
            return ()
        parts = (nearest.latents, nearest.cosines, nearest.projections)
        rows = zip(*(part[row, index].tolist() for part in parts), strict=True)
        return tuple(
            records.NearLatent(latent, short(cosine), short(projection))
            for latent, cosine, projection in rows
        )

    values = numbers(pairs.eigenvalues)
    return records.TracedSpectrum(
        eigenvalues=values,
        num_eigenvalues=pairs.eigenvectors.shape[-1],
        norm=float(pairs.norm),
        explained=float(pairs.explained),
        rounding_bound=float(pairs.rounding_bound),
        complete=bool(pairs.complete),
        eigenvectors=tuple(
            records.ReadEigenvector(value, near(index), token_ends(reading, name))
            for index, (value, reading) in enumerate(zip(values, readings, strict=False))
        ),
    )


def interaction_entries(found: Interactions, share: float) -> records.InteractionEntries:
    """Return the largest interactions of one kind for one output, and the distribution of all."""
    histogram, moments = found.histogram, found.moments
    times = MULTIPLICITY[found.kind]
    columns = (part.tolist() for part in (found.first, found.second, found.values))
    return records.InteractionEntries(
        entries=tuple(
            records.InteractionEntry(first, second, value, times * value)
            for first, second, value in zip(*columns, strict=True)
        ),
        count=int(moments.count),
        mean=float(moments.mean),
        standard_deviation=float(moments.std),
        listed_share=share,
        edges=shorts(histogram.edges),
        counts=tuple(histogram.counts.tolist()),
        below=int(histogram.below),
        above=int(histogram.above),
    )


def rank_fits(fit: LowRankFit, row: int) -> tuple[records.RankFit, ...]:
    """Return how well k eigenpairs predict one output latent, for each k."""
    names = [field.name for field in fields(records.RankFit) if field.name != "rank"]
    columns = {name: getattr(fit, name)[row].tolist() for name in names}
    return tuple(
        records.RankFit(rank, **{name: finite(column[index]) for name, column in columns.items()})
        for index, rank in enumerate(fit.ranks.tolist())
    )


def correlations(fit: LowRankFit) -> records.Correlations:
    """Return the distribution over output latents of the correlations, for each k."""
    edges = torch.linspace(-1.0, 1.0, BINS + 1, dtype=torch.float64)
    return records.Correlations(
        num_latents=len(fit.num_active),
        num_latents_active=int((~fit.correlation_active[:, 0].isnan()).sum()),
        num_random=fit.num_random,
        edges=numbers(edges),
        ranks=tuple(
            records.RankCorrelations(
                rank=rank,
                all=distribution(fit.correlation[:, index], edges),
                active=distribution(fit.correlation_active[:, index], edges),
                null=distribution(fit.null_correlation[:, index], edges),
                null_active=distribution(fit.null_correlation_active[:, index], edges),
            )
            for index, rank in enumerate(fit.ranks.tolist())
        ),
    )


def distribution(values: Tensor, edges: Tensor) -> records.Distribution:
    """Return quantiles and a histogram of the values that are numbers."""
    found = values[~values.isnan()].double().cpu().clamp(float(edges[0]), float(edges[-1]))
    if len(found) == 0:
        return records.Distribution((), (), (0,) * (len(edges) - 1))
    quantiles = found.quantile(torch.tensor(LEVELS, dtype=torch.float64))
    counts = torch.histogram(found, edges).hist
    return records.Distribution(LEVELS, numbers(quantiles), tuple(map(int, counts.tolist())))


def ranked_latents(
    ranking: Ranking,
    trace: LayerTrace,
    fit: LowRankFit,
    clusters: Clusters,
    reader: LatentReader,
    null: Sequence[Tensor],
) -> tuple[records.RankedLatent, ...]:
    """Return the rows of the ranking; `null` are the falling scores of each random dictionary."""
    best = [float(scores[0]) for scores in null]
    by_chance = torch.stack(list(null)).median(dim=0).values.tolist()
    values = trace.eigenpairs.eigenvalues
    rank = torch.arange(values.shape[1]) < DRAWN_RANK
    norm = trace.eigenpairs.norm.clamp(min=torch.finfo(torch.float64).tiny)
    two = (values[:, rank] / norm[:, None]).square().sum(dim=1)
    column = int((fit.ranks - DRAWN_RANK).abs().argmin())
    density = (reader.activations > 0).double().mean(dim=0)
    peaks = reader.text.blocks[:, 1:].flatten()[reader.activations.argmax(dim=0)]
    return tuple(
        records.RankedLatent(
            latent=row,
            score=float(ranking.score[row]),
            pair_share=float(ranking.pair_share[row]),
            sign_contrast=float(ranking.sign_contrast[row]),
            interaction_share=float(ranking.interaction_share[row]),
            positive=short(float(ranking.positive[row])),
            negative=short(float(ranking.negative[row])),
            explained_by_two=short(float(two[row])),
            correlation_active=finite(float(fit.correlation_active[row, column])),
            density=float(density[row]),
            peak=reader.name(int(peaks[row])) if density[row] > 0 else None,
            cluster=int(clusters.labels[row]),
            null_score=short(by_chance[position]),
            p_value=chance_of(float(ranking.score[row]), best),
        )
        for position, row in enumerate(ranking.order.tolist())
    )


def traced_sae(side: LoadedSAE, found: HookMetrics) -> records.TracedSAE:
    values = {name: getattr(found, name) for name in OF_RECORD}
    return records.TracedSAE(
        side.hook,
        side.loaded.source,
        side.loaded.weights_sha256,
        side.sae.num_latents,
        side.sae.k if isinstance(side.sae, TopKSAE) else None,
        side.sae.sign if isinstance(side.sae, TopKSAE) else "threshold",
        records.SAEMetrics(**values),
        side.reads,
    )
