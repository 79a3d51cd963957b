"""`bilens train language`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from bilens.cli.console import Output
from bilens.cli.options import (
    MODEL_PANEL,
    TRAINING_PANEL,
    Gate,
    Json,
    PrecisionOption,
    RunFolder,
    Running,
    Schedule,
)

if TYPE_CHECKING:
    from bilens.train.corpus import CorpusOptions
    from bilens.train.tasks.language import LanguageMetrics


@dataclass(frozen=True)
class Corpus:
    """Fields of `CorpusOptions`."""

    PANEL: ClassVar = "Corpus"

    corpus: Annotated[
        str,
        typer.Option(
            help="A text file, a folder of .txt files, a table (.json, .csv, .parquet), 'grammar' "
            "for stories with a known rule, or a Hugging Face data set."
        ),
    ]
    column: Annotated[str | None, typer.Option(help="Column of a table with the text.")] = None
    split: Annotated[str, typer.Option(help="Split of a Hugging Face data set.")] = "train"
    limit: Annotated[int | None, typer.Option(help="Documents to read at most.", min=2)] = None
    stream: Annotated[bool, typer.Option("--stream", help="Do not download all of it.")] = False
    held_out: Annotated[float, typer.Option(help="Share of documents to judge on.")] = 0.05
    corpus_seed: Annotated[int, typer.Option(help="Which documents those are.", min=0)] = 0

    def options(self) -> CorpusOptions:
        from bilens.train.corpus import CorpusOptions

        given = dict(vars(self))
        return CorpusOptions(seed=given.pop("corpus_seed"), **given)


@dataclass(frozen=True)
class Model:
    """Fields of `LanguageRecipe`; None is what fits the corpus."""

    PANEL: ClassVar = MODEL_PANEL

    tokenizer: Annotated[
        Literal["byte-bpe", "wordpiece-lower", "word"] | None,
        typer.Option(help="Kind of tokenizer."),
    ] = None
    vocab_size: Annotated[int | None, typer.Option("--vocabulary", help="Tokens in it.", min=3)] = (
        None
    )
    d_model: Annotated[
        int | None, typer.Option("--model-width", help="Residual stream.", min=2)
    ] = None
    d_hidden: Annotated[
        int | None, typer.Option("--hidden", help="Products in each MLP.", min=1)
    ] = None
    n_layer: Annotated[int | None, typer.Option("--layers", help="Blocks.", min=1)] = None
    n_head: Annotated[int | None, typer.Option("--heads", help="Attention heads.", min=1)] = None
    n_ctx: Annotated[
        int | None, typer.Option("--context-length", help="Tokens in sight.", min=2)
    ] = None
    gate: Annotated[Gate, typer.Option(help="Activation on the left branch.")] = "none"
    mlp_type: Annotated[
        Literal["gated", "ordinary"],
        typer.Option("--mlp", help="ordinary: GELU, one branch, equally many weights."),
    ] = "gated"
    tied: Annotated[bool, typer.Option("--tied", help="Unembed with the embedding.")] = False


@dataclass(frozen=True)
class Training:
    """Fields of `LanguageRecipe`; None is what fits the corpus."""

    PANEL: ClassVar = TRAINING_PANEL

    epochs: Annotated[float | None, typer.Option(help="Passes over the corpus.")] = None
    steps: Annotated[int | None, typer.Option(help="Updates, in place of epochs.", min=1)] = None
    batch_size: Annotated[int | None, typer.Option(help="Texts a step.", min=1)] = None
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, at its top.")] = None
    schedule: Annotated[Schedule | None, typer.Option(help="How it falls to zero.")] = None
    warmup: Annotated[float | None, typer.Option(help="Share of steps it rises in.")] = None
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None
    clip: Annotated[float | None, typer.Option(help="Greatest norm of a gradient.")] = None
    dropout: Annotated[float | None, typer.Option(help="On what the blocks add.")] = None
    evaluations: Annotated[
        int | None, typer.Option(help="How often the held-out loss is measured.", min=1)
    ] = None
    precision: PrecisionOption = "auto"
    seed: Annotated[int, typer.Option(help="Seed of weights and order.", min=0)] = 0


def train_language(
    output: Output,
    corpus: Corpus,
    out: RunFolder,
    model: Model,
    training: Training,
    running: Running,
    json: Json = False,
) -> None:
    """Train a language model; Ctrl-C saves it, the same command with --resume goes on.

    Options that are left out fit the corpus: a small model for the story grammar, one that a
    laptop trains in minutes for text.

    Example: bilens train language --corpus stories.txt --out runs/stories
    """
    from bilens.api import train as job
    from bilens.train.tasks.language import default_recipe

    wanted = {**vars(model), "gate": None if model.gate == "none" else model.gate, **vars(training)}
    given = {name: value for name, value in wanted.items() if value is not None}
    recipe = dataclasses.replace(default_recipe(corpus.corpus), **given)
    with output.progress() as progress:

        def show(line: LanguageMetrics, lines: int) -> None:
            text = (
                f"step {line.step}, loss {line.train_loss:.3f}, held out {line.held_out_loss:.3f}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, text)

        result = job.train_language(
            out,
            corpus.options(),
            recipe,
            on_line=show,
            say=output.say,
            **vars(running),
        )
    document = result.to_dict()
    if json:
        output.json(document)
        return
    output.lines(
        f"Held-out loss {document['held_out_loss']:.4f} nats per token "
        f"({document['held_out_bits_per_byte']:.4f} bits per byte, "
        f"{document['held_out_bits_per_character']:.4f} per character) after "
        f"{document['step']:,} steps in {document['total_seconds']:.0f} s.\n\n"
        f"{result.sample}\n\nModel: {out}"
    )
