"""`bl.reproduce`; the studies, which load much, are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bilens.base import silent
from bilens.base.errors import UsageError
from bilens.base.files import check_path


def reproduce(
    names: str | Sequence[str],
    out: str | Path,
    *,
    on_cell: Callable[[str, str, int, int], None] = silent,
    say: Callable[[str], None] = silent,
    **options: Any,
) -> dict[str, Any]:
    """Repeat published measurements, as `bilens reproduce` does; cells already measured are kept.

    A study that lacks an option or its data, or fails, is left out with the reason, and the
    others run; one that lacks a further data set of images reads the first.

    Args:
        names: studies or groups of them: ["toy", "vision/corners"].
        out: folder for the studies, each under its name, and for the page about all of them.
        on_cell: is told study, measurement, how many are done and how many there are.
        say: is told sentences.
        options: `corpus`, `models` (a tuple of run folders), `seeds`, `steps`, `tokens`,
            `data_dir`, `full` and `quick`, as those of the command; each study takes what it reads.

    Returns:
        JSON values: `studies`, the document of each by name, and `left_out`, why others are not.

    Raises:
        UsageError: If there is no such study or option, or no study reads the option.
        OutputExistsError: If the folder holds something else.
        InterruptedRunError: If Ctrl-C was pressed; the same call goes on.
        BilensError: What the first study ended with, where none of them ran.
    """
    from bilens.studies import reproduction
    from bilens.studies.study import StudyOptions

    known = [field.name for field in fields(StudyOptions)][:-1]  # the last is not asked for
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"there is no option {unknown[0]!r}: use one of {', '.join(known)}.")
    studies = [names] if isinstance(names, str) else names
    folder, asked = check_path("out", out), StudyOptions(**options)
    return reproduction.reproduce(studies, folder, asked, on_cell=on_cell, say=say)
