"""Tables and lines that commands print of layers, predictions and traces, from records."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from bilens.base.memory import readable
from bilens.records.base import displayable
from bilens.records.class_readings import Explanations, InputExplanation
from bilens.records.common import ModelSummary
from bilens.records.decomposition import (
    FormSpectrum,
    LayerDecomposition,
    LayerPlan,
    QuadraticFits,
    Score,
)
from bilens.records.mlp_trace import TokenValue, Trace
from bilens.records.network_reading import NetworkReading
from bilens.report.sections.network_page import network_parts
from bilens.report.sections.overview import met_at
from bilens.report.sections.performance_section import data_notes
from bilens.report.sections.trace_attention import SCORES, WRITES, attention_text
from bilens.report.sections.trace_page import chance_text, ranked_table, sae_rows
from bilens.report.terminal import add, field_table, grid, optional, short
from bilens.report.text import (
    MARKS,
    Catalogue,
    grouped,
    load_catalogue,
    percent,
    quantity,
    scientific,
    signed,
    token_name,
)

MOST_OUTPUTS = 50  # of a layer
MOST_LATENTS, MOST_TOKENS = 15, 5


def network_tables(record: NetworkReading, lang: str = "en") -> Iterator[Table | str]:
    """Yield the sentences and tables of a network's reading."""
    record, t = displayable(record, MARKS), load_catalogue(lang)
    for part in network_parts(t, record):
        yield t(f"network.{part.name}.heading")
        yield from part.sentences
        if part.table is not None and part.rows:
            yield field_table(t, part.table, part.rows, t(part.table.caption))


def decomposition_table(record: LayerDecomposition, lang: str = "en") -> Table:
    """Return a row for each eigenpair of each output of a layer."""
    record, t = displayable(record), load_catalogue(lang)
    more, words = len(record.outputs) - MOST_OUTPUTS, record.fields() | {"below": ""}
    words["unit"] = t(f"decompose.unit.{record.basis}")
    if record.spectrum == "whole":
        key = "below" if record.null_samples else "no_null"
        words["below"] = t(f"decompose.{key}", count=record.null_samples)
    keys = ("rank", "norm", "place", "eigenvalue", "share", "residual", "ok", "all")
    table = grid(
        (t("decompose.output"), *(f">{head}" for head in t.each("decompose", keys))),
        title=t("decompose.title", **words),
        caption=(t("decompose.more", count=more) if more > 0 else "")
        + t("decompose.caption", **words),
        look="open",
    )
    for output in record.outputs[:MOST_OUTPUTS]:
        if not output.pairs:
            add(table, output.name, "", "", "", output.status, last=True)
        add_pairs(t, table, output)
    return table


def add_pairs(t: Catalogue, table: Table, output: FormSpectrum) -> None:
    """Add the eigenpairs of one output; below its effective rank stands its null interval."""
    ranks, null = [optional(output.effective_rank, ".2f")], output.effective_rank_null
    if null is not None:
        ranks.append(f"{short(null.low)}–{short(null.high)}")
    for row, pair in enumerate(output.pairs):
        first, last = row == 0, row == len(output.pairs) - 1
        add(
            table,
            output.name if first else "",
            "\n".join(ranks[row:] if last else ranks[row : row + 1]),
            optional(output.frobenius_norm, ".4g") if first else "",
            f"{row + 1}*" if pair.subspace_size > 1 else str(row + 1),
            f"{pair.eigenvalue:+.5g}",
            percent(pair.explained),
            f"{pair.residual:.1e}",
            t("decompose.yes" if pair.converged else "decompose.no"),
            (t("decompose.yes") if output.complete else "?") if first else "",
            last=last,
        )


def decomposition_lines(record: LayerDecomposition, lang: str = "en") -> list[str]:
    """Return the lines before the table of a layer: R² first, then its inputs."""
    record, t, lines = displayable(record), load_catalogue(lang), list[str]()
    if (fit := record.approximation) is not None:
        r2, error = f"{fit.r_squared:.3f}", f"{fit.standard_error:.3f}"
        inputs = t.word("explorer.script.words", fit.assumed_input)
        words = {"inputs": inputs, "activation": fit.activation}
        lines.append(t("decompose.fit", layer=record.layer, r2=r2, error=error, **words))
    if record.about_input:
        lines.append(t("decompose.reads", layer=record.layer, input=record.about_input))
    return lines


def plan_table(plans: Sequence[LayerPlan], lang: str = "en") -> Table:
    t, keys = load_catalogue(lang), "layer outputs pairs method batch memory rotations"
    heads = t.each("decompose.plan", keys.split())
    table = grid(
        (head if at in (0, 3) else f">{head}" for at, head in enumerate(heads)),
        title=t("decompose.plan.title"),
        caption=t("decompose.plan.caption", limit=readable(plans[0].limit_bytes)),
    )
    for plan in map(displayable, plans):
        memory, counts = readable(plan.peak_bytes), (plan.num_outputs, plan.num_pairs)
        cells = (plan.layer, *map(str, counts), plan.method, str(plan.batch), memory)
        add(table, *cells, str(plan.null_samples))
    return table


