"""The page of a trace: the layer, its autoencoders, ranking, agreement and contrasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from markupsafe import Markup

from bilens.records.trace import (
    Behaviour,
    CausalCheck,
    CausalReading,
    Correlations,
    Distribution,
    Interval,
    RankCorrelations,
    RankedLatent,
    SAEMetrics,
    Trace,
    TracedSAE,
)
from bilens.report.blocks import (
    Column,
    drawings,
    heading,
    items,
    link,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.catalogue import Catalogue
from bilens.report.charts.traces import KINDS, MEDIAN, by_rank, histogram, series
from bilens.report.numbers import (
    fixed,
    percent,
    quantity,
    scientific,
    signed,
    signed_quantity,
    whole,
)
from bilens.report.page import Page
from bilens.report.plot import swatch
from bilens.report.sections.trace_circuits import circuit_anchor, circuits, features, readings
from bilens.report.svg import element
from bilens.report.token_text import latent_name, token_name

MOST_RANKED = 25  # rows; the document has them all
SHOWN_RANK = 2  # eigenvectors, the paper's choice
MOST_CLUSTERS, MOST_MEMBERS = 10, 20
LIMITS = ("exact", "norm", "direct", "selection", "meaning")
LATENT_LIMITS = ("sae", "measured", "causal")
RANKED = (
    "score",
    "pair_share",
    "sign_contrast",
    "interaction_share",
    "positive",
    "negative",
    "correlation",
    "density",
)


def trace_page(t: Catalogue, record: Trace) -> Page:
    """Return the page of a trace, with autoencoders or from weights alone."""
    limits = [t(f"trace.limits.{key}") for key in LIMITS]
    parts = [("layer", layer(t, record))]
    if record.correlations is None:
        parts.append(("readings", readings(t, record.readings)))
    else:
        limits[1:1] = [t(f"trace.limits.{key}") for key in LATENT_LIMITS]
        parts += [
            ("ranking", ranking(t, record)),
            ("agreement", agreement(t, record.correlations)),
            ("contrasts", contrasts(t, record)),
            ("circuits", circuits(t, record, lambda causal: causal_of_circuit(t, causal))),
            ("features", features(t, record)),
        ]
    return Page(
        keys="trace.page",
        footer="trace.page.footer",
        title=f"{record.layer.name} · {record.source.path}",
        count=record.num_outputs,
        facts=trace_facts(t, record),
        parts=parts,
        limits=limits,
        styles=("trace.css",),
    )


def trace_facts(t: Catalogue, record: Trace) -> list[tuple[str, str]]:
    """Return the sizes of the model and what was read."""
    model, data = record.model, record.data
    blocks = t("trace.facts.blocks_value", blocks=model.n_layer, heads=model.n_head)
    count = whole(model.num_parameters)
    text = t("trace.facts.no_text")
    if data is not None:
        name, tokens = data.name or t("trace.facts.unnamed"), whole(data.num_tokens)
        text = t("trace.facts.text_value", name=name, count=tokens)
    pairs = [
        ("trace.facts.layer", record.layer.name),
        ("trace.facts.width", whole(model.d_model)),
        ("facts.hidden", whole(model.d_hidden)),
        ("trace.facts.blocks", blocks),
        ("trace.facts.vocabulary", whole(model.vocab_size)),
        ("trace.facts.context", whole(model.n_ctx)),
        ("facts.parameters", t("facts.parameters_value", count=count, dtype=model.dtype)),
        ("trace.facts.text", text),
    ]
    return [(t(key), value) for key, value in pairs]


def layer(t: Catalogue, record: Trace) -> Markup:
    """Return how far the map and the model's own MLP are apart, and the autoencoders around it."""
    found, parts = record.exactness, []
    error = t(
        "trace.layer.exact",
        error=scientific(found.largest_error),
        scale=quantity(found.scale),
        count=whole(found.num_inputs),
    )
    if record.saes:
        columns = [
            Column(t("trace.layer.quantity"), numeric=False),
            *(Column(hook_name(sae.hook)) for sae in record.saes),
        ]
        caption = t("trace.layer.caption")
        parts = [
            table(t, caption, columns, sae_rows(t, record.saes)),
            quiet(t("trace.layer.note")),
        ]
    norm = paragraph(t("trace.layer.norm"))
    return section("layer", t("trace.layer.heading"), paragraph(error), norm, *parts)


def hook_name(name: str) -> Markup:
    """Return the name of a hook, which may break after each dot."""
    return Markup("{}").format(Markup(".<wbr>").join(name.split(".")))


