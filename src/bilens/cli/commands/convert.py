"""`bilens convert`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import TRAINING_PANEL, check_outputs, option, refuse_unless, said
from bilens.cli.shared_options import (
    DataFiles,
    HtmlReport,
    Running,
    TensorFile,
    Together,
    say_how_it_was_read,
)

OF_TEXT = ("--text", "--measure", "--column", "--context-length")


@dataclass(frozen=True)
class ConvertOptions:
    """Into what, and where to."""

    to: Annotated[
        Literal["bilens", "huggingface", "saelens", "sparsify", "official", "bilinear"],
        typer.Option(
            help="bilinear: a model with its MLPs replaced by bilinear ones, learnt from --text, "
            "or --data where it reads none; huggingface: a language model as Llama; saelens, "
            "sparsify, official: a sparse autoencoder; bilens: a folder of ours, of a whole model."
        ),
    ]
    out: Annotated[Path, typer.Option(help="Folder for it.")]


@dataclass(frozen=True)
class BilinearOptions:
    """Fields of `ConversionRecipe`, and the text; None is the recipe's own."""

    PANEL: ClassVar = f"{TRAINING_PANEL} (--to bilinear)"

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
    tokens: int | None = option(None, "Budget of all stages, in tokens or rows of --data.", min=1)
    layers: str | None = option(None, "Blocks to convert, as 0-9,12; left out: all.")
    keep: str | None = option(None, "Blocks to leave as they are, as 28,29.")
    passes: int | None = option(
        None, "Passes of the distillation through its text, which --tokens counts once.", min=1
    )
    keep_worst: int | None = option(
        None, "As many blocks more, those that cost most where they alone are swapped in.", min=0
    )
    minutes: float | None = option(None, "Budget of the distillation, in place of tokens.")
    parallel: int | None = option(
        None, "Blocks fitted together, in threads, to what the teacher sees; 0: in turn.", min=0
    )
    texts_at_once: int | None = option(
        None, "Texts of a step that run together; 0 for all. Fewer take less memory.", min=0
    )
    recompute: bool = option(False, "Gradient checkpointing: less memory, a third more time.")
    unfreeze: bool = option(False, "Let all weights learn in the last quarter of the steps.")
    hidden_multiplier: int | None = option(None, "Products for each neuron.", min=1)
    linear_skip: bool = option(False, "A linear path past the products.")
    layer_tokens: int | None = option(None, "Tokens or rows that each layer is fitted to.", min=1)
    layer_steps: int | None = option(None, "Steps of training for each layer.", min=0)
    optimizer: Literal["adamw", "muon"] | None = option(None, "Of the distillation.")
    learning_rate: float | None = option(None, "Of the distillation, at its top.")
    n_ctx: int | None = option(None, "Tokens of a text.", "--context-length", min=2)
    skip: list[str] | None = option(
        None, "A stage to leave out: fit, training or distillation; may be repeated."
    )
    measured_tokens: int | None = option(None, "Held-out tokens a domain, or rows.", min=1)
    seed: int = option(0, "Which text is learnt from, and in which order.", min=0)

    def recipe(self) -> dict[str, Any]:
        """Return what was said of the recipe."""
        found = {name: value for name, value in vars(self).items() if value is not None}
        found |= {name: numbers(name, found[name]) for name in ("layers", "keep") if name in found}
        found["skip"] = tuple(found.get("skip", ()))
        others = ("text", "measure", "column", "held_out")
        return {name: found[name] for name in found if name not in others}


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a text such as 0-9,12."""
    found: list[int] = []
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if not all(end.isdecimal() for end in ends) or len(ends) > 2:
            raise UsageError(f"--{name} {text}: expected numbers of blocks, for example 0-9,12.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise UsageError(f"--{name} {text}: {part} goes backwards; write {last}-{first}.")
        found += range(first, last + 1)
    return tuple(found)


def convert(
    output: Output,
    source: TensorFile,
    options: ConvertOptions,
    bilinear: BilinearOptions,
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
            output, source, options.out, bilinear, data, {**vars(together), **vars(running)}
        )
        record, told = report.record, summary(load_catalogue("en"), report.record)
        told += [*record.notes, f"Model: {record.folder}, read by {record.loaded_by}."]
        if output.first:
            output.answer(report.document, *told, *page.write(report))
        return
    of_training = [one for one in said(running) if one != "--overwrite"]
    idle = [*said(bilinear), *said(data), *said(together), *of_training, *said(page)]
    refuse_unless(idle, "--to bilinear")
    from bilens.api.convert import convert_model

    model = source.open()
    if model.module is not None:  # what cannot be converted is refused first
        say_how_it_was_read(model, output.say)
    written = convert_model(model, options.to, options.out, overwrite=running.overwrite)
    document = {
        "schema_version": 1,
        "kind": "conversion",
        "source": model.source,
        "weights_sha256": model.weights_sha256,
        "layout": options.to,
        "folder": str(options.out),
        "files": written,
    }
    output.answer(document, f"Written to {options.out}: {', '.join(written)}")


def to_bilinear(
    output: Output,
    source: TensorFile,
    out: Path,
    bilinear: BilinearOptions,
    data: DataFiles,
    how: dict[str, Any],
) -> Any:
    from bilens.api.conversion import convert_to_bilinear
    from bilens.api.network_conversion import RECIPE, convert_network, data_interface
    from bilens.report.reports import ConversionReport
    from bilens.train.corpus import CorpusOptions
    from bilens.train.layer_fit import ConversionRecipe

    column, share, changes = bilinear.column, bilinear.held_out, bilinear.recipe()
    if bilinear.minutes is not None and bilinear.tokens is not None:
        raise UsageError("--minutes is a budget in the place of --tokens: give one of them.")
    if data.path is not None:
        refuse_unless([n for n in said(bilinear) if n in OF_TEXT], "text in the place of --data")
        model = source.open(output.say)
        rows = data.find(model, output.say, data_interface(model))
        given = model, rows, out, replace(RECIPE, **changes), share
        with output.progress() as bar:
            found = convert_network(*given, report=bar, say=output.say, **how)
        return ConversionReport(found)
    refuse_unless([*said(source), *said(data)], "--data")
    share = 0.05 if share is None else share
    texts, measured = (
        [CorpusOptions(one, column, held_out=share) for one in names or []]
        for names in (bilinear.text, bilinear.measure)
    )
    read = source.model, texts, out, ConversionRecipe(**changes)
    with output.progress() as bar:
        found = convert_to_bilinear(*read, measured=measured, report=bar, say=output.say, **how)
    return ConversionReport(found)
