"""`bilens certify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bilens.cli.console import Output
from bilens.cli.options import HtmlReport, ImageData, Json, ModelFile, Overwrite, refuse_existing


@dataclass(frozen=True)
class CertifyOptions:
    """What is certified."""

    samples: Annotated[
        int, typer.Option(help="The first so many test images get a certified radius.")
    ] = 1000
    truncate: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Eigenpairs kept of each class; without it, as many as provably keep 99 % of "
            "the predictions.",
        ),
    ] = None
    radius: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Truncation is bounded over inputs of at most this length; without it, that of "
            "the longest image, or of the box [0, 1]ⁿ.",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Seed of the attack that bounds ℓ∞ distances.", min=0)
    ] = 0


def certify(
    output: Output,
    source: ModelFile,
    images: ImageData,
    options: CertifyOptions,
    page: HtmlReport,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """State what is proven about a one-layer classifier: radii, truncation, use of inputs.

    Example: bilens certify runs/mnist --data-dir data --html certificate.html --lang ja
    """
    from bilens.api.robustness import certify_model
    from bilens.report.terminal import certificate_lines, truncation_table

    refuse_existing(page.html, overwrite)
    model = source.open()
    data = images.find(model, output.say)
    with output.progress() as progress:
        report = certify_model(model, data, progress=progress, **vars(options))
    written = page.write(report)
    if json:
        output.json(report.to_dict())
        return
    output.tables(truncation_table(report.record))
    output.lines(*certificate_lines(report.record), *written)