def sae_rows(t: Catalogue, saes: Sequence[TracedSAE]) -> Iterator[list[str]]:
    """Yield one row for each number of the autoencoders, with a value for each of them."""
    shown: Mapping[str, Callable[[SAEMetrics], str]] = {
        "nmse": lambda found: fixed(found.nmse, 3),
        "fvu": lambda found: fixed(found.fvu, 3),
        "l0": lambda found: fixed(found.l0, 1),
        "dead": lambda found: percent(found.dead),
        "loss": lambda found: fixed(found.loss, 4),
        "loss_patched": lambda found: fixed(found.loss_patched, 4),
        "loss_added": lambda found: signed(found.loss_added, 4),
        "loss_zero": lambda found: fixed(found.loss_zero, 4),
        "loss_mean": lambda found: fixed(found.loss_mean, 4),
        "recovered_from_zero": lambda found: defined(t, found.recovered_from_zero, percent),
        "recovered_from_mean": lambda found: defined(t, found.recovered_from_mean, percent),
    }
    yield [t("trace.sae.latents"), *(whole(sae.num_latents) for sae in saes)]
    yield [t("trace.sae.k"), *(whole(sae.k) for sae in saes)]
    yield [t("trace.sae.sign"), *(t(f"trace.sae.{sae.sign}") for sae in saes)]
    for key, show in shown.items():
        yield [t(f"trace.sae.{key}"), *(show(sae.metrics) for sae in saes)]


def defined(t: Catalogue, value: float | None, show: Callable[[float], str]) -> str:
    """Return a number, or the word for what is not defined."""
    return t("trace.undefined") if value is None else show(value)


def output_names(record: Trace) -> dict[int, str]:
    """Return each output latent's number with the token at which it is strongest."""
    names = {
        one.latent: str(one.latent) if one.peak is None else f"{one.latent} {token_name(one.peak)}"
        for one in record.ranking
    }
    return names | {one.latent: latent_name(one.output) for one in record.circuits}


def ranking(t: Catalogue, record: Trace) -> Markup:
    """Return the leading output latents of the ranking, and those that compute nearly the same."""
    drawn, names = {one.latent for one in record.circuits}, output_names(record)
    rows = []
    for position, one in enumerate(record.ranking[:MOST_RANKED], start=1):
        anchor = circuit_anchor(one.latent) if one.latent in drawn else ""
        numbers = ranked_numbers(t, one)
        rows.append((whole(position), link(anchor, names[one.latent]), *numbers))
    columns = [
        Column(t("trace.ranking.position")),
        Column(t("trace.ranking.latent"), numeric=False),
        *(Column(t(f"trace.ranking.{key}")) for key in RANKED),
    ]
    title = t("trace.ranking.heading")
    caption = t("trace.ranking.caption", shown=len(rows), count=record.num_outputs)
    groups = cluster_lines(t, record)
    lead = t(
        f"trace.cluster.{'lead' if groups else 'none'}", threshold=f"{record.cluster_threshold:g}"
    )
    return section(
        "ranking",
        title,
        paragraph(t("trace.ranking.lead")),
        table(t, caption, columns, rows, named=(1,), class_="ranking", label=title),
        heading(t("trace.cluster.heading")),
        paragraph(lead),
        items(groups, "sentences") if groups else "",
    )


def ranked_numbers(t: Catalogue, one: RankedLatent) -> tuple[str, ...]:
    """Return the numbers of an output latent, in the order of `RANKED`."""
    return (
        fixed(one.score, 3),
        percent(one.pair_share),
        fixed(one.sign_contrast, 2),
        percent(one.interaction_share),
        signed_quantity(one.positive),
        signed_quantity(one.negative),
        defined(t, one.correlation_active, fixed),
        percent(one.density, 2),
    )


def cluster_lines(t: Catalogue, record: Trace) -> list[str]:
    """Return the largest groups of output latents that compute nearly the same."""
    lines = []
    for group in record.clusters[:MOST_CLUSTERS]:
        names = t("list.comma").join(str(latent) for latent in group[:MOST_MEMBERS])
        more = len(group) - MOST_MEMBERS
        lines.append(names if more <= 0 else t("trace.cluster_more", list=names, count=whole(more)))
    return lines


def agreement(t: Catalogue, found: Correlations) -> Markup:
    """Return the two drawings of correlations and the numbers behind them."""
    ranks = found.ranks
    shown = next((rank for rank in ranks if rank.rank == SHOWN_RANK), ranks[-1])
    names = {kind: t(f"trace.agreement.{kind}") for kind in KINDS}
    medians = t("list.comma").join(
        t("trace.agreement.median", name=names[kind], value=median(t, distribution(shown, kind)))
        for kind in KINDS
    )
    number = whole(shown.rank)
    text = t("trace.agreement.text", k=number, list=medians)
    first, second = t("trace.agreement.by_rank"), t("trace.agreement.histogram", k=number)
    values = {kind: [distribution(rank, kind).values for rank in ranks] for kind in KINDS}
    counts = {kind: distribution(shown, kind).counts for kind in KINDS}
    by = t("trace.agreement.k"), t("trace.agreement.correlation")
    over = t("trace.agreement.correlation"), t("trace.agreement.count")
    charts = [
        (first, by_rank(first, text, by, [rank.rank for rank in ranks], values)),
        (second, histogram(second, text, over, found.edges, counts)),
    ]
    legend = (
        element("li", swatch(series(kind)), element("span", name)) for kind, name in names.items()
    )
    rows = (
        [whole(rank.rank), *(middle_half(t, distribution(rank, kind)) for kind in KINDS)]
        for rank in ranks
    )
    columns = [Column(t("trace.agreement.k")), *map(Column, names.values())]
    note = t(
        "trace.agreement.note",
        count=whole(found.num_latents),
        active=whole(found.num_latents_active),
        samples=whole(found.num_random),
    )
    return section(
        "agreement",
        t("trace.agreement.heading"),
        paragraph(t("trace.agreement.lead")),
        element("ul", *legend, class_="keys"),
        drawings(charts),
        table(t, t("trace.agreement.caption"), columns, rows, named=(), class_="by-rank"),
        quiet(note),
    )


