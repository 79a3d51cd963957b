"""The terminal tables of explained predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from bilens.cli.tables.cells import plain


def explanation_tables(document: dict[str, Any]) -> Iterator[Table]:
    """Return one table an image: what the eigenvectors add to each of the classes shown."""
    names = [plain(name) for name in document["model"]["output_names"]]
    for item in document["explanations"]:
        right = item["label"] == item["predicted"]
        table = Table(
            title=f"Test image {item['index']}: label {names[item['label']]}, predicted "
            f"{names[item['predicted']]} ({'right' if right else 'WRONG'})",
            caption="Class-centred logits; score = Σ λ(v·x)² + rest + linear + constant, exactly.",
        )
        table.add_column("class")
        for name in ("score", "eigenvector", "λ", "v·x", "contribution"):
            table.add_column(name, justify="right")
        for score in item["classes"]:
            add_score_rows(table, names[score["index"]], score)
        yield table


def add_score_rows(table: Table, name: str, score: dict[str, Any]) -> None:
    """Add the parts of one class score to a table."""
    parts = [
        (f"{part['rank']}", f"{part['eigenvalue']:+.4f}", f"{part['overlap']:+.3f}", part["value"])
        for part in score["contributions"]
    ]
    parts.append(("all others", "", "", score["rest"]))
    parts.append(("linear + constant", "", "", score["linear"] + score["constant"]))
    for position, (label, eigenvalue, overlap, value) in enumerate(parts):
        first = position == 0
        table.add_row(
            name if first else "",
            f"{score['score']:+.3f}" if first else "",
            label,
            eigenvalue,
            overlap,
            f"{value:+.3f}",
            end_section=position == len(parts) - 1,
        )
