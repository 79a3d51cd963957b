"""Moments and similarity of two layers against Monte Carlo, their cost, and a study of checkpoints.

* 50 random networks of two layers, with and without residual paths, biases, a mean and a
  covariance of the input: every mean, every entry of the covariance and the similarity with a
  second network, against 10⁷ samples, in units of the sample's standard error.
* The time of `bl.network_similarity` at two sizes.
* What becomes of it while a classifier learns a backdoor (`backdoor_checkpoints.py`).
* The Gaussian closure of three layers beside samples.

Run it with `make bench-two-layers DATA=folder-with-the-IDX-files`; it writes
docs/benchmarks/two_layers.json and the page.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bilens as bl
from bench.backdoor_checkpoints import measure_backdoor, section_of_backdoor
from bilens.api.provenance import describe_run
from bilens.records.base import to_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
NETWORKS, SAMPLES, BLOCK, SEED = 50, 10_000_000, 5_000, 0
SIZES = ((64, 64, 1.0), (256, 512, 60.0))  # channels, units, seconds that it may take
CLOSURES, DRAWS = ((3, 16), (3, 64), (4, 16)), 400_000  # layers, channels; samples


def random_layers(
    depth: int,
    width: int,
    units: int,
    outputs: int,
    generator: torch.Generator,
    *,
    residual: bool = False,
    bias: bool = False,
    between: int | None = None,
) -> bl.PolynomialNetwork:
    """Return layers whose channels have a size of about one."""

    def draw(rows: int, columns: int) -> Tensor:
        scale = math.sqrt(columns)
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64) / scale

    parts, reads = [], width
    for _ in range(depth):
        gives = width if residual or between is None else between
        tensor = bl.BilinearTensor(draw(gives, units), draw(units, reads), draw(units, reads))
        linear = draw(gives, reads) / 2 if bias else None
        constant = draw(gives, 1)[:, 0] / 2 if bias else None
        parts.append(bl.QuadraticLayer(bl.QuadraticMap(tensor, linear, constant), residual))
        reads = gives
    return bl.PolynomialNetwork(tuple(parts), head=draw(outputs, reads))


class Sums:
    """What samples of two networks sum to, for moments and similarity and their errors."""

    def __init__(self, shifts: tuple[Tensor, Tensor]) -> None:
        self.shifts, self.count, self.totals = shifts, 0, list[Tensor]()

    def add(self, f: Tensor, g: Tensor) -> None:
        """Add outputs, (rows, outputs) of both."""
        one, other = f - self.shifts[0], g - self.shifts[1]
        products = (one[:, :, None] * one[:, None, :]).flatten(1)
        inner = torch.stack([(a * b).sum(dim=1) for a, b in pairs(one, other)], dim=1)
        new = [
            *(one.sum(dim=0), one.square().sum(dim=0), other.sum(dim=0)),
            *(products.sum(dim=0), products.square().sum(dim=0)),
            *(inner.sum(dim=0), inner.T @ inner),
        ]
        self.totals = [a + b for a, b in zip(self.totals, new, strict=True)] if self.count else new
        self.count += len(f)

    def z_scores(
        self, mean: Tensor, covariance: Tensor, similarity: float
    ) -> dict[str, list[float]]:
        """Compare with what is exact, in standard errors of the samples."""
        count = self.count
        first, squares, other, products, fourth, inner, crossed = (x / count for x in self.totals)
        sampled = products.view_as(covariance) - first[:, None] * first
        error = ((fourth - products.square()).clamp(min=0) / count).sqrt().view_as(covariance)
        upper = torch.triu(torch.ones_like(covariance)).bool()
        mean_error = ((squares - first.square()) / count).sqrt()
        both, own, their = (
            float(total - (a * b).sum())
            for total, (a, b) in zip(inner, pairs(first[None], other[None]), strict=True)
        )
        sampled_similarity = both / math.sqrt(own * their)
        # how the similarity moves with the three sums: the delta method
        slope = inner.new_tensor([1 / both, -0.5 / own, -0.5 / their]) * sampled_similarity
        spread = crossed - inner[:, None] * inner
        similarity_error = math.sqrt(max(float(slope @ spread @ slope), 0.0) / count)
        return {
            "mean": ((mean - self.shifts[0] - first) / mean_error).tolist(),
            "covariance": ((covariance - sampled) / error)[upper].tolist(),
            "similarity": [(similarity - sampled_similarity) / similarity_error],
            "similarity_error": [similarity_error],
            "similarity_difference": [abs(similarity - sampled_similarity)],
        }


def pairs(one: Tensor, other: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Pair two outputs with each other and with themselves."""
    return (one, other), (one, one), (other, other)


