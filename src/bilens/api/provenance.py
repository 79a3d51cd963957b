"""Where a result comes from: weights, data, command, versions, hardware, date."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilens.data.images import ImageDataset
from bilens.io.load import LoadedModel
from bilens.version import VERSION


def describe_source(loaded: LoadedModel | None) -> dict[str, Any]:
    """Return where the weights come from; a module in memory has no file."""
    if loaded is None:
        return {"path": "", "weights_sha256": "", "provenance": {}}
    return {
        "path": loaded.source,
        "weights_sha256": loaded.weights_sha256,
        "provenance": dict(loaded.provenance),
    }


def describe_data(data: ImageDataset | tuple[Tensor, Tensor] | None) -> dict[str, Any] | None:
    """Return which images the accuracy is of."""
    if data is None:
        return None
    if isinstance(data, ImageDataset):
        return {
            "name": data.name,
            "source": data.source,
            "source_kind": data.source_kind,
            "num_images": len(data.test_images),
            "sha256": data.fingerprint,
        }
    return {
        "name": "",
        "source": "tensors passed by the caller",
        "source_kind": "tensors",
        "num_images": len(data[0]),
        "sha256": "",
    }


def describe_run(command: str | None, seed: int) -> dict[str, Any]:
    """Return what is needed to run the same again: command, seed, versions, hardware, date."""
    return {
        "command": this_command() if command is None else command,
        "seed": seed,
        "versions": versions(),
        "hardware": f"{processor()}, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def versions() -> dict[str, str]:
    """Return the versions that decide numbers."""
    return {
        "bilens": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return str(capabilities.get("cpu_name") or platform.machine())


def this_command(arguments: Sequence[str] | None = None) -> str:
    """Return the command line of this process, without the folder of the program."""
    program, *rest = sys.argv if arguments is None else arguments
    return shlex.join([Path(program).name or "python", *rest])
