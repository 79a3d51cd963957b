"""Exact l2 radii: their rate, and whether any attack gets below them.

The attacks, all on the function itself without a box, with the same 1,000 digits:

* PGD in the l2 ball of 0.999 radius of each digit, many restarts, from random points of the sphere.
* Random search: points spread over that sphere.
* Minimal-norm attacks of Foolbox (DeepFool, DDN, FMN, Carlini–Wagner): the smallest change each
  finds; none may be below the radius, and the best of them is compared with it from above.
"""

import importlib
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from bilens import certify
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.l2_certificates import L2Radius

TARGET_RATE = 2000.0  # radii a second
INSIDE = 0.999  # of the radius, where nothing may flip
JUST_OUTSIDE = 1 + 1e-6
RESTARTS, STEPS, RANDOM_POINTS = 20, 50, 2000
BOX = (-20.0, 21.0)  # far beyond every example: Foolbox needs one


def measure_rate(f: QuadraticMap, x: Tensor, label: Tensor) -> dict[str, Any]:
    """Return the time to prepare, and radii a second against all rivals."""
    began = time.perf_counter()
    spectra = certify.prepare(f)
    preparing = time.perf_counter() - began
    took = []
    for _ in range(5):
        began = time.perf_counter()
        certify.l2_radius(f, x, label, spectra)
        took.append(time.perf_counter() - began)
    return {
        "inputs": len(x),
        "d_in": f.sizes.d_in,
        "classes": f.sizes.d_out,
        "prepare_seconds": preparing,
        "seconds": statistics.median(took),
        "radii_a_second": len(x) / statistics.median(took),
        "target_rate": TARGET_RATE,
    }


def wins(f: QuadraticMap, x: Tensor, label: Tensor) -> Tensor:
    """Return the margin of the label over the best rival, in float64, (rows,)."""
    y = f(x)
    own = y.gather(1, label[:, None])[:, 0]
    margin: Tensor = own - y.scatter(1, label[:, None], -torch.inf).amax(dim=1)
    return margin


def measure_attacks(f: QuadraticMap, module: nn.Module, x: Tensor, label: Tensor) -> dict[str, Any]:
    """Return what each attack reached on inputs that are classified as their label.

    Args:
        f: the map, float64.
        module: the same function, for the packages.
        x: (rows, in) float64.
        label: (rows,).
    """
    record = certify.l2_radius(f, x, label)
    radius = record.radius
    beyond = x + (record.example - x) * JUST_OUTSIDE
    relative = (record.distance - radius) / record.distance
    began = time.perf_counter()
    pgd = projected_gradient(f, x, label, INSIDE * radius)
    pgd_seconds = time.perf_counter() - began
    searched = random_search(f, x, label, INSIDE * radius)
    found = {name: smallest_changes(f, module, x, label, name) for name in minimal_attacks()}
    best = torch.stack([distances for distances, _ in found.values()]).amin(dim=0)
    return {
        "inputs": len(x),
        "radius": quantiles(radius),
        "flips_of_pgd_inside": int((pgd <= 0).sum()),
        "pgd_seconds": pgd_seconds,
        "flips_of_random_search_inside": int((searched <= 0).sum()),
        "points_tried": {"pgd": RESTARTS * STEPS, "random": RANDOM_POINTS},
        "examples_that_flip": int((wins(f, beyond, label) < 0).sum()),
        "gap_to_own_example": quantiles(relative),
        "minimal_attacks": {
            name: {
                "seconds": seconds,
                "found": int(distances.isfinite().sum()),
                "below_radius": int((distances < radius).sum()),
                "over_radius": quantiles((distances / radius)[distances.isfinite()]),
            }
            for name, (distances, seconds) in found.items()
        },
        "best_attack_over_radius": quantiles((best / radius)[best.isfinite()]),
        "record": summary(record),
    }


def summary(record: L2Radius) -> dict[str, Any]:
    """Return how many inputs have which status."""
    names = [status.name for status in record.status]
    return {name: names.count(name) for name in sorted(set(names))}


def quantiles(values: Tensor) -> dict[str, float]:
    """Return the distribution of some numbers."""
    points = {"smallest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "largest": 1.0}
    return {name: float(values.double().quantile(at)) for name, at in points.items()}


def projected_gradient(f: QuadraticMap, x: Tensor, label: Tensor, radius: Tensor) -> Tensor:
    """Return the smallest margin that PGD with many restarts reaches within a radius of each."""
    generator = torch.Generator().manual_seed(0)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for _ in range(RESTARTS):
        step = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        delta = step / step.norm(dim=1, keepdim=True) * radius[:, None]
        for index in range(STEPS):
            point = (x + delta).requires_grad_()
            margin = wins(f, point, label)
            least = torch.minimum(least, margin.detach())
            (gradient,) = torch.autograd.grad(margin.sum(), point)
            length = gradient.norm(dim=1, keepdim=True).clamp(min=1e-300)
            size = radius[:, None] * 0.5 * (1 - index / STEPS)
            delta = delta - size * gradient / length
            delta = delta * (radius / delta.norm(dim=1).clamp(min=1e-300)).clamp(max=1.0)[:, None]
        least = torch.minimum(least, wins(f, x + delta, label))
    return least


def random_search(f: QuadraticMap, x: Tensor, label: Tensor, radius: Tensor) -> Tensor:
    """Return the smallest margin at random points on the sphere around each input."""
    generator = torch.Generator().manual_seed(1)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for _ in range(RANDOM_POINTS // 10):  # one direction serves ten lengths up to the radius
        step = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step /= step.norm(dim=1, keepdim=True)
        for share in torch.linspace(0.1, 1.0, 10).tolist():
            least = torch.minimum(least, wins(f, x + share * radius[:, None] * step, label))
    return least


def minimal_attacks() -> dict[str, Any]:
    """Return the attacks of Foolbox."""
    attacks = importlib.import_module("foolbox.attacks")
    return {
        "DeepFool": attacks.L2DeepFoolAttack(steps=100, overshoot=1e-4),
        "DDN": attacks.DDNAttack(steps=1000, init_epsilon=0.5, gamma=0.01),
        "FMN": attacks.L2FMNAttack(steps=1000),
        "Carlini–Wagner": attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=300),
    }


def smallest_changes(
    f: QuadraticMap, module: nn.Module, x: Tensor, label: Tensor, name: str
) -> tuple[Tensor, float]:
    """Return the length of the smallest change that one attack found, inf for none; seconds."""
    foolbox = importlib.import_module("foolbox")
    box = (0.0, 1.0) if name == "Carlini–Wagner" else BOX  # which works in tanh of the box
    model = foolbox.PyTorchModel(module.double().eval(), bounds=box, device="cpu")
    began = time.perf_counter()
    _, clipped, _ = minimal_attacks()[name](model, x, label, epsilons=None)
    took = time.perf_counter() - began
    distance = (clipped - x).norm(dim=1)
    flips = wins(f, clipped, label) < 0  # judged here, not by the package
    return torch.where(flips, distance, torch.inf), took
