"""How well each reading of overfitting ranks models by their true gap, beside WeightWatcher's."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings

import torch

from bench.power.models import Measured
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.overfitting import FORMULA, LEADING, Subject, readings
from bilens.findings.subject import in_float64
from bilens.findings.templates import class_templates
from bilens.findings.warnings import centred_map

SKETCHED = ("effective_rank", "norm")  # single scores of an earlier sketch


def spectra(f: QuadraticMap) -> EigenDecomposition:
    """Return every eigenvalue that is not zero by its rank, from the factors."""
    return eigendecompose_all(f, k=min(2 * f.sizes.d_hidden, f.sizes.d_in))


def scores(model: Measured, shape: tuple[int, int]) -> dict[str, float]:
    """Return our data-free readings and the score made of them."""
    f = centred_map(in_float64(model.model))
    eigs = spectra(f)
    nowhere = torch.zeros_like(eigs.eigenvalues, dtype=torch.bool)
    subject = Subject(f, eigs, nowhere, class_templates(eigs), shape)
    found = readings(subject, f, eigs.eigenvectors[:, :LEADING], None)
    size = eigs.eigenvalues.abs()
    ranks = size.sum(dim=1).square() / size.square().sum(dim=1)
    return {
        **found,
        "effective_rank": float(ranks.mean()),
        "norm": math.log(float(f.tensor.norm())),
        "score": FORMULA.gap(found),
    }


def weightwatcher(model: Measured) -> dict[str, float]:
    """Return WeightWatcher's metrics of the same model, means over its four matrices."""
    import weightwatcher as watcher  # of the study alone

    logging.disable(logging.CRITICAL)
    silence = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence):
        warnings.simplefilter("ignore")
        watched = watcher.WeightWatcher(model=model.model)
        summary = watched.get_summary(watched.analyze(mp_fit=True, min_evals=1))
    logging.disable(logging.NOTSET)
    return {name: float(value) for name, value in summary.items() if math.isfinite(value)}
