"""The terminal tables of a trace: the autoencoders, the ranking, or the readings as tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from bilens.report.catalogue import load_catalogue
from bilens.report.numbers import quantity
from bilens.report.sections.trace_features import token_rows
from bilens.report.sections.trace_layer import ranking_rows, sae_rows
from bilens.report.token_text import marked, token_name

MOST_ROWS = 15
MOST_TOKENS = 5
SHORT = ("score", "pair", "equal", "both", "max λ", "min λ", "r, k=2", "active")


def trace_tables(document: dict[str, Any]) -> Iterator[Table]:
    """Return what a person reads first; all texts are printed as they are, never as markup."""
    document = marked(document)
    if document["readings"]:
        yield reading_table(document)
        return
    t = load_catalogue("en")
    table = Table(title=t("trace.layer.caption"), title_justify="left", box=None)
    table.add_column("")
    for sae in document["saes"]:
        table.add_column(Text(sae["hook"]), justify="right")
    for name, values in sae_rows(t, document):
        table.add_row(Text(name), *values)
    yield table
    yield ranking_table(document)


def ranking_table(document: dict[str, Any]) -> Table:
    """Return the leading output latents."""
    t = load_catalogue("en")
    table = Table(
        title="Output latents that look like a circuit",
        caption="pair: share of the quadratic part that the leading pair of opposite eigenvalues "
        "holds; equal: how equal the two are; both: share that needs both features; r: "
        "correlation with two eigenvectors where active.",
        title_justify="left",
        caption_justify="left",
        box=None,
    )
    table.add_column("", justify="right")
    table.add_column("latent", no_wrap=True)
    for name in SHORT:
        table.add_column(name, justify="right", no_wrap=True)
    for row in ranking_rows(t, document)[:MOST_ROWS]:
        table.add_row(row.place, Text(row.name), *row.cells)
    return table


def reading_table(document: dict[str, Any]) -> Table:
    """Return output directions and their two leading eigenvectors as tokens."""
    table = Table(
        title="Output directions as tokens, from weights alone",
        caption="promotes, suppresses: through the unembedding; λ: an eigenvalue, with the "
        "embeddings at one end of its vector / at the other.",
        title_justify="left",
        caption_justify="left",
        box=None,
    )
    for name in ("direction", "promotes", "suppresses", "eigenvectors"):
        table.add_column(name, overflow="fold")
    for place, reading in enumerate(document["readings"], start=1):
        is_token = reading["kind"] == "token"
        name = token_name(reading["name"]) if is_token else singular(place, reading)
        vectors = [
            f"λ {quantity(row['eigenvalue'])} {words(row['tokens']['high'])} / "
            f"{words(row['tokens']['low'])}"
            for row in reading["spectrum"]["eigenvectors"][:2]
        ]
        output = reading["output"]
        table.add_row(
            Text(name),
            Text(words(output["high"])),
            Text(words(output["low"])),
            Text("\n".join(vectors)),
        )
    return table


def singular(place: int, reading: dict[str, Any]) -> str:
    """Return the name of a singular direction."""
    return f"σ{place} {quantity(reading['singular_value'])}"


def words(tokens: list[dict[str, Any]]) -> str:
    """Return the first tokens of a list."""
    return " ".join(name for name, _ in token_rows(tokens[:MOST_TOKENS]))
