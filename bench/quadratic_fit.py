"""The closed form of `quadratic_fit` against Monte-Carlo least squares, and on a trained MLP.

* For every activation, 20 random ordinary layers and 20 random gated ones under a random normal
  input: least squares on 10⁶ samples, each coefficient's difference in units of its standard error
  (heteroscedastic). If the closed form is right, the root mean square of these is 1.
* ReLU MLPs of one and of two hidden layers trained on MNIST by the recipe of `bilens train image`:
  R² under the normal input and on images, and what the quadratic map is worth as a classifier.

Run it with `make bench-quadratic-fit`, with DATA=folder-with-the-IDX-files for the second part; it
writes docs/benchmarks/quadratic_fit.json and the page.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.r_squared import RSquared, r_squared_on
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.provenance import describe_run
from bilens.api.quadratic_fit import quadratic_fit
from bilens.data.images import ImageDataset, embedded_digits, load_images
from bilens.records.base import to_json
from bilens.train.tasks.image import ImageRecipe

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
LAYERS, SAMPLES, BLOCK = 20, 1_000_000, 50_000
D_IN, D_HIDDEN, D_OUT = 4, 6, 2
RECIPE = ImageRecipe()  # the paper's: 100 epochs, batches of 2048, weight decay 1, noise 0.5
DEPTHS = (1, 2)
WIDTH, ROWS, TASK_STEPS = 64, 20_000, 600  # of small layers
FIT_STEPS, MANY_STEPS, MANY_INPUTS = 2_000, 10_000, 20  # many from so many inputs on
KINDS = ("ordinary", "gated")


def random_layer(kind: str, name: ActivationName, generator: torch.Generator) -> Layer:
    """Return a layer with biases, pre-activations of a width of about one."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    down, first, bias = draw(D_OUT, D_HIDDEN), draw(D_HIDDEN, D_IN) / 2, draw(D_HIDDEN)
    if kind == "ordinary":
        return MLPWeights(down, first, name, bias)
    return GLUWeights(down, first, draw(D_HIDDEN, D_IN) / 2, name, bias, draw(D_HIDDEN))


def random_input(generator: torch.Generator) -> GaussianInput:
    """Return a normal input with a mean and correlations."""
    half = torch.randn(D_IN, D_IN, generator=generator, dtype=torch.float64) * 0.7
    mean = torch.randn(D_IN, generator=generator, dtype=torch.float64)
    return GaussianInput.of(D_IN, mean, half @ half.T)


