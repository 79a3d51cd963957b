"""`bilens convert`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from bilens.api.training_options import Running, Together
from bilens.base.files import shortened
from bilens.cli.console import Output
from bilens.cli.options import check_outputs, flags_of, option, refuse_unless
from bilens.cli.shared_options import DataFiles, HtmlReport, NamedFile, say_how_it_was_read
from bilens.train.recipes import ROWS_RECIPE, ConversionRecipe

OF_TEXT = ("--text", "--measure", "--column", "--context-length")


@dataclass(frozen=True)
class ConvertOptions:
    """Into what, and where to."""

    to: Annotated[
        Literal["bilens", "huggingface", "saelens", "sparsify", "official", "onnx", "bilinear"],
        typer.Option(
            help="bilinear: a model with its MLPs replaced by bilinear ones, learnt from --text, "
            "or --data where it reads none; huggingface: a language model as Llama; saelens, "
            "sparsify, official: a sparse autoencoder; onnx: one file of products and sums, of a "
            "bilinear classifier or a table's map; bilens: a folder of ours, of a whole model."
        ),
    ]
    out: Annotated[Path, typer.Option(help="Folder for it; of onnx a file.")]


@dataclass(frozen=True)
class Texts:
    """The texts that a converted language model is trained on and measured on."""

    PANEL: ClassVar = ConversionRecipe.PANEL

    text: list[str] | None = option(
        None, "Text of a domain, as for `train language`; may be repeated."
    )
    measure: list[str] | None = option(
        None, "Text that is only measured on, of a domain that is not learnt; may be repeated."
    )
    column: str | None = option(None, "Column of a table with the text.")
    held_out: float | None = option(
        None, "Share that is only measured on; left out: 0.05 of documents, 0.2 of rows."
    )


def convert(
    output: Output,
    source: NamedFile,
    options: ConvertOptions,
    texts: Texts,
    changes: Annotated[dict[str, Any], ConversionRecipe, ROWS_RECIPE],
    data: DataFiles,
    together: Together,
    running: Running,
    page: HtmlReport,
) -> None:
    """Write a model in another layout, or make its MLPs bilinear.

    --to bilinear learns from --text or --data: layers in closed form, trained, outputs distilled;
    Ctrl-C keeps what is finished, the same command with --resume goes on.

    Example: bilens convert runs/stories --to huggingface --out exports/stories
    """
    if options.to == "bilinear":
        from bilens.report.sections.conversion import summary
        from bilens.report.text import load_catalogue

        check_outputs([("--html", page.html)], running.overwrite or running.resume)
        report = to_bilinear(
            output, source, options.out, texts, changes, data, vars(together) | vars(running)
        )
        record, told = report.record, summary(load_catalogue(page.lang), report.record)
        told += [f"Model: {record.folder}, read by {record.loaded_by}."]
        if output.first:
            output.answer(report.document, *told, *page.write(report))
        return
    of_training = [one for one in flags_of(running) if one != "--overwrite"]
    idle = [*flags_of(texts), *flags_of(ConversionRecipe, changes), *flags_of(data)]
    idle += [*flags_of(together), *of_training, *flags_of(page)]
    refuse_unless(idle, "--to bilinear")
    to_layout(output, source, options.to, options.out, running.overwrite)


def to_layout(output: Output, source: NamedFile, target: Any, out: Path, overwrite: bool) -> None:
    """Write the model in another layout, and say what was written."""
    from bilens.api.convert import convert_model

    model = source.open()
    if model.module is not None:  # what cannot be converted is refused first
        say_how_it_was_read(model, output.say)
    written = convert_model(model, target, out, overwrite=overwrite)
    document: dict[str, Any] = {
        "schema_version": 1,
        "kind": "conversion",
        "source": model.source,
        "weights_sha256": model.weights_sha256,
        "layout": target,
        "folder": str(out),
        "files": written.files,
    }
    told = [f"Written to {out}: {', '.join(written.files)}"]
    if (agreed := written.agreement) is not None:
        document["agreement"] = agreed.to_dict()
        told.append(
            f"Run in {agreed.source} on {agreed.rows} random inputs, it differs from the model by "
            f"{agreed.relative_error:.1e} of the largest output, or less."
        )
        if (names := model.own_input_names) is not None:
            told.append(
                f"A row of its input is {shortened([*names], 8)}, as numbers in this order."
            )
    output.answer(document, *told)


def to_bilinear(
    output: Output,
    source: NamedFile,
    out: Path,
    texts: Texts,
    changes: dict[str, Any],
    data: DataFiles,
    how: dict[str, Any],
) -> Any:
    from bilens.api.conversion_job import convert_to_bilinear
    from bilens.api.network_conversion import convert_network, data_interface
    from bilens.report.reports import ConversionReport
    from bilens.train.corpus import CorpusOptions

    share = texts.held_out
    if data.path is not None:
        given = [*flags_of(texts), *flags_of(ConversionRecipe, changes)]
        refuse_unless([n for n in given if n in OF_TEXT], "text in the place of --data")
        model = source.open(output.say)
        rows = data.find(model, output.say, data_interface(model))
        job = model, rows, out, replace(ROWS_RECIPE, **changes), share
        with output.progress() as bar:
            found = convert_network(*job, report=bar, say=output.say, **how)
        return ConversionReport(found)
    refuse_unless([*flags_of(source), *flags_of(data)], "--data")
    share = 0.05 if share is None else share
    learnt, measured = (
        [CorpusOptions(one, texts.column, held_out=share) for one in names or []]
        for names in (texts.text, texts.measure)
    )
    read = source.model, learnt, out, ConversionRecipe(**changes)
    with output.progress() as bar:
        found = convert_to_bilinear(*read, measured=measured, report=bar, say=output.say, **how)
    return ConversionReport(found)
