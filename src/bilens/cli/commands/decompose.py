"""Options of `bilens decompose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bilens.cli.options import (
    ActivationName,
    AllowPickle,
    DataDir,
    DatasetOption,
    Json,
    ModelPath,
    Overwrite,
    Residual,
    Roles,
    Transposed,
)

Basis = Literal["input", "embedding", "whitened"]
Reading = Literal["centred", "raw"]
Which = Literal["magnitude", "largest", "smallest", "both"]
Spectrum = Literal["auto", "whole", "top"]
Method = Literal["auto", "dense", "lanczos", "factored"]
SolverPrecision = Literal["float32", "float64"]


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
            help="Random rotations for the level of chance of effective ranks, 39 or more; 0 "
            "for none. Each "
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
    roles: Roles = None,
    activation: ActivationName = None,
    transposed: Transposed = None,
    allow_pickle: AllowPickle = False,
    residual: Residual = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take the outputs of each layer apart: eigenvalues, residuals, effective rank.

    Example: bilens decompose runs/demo --top 5 --contrast 4 9
    """
    from bilens.cli.actions.decompose import run_decompose_command

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
        (roles, activation, transposed),
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
