"""What `bilens demo` does."""

from __future__ import annotations

from pathlib import Path

import typer

from bilens.api.demo import DEMO_RECIPE, REPORT_NAME, run_demo
from bilens.cli.actions.shared import FAILED, print_audit, training_progress
from bilens.cli.console import Output
from bilens.data.images import embedded_digits, load_images
from bilens.train.recipe import Recipe


def run_demo_command(
    output: Output,
    out: Path,
    data_dir: Path | None,
    seed: int,
    lang: str,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens demo`."""
    data = embedded_digits() if data_dir is None else load_images("mnist", data_dir)
    output.say(f"Images: {data.source}")
    recipe = Recipe.from_dict({**DEMO_RECIPE.to_dict(), "seed": seed})
    with output.progress() as progress:
        report = run_demo(
            out,
            data,
            recipe=recipe,
            lang=lang,
            overwrite=overwrite,
            on_epoch=training_progress(progress, recipe.epochs),
            progress=progress,
            say=output.say,
        )
    print_audit(output, report, json)
    if not json:
        output.result.print(f"Report: {out / REPORT_NAME}", highlight=False, soft_wrap=True)
    if not report.passed:
        raise typer.Exit(FAILED)
