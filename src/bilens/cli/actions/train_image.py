"""What `bilens train image` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilens.api.provenance import this_command, versions
from bilens.cli.actions.shared import training_progress
from bilens.cli.console import Output
from bilens.data.images import load_images
from bilens.train.image_job import train_in_folder
from bilens.train.recipe import Recipe


def run_train_image_command(
    output: Output,
    out: Path,
    dataset: str,
    data_dir: Path | None,
    download: bool,
    options: dict[str, Any],
    resume: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens train image`."""
    recipe = Recipe.from_dict(options)
    data = load_images(dataset, data_dir, allow_download=download, report=output.say)
    output.say(f"Images: {data.source}")
    with output.progress() as progress:
        result = train_in_folder(
            out,
            data,
            recipe,
            resume=resume,
            overwrite=overwrite,
            provenance={"command": this_command(), **versions()},
            on_epoch=training_progress(progress, recipe.epochs),
            say=output.say,
        )
    last = result.history[-1]
    if json:
        output.json({"schema_version": 1, "kind": "training", "folder": str(out), **last.to_dict()})
        return
    seconds = sum(metrics.seconds for metrics in result.history)
    output.result.print(
        f"Test accuracy {last.test_accuracy:.4f} after {last.epoch} epochs "
        f"({seconds:.1f} s of steps, {seconds / last.epoch:.3f} s each).\n"
        f"Model: {out}\nNext:  bilens audit {out}"
        + ("" if data_dir is None else f" --data-dir {data_dir}"),
        highlight=False,
        soft_wrap=True,
    )
