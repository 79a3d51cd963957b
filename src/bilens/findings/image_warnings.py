"""Warnings on an image classifier, read from its map: overfitting and hidden triggers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.hidden_units import branches
from bilens.findings.layer_reading import FittedLayer
from bilens.findings.leads import Leads, class_templates
from bilens.findings.overfitting import read_overfitting
from bilens.findings.subject import gauge_free, in_float64
from bilens.findings.triggers import read_triggers
from bilens.nn import BilinearClassifier
from bilens.nn.module_layers import layer_at
from bilens.records.image_warnings import Overfitting, Triggers

# shape and classes of the models that fixed the findings, and that these were measured on
MEASURED = (28, 28), 10


@dataclass(frozen=True, eq=False)
class ClassMap:
    """A classifier of images as both searches read it, in float64."""

    f: QuadraticMap  # class-centred
    eigs: EigenDecomposition  # its whole spectra
    first: Tensor  # what meets the inputs first, (rows, in)

    def leads(self, shape: tuple[int, int]) -> Leads:
        return Leads(self.f, self.eigs, class_templates(self.eigs), shape)


def classifier_map(module: BilinearClassifier, eigs: EigenDecomposition) -> ClassMap:
    """Return the map of a classifier of one bilinear layer, which it is exactly."""
    return ClassMap(gauge_free(in_float64(module).quadratic_map().detach()), eigs, rows_of(module))


def rows_of(module: BilinearClassifier) -> Tensor:
    """Return the rows that meet the inputs: those of an embedding that was learnt."""
    rows, layer = module.embed.weight.detach(), layer_at(module, 0)
    if not bool((rows.count_nonzero(dim=1) > 1).any()):  # a converted model has the identity there
        rows = torch.cat([layer.left.weight, layer.right.weight]).detach() @ rows
    return rows[rows.any(dim=1)]  # and is filled up with zeros


def layer_map(fitted: FittedLayer) -> ClassMap:
    """Return the map of a layer that is a whole classifier: itself, or its approximation."""
    f, layer = gauge_free(fitted.fit.quadratic_map), fitted.layer
    first = fitted.embedding
    if first is None:
        first = torch.cat([weight for weight, *_ in branches(layer)])
    return ClassMap(f, eigendecompose_all(f, k=None), first)


def read_warnings(
    found: ClassMap, shape: tuple[int, int], unmeasured: str = ""
) -> tuple[Overfitting, Triggers]:
    """Return the findings of overfitting and of triggers.

    Both speak of models like those that they were measured on, and of no other: of the same shape
    and classes, with readings that do not lie outside those of all reference models.
    """
    leads = found.leads(shape)
    overfitting, triggers = read_overfitting(leads, found.first), read_triggers(leads)
    if not unmeasured and (shape, found.f.sizes.d_out) != MEASURED:
        unmeasured = "not_measured"
    reason = unmeasured or overfitting.reason
    return without_threshold(overfitting, reason), without_threshold(triggers, reason)


Unmeasured = TypeVar("Unmeasured", Overfitting, Triggers)


def without_threshold(found: Unmeasured, reason: str) -> Unmeasured:
    """Return a finding as it is where there is no reason, else its numbers without a threshold."""
    why = {"threshold": None, "reason": found.reason or reason} if reason else {}
    return structs.replace(found, **why)


def read_layer_warnings(
    fitted: FittedLayer, shape: tuple[int, int]
) -> tuple[Overfitting, Triggers]:
    """Return both findings of a layer that is a whole classifier, where its map stands for it."""
    if not fitted.fit.usable:
        nothing = Overfitting(None, None, None, None, None, (), "refused")
        return nothing, Triggers(None, None, None, (), (), "refused")
    unmeasured = "not_measured" if fitted.fit.exact else "approximated"
    return read_warnings(layer_map(fitted), shape, unmeasured)
