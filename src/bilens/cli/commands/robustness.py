"""`bilens certify` and `bilens attack`."""

import typer

from bilens.api.options import AttackOptions, CertifyOptions
from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import FAILED, Overwrite, check_outputs
from bilens.cli.shared_options import DataFiles, HtmlReport, NamedModel


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
        report = certify_model(model, options, data=given, progress=progress)
    lines = [*certificate_lines(report.record, page.lang), *page.write(report)]
    output.answer(report.to_dict(), truncation_table(report.record, page.lang), *lines)


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
        report = attack_model(model, given, options, progress=progress)
    tables = [part for table in attack_tables(report.record, page.lang) for part in (table, "")]
    lines = [*attack_lines(report.record, page.lang), *page.write(report)]
    output.answer(report.to_dict(), *tables, *lines)
    if not report.holds:
        raise typer.Exit(FAILED)
