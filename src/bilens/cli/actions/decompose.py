"""What `bilens decompose` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bilens.algebra.eigen.decomposition import Status
from bilens.api.decomposition_folder import decompose_layers
from bilens.api.decomposition_request import Request
from bilens.api.input_moments import find_moments
from bilens.api.layer_job import plan_layers
from bilens.base.errors import NumericalError, UsageError
from bilens.cli.actions.shared import Said, Source, open_model
from bilens.cli.console import Output, after
from bilens.cli.tables.decomposition import decomposition_table, lines_before
from bilens.cli.tables.plan import plan_reasons, plan_table
from bilens.findings.records import SCHEMA_VERSION

PATIENCE = 2.0  # seconds before a decomposition reports its progress


def run_decompose_command(
    output: Output,
    source: Source,
    said: Said,
    request: dict[str, Any],
    *,
    layers: Sequence[str],
    dataset: str | None,
    data_dir: Path | None,
    memory_limit: str | None,
    out: Path | None,
    plan: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens decompose`."""
    asked = Request(**request)
    if asked.basis != "whitened" and (dataset is not None or data_dir is not None):
        raise UsageError("only --basis whitened reads data: leave --dataset and --data-dir out.")
    model = open_model(source, said, output.say)
    inputs = None
    if asked.basis == "whitened":
        inputs = find_moments(model, dataset, data_dir, output.say)
    if plan:
        plans = plan_layers(model, asked, layers=layers, inputs=inputs, memory_limit=memory_limit)
        print_plan(output, plans, json)
        return
    with output.progress() as progress:
        records = decompose_layers(
            model,
            asked,
            layers=layers,
            folder=out,
            overwrite=overwrite,
            inputs=inputs,
            memory_limit=memory_limit,
            progress=after(PATIENCE, progress),
        )
    if json:
        output.json({"schema_version": SCHEMA_VERSION, "kind": "decomposition", "layers": records})
    else:
        for record in records:
            for line in lines_before(record):
                output.result.print(line, highlight=False, markup=False, soft_wrap=True)
            output.result.print(decomposition_table(record))
    if out is not None:
        output.say(f"Pairs and records: {out}")
    check_decomposed(records)


def print_plan(output: Output, plans: Sequence[dict[str, Any]], json: bool) -> None:
    """Print what would be done: JSON, or a table and the reasons."""
    if json:
        document = {"schema_version": SCHEMA_VERSION, "kind": "decomposition plan"}
        output.json({**document, "layers": [*plans]})
        return
    output.result.print(plan_table(plans))
    for line in plan_reasons(plans):
        output.result.print(line, highlight=False, markup=False, soft_wrap=True)


def check_decomposed(records: Sequence[dict[str, Any]]) -> None:
    """Refuse to end as if all were well where outputs were not decomposed.

    Raises:
        NumericalError: With their number.
    """
    outputs = [item for record in records for item in record["outputs"]]
    failed = [item for item in outputs if item["status"] != Status.OK.value]
    if failed:
        raise NumericalError(
            f"{len(failed)} of {len(outputs)} outputs were not decomposed: "
            "rescale the weights, or read the outputs that are complete."
        )
