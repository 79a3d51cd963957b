"""The estimators of tables against others at their defaults, on data sets that packages ship.

Five folds, the same for every model: the classes in their shares for classifiers. Rivals are
logistic or ridge regression and a multi-layer perceptron on standardised columns, scikit-learn's
histogram gradient boosting, and the explainable boosting machine of `interpret`, the other model
that can be read. The defaults of `bl.sklearn` were chosen on the four sets of `CHOSEN_ON`, with
other folds; the others had no part in it.

Run it with `make bench-tables`; it writes docs/benchmarks/tables.json and the page.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import pandas as pd
from mlxtend.data import autompg_data, boston_housing_data
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
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
FOLDS, SEED = 5, 1
CHOSEN_ON = ("breast cancer", "wine", "digits", "diabetes")
OURS, PATH, LINEAR, PERCEPTRON = "bilens", "bilens, early stopping", "linear", "perceptron"
BOOSTED, EBM = "boosted trees", "EBM"
SKIPPED = {"digits": (PATH, EBM)}  # half an hour and more


def tables() -> dict[str, tuple[bool, np.ndarray, np.ndarray]]:
    """Return the data sets: whether it has classes, rows, target."""
    from statsmodels.datasets import anes96, fair, star98  # of the extra `bench` alone

    classes = {
        "breast cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
    }
    found = {name: (True, *load(return_X_y=True)) for name, load in classes.items()}
    found["diabetes"] = (False, *datasets.load_diabetes(return_X_y=True))
    friedman = datasets.make_friedman1(n_samples=500, noise=1.0, random_state=0)
    found |= {
        "friedman 1": (False, *friedman),
        "auto mpg": (False, *arrays(*map(pd.DataFrame, autompg_data()))),
        "boston housing": (False, *boston_housing_data()),
    }
    votes, affairs, schools = (part.load_pandas().data for part in (anes96, fair, star98))
    share = schools.NABOVE / (schools.NABOVE + schools.NBELOW)
    found["election of 1996"] = (True, *arrays(votes.drop(columns="vote"), votes.vote.astype(int)))
    found["affairs"] = (
        True,
        *arrays(affairs.drop(columns="affairs"), (affairs.affairs > 0).astype(int)),
    )
    found["school tests"] = (False, *arrays(schools.drop(columns=["NABOVE", "NBELOW"]), share))
    return found


def arrays(frame: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and target, without rows that lack a value."""
    frame = frame.dropna(axis=1, how="all")
    kept = frame.notna().all(axis=1)
    numbers = target[kept].to_numpy().ravel()
    return frame[kept].to_numpy(float), numbers


def models(name: str, has_classes: bool) -> dict[str, Any]:
    """Return the models at their defaults; linear ones and perceptrons standardised."""
    from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor

    ours: Any
    linear: Any
    perceptron: Any
    boosted: Any
    ebm: Any
    if has_classes:
        ours, linear, perceptron = BilinearClassifier, LogisticRegression(), MLPClassifier
        boosted, ebm = HistGradientBoostingClassifier, ExplainableBoostingClassifier
    else:
        ours, linear, perceptron = BilinearRegressor, Ridge(), MLPRegressor
        boosted, ebm = HistGradientBoostingRegressor, ExplainableBoostingRegressor
    found = {
        OURS: ours(),
        PATH: ours(early_stopping=True, random_state=0),
        LINEAR: make_pipeline(StandardScaler(), linear),
        PERCEPTRON: make_pipeline(StandardScaler(), perceptron(random_state=0)),
        BOOSTED: boosted(random_state=0),
        EBM: ebm(random_state=0, n_jobs=1),
    }
    return {label: one for label, one in found.items() if label not in SKIPPED.get(name, ())}


def terms(label: str, model: Any, columns: int) -> int | None:
    """Return what a reader would have to look at: columns, squares and pairs, or trees."""
    if label == EBM:
        return len(model.term_features_)
    if label == BOOSTED:
        return sum(map(len, model._predictors))
    if label == LINEAR:
        return columns
    return None if label == PERCEPTRON else columns + columns * (columns + 1) // 2


def measure() -> dict[str, Any]:
    """Return scores and seconds of every model on every fold."""
    results = []
    busy = 0.0  # what the machine had to do, ours included
    for name, (has_classes, x, y) in tables().items():
        split = StratifiedKFold if has_classes else KFold
        folds = list(split(FOLDS, shuffle=True, random_state=SEED).split(x, y))
        scores: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        sizes: dict[str, int | None] = {}
        for label, model in models(name, has_classes).items():
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a perceptron stops at its 200 iterations
                scores[label] = [
                    float(model.fit(x[known], y[known]).score(x[new], y[new]))
                    for known, new in folds
                ]
            seconds[label] = (time.perf_counter() - began) / FOLDS
            sizes[label] = terms(label, model, x.shape[1])
            busy = max(busy, os.getloadavg()[0])
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
                "terms": sizes,
            }
        )
    return {
        "folds": FOLDS,
        "seed": SEED,
        "results": results,
        "load": busy,
        "run": to_json(describe_run(None, SEED)),
    }