def compare(number: int, samples: int) -> dict[str, Any]:
    """Draw two networks and an input, and compare what is exact with samples."""
    generator = torch.Generator().manual_seed(number)
    width, units, between = (int(torch.randint(4, 17, (1,), generator=generator)) for _ in range(3))
    residual, bias, with_mean, with_covariance = (bool(number >> bit & 1) for bit in range(4))
    f, g = (
        random_layers(2, width, units, 3, generator, residual=residual, bias=bias, between=between)
        for _ in range(2)
    )
    mean = torch.randn(width, generator=generator, dtype=torch.float64) / 2
    root = torch.randn(width, width, generator=generator, dtype=torch.float64) / math.sqrt(width)
    given = mean if with_mean else None, root @ root.T if with_covariance else None
    moments = bl.output_moments(f, *given)
    similarity = bl.network_similarity(f, g, mean=given[0], covariance=given[1])
    sums = Sums((moments.mean, bl.output_moments(g, *given).mean))
    runs = f.to(torch.float32), g.to(torch.float32)  # their rounding is far below a standard error
    turn, shift = root.T.float(), mean.float()
    for _ in range(samples // BLOCK):
        x = torch.randn(BLOCK, width, generator=generator)
        x = x @ turn if with_covariance else x
        x = x + shift if with_mean else x
        one, other = (run(x).double() for run in runs)
        sums.add(one, other)
    found = sums.z_scores(moments.mean, moments.covariance, similarity)
    kind = {"residual": residual, "bias": bias, "mean": with_mean, "covariance": with_covariance}
    sys.stderr.write(f"{number} {found['similarity']}\n")
    return {"width": width, "units": units, "between": between, **kind, **found}


def time_similarity() -> list[dict[str, Any]]:
    """Time one similarity of two networks with residual paths and biases, at each size."""
    rows = []
    for width, units, limit in SIZES:
        generator = torch.Generator().manual_seed(SEED)
        f, g = (
            random_layers(2, width, units, 10, generator, residual=True, bias=True)
            for _ in range(2)
        )
        began = time.process_time()
        bl.network_similarity(f, g)
        seconds = time.process_time() - began
        rows.append({"width": width, "units": units, "seconds": seconds, "limit": limit})
    return rows


def measure_closures() -> list[dict[str, Any]]:
    """Compare the closure of deeper networks with samples of them."""
    rows = []
    for (depth, width), residual in [(one, kind) for one in CLOSURES for kind in (False, True)]:
        generator = torch.Generator().manual_seed(SEED)
        f = random_layers(depth, width, 2 * width, 10, generator, residual=residual, bias=True)
        found = bl.approximate_moments(f, num_samples=DRAWS)
        halves = bl.approximate_moments(f, num_samples=DRAWS, seed=1)
        variances = found.sampled_covariance.diagonal()
        rows.append(
            {
                "depth": depth,
                "width": width,
                "residual": residual,
                "mean_error": found.mean_error,
                "variance_ratio": found.variance_ratio,
                "again": halves.variance_ratio,
                "standard_error": found.variance_ratio
                * float(found.variance_standard_error.sum() / variances.sum()),
                "largest_share": found.largest_share,
                "samples": DRAWS,
            }
        )
    return rows


def distribution(z: list[float]) -> dict[str, float]:
    """Return how z-scores are spread."""
    sizes = torch.tensor(z).abs()
    return {
        "count": len(z),
        "largest": float(sizes.max()),
        "beyond_2": float((sizes > 2).double().mean()),
        "beyond_3": float((sizes > 3).double().mean()),
        "root_mean_square": float(sizes.square().mean().sqrt()),
    }


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    scored = {
        key: distribution([z for one in result["networks"] for z in one[key]])
        for key in ("mean", "covariance", "similarity")
    }
    names = {"mean": "means", "covariance": "entries of covariances", "similarity": "similarities"}
    scores = "\n".join(
        f"| {name} | {one['count']:,} | {one['root_mean_square']:.2f} | {one['largest']:.2f} | "
        f"{one['beyond_2']:.1%} | {one['beyond_3']:.1%} |"
        for key, name in names.items()
        for one in [scored[key]]
    )
    times = "\n".join(
        f"| {row['width']} × {row['units']} | {row['seconds']:.2f} | {row['limit']:.0f} |"
        for row in result["times"]
    )
    closures = "\n".join(
        f"| {row['depth']} | {row['width']} | {'yes' if row['residual'] else 'no'} | "
        f"{row['mean_error']:.3f} | {row['variance_ratio']:.2g} ± {row['standard_error']:.1g} | "
        f"{row['again']:.2g} | {row['largest_share']:.1%} |"
        for row in result["closures"]
    )
    run = result["run"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    largest = max(one["similarity_error"][0] for one in result["networks"])
    far = max(one["similarity_difference"][0] for one in result["networks"])
    return f"""# Two layers, exact, beside samples

Generated by `make bench-two-layers` from `two_layers.json`; do not edit.

## Moments and similarity

{NETWORKS} random networks of two layers (4 to 16 inputs, channels and units; three outputs) in all
combinations of residual paths, biases, a mean and a covariance of the input, each with
{result["samples"]:,} samples of a normal input, run in float32. What is exact less what was
sampled, in standard errors of the sample (of the similarity by the delta method):

| | number | root mean square | largest | beyond 2 | beyond 3 |
|---|---|---|---|---|---|
{scores}

Of a normal variable 4.6 % are beyond 2 and .27 % beyond 3. The outputs have degree 4, so that
samples of a covariance have degree 8 and heavy tails: their standard errors are uncertain, too. The
largest difference of a similarity is {far:.5f}, the largest standard error {largest:.5f}.

## Time

One `bl.network_similarity` of two networks with residual paths, biases and ten outputs, in
seconds of the processor:

| channels × units | seconds | at most |
|---|---|---|
{times}

## More than two layers

`bl.approximate_moments`, the Gaussian closure, beside {result["closures"][0]["samples"]:,} samples
of the network itself, N(0, I) in, random layers with biases. The mean's error is told in standard
deviations of the outputs; the ratio is that of the closure's total variance to the sampled one,
with the sample's standard error, and once more with other draws.

| layers | channels | residual | error of the mean | ratio | again | largest draw's share |
|---|---|---|---|---|---|---|
{closures}

Where one draw brings a large share of the variance, the sampled variance is too small, and so is
its standard error: there the closure is further off than it looks.

{section_of_backdoor(result["backdoor"])}
* {run["date"]}; {run["hardware"]}; {versions};
  {sum(result["seconds"].values()):.0f} seconds of the processor in all, those of checkpoints
  {result["seconds"]["backdoor"]:.0f}.
"""


def main() -> None:
    """Run the benchmark, or parts of it, and write its result and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="with the IDX files of MNIST")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parts: dict[str, Callable[[], Any]] = {
        "times": time_similarity,
        "closures": measure_closures,
        "backdoor": lambda: measure_backdoor(given.data_dir),
        "networks": lambda: [compare(number, given.samples) for number in range(NETWORKS)],
    }
    parser.add_argument("--parts", nargs="*", choices=parts, default=[*parts])
    given = parser.parse_args()
    kept = PAGE / "two_layers.json"
    for part in given.parts:
        began = time.process_time()
        found = parts[part]()
        result = json.loads(kept.read_text()) if kept.exists() else {"seconds": {}}
        result |= {part: found, "run": to_json(describe_run("make bench-two-layers", SEED))}
        if part == "networks":
            result["samples"] = given.samples
        result["seconds"][part] = time.process_time() - began
        kept.write_text(json.dumps(result, indent=1) + "\n")
    if parts.keys() <= result.keys():
        (PAGE / "two_layers.md").write_text(page(result))
        print(page(result))


if __name__ == "__main__":
    main()
