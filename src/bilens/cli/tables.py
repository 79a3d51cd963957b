"""Terminal tables of decompositions and explanations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from bilens.checks import readable
from bilens.report.document import displayable

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


def rank_lines(output: dict[str, Any]) -> list[str]:
    """Return the effective rank of an output and, below it, its level of chance."""
    lines, level = [number(output["effective_rank"], ".2f")], output["effective_rank_chance"]
    return lines if level is None else [*lines, "–".join(map(short, (level["low"], level["high"])))]


def short(value: float) -> str:
    """Return a number from 0 to 9999 in at most four digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


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


def plan_table(plans: Sequence[dict[str, Any]]) -> Table:
    """Return what would be done for each layer, a row for each."""
    table = Table(
        title="What would be done",
        caption="pairs: of each output; batch: outputs worked on together; memory: beside the "
        f"model, at most, {readable(plans[0]['limit_bytes'])} allowed; rotations: for the level of "
        "chance of effective ranks.",
    )
    for name in ("layer", "outputs", "pairs", "method", "batch", "memory", "rotations"):
        left = name in ("layer", "method")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "layer")
    for plan in plans:
        table.add_row(
            plain(plan["layer"]),
            str(plan["num_outputs"]),
            str(plan["num_pairs"]),
            plan["method"],
            str(plan["batch"]),
            readable(plan["peak_bytes"]),
            str(plan["null_samples"]),
        )
    return table


def plan_reasons(plans: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Return how each layer would be solved and why, one line for each."""
    for plan in plans:
        how = f"{plan['method']} in {plan['precision']}"
        yield f"{displayable(plan['layer'])}: {how}, {plan['reason']}."


def plain(text: str) -> str:
    """Return a text from a file so that it cannot style or drive the terminal."""
    return escape(displayable(text))


def number(value: float | None, form: str) -> str:
    """Return a number as text, a dash for None."""
    return "—" if value is None else format(value, form)


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
