"""What `bilens train table` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bilens.api.provenance import this_command, versions
from bilens.cli.console import Output
from bilens.data.csv_table import read_table
from bilens.data.training_table import Missing, Task, training_table
from bilens.io.tensors import file_sha256
from bilens.train.run_files import TEST_NAME
from bilens.train.table.recipe import TableRecipe
from bilens.train.table.table_run import train_table_in_folder


def run_train_table_command(
    output: Output,
    data: Path,
    target: str,
    out: Path,
    options: dict[str, Any],
    *,
    task: Task,
    drop: Sequence[str],
    missing: Missing,
    test: float,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens train table`."""
    recipe = TableRecipe(**options)
    table = training_table(read_table(data), target, task=task, drop=drop, missing=missing)
    for note in table.notes:
        output.say(note)
    classes = table.class_names
    kind = "numbers" if classes is None else f"{len(classes)} classes"
    output.say(f"{len(table.values)} rows, {len(table.names)} inputs; {target!r} holds {kind}.")
    sha256 = file_sha256(data)
    metrics = train_table_in_folder(
        out,
        table,
        recipe,
        target_name=target,
        test_fraction=test,
        about_data={"source": str(data), "sha256": sha256, "target": target, "missing": missing},
        provenance={
            "command": this_command(),
            **versions(),
            "data_source": str(data),
            "data_table_sha256": sha256,
        },
        overwrite=overwrite,
    )
    if json:
        output.json(
            {"schema_version": 1, "kind": "table training", "folder": str(out), **asdict(metrics)}
        )
        return
    judged = (
        f"{metrics.score} {metrics.train_score:.4f} on the {metrics.train_rows} training rows"
        if metrics.test_score is None
        else f"Test {metrics.score} {metrics.test_score:.4f} on {metrics.test_rows} rows"
    )
    rows = data if metrics.test_score is None else out / TEST_NAME
    plain = "the mean" if classes is None else "the most frequent class"
    chance = "" if metrics.chance_score is None else f" ({plain}: {metrics.chance_score:.4f})"
    output.result.print(
        f"{judged}{chance}.\nModel: {out}\nNext:  bilens audit {out} --table {rows} "
        "--html report.html",
        highlight=False,
        soft_wrap=True,
    )
