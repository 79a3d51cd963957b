"""Ordinary networks made bilinear: what it costs on MNIST and on six tables of scikit-learn.

* MNIST: a ReLU MLP 784–128–10 trained with Adam (10 epochs, seed 0), converted on the training
  images by the default recipe; accuracy on the 10,000 test images, paired; exact ℓ2 radii of the
  first 1,000 of them.
* Six tables: a scaler and an MLP of 30 neurons on each of five random splits (30 % new rows), the
  conversion fitted to the known rows; the scores of both on the new rows.

Run it with `make bench-conversion-ordinary`, with DATA=folder-with-the-IDX-files for the first
part; it writes docs/benchmarks/conversion_ordinary.json and the page.
"""

import argparse
import json
import math
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

import bilens as bl
from bilens.api.provenance import describe_run
from bilens.data.images import ImageDataset, load_images
from bilens.nn import BilinearClassifier
from bilens.records.base import to_json
from bilens.train.recipes import ROWS_RECIPE as RECIPE
from sklearn import datasets

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
HIDDEN, EPOCHS, BATCH, CERTIFIED = 128, 10, 128, 1000
SPLITS, NEW, NEURONS, TOKENS = 5, 0.3, 30, 100_000
TABLES = ("iris", "wine", "breast_cancer", "digits", "diabetes")


def trained_mlp(data: ImageDataset) -> nn.Sequential:
    """Return a ReLU MLP with one hidden layer, trained on MNIST."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(data.train_images)), BATCH):
            loss = functional.cross_entropy(model(data.train_images[rows]), data.train_labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def loaded(folder: Path) -> BilinearClassifier:
    module = bl.load(folder).module
    assert isinstance(module, BilinearClassifier)
    return module


def measure_mnist(data: ImageDataset, folder: Path) -> dict[str, Any]:
    """Return the bill of a converted ReLU MLP, and what is certified of it."""
    teacher = trained_mlp(data)
    began = time.perf_counter()
    found = bl.convert_network(teacher, data, folder)
    converted = time.perf_counter()
    x, labels = data.test_images[:CERTIFIED], data.test_labels[:CERTIFIED]
    f = loaded(folder).quadratic_map().detach()
    record = bl.certify.l2_radius(f, x, labels)
    ends = time.perf_counter()
    right = record.radius > 0
    beyond = x.double() + (record.example - x.double()) * (1 + 1e-6)
    crossed = f.to(torch.float64)(beyond[right]).argmax(dim=1) != labels[right]
    return {
        "recipe": RECIPE.to_dict(),
        "layers": found["layers"],
        "after_layers": found["after_layers"][0],
        "end": found["domains"][0],
        "seconds": converted - began,
        "certified": int(sum(one.name == "CERTIFIED" for one in record.status)),
        "right": int(right.sum()),
        "crossed": int(crossed.sum()),
        "median_radius": float(record.radius[right].median()),
        "certificate_seconds": ends - converted,
    }


def rows_of(name: str) -> tuple[Any, Any]:
    if name == "friedman1":
        x, y = datasets.make_friedman1(1000, noise=1.0, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x, y


def measure_table(name: str) -> dict[str, Any]:
    """Return the scores of teacher and converted model on each split."""
    (x, y), scores = rows_of(name), {"teacher": list[float](), "converted": list[float]()}
    numbers = name in ("diabetes", "friedman1")
    kind, score = (MLPRegressor, r2_score) if numbers else (MLPClassifier, accuracy_score)
    began = time.perf_counter()
    for seed in range(SPLITS):
        strata = None if numbers else y
        parts = train_test_split(x, y, test_size=NEW, random_state=seed, stratify=strata)
        known, new, told, truth = parts
        mlp = kind(
            hidden_layer_sizes=NEURONS, solver="lbfgs", alpha=3.0, max_iter=200, random_state=seed
        )
        with warnings.catch_warnings(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # it stops at its 200 iterations
            pipeline = make_pipeline(StandardScaler(), mlp).fit(known, told)
            recipe = replace(RECIPE, tokens=TOKENS, seed=seed)
            bl.convert_network(pipeline, (known, told), Path(folder) / "run", recipe)
            module = loaded(Path(folder) / "run").double()
        with torch.no_grad():
            out = module(torch.from_numpy(np.asarray(new, dtype=float)))
        said = out[:, 0] if numbers else out.argmax(dim=1)
        scores["teacher"].append(float(score(truth, pipeline.predict(new))))
        scores["converted"].append(float(score(truth, said.numpy())))
    seconds = (time.perf_counter() - began) / SPLITS
    row = {"name": name, "rows": len(x), "score": "R²" if numbers else "accuracy", **scores}
    sys.stderr.write(f"{row} {seconds:.1f} s\n")
    return row | {"seconds_a_split": seconds}


def spread(values: list[float]) -> float:
    return stdev(values) / math.sqrt(len(values))


def difference(row: dict[str, Any]) -> list[float]:
    return [b - a for a, b in zip(row["teacher"], row["converted"], strict=True)]


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    run, mnist = result["run"], result["mnist"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    rows = ["| table | rows | score | MLP | bilinear | paired difference | within one error |"]
    rows.append("|---|---|---|---|---|---|---|")
    for row in result["tables"]:
        teacher, paired = row["teacher"], difference(row)
        within = "yes" if fmean(paired) >= -spread(teacher) else "no"
        rows.append(
            f"| {row['name']} | {row['rows']} | {row['score']} | {fmean(teacher):.4f} ± "
            f"{spread(teacher):.4f} | {fmean(row['converted']):.4f} | {fmean(paired):+.4f} ± "
            f"{spread(paired):.4f} | {within} |"
        )
    table, end, layer = "\n".join(rows), mnist["end"], mnist["layers"][0]
    change, stage = end["accuracy"] - end["teacher_accuracy"], mnist["after_layers"]
    return f"""# Ordinary networks made bilinear

