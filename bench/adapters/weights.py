"""Readings of the changed matrices alone, and what they say together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bilens.findings.adapters import token_scores

Numbers = NDArray[np.float64]
READINGS = ("norm", "top share", "entropy", "rank share", "kurtosis", "writes", "reads")
RIDGE = 1.0


def readings(
    changes: Mapping[str, tuple[Tensor, ...]], embedding: Tensor, unembedding: Tensor
) -> dict[str, float]:
    """Return the readings of an update: of each the mean over its matrices and the largest."""
    rows = []
    for name, kept in changes.items():
        change = (kept[0].float() @ kept[1] if len(kept) == 2 else kept[0].float()).double()
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        shares = (values.square() / values.square().sum()).clamp(min=1e-12)
        entropy = float(-(shares * shares.log()).sum())
        vectors = torch.cat([left[:, 0], right[0]])
        kurtosis = float((vectors**4).mean() / vectors.square().mean() ** 2)
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        table, direction = (unembedding, left[:, 0]) if writes else (embedding, right[0])
        score = token_scores(table @ direction.float(), 1)[0][0]
        rows.append(
            {
                "norm": float(values.square().sum().sqrt()),
                "top share": float(shares[0]),
                "entropy": entropy,
                "rank share": float(np.exp(entropy)) / len(values),
                "kurtosis": float(np.log(kurtosis)),
                "writes" if writes else "reads": score,
            }
        )
    found: dict[str, float] = {}
    for reading in READINGS:
        known = [row[reading] for row in rows if reading in row] or [0.0]
        found |= {f"{reading}, mean": float(np.mean(known)), f"{reading}, largest": max(known)}
    return found


def written_tokens(
    changes: Mapping[str, tuple[Tensor, ...]], unembedding: Tensor
) -> list[list[int]]:
    """Return the five leading tokens of every changed matrix that writes."""
    found = []
    for name, kept in changes.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            change = kept[0].float() @ kept[1] if len(kept) == 2 else kept[0].float()
            left = torch.linalg.svd(change, full_matrices=False)[0]
            found.append(token_scores(unembedding @ left[:, 0], 5)[1])
    return found


def together(
    fixed: Sequence[Mapping[str, float]],
    labels: Sequence[bool],
    others: Sequence[Mapping[str, float]],
) -> list[float]:
    """Return scores of others by a logistic ridge that was fitted to the fixed families."""
    names = sorted(fixed[0])
    x, z = (np.array([[row[name] for name in names] for row in rows]) for rows in (fixed, others))
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    x, z = (np.column_stack([np.ones(len(one)), (one - mean) / scale]) for one in (x, z))
    y, weights = np.array(labels, float), np.zeros(x.shape[1])
    penalty = RIDGE * np.eye(len(weights))
    penalty[0, 0] = 0.0
    for _ in range(50):  # Newton's method
        p = 1 / (1 + np.exp(-(x @ weights)))
        slope = x.T @ (p - y) + penalty @ weights
        weights -= np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + penalty, slope)
    return [float(value) for value in z @ weights]


def beside_bank(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return how far updates of one base lie from the benign ones of it, left out themselves.

    What rank, modules, rate and steps explain among the benign is taken out of every reading (a
    ridge); the rest is measured in their standard deviations: the largest, and the Mahalanobis
    distance with the covariance shrunk by half to its diagonal.
    """
    names = sorted(rows[0]["weights"])
    x = np.array([[row["weights"][name] for name in names] for row in rows])
    given = np.array([explained(row) for row in rows])
    benign = [i for i, row in enumerate(rows) if not row["spec"]["trigger"]]
    apart: dict[str, list[float]] = {"largest": [], "Mahalanobis": []}
    for row in range(len(rows)):
        bank = [i for i in benign if i != row]
        a = given[bank]
        fit = np.linalg.solve(a.T @ a + 0.1 * np.eye(a.shape[1]), a.T @ x[bank])
        rest = (x - given @ fit) / ((x[bank] - a @ fit).std(axis=0) + 1e-9)
        cov = np.cov(rest[bank].T)
        shrunk = (cov + np.diag(np.diag(cov))) / 2 + 1e-3 * np.eye(len(cov))
        apart["largest"].append(float(np.abs(rest[row]).max()))
        apart["Mahalanobis"].append(float(rest[row] @ np.linalg.solve(shrunk, rest[row])))
    return apart


def explained(row: Mapping[str, Any]) -> list[float]:
    """Return what a benign reason can have: rank, modules, rate and steps."""
    spec = row["spec"]
    whole, modules = spec["rank"] == 0, spec["modules"]
    size = np.log2(spec["rank"] or 128)
    training = np.log([spec["rate"], row["steps"]])
    return [1.0, size, whole, modules == "qkvo", modules == "mlp", *training]