def spread(scores: list[float] | None) -> str:
    """Return the mean with its standard error; a dash for what was not run."""
    if scores is None:
        return "—"
    return f"{fmean(scores):.4f} ± {stdev(scores) / len(scores) ** 0.5:.4f}"


def verdict(item: dict[str, Any]) -> str:
    """Return the paired difference to the better rival, and whether it is within its error."""
    scores = item["scores"]
    rival = max((LINEAR, PERCEPTRON), key=lambda label: fmean(scores[label]))
    paired = [ours - other for ours, other in zip(scores[OURS], scores[rival], strict=True)]
    error = stdev(scores[rival]) / len(paired) ** 0.5
    word = "yes" if fmean(paired) >= -error else "no"
    return f"{rival} | {spread(paired)} | {error:.4f} | {word}"


def errors_below(item: dict[str, Any], rival: str = EBM) -> float:
    """Return by how many standard errors of a rival's mean our mean is below it."""
    theirs = item["scores"][rival]
    error = stdev(theirs) / len(theirs) ** 0.5
    return (fmean(theirs) - fmean(item["scores"][OURS])) / error if error > 0 else 0.0


def about(result: dict[str, Any]) -> str:
    """Return what was measured."""
    return (
        f"Mean score of {result['folds']} folds (seed {result['seed']}), the same for every model, "
        "with the standard error of the mean. Every model has its defaults: "
        f'"{LINEAR}" is logistic or ridge regression, "{PERCEPTRON}" is `MLPClassifier` or '
        "`MLPRegressor` (which ends at its 200 iterations), both on standardised columns, "
        f'"{BOOSTED}" `HistGradientBoostingClassifier` or `…Regressor`, "{EBM}" the explainable '
        "boosting machine of `interpret`; on digits, where it takes more than half an hour, it was "
        "not run. The defaults of `bl.sklearn` were chosen on these data sets, with other folds, "
        "except on those marked with a star."
    )


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    run, items = result["run"], result["results"]
    head = ["data", "rows × columns", "score", OURS, PATH, LINEAR, PERCEPTRON, BOOSTED, EBM]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for item in items:
        mark = "" if item["defaults_chosen_on_it"] else " *"
        cells = [f"{item['name']}{mark}", f"{item['rows']} × {item['columns']}", item["score"]]
        cells += [spread(item["scores"].get(label)) for label in head[3:]]
        lines.append(f"| {' | '.join(cells)} |")
    judged = ["| data | better rival | difference, paired | its standard error | within it |"]
    judged.append("|---" * 5 + "|")
    judged += [f"| {item['name']} | {verdict(item)} |" for item in items]
    times = [f"| data | {' | '.join(head[3:])} |", "|---" * 7 + "|"]
    sizes = [*times]
    rows = [item for item in items if EBM in item["scores"]]
    below = [errors_below(item) for item in rows]
    anchor = ["| data | standard errors of the EBM below it |", "|---" * 2 + "|"]
    anchor += [f"| {row['name']} | {n:+.2f} |" for row, n in zip(rows, below, strict=True)]
    for item in items:
        seconds, counts = item["seconds_a_fold"], item["terms"]
        cells = [f"{seconds[label]:.2f}" if label in seconds else "—" for label in head[3:]]
        times.append(f"| {item['name']} | {' | '.join(cells)} |")
        found = [str(counts.get(label) or "—") for label in head[3:]]
        sizes.append(f"| {item['name']} | {' | '.join(found)} |")
    middle, most = median(below), sum(number <= 1 for number in below)
    against = (
        f"Against the EBM: in the median data set {middle:+.2f} of the "
        f"EBM's standard errors below it (negative: above), at most one in {most} of {len(below)}."
    )
    return (
        "\n\n".join(
            [
                "# Tables: the estimators against others",
                "Generated from `tables.json`, which `make bench-tables` writes.",
                about(result),
                "\n".join(lines),
                "Is `bl.sklearn`, at its defaults, within one standard error of the better rival?",
                "\n".join(judged),
                against,
                "\n".join(anchor),
                "Terms that a reader would have to look at: columns, squares and pairs; columns "
                "and pairs of the EBM; trees.",
                "\n".join(sizes),
                "Seconds a fold, fit and score, one thread, on a machine whose load average was "
                f"{result['load']:.1f} at most: compare those of a data set with each other only.",
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
