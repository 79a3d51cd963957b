"""`bilens inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.console import Output
from bilens.cli.options import Lang


def inspect(
    output: Output,
    path: Annotated[Path, typer.Argument(help="Model file of any kind, or a folder.")],
    lang: Annotated[Lang, typer.Option(help="Language of tables and sentences.")] = "en",
) -> None:
    """Say what a file or folder is, without running anything in it.

    Format, operations, inputs and outputs, tensors, licence and SHA-256, of models that bilens
    cannot read, too; of a folder every file. Pickles are not opened, but read by their steps.

    Example: bilens inspect model.onnx
    """
    from bilens.io.inventory import inventory
    from bilens.report.terminal import inventory_parts

    found = inventory(path)
    output.answer(found.to_dict(), *inventory_parts(found, lang))
