"""What a certificate says on a terminal: truncation as a table, and every proven sentence."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.numbers import percent
from bilens.report.sections.proven import floored, floored_percent, raised, statements


def truncation_table(document: dict[str, Any]) -> Table:
    """Return one row for each number of eigenpairs kept."""
    cut = document["truncation"]
    table = Table(
        title="Truncation to k eigenpairs of each class",
        caption=f"Largest error: of any class-centred score over ‖x‖ ≤ {floored(cut['radius'])}, "
        "proven. * = the k that was asked for, or is enough.",
    )
    for name in ("k", "largest error", "provably same", "same answer"):
        table.add_column(name, justify="right")
    for point in cut["points"]:
        table.add_row(
            f"{point['k']}{'*' * (point['k'] == cut['chosen'])}",
            raised(max(point["bounds"])),
            "—" if point["certified"] is None else floored_percent(point["certified"]),
            "—" if point["agreement"] is None else percent(point["agreement"]),
        )
    return table


def certificate_lines(document: dict[str, Any]) -> list[str]:
    """Return every proven sentence with its scope, as plain text: print without markup."""
    t = load_catalogue("en")
    return [
        f"• {item.term}: {item.claim} Holds for: {item.scope}"
        for item in statements(t, displayable(document))
    ]
