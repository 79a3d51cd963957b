"""`bl.reproduce`: the studies are a distribution of their own, imported when they are asked for."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bilens.base import silent
from bilens.base.errors import MissingExtraError


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
        MissingExtraError: If the package `bilens-studies` is not installed.
        OutputExistsError: If the folder holds something else.
        InterruptedRunError: If Ctrl-C was pressed; the same call goes on.
        BilensError: What the first study ended with, where none of them ran.
    """
    if find_spec("bilens_studies") is None:
        raise MissingExtraError("bilens-studies", "", "bilens.reproduce")
    from bilens_studies.reproduction import reproduce_with

    return reproduce_with(names, out, options, on_cell=on_cell, say=say)
