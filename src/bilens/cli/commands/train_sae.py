"""Options of `bilens train sae`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import Json, Overwrite, Resume

Sign = Literal["relu", "raw"]
Schedule = Literal["cosine", "linear"]
Device = Literal["auto", "cpu", "cuda"]


def train_sae(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of the language model.")],
    hook: Annotated[
        list[str],
        typer.Option(
            help="Where activations are read, for instance blocks.0.mlp_out; may be repeated: "
            "several are trained in one pass over the model. Points: resid_pre, attn_out, "
            "resid_mid, mlp_in, mlp_out, resid_post."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    corpus: Annotated[
        str | None, typer.Option(help="As for `train language`; left out: the model's own.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of --corpus with the text.")] = None,
    limit: Annotated[int | None, typer.Option(help="Documents of --corpus to read.", min=2)] = None,
    latents: Annotated[
        int | None, typer.Option(help="Size of the dictionary; left out: 4 × the width.", min=2)
    ] = None,
    k: Annotated[int, typer.Option(help="Latents that an input keeps.", min=1)] = 30,
    sign: Annotated[
        Sign, typer.Option(help="raw: negative activations too, as the paper's code does.")
    ] = "relu",
    tokens: Annotated[
        int, typer.Option(help="Activations to train on, rounded up to whole buffers.", min=1)
    ] = 2_000_000,
    batch_size: Annotated[int, typer.Option(help="Activations a step.", min=1)] = 1024,
    buffer_size: Annotated[
        int, typer.Option(help="Activations that are shuffled together.", min=1)
    ] = 131_072,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, at its top.")] = 5e-3,
    schedule: Annotated[Schedule, typer.Option(help="How it falls to zero.")] = "cosine",
    warmup: Annotated[float, typer.Option(help="Share of steps it rises in.")] = 0.05,
    auxiliary: Annotated[float, typer.Option(help="Weight of the loss of dead latents.")] = 1 / 32,
    dead_after: Annotated[
        int, typer.Option(help="Tokens without being kept that make a latent dead.", min=1)
    ] = 131_072,
    device: Annotated[Device, typer.Option(help="auto: a GPU where there is one.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of weights and order.", min=0)] = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train sparse autoencoders on a layer; Ctrl-C saves them, --resume goes on.

    Example: bilens train sae runs/stories --hook blocks.0.mlp_in --hook blocks.0.mlp_out
    --out runs/stories-sae
    """
    from bilens.cli.actions.train_sae import run_train_sae_command

    recipe = {
        "hooks": tuple(hook),
        "num_latents": latents,
        "k": k,
        "sign": sign,
        "tokens": tokens,
        "batch_size": batch_size,
        "buffer_size": buffer_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": warmup,
        "auxiliary": auxiliary,
        "dead_after": dead_after,
        "seed": seed,
    }
    text = (corpus, column, limit)
    run_train_sae_command(context.obj, out, model, text, recipe, device, resume, overwrite, json)
