"""What may be wrong with a classifier, read from its weights: overfitting and triggers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import RotationNull, random_frame
from bilens.findings.null_interval import LEVEL, MINIMUM_SAMPLES
from bilens.findings.overfitting import Subject, read_overfitting, readings_by_chance
from bilens.findings.templates import class_templates
from bilens.findings.triggers import read_triggers, trigger_score
from bilens.nn import BilinearClassifier
from bilens.records.audit import Overfitting, Triggers


def read_warnings(
    module: BilinearClassifier,
    eigs: EigenDecomposition,
    null: RotationNull,
    shape: tuple[int, int],
    images: Tensor | None,
    seed: int,
) -> tuple[Overfitting, Triggers]:
    """Return the findings of overfitting and of triggers.

    Cost: 39 times that of `readings_by_chance` and `trigger_score`.

    Args:
        module: a `BilinearClassifier` with one layer and no gate, in float64.
        eigs: whole spectra of the class-centred forms, in the input basis.
        null: of the same forms.
        shape: rows and columns of an input.
        images: (batch, in); None where no data are given.
        seed: of the rotations.
    """
    lower, upper = (edge[:, None] for edge in null.edges(LEVEL))
    within = (eigs.eigenvalues >= lower) & (eigs.eigenvalues <= upper)
    subject = Subject(centred_map(module), eigs, within, class_templates(eigs), shape)
    generator = torch.Generator().manual_seed(seed)
    readings, scores = [], []
    for place, rotated in enumerate(rotated_maps(module, MINIMUM_SAMPLES, generator)):
        output = place % subject.f.sizes.d_out
        readings.append(readings_by_chance(subject, rotated, output, images))
        scores.append(trigger_score(rotated, subject.templates, shape))
    return (
        read_overfitting(subject, readings, images),
        read_triggers(subject.f, subject.templates, shape, scores),
    )


def centred_map(module: BilinearClassifier) -> QuadraticMap:
    """Return the map from the inputs to the class-centred logits."""
    f = module.quadratic_map().detach()
    return outputs_of(f, centred=True)


def rotated_maps(
    module: BilinearClassifier, num: int, generator: torch.Generator
) -> Iterator[QuadraticMap]:
    """Yield the class-centred map with its right branch rotated behind the embedding.

    Linear and constant terms stay as they are.

    Cost: O(hidden² · (hidden + in)) time and O(hidden · in) memory for each.
    """
    inside = module.quadratic_map("embedding").detach().tensor
    embedding = module.embed.weight.detach()
    f = centred_map(module)
    width = inside.sizes.d_in

    for _ in range(num):
        right = inside.right @ random_frame(width, width, generator) @ embedding
        tensor = BilinearTensor(f.tensor.down, f.tensor.left, right)
        yield QuadraticMap(tensor, f.linear, f.constant)
