"""Options that several commands share: one spelling, one help, one type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Dataset = Literal["mnist", "fashion-mnist"]
Lang = Literal["en", "ja"]
Gate = Literal["none", "relu", "gelu", "silu"]
Precision = Literal["auto", "float32", "bfloat16"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the IDX files of the data set (.gz or raw).")
]
DatasetOption = Annotated[
    Dataset | None, typer.Option(help="Data set in --data-dir; the model usually says it itself.")
]
ModelPath = Annotated[
    Path,
    typer.Argument(help="Model folder, .safetensors or .gguf file, .bin of llama2.c, or .pt file."),
]
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
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="ROLE=TENSOR",
        help="What a tensor of a .safetensors file is: up, down or gate, with _bias, and .0, .1, … "
        "for several layers; repeat it for each. Without it names and shapes are guessed from.",
    ),
]
ActivationName = Annotated[
    str | None,
    typer.Option(
        "--activation",
        help="Of the layers of a .safetensors file: relu, gelu, leaky_relu:0.2, …; identity for a "
        "product without one; gelu,relu is one for each layer.",
    ),
]
Transposed = Annotated[
    bool | None,
    typer.Option(
        "--transposed/--no-transposed",
        help="Whether matrices of a .safetensors file are (in, out); needed where shapes leave it "
        "open.",
    ),
]