def z_scores(layer: Layer, assumed: GaussianInput, generator: torch.Generator) -> dict[str, Any]:
    """Return how far least squares on samples is from the closed form.

    Least squares of what the closed form leaves, on the orthonormal Hermite polynomials of degree
    0, 1 and 2 of the whitened input: with the closed form right, each coefficient is zero up to
    its standard error √(Σ r² x_j²) / N (XᵀX is N·I up to sampling, so that rows do not mix).
    """
    f = approximate_layer(layer, assumed)
    width = 1 + D_IN + D_IN * (D_IN + 1) // 2
    gram = torch.zeros(width, width, dtype=torch.float64)
    moment, squares = gram.new_zeros(width, D_OUT), gram.new_zeros(width, D_OUT)
    largest = 0.0
    for _ in range(SAMPLES // BLOCK):
        z = torch.randn(BLOCK, D_IN, generator=generator, dtype=torch.float64)
        x = assumed.mean + assumed.spread(z)
        features, y = hermite(z), layer(x)
        rest = y - f(x)
        gram += features.T @ features
        moment += features.T @ rest
        squares += features.square().T @ rest.square()
        largest = max(largest, float(rest.abs().max() / y.abs().max()))
    errors = squares.sqrt() / SAMPLES
    return {"z": (torch.linalg.solve(gram, moment) / errors).reshape(-1), "largest": largest}


def hermite(z: Tensor) -> Tensor:
    """Return the orthonormal Hermite polynomials up to degree two, (rows, 1 + n + n(n + 1)/2)."""
    first, second = torch.triu_indices(D_IN, D_IN, offset=1)
    squares = (z.square() - 1) / math.sqrt(2)
    return torch.cat([torch.ones_like(z[:, :1]), z, squares, z[:, first] * z[:, second]], dim=1)


def measure_activation(kind: str, name: ActivationName) -> dict[str, Any]:
    """Return the z-scores of all layers with an activation, in numbers."""
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(LAYERS):
        layer, assumed = random_layer(kind, name, generator), random_input(generator)
        found.append(z_scores(layer, assumed, generator))
    row: dict[str, Any] = {"kind": kind, "activation": name, "layers": LAYERS, "samples": SAMPLES}
    if name == "identity":  # exact: there is nothing to divide by
        row["largest_relative_difference"] = max(item["largest"] for item in found)
    else:
        z = torch.cat([item["z"] for item in found])
        row |= {
            "coefficients": len(z),
            "rms_z": float(z.square().mean().sqrt()),
            "largest_z": float(z.abs().max()),
            "beyond_2": float((z.abs() > 2).double().mean()),
        }
    sys.stderr.write(f"{row} {time.perf_counter() - began:.0f} s\n")
    return row


def trained_mlp(data: ImageDataset, depth: int) -> nn.Sequential:
    """Return a ReLU MLP with so many hidden layers, trained as `bilens train image` trains."""
    torch.manual_seed(RECIPE.seed)
    width, classes = RECIPE.d_hidden, int(data.train_labels.max()) + 1
    parts: list[nn.Module] = []
    for index in range(depth):
        parts += [nn.Linear(width if index else data.train_images.shape[1], width), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(width, classes))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, RECIPE.epochs)
    size = RECIPE.batch_size
    for _ in range(RECIPE.epochs):
        order = torch.randperm(len(data.train_images))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            x = data.train_images[rows]
            loss = functional.cross_entropy(
                model(x + RECIPE.noise * torch.randn_like(x)), data.train_labels[rows]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return model.eval()


def measure_mlp(data: ImageDataset, depth: int) -> dict[str, Any]:
    """Return R² and accuracies of the readings of a trained MLP."""
    began = time.perf_counter()
    model = trained_mlp(data, depth)
    sys.stderr.write(f"trained, depth {depth}: {time.perf_counter() - began:.0f} s\n")
    x, labels = data.test_images.double(), data.test_labels
    with torch.no_grad():
        logits = model(data.test_images).double()
    train = data.train_images
    standard = quadratic_fit(model)
    normal = quadratic_fit(model, mean=train.mean(dim=0), covariance=torch.cov(train.T))
    fit = quadratic_fit(model, data=train)

    def judged(f: QuadraticMap) -> dict[str, Any]:
        y = f(x)
        return {
            "test_r_squared": numbers(r_squared_on(logits, y)),
            "accuracy": accuracy(y, labels),
            "agreement": accuracy(y, logits.argmax(dim=1)),
        }

    return {
        "data": {"name": data.name, "train": len(data.train_images), "test": len(x)},
        "depth": depth,
        "recipe": RECIPE.to_dict(),
        "accuracy": accuracy(logits, labels),
        "standard": {
            "assumed": standard.assumed_input,
            "linear": numbers(standard.r_squared.linear),
            "quadratic": numbers(standard.r_squared.quadratic),
            **judged(standard.quadratic_map),
        },
        "images": {
            "assumed": normal.assumed_input,
            "linear": numbers(normal.r_squared.linear),
            "quadratic": numbers(normal.r_squared.quadratic),
            **judged(normal.quadratic_map),
        },
        "refitted": {
            "rows": [len(train) - fit.r_squared.rows, fit.r_squared.rows],
            "fit": fit.chosen,
            **judged(fit.quadratic_map),
        },
    }


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


def accuracy(y: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest entry is the label's."""
    return float((y.argmax(dim=1) == labels).double().mean())


def numbers(score: RSquared) -> dict[str, float]:
    """Return R² and its standard error."""
    return {"value": score.overall, "error": score.standard_error}


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    run, layers = result["run"], result["layers"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    head = "| activation | ordinary: rms z | largest \\|z\\| | gated: rms z | largest \\|z\\| |"
    rows = [head, "|---|---|---|---|---|"]
    for name in (one for one in get_args(ActivationName) if one != "clamped_swiglu"):
        cells = []
        for kind in KINDS:
            row = next(r for r in layers if (r["kind"], r["activation"]) == (kind, name))
            if "rms_z" in row:
                cells.append(f"{row['rms_z']:.2f} | {row['largest_z']:.1f}")
            else:
                cells.append(f"exact, {row['largest_relative_difference']:.0e} of the output | –")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    scored = [row for row in layers if "rms_z" in row]
    total = sum(row["coefficients"] for row in scored)
    rms = math.sqrt(sum(row["coefficients"] * row["rms_z"] ** 2 for row in scored) / total)
    beyond = sum(row["coefficients"] * row["beyond_2"] for row in scored) / total
    table = "\n".join(rows)
    return f"""# The closest quadratic map

Generated by `make bench-quadratic-fit` from `quadratic_fit.json`; do not edit.
{run["date"]}; {run["hardware"]}; {versions}.

## Against least squares on samples

{LAYERS} random layers of each kind ({D_IN} inputs, {D_HIDDEN} neurons, {D_OUT} outputs, biases)
under random normal inputs, {SAMPLES:,} samples each. z is the difference of a coefficient of least
squares from the closed form over its standard error: 1 in the root mean square if only sampling
separates the two. Over all {total:,} coefficients: rms z = **{rms:.3f}**, and {beyond:.1%} lie
beyond 2 (4.6 % of a normal distribution do). All activations of a kind meet the same weights and
samples, so that rows are not independent: a leaky ReLU is a straight line and a ReLU, and its z are
those of the ReLU.

{table}

{ceilings_section(result["ceilings"], result["ceilings_run"]["date"])}
{mlps_section(result["mlps"])}"""


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


def mlps_section(mlps: list[dict[str, Any]]) -> str:
    """Return what is said of the trained MLPs."""
    if not mlps:
        return "The second part needs images: `make bench-quadratic-fit DATA=folder`.\n"
    recipe, rows = mlps[0]["recipe"], mlps[0]["refitted"]["rows"][0]
    tables = "".join(mlp_section(mlp) for mlp in mlps)
    return f"""## Trained ReLU MLPs

784 pixels, {recipe["d_hidden"]} ReLU neurons a layer, 10 classes, trained on MNIST by the recipe of
`bilens train image`: AdamW, learning rate {recipe["learning_rate"]:g} falling by a cosine, weight
decay {recipe["weight_decay"]:g}, pixel noise {recipe["noise"]:g}, batches of
{recipe["batch_size"]}, {recipe["epochs"]} epochs, seed {recipe["seed"]}; in float32.

{tables}R² under a normal input is not R² on images: the tables have both. The refitted maps
were fitted to {rows:,} training images. With two hidden layers the closed form takes the input of
the second one to be normal; its refit keeps the neurons that this gave.
"""


def mlp_section(mlp: dict[str, Any]) -> str:
    """Return the readings of one MLP."""
    rows = [
        "| map | R² under its normal input, linear part | quadratic | R² on test images "
        "| accuracy | agrees with the MLP |",
        "|---|---|---|---|---|---|",
    ]
    for key, name in (
        ("standard", "closed form, standard normal"),
        ("images", "closed form, mean and covariance of the images"),
        ("refitted", "the same neurons, output weights by least squares on images"),
    ):
        item = mlp[key]
        under = [
            with_error(item[part]) if part in item else "–" for part in ("linear", "quadratic")
        ]
        rows.append(
            f"| {name} | {' | '.join(under)} | {with_error(item['test_r_squared'])} "
            f"| {item['accuracy']:.2%} | {item['agreement']:.2%} |"
        )
    table = "\n".join(rows)
    layers = f"{mlp['depth']} hidden layer{'s' * (mlp['depth'] > 1)}"
    return f"### {layers}: test accuracy {mlp['accuracy']:.2%}\n\n{table}\n\n"


def with_error(score: dict[str, float]) -> str:
    """Return R² with its standard error."""
    return f"{score['value']:.4f} ± {score['error']:.4f}"


def main() -> None:
    """Measure, and write the result and its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--small", action="store_true", help="small layers alone; keep the rest")
    given = parser.parse_args()
    path, ceilings = PAGE / "quadratic_fit.json", []
    for task in TASKS:
        ceilings += [measure_ceiling(task, kind, name) for kind, name in LAYER_KINDS]
    small = {
        "ceilings": ceilings,
        "ceilings_run": to_json(describe_run("python -m bench.quadratic_fit --small", seed=0)),
    }
    if given.small:
        result = json.loads(path.read_text()) | small
    else:
        result = {
            "run": to_json(describe_run("make bench-quadratic-fit", seed=0)),
            "layers": [
                measure_activation(kind, name)
                for kind in KINDS
                for name in get_args(ActivationName)
                if name != "clamped_swiglu"
            ],
            **small,
            "mlps": []
            if given.data_dir is None
            else [measure_mlp(load_images("mnist", given.data_dir), depth) for depth in DEPTHS],
        }
    path.write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "quadratic_fit.md").write_text(page(result))


if __name__ == "__main__":
    main()