def distribution(rank: RankCorrelations, kind: str) -> Distribution:
    """Return the correlations of one kind."""
    return {
        "all": rank.all,
        "active": rank.active,
        "null": rank.null,
        "null_active": rank.null_active,
    }[kind]


def median(t: Catalogue, found: Distribution) -> str:
    """Return the median of a distribution."""
    return fixed(found.values[MEDIAN], 2) if found.values else t("trace.undefined")


def middle_half(t: Catalogue, found: Distribution) -> str:
    """Return median and quartiles of a distribution."""
    if not found.values:
        return t("trace.undefined")
    low, middle, high = (fixed(value, 2) for value in found.values[1:4])
    return t("trace.agreement.cell", median=middle, low=low, high=high)


def contrasts(t: Catalogue, record: Trace) -> Markup:
    """Return the leading pairs, and the checks of the first of them."""
    title, lead = t("trace.contrast.heading"), paragraph(t("trace.contrast.lead"))
    pairs, names = record.contrasts.pairs, output_names(record)
    if not pairs:
        return section("contrasts", title, lead, paragraph(t("trace.contrast.none")))
    rows = (
        (
            names[pair.first],
            names[pair.second],
            fixed(pair.score, 3),
            percent(pair.nonlinear_share),
            percent(pair.pair_share),
        )
        for pair in pairs
    )
    columns = [
        Column(t("trace.contrast.first"), numeric=False),
        Column(t("trace.contrast.second"), numeric=False),
        Column(t("trace.ranking.score")),
        Column(t("trace.contrast.nonlinear")),
        Column(t("trace.ranking.pair_share")),
    ]
    checks = []
    for pair in pairs:
        if pair.causal is not None and pair.causal.behaviour is not None:
            head = t("trace.contrast.check", first=names[pair.first], second=names[pair.second])
            words = t("trace.contrast.behaviour", **compared(t, pair.causal.behaviour))
            checks.append(element("div", causal(t, head, words, pair.causal.checks), class_="card"))
    caption = t(
        "trace.contrast.caption", shown=len(pairs), count=whole(record.contrasts.num_compared)
    )
    return section(
        "contrasts",
        title,
        lead,
        table(t, caption, columns, rows, named=(0, 1), class_="ranking", label=title),
        paragraph(t("trace.contrast.method")) if checks else "",
        *checks,
    )


def causal_of_circuit(t: Catalogue, found: CausalReading) -> Markup:
    """Return the checks of one output latent; a remark where it is active too rarely."""
    head = t("trace.causal.heading")
    if found.behaviour is None:
        return causal(t, head, t("trace.causal.none"), ())
    words = t("trace.causal.behaviour", **compared(t, found.behaviour))
    return causal(t, head, words, found.checks)


def compared(t: Catalogue, behaviour: Behaviour) -> dict[str, str]:
    """Return the tokens whose logits are compared, as texts."""
    ends = {"high": behaviour.high, "low": behaviour.low}
    return {end: t("list.comma").join(map(token_name, tokens)) for end, tokens in ends.items()}


def causal(t: Catalogue, head: str, behaviour: str, checks: Sequence[CausalCheck]) -> Markup:
    """Return checks side by side, so that a table of few columns fits a small screen."""
    content = heading(head, 4) + paragraph(behaviour)
    if not checks:
        return content
    rows: Mapping[str, Callable[[CausalCheck], str]] = {
        "share": lambda check: interval(check.share, percent),
        "random": lambda check: interval(check.random_share, percent),
        "before": lambda check: interval(check.before, fixed),
        "after": lambda check: interval(check.after, fixed),
        "directions": lambda check: whole(check.num_directions),
        "loss": lambda check: losses(t, check),
    }
    columns = [
        Column("", numeric=False),
        *(Column(t(f"trace.causal.{check.kind}")) for check in checks),
    ]
    cells = (
        [t(f"trace.causal.{name}"), *(show(check) for check in checks)]
        for name, show in rows.items()
    )
    return content + table(t, "", columns, cells, class_="checks", label=head)


def losses(t: Catalogue, check: CausalCheck) -> str:
    """Return the loss before and after, where it was measured."""
    before, after = check.loss_before, check.loss_after
    if before is None or after is None:
        return t("trace.undefined")
    return f"{fixed(before, 4)} → {fixed(after, 4)}"


def interval(found: Interval, show: Callable[[float], str]) -> str:
    """Return a number with its interval."""
    return f"{show(found.value)} ({show(found.low)} – {show(found.high)})"