def plan_lines(plans: Sequence[LayerPlan], lang: str = "en") -> Iterator[str]:
    for plan in map(displayable, plans):
        yield load_catalogue(lang)("decompose.plan.line", **plan.fields())


def fit_table(record: QuadraticFits, lang: str = "en") -> Table:
    """Return how close quadratic maps come to the whole of a model and to each layer."""
    t, keys = load_catalogue(lang), ("linear", "quadratic", "trimmed", "median")
    numeric = (f">{head}" for head in t.each("fit", keys))
    table = grid(
        (*t.each("fit", ("of", "fit")), *numeric, f"\n≥ {record.fits[0].threshold:g}"),
        title=t("fit.title"),
        caption=t("fit.caption"),
        look="open",
    )
    for fit in displayable(record).fits:
        kind = t("fit.whole")
        if fit.activation is not None:
            kind = f"{t('fit.gated' if fit.gated else 'fit.ordinary')} {fit.activation}"
            kind += f"\n{fit.d_in} → {fit.d_hidden} → {fit.d_out}"
        for row, one in enumerate(fit.ladder):
            middle, low, high = (optional(x, ".4f", t("fit.none")) for x in one.median)
            usable = (
                t("fit.usable" if fit.usable else "fit.unusable") if one.fit == fit.chosen else ""
            )
            scores = (score_text(t, part) for part in (one.linear, one.quadratic, one.trimmed))
            between = t("fit.between", low=low, high=high)
            name = "" if row else f"{fit.name}\n{kind}"
            add(table, name, one.fit, *scores, f"{middle}\n{between}", usable)
    return table


def score_text(t: Catalogue, score: Score) -> str:
    if score.value is None or score.standard_error is None:
        return t("fit.none")
    return f"{score.value:.4f}\n± {score.standard_error:.4f}"


def fit_lines(record: QuadraticFits, lang: str = "en") -> list[str]:
    """Return the way each row was fitted and its inputs, and which maps make no claim."""
    t, record = load_catalogue(lang), displayable(record)
    lines = data_notes(t, record.data)
    for fit in record.fits:
        lines.append(t("fit.line", **fit.fields()))
        if (over := fit.over_files) is not None:
            ends = {"low": optional(over.low, ".4f", ""), "high": optional(over.high, ".4f", "")}
            value = optional(fit.scores.quadratic.value, ".4f", t("fit.none"))
            told = {"name": fit.name, "files": over.files, "value": value, **ends}
            lines.append(t(f"fit.{'one_file' if over.low is None else 'over_files'}", **told))
        lines += [t("fit.missing", name=fit.name, reason=reason) for reason in fit.missing]
        if (seen := fit.seen) is not None:  # what comes in, and where the largest outputs are
            numbers = (*seen.kurtosis, *seen.norm, seen.output)
            names = ("usual", "most", "length", "longest", "output")
            shown = dict(zip(names, map(quantity, numbers), strict=True))
            at = (f"{quantity(x.output)} ({x.position}, {x.text!r})" for x in seen.largest)
            said = t("fit.seen", name=fit.name, at=", ".join(at), **shown)
            lines.append(
                said + (t("fit.massive", count=grouped(seen.massive)) * bool(seen.massive))
            )
    if record.num_rows is None:
        lines.append(t("fit.normal"))
    if refused := [fit.name for fit in record.fits if not fit.usable]:
        limit = f"{record.fits[0].threshold:g}"
        lines.append(t("fit.refused", names=", ".join(refused), threshold=limit))
    return lines


def explanation_tables(record: Explanations, lang: str = "en") -> Iterator[Table]:
    """Return one table an input: what the eigenvectors add to the scores shown, and where."""
    record, t = displayable(record), load_catalogue(lang)
    names = record.model.output_names
    heads = t.each("explain", ("class", "score", "part", "eigenvalue", "overlap", "value"))
    for item in record.explanations:
        table = grid(
            (f">{head}" if at in (1, 3, 4, 5) else head for at, head in enumerate(heads)),
            title=prediction_title(t, item, record.model),
            caption=t(f"explain.{'caption' if len(names) == 1 else 'centred'}"),
        )
        for score in item.classes:
            parts = [
                (
                    t(
                        "predictions.eigenvector",
                        rank=pair.rank,
                        place=met_at(t, record.model, item, pair, brief=True),
                    ),
                    signed(pair.eigenvalue, 4),
                    signed(pair.overlap, 3),
                    pair.value,
                )
                for pair in score.contributions
            ]
            parts.append((t("explain.rest"), "", "", score.rest))
            parts.append((t("explain.terms"), "", "", score.linear + score.constant))
            heads_of = [(names[score.index], signed(score.score, 3)), *[("", "")] * len(parts)]
            for row, ((*cells, value), head) in enumerate(zip(parts, heads_of, strict=False)):
                add(table, *head, *cells, signed(value, 3), last=row == len(parts) - 1)
        yield table


