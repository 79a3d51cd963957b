"""Fits of `quadratic_fit` to data against the best of all quadratics, on small trained layers.

`bench.quadratic_fit` measures them, and writes the page.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.r_squared import RSquared
from bilens.api.quadratic_fit import quadratic_fit
from bilens.data.images import embedded_digits

WIDTH, ROWS, TASK_STEPS = 64, 20_000, 600  # of small layers
FIT_STEPS, MANY_STEPS, MANY_INPUTS = 2_000, 10_000, 20  # many from so many inputs on


def pooled_digits(size: int) -> tuple[Tensor, Tensor]:
    """Return the embedded digits, moved about, with so many pixels a side; classes in columns."""
    data = embedded_digits()
    images = torch.cat([data.train_images, data.test_images]).reshape(-1, 1, 28, 28)
    moved = [images.roll(shift, (2, 3)) for shift in product((-2, 0, 2), (-1, 1))]
    x = functional.avg_pool2d(torch.cat(moved), 28 // size).flatten(1)
    labels = torch.cat([data.train_labels, data.test_labels]).repeat(len(moved))
    return x / x.std(), functional.one_hot(labels).float()


def blobs() -> tuple[Tensor, Tensor]:
    """Return 16 inputs in eight clusters, two for each of four classes."""
    generator = torch.Generator().manual_seed(1)
    centres = 1.5 * torch.randn(8, 16, generator=generator)
    cluster = torch.randint(8, (ROWS,), generator=generator)
    x = centres[cluster] + torch.randn(ROWS, 16, generator=generator)
    return x, functional.one_hot(cluster % 4).float()


def waves() -> tuple[Tensor, Tensor]:
    """Return 12 uniform inputs, and a wave, a product and a kink of them."""
    x = 4 * torch.rand(ROWS, 12, generator=torch.Generator().manual_seed(2)) - 2
    targets = torch.sin(x[:, 0] + x[:, 1]), x[:, 2] * x[:, 3], (x[:, 4] - x[:, 5]).abs()
    return x, torch.stack(targets, dim=1)


class Gated(nn.Module):
    """down [φ(gate x) ∘ (value x)], all with biases."""

    def __init__(self, d_in: int, d_out: int, name: ActivationName) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(d_in, WIDTH), nn.Linear(d_in, WIDTH)
        self.down, self.phi = nn.Linear(WIDTH, d_out), Activation(name)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.phi(self.gate(x)) * self.value(x))
        return y


def small_layer(kind: str, name: ActivationName, x: Tensor, y: Tensor) -> Layer:
    """Return a layer trained on a task for a few seconds."""
    torch.manual_seed(0)
    d_in, d_out = x.shape[1], y.shape[1]
    up, down = nn.Linear(d_in, WIDTH), nn.Linear(WIDTH, d_out)
    phi = nn.ReLU() if name == "relu" else nn.GELU()
    model = Gated(d_in, d_out, name) if kind == "gated" else nn.Sequential(up, phi, down)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(TASK_STEPS):
        rows = torch.randint(len(x), (256,))
        loss = (model(x[rows]) - y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if isinstance(model, Gated):
        gate, value, down = model.gate, model.value, model.down
        biases = gate.bias, value.bias, None, down.bias
        return GLUWeights(down.weight, gate.weight, value.weight, name, *biases)
    return MLPWeights(down.weight, up.weight, name, up.bias, None, down.bias)


def measure_ceiling(task: str, kind: str, name: ActivationName) -> dict[str, Any]:
    """Return R² of the ladder of fits of a small layer, on rows held out."""
    began = time.perf_counter()
    x, y = TASKS[task]()
    layer = small_layer(kind, name, x, y)
    steps = FIT_STEPS if x.shape[1] < MANY_INPUTS else MANY_STEPS
    fit = quadratic_fit(layer, data=x.double(), train_steps=steps)
    ladder = {rung: numbers(scores.quadratic) for rung, scores in fit.ladder.items()}
    sizes = [x.shape[1], WIDTH, y.shape[1]]
    row = {"task": task, "kind": kind, "activation": name, "sizes": sizes, "rows": len(x)}
    sys.stderr.write(f"{row} {ladder} {time.perf_counter() - began:.0f} s\n")
    return row | {"chosen": fit.chosen, "ladder": ladder}


TASKS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "digits 4 × 4": partial(pooled_digits, 4),
    "blobs": blobs,
    "waves": waves,
    "digits 7 × 7": partial(pooled_digits, 7),
}
LAYER_KINDS: tuple[tuple[str, ActivationName], ...] = (
    ("ordinary", "relu"),
    ("ordinary", "gelu"),
    ("gated", "silu"),
    ("gated", "gelu"),
)


def measure_ceilings() -> list[dict[str, Any]]:
    return [measure_ceiling(task, kind, name) for task in TASKS for kind, name in LAYER_KINDS]


def numbers(score: RSquared) -> dict[str, float]:
    """Return R² and its standard error."""
    return {"value": score.overall, "error": score.standard_error}


def ceilings_section(ceilings: list[dict[str, Any]], date: str) -> str:
    """Return what is said of small layers beside the best of all quadratics."""
    names = ["standard normal", "normal", "neurons", "refitted", "trained", "ceiling"]
    rows = [f"| layer | {' | '.join(names)} | below the ceiling |", "|---|" + 7 * "---|"]
    gaps = []
    for one in ceilings:
        values = [one["ladder"][name]["value"] for name in names]
        gaps.append(values[-1] - max(values[:-1]))
        kind = f"{one['task']}, {one['kind']} {one['activation']}, {one['sizes'][0]} inputs"
        numbers = " | ".join(f"{value:.4f}" for value in [*values, gaps[-1]])
        rows.append(f"| {kind} | {numbers} |")
    near = sum(gap <= 0.002 for gap in gaps)
    table = "\n".join(rows)
    return f"""## Fits to data and the best of all quadratics

{date}: {len(ceilings)} layers of {WIDTH} neurons, trained for {TASK_STEPS} steps on tasks: the
embedded digits, each in six places, as 4 × 4 or 7 × 7 pixels; 16 inputs in eight clusters; 12
uniform inputs. R² on the fifth of the rows that nothing was fitted to, of the ladder of
`bl.quadratic_fit` with {FIT_STEPS:,} steps of training, {MANY_STEPS:,} for 49 inputs; the ceiling
is least squares over all quadratics, with a ridge chosen on rows of the fit. **{near} of
{len(ceilings)}** are within 0.002 of it, the largest gap is {max(gaps):.5f}. A fit above the
ceiling owes that to having fewer numbers to fit.

{table}
"""
