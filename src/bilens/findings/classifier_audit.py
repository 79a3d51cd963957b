"""The audit of one classifier: every finding, from weights, and from data where they are given."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor, nn

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_form import InteractionMatrix
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import rotation_null
from bilens.base import Progress, silent
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.certify.contrast import prepare
from bilens.data.model_interface import LabelledData
from bilens.findings.certificate import ClassForms, ProofOptions, classifier_guarantees
from bilens.findings.explanation import choose_examples, explain
from bilens.findings.given_inputs import read_inputs
from bilens.findings.image_warnings import classifier_map, read_warnings
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.findings.spectrum_summaries import MINIMUM_SAMPLES, read_classes
from bilens.findings.subject import (
    as_loaded,
    check_exactness,
    check_seed,
    gauge_free,
    in_float64,
    summarise,
    truncation_curve,
)
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.classifier_audit import Audit, Explanation
from bilens.records.common import UNKNOWN, Origin
from bilens.records.performance import Performance

MOST_CLASSES = 20  # of which the spectra of all pairs are held, to be used for several samples
ROUNDING, EXACT = 1e-6, 1e-12  # of what is summed up, from weights in float32; of all in float64
NEAR = 1e-3  # of the squared size of a class: what is farther apart is not looked at again


def audit_classifier(
    model: LoadedModel | nn.Module,
    data: LabelledData | None = None,
    *,
    training: LabelledData | None = None,
    test: LabelledData | None = None,
    performance: Performance | None = None,
    null_samples: int = 99,
    seed: int = 0,
    progress: Progress = silent,
    origin: Origin = UNKNOWN,
) -> Audit:
    """Audit the weights of a one-layer bilinear classifier; the model is not changed.

    `data` are test inputs; `training` and `test` are read beside the weights.
    """
    loaded = as_loaded(model)
    module = classifier_to_audit(loaded)
    null_samples = check_count("null_samples", null_samples, minimum=MINIMUM_SAMPLES)
    seed, summary = check_seed(seed), summarise(loaded)
    names = summary.output_names
    progress("exactness", 0, 1)
    exactness = check_exactness(module, seed)
    module = in_float64(module)
    f = module.quadratic_map().detach()
    progress("spectra", 0, 1)
    eigs = class_centred(module)
    null = rotation_null(
        outputs_of(module.quadratic_map("embedding"), centred=True),
        None,
        torch.Generator().manual_seed(seed),
        null_samples,
        embedding=module.embed.weight,
        progress=lambda done: progress("null distribution", done, null_samples),
    )
    classes = read_classes(module, eigs, null, names)
    evidence = Evidence(
        exactness, classes, twins_of(f, names), output_names=names, performance=performance
    )
    explanations: tuple[Explanation, ...] = ()
    if data is not None and data.targets is not None:
        progress("data", 0, 1)
        x = data.inputs.detach().double()
        scores = f(x)
        curve, enough = truncation_curve(eigs, x, data.targets, scores.argmax(dim=1))
        evidence = replace(evidence, truncation=curve, enough=enough)
        explanations = explain_examples(eigs, data, scores)
    progress("warnings", 0, 1)
    why_not = "not_measured" if "converted_from" in loaded.provenance else ""
    read = classifier_map(module, eigs)
    overfitting, triggers = read_warnings(read, summary.input_shape, why_not)
    evidence = replace(evidence, overfitting=overfitting, triggers=triggers)
    proven = given = None
    assert isinstance(eigs.status, tuple), "a batch has a status for each form"
    usable = all(status is Status.OK for status in eigs.status)
    if usable and all(item.passed for item in exactness):  # formula and model agree
        few = summary.d_output <= MOST_CLASSES
        pairs = prepare(f) if few and (training is not None or test is not None) else None
        forms = ClassForms(module, f, outputs_of(f, centred=True), eigs, pairs)
        options = ProofOptions(seed=seed, box=loaded.input_box)
        proven = classifier_guarantees(forms, data, options, progress)
        if training is not None or test is not None:
            progress("inputs", 0, 1)
            given = read_inputs(f, training, test, pairs, seed)
            evidence = replace(evidence, inputs=given)
    return Audit(
        model=summary,
        exactness=exactness,
        classes=classes,
        truncation=evidence.truncation,
        explanations=explanations,
        verdict=judge("audit", evidence),
        performance=performance,
        guarantees=proven,
        inputs=given,
        overfitting=overfitting,
        triggers=triggers,
        null_samples=null_samples,
        seed=seed,
        **origin.fields(),
    )


def classifier_to_audit(loaded: LoadedModel) -> BilinearClassifier:
    """Return the module of a model, or refuse one that cannot be read class by class."""
    module = loaded.module
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"an audit reads a BilinearClassifier, got a {type(module).__name__}: take other "
            "layers apart with bl.eigendecompose_all(layer.quadratic_map())."
        )
    in_float64(module).quadratic_map()  # refuses a gated or deeper model before any work is done
    if module.head.out_features < 2:
        raise UsageError(
            "an audit reads each class against the mean of all classes, and this model has one "
            "output: take it apart with bl.eigendecompose_all(model.quadratic_map())."
        )
    return module


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
