"""Leading eigenpairs of every output of a layer: bilens against dense and iterative solvers.

The alternatives, each on as many outputs as a few seconds allow, since their time is the same for
each output:

* paper: the matrix of one output through `einsum("mi,mj,om,...o->...ij")` along its cheapest
  path (down and direction, weights into left, one matrix product), made symmetric, `eigvalsh`.
* batched dense: several outputs in one batched product, then one batched `eigvalsh`.
* eigsh: SciPy's ARPACK on a LinearOperator, asked for the residuals that ours reaches.

All of them in float32, as a model comes; the first two give eigenvalues alone. Ours gives vectors,
residuals measured in float64, exact norms, and what is proven. Ours in float64 stands beside the
batched dense way in float64.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all, plan_eigendecomposition
from bilens.algebra.eigen.solver import Method, Precision
from bilens.algebra.quadratic_map import QuadraticMap

KINDS = ("planted", "random")
OUTLIERS = 8  # hidden units whose left and right agree, twice as long and three times as strong
SIZES = ((256, 1024), (512, 2048), (1024, 4096), (2048, 8192))
TARGETS = {
    "planted": {512: 8.0, 1024: 18.0, 2048: 30.0},
    "random": {512: 2.5, 1024: 5.0, 2048: 8.0},
}
K = 2


@dataclass(frozen=True)
class Layer:
    """A layer, as it comes in float32."""

    left: Tensor
    right: Tensor
    down: Tensor

    def double(self) -> Layer:
        """Return the layer in float64."""
        return Layer(self.left.double(), self.right.double(), self.down.double())

    def map(self) -> QuadraticMap:
        """Return the layer as a map."""
        return QuadraticMap(BilinearTensor(self.down, self.left, self.right))


def layer(d_in: int, d_hidden: int, d_out: int, kind: str, seed: int = 0) -> Layer:
    """Return normal weights; "planted" has a few hidden units as trained layers have them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int) -> Tensor:
        draws: Tensor = torch.randn(rows, columns, generator=generator) / columns**0.5
        return draws

    left, right, down = normal(d_hidden, d_in), normal(d_hidden, d_in), normal(d_out, d_hidden)
    if kind == "planted":
        right[:OUTLIERS] = left[:OUTLIERS] + 0.1 * right[:OUTLIERS]
        left[:OUTLIERS] *= 2
        right[:OUTLIERS] *= 2
        down[:, :OUTLIERS] *= 3
    return Layer(left, right, down)


def as_the_paper(weights: Layer, outputs: Sequence[int]) -> None:
    """One output at a time: form the matrix along the cheapest path, symmetrise, eigvalsh."""
    for output in outputs:
        direction = torch.nn.functional.one_hot(torch.tensor(output), len(weights.down)).float()
        scale = torch.einsum("om,o->m", weights.down, direction)
        q = torch.einsum("mi,mj->ij", weights.left * scale[:, None], weights.right)
        torch.linalg.eigvalsh((q + q.T) / 2)


def batched_dense(weights: Layer, outputs: Sequence[int]) -> None:
    """All outputs given in one batched product and one batched eigvalsh."""
    scales = weights.down[list(outputs)]
    q = (weights.left.T * scales[:, None, :]) @ weights.right
    torch.linalg.eigvalsh((q + q.mT) / 2)


def arpack(weights: Layer, outputs: Sequence[int]) -> None:
    """SciPy's eigsh on products with the factors, to a residual of 1e-6 ‖Q‖_F."""
    left, right, down = (part.numpy() for part in (weights.left, weights.right, weights.down))
    d_in = left.shape[1]
    norm_over_top = d_in**0.5 / 2  # ‖Q‖_F over the largest |λ|, of a matrix without a gap
    start = np.random.default_rng(0).standard_normal((d_in,)).astype(np.float32)
    for output in outputs:
        scale = down[output] / 2

        def product(v: Any, scale: Any = scale) -> Any:
            return left.T @ (scale * (right @ v)) + right.T @ (scale * (left @ v))

        operator = LinearOperator((d_in, d_in), matvec=product, dtype=np.float32)
        eigsh(operator, k=K, which="LM", tol=1e-6 * norm_over_top, v0=start)


