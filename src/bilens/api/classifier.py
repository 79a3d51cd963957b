"""One-layer classifiers: what is proven, what perturbations do to them, why a prediction."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from msgspec import structs
from torch import Tensor, nn

from bilens.algebra.repeated_rows import equal_rows
from bilens.api.given_data import Data, find_data, given_data, interface_of, read_given
from bilens.api.layer_reading import LayerOutputs, output_index
from bilens.api.options import AttackOptions, CertifyOptions
from bilens.api.provenance import describe_run, describe_source, origin_of
from bilens.api.quadratic_fit import offering_a_fit
from bilens.api.subject import open_classifier
from bilens.base import silent
from bilens.base.errors import DataError, UsageError
from bilens.base.keyword_options import takes_options
from bilens.base.option_rules import DATA, check_seed, refuse_idle
from bilens.data.images import ImageDataset
from bilens.data.model_interface import LabelledData, ModelInterface
from bilens.findings.attack import attack_classifier
from bilens.findings.certificate import certify_classifier
from bilens.findings.exact_classifier import class_centred
from bilens.findings.explanation import attribute_prediction, explain
from bilens.findings.perturbations import EPSILONS, AttackRequest
from bilens.findings.subject import in_float64, summarise
from bilens.io.load import LoadedModel
from bilens.io.loaded_model import is_of_numbers
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.class_readings import Explanations, InputExplanation
from bilens.records.common import ModelSummary
from bilens.report.reports import AttackReport, CertificateReport

Baseline = Literal["zeros", "mean"]
Read = ImageDataset | LabelledData | None


@takes_options(CertifyOptions)
def certify_model(model: LoadedModel | nn.Module, options: CertifyOptions) -> CertificateReport:
    """Prove radii, bounds and influences of a one-layer bilinear classifier, and say nothing else.

    Radii of test inputs, bounds on truncation, unused inputs, the largest influence of one input,
    and what rounding the weights can do; `docs/certifying.md` has each claim with its assumptions.

    Cost: O(in³) for each pair of classes for the radii, and for each class for the rest.

    Args:
        model: what `bl.load` returned, or a `BilinearClassifier`; it is not changed.
        options: a `CertifyOptions`, or its fields:

    Returns: A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`.

    Raises: UsageError if the model is not a classifier of bilens, or an argument is out of range;
        NotQuadraticError if it is gated or has more than one layer: nothing is proven then;
        ShapeError if the data do not fit the model; NonFiniteError if a weight or a pixel is NaN or
        infinite; NumericalError if formula and model disagree, or a spectrum did not pass its
        checks; MemoryLimitError if the work would not fit.
    """
    model = open_classifier(model, "a certificate")
    given = given_data(model, options.data, options.labels)
    refuse_idle("certify", {"samples": options.samples}, *([] if given is None else [DATA]))
    with offering_a_fit(model):
        certificate = certify_classifier(
            model,
            given,
            samples=options.samples,
            truncate=options.truncate,
            radius=options.radius,
            seed=options.seed,
            progress=options.progress,
            origin=origin_of(model, given, options.command, options.seed),
        )
    return CertificateReport(certificate)


@takes_options(AttackOptions)
def attack_model(
    model: LoadedModel | nn.Module, data: Data, options: AttackOptions
) -> AttackReport:
    """Attack a one-layer bilinear classifier with universal perturbations of every method.

    A perturbation δ is added to every image. Of all δ with ‖δ‖₂ ≤ ε the optimal one provably lowers
    the mean margin of the source classes over the target most; beside it stand those of the paper,
    baselines and gradient descent at the same length. All are made from weights and training
    inputs, and judged on other inputs; the report says how many there are of each (`split`).

    Cost: two eigendecompositions for each objective, and
        O(images · perturbations · epsilons · out · in) for the test images.

    Args:
        model: what `bl.load` returned, or a `BilinearClassifier`; it is not changed.
        data: training and test images, an `ImageDataset`; or anything that `bl.audit` takes, of
            whose different rows of each class half, drawn by the seed, are for testing.
        options: an `AttackOptions`, or its fields:

    Returns: A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`.

    Raises: UsageError if the model is not a classifier of bilens, a class does not exist or has no
        images, source is target, or a length is negative or not finite; NotQuadraticError if it is
        gated or has more than one layer: nothing is proven then; ShapeError if the data do not fit
        the model; NonFiniteError if a weight or a pixel is NaN or infinite; NumericalError if a
        spectrum did not pass its checks; MemoryLimitError if the work would not fit.

    Source: arXiv:2410.08417, §4.4 and App. M, for the published perturbations.
    """
    model = open_classifier(model, "an attack")
    if options.source is not None:
        refuse_idle("attack", {"pairs": options.pairs})
    found: Data | None = data
    labels = options.labels
    if isinstance(data, str | Path):  # a folder may hold training images beside those of the test
        found, labels = find_data(model, Path(data), None, labels), None
    given = given_data(model, found, labels)
    if given is None or given.targets is None:
        raise UsageError("an attack needs inputs with their classes: pass data.")
    training, test = training_and_test(model, found, given, check_seed(options.seed))
    request = attack_request(model, options)
    with offering_a_fit(model):
        findings = attack_classifier(
            model,
            training,
            test,
            request,
            box=given.box,
            halved=not isinstance(found, ImageDataset),
            progress=options.progress,
            origin=origin_of(model, given, options.command, options.seed),
        )
    return AttackReport(findings)


def attack_request(model: LoadedModel, options: AttackOptions) -> AttackRequest:
    return AttackRequest(
        class_index(model, options.target),
        class_index(model, options.source),
        options.pairs,
        EPSILONS if options.epsilons is None else tuple(options.epsilons),
        options.random_perturbations,
        options.restarts,
        options.seed,
    )


def training_and_test(
    model: LoadedModel, found: Data | None, given: LabelledData, seed: int
) -> tuple[LabelledData, LabelledData]:
    """Return the inputs to learn from and those to judge on: of a data set, or halves of rows."""
    if isinstance(found, ImageDataset):
        training = given_data(model, found, training=True)
        assert training is not None, "images of a data set have classes"
        return training, given
    x, y = given.inputs, given.targets
    assert y is not None, "an attack needs classes"
    first, second = (
        LabelledData(x[rows], y[rows], given.origin, shape=given.shape)
        for rows in halves(x, y, seed)
    )
    return first, second


def halves(x: Tensor, y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the rows to learn from and of the others, half of each class.

    Equal rows are on one side, that of the class of the first of them.
    """
    equal, held_out = equal_rows(x), torch.zeros(len(y), dtype=torch.bool)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    different = order[equal[order] == order]
    for one in {*y.tolist()}:
        held_out[different[y[different] == one][1::2]] = True
    return (~held_out[equal]).nonzero()[:, 0], held_out[equal].nonzero()[:, 0]


