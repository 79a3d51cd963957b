"""CP decomposition: bilens from the factors against TensorLy on the dense tensor.

Two questions. *Fit*: same tensor, rank and number of starts; the relative error of the best start.
*Speed*: seconds a sweep, at a size where the dense tensor takes a gigabyte. TensorLy alternates
over the three modes of the dense array and knows nothing of its symmetry; it is given the array,
its NumPy backend and the same number of threads. Run it with `python -m bench.cp`; it prints JSON
and needs `pip install tensorly`.
"""

import importlib
import importlib.metadata
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.cp_fit import cp_decompose, random_start
from bilens.algebra.cp.optimisers import SWEEPS, begin
from bilens.algebra.cp.target import Model, Target
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.provenance import describe_run
from bilens.records.base import to_json

RIDGE = 1e-12
TARGET_RATIO = 50.0


def random_tensor(d_out: int, d_hidden: int, d_in: int, decay: float, seed: int) -> BilinearTensor:
    """Return normal factors whose hidden units fall off in size as exp(−decay · h / hidden)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sizes = torch.exp(-decay * torch.arange(d_hidden, dtype=torch.float64) / d_hidden)
    down = normal(d_out, d_hidden) * sizes
    return BilinearTensor(down, normal(d_hidden, d_in), normal(d_hidden, d_in))


def dense(tensor: BilinearTensor) -> Any:
    """Return the dense array, one output at a time."""
    d_out, _, d_in = tensor.sizes
    array = torch.empty(d_out, d_in, d_in, dtype=torch.float64)
    for c, weight in enumerate(tensor.down):
        half = (tensor.left.T * weight) @ tensor.right
        array[c] = (half + half.T) / 2
    return array.numpy()


def parafac(array: Any, rank: int, seed: int, sweeps: int, **options: Any) -> Any:
    """Run TensorLy from one random start."""
    decomposition = importlib.import_module("tensorly.decomposition")
    return decomposition.parafac(
        array, rank, n_iter_max=sweeps, init="random", random_state=seed, **options
    )


def errors_of_starts(array: Any, rank: int, starts: int, sweeps: int) -> list[float]:
    """Return the relative error that TensorLy reaches from each start."""
    runs = (
        parafac(array, rank, seed, sweeps, tol=1e-8, return_errors=True) for seed in range(starts)
    )
    return [float(errors[-1]) for _, errors in runs]


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Return how long some work takes, and what it returns."""
    began = time.perf_counter()
    result = work(*arguments, **options)
    return time.perf_counter() - began, result


def measure_fit(
    size: int = 128, d_hidden: int = 256, rank: int = 16, starts: int = 3, sweeps: int = 500
) -> list[dict[str, Any]]:
    """Return the best relative error of both, on tensors from flat to steep."""
    results = []
    for decay in (0.0, 8.0, 32.0):
        tensor = random_tensor(size, d_hidden, size, decay, seed=0)
        array = dense(tensor)
        result: dict[str, Any] = {
            "sizes": {"out": size, "hidden": d_hidden, "in": size, "rank": rank},
            "starts": starts,
            "decay": decay,
        }
        # A pair sym(l rᵀ) is two components of an ordinary CP model, so twice the rank is told too.
        for name, theirs in (("tensorly", rank), ("tensorly, twice the rank", 2 * rank)):
            took, errors = seconds(errors_of_starts, array, theirs, starts, sweeps)
            result[name] = {"relative_error": min(errors), "all": errors, "seconds": took}
        for method in ("als", "gradient"):
            options = {"method": method, "num_starts": starts, "max_sweeps": sweeps}
            took, ours = seconds(cp_decompose, QuadraticMap(tensor), rank, **options)
            result[method] = {
                "relative_error": ours.relative_error,
                "all": [(1 - start.fit) ** 0.5 for start in ours.starts],
                "seconds": took,
            }
        results.append(result)
    return results


def measure_sweep(
    size: int = 512, d_hidden: int = 2048, rank: int = 32, rounds: int = 8
) -> dict[str, Any]:
    """Return seconds a sweep. After each sweep of TensorLy come five of ours of each model.

    So a noisy machine is noisy for both; the first sweep of each is left out.
    """
    tensor = random_tensor(size, d_hidden, size, decay=4.0, seed=0)
    setup, target = seconds(Target.from_tensor, tensor)
    forming, array = seconds(dense, tensor)
    start = torch.Generator().manual_seed(0)
    current = {
        model: begin(target, random_start(target, rank, model, start), RIDGE)
        for model in get_args(Model)
    }
    times: dict[str, list[float]] = {model: [] for model in ("tensorly", *current)}
    began = math.nan

    def after_a_sweep(*_model_and_error: Any) -> None:
        nonlocal began
        times["tensorly"].append(time.perf_counter() - began)
        for model in current:
            for _ in range(5):
                took, current[model] = seconds(SWEEPS[model], target, current[model], RIDGE)
                times[model].append(took)
        began = time.perf_counter()

    parafac(array, rank, 0, rounds, tol=1e-30, callback=after_a_sweep)
    medians = {
        "tensorly": statistics.median(times["tensorly"][2:]),  # the first call is before sweep one
        **{model: statistics.median(times[model][1:]) for model in current},
    }
    return {
        "sizes": {"out": size, "hidden": d_hidden, "in": size, "rank": rank},
        "dense_bytes": array.nbytes,
        "setup_seconds": {"ours": setup, "dense array": forming},
        "median_seconds_a_sweep": medians,
        "ratio": {model: medians["tensorly"] / medians[model] for model in current},
        "target_ratio": TARGET_RATIO,
        "seconds": times,
    }


def measure() -> dict[str, Any]:
    """Return the result of the benchmark as JSON values."""
    run: dict[str, Any] = to_json(describe_run("python -m bench.cp", seed=0))
    run["versions"]["tensorly"] = importlib.metadata.version("tensorly")
    return {"fit": measure_fit(), "sweep": measure_sweep(), "run": run}


def main() -> None:
    """Run the benchmark and print its result."""
    print(json.dumps(measure(), indent=1))


if __name__ == "__main__":
    main()
