"""The page of a trace: the layer, its autoencoders, ranking, agreement and contrasts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from markupsafe import Markup

from bilens.records.common import Interval
from bilens.records.mlp_trace import (
    Behaviour,
    CausalCheck,
    CausalReading,
    Correlations,
    Distribution,
    LatentContrast,
    RankCorrelations,
    RankedLatent,
    Trace,
    TracedSAE,
)
from bilens.report.charts.traces import KINDS, MEDIAN, by_rank, histogram, series
from bilens.report.markup import (
    Column,
    drawings,
    element,
    heading,
    heads,
    items,
    link,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.plot import key_list
from bilens.report.sections.overview import Page
from bilens.report.sections.trace_attention import attention
from bilens.report.sections.trace_circuits import (
    circuit_anchor,
    circuits,
    defined,
    features,
    readings,
)
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import (
    Catalogue,
    fixed,
    grouped,
    latent_name,
    percent,
    quantity,
    scientific,
    signed,
    token_name,
)

MOST_RANKED = 25  # rows; the document has them all
SHOWN_RANK = 2  # eigenvectors, the paper's choice
MOST_CLUSTERS, MOST_MEMBERS = 10, 20
LIMITS = ("exact", "norm", "direct", "selection", "meaning")
LATENT_LIMITS = ("sae", "measured", "causal")
Shown = Callable[[Any], str]
RANKED = "score null_score p_value pair_share sign_contrast interaction_share positive negative"


def trace_page(t: Catalogue, record: Trace) -> Page:
    limits = t.each("trace.limits", LIMITS)
    parts = [("layer", layer(t, record))]
    if record.correlations is None:
        parts.append(("readings", readings(t, record.readings)))
    else:
        limits[1:1] = t.each("trace.limits", LATENT_LIMITS)
        parts += [
            ("ranking", ranking(t, record)),
            ("agreement", agreement(t, record.correlations)),
            ("contrasts", contrasts(t, record)),
            ("circuits", circuits(t, record, lambda causal: causal_of(t, causal))),
            ("features", features(t, record)),
        ]
        if record.attention_edges is not None:
            parts.insert(-1, ("attention", attention(t, record.attention_edges)))
    return Page(
        keys="trace.page",
        title=f"{record.layer.name} · {record.source.path}",
        count=record.num_outputs,
        facts=trace_facts(t, record),
        parts=parts,
        limits=limits,
        styles=("trace.css",),
    )


def trace_facts(t: Catalogue, record: Trace) -> Iterator[tuple[str, str]]:
    model, data = record.model, record.data
    blocks = t("trace.facts.blocks_value", blocks=model.n_layer, heads=model.n_head)
    count = grouped(model.num_parameters)
    text = t("trace.facts.no_text")
    if data is not None:
        name, tokens = data.name or t("trace.facts.unnamed"), grouped(data.num_tokens)
        text = t("trace.facts.text_value", name=name, count=tokens)
    yield t("trace.facts.layer"), record.layer.name
    yield t("trace.facts.width"), grouped(model.d_model)
    yield t("facts.hidden"), grouped(model.d_hidden)
    yield t("trace.facts.blocks"), blocks
    yield t("trace.facts.vocabulary"), grouped(model.vocab_size)
    yield t("trace.facts.context"), grouped(model.n_ctx)
    yield t("facts.parameters"), t("facts.parameters_value", count=count, dtype=model.dtype)
    yield t("trace.facts.text"), text


def layer(t: Catalogue, record: Trace) -> Markup:
    """Return how far the map and the model's own MLP are apart, and the autoencoders around it."""
    found, parts = record.exactness, []
    error = t(
        "trace.layer.exact",
        error=scientific(found.largest_error),
        scale=quantity(found.scale),
        count=grouped(found.num_inputs),
    )
    if record.saes:
        breaks = Markup(".<wbr>")  # the name of a hook may break after each dot
        hooks = (Column(Markup("{}").format(breaks.join(x.hook.split(".")))) for x in record.saes)
        columns = heads(t("trace.layer.quantity"), *hooks)
        parts = [
            table(t, t("trace.layer.caption"), columns, sae_rows(t, record.saes)),
            quiet(t("trace.layer.note")),
        ]
    norm = paragraph(t("trace.layer.norm"))
    return section(t, "trace.layer", paragraph(error), norm, *parts)


