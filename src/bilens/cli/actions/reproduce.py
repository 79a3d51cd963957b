"""What `bilens reproduce` does."""

from __future__ import annotations

from pathlib import Path

from bilens.cli.console import Output
from bilens.studies.registry import find_study
from bilens.studies.runner import PAGE_NAME, run_study
from bilens.studies.study import StudyOptions


def run_reproduce_command(
    output: Output,
    name: str,
    out: Path,
    corpus: str | None,
    models: tuple[str, ...] | None,
    seeds: int | None,
    steps: int | None,
    json: bool,
) -> None:
    """`bilens reproduce`."""
    study = find_study(name)
    options = StudyOptions(corpus=corpus, models=models, seeds=seeds, steps=steps)

    def show(cell: str, done: int, total: int) -> None:
        output.say(f"{cell} ({done + 1} of {total})")

    document = run_study(study, out, options, on_cell=show, say=output.say)
    if json:
        output.json(document)
        return
    text = (out / PAGE_NAME).read_text(encoding="utf-8")
    output.result.print(text, highlight=False, markup=False, soft_wrap=True)
    output.result.print(f"Study: {out}", highlight=False, soft_wrap=True)
