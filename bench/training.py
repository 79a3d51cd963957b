"""One epoch of MNIST: the training loop of bilens against a plain PyTorch loop.

The plain loop is written as image models are commonly trained: a Dataset of tensors, a DataLoader
whose collate function stacks the items, fresh noise for each batch, AdamW as it comes, and the
loss read out every step. Both train the same model (784 → 256 → 256 → 10) with the same batch
size, noise, weight decay and schedule. Epochs alternate, so that a noisy machine is noisy for
both. Then small models side by side in one pass, against one after another, pass by pass in turns.
Run it with `make bench DATA=folder`; it writes docs/benchmarks/training.json and the page;
`--side-by-side` measures the second part alone, and keeps the rest of the file.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bilens.api.provenance import describe_run
from bilens.data.images import ImageDataset, load_images
from bilens.nn import BilinearClassifier
from bilens.records.base import to_json
from bilens.train.loop import train
from bilens.train.tasks.image import ImageRecipe, ImageTask, accuracy, train_classifier
from bilens_studies.image_stack import StackTask, in_passes

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
TARGET = 0.55
RECIPE = ImageRecipe(d_hidden=256, epochs=20, batch_size=2048, noise=0.4, weight_decay=1.0)
SIDE_BY_SIDE_TARGET, TURNS = 3.0, 3
SIZES = (30, 50, 100)  # the sizes of the paper's Fig. 5 up to 100
SMALL = {  # 30 models each
    "noise 0 to 0.8 × weight decay 0, 1 × hidden width 30, 50, 100, one seed": [
        replace(RECIPE, d_hidden=size, weight_decay=decay, noise=noise, epochs=2)
        for noise in (0.0, 0.2, 0.4, 0.6, 0.8)
        for size in SIZES
        for decay in (0.0, 1.0)
    ],
    "five seeds × weight decay 0, 1 × hidden width 30, 50, 100, noise 0.4": [
        replace(RECIPE, d_hidden=size, weight_decay=decay, seed=seed, epochs=2)
        for seed in range(5)
        for size in SIZES
        for decay in (0.0, 1.0)
    ],
}


@dataclass(frozen=True)
class Epoch:
    """One epoch of one loop."""

    seconds: float
    test_accuracy: float


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels, one pair at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def stack(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack the pairs of a batch."""
    return torch.stack([image for image, _ in batch]), torch.stack([label for _, label in batch])


