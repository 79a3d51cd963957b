"""Options of `bilens train language`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import Gate, Json, Overwrite, Precision, Resume

TokenizerKind = Literal["byte-bpe", "wordpiece-lower", "word"]
MLPType = Literal["gated", "ordinary"]
Schedule = Literal["linear", "cosine"]
Device = Literal["auto", "cpu", "cuda"]


def train_language(
    context: typer.Context,
    corpus: Annotated[
        str,
        typer.Option(
            help="A text file, a folder of .txt files, a table (.json, .csv, .parquet), 'grammar' "
            "for stories with a known rule, or a Hugging Face data set."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    column: Annotated[str | None, typer.Option(help="Column of a table with the text.")] = None,
    split: Annotated[str, typer.Option(help="Split of a Hugging Face data set.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Documents to read at most.", min=2)] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Do not download all of it.")] = False,
    held_out: Annotated[float, typer.Option(help="Share of documents to judge on.")] = 0.05,
    corpus_seed: Annotated[int, typer.Option(help="Which documents those are.", min=0)] = 0,
    tokenizer: Annotated[TokenizerKind | None, typer.Option(help="Kind of tokenizer.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Tokens in it.", min=3)] = None,
    model_width: Annotated[int | None, typer.Option(help="Residual stream.", min=2)] = None,
    hidden: Annotated[int | None, typer.Option(help="Products in each MLP.", min=1)] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks.", min=1)] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads.", min=1)] = None,
    context_length: Annotated[int | None, typer.Option(help="Tokens in sight.", min=2)] = None,
    gate: Annotated[Gate, typer.Option(help="Activation on the left branch.")] = "none",
    mlp: Annotated[
        MLPType, typer.Option(help="ordinary: GELU, one branch, equally many weights.")
    ] = "gated",
    tied: Annotated[bool, typer.Option("--tied", help="Unembed with the embedding.")] = False,
    epochs: Annotated[float | None, typer.Option(help="Passes over the corpus.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, in place of epochs.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts a step.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW, at its top.")] = None,
    schedule: Annotated[Schedule | None, typer.Option(help="How it falls to zero.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of steps it rises in.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    clip: Annotated[float | None, typer.Option(help="Greatest norm of a gradient.")] = None,
    dropout: Annotated[float | None, typer.Option(help="On what the blocks add.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="How often the held-out loss is measured.", min=1)
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="auto: bfloat16 where the processor has it.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="auto: a GPU where there is one.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of weights and order.", min=0)] = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train a language model; Ctrl-C saves it, the same command with --resume goes on.

    Options that are left out fit the corpus: a small model for the story grammar, one that a
    laptop trains in minutes for text.

    Example: bilens train language --corpus stories.txt --out runs/stories
    """
    from bilens.cli.actions.train_language import run_train_language_command
    from bilens.train.language.corpus import CorpusOptions

    source = CorpusOptions(corpus, column, split, held_out, limit, corpus_seed, stream)
    recipe = {
        "tokenizer": tokenizer,
        "vocab_size": vocabulary,
        "d_model": model_width,
        "d_hidden": hidden,
        "n_layer": layers,
        "n_head": heads,
        "n_ctx": context_length,
        "gate": None if gate == "none" else gate,
        "mlp_type": mlp,
        "tied": tied,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "clip": clip,
        "dropout": dropout,
        "evaluations": evaluations,
        "precision": precision,
        "seed": seed,
    }
    run_train_language_command(context.obj, out, source, recipe, device, resume, overwrite, json)