def prediction_title(t: Catalogue, item: InputExplanation, model: ModelSummary) -> str:
    """Return which input it is, what was predicted, and whether that is right, if it is known."""
    names = model.output_names
    row = t("explain.row", index=item.index)
    if len(names) == 1:
        row += t("explain.number", name=names[0], value=f"{item.scores[0]:.6g}")
        return row + (
            "" if item.target is None else t("explain.target", value=f"{item.target:.6g}")
        )
    predicted = names[item.predicted]
    if item.label is None:
        return row + t("explain.predicted", predicted=predicted)
    row = row if model.input_names else t("explain.input", index=item.index)
    ending = "right" if item.label == item.predicted else "wrong"
    return row + t(f"explain.{ending}", label=names[item.label], predicted=predicted)


def attribution_tables(
    record: Explanations, lang: str = "en", labels: Sequence[Sequence[str]] = ()
) -> Iterator[Table]:
    """Return one table an input: the strongest entries and pairs of entries of each score.

    The `labels` are what the inputs of each are called beside what they add.
    """
    t, model = load_catalogue(lang), (record := displayable(record)).model
    head, inputs = "entry", model.input_names or tuple(map(str, range(model.d_input)))
    if model.input_names is None and model.input_shape[0] > 1:
        head = "pixel"
        inputs = tuple(str(divmod(index, model.input_shape[1])) for index in range(model.d_input))
    what, names = "entries" if model.input_names is None else "columns", model.output_names
    heads = t.each("explain", ("score", "change", "residual", head, "phi", "pair", "together"))
    base = t.word("explain.baseline", record.baseline)
    for place, item in enumerate(record.explanations):
        named = displayable(tuple(labels[place])) if labels else inputs
        table = grid(
            (f">{name}" if at else name for at, name in enumerate(heads)),
            title=t(f"explain.{what}", index=item.index, baseline=base),
            caption=t("explain.shapley"),
        )
        for part in item.attributions:  # the strongest inputs and pairs of one score
            most = max(len(part.pairs), 1)
            order = sorted(range(len(inputs)), key=lambda at: -abs(part.values[at]))[:most]
            rival = "" if part.rival is None else f" − {names[part.rival]}"
            change = signed(part.score - part.score_at_baseline, 3)
            first = (f"{names[part.output]}{rival}", change, scientific(part.residual, 0))
            pairs = [
                (f"{inputs[pair.first]}, {inputs[pair.second]}", signed(pair.value, 4))
                for pair in part.pairs
            ] or [("", "")]
            for row, (at, pair) in enumerate(zip(order, pairs, strict=False)):
                cells = (named[at], signed(part.values[at], 3), *pair)
                add(table, *(("", "", "") if row else first), *cells, last=row == len(order) - 1)
        yield table


def trace_tables(record: Trace, lang: str = "en") -> Iterator[Table]:
    """Return autoencoders and ranking; without autoencoders the readings as tokens."""
    t = load_catalogue(lang)
    if record.readings:
        yield reading_table(t, record)
        return
    hooks = (f">{sae.hook}" for sae in displayable(record.saes))
    table = grid(["", *hooks], title=t("trace.layer.caption"), look="bare", align="left")
    for cells in sae_rows(t, record.saes):
        add(table, *cells)
    yield table
    shown = record.ranking[:MOST_LATENTS]
    title = t("trace.ranking.caption", shown=len(shown), count=record.num_outputs)
    caption = f"{chance_text(t, record)} {t('trace.ranking.lead')}"
    yield field_table(t, ranked_table(record), shown, caption, title=title, look="bare")
    if (found := displayable(record).attention_edges) is not None:
        yield field_table(t, SCORES, found.scores, t("trace.attention.scores"))
        caption = f"{t('trace.attention.writes')}. {attention_text(t, found)}"
        yield field_table(t, WRITES, found.writes, caption)


def reading_table(t: Catalogue, record: Trace) -> Table:
    """Return output directions and their two leading eigenvectors as tokens."""
    table = grid(
        t.each("trace.directions", ("direction", "promotes", "suppresses", "eigenvectors")),
        title=t("trace.readings.heading"),
        caption=t("trace.directions.about"),
        look="bare",
        align="left",
    )
    for number, reading in enumerate(record.readings, start=1):
        vectors = (
            f"λ {quantity(item.eigenvalue)} {words(item.tokens.high)} / {words(item.tokens.low)}"
            for item in reading.spectrum.eigenvectors[:2]
        )
        ends = (words(reading.output.high), words(reading.output.low))
        name = token_name(reading.name)
        if reading.kind != "token" and reading.singular_value is not None:
            name = f"σ{number} {quantity(reading.singular_value)}"
        add(table, name, *ends, "\n".join(vectors))
    return table


def words(tokens: Sequence[TokenValue]) -> str:
    return " ".join(token_name(token.text) for token in tokens[:MOST_TOKENS])
