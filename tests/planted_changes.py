"""Changes of a known rank, for tests of comparisons."""

import torch
from torch import Tensor

from builders import randn


def planted(tensor: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """A tensor with a change of a rank in each of its matrices, a fifth of its size, rounded."""
    flat = tensor.double() if tensor.ndim == 3 else tensor.double().flatten(1)
    *stack, rows, columns = flat.shape
    change = randn(*stack, rows, rank, seed=7) @ randn(*stack, rank, columns, seed=8)
    found = flat + change * 0.2 * flat.norm() / change.norm()
    return found.reshape(tensor.shape).to(dtype)
