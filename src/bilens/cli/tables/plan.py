"""The terminal table of what would be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from bilens.base.memory import readable
from bilens.cli.tables.cells import plain
from bilens.records.base import displayable


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
