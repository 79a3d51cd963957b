"""The terminal table of a decomposed layer."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bilens.cli.tables.cells import number, plain, short

UNITS = {  # basis -> what else λ is measured in
    "input": "per squared unit of the input",
    "embedding": "per squared unit of the embedding",
    "whitened": "for inputs of unit variance",
}
MOST_OUTPUTS = 50  # of a layer, on a terminal


def decomposition_table(record: dict[str, Any]) -> Table:
    """Return the table of one layer: a row for each pair of each output."""
    outputs = record["outputs"]
    shown = outputs[:MOST_OUTPUTS]
    more = len(outputs) - len(shown)
    table = Table(
        show_edge=False,
        pad_edge=False,
        title=f"{plain(record['layer'])}: {record['output_kind']}, {record['reading']}, "
        f"{record['basis']} basis, "
        f"{record['d_in']} inputs, {record['method']}",
        caption=(f"… and {more} more outputs: see --json or --out. " if more else "")
        + f"λ in units of the output {UNITS[record['basis']]}; "
        "share = λ² / ‖Q‖²; ok = residual within the tolerance; all = proven that no eigenvalue of "
        "the selection was missed (? = not proven). "
        f"{rank_note(record)}"
        "* = one of several eigenvalues too close to separate: only their common space has a "
        "meaning.",
    )
    table.add_column("output")
    for name in ("eff. rank", "‖Q‖", "#", "λ", "share", "residual", "ok", "all"):
        table.add_column(name, justify="right", no_wrap=True)
    for output in shown:
        ranks = rank_lines(output)
        if not output["pairs"]:
            table.add_row(plain(output["name"]), "", "", "", output["status"], end_section=True)
        for position, pair in enumerate(output["pairs"]):
            first = position == 0
            last = position == len(output["pairs"]) - 1
            table.add_row(
                plain(output["name"]) if first else "",
                "\n".join(ranks[position:] if last else ranks[position : position + 1]),
                number(output["frobenius_norm"], ".4g") if first else "",
                f"{position + 1}{'*' * (pair['subspace_size'] > 1)}",
                f"{pair['eigenvalue']:+.5g}",
                f"{pair['explained']:.1%}",
                f"{pair['residual']:.1e}",
                "yes" if pair["converged"] else "NO",
                ("yes" if output["complete"] else "?") if first else "",
                end_section=last,
            )
    return table


def approximation_line(record: dict[str, Any]) -> str | None:
    """Return what has to be said before the table of a layer that is not quadratic."""
    said = record["approximation"]
    if said is None:
        return None
    return (
        f"{record['layer']}: R² = {said['r_squared']:.3f} ± {said['standard_error']:.3f} under "
        f"{said['assumed_input']}. The layer has the activation {said['activation']} and is not "
        "quadratic: the table is of its closest quadratic map, and proves nothing of the layer."
    )


def lines_before(record: dict[str, Any]) -> list[str]:
    """Return what is said before the table of a layer: R² first, then what comes in."""
    reads = record["about_input"]
    known = f"{record['layer']} reads {reads}." if reads else None
    return [line for line in (approximation_line(record), known) if line is not None]


def rank_lines(output: dict[str, Any]) -> list[str]:
    """Return the effective rank of an output and, below it, its level of chance."""
    lines, level = [number(output["effective_rank"], ".2f")], output["effective_rank_null"]
    return lines if level is None else [*lines, "–".join(map(short, (level["low"], level["high"])))]


def rank_note(record: dict[str, Any]) -> str:
    """Return what stands below the effective ranks of a layer, or that nothing does."""
    if record["spectrum"] != "whole":
        return ""
    if record["null_samples"] == 0:
        return "eff. rank: without its level of chance. "
    return (
        f"below eff. rank: what chance gives, 95 % of {record['null_samples']} random rotations "
        "of one branch against the other. "
    )
