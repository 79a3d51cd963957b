"""What columns and pairs of columns do in each output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.scores import bar_chart
from bilens.report.document import Document
from bilens.report.numbers import percent, quantity, signed_quantity, whole
from bilens.report.svg import Figure, shortened

LONGEST = 40
MOST = 10  # bars of a chart
BESIDE = 25  # letters beside a bar
KINDS = ("linear", "square", "pair")


@dataclass(frozen=True)
class OutputCard:
    """One output: its share of the table, and its charts."""

    anchor: str
    name: str
    mean: str  # the output at the mean of all columns
    deviation: str
    linear: str
    square: str
    pair: str
    charts: list[tuple[str, Figure]]  # caption and drawing
    rest: str  # what is not drawn


def column_names(document: Document) -> list[str]:
    """Return a name for each column that is neither empty nor endless."""
    names = document["model"]["input_names"]
    return [shortened(name.strip(), LONGEST) or f"#{place}" for place, name in enumerate(names)]


def output_names(document: Document) -> list[str]:
    """Return a name for each output that is neither empty nor endless."""
    names = document["model"]["output_names"]
    return [shortened(name.strip(), LONGEST) or f"#{place}" for place, name in enumerate(names)]


def pair_name(names: Sequence[str], pair: dict[str, Any]) -> str:
    """Return two columns as one name."""
    return f"{names[pair['first']]} × {names[pair['second']]}"


def pair_label(names: Sequence[str], pair: dict[str, Any]) -> str:
    """Return two columns as one name that fits beside a bar, each with its share of the room."""
    first, second = names[pair["first"]], names[pair["second"]]
    room = BESIDE - 3
    half = max(room // 2, room - min(len(first), len(second)))
    short = half if len(first) > len(second) else room - half
    return f"{shortened(first, short)} × {shortened(second, room - short)}"


def value_label(name: str, value: float) -> str:
    """Return a column with its value, whole beside a bar; the name gives way."""
    text = f" = {quantity(value, 4)}"
    return shortened(name, max(BESIDE - len(text), 4)) + text


def output_cards(t: Catalogue, document: Document) -> list[OutputCard]:
    """Return one card for each output."""
    names, columns = output_names(document), column_names(document)
    return [output_card(t, item, names, columns) for item in document["outputs"]]


def output_card(
    t: Catalogue, item: dict[str, Any], names: list[str], columns: list[str]
) -> OutputCard:
    """Return the card of an output."""
    name = names[item["index"]]
    rows = {
        "linear": ranked((columns[one["column"]], one["linear"]) for one in item["columns"]),
        "square": ranked((columns[one["column"]], one["square"]) for one in item["columns"]),
        "pair": [(pair_label(columns, pair), pair["coefficient"]) for pair in item["pairs"]],
    }
    drawn = {kind: [row for row in rows[kind][:MOST] if row[1] != 0] for kind in KINDS}
    every = [row for shown in drawn.values() for row in shown]
    charts = []
    for kind, shown in drawn.items():
        if shown:
            caption = t(f"table.columns.{kind}")
            text = t("table.columns.text", name=shown[0][0], value=signed_quantity(shown[0][1]))
            charts.append((caption, bar_chart(caption, text, shown, every)))
    return OutputCard(
        anchor=f"output-{item['index']}",
        name=name,
        mean=signed_quantity(item["constant"]),
        deviation=quantity(item["variance"] ** 0.5),
        linear=percent(item["linear_share"], 0),
        square=percent(item["square_share"], 0),
        pair=percent(item["pair_share"], 0),
        charts=charts,
        rest=t(
            "table.columns.rest",
            columns=whole(len(columns)),
            pairs=whole(item["num_pairs"]),
            most=whole(MOST),
        ),
    )


@dataclass(frozen=True)
class LoudLine:
    """What raises one output most."""

    name: str
    one: str
    one_effect: str
    two: str
    two_effect: str


def loudest_lines(t: Catalogue, document: Document) -> list[LoudLine]:
    """Return one line for each output; none where the units of the columns are not known."""
    names, columns = output_names(document), column_names(document)

    def words(values: dict[str, Any] | None) -> tuple[str, str]:
        if values is None:
            return "–", "–"
        parts = zip(values["columns"], values["z"], strict=True)
        text = ", ".join(
            t("table.loudest.value", name=columns[column], z=signed_quantity(z))
            for column, z in parts
        )
        return text, signed_quantity(values["effect"])

    return [
        LoudLine(names[item["output"]], *words(item["one"]), *words(item["two"]))
        for item in document["worst_case_inputs"]
    ]


def ranked(rows: Any) -> list[tuple[str, float]]:
    """Return rows by falling size."""
    return sorted(rows, key=lambda row: -abs(row[1]))