def sae_rows(t: Catalogue, saes: Sequence[TracedSAE]) -> Iterator[list[str]]:
    """Yield one row for each number of the autoencoders, with a value for each of them."""
    shown: dict[str, Shown] = dict.fromkeys(("nmse", "fvu"), partial(fixed, digits=3))
    shown |= {"l0": partial(fixed, digits=1), "dead": percent}
    losses = ("loss", "loss_patched", "loss_added", "loss_zero", "loss_mean")
    shown |= dict.fromkeys(losses, partial(fixed, digits=4))
    shown["loss_added"] = partial(signed, digits=4)
    shown |= dict.fromkeys(("recovered_from_zero", "recovered_from_mean"), percent)
    yield [t("trace.sae.latents"), *(grouped(sae.num_latents) for sae in saes)]
    yield [t("trace.sae.k"), *(grouped(sae.k) for sae in saes)]
    yield [t("trace.sae.sign"), *(t(f"trace.sae.{sae.sign}") for sae in saes)]
    for key, show in shown.items():
        values = (getattr(sae.metrics, key) for sae in saes)
        yield [t(f"trace.sae.{key}"), *(defined(t, value, show) for value in values)]


def output_names(record: Trace) -> dict[int, str]:
    """Return each output latent's number with the token at which it is strongest."""
    names = {
        one.latent: str(one.latent) if one.peak is None else f"{one.latent} {token_name(one.peak)}"
        for one in record.ranking
    }
    return names | {one.latent: latent_name(one.output) for one in record.circuits}


def ranked_table(record: Trace) -> FieldTable:
    """Return the table of output latents: the place and the name of each, and its numbers."""
    drawn, names = {one.latent for one in record.circuits}, output_names(record)
    places = {one.latent: place for place, one in enumerate(record.ranking, start=1)}

    def place(_: Catalogue, one: RankedLatent) -> str:
        return grouped(places[one.latent])

    def name(_: Catalogue, one: RankedLatent) -> Markup:
        anchor = circuit_anchor(one.latent) if one.latent in drawn else ""
        return link(anchor, names[one.latent])

    columns = (
        FieldColumn("latent", place, heading="trace.ranking.position"),
        FieldColumn("latent", lambda _, one: names[one.latent], name, numeric=False),
        *map(FieldColumn, RANKED.split()),
        FieldColumn("correlation_active"),
        FieldColumn("density", lambda _, one: percent(one.density, 2)),
    )
    return FieldTable(RankedLatent, columns, "trace.ranking.heading", named=(1,))


def ranking(t: Catalogue, record: Trace) -> Markup:
    """Return the leading output latents of the ranking, and those that compute nearly the same."""
    rows = record.ranking[:MOST_RANKED]
    caption = t("trace.ranking.caption", shown=len(rows), count=record.num_outputs)
    groups = []  # of latents that compute nearly the same
    for group in record.clusters[:MOST_CLUSTERS]:
        alike = t("list.comma").join(str(latent) for latent in group[:MOST_MEMBERS])
        rest = grouped(len(group) - MOST_MEMBERS)
        more = len(group) > MOST_MEMBERS
        groups.append(t("trace.cluster_more", list=alike, count=rest) if more else alike)
    lead = t(
        f"trace.cluster.{'lead' if groups else 'none'}", threshold=f"{record.cluster_threshold:g}"
    )
    return section(
        t,
        "trace.ranking",
        paragraph(t("trace.ranking.lead")),
        paragraph(chance_text(t, record)),
        ranked_table(record).on_page(t, rows, caption=caption, class_="ranking"),
        heading(t("trace.cluster.heading")),
        paragraph(lead),
        items(groups, "sentences") if groups else "",
    )


