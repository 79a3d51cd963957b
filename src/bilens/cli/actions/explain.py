"""What `bilens explain` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bilens.cli.actions.shared import Source, open_model
from bilens.cli.console import Output
from bilens.cli.tables.explanation import explanation_tables
from bilens.errors import UsageError
from bilens.workflows.explain import explain_image
from bilens.workflows.judging_data import find_test_data


def run_explain_command(
    output: Output,
    source: Source,
    indices: Sequence[int],
    *,
    dataset: str | None,
    data_dir: Path | None,
    json: bool,
) -> None:
    """`bilens explain`."""
    model = open_model(source)
    data = find_test_data(model, dataset, data_dir, output.say)
    if data is None:
        raise UsageError(
            "an explanation needs the test images: pass --data-dir with the IDX files of the data "
            "set, and --dataset where the model does not say it."
        )
    document = explain_image(model, data, indices)
    if json:
        output.json(document)
        return
    for table in explanation_tables(document):
        output.result.print(table)