def ours(weights: Layer, precision: Precision, method: Method = "auto") -> EigenDecomposition:
    """Top-2 of all outputs."""
    return eigendecompose_all(weights.map(), k=K, precision=precision, method=method)


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Return how long some work takes, and what it returns."""
    began = time.perf_counter()
    result = work(*arguments, **options)
    return time.perf_counter() - began, result


def milliseconds_each(work: Callable[[Layer, Sequence[int]], None], weights: Layer) -> float:
    """Return the median time an output of an alternative takes, over a few seconds."""
    d_in = weights.left.shape[1]
    each = max(1, 2048 // d_in) if work in (batched_dense, batched_dense_float64) else 1
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 3 or (time.perf_counter() - began < 2 and len(took) < 30):
        first = (len(took) * each) % (len(weights.down) - each + 1)
        outputs = range(first, first + each)
        took.append(1e3 * seconds(work, weights, outputs)[0] / each)
    return statistics.median(took[1:])


def product_rate(d_in: int, d_hidden: int) -> float:
    """Return the multiplications and additions a second of a large float32 product."""
    left, right = torch.randn(256, d_in), torch.randn(d_hidden, d_in)
    took = min(seconds(torch.mm, left, right.T)[0] for _ in range(12))
    return 2 * 256 * d_in * d_hidden / took


def batched_dense_float64(weights: Layer, outputs: Sequence[int]) -> None:
    """The batched dense way on factors in float64."""
    batched_dense(weights.double(), outputs)


ALTERNATIVES = {
    "paper": as_the_paper,
    "batched dense": batched_dense,
    "batched dense, float64": batched_dense_float64,
    "eigsh": arpack,
}


def measure_size(d_in: int, d_hidden: int, kind: str) -> dict[str, Any]:
    """Return times an output of ours and of the alternatives, in turns, and their ratios."""
    weights = layer(d_in, d_hidden, d_in, kind)
    few = Layer(weights.left, weights.right, weights.down[: min(len(weights.down), 256)])
    ours(Layer(weights.left, weights.right, weights.down[:8]), "float32")  # threads are awake
    rounds = 3 if d_in <= 1024 else 1
    theirs = [{name: milliseconds_each(work, weights) for name, work in ALTERNATIVES.items()}]
    mine_all, mine64_all = [], []
    for _ in range(rounds):  # theirs, ours, theirs, …: a noisy machine is noisy for all
        took, eigs = seconds(ours, weights, "float32")
        took64, eigs64 = seconds(ours, few, "float64")
        mine_all.append(1e3 * took / len(weights.down))
        mine64_all.append(1e3 * took64 / len(few.down))
        theirs.append(
            {name: milliseconds_each(work, weights) for name, work in ALTERNATIVES.items()}
        )
    each = {name: statistics.median(times[name] for times in theirs) for name in ALTERNATIVES}
    mine, mine64 = statistics.median(mine_all), statistics.median(mine64_all)
    floor = 1e3 * 20 * 8 * d_in * d_hidden / product_rate(d_in, d_hidden)
    return {
        "d_in": d_in,
        "d_hidden": d_hidden,
        "kind": kind,
        "outputs": len(weights.down),
        "outputs_float64": len(few.down),
        "plan": plan_eigendecomposition(weights.map(), k=K, precision="float32").method,
        "milliseconds": {"ours, float32": mine, "ours, float64": mine64, **each},
        "rounds": {"ours, float32": mine_all, "ours, float64": mine64_all, "theirs": theirs},
        "ratio": {name: each[name] / mine for name in each},
        "ratio_float64": {name: each[name] / mine64 for name in each},
        "target": TARGETS[kind].get(d_in),
        "over_floor_of_20_products": mine / floor,
        "worst_residual": worst_residual(eigs),
        "worst_residual_float64": worst_residual(eigs64),
        "all_ok": all(status.name == "OK" for status in (*eigs.status, *eigs64.status)),
    }


def worst_residual(eigs: EigenDecomposition) -> float:
    """Return the largest ‖Qv − λv‖ / ‖Q‖_F."""
    return float((eigs.residuals / eigs.frobenius_squared.sqrt()[:, None]).max())


def measure_methods(sizes: Sequence[tuple[int, int, int, int, str]]) -> list[dict[str, Any]]:
    """Return the time of each method beside "auto", for (in, hidden, outputs, k, weights)."""
    results = []
    for d_in, d_hidden, outputs, k, kind in sizes:
        weights = layer(d_in, d_hidden, outputs, kind)
        f = weights.map()
        methods: list[Method] = ["dense", "lanczos"]
        if 2 * d_hidden < d_in:
            methods.append("factored")
        times: dict[str, list[float]] = {method: [] for method in ("auto", *methods)}
        while len(times["auto"]) < 3 or (
            sum(map(sum, times.values())) < 4 and len(times["auto"]) < 15
        ):
            for method in times:
                took, _ = seconds(eigendecompose_all, f, k=k, precision="float32", method=method)
                times[method].append(took)
        medians = {method: statistics.median(values) for method, values in times.items()}
        best = min(medians[method] for method in methods)
        plan = plan_eigendecomposition(f, k=k, precision="float32").method
        results.append(
            {
                "d_in": d_in,
                "d_hidden": d_hidden,
                "outputs": outputs,
                "k": k,
                "kind": kind,
                "plan": plan,
                "seconds": medians,
                "rounds": len(times["auto"]),
                "auto_over_best": medians["auto"] / best,
                "chosen_over_best": medians[plan] / best,
            }
        )
    return results


def one_large_layer(kind: str, directions: str, d_in: int = 4096, d_hidden: int = 14336) -> None:
    """Decompose one layer of the width of a language model; print time, memory, residual."""
    weights = layer(d_in, d_hidden, int(directions), kind)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took, eigs = seconds(ours, weights, "float32")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(took, peak, loaded, worst_residual(eigs), int(eigs.complete.sum()))


def measure_large(kind: str, directions: int) -> dict[str, Any]:
    """Return what `one_large_layer` says, in a process of its own so that its peak is its own."""
    call = "import sys; from bench.eigen import one_large_layer as run; run(*sys.argv[1:])"
    line = subprocess.run(  # noqa: S603 - a process of this file
        [sys.executable, "-c", call, kind, str(directions)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    took, peak, loaded, residual, proven = (float(part) for part in line.split())
    return {
        "kind": kind,
        "proven": int(proven),
        "d_in": 4096,
        "d_hidden": 14336,
        "directions": directions,
        "seconds": took,
        "milliseconds_each": 1e3 * took / directions,
        "peak_gib": peak,
        "gib_with_weights_loaded": loaded,
        "target_gib": 3.0,
        "worst_residual": residual,
    }
