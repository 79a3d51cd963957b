"""`bilens decompose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bilens.base.errors import NumericalError, UsageError
from bilens.cli.console import Output, after
from bilens.cli.options import METHOD_PANEL, ImageData, Json, Overwrite, TensorFile

if TYPE_CHECKING:
    from bilens.records.decomposition import LayerPlan

PATIENCE = 2.0  # seconds before a decomposition reports its progress


@dataclass(frozen=True)
class Wanted:
    """What is read of each layer: fields of `Request`."""

    top: Annotated[int, typer.Option(help="Eigenpairs of each output.", min=1)] = 5
    outputs: Annotated[
        str | None,
        typer.Option(
            help="Outputs such as 0,3,7-9; of the logits by name, too. All without. In a layer "
            "inside the model, indices are neurons."
        ),
    ] = None
    basis: Annotated[
        Literal["input", "embedding", "whitened"],
        typer.Option(
            help="Basis of the input; 'embedding' is the paper's; 'whitened' gives the training "
            "images unit covariance (first layer only, see --data-dir)."
        ),
    ] = "input"
    reading: Annotated[
        Literal["centred", "raw"] | None,
        typer.Option(help="Class-centred (logits only, where it is the default) or raw outputs."),
    ] = None
    contrast: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Read one class against another, by index or name: 4 9. Logits only: with "
            "--layer where the model has several layers."
        ),
    ] = None
    which: Annotated[
        Literal["magnitude", "largest", "smallest", "both"],
        typer.Option(help="Largest |λ|, largest λ, smallest λ, or half from both ends."),
    ] = "magnitude"
    spectrum: Annotated[
        Literal["auto", "whole", "top"],
        typer.Option(
            help="whole spectra give effective ranks; top computes the leading pairs alone. "
            "auto: whole up to 1,024 inputs and 128 outputs, where that takes about a minute at "
            "most.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = "auto"
    null_samples: Annotated[
        int,
        typer.Option(
            help="Random rotations for the null intervals of effective ranks, 39 or more; 0 "
            "for none. Each costs about as much as the eigenvalues of all outputs.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = 99
    method: Annotated[
        Literal["auto", "dense", "lanczos", "factored"],
        typer.Option(
            help="Solver; auto takes the cheapest that fits into memory.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = "auto"
    precision: Annotated[
        Literal["float32", "float64"],
        typer.Option(
            help="Residuals within 1e-11 or, in a third of the time, 1e-6 of ‖Q‖.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = "float64"
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Settle what is not proven with a dense solver.",
            rich_help_panel=METHOD_PANEL,
        ),
    ] = False
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the solver's first vector and of the rotations.",
            min=0,
            rich_help_panel=METHOD_PANEL,
        ),
    ] = 0


@dataclass(frozen=True)
class Doing:
    """Which layers, within what, and where to."""

    layer: Annotated[
        list[str] | None, typer.Option(help="Layer; may be repeated. All layers without.")
    ] = None
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory beside the model, such as 800M or 4GiB.", rich_help_panel=METHOD_PANEL
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for <layer>.safetensors and <layer>.json; layers that are there already "
            "are not computed again."
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only say what would be done: method, memory, and why."),
    ] = False


def decompose(
    output: Output,
    source: TensorFile,
    wanted: Wanted,
    images: ImageData,
    doing: Doing,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Take the outputs of each layer apart: eigenvalues, residuals, effective rank.

    Example: bilens decompose runs/demo --top 5 --contrast 4 9
    """
    from bilens.api import decomposition_folder
    from bilens.api.decompose import plan_layers
    from bilens.api.layer_reading import Request, find_moments
    from bilens.records.base import SCHEMA_VERSION, read_document
    from bilens.records.decomposition import LayerDecomposition
    from bilens.report.terminal_readings import decomposition_lines, decomposition_table

    asked = Request(**vars(wanted))
    if asked.basis != "whitened" and images.given:
        raise UsageError("only --basis whitened reads data: leave --dataset and --data-dir out.")
    model = source.open(output.say)
    inputs = None
    if asked.basis == "whitened":
        inputs = find_moments(model, images.dataset, images.data_dir, output.say)
    layers, limit = doing.layer or [], doing.memory_limit
    if doing.plan:
        plans = plan_layers(model, asked, layers=layers, inputs=inputs, memory_limit=limit)
        print_plan(output, plans, json)
        return
    with output.progress() as progress:
        records = decomposition_folder.decompose_layers(
            model,
            asked,
            layers=layers,
            folder=doing.out,
            overwrite=overwrite,
            inputs=inputs,
            memory_limit=limit,
            progress=after(PATIENCE, progress),
        )
    if json:
        output.json({"schema_version": SCHEMA_VERSION, "kind": "decomposition", "layers": records})
    else:
        for record in records:
            found = read_document(LayerDecomposition, record)
            output.lines(*decomposition_lines(found))
            output.tables(decomposition_table(found))
    if doing.out is not None:
        output.say(f"Pairs and records: {doing.out}")
    check_decomposed(records)


def print_plan(output: Output, plans: Sequence[LayerPlan], json: bool) -> None:
    from bilens.records.base import SCHEMA_VERSION, to_json
    from bilens.report.terminal_readings import plan_lines, plan_table

    if json:
        document = {"schema_version": SCHEMA_VERSION, "kind": "decomposition plan"}
        output.json({**document, "layers": [*map(to_json, plans)]})
        return
    output.tables(plan_table(plans))
    output.lines(*plan_lines(plans))


def check_decomposed(records: Sequence[dict[str, Any]]) -> None:
    """Refuse to end as if all were well where outputs were not decomposed."""
    from bilens.algebra.eigen.decomposition import Status

    outputs = [item for record in records for item in record["outputs"]]
    failed = [item for item in outputs if item["status"] != Status.OK.value]
    if failed:
        raise NumericalError(
            f"{len(failed)} of {len(outputs)} outputs were not decomposed: "
            "rescale the weights, or read the outputs that are complete."
        )
