"""Exact attributions against Captum: the same numbers, and the time for them.

Both explain the same logit of each image of a batch against a baseline of zeros. Captum's
integrated gradients run the model's module forwards and backwards 50 times; its Gauss–Legendre
rule is exact for a quadratic, its Riemann rule is not: its error halves as the steps double.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bilens.algebra.attribution import attribute
from bilens.algebra.quadratic_map import QuadraticMap

TARGET_RATIO = 50.0
STEPS = 50
SAMPLES = 25  # permutations of Captum's sampled Shapley values, on a few images


def measure(f: QuadraticMap, module: nn.Module, x: Tensor, label: Tensor) -> dict[str, Any]:
    """Return times and differences, in float32 as the model comes."""
    from captum.attr import IntegratedGradients, ShapleyValueSampling

    gradients = IntegratedGradients(module)

    def captum(method: str = "gausslegendre", steps: int = STEPS) -> Tensor:
        found: Tensor = gradients.attribute(x, target=label, n_steps=steps, method=method)
        return found.detach()

    def ours() -> Tensor:
        return attribute(f, x, target=label)[:, 0]

    ours(), captum()  # threads are awake
    times: dict[str, list[float]] = {"ours": [], "captum": []}
    for _ in range(9):  # in turns
        for name, work in (("ours", ours), ("captum", captum)):
            times[name].append(seconds(work))
    median = {name: statistics.median(took) for name, took in times.items()}
    exact = ours()
    size = exact.abs().amax(dim=1, keepdim=True)
    few = slice(0, 4)
    sampling = ShapleyValueSampling(module)
    began = time.perf_counter()
    sampled = sampling.attribute(
        x[few], target=label[few], n_samples=SAMPLES, perturbations_per_eval=49
    )
    shapley_seconds = time.perf_counter() - began
    return {
        "batch": len(x),
        "median_seconds": median,
        "ratio": median["captum"] / median["ours"],
        "target_ratio": TARGET_RATIO,
        "largest_difference": {
            f"{method}, {steps} steps": float(((captum(method, steps) - exact) / size).abs().max())
            for method in ("gausslegendre", "riemann_right")
            for steps in (STEPS, 2 * STEPS, 4 * STEPS)
        },
        "sampled_shapley": {
            "images": 4,
            "permutations": SAMPLES,
            "seconds_an_image": shapley_seconds / 4,
            "ours_seconds_an_image": median["ours"] / len(x),
            "largest_difference": float(((sampled - exact[few]) / size[few]).abs().max()),
        },
    }


def seconds(work: Callable[[], Any]) -> float:
    """Return how long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
