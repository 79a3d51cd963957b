"""The estimators of tables against what scikit-learn has, at their defaults, on its own data sets.

Ten folds, the same for every model: the classes in their shares for classifiers. Rivals get
standardised columns: logistic or ridge regression, and a multi-layer perceptron. The defaults of
`bl.sklearn` were chosen on the four sets of `CHOSEN_ON`, with other folds; the other two had no
part in it.

Run it with `make bench-tables`; it writes docs/benchmarks/tables.json and the page.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.sklearn import BilinearClassifier, BilinearRegressor
from sklearn import datasets

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
FOLDS, SEED = 10, 1
CHOSEN_ON = ("breast cancer", "wine", "digits", "diabetes")
OURS, PATH, LINEAR, PERCEPTRON = "bilens", "bilens, early stopping", "linear", "perceptron"


def tables() -> dict[str, tuple[bool, np.ndarray, np.ndarray]]:
    """Return the data sets: whether it has classes, rows, target."""
    classes = {
        "breast cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
    }
    found = {name: (True, *load(return_X_y=True)) for name, load in classes.items()}
    found["diabetes"] = (False, *datasets.load_diabetes(return_X_y=True))
    friedman = datasets.make_friedman1(n_samples=500, noise=1.0, random_state=0)
    return {**found, "friedman 1": (False, *friedman)}


def models(has_classes: bool) -> dict[str, Any]:
    """Return the models at their defaults; those of scikit-learn behind a standardisation."""
    ours: Any
    linear: Any
    perceptron: Any
    if has_classes:
        ours, linear, perceptron = BilinearClassifier, LogisticRegression(), MLPClassifier
    else:
        ours, linear, perceptron = BilinearRegressor, Ridge(), MLPRegressor
    return {
        OURS: ours(),
        PATH: ours(early_stopping=True, random_state=0),
        LINEAR: make_pipeline(StandardScaler(), linear),
        PERCEPTRON: make_pipeline(StandardScaler(), perceptron(random_state=0)),
    }


def measure() -> dict[str, Any]:
    """Return scores and seconds of every model on every fold."""
    results = []
    busy = os.getloadavg()[0]  # what else the machine had to do, before we begin
    for name, (has_classes, x, y) in tables().items():
        split = StratifiedKFold if has_classes else KFold
        folds = list(split(FOLDS, shuffle=True, random_state=SEED).split(x, y))
        scores: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for label, model in models(has_classes).items():
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a perceptron stops at its 200 iterations
                scores[label] = [
                    float(model.fit(x[known], y[known]).score(x[new], y[new]))
                    for known, new in folds
                ]
            seconds[label] = (time.perf_counter() - began) / FOLDS
            print(name, label, f"{fmean(scores[label]):.4f}", f"{seconds[label]:.2f} s", flush=True)
        results.append(
            {
                "name": name,
                "score": "accuracy" if has_classes else "R²",
                "rows": len(x),
                "columns": x.shape[1],
                "defaults_chosen_on_it": name in CHOSEN_ON,
                "scores": scores,
                "seconds_a_fold": seconds,
            }
        )
    return {
        "folds": FOLDS,
        "seed": SEED,
        "results": results,
        "load": busy,
        "run": to_json(describe_run(None, SEED)),
    }


def spread(scores: list[float]) -> str:
    """Return the mean with its standard error."""
    return f"{fmean(scores):.4f} ± {stdev(scores) / len(scores) ** 0.5:.4f}"


def verdict(item: dict[str, Any]) -> str:
    """Return the paired difference to the better rival, and whether it is within its error."""
    scores = item["scores"]
    rival = max((LINEAR, PERCEPTRON), key=lambda label: fmean(scores[label]))
    paired = [ours - other for ours, other in zip(scores[OURS], scores[rival], strict=True)]
    error = stdev(scores[rival]) / len(paired) ** 0.5
    word = "yes" if fmean(paired) >= -error else "no"
    return f"{rival} | {spread(paired)} | {error:.4f} | {word}"


def about(result: dict[str, Any]) -> str:
    """Return what was measured."""
    return (
        f"Mean score of {result['folds']} folds (seed {result['seed']}), the same for every model, "
        "with the standard error of the mean. Every model has its defaults: "
        f'"{LINEAR}" is logistic or ridge regression, "{PERCEPTRON}" is `MLPClassifier` or '
        "`MLPRegressor` (which ends at its 200 iterations), both on standardised columns. The "
        "defaults of `bl.sklearn` were chosen on these data sets, with other folds, except on "
        "those marked with a star."
    )


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    run, items = result["run"], result["results"]
    head = ["data", "rows × columns", "score", OURS, PATH, LINEAR, PERCEPTRON]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for item in items:
        mark = "" if item["defaults_chosen_on_it"] else " *"
        cells = [f"{item['name']}{mark}", f"{item['rows']} × {item['columns']}", item["score"]]
        cells += [spread(item["scores"][label]) for label in head[3:]]
        lines.append(f"| {' | '.join(cells)} |")
    judged = ["| data | better rival | difference, paired | its standard error | within it |"]
    judged.append("|---" * 5 + "|")
    judged += [f"| {item['name']} | {verdict(item)} |" for item in items]
    times = [f"| data | {' | '.join(head[3:])} |", "|---" * 5 + "|"]
    for item in items:
        cells = [f"{item['seconds_a_fold'][label]:.2f}" for label in head[3:]]
        times.append(f"| {item['name']} | {' | '.join(cells)} |")
    return (
        "\n\n".join(
            [
                "# Tables: the estimators against scikit-learn",
                "Generated from `tables.json`, which `make bench-tables` writes.",
                about(result),
                "\n".join(lines),
                "Is `bl.sklearn`, at its defaults, within one standard error of the better rival?",
                "\n".join(judged),
                "Seconds a fold, fit and score, one thread, on a machine whose load average was "
                f"{result['load']:.1f} when it began: compare them with each other only.",
                "\n".join(times),
                f"{run['hardware']}; bilens {run['versions']['bilens']}, torch "
                f"{run['versions']['torch']}; {run['date']}; `{run['command']}`.",
            ]
        )
        + "\n"
    )


def main() -> None:
    """Run the benchmark and write its page."""
    result = measure()
    PAGE.mkdir(parents=True, exist_ok=True)
    (PAGE / "tables.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "tables.md").write_text(page(result))


if __name__ == "__main__":
    main()
