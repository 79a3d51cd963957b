"""How well each reading of overfitting ranks models by their true gap, beside WeightWatcher's."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings

import torch
from torch import Tensor

from bench.power.models import Measured
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.audit import centred_map
from bilens.findings.overfitting import (
    FLOOR,
    FORMULA,
    LEADING,
    Subject,
    class_templates,
    gradients,
    readings,
    usual_length,
)
from bilens.findings.subject import in_float64

EARLIER = (-11.49, 0.45, -1.02, 10.41)  # constants of the formula before this one


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
    slope = template_steepness(f, subject.templates)
    size = eigs.eigenvalues.abs()
    ranks = size.sum(dim=1).square() / size.square().sum(dim=1)
    return {
        **found,
        "effective_rank": float(ranks.mean()),
        "norm": math.log(float(f.tensor.norm())),
        "steepness_at_templates": slope,
        "earlier_formula": earlier_formula(slope, found["edge_mass"], found["roughness"]),
        "score": FORMULA.gap(found),
    }


def template_steepness(f: QuadraticMap, templates: Tensor) -> float:
    """Return the median over classes s and t of ‖∇(f_s − f_t)(ρ m_s)‖, m_s the template of s."""
    slopes = gradients(f, usual_length(f.sizes.d_in) * templates)
    between = (slopes.diagonal().T[:, None] - slopes).norm(dim=2)
    return float(between[~torch.eye(len(templates), dtype=torch.bool)].median())


def earlier_formula(steepness: float, edge_mass: float, rough: float) -> float:
    """Return the exponent of the formula of three readings that the present one replaced."""
    constant, slope, edge, frequency = EARLIER
    loud = slope * math.log(steepness)
    return constant + loud + edge * math.log(edge_mass + FLOOR) + frequency * rough


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