def chance_text(t: Catalogue, record: Trace) -> str:
    """Return how many output latents look like a circuit beside random dictionaries."""
    null = record.null
    if null is None:
        return t("trace.ranking.unmeasured")
    chances = (one.p_value for one in record.ranking)
    count = sum(p is not None and p <= null.level for p in chances)
    ends = {"low": fixed(min(null.best), 3), "high": fixed(max(null.best), 3)}
    numbers = {"all": grouped(record.num_outputs), "num": grouped(null.num)}
    key = "trace.ranking.some" if count else "trace.ranking.none"
    level, seed = percent(null.level), record.seed
    return t(key, count=grouped(count), **numbers, **ends, level=level, seed=seed)


def agreement(t: Catalogue, found: Correlations) -> Markup:
    """Return the two drawings of correlations and the numbers behind them."""
    ranks = found.ranks
    shown = next((rank for rank in ranks if rank.rank == SHOWN_RANK), ranks[-1])
    names = {kind: t(f"trace.agreement.{kind}") for kind in KINDS}
    medians = []
    for kind, name in names.items():
        quantiles = distributions(shown)[kind].values
        value = fixed(quantiles[MEDIAN], 2) if quantiles else t("trace.undefined")
        medians.append(t("trace.agreement.median", name=name, value=value))
    number = grouped(shown.rank)
    text = t("trace.agreement.text", k=number, list=t("list.comma").join(medians))
    first, second = t("trace.agreement.by_rank"), t("trace.agreement.histogram", k=number)
    values = {kind: [distributions(rank)[kind].values for rank in ranks] for kind in KINDS}
    counts = {kind: one.counts for kind, one in distributions(shown).items()}
    k, correlation, count = t.each("trace.agreement", ("k", "correlation", "count"))
    numbers = [rank.rank for rank in ranks]
    charts = [
        (first, by_rank((first, text), (k, correlation), numbers, values)),
        (second, histogram((second, text), (correlation, count), found.edges, counts)),
    ]

    def half(values: Sequence[float]) -> str:
        low, middle, high = (fixed(value, 2) for value in values[1:4])
        return t("trace.agreement.cell", median=middle, low=low, high=high)

    rows = []
    for rank in ranks:
        every = distributions(rank).values()
        rows.append([grouped(rank.rank), *(defined(t, x.values or None, half) for x in every)])
    note = t(
        "trace.agreement.note",
        count=grouped(found.num_latents),
        active=grouped(found.num_latents_active),
        samples=grouped(found.num_random),
    )
    columns = map(Column, (k, *names.values()))
    return section(
        t,
        "trace.agreement",
        paragraph(t("trace.agreement.lead")),
        key_list((series(kind), name) for kind, name in names.items()),
        drawings(charts),
        table(t, t("trace.agreement.caption"), columns, rows, named=(), class_="by-rank"),
        quiet(note),
    )


def distributions(rank: RankCorrelations) -> dict[str, Distribution]:
    """Return the correlations of each of `KINDS`, in their order."""
    return dict(zip(KINDS, (rank.all, rank.active, rank.null, rank.null_active), strict=True))


def contrast_table(names: Mapping[int, str]) -> FieldTable:
    """Return the table of pairs of output latents, which are called by these names."""
    columns = (
        FieldColumn("first", lambda _, pair: names[pair.first], numeric=False),
        FieldColumn("second", lambda _, pair: names[pair.second], numeric=False),
        *map(FieldColumn, ("score", "p_value", "nonlinear_share", "pair_share")),
    )
    return FieldTable(LatentContrast, columns, "trace.contrast.heading", named=(0, 1))


