"""The edges of a trace through the attention before its MLP: tables for page and terminal."""

from typing import Any

from markupsafe import Markup

from bilens.records.attention_edges import AttentionEdges, ScoreEdge, WriteEdge
from bilens.report.markup import paragraph, quiet, section
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import Catalogue, percent, token_name


def feature(name: str) -> FieldColumn:
    """Return the column of a feature: its number, and the token at which it is strongest."""

    def shown(_: Catalogue, edge: Any) -> str:
        peak = getattr(edge, f"{name}_peak")
        return f"{getattr(edge, name)} {token_name(peak)}" if peak else str(getattr(edge, name))

    return FieldColumn(name, shown, numeric=False)


SCORES = FieldTable(
    ScoreEdge,
    (
        FieldColumn("head"),
        feature("query"),
        feature("key"),
        FieldColumn("score"),
        FieldColumn("p_value"),
    ),
    "trace.attention.scores",
    named=(1, 2),
)
WRITES = FieldTable(
    WriteEdge,
    (
        FieldColumn("head"),
        feature("key"),
        FieldColumn("latent", lambda _, edge: str(edge.latent)),
        FieldColumn("weight"),
        FieldColumn("p_value"),
        feature("query"),
        FieldColumn("score"),
    ),
    "trace.attention.writes",
    named=(1, 2),
)


def attention(t: Catalogue, found: AttentionEdges) -> Markup:
    """Return which features attend to which, and what the heads write into the circuits."""
    return section(
        t,
        "trace.attention",
        paragraph(attention_text(t, found)),
        SCORES.on_page(t, found.scores, class_="ranking"),
        WRITES.on_page(t, found.writes, class_="ranking"),
        quiet(t("trace.attention.limits")),
    )


def attention_text(t: Catalogue, found: AttentionEdges) -> str:
    """Return the text about the edges: how they are made, compared, and how many beat chance."""
    chances = [one.p_value for one in found.scores] + [one.p_value for one in found.writes]
    checked = "checked" if found.checked_against else "unchecked"
    return t(
        "trace.attention.lead",
        features=found.num_features,
        hook=found.hook,
        heads=found.num_heads,
        distance=found.distance,
        checked=t(f"trace.attention.{checked}"),
        beyond=sum(chance <= found.level for chance in chances),
        edges=len(chances),
        num=found.num_null,
        level=percent(found.level),
    )