Generated by `make bench-conversion-ordinary` from `conversion_ordinary.json`; do not edit.
{run["date"]}; {run["hardware"]}; {versions}. The machine was busy: times are upper bounds.

## A ReLU MLP on MNIST

784–{HIDDEN}–10, converted by the default recipe on the 60,000 training images, measured on the
{end["tokens"]:,} test images; ± is one standard error, paired over the images.

| | accuracy | loss added, nats | KL, nats |
|---|---|---|---|
| ReLU MLP | {end["teacher_accuracy"]:.4f} | | |
| layer fitted and trained, on the first {stage["tokens"]:,} images (ReLU MLP \
{stage["teacher_accuracy"]:.4f}) | {stage["accuracy"]:.4f} | \
{stage["loss_added"]:+.4f} | {stage["kl"]:.4f} |
| distilled | {end["accuracy"]:.4f} ({change:+.4f} ± {end["accuracy_error"]:.4f}) | \
{end["loss_added"]:+.4f} ± {end["error"]:.4f} | {end["kl"]:.4f} |

R² of the layer on held-out images: {layer["closed_form"]:.3f} in closed form,
{layer["r_squared"]:.3f} trained. The conversion took {mnist["seconds"]:.0f} s on one thread. The
result is one exact quadratic map. Of the first {CERTIFIED:,} test images
{mnist["certified"]:,} have a proven ℓ2 radius; {mnist["right"]} are right, with a median radius of
{mnist["median_radius"]:.3f}, and just beyond it the answer is another one for {mnist["crossed"]}
of them ({mnist["certificate_seconds"]:.0f} s).

## MLPs of scikit-learn

A scaler and {NEURONS} neurons with ReLU (`alpha=3`, lbfgs), {SPLITS} random splits, {NEW:.0%} of
the rows new; the conversion sees the known rows alone ({TOKENS:,} rows in all stages). ± is one
standard error over the splits; the last column says whether the converted model is, in the mean,
at most one standard error of the MLP's own score below it.

{table}
"""


def main() -> None:
    """Measure, and write the result and its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", choices=("mnist", "tables"), help="keep the rest")
    given, path = parser.parse_args(), PAGE / "conversion_ordinary.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["run"] = to_json(describe_run("make bench-conversion-ordinary", seed=0))
    if given.only != "mnist":
        result["tables"] = [measure_table(name) for name in (*TABLES, "friedman1")]
    if given.only != "tables" and given.data_dir is not None:
        with TemporaryDirectory() as folder:
            data = load_images("mnist", given.data_dir)
            result["mnist"] = measure_mnist(data, Path(folder) / "run")
    path.write_text(json.dumps(result, indent=1) + "\n")
    if "mnist" in result:
        (PAGE / "conversion_ordinary.md").write_text(page(result))


if __name__ == "__main__":
    main()
