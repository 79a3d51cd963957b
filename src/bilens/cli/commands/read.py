"""`bilens read`."""

from pathlib import Path
from typing import Annotated

import typer

from bilens.api.options import ReadNetworkOptions
from bilens.base.files import write_file
from bilens.cli.console import Output
from bilens.cli.options import Overwrite, check_outputs
from bilens.cli.shared_options import HtmlReport


def read(
    output: Output,
    network: Annotated[
        Path,
        typer.Argument(
            help="Folder of a polynomial transformer, or a .safetensors file with --roles."
        ),
    ],
    options: ReadNetworkOptions,
    page: HtmlReport,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown to this file.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Read the rules of one, two and three tokens that a polynomial network holds.

    Exactly, from the weights alone, beside chance; where in the network each is computed, and what
    is not explained. A model with a softmax is no polynomial, and is refused.

    Example: bilens read runs/polynomial --html network.html
    """
    from bilens.api.network_reading import read_network
    from bilens.report.terminal_readings import network_tables

    check_outputs([("--html", page.html), ("--markdown", markdown)], overwrite)
    with output.progress() as progress:
        report = read_network(network, options, progress=progress)
    lines = page.write(report)
    if markdown is not None:
        write_file(markdown, report.to_markdown(lang=page.lang).encode())
        lines.append(f"Report: {markdown}")
    output.answer(report.to_dict(), *network_tables(report.record, page.lang), *lines)
