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
        table = Table(
            title=title_of(item, names),
            caption="Score = Σ λ(v·x)² + rest + linear + constant, exactly."
            if len(names) == 1
            else "Class-centred logits; score = Σ λ(v·x)² + rest + linear + constant, exactly.",
        )
        table.add_column("class")
        for name in ("score", "eigenvector", "λ", "v·x", "contribution"):
            table.add_column(name, justify="right")
        for score in item["classes"]:
            add_score_rows(table, names[score["index"]], score)
        yield table


def title_of(item: dict[str, Any], names: list[str]) -> str:
    """Return which input it is, what was predicted, and whether that is right, if it is known."""
    if len(names) == 1:
        return f"Row {item['index']}: {names[0]} = {item['scores'][0]:.6g}"
    predicted = f"predicted {names[item['predicted']]}"
    if item["label"] is None:
        return f"Row {item['index']}: {predicted}"
    right = item["label"] == item["predicted"]
    return (
        f"Test image {item['index']}: label {names[item['label']]}, {predicted} "
        f"({'right' if right else 'WRONG'})"
    )


def input_names(document: dict[str, Any]) -> list[str]:
    """Return what each input is called: its column, or its number."""
    named = document["model"]["input_names"]
    count = document["model"]["d_input"]
    return [str(place) for place in range(count)] if named is None else [plain(n) for n in named]


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


def attribution_tables(document: dict[str, Any]) -> Iterator[Table]:
    """Return one table an input: the strongest entries and pairs of entries of each score."""
    names = [plain(name) for name in document["model"]["output_names"]]
    inputs = input_names(document)
    what = "image" if document["model"]["input_names"] is None else "row"
    for item in document["explanations"]:
        table = Table(
            title=f"What the inputs of {what} {item['index']} add, from the baseline "
            f"({document['baseline']})",
            caption="φ: exact Shapley values, which are the integrated gradients of a quadratic "
            "map. pair: 2 q_ij Δ_i Δ_j, what two inputs do together beyond each alone. "
            "residual: of the sum of all φ.",
        )
        for name in ("score", "f(x) − f(x₀)", "residual", "input", "φ", "pair", "interaction"):
            table.add_column(name, justify="left" if name == "score" else "right")
        for part in item["attributions"]:
            add_attribution_rows(table, names, inputs, part)
        yield table


def add_attribution_rows(
    table: Table, names: list[str], inputs: list[str], part: dict[str, Any]
) -> None:
    """Add the strongest inputs and pairs of one score to a table."""
    values, pairs = part["values"], part["pairs"]
    order = sorted(range(len(values)), key=lambda place: -abs(values[place]))[: max(len(pairs), 1)]
    name = names[part["output"]]
    if part["rival"] is not None:
        name += f" − {names[part['rival']]}"
    change = part["score"] - part["score_at_baseline"]
    for position, place in enumerate(order):
        first = position == 0
        pair = pairs[position] if position < len(pairs) else None
        table.add_row(
            name if first else "",
            f"{change:+.3f}" if first else "",
            f"{part['residual']:.0e}" if first else "",
            inputs[place],
            f"{values[place]:+.3f}",
            "" if pair is None else f"{inputs[pair['first']]}, {inputs[pair['second']]}",
            "" if pair is None else f"{pair['value']:+.4f}",
            end_section=position == len(order) - 1,
        )
