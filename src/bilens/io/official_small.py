"""Small models of the paper's official repository: rank-R surrogates and toy models.

A surrogate is B[c, i, j] = Σ_r down[c, r] · ½ (left[i, r] right[j, r] + left[j, r] right[i, r]);
a toy model is head(left x ∘ right x). Both are one bilinear MLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError
from bilens.io.tensors import check_all_finite
from bilens.nn import BilinearMLP

SURROGATE = {"left", "right", "down"}
TOY = {"left.weight", "right.weight", "head.weight"}
TOY_BIASES = {"left.bias", "right.bias", "head.bias"}


def is_official_small(names: Mapping[str, object]) -> bool:
    """Tell whether tensor names are those of a surrogate or of a toy model."""
    found = {*names}
    return found == SURROGATE or (found >= TOY and found <= TOY | TOY_BIASES)


def build_official_small(path: Path, tensors: Mapping[str, Tensor]) -> BilinearMLP:
    """Return a surrogate or a toy model as a bilinear MLP.

    Args:
        path: for messages.
        tensors: with the names of one of the two.

    Raises:
        CheckpointError: If shapes do not fit, or dtypes are mixed.
        NonFiniteError: If a tensor holds NaN or infinity.
    """
    check_all_finite(path, tensors)
    if {*tensors} == SURROGATE:
        check_matrices(path, tensors, SURROGATE)
        weights = {"left": tensors["left"].T, "right": tensors["right"].T, "down": tensors["down"]}
    else:
        check_matrices(path, tensors, TOY)
        weights = {part: tensors[f"{part}.weight"] for part in ("left", "right")}
        weights["down"] = tensors["head.weight"]
    (d_hidden, d_in), d_out = weights["left"].shape, weights["down"].shape[0]
    check_fit(path, "right", weights["right"], (d_hidden, d_in))
    check_fit(path, "down", weights["down"], (d_out, d_hidden))
    biases = {
        name.replace("head", "down"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".bias")
    }
    with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten
        model = BilinearMLP(d_in, d_hidden, d_out, bias=bool(biases))
    model = model.to(weights["left"].dtype)
    state = {f"{name}.weight": weight for name, weight in weights.items()}
    if biases:
        sizes = {"left": d_hidden, "right": d_hidden, "down": d_out}
        zeros = {f"{n}.bias": weights["left"].new_zeros(size) for n, size in sizes.items()}
        for name, bias in biases.items():
            check_fit(path, name, bias, tuple(zeros[name].shape))
        state |= {**zeros, **biases}
    model.load_state_dict(state, strict=True)
    return model.eval()


def check_matrices(path: Path, tensors: Mapping[str, Tensor], names: set[str]) -> None:
    """Refuse what is no matrix, and tensors of several dtypes.

    Raises:
        CheckpointError: With the tensor or the dtypes.
    """
    for name in sorted(names):
        if tensors[name].ndim != 2 or 0 in tensors[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}; expected two "
                "axes with entries."
            )
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise CheckpointError(f"{path}: mixes dtypes; one was expected: convert the weights.")


def check_fit(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not fit `left`.

    Raises:
        CheckpointError: With both shapes, as (out, in).
    """
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{path}: {name!r} has shape {tuple(tensor.shape)} as (out, in); the other tensors ask "
            f"for {shape}."
        )
