"""`bilens train image`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from bilens.cli.console import Output, Reporter
from bilens.cli.options import (
    MODEL_PANEL,
    TRAINING_PANEL,
    DataDir,
    Gate,
    Json,
    PrecisionOption,
    RunFolder,
    Running,
)

if TYPE_CHECKING:
    from bilens.train.tasks.image import EpochMetrics


@dataclass(frozen=True)
class ImageOptions:
    """Where the images are from."""

    dataset: Annotated[Literal["mnist", "fashion-mnist"], typer.Option(help="Data set.")] = "mnist"
    data_dir: DataDir = None
    download: Annotated[bool, typer.Option(help="Whether to try a download.")] = True


@dataclass(frozen=True)
class Model:
    """Fields of `ImageRecipe`."""

    PANEL: ClassVar = MODEL_PANEL

    d_hidden: Annotated[
        int, typer.Option("--hidden", help="Width of embedding and layers.", min=1)
    ] = 256
    n_layers: Annotated[int, typer.Option("--layers", help="Number of bilinear layers.", min=1)] = 1
    bias: Annotated[bool, typer.Option("--bias", help="Biases in the layers.")] = False
    residual: Annotated[bool, typer.Option("--residual", help="Layers add their input.")] = False
    gate: Annotated[Gate, typer.Option(help="Activation on the left branch.")] = "none"


@dataclass(frozen=True)
class Training:
    """Fields of `ImageRecipe`."""

    PANEL: ClassVar = TRAINING_PANEL

    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 100
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 2048
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at the start.")] = 1e-3
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1.0
    noise: Annotated[float, typer.Option(help="Std of Gaussian noise on each pixel.")] = 0.5
    model_noise: Annotated[float, typer.Option(help="Std of noise on activations.")] = 0.0
    dropout: Annotated[float, typer.Option(help="Dropout of activations.")] = 0.0
    augmentations: Annotated[
        list[str] | None,
        typer.Option(
            "--augment",
            help="May be repeated: translation:0.1, rotation:15, blur:0.5, "
            "salt-and-pepper:0.1, correlated-noise:0.3:4.",
        ),
    ] = None
    precision: PrecisionOption = "auto"
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0


def train_image(
    output: Output,
    out: RunFolder,
    images: ImageOptions,
    model: Model,
    training: Training,
    running: Running,
    json: Json = False,
) -> None:
    """Train an image classifier; Ctrl-C saves it, the same command with --resume goes on.

    Example: bilens train image --dataset mnist --data-dir data --epochs 100 --noise 0.5
    --weight-decay 1.0 --seed 42 --out runs/mnist
    """
    from bilens.api.provenance import this_command, versions
    from bilens.data.images import load_images
    from bilens.train.recipe import find_device
    from bilens.train.tasks.image import ImageRecipe, train_in_folder

    recipe = ImageRecipe.from_dict(
        {
            **vars(model),
            "gate": None if model.gate == "none" else model.gate,
            **vars(training),
            "augmentations": training.augmentations or [],
        }
    )
    data = load_images(
        images.dataset, images.data_dir, allow_download=images.download, report=output.say
    )
    output.say(f"Images: {data.source}")
    with output.progress() as progress:
        result = train_in_folder(
            out,
            data,
            recipe,
            find_device(running.device),
            resume=running.resume,
            overwrite=running.overwrite,
            provenance={"command": this_command(), **versions()},
            on_epoch=training_progress(progress, recipe.epochs),
            say=output.say,
        )
    last = result.history[-1]
    if json:
        output.json({"schema_version": 1, "kind": "training", "folder": str(out), **last.to_dict()})
        return
    seconds = sum(metrics.seconds for metrics in result.history)
    more = "" if images.data_dir is None else f" --data-dir {images.data_dir}"
    output.lines(
        f"Test accuracy {last.test_accuracy:.4f} after {last.epoch} epochs "
        f"({seconds:.1f} s of steps, {seconds / last.epoch:.3f} s each).",
        f"Model: {out}",
        f"Next:  bilens audit {out}{more}",
    )


def training_progress(progress: Reporter, epochs: int) -> Callable[[EpochMetrics], None]:

    def show(metrics: EpochMetrics) -> None:
        text = f"loss {metrics.train_loss:.4f}, test accuracy {metrics.test_accuracy:.4f}"
        progress("training", metrics.epoch, epochs, text)

    return show
