"""Safetensors files of MLPs under names of other people."""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from builders import randn


def write(folder: Path, tensors: dict[str, Tensor], name: str = "mlp.safetensors") -> Path:
    """The file; views are copied, as the format asks."""
    path = folder / name
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)
    return path


def pair(first: str = "fc1", second: str = "fc2", bias: bool = True) -> dict[str, Tensor]:
    """4 → 6 → 3, as PyTorch names and lays them out."""
    tensors = {f"{first}.weight": randn(6, 4), f"{second}.weight": randn(3, 6, seed=1)}
    if bias:
        tensors |= {f"{first}.bias": randn(6, seed=2), f"{second}.bias": randn(3, seed=3)}
    return tensors


def chain(*widths: int) -> dict[str, Tensor]:
    """Linear maps of a Sequential, an activation between any two."""
    tensors = {}
    for index, (d_in, d_out) in enumerate(pairwise(widths)):
        tensors[f"{2 * index}.weight"] = randn(d_out, d_in, seed=index)
        tensors[f"{2 * index}.bias"] = randn(d_out, seed=index + 50)
    return tensors


def gated(prefix: str = "mlp.", width: int = 4) -> dict[str, Tensor]:
    """A gated MLP under the names of Hugging Face."""
    return {
        f"{prefix}gate_proj.weight": randn(7, width),
        f"{prefix}up_proj.weight": randn(7, width, seed=1),
        f"{prefix}down_proj.weight": randn(width, 7, seed=2),
    }


def turned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with matrices (in, out)."""
    return {name: tensor.T if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}


def poisoned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with a NaN."""
    first = next(iter(tensors.values()))
    first.view(-1)[1] = torch.nan
    return tensors
