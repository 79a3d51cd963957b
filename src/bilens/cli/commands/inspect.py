"""`bilens inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from bilens.base.errors import FileError, UsageError
from bilens.cli.console import Output
from bilens.cli.options import Lang


def inspect(
    output: Output,
    path: Annotated[list[Path], typer.Argument(help="Model files of any kind, or folders.")],
    no_code: Annotated[
        bool,
        typer.Option("--no-code", help="Only say which could run code; exit code 3 where one can."),
    ] = False,
    lang: Annotated[Lang, typer.Option(help="Language of tables and sentences.")] = "en",
) -> None:
    """Say what a file or folder is, without running anything in it.

    Format, operations, inputs and outputs, tensors, licence and SHA-256, of models that bilens
    cannot read, too; of a folder every file. Pickles are not opened, but read by their steps.

    Example: bilens inspect model.onnx
    """
    if output.as_json and (no_code or len(path) > 1):
        raise UsageError("--json prints the inventory of one path: leave out what is beside it.")
    from bilens.io.code_in_files import code_in
    from bilens.io.inventory import inventory
    from bilens.report.terminal import inventory_parts

    unsafe = False
    for one in path:
        if no_code:
            lines = code_in(one)
            unsafe = unsafe or bool(lines)
            output.answer({}, *(lines or [f"{one}: nothing found that opening it would run."]))
        else:
            found = inventory(one)
            output.answer(found.to_dict(), *inventory_parts(found, lang))
    if unsafe:
        raise typer.Exit(FileError.exit_code)