def plain_epochs(data: ImageDataset, recipe: ImageRecipe) -> Iterator[Epoch]:
    """Train with the plain loop."""
    torch.manual_seed(recipe.seed)
    model = BilinearClassifier(784, recipe.d_hidden, 10)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
    loader: DataLoader[Any] = DataLoader(
        Pairs(data.train_images, data.train_labels),
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=stack,
    )
    for _ in range(recipe.epochs):
        began, losses = time.perf_counter(), []
        model.train()
        for x, y in loader:
            loss = functional.cross_entropy(model(x + recipe.noise * torch.randn_like(x)), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
        share = accuracy(model, data.test_images, data.test_labels)
        yield Epoch(time.perf_counter() - began, share)


def our_epochs(data: ImageDataset, recipe: ImageRecipe) -> Iterator[Epoch]:
    """Train with the loop of bilens; its setting-up counts as part of the first epoch."""
    began = time.perf_counter()
    task = ImageTask(data, recipe)
    for metrics in train(task.start(), task):
        seconds = time.perf_counter() - began
        yield Epoch(seconds, metrics.test_accuracy)
        began = time.perf_counter()


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the rate of this machine's matrix products at the size of the embedding, in FLOP/s."""
    a, b = torch.randn(2048, 784).to(dtype), torch.randn(784, 256).to(dtype)
    times = []
    for _ in range(30):
        began = time.perf_counter()
        _ = a @ b
        times.append(time.perf_counter() - began)
    return 2 * 2048 * 784 * 256 / statistics.median(times)


def epoch_operations(data: ImageDataset, model: nn.Module, batch_size: int) -> float:
    """Return the FLOP of an epoch's products: 6 an image and weight, 4 for the embedding."""
    images = len(data.train_images) // batch_size * batch_size
    weights = sum(parameter.numel() for parameter in model.parameters())
    return images * (6.0 * weights - 2.0 * 784 * 256)


def measure(data: ImageDataset) -> dict[str, Any]:
    """Return the result of the benchmark as JSON values."""
    resolved = RECIPE.resolved()
    loops = {
        "plain": plain_epochs(data, RECIPE),
        "ours": our_epochs(data, resolved),
        "ours in float32": our_epochs(data, replace(RECIPE, precision="float32")),
    }
    results: dict[str, list[Epoch]] = {name: [] for name in loops}
    for _ in range(RECIPE.epochs):
        for name, loop in loops.items():
            results[name].append(next(loop))
    medians = {
        name: statistics.median(epoch.seconds for epoch in epochs)
        for name, epochs in results.items()
    }
    ratios = {
        name: [
            ours.seconds / plain.seconds
            for ours, plain in zip(epochs, results["plain"], strict=True)
        ]
        for name, epochs in results.items()
    }
    operations = epoch_operations(data, BilinearClassifier(784, 256, 10), RECIPE.batch_size)
    dtype = torch.bfloat16 if resolved.precision == "bfloat16" else torch.float32
    floor = operations / matrix_rate(dtype)
    float32_floor = operations / matrix_rate(torch.float32)
    return {
        "recipe": resolved.to_dict(),
        "data": data.source_kind,
        "num_images": len(data.train_images),
        "median_seconds": medians,
        "median_ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_quartiles": {
            name: statistics.quantiles(values, n=4) for name, values in ratios.items()
        },
        "target_ratio": TARGET,
        "final_accuracy": {name: epochs[-1].test_accuracy for name, epochs in results.items()},
        "epoch_gflop": operations / 1e9,
        "floor_seconds": floor,
        "ours_over_floor": medians["ours"] / floor,
        "float32_floor_over_plain": float32_floor / medians["plain"],
        "epochs": {name: [vars(epoch) for epoch in epochs] for name, epochs in results.items()},
        "run": to_json(describe_run("make bench", RECIPE.seed)),
    }


def measure_side_by_side(data: ImageDataset) -> dict[str, Any]:
    """Return the seconds that many small models take in one pass and one after another.

    Each three times in turns; the first, which warms up, is left out.
    """
    rows = []
    precisions = dict.fromkeys((RECIPE.resolved().precision, "float32"))
    for (told, recipes), precision in product(SMALL.items(), precisions):
        passes = in_passes(replace(recipe, precision=precision) for recipe in recipes)
        alone: list[float] = []
        together: list[float] = []
        for _ in range(TURNS + 1):
            began = time.perf_counter()
            for recipe in chain(*passes):
                train_classifier(data, recipe)
            between = time.perf_counter()
            for group in passes:
                task = StackTask(data, group)
                for _ in train(task.start(), task):
                    pass
            alone.append(between - began)
            together.append(time.perf_counter() - between)
        rows.append(
            {
                "cells": told,
                "num_models": len(recipes),
                "num_passes": len(passes),
                "precision": precision,
                "one_after_another": alone[1:],
                "side_by_side": together[1:],
            }
        )
    return {
        "rows": rows,
        "epochs": 2,
        "threads": torch.get_num_threads(),
        "target_ratio": SIDE_BY_SIDE_TARGET,
        "run": to_json(describe_run("make bench", 0)),
    }


def side_by_side_section(found: dict[str, Any]) -> str:
    """Return the part of the page about small models side by side."""
    rows = []
    for row in found["rows"]:
        alone, together = row["one_after_another"], row["side_by_side"]
        ratios = sorted(one / other for one, other in zip(alone, together, strict=True))
        rates = (60 * row["num_models"] / statistics.median(one) for one in (alone, together))
        rows.append(
            f"| {row['cells']} | {row['num_passes']} | {row['precision']} | "
            f"{' | '.join(f'{rate:.0f}' for rate in rates)} | **{statistics.median(ratios):.2f}** "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return f"""## Many small models at once

Thirty models a row, {found["epochs"]} epochs each. Those that see the same images in the same order
train in one pass; the weights are those of single training (tested to 1e-5 in float32). Models a
minute, wall time with {found["threads"]} threads, medians of {TURNS} turns:

| models | passes | precision | one after another | side by side | ratio |
|---|---|---|---|---|---|
{chr(10).join(rows)}

* Target: at least {found["target_ratio"]:g} times.
  What is saved is the making of the batches, small products and calls, once for a pass: the more
  models a pass has, the more. The products of the embedding remain, and weigh more the wider the
  models are and the slower the products.
* {found["run"]["date"]}; {found["run"]["hardware"]}.
"""


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    seconds, final, run = result["median_seconds"], result["final_accuracy"], result["run"]
    ratio = result["median_ratio"]
    low, _, high = result["ratio_quartiles"]["ours"]
    recipe = result["recipe"]
    formats = {"plain": "float32", "ours": recipe["precision"], "ours in float32": "float32"}
    rows = "\n".join(
        f"| {name} | {kind} | {seconds[name]:.3f} | {ratio[name]:.3f} | {final[name]:.4f} |"
        for name, kind in formats.items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return f"""# Training: one epoch of MNIST

Generated by `make bench` from `training.json`; do not edit.

| loop | precision | median s an epoch | ratio to plain | accuracy, {recipe["epochs"]} epochs |
|---|---|---|---|---|
{rows}

* **Ratio** ours / plain, median over alternating epochs: **{ratio["ours"]:.3f}**
  (quartiles {low:.3f} to {high:.3f}; target at most {result["target_ratio"]}).
* Difference in accuracy: {100 * (final["ours"] - final["plain"]):+.2f} percentage points
  (target within ±0.3).
* Floor: {result["epoch_gflop"]:.0f} GFLOP an epoch at this machine's rate of
  {recipe["precision"]} products take {result["floor_seconds"]:.3f} s; ours takes
  {result["ours_over_floor"]:.2f} times that.
* In float32, as on a processor without native bfloat16, the target is missed: ours takes
  {ratio["ours in float32"]:.2f} of the plain loop's epoch, of which the products alone need
  {result["float32_floor_over_plain"]:.2f}.
* Work: {result["num_images"]} images, 784 → 256 → 256 → 10, batch
  {recipe["batch_size"]}, noise {recipe["noise"]}, weight decay {recipe["weight_decay"]}. Each
  time includes the evaluation on the test set.
* {run["date"]}; {run["hardware"]}; {versions}.

The plain loop stacks single images in a collate function, draws fresh noise for each batch and
reads the loss every step. Ours indexes minibatches from one tensor, draws the noise of an epoch
once and reads it from a random place each step, fuses AdamW, reads no number out before the end of
an epoch, and multiplies in bfloat16 where the processor does so natively.

{side_by_side_section(result["side_by_side"])}"""


def main() -> None:
    """Run the benchmark and write its result and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--side-by-side", action="store_true")
    asked = parser.parse_args()
    data = load_images("mnist", asked.data_dir, report=print)
    target = PAGE / "training.json"
    result = json.loads(target.read_text()) if asked.side_by_side else measure(data)
    result["side_by_side"] = measure_side_by_side(data)
    PAGE.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "training.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
