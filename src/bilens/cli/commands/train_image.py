"""Options of `bilens train image`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.options import DataDir, Dataset, Gate, Json, Overwrite, Precision, Resume


def train_image(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    dataset: Annotated[Dataset, typer.Option(help="Data set.")] = "mnist",
    data_dir: DataDir = None,
    download: Annotated[bool, typer.Option(help="Whether to try a download.")] = True,
    hidden: Annotated[int, typer.Option(help="Width of embedding and layers.", min=1)] = 256,
    layers: Annotated[int, typer.Option(help="Number of bilinear layers.", min=1)] = 1,
    bias: Annotated[bool, typer.Option("--bias", help="Biases in the layers.")] = False,
    residual: Annotated[bool, typer.Option("--residual", help="Layers add their input.")] = False,
    gate: Annotated[Gate, typer.Option(help="Activation on the left branch.")] = "none",
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 100,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 2048,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at the start.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Std of Gaussian noise on each pixel.")] = 0.5,
    model_noise: Annotated[float, typer.Option(help="Std of noise on activations.")] = 0.0,
    dropout: Annotated[float, typer.Option(help="Dropout of activations.")] = 0.0,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated: translation:0.1, rotation:15, blur:0.5, "
            "salt-and-pepper:0.1, correlated-noise:0.3:4."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="auto: bfloat16 where the processor has it.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train an image classifier; Ctrl-C saves it, the same command with --resume goes on.

    Example: bilens train image --dataset mnist --data-dir data --epochs 100 --noise 0.5
    --weight-decay 1.0 --seed 42 --out runs/mnist
    """
    from bilens.cli.actions.train_image import run_train_image_command

    recipe = {
        "d_hidden": hidden,
        "n_layers": layers,
        "bias": bias,
        "residual": residual,
        "gate": None if gate == "none" else gate,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "noise": noise,
        "model_noise": model_noise,
        "dropout": dropout,
        "augmentations": augment or [],
        "precision": precision,
        "seed": seed,
    }
    run_train_image_command(
        context.obj, out, dataset, data_dir, download, recipe, resume, overwrite, json
    )
