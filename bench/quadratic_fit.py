"""The closed form of `quadratic_fit` against Monte-Carlo least squares, and on a trained MLP.

* For every activation, 20 random ordinary layers and 20 random gated ones under a random normal
  input: least squares on 10⁶ samples, each coefficient's difference in units of its standard error
  (heteroscedastic). If the closed form is right, the root mean square of these is 1.
* ReLU MLPs of one and of two hidden layers trained on MNIST by the recipe of `bilens train image`:
  R² under the normal input and on images, and what the quadratic map is worth as a classifier.

Run it with `make bench-quadratic-fit`, with DATA=folder-with-the-IDX-files for the second part; it
writes docs/benchmarks/quadratic_fit.json and the page.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.quadratic_ceiling import ceilings_section, measure_ceilings, numbers
from bilens.algebra.approximation.activation import ActivationName
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.provenance import describe_run
from bilens.api.quadratic_fit import quadratic_fit
from bilens.data.images import ImageDataset, load_images
from bilens.records.base import to_json
from bilens.train.tasks.image import ImageRecipe

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
LAYERS, SAMPLES, BLOCK = 20, 1_000_000, 50_000
D_IN, D_HIDDEN, D_OUT = 4, 6, 2
RECIPE = ImageRecipe()  # the paper's: 100 epochs, batches of 2048, weight decay 1, noise 0.5
DEPTHS = (1, 2)
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
    return GaussianInput.from_moments(D_IN, mean, half @ half.T)


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


def accuracy(y: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest entry is the label's."""
    return float((y.argmax(dim=1) == labels).double().mean())


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
    path = PAGE / "quadratic_fit.json"
    small = {
        "ceilings": measure_ceilings(),
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
