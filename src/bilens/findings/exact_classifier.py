"""The readings of a classifier of one layer, from weights, and from data where they are given."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Final

import torch
from torch import Tensor

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_form import InteractionMatrix
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import rotation_null
from bilens.base import Progress, silent
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.base.option_rules import check_seed
from bilens.certify.contrast import PairSpectra, prepare
from bilens.data.model_interface import LabelledData
from bilens.findings.certificate import ClassForms, ProofOptions, classifier_guarantees
from bilens.findings.explanation import choose_examples, explain
from bilens.findings.given_inputs import read_inputs
from bilens.findings.image_warnings import classifier_map, read_warnings
from bilens.findings.spectrum_summaries import MINIMUM_SAMPLES, read_classes
from bilens.findings.subject import (
    check_exactness,
    gauge_free,
    in_float64,
    summarise,
    truncation_curve,
)
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.class_readings import ClassReadings, Explanation, TruncationPoint
from bilens.records.common import Exactness, ModelFacts
from bilens.records.given_inputs import GivenInputs
from bilens.records.guarantees import Guarantees
from bilens.records.image_warnings import Overfitting, Triggers

NULL_SAMPLES = 99  # rotations
MOST_CLASSES = 20  # of which the spectra of all pairs are held, to be used for several samples
ROUNDING, EXACT = 1e-6, 1e-12  # of what is summed up, from weights in float32; of all in float64
NEAR = 1e-3  # of the squared size of a class: what is farther apart is not looked at again


class ExactClassifier(ClassForms):
    """A classifier of one bilinear layer, as all readings of its classes share it.

    `test` and `training` are rows that are read beside the weights.
    """

    read_as: Final = "classes"

    def __init__(
        self,
        loaded: LoadedModel,
        test: LabelledData | None = None,
        training: LabelledData | None = None,
        *,
        null_samples: int | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> None:
        given = loaded.module
        assert isinstance(given, BilinearClassifier), "of one exact layer"
        if given.head.out_features < 2:
            raise UsageError(
                "an audit reads each class against the mean of all classes, and this model has one "
                "output: take it apart with bl.eigendecompose_all(model.quadratic_map())."
            )
        super().__init__(given)
        samples = NULL_SAMPLES if null_samples is None else null_samples
        self.null_samples = check_count("null_samples", samples, minimum=MINIMUM_SAMPLES)
        self.loaded, self.test, self.training, self.progress = loaded, test, training, progress
        self.given, self.seed, self.summary = given, check_seed(seed), summarise(loaded)
        self.facts = ModelFacts(num_layers=1, **self.summary.fields())

    @cached_property
    def exactness(self) -> tuple[Exactness, ...]:
        """The errors of the formula against the forward pass."""
        self.progress("exactness", 0, 1)
        _ = self.f  # refuses weights that are not finite
        return check_exactness(self.given, self.seed)

    @cached_property
    def pairs(self) -> PairSpectra | None:  # type: ignore[override]
        """The spectra of all pairs of classes, where rows of several samples use them."""
        given = self.training is not None or self.test is not None
        return prepare(self.f) if given and self.summary.d_output <= MOST_CLASSES else None

    @cached_property
    def is_proven(self) -> bool:
        """Whether formula and model agree, so that what follows from the formula is proven."""
        status = self.eigs.status
        assert isinstance(status, tuple), "a batch has a status for each form"
        usable = all(one is Status.OK for one in status)
        return usable and all(item.passed for item in self.exactness)

    def read_classes(self) -> ClassReadings:
        """Return the spectrum of each class beside chance, and telling rows taken apart."""
        self.progress("spectra", 0, 1)
        eigs, data = self.eigs, self.test
        null = rotation_null(
            outputs_of(self.module.quadratic_map("embedding"), centred=True),
            None,
            torch.Generator().manual_seed(self.seed),
            self.null_samples,
            embedding=self.module.embed.weight,
            progress=lambda done: self.progress("null distribution", done, self.null_samples),
        )
        classes = read_classes(self.module, eigs, null, self.summary.output_names)
        (curve, _), explained = self.curve, tuple[Explanation, ...]()
        if data is not None and data.targets is not None:
            explained = explain_examples(eigs, data, self.f(data.inputs.detach().double()))
        return ClassReadings(classes, curve, explained)

    @cached_property
    def curve(self) -> tuple[tuple[TruncationPoint, ...], int]:
        """The accuracy with fewer eigenvectors, and how many are enough; empty without answers."""
        data = self.test
        if data is None or data.targets is None:
            return (), 0
        self.progress("data", 0, 1)
        x = data.inputs.detach().double()
        return truncation_curve(self.eigs, x, data.targets, self.f(x).argmax(dim=1))

    @cached_property
    def warnings(self) -> tuple[Overfitting, Triggers]:
        """The findings of overfitting and of triggers."""
        self.progress("warnings", 0, 1)
        why_not = "not_measured" if "converted_from" in self.loaded.provenance else ""
        read = classifier_map(self.module, self.eigs)
        return read_warnings(read, self.summary.input_shape, why_not)

    def prove_guarantees(self) -> Guarantees | None:
        """Prove guarantees of the classes; None where formula and model disagree."""
        options = ProofOptions(seed=self.seed, box=self.loaded.input_box)
        if not self.is_proven:
            return None
        return classifier_guarantees(self, self.test, options, self.progress)

    def read_inputs(self) -> GivenInputs | None:
        """Read the inputs given beside the weights; None without, or where nothing is proven."""
        if not self.is_proven or (self.training is None and self.test is None):
            return None
        self.progress("inputs", 0, 1)
        return read_inputs(self.f, self.training, self.test, self.pairs, self.seed)


def explain_examples(
    eigs: EigenDecomposition, data: LabelledData, scores: Tensor
) -> tuple[Explanation, ...]:
    """Take the predictions of some telling rows apart: typical, narrow and wrong ones."""
    assert data.targets is not None, "asked of data with right answers alone"
    x, labels = data.inputs.detach().double(), data.targets
    numbers = data.numbers or range(len(x))
    return tuple(
        explain(eigs, x[at], scores[at], int(labels[at]), numbers[at], kind)
        for kind, at in choose_examples(scores, labels).items()
    )


def twins_of(f: QuadraticMap, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of classes whose scores differ by a constant, whatever the input.

    Compared are symmetric matrices, whose units may have their branches exchanged, entry by entry:
    each beside what is summed up to it, whatever the units of the inputs are.
    """
    centred = outputs_of(f, centred=True)
    gram, raw = centred.tensor.gram(), f.tensor.gram().diagonal()
    squares = gram.diagonal()
    largest = torch.maximum(squares[:, None], squares) + EXACT * torch.maximum(raw[:, None], raw)
    near = squares[:, None] + squares - 2 * gram <= NEAR * largest  # by sums that are rounded
    linear, own = f.tensor.down.new_zeros(len(names), 1), f.tensor.down.new_zeros(len(names), 1)
    if f.linear is not None and centred.linear is not None:
        linear, own = f.linear, centred.linear
    allowed = ROUNDING * own.abs().amax(dim=0) + EXACT * linear.abs().amax(dim=0)
    first = list(range(len(names)))  # of the classes that are the same
    for one, other in near.triu(diagonal=1).nonzero().tolist():
        if first[one] != one or first[other] != other:
            continue
        # apart by the rounding of weights in float32, beside what classes differ by, and of sums
        pair, tensor = [one, other], f.tensor
        absolute = InteractionMatrix(tensor.left.abs(), tensor.right.abs(), tensor.down[one])
        usual, whole = (g.tensor.down[pair].abs().amax(dim=0) for g in (centred, f))
        gap = replace(output_form(f, one).matrix, weight=tensor.down[one] - tensor.down[other])
        bound = ROUNDING * usual + EXACT * whole
        same = bool((gap.dense().abs() <= replace(absolute, weight=bound).dense()).all())
        if same and bool(((linear[one] - linear[other]).abs() <= allowed).all()):
            first[other] = one
    pairs = combinations(range(len(names)), 2)
    return tuple((names[one], names[other]) for one, other in pairs if first[one] == first[other])


def class_centred(module: BilinearClassifier) -> EigenDecomposition:
    """Return the whole spectra of the class-centred forms of a classifier, in the input basis."""
    return eigendecompose_all(gauge_free(in_float64(module).quadratic_map().detach()), k=None)
