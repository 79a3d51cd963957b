"""What changing a few directions does to a difference of logits, beside random directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, whole
from bilens.report.sections.trace_layer import output_names
from bilens.report.token_text import token_name

ROWS = ("share", "random", "before", "after", "directions", "loss")


@dataclass(frozen=True)
class CausalTable:
    """The checks of one behaviour, a column each; without rows where there are none."""

    heading: str
    behaviour: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class ContrastSection:
    """What the section on pairs of output latents prints."""

    caption: str
    rows: list[list[str]]
    tables: list[CausalTable]


def causal_table(t: Catalogue, causal: dict[str, Any]) -> CausalTable:
    """Return the checks of one output latent."""
    behaviour, heading = causal["behaviour"], t("trace.causal.heading")
    if behaviour is None:
        return CausalTable(heading, t("trace.causal.none"), [], [])
    words = t("trace.causal.behaviour", **compared(t, behaviour))
    return table_of(t, heading, words, causal["checks"])


def contrast_section(t: Catalogue, document: Document) -> ContrastSection:
    """Return the leading pairs, and the checks of the first of them."""
    contrasts, names = document["contrasts"], output_names(document)
    pairs = contrasts["pairs"]
    rows = [
        [
            names[pair["first"]],
            names[pair["second"]],
            fixed(pair["score"], 3),
            percent(pair["nonlinear_share"]),
            percent(pair["pair_share"]),
        ]
        for pair in pairs
    ]
    tables = [
        table_of(
            t,
            t("trace.contrast.check", first=names[pair["first"]], second=names[pair["second"]]),
            t("trace.contrast.behaviour", **compared(t, pair["causal"]["behaviour"])),
            pair["causal"]["checks"],
        )
        for pair in pairs
        if pair["causal"] is not None and pair["causal"]["behaviour"] is not None
    ]
    caption = t("trace.contrast.caption", shown=len(rows), count=whole(contrasts["num_compared"]))
    return ContrastSection(caption, rows, tables)


def compared(t: Catalogue, behaviour: dict[str, Any]) -> dict[str, str]:
    """Return the tokens whose logits are compared, as texts."""
    comma = t("list.comma")
    return {
        end: comma.join(token_name(token) for token in behaviour[end]) for end in ("high", "low")
    }


def table_of(
    t: Catalogue, heading: str, behaviour: str, checks: list[dict[str, Any]]
) -> CausalTable:
    """Return checks side by side, so that a table of few columns fits a small screen."""
    columns = [t(f"trace.causal.{check['kind']}") for check in checks]
    cells = [check_cells(t, check) for check in checks]
    rows = [(t(f"trace.causal.{name}"), [column[name] for column in cells]) for name in ROWS]
    return CausalTable(heading, behaviour, columns, rows)


def check_cells(t: Catalogue, check: dict[str, Any]) -> dict[str, str]:
    """Return the cells of one check, by name of the row."""
    before, after = check["loss_before"], check["loss_after"]
    unknown = before is None or after is None
    return {
        "share": interval(check["share"], percent),
        "random": interval(check["random_share"], percent),
        "before": interval(check["before"], fixed),
        "after": interval(check["after"], fixed),
        "directions": whole(check["num_directions"]),
        "loss": t("trace.undefined") if unknown else f"{fixed(before, 4)} → {fixed(after, 4)}",
    }


def interval(found: dict[str, float], show: Callable[[float], str]) -> str:
    """Return a number with its interval."""
    return f"{show(found['value'])} ({show(found['low'])} – {show(found['high'])})"
