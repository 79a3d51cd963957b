"""HOSVD from the factors against a dense singular value decomposition of the flattened tensor."""

from typing import Any

import torch

from bench.eigen import layer, seconds
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_map import QuadraticMap

TARGET = 100.0


KINDS = ("random", "planted", "graded")


def measure_hosvd(kind: str, size: int = 512, d_hidden: int = 2048) -> dict[str, Any]:
    """Return times of both, and how far the singular values differ.

    "graded" weights are random ones with outputs that fall over five orders of magnitude, so that
    the singular values do: the hard case of a method that starts from a Gram matrix.
    """
    weights = layer(size, d_hidden, size, "planted" if kind == "planted" else "random")
    last = -5.0 if kind == "graded" else 0.0
    decay = torch.logspace(0, last, size, dtype=torch.float64)[:, None]
    tensor = BilinearTensor(
        weights.down.double() * decay, weights.left.double(), weights.right.double()
    )
    f = QuadraticMap(tensor)
    hosvd(f)  # threads are awake
    times = []
    for _ in range(3):
        took, found = seconds(hosvd, f)
        times.append(took)
    forming, dense = seconds(tensor.dense)
    array = dense.flatten(start_dim=1)
    solving, exact = seconds(torch.linalg.svd, array, full_matrices=False)
    values = exact[1]
    counted = values > 1e-6 * values[0]
    mine = found.singular_values[: len(values)]
    error = ((mine - values).abs() / values)[counted].max()
    took = sorted(times)[1]
    inputs, _ = seconds(getattr, found, "input")
    return {
        "kind": kind,
        "size": size,
        "d_hidden": d_hidden,
        "seconds": {
            "ours, outputs": took,
            "ours, inputs as well": took + inputs,
            "dense array": forming,
            "dense svd": solving,
        },
        "ratio": solving / took,
        "ratio_with_forming": (solving + forming) / took,
        "target_ratio": TARGET,
        "worst_relative_error": float(error),
        "values_compared": int(counted.sum()),
        "smallest_over_largest": float(values[-1] / values[0]),
    }
