"""The page of a polynomial network: its rules of one, two and three tokens, and what is left.

The same parts stand in the terminal and in Markdown.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bilens.records.base import Record
from bilens.records.network_reading import DistanceReading, NetworkReading, PathShare, TokenRule
from bilens.report.markup import paragraph, section
from bilens.report.sections.overview import Page
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import NONE, Catalogue, grouped, percent, token_name

MOST_NAMED = 40  # tokens of a sentence
UNBROKEN = 38  # characters of a path on one line
LIMITS = ("exact", "order", "lowered", "meaning")


@dataclass(frozen=True)
class NetworkPart:
    """A part of the page: sentences, and a table where there is one."""

    name: str
    sentences: tuple[str, ...]
    table: FieldTable | None = None
    rows: Sequence[Record] = ()


def rule_text(_: Catalogue, rule: TokenRule) -> str:
    """Return a rule as a text: its tokens in their order and what follows them."""
    between = " … " if len(rule.tokens) == 2 else " "
    return f"{between.join(map(token_name, rule.tokens))} → {token_name(rule.output)}"


def path_text(t: Catalogue, path: PathShare) -> str:
    name = " → ".join(path.path) or t("network.path.direct")
    return t("network.path", name=name, share=percent(path.share, 0))


def where_text(t: Catalogue, rule: TokenRule) -> str:
    """Return the paths of a rule with their shares, which add up; lines break between them."""
    if not rule.paths:
        return NONE
    others = t("network.path.others", share=percent(rule.others, 0))
    told = [*(path_text(t, path) for path in rule.paths), others]
    kept = [text if len(text) > UNBROKEN else text.replace(" ", "\u00a0") for text in told]
    return t("list.comma").join(kept).replace("（", "\u2060（")  # a share is kept with its path


def largest_path(t: Catalogue, rule: TokenRule) -> str:
    return path_text(t, rule.paths[0]) if rule.paths else NONE


RULE = FieldColumn(
    "tokens", rule_text, lambda t, rule: rule_text(t, rule).replace(" ", "\u00a0"), numeric=False
)
WHERE = (  # a terminal has room for the largest path alone
    FieldColumn("paths", where_text, numeric=False, where="page"),
    FieldColumn("paths", largest_path, numeric=False, where="text", heading="network.largest"),
)
CHANGE, LOGIT, CHANCE = FieldColumn("probability"), FieldColumn("logit"), FieldColumn("chance")
SINGLE = FieldTable(
    TokenRule,
    (RULE, FieldColumn("probability", heading="network.probability"), LOGIT, CHANCE, *WHERE),
    "network.single.caption",
)
PAIRS = FieldTable(
    TokenRule,
    (
        RULE,
        FieldColumn("distance", lambda t, rule: t("list.comma").join(map(grouped, rule.distance))),
        CHANGE,
        FieldColumn("lowest"),
        LOGIT,
        CHANCE,
        *WHERE,
    ),
    "network.pairs.caption",
)
TRIPLES = FieldTable(TokenRule, (RULE, CHANGE, LOGIT, *WHERE), "network.triples.caption")
DISTANCES = FieldTable(
    DistanceReading,
    tuple(
        FieldColumn(name)
        for name in ("distance", "largest", "beyond", "explained", "explained_logits")
    ),
    "network.distances.caption",
)


def network_parts(t: Catalogue, record: NetworkReading) -> Iterator[NetworkPart]:
    """Yield the parts of a reading in their order."""
    yield NetworkPart("held", tuple(summary_lines(t, record)))
    yield NetworkPart("single", (t("network.single.lead"),), SINGLE, record.single)
    if record.distances:
        yield NetworkPart("pairs", (t("network.pairs.lead"),), PAIRS, record.pairs)
        key, tokens = of_tokens(record, record.looked.tokens, "lead")
        lead = (t(f"network.distances.{key}", tokens=tokens),)
        yield NetworkPart("distances", lead, DISTANCES, record.distances)
    if record.induction is not None:
        said = (t("network.triples.lead"), induction_text(t, record), *after_text(t, record))
        yield NetworkPart("triples", said, TRIPLES, record.triples)
    yield NetworkPart("unexplained", (*unexplained(t, record), *not_looked(t, record)))


def summary_lines(t: Catalogue, record: NetworkReading) -> Iterator[str]:
    """Yield what the network holds, a sentence for each number of tokens."""
    if record.single:
        first = record.single[0]
        words = {"rule": rule_text(t, first), "share": percent(first.probability)}
        key, whose = of_tokens(record, record.looked.single_tokens, "single")
        yield t(f"network.held.{key}", **words, tokens=whose)
        if record.single_beyond is not None:
            ended = "single_beyond" if record.single_beyond else "none_beyond"
            key, _ = of_tokens(record, record.looked.single_tokens, ended)
            yield t(f"network.held.{key}", count=grouped(record.single_beyond))
    if record.pairs:
        first = record.pairs[0]
        words = {"rule": rule_text(t, first), "share": percent(first.probability)}
        shares = span([one.explained for one in record.distances])
        key, whose = of_tokens(record, record.looked.tokens, "pairs")
        counts = {"count": grouped(len(record.pairs)), "tokens": whose}
        yield t(f"network.held.{key}", **words, **counts, explained=shares)
    else:
        yield t(f"network.held.{'no_rules' if record.distances else 'no_pairs'}")
    if record.induction is not None:
        yield induction_text(t, record)


def of_tokens(record: NetworkReading, tokens: int, what: str) -> tuple[str, str]:
    """Return the key of a share, another where not all tokens were looked at, and their number."""
    key = f"some_{what}" if tokens < record.model.num_tokens else what
    return key, grouped(tokens)


def induction_text(t: Catalogue, record: NetworkReading) -> str:
    found = record.induction
    assert found is not None, "asked for where it is there"
    share = found.found / found.tried if found.tried else 0.0
    counts = {"count": grouped(found.found), "all": grouped(found.tried)}
    key = "plain" if found.chance is None else "beside"
    chance = NONE if found.chance is None else percent(found.chance)
    return t(f"network.induction.{key}", share=percent(share), chance=chance, **counts)


def after_text(t: Catalogue, record: NetworkReading) -> Iterator[str]:
    """Yield the tokens after which what followed once follows again."""
    found = record.induction
    if found is not None and found.after:
        names = [token_name(name) for name in found.after]
        more = len(names) - MOST_NAMED
        shown = t("list.comma").join(names[:MOST_NAMED])
        key = "more" if more > 0 else "all"
        counts = {"count": grouped(len(names)), "tokens": grouped(found.tokens)}
        yield t(f"network.after.{key}", names=shown, more=grouped(max(more, 0)), **counts)


def unexplained(t: Catalogue, record: NetworkReading) -> Iterator[str]:
    """Yield which share of what was looked at the listed rules do not hold."""
    if record.distances:
        key, tokens = of_tokens(record, record.looked.tokens, "pairs")
        yield t(
            f"network.unexplained.{key}",
            tokens=tokens,
            count=grouped(len(record.pairs)),
            probability=span([one.explained for one in record.distances]),
            logits=span([one.explained_logits for one in record.distances]),
        )
    if record.induction is not None and record.triples_explained is not None:
        key, tokens = of_tokens(record, record.looked.triple_tokens, "triples")
        yield t(
            f"network.unexplained.{key}",
            tokens=tokens,
            count=grouped(len(record.triples)),
            listed=percent(record.triples_explained),
            induction=percent(record.induction.explained),
        )


def not_looked(t: Catalogue, record: NetworkReading) -> Iterator[str]:
    """Yield what was not looked at, by name."""
    looked, model = record.looked, record.model
    longest = math.inf if model.n_ctx is None else model.n_ctx
    looked_at = looked.single_tokens if looked.chosen == "given" else looked.tokens
    if looked_at < model.num_tokens and (looked.chosen == "given" or looked.distances):
        counts = {"count": grouped(looked_at), "all": grouped(model.num_tokens)}
        yield t(f"network.not_looked.{looked.chosen}", **counts)
    if looked.distances:
        last = looked.distances[-1]
        seen = t("list.comma").join(map(grouped, looked.distances))
        whole = len(looked.distances) == last
        if not whole or last + 1 < longest:
            key = "farther" if whole else "distances"
            yield t(f"network.not_looked.{key}", last=last, seen=seen)
        count = looked.triple_tokens
        if count and (longest > 3 or count < model.num_tokens):
            counts = {"count": grouped(count), "all": grouped(model.num_tokens)}
            yield t("network.not_looked.triples", **counts)
        elif not count and longest > 2:
            yield t("network.not_looked.no_triples")
        if longest > 3:
            yield t("network.not_looked.more")
    if looked.samples:
        yield t("network.limits.chance", count=grouped(looked.samples))
    if looked.from_start:
        yield t("network.not_looked.start")
    if not record.model.checked_against:
        yield t("network.not_looked.compared")


def span(values: Sequence[float]) -> str:
    """Return the least and the largest of some shares."""
    low, high = (percent(one) for one in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def network_facts(t: Catalogue, record: NetworkReading) -> Iterator[tuple[str, str]]:
    model = record.model
    parts = (part.replace(" ", "\u00a0") for part in model.parts)
    yield t("network.facts.parts"), t("list.comma").join(parts) or NONE
    yield t("network.facts.degree"), grouped(model.degree)
    yield t("network.facts.tokens"), grouped(model.num_tokens)
    yield t("network.facts.width"), grouped(model.d_model)
    yield t("network.facts.context"), NONE if model.n_ctx is None else grouped(model.n_ctx)
    compared = model.checked_against
    shown = t.word("source", compared) if compared else t("network.facts.nothing")
    yield t("network.facts.compared"), shown


def network_page(t: Catalogue, record: NetworkReading) -> Page:
    parts = []
    for part in network_parts(t, record):
        drawn = [part.table.on_page(t, part.rows)] if part.table is not None and part.rows else []
        blocks = (*map(paragraph, part.sentences), *drawn)
        parts.append((part.name, section(t, f"network.{part.name}", *blocks)))
    return Page(
        keys="network.page",
        count=record.model.num_tokens,
        facts=network_facts(t, record),
        parts=parts,
        limits=t.each("network.limits", LIMITS),
        title=record.source.path or record.model.kind,
    )
