"""The terminal tables of an attack: one row for each kind of mask, one column for each length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from bilens.report.catalogue import load_catalogue
from bilens.report.numbers import scientific

EFFECTS = (
    ("Share that keep their right answer", "effect", "accuracy", ".3f"),
    ("Mean margin of the label over the target", "effect", "margin", ".1f"),
    ("Share taken for the target", "effect", "target_rate", ".3f"),
    ("Share that keep their right answer, pixels clipped to [0, 1]", "clipped", "accuracy", ".3f"),
)


def attack_tables(document: dict[str, Any]) -> Iterator[Table]:
    """Return one table for each effect: means over masks of a kind and over objectives."""
    t = load_catalogue("en")
    for title, part, name, form in EFFECTS:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("mask \\ ε", no_wrap=True)
        for epsilon in document["epsilons"]:
            table.add_column(f"{epsilon:g}", justify="right", no_wrap=True)
        for curve in document["curves"]:
            values = (format(value, form) for value in curve[part][name])
            table.add_row(t(f"attack.kind.{curve['kind']}"), *values)
        yield table


def attack_lines(document: dict[str, Any]) -> Iterator[str]:
    """Return what is proven, and what is not, as plain text."""
    t = load_catalogue("en")
    objectives = document["objectives"]
    yield t(
        "attack.proof.pass" if document["holds"] else "attack.proof.fail",
        excess=scientific(max(objective["worst_excess"] for objective in objectives)),
        gap=scientific(max(objective["proof_gap"] for objective in objectives)),
    )
    yield t("attack.proven")
    yield t("attack.not_proven")
