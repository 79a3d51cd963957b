"""`bilens train sae`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from bilens.cli.console import Output
from bilens.cli.options import (
    TRAINING_PANEL,
    Json,
    LanguageModel,
    RunFolder,
    Running,
    Schedule,
    Text,
)

if TYPE_CHECKING:
    from bilens.train.tasks.sae import SAELine


@dataclass(frozen=True)
class Dictionary:
    """Fields of `SAERecipe`: what is trained."""

    hooks: Annotated[
        list[str],
        typer.Option(
            "--hook",
            help="Where activations are read, for instance blocks.0.mlp_out; may be repeated: "
            "several are trained in one pass over the model. Points: resid_pre, attn_out, "
            "resid_mid, mlp_in, mlp_out, resid_post.",
        ),
    ]
    num_latents: Annotated[
        int | None,
        typer.Option("--latents", help="Size of the dictionary; left out: 4 × the width.", min=2),
    ] = None
    k: Annotated[int, typer.Option(help="Latents that an input keeps.", min=1)] = 30
    sign: Annotated[
        Literal["relu", "raw"],
        typer.Option(help="raw: negative activations too, as the paper's code does."),
    ] = "relu"
    tokens: Annotated[
        int, typer.Option(help="Activations to train on, rounded up to whole buffers.", min=1)
    ] = 2_000_000


@dataclass(frozen=True)
class Training:
    """Fields of `SAERecipe`: how."""

    PANEL: ClassVar = TRAINING_PANEL

    batch_size: Annotated[int, typer.Option(help="Activations a step.", min=1)] = 1024
    buffer_size: Annotated[
        int, typer.Option(help="Activations that are shuffled together.", min=1)
    ] = 131_072
    learning_rate: Annotated[float, typer.Option(help="Of Adam, at its top.")] = 5e-3
    schedule: Annotated[Schedule, typer.Option(help="How it falls to zero.")] = "cosine"
    warmup: Annotated[float, typer.Option(help="Share of steps it rises in.")] = 0.05
    auxiliary: Annotated[float, typer.Option(help="Weight of the loss of dead latents.")] = 1 / 32
    dead_after: Annotated[
        int, typer.Option(help="Tokens without being kept that make a latent dead.", min=1)
    ] = 131_072
    seed: Annotated[int, typer.Option(help="Seed of weights and order.", min=0)] = 0


def train_sae(
    output: Output,
    model: LanguageModel,
    dictionary: Dictionary,
    out: RunFolder,
    text: Text,
    training: Training,
    running: Running,
    json: Json = False,
) -> None:
    """Train sparse autoencoders on a layer; Ctrl-C saves them, --resume goes on.

    Example: bilens train sae runs/stories --hook blocks.0.mlp_in --hook blocks.0.mlp_out
    --out runs/stories-sae
    """
    from bilens.api import train as job
    from bilens.train.tasks.sae import SAERecipe

    recipe = SAERecipe.from_dict(
        {**vars(dictionary), "hooks": tuple(dictionary.hooks), **vars(training)}
    )
    with output.progress() as progress:

        def show(line: SAELine, lines: int) -> None:
            worst = max(line.fvu, key=line.fvu.__getitem__)
            said = (
                f"step {line.step}, {line.fvu[worst]:.3f} of the variance left at {worst}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, said)

        result = job.train_sae(
            out,
            model,
            recipe,
            corpus=text.options(),
            on_line=show,
            say=output.say,
            **vars(running),
        )
    document = result.to_dict()
    if json:
        output.json(document)
    else:
        output.lines(*map(sae_lines, document["saes"]))


def sae_lines(sae: dict[str, Any]) -> str:
    return (
        f"{sae['hook']}: normalised MSE {sae['nmse']:.4f}, of the variance {sae['fvu']:.4f}, "
        f"L0 {sae['l0']:.1f}, dead "
        f"{sae['dead_in_training']:.1%} in training, {sae['dead']:.1%} on {sae['tokens']:,} "
        f"held-out tokens\n"
        f"  loss {sae['loss']:.4f}, with the SAE in place {sae['loss_patched']:.4f} "
        f"({sae['loss_added']:+.4f}), zeros {sae['loss_zero']:.4f}, the mean "
        f"{sae['loss_mean']:.4f}\n"
        f"  loss recovered {share(sae['recovered_from_zero'])} against zero-ablation, "
        f"{share(sae['recovered_from_mean'])} against mean-ablation\n"
        f"  SAE: {sae['folder']}"
    )


def share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"