def class_index(model: LoadedModel, value: int | str | None) -> int | None:
    outputs = LayerOutputs.from_model(model, [*model.layers][-1])
    return None if value is None else output_index(value, outputs)


def explain_predictions(
    model: LoadedModel,
    data: Data,
    indices: Sequence[int],
    *,
    baseline: Baseline | None = None,
    command: str | None = None,
) -> Explanations:
    """Return exact explanations of rows of data, anything that `bl.audit` takes.

    By eigenvectors, and by inputs: the Shapley values, which for a quadratic map are the
    integrated gradients, of the predicted class and of its lead over a rival.
    """
    model = open_classifier(model, "an explanation")
    summary = summary_of(model)
    found: Data | None = data
    if isinstance(data, str | Path):
        path = Path(data)
        found = rows_asked(model, indices, lambda fits: find_data(model, path, interface=fits))
    given = given_data(model, found)
    if given is None:
        raise UsageError("an explanation needs inputs: pass data.")
    rows, places = given.inputs, given.places(indices)
    baseline = baseline or default_baseline(model)
    seen, named = rows, str(baseline)
    if isinstance(found, ImageDataset):
        seen = found.train_images
    elif baseline == "mean" and model.input_mean is not None:
        seen = torch.tensor([model.input_mean], dtype=torch.float64)
    elif baseline == "mean":
        if given.origin.source_kind == "arrays":  # of a file, which may hold those of the training
            training = read_given(model, given.origin.source, None, True)
            seen = rows if training is None else training.inputs
        if torch.equal(seen, rows):
            named = f"mean of the {len(rows)} rows given"
        if len(seen) == 1:
            raise UsageError(
                'baseline="mean" is the mean of training inputs, which the model does not know, '
                'and there is one row alone: pass more rows, or baseline="zeros".'
            )
    start = baseline_of(seen, baseline)
    answers = [given.answer(place) for place in places]
    known = [int(one) if isinstance(one, int) and summary.d_output > 1 else None for one in answers]
    numbers = [
        one if isinstance(one, float) and not is_of_numbers(model) else None for one in answers
    ]
    parts = zip(explained(model, rows, known, places, start), indices, numbers, strict=True)
    return Explanations(
        model=summary,
        baseline=named,
        explanations=tuple(
            structs.replace(part, index=index, target=number) for part, index, number in parts
        ),
        source=describe_source(model),
        data=given.origin,
        reproduce=describe_run(command, 0),
    )


