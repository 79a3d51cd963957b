"""`bilens certify` and `bilens attack`."""

from dataclasses import dataclass

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import FAILED, Overwrite, check_outputs, option
from bilens.cli.shared_options import DataFiles, HtmlReport, NamedModel


@dataclass(frozen=True)
class CertifyOptions:
    """The inputs, eigenpairs and radius of `bilens certify`."""

    samples: int = option(1000, "So many test images, drawn at random, get a certified radius.")
    truncate: int | None = option(
        None,
        "Eigenpairs kept of each class; without it, as many as provably keep 99 % of the "
        "predictions.",
        metavar="K",
    )
    radius: float | None = option(
        None,
        "Truncation is bounded over inputs of at most this length; without it, that of the "
        "longest image, or of the box [0, 1]ⁿ.",
        metavar="R",
    )
    seed: int = option(0, "Seed of the attack that bounds ℓ∞ distances.", min=0)


def certify(
    output: Output,
    source: NamedModel,
    data: DataFiles,
    options: CertifyOptions,
    page: HtmlReport,
    overwrite: Overwrite = False,
) -> None:
    """State what is proven about a one-layer classifier: radii, truncation, use of inputs.

    Example: bilens certify runs/mnist --data data --html certificate.html --lang ja
    """
    from bilens.api.classifier import certify_model
    from bilens.report.terminal import certificate_lines, truncation_table

    check_outputs([("--html", page.html)], overwrite)
    model = source.open()
    given = data.find(model, output.say)
    with output.progress() as progress:
        report = certify_model(model, given, progress=progress, **vars(options))
    lines = [*certificate_lines(report.record, page.lang), *page.write(report)]
    output.answer(report.to_dict(), truncation_table(report.record, page.lang), *lines)


@dataclass(frozen=True)
class AttackOptions:
    """Which perturbations are made."""

    target: str | None = option(
        None, "Class that should win, by index or name; each in turn without."
    )
    source: str | None = option(None, "Class that should lose; all but the target without.")
    pairs: bool = option(False, "A perturbation of its own for each source class.")
    epsilons: list[float] | None = option(
        None,
        "Length ‖δ‖₂ of the perturbations; may be repeated. Without: 0 to 8.4; 4.2 is the "
        "paper's std of 0.15 at 784 pixels.",
        "--epsilon",
    )
    seed: int = option(0, "Seed of random perturbations and gradient descents.", min=0)


def attack(
    output: Output,
    file: NamedModel,
    data: DataFiles,
    options: AttackOptions,
    page: HtmlReport,
    overwrite: Overwrite = False,
) -> None:
    """Add one perturbation to every image: the provably best one for the mean margin, and others.

    Example: bilens attack runs/mnist --data data --target 3 --html attack.html
    """
    from bilens.api.classifier import attack_model
    from bilens.report.terminal import attack_lines, attack_tables

    check_outputs([("--html", page.html)], overwrite)
    if options.pairs and options.source is not None:
        raise UsageError("--pairs takes every source in turn, and --source is one: leave one out.")
    model = file.open()
    given = data.find(model, output.say)
    if given is None:
        raise UsageError(
            "an attack needs training and test images: pass --data with a folder of images, "
            "arrays, or the IDX files of a data set, and --dataset where the model does not say it."
        )
    with output.progress() as progress:
        report = attack_model(model, given, progress=progress, **vars(options))
    tables = [part for table in attack_tables(report.record, page.lang) for part in (table, "")]
    lines = [*attack_lines(report.record, page.lang), *page.write(report)]
    output.answer(report.to_dict(), *tables, *lines)
    if not report.holds:
        raise typer.Exit(FAILED)
