"""Overfitting in tables, read from norms and ranks: nothing lies beside anything there."""

import math
import random

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from bilens import QuadraticMap, effective_rank, eigendecompose_all
from bilens.findings import gauge_free
from bilens.train import CrossEntropy, TableRecipe, fit_table
from bilens_studies.finding_statistics import Numbers
from bilens_studies.study import Record

MODELS = 40  # of each table
FEWEST_ROWS, MOST_ROWS = 40, 0.6  # that a model is fitted to; the others are the test
Table = tuple[Numbers, Numbers]


def tables() -> dict[str, Table]:
    """Return tables of scikit-learn, and one that is made."""
    from sklearn import datasets

    return {
        "breast cancer": datasets.load_breast_cancer(return_X_y=True),
        "wine": datasets.load_wine(return_X_y=True),
        "iris": datasets.load_iris(return_X_y=True),
        "made": datasets.make_classification(
            1500, 20, n_informative=8, n_classes=3, flip_y=0.05, random_state=1
        ),
    }


def read_tables(count: int) -> Record:
    """Return by table how each reading ranks models of mixed settings by their true gap."""
    found: Record = {}
    for name, table in tables().items():
        rows = [one for seed in range(count) if (one := read_model(name, table, seed))]
        gaps = [one.pop("gap") for one in rows]
        ranks = {key: float(spearmanr([one[key] for one in rows], gaps)[0]) for key in rows[0]}
        found[name] = {"models": len(rows), "gap": float(np.median(gaps)), "correlations": ranks}
    return found


def read_model(name: str, table: Table, seed: int) -> Record | None:
    """Return readings and gap of one model; nothing where its rows lack a class."""
    x, y = table
    draw = random.Random(f"{name} {seed}")  # noqa: S311 - no secret
    generator = np.random.default_rng(seed)
    most = int(MOST_ROWS * len(y))
    rows = int(math.exp(draw.uniform(math.log(FEWEST_ROWS), math.log(most))))
    alpha, rate = draw.choice((0.1, 0.3, 1.0, 3.0, 10.0, 30.0)), draw.choice((0.0, 0.0, 0.1, 0.2))
    order, classes = generator.permutation(len(y)), len(np.unique(y))
    wrong = generator.random(len(y)) < rate
    labels = np.where(wrong, (y + generator.integers(1, classes, len(y))) % classes, y)
    train, test = order[:rows], order[most:]
    if len(np.unique(labels[train])) < classes:
        return None
    rows_of, truth = torch.from_numpy(x), torch.from_numpy(labels)
    one_hot = functional.one_hot(truth, classes).double()
    scale = draw.choice((0.1, 0.3, 1.0))
    recipe = TableRecipe(alpha=alpha, column_scale="standard", quadratic_scale=scale)
    weights = torch.ones(rows, dtype=torch.float64)
    fit = fit_table(rows_of[train], CrossEntropy(one_hot[train]), weights, recipe)
    answers = fit.standard_map((rows_of - fit.mean) / fit.scale).argmax(dim=1)
    known = float((answers == truth)[train].double().mean())
    right = float((answers.numpy() == y)[test].mean())
    expected = (1 - rate) * right + rate * (1 - right) / (classes - 1)
    return {**readings(gauge_free(fit.standard_map)), "gap": known - expected}


def readings(f: QuadraticMap) -> dict[str, float]:
    """Read norms and ranks of a map of standardised columns."""
    values = eigendecompose_all(f).eigenvalues
    norms = values.square().sum(dim=1).sqrt()
    linear = 0.0 if f.linear is None else float(f.linear.norm())
    return {
        "norm of squares and pairs": float(norms.square().sum().sqrt()),
        "norm of the linear part": linear,
        "effective rank": float(effective_rank(values).mean()) / values.shape[1],
        "largest eigenvalue over the norm": float((values.abs().amax(dim=1) / norms).mean()),
    }