def rows_asked(
    model: LoadedModel,
    indices: Sequence[int],
    read: Callable[[ModelInterface], Read],
    say: Callable[[str], None] = silent,
) -> Read:
    """Return data with right answers; where a row asked for has none, with those of the others."""
    try:
        given = read(interface_of(model))
    except DataError as error:  # a column that is no input may be anything
        found = read(interface_of(model, answers=False))
        say(f"Explained without right answers. {error}")
        return found
    if not isinstance(given, LabelledData) or {*indices} <= {*(given.numbers or indices)}:
        return given
    found = read(interface_of(model, answers=False))
    if given.targets is None or not isinstance(found, LabelledData):
        return found
    answers = dict(zip(given.numbers, given.targets.tolist(), strict=True))
    known = {at: answers[row] for at, row in enumerate(found.numbers) if row in answers}
    return replace(found, known=known)


def default_baseline(model: LoadedModel) -> Baseline:
    """Choose the baseline where nothing is said: the mean of an input, where the model knows it."""
    return "zeros" if model.input_mean is None else "mean"


def summary_of(model: LoadedModel) -> ModelSummary:
    if not isinstance(model.module, BilinearClassifier):
        raise UsageError(
            f"{model.source} is a {type(model.module).__name__}; expected a BilinearClassifier."
        )
    return summarise(model)


def explained(
    model: LoadedModel,
    inputs: Tensor,
    labels: Sequence[int | None],
    indices: Sequence[int],
    start: Tensor,
) -> tuple[InputExplanation, ...]:
    """Return how the scores of some inputs come about.

    A model that knows mean and standard deviation of its inputs is read in these units: what the
    inputs add is the same, and eigenvectors compare columns of different units.
    """
    module = model.module
    assert isinstance(module, BilinearClassifier), "checked by summary_of"
    inputs = inputs[list(indices)].double()
    with offering_a_fit(model):
        if model.input_mean is not None and model.input_scale is not None:
            mean, scale = torch.tensor([model.input_mean, model.input_scale], dtype=torch.float64)
            module = in_standard_units(module, mean, scale)
            inputs, start = (inputs - mean) / scale, (start - mean) / scale
        f = in_float64(module).quadratic_map().detach()
        eigs = class_centred(module)
    found = []
    for index, x, scores, label in zip(indices, inputs, f(inputs), labels, strict=True):
        item = structs.asdict(explain(eigs, x, scores, label, index))
        attributions = tuple(attribute_prediction(f, x, start, label))
        found.append(InputExplanation(**item, attributions=attributions))
    return tuple(found)


def baseline_of(known: Tensor, baseline: Baseline) -> Tensor:
    """Return the values that absent inputs are set to, (in,) float64."""
    if baseline not in get_args(Baseline):
        raise UsageError(f'baseline={baseline!r} is not known: use "zeros" or "mean".')
    if baseline == "zeros":
        return torch.zeros(known.shape[1], dtype=torch.float64)
    return known.double().mean(dim=0)