def contrasts(t: Catalogue, record: Trace) -> Markup:
    """Return the leading pairs, and the checks of the first of them."""
    lead, pairs = paragraph(t("trace.contrast.lead")), record.contrasts.pairs
    names, checks = output_names(record), []
    if not pairs:
        none = paragraph(t("trace.contrast.none"))
        return section(t, "trace.contrast", lead, none, name="contrasts")
    for pair in pairs:
        if pair.causal is not None and pair.causal.behaviour is not None:
            both = {"first": names[pair.first], "second": names[pair.second]}
            head = t("trace.contrast.check", **both)
            words = t("trace.contrast.behaviour", **compared_tokens(t, pair.causal.behaviour))
            found = causal(t, head, words, pair.causal.checks, level=3)
            checks.append(element("div", found, class_="card"))
    count = grouped(record.contrasts.num_compared)
    caption = t("trace.contrast.caption", shown=len(pairs), count=count)
    return section(
        t,
        "trace.contrast",
        lead,
        contrast_table(names).on_page(t, pairs, caption=caption, class_="ranking"),
        paragraph(t("trace.contrast.method")) if checks else "",
        *checks,
        name="contrasts",
    )


def causal_of(t: Catalogue, found: CausalReading, page: str = "trace") -> Markup:
    """Return the checks of one output; a remark where it is active too rarely."""
    head = t("trace.causal.heading")
    if found.behaviour is None:
        return causal(t, head, t(f"{page}.causal.none"), ())
    words = t(f"{page}.causal.behaviour", **compared_tokens(t, found.behaviour))
    return causal(t, head, words, found.checks)


def compared_tokens(t: Catalogue, behaviour: Behaviour) -> dict[str, str]:
    """Return the tokens whose logits are compared, as texts."""
    ends = {"high": behaviour.high, "low": behaviour.low}
    return {end: t("list.comma").join(map(token_name, tokens)) for end, tokens in ends.items()}


def causal(
    t: Catalogue, head: str, behaviour: str, checks: Sequence[CausalCheck], level: int = 4
) -> Markup:
    """Return checks side by side, so that a table of few columns fits a small screen."""
    content = heading(head, level) + paragraph(behaviour)
    if not checks:
        return content
    rows: Mapping[str, Callable[[CausalCheck], str]] = {
        "share": lambda check: share_told(t, check, check.share),
        "random": lambda check: share_told(t, check, check.random_share),
        # of what random dictionaries reach: the median, the least and the largest
        "null": lambda check: defined(
            t,
            (check.before.low > 0 and check.null_shares) or None,
            lambda x: interval(Interval(median(x), min(x), max(x)), percent),
        ),
        "confirmed": lambda check: defined(t, check.confirmed, lambda x: t("yes" if x else "no")),
        "before": lambda check: interval(check.before, fixed),
        "after": lambda check: interval(check.after, fixed),
        "directions": lambda check: grouped(check.num_directions),
        "loss": lambda check: losses(t, check),
    }
    columns = ["", *t.each("trace.causal", (check.kind for check in checks))]
    cells = (
        [t(f"trace.causal.{name}"), *(show(check) for check in checks)]
        for name, show in rows.items()
    )
    return content + table(t, "", columns, cells, class_="checks", label=head)


def share_told(t: Catalogue, check: CausalCheck, share: Interval) -> str:
    """Return a share of the behaviour, or that there may be none."""
    return interval(share, percent) if check.before.low > 0 else t("trace.causal.no_behaviour")


def losses(t: Catalogue, check: CausalCheck) -> str:
    before, after = check.loss_before, check.loss_after
    if before is None or after is None:
        return t("trace.undefined")
    return f"{fixed(before, 4)} → {fixed(after, 4)}"


def interval(found: Interval, show: Callable[[float], str]) -> str:
    return f"{show(found.value)} ({show(found.low)} – {show(found.high)})"
