"""`bl.quadratic_fit`, and `bilens fit` of all layers: quadratic approximations, with their R²."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from msgspec import structs
from torch import Tensor, nn

from bilens.algebra.approximation.closed_form import derivation
from bilens.algebra.approximation.fit_options import QuadraticFitOptions
from bilens.algebra.approximation.layer_weights import (
    GLUWeights,
    Layer,
    MLPWeights,
    each_part,
    in_dtype,
    in_float64,
)
from bilens.algebra.approximation.quadratic_fit import (
    SAMPLES,
    THRESHOLD,
    QuadraticFit,
    fit_layers,
    in_blocks,
    in_words,
)
from bilens.algebra.approximation.r_squared import MASSIVE
from bilens.algebra.gaussian import row_moments
from bilens.api.provenance import describe_run, describe_source
from bilens.api.subject import check_on_rows, open_subject
from bilens.base.errors import BilensError, NotQuadraticError, ShapeError, UsageError
from bilens.base.keyword_options import takes_options
from bilens.base.option_rules import APPROXIMATED, DATA, NO_DATA, refuse_idle
from bilens.data.tokenizer import Tokenizer
from bilens.findings.fits import fit_record
from bilens.io.load import LoadedModel
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.find_mlps import in_words as not_read
from bilens.nn.module_layers import Transformer
from bilens.records.common import Source
from bilens.records.decomposition import LargeRow, QuadraticFits, SeenInputs
from bilens.train.layer_inputs import LayerRows
from bilens.train.recorded_inputs import LayerInputs

OFFER_SAMPLES = 2_000  # two digits of R² are enough for an offer
LARGEST = 5  # rows that are named
WHOLE = "model"  # what the layers one behind the other are called

Run = Callable[[Tensor], Tensor]
Subject = nn.Module | LoadedModel | LayerView | Layer | Sequence[Layer]


@takes_options(QuadraticFitOptions)
def quadratic_fit(module_or_weights: Subject, options: QuadraticFitOptions) -> QuadraticFit:
    """Return the quadratic approximation of an ordinary or gated MLP, on what it sees.

    Math: the least-squares quadratic under x ~ N(μ, Σ) has the coefficients E f, E ∇f and
        ½ E ∇²f, for these layers moments of single neurons in closed form (docs/approximation.md).
        A bilinear layer is returned as it is. Several layers: exact for two bilinear ones, else the
        input of each further layer is taken to be normal. With data the map is the best of a ladder
        of fits to four fifths of them, told by R² on the fifth that is held out; without, N(0, I)
        stands in, or what a normalisation beside a layer has learnt.
    Cost: O(out · hidden · in), O(hidden · in² + in³) for a covariance other than I; for each
        further layer O(out · (in³ + hidden³)); R² is `samples` runs of the model and of the map.

    Args:
        module_or_weights: a layer, MLP or classifier of bilens, any module that is linear maps,
            activations and gates one behind the other, a fitted MLP of scikit-learn, a loaded
            model or one of its layers, `MLPWeights`, `GLUWeights`, or a sequence of them.
        options: a `QuadraticFitOptions`, or its fields:

    Returns: `quadratic_map` with R² by degree and the inputs that it is of.

    Raises: UsageError if it is no MLP of the kinds above, an activation is not known, Σ is not
        symmetric or has an eigenvalue below zero, or an argument is out of range; ShapeError if
        something does not fit the inputs; NonFiniteError if a weight or number is NaN or infinite;
        MemoryLimitError if factors or samples would not fit.

    Source: arXiv:2502.01032 for MLPs; Stein's identity for gated layers and any Σ.
    """
    layers, run, classes = layers_and_run(module_or_weights, options.data)
    facts = [NO_DATA if options.data is None else DATA]
    facts += [] if derivation(layers) == "exact" else [APPROXIMATED]
    refuse_idle("quadratic fit", vars(options), *facts)
    how: dict[str, Any] = {"classes": classes, **vars(options)}
    if not isinstance(module_or_weights, LayerView):
        return fit_layers(layers, run, **how)
    how["assumed"] = module_or_weights.assumed_input()
    return module_or_weights.in_own_basis(fit_layers(layers, run, **how))


def fit_of(subject: LoadedModel | LayerView, **options: Any) -> QuadraticFit:
    """Return `quadratic_fit` of one layer of many, for which an option may do nothing."""
    if isinstance(subject, LayerView):
        options |= {"classes": subject.classes, "assumed": subject.assumed_input()}
        return subject.in_own_basis(
            fit_layers(*check_chain([subject.weights(torch.float64)]), **options)
        )
    return fit_layers(*check_chain(network_of(subject)), classes=gives_classes(subject), **options)


def layers_and_run(
    subject: Subject, data: Tensor | None = None
) -> tuple[tuple[Layer, ...], Run, bool]:
    """Return layers, the function that they are, in float64, and whether it gives classes.

    A model is compared with its source on the data.
    """
    if isinstance(subject, MLPWeights | GLUWeights):
        return *check_chain([subject]), False
    if isinstance(subject, list | tuple):
        return *check_chain(subject), False
    if isinstance(subject, LayerView):
        if subject.compare is not None:
            subject.compare()
        return *check_chain([subject.weights(torch.float64)]), subject.classes
    model = open_subject(subject, "a quadratic fit")
    if isinstance(model.module, Transformer):
        raise UsageError(
            "a transformer is no MLP: fit one of its MLPs, bl.quadratic_fit(model.blocks[0].mlp)."
        )
    check_on_rows(model, data)
    return *check_chain(network_of(model)), gives_classes(model)


def gives_classes(model: LoadedModel) -> bool:
    return model.network[-1].classes


def network_of(model: LoadedModel) -> tuple[Layer, ...]:
    """Return the layers of a model of which nothing else was read."""
    if not model.network:
        names = [*model.layers]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        left_out = () if model.load_report is None else model.load_report.left_out
        raise UsageError(
            f"{model.source} is not its layers one behind the other: fit one of them, "
            f"model.layers[name] (--layer), of {', '.join(names[:4])}{more}.{not_read(left_out)}"
        )
    network, module = [view.weights(torch.float64) for view in model.network], model.original
    if module is None:
        return tuple(network)
    device = next(module.parameters()).device
    return tuple(each_part(layer, lambda part: part.to(device)) for layer in network)


def check_chain(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Run]:
    """Return layers one behind the other, checked."""
    if not layers or not all(isinstance(layer, MLPWeights | GLUWeights) for layer in layers):
        raise UsageError(
            "a sequence of layers must hold bl.MLPWeights or bl.GLUWeights, and at least one."
        )
    wide = tuple(in_float64(layer) for layer in layers)
    for index, (below, above) in enumerate(pairwise(wide)):
        if len(below.down) != above.d_in:
            raise ShapeError(
                f"layer {index} has {len(below.down)} outputs and layer {index + 1} reads "
                f"{above.d_in} inputs: they must be the same."
            )

    def run(x: Tensor) -> Tensor:
        for layer in wide:
            x = layer(x)
        return x

    return wide, run


def choose_layer(model: LoadedModel, layer: str | None) -> str:
    known = list(model.layers)
    if layer is None and len(known) == 1:
        return known[0]
    if layer is None or layer not in known:
        raise UsageError(
            f"{model.source} has the layers {', '.join(known)}; got {layer!r}: name one of them "
            "with --layer."
        )
    return layer


def fit_layers_of(
    model: LoadedModel,
    data: Tensor | None = None,
    *,
    layers: Sequence[str] = (),
    train_steps: int = 0,
    samples: int = SAMPLES,
    threshold: float = THRESHOLD,
    seed: int = 0,
    command: str | None = None,
) -> QuadraticFits:
    """Return R² by degree of the quadratic approximations of a model."""
    model = open_subject(model, "a quadratic fit")
    names = [choose_layer(model, name) for name in layers] or [*model.layers]
    chained, options = bool(model.network), dict[str, Any]()
    options |= {"train_steps": train_steps, "samples": samples, "threshold": threshold}
    is_exact = all(model.layers[name].exact for name in names) and not (chained and names[1:])
    facts = [NO_DATA if data is None else DATA, *([] if is_exact else [APPROXIMATED])]
    refuse_idle("quadratic fit", options, *facts)
    if data is not None and not chained and len(names) > 1:
        raise UsageError(
            f"{model.source} has {len(names)} layers that are not one behind the other, and the "
            "data can be inputs of one alone: name it with --layer."
        )
    check_on_rows(model, data)
    reached: dict[str, Tensor | None] = dict.fromkeys(names, data)
    if chained and data is not None:
        reached |= inputs_of_layers(model, data)
    entries: list[tuple[str, LayerView | None, Tensor | None]] = [
        (name, model.layers[name], reached[name]) for name in names
    ]
    if chained and not layers and len(model.layers) > 1:
        entries.insert(0, (WHOLE, None, data))
    found = []
    for name, view, rows in entries:
        fit = fit_of(model if view is None else view, data=rows, seed=seed, **options)
        found.append(fit_record(name, view, fit))
    return QuadraticFits(
        source=describe_source(model),
        num_rows=None if data is None else len(data),
        fits=tuple(found),
        reproduce=describe_run(command, seed),
    )


def fit_on_inputs(inputs: LayerInputs, seed: int = 0, **options: Any) -> QuadraticFits:
    """Return the fits of layers to what they see, each with R² on documents that are held out."""
    found = []
    for name, site in inputs.sites.items():
        given: dict[str, Any] = {**options, "seed": seed}
        what, layer = None, site.view.weights(torch.float64)
        if (seen := inputs.to_fit(name)) is not None:
            given |= {"data": seen.x, "held_out": seen.held_out, "apart": seen.files is not None}
            what = seen_inputs(site.view, inputs.rows(name), inputs.tokenizer)
        fit = fit_of(site.view, **given)
        fit = fit if seen is None else replace(fit, assumed_input=seen.about)
        told = fit_record(name, site.view, fit, layer, seen)
        found.append(structs.replace(told, seen=what))
    return QuadraticFits(
        source=Source(str(inputs.host.source), inputs.host.sha256, {}),
        num_rows=inputs.num_rows,
        fits=tuple(found),
        reproduce=describe_run(None, seed),
        text=inputs.text,
        data=inputs.data,
    )


def seen_inputs(view: LayerView, rows: LayerRows, tokenizer: Tokenizer | None) -> SeenInputs:
    """Describe the inputs of a layer, and list those with the largest outputs."""
    moments, layer = row_moments([rows.x]), in_dtype(view.read(), torch.float32)
    outputs = in_blocks(lambda x: layer(x.float()).norm(dim=1), rows.x)
    values, order = outputs.topk(LARGEST)
    largest = []
    for value, (position, token) in zip(values.tolist(), rows.places[order].tolist(), strict=True):
        text = "" if tokenizer is None else tokenizer.token(token)
        largest.append(LargeRow(value, position, token, text))
    varying = moments.kurtosis[~moments.kurtosis.isnan()]  # a constant input has none
    parts = varying if len(varying) else moments.kurtosis.nan_to_num(), moments.norms
    ends = [(float(one.median()), float(one.max())) for one in parts]
    massive, middle = int((outputs > MASSIVE * outputs.median()).sum()), float(outputs.median())
    return SeenInputs(len(rows.x), ends[0], ends[1], middle, massive, tuple(largest))


def inputs_of_layers(model: LoadedModel, data: Tensor) -> dict[str, Tensor]:
    """Run data through a network and return the inputs of each layer."""
    reached: dict[str, Tensor] = {}
    for name, view in model.layers.items():
        reached[name] = data
        data = in_blocks(view.weights(torch.float64), data.detach().double())
    return reached


@contextmanager
def offering_a_fit(subject: Subject, name: str = "model") -> Iterator[None]:
    """Follow a refusal by what can be had instead: the quadratic approximation and its R²."""
    try:
        yield
    except NotQuadraticError as error:
        try:
            fit = quadratic_fit(subject, samples=OFFER_SAMPLES)
        except BilensError:  # the refusal itself is what has to be said
            raise error from None
        raise NotQuadraticError(f"{error} {offer_of(fit, name)}") from error


def offer_of(fit: QuadraticFit, name: str) -> str:
    """Return the sentence on a fit: its R², and how to have it."""
    found = f"The quadratic approximation under {fit.assumed_input} has {in_words(fit.r_squared)}"
    if not fit.usable:
        return (
            f"{found}, below the {fit.threshold:g} at which it would stand for the model; "
            f"bl.quadratic_fit({name}) has it, and nothing is proven of the model by it."
        )
    return f"{found}: read it with bl.quadratic_fit({name}); nothing is proven of the model by it."
