"""Models in memory: the MLPs inside any PyTorch module, and a fitted MLP of scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import MLPWeights, each_part, reading
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_finite
from bilens.base.errors import UsageError
from bilens.io.formats.activations import activation_named
from bilens.io.formats.ends import ends_of
from bilens.io.formats.huggingface import said_input
from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.stored_mlp import Store, StoredTensor, block_of, module_tensors
from bilens.io.tensors import tensors_sha256
from bilens.nn.agreement import Agreement, agreement, normal_inputs
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.find_mlps import find_mlps

ESTIMATORS = ("MLPClassifier", "MLPRegressor")
FITTED = ("coefs_", "intercepts_")  # the lists of its matrices and biases
SCALES = (1.0, 1e2, 1e4, 1e6)  # of inputs: a step that clips is affine on all that are smaller


def from_module(module: nn.Module, example: object = None) -> LoadedModel:
    """Read the MLPs inside any PyTorch module as layers; the module is not changed.

    Layers are found by tracing the module, or its parts, with torch.fx: linear maps with an
    activation between them, ordinary or gated, convolutions as maps of the patch at each place;
    biases, residual paths and batch normalisations become part of a layer, an activation is known
    by its values. Where that does not reach, an example is run and what enters each linear map is
    compared with what leaves the ones before. Every layer is compared with what the module computes
    there; `model.load_report` says how far it is off, and what was not read.

    A module on the meta device is read as a plan: names, sizes and what each layer is made of,
    which nothing was compared with; `bl.plan_eigendecomposition(view)` says what one will take.

    `bl.quadratic_fit` reads the model end to end where its layers one behind the other are the
    module, and `model.layers[name]` one by one.

    Cost: a trace of each part and, for the check, a copy in float64 of one traced part at a time.

    Args:
        module: any module, or a wrapper of nnsight with one; its weights are read when they are
            asked for, so that layers of a module that is trained on are those of the moment.
        example: an input, a tuple of arguments or a mapping of keyword arguments, run once without
            gradients; None for no run.

    Raises:
        UsageError: If it is no module, cannot be copied, holds no MLP, or the example does not run.
        NonFiniteError: If a weight of a layer is NaN or infinite.
        MemoryLimitError: If a part in float64 would not fit.
    """
    given: Any = module  # or a wrapper that is no module itself, as nnsight's
    module = given if isinstance(given, nn.Module) else getattr(given, "_module", given)
    found = find_mlps(module, example)
    kind, config = type(module).__name__, getattr(module, "config", None)
    content = {} if config is None or not hasattr(config, "to_dict") else config.to_dict()
    tensors = [*module.named_parameters(), *module.named_buffers()]
    on_meta = any(tensor.is_meta for _, tensor in tensors)
    return LoadedModel(
        None,
        f"the {kind}",
        "" if on_meta else tensors_sha256(tensors),
        provenance={"format": f"PyTorch module {kind}"},
        views={
            name: replace(
                view, live=True, about_input=view.about_input or said_input(content, view.tensors)
            )
            for name, view in found.layers.items()
        },
        stored=module_tensors(module),
        load_report=LoadReport(found.made_of, False, found.checks, found.left_out, found.head),
        ends=ends_of(content),
    )


def from_sklearn(estimator: object) -> LoadedModel:
    """Read a fitted `MLPClassifier` or `MLPRegressor` of scikit-learn; it is not changed.

    The layers end where the estimator's output activation begins: at the logits of a classifier.
    Two classes have one logit z there; here they have two, −z/2 and z/2, whose softmax is the
    estimator's pair of probabilities. `model.load_report.head` names the output activation. Steps
    of a pipeline before the MLP become part of its first layer if they are affine, as scalers are.

    A fitted estimator of `bl.sklearn` is its own exact model, with the names of its columns.

    Args:
        estimator: the object itself, never a pickle of it, or a `Pipeline` that ends in an MLP.

    Raises:
        UsageError: If it is another object, not fitted, or a step before it is not affine.
        NonFiniteError: If a weight is NaN or infinite.
        NumericalError: If the layers do not give the estimator's outputs.
    """
    whole: Any = estimator
    if hasattr(whole, "loaded_model") and not isinstance(whole, type):  # one of ours
        ours: LoadedModel = whole.loaded_model()
        return ours
    steps = list(whole.named_steps.values()) if type(whole).__name__ == "Pipeline" else [whole]
    kind, fitted = check_estimator(steps[-1]), steps[-1]
    layers = layers_of(fitted)
    for step in steps[-2::-1]:
        layers[0] = behind(step, layers[0])
    is_classifier, last = hasattr(fitted, "classes_"), len(layers) - 1
    # several labels have a sigmoid each: a logit of one means something by itself
    softmax = is_classifier and (one_logit(fitted) or fitted.out_activation_ != "logistic")
    views, roles, stored = {}, {}, fitted_tensors(fitted)
    numbers = {name: prod(one.shape) for name, one in stored.items()}
    for index, layer in enumerate(layers):
        name = f"layers.{index}"
        views[name] = LayerView(
            FactorSizes(len(layer.down), len(layer.up), layer.d_in),
            layer.phi,
            layer.up.dtype,
            lambda layer=layer: layer,  # type: ignore[misc]
            gated=False,
            reads="neurons" if index else "inputs",
            gives="neurons" if index < last else "logits" if softmax else "outputs",
            name=name,
            # the last one reaches through two linear maps
            tensors={n: c for n, c in numbers.items() if min(int(n.split(".")[1]), last) == index},
        )
        roles[name] = f"ordinary, {layer.phi}, {layer.d_in} → {len(layer.up)}"
        roles[name] += f" → {len(layer.down)}" if index == last else ""
    check = check_against(whole, fitted, layers)
    parts = [part for layer in layers for part in vars(layer).items()]
    columns = getattr(whole, "feature_names_in_", None)
    return LoadedModel(
        None,
        f"the {type(whole).__name__}",
        tensors_sha256((role, part) for role, part in parts if isinstance(part, Tensor)),
        output_names=tuple(map(str, fitted.classes_)) if is_classifier else None,
        provenance={"format": f"scikit-learn {kind}"},
        input_names=None if columns is None else tuple(map(str, columns)),
        views=views,
        load_report=LoadReport(roles, False, {"output": check}, (), head_of(fitted)),
        stored=stored,
    )


def fitted_tensors(estimator: Any) -> Store:
    """Return the matrices and biases of a fitted MLP."""
    found = {}
    for part in FITTED:
        for index, array in enumerate(getattr(estimator, part)):
            name, one = f"{part}.{index}", torch.as_tensor(array)
            fetch = partial(block_of, one)
            found[name] = StoredTensor(Path(part), name, tuple(one.shape), one.dtype, fetch)
    return found


def check_estimator(estimator: object) -> str:
    """Return the class of a fitted MLP of scikit-learn."""
    bases = [base for base in type(estimator).__mro__ if base.__module__.startswith("sklearn.")]
    kind = next((base.__name__ for base in bases if base.__name__ in ESTIMATORS), None)
    if kind is None:
        inner = ": pass its best_estimator_." if hasattr(estimator, "best_estimator_") else "."
        if hasattr(estimator, "loaded_model"):
            inner = ": pass it alone, pipeline[-1]; it reads the columns as it receives them."
        raise UsageError(
            f"a {type(estimator).__name__} is no MLP of scikit-learn; expected a fitted "
            f"{' or '.join(ESTIMATORS)}, or a Pipeline that ends in one{inner}"
        )
    if not hasattr(estimator, "coefs_"):
        raise UsageError(f"the {kind} is not fitted: call its fit(X, y) first.")
    return kind


def layers_of(estimator: Any) -> list[MLPWeights]:
    """Return the layers of an estimator; the last one reaches to the logits or outputs."""
    weights = [tensor(f"coefs_[{k}]", part).T for k, part in enumerate(estimator.coefs_)]
    biases = [tensor(f"intercepts_[{k}]", part) for k, part in enumerate(estimator.intercepts_)]
    activation = activation_named(estimator.activation).phi
    if one_logit(estimator):
        half = torch.tensor([[-0.5], [0.5]], dtype=weights[-1].dtype)
        weights[-1], biases[-1] = half @ weights[-1], half @ biases[-1]
    if len(weights) == 1:  # no hidden layer
        wide = torch.eye(weights[0].shape[1], dtype=weights[0].dtype)
        return [MLPWeights(weights[0], wide, Activation("identity"), constant=biases[0])]
    *ups, down = weights
    layers = [
        MLPWeights(torch.eye(len(up), dtype=up.dtype), up, activation, bias)
        for up, bias in zip(ups, biases[:-1], strict=True)
    ]
    layers[-1] = replace(layers[-1], down=down, constant=biases[-1])
    return layers


def behind(step: Any, layer: MLPWeights) -> MLPWeights:
    """Return the first layer reading what a step before it reads."""
    name = type(step).__name__
    width = getattr(step, "n_features_in_", None)
    if width is None or not hasattr(step, "transform"):
        raise UsageError(f"the step {name} is not fitted, or does not transform: pass the MLP.")
    units = torch.eye(width, dtype=torch.float64)
    shift = transformed(step, torch.zeros(1, width, dtype=torch.float64))[0]
    matrix = (transformed(step, units) - shift).T
    for scale in SCALES:
        x = scale * normal_inputs(width)
        if not agreement(name, "", transformed(step, x), x @ matrix.T + shift).passed:
            raise UsageError(
                f"the step {name} before the MLP is not affine: pass the MLP alone, pipeline[-1], "
                "with inputs as it receives them."
            )
    return reading(each_part(layer, Tensor.double), matrix, shift)


def transformed(step: Any, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inputs without the names of columns are meant
        try:  # a table of pandas where set_output asks for one
            return torch.tensor(np.asarray(step.transform(x.numpy()), dtype=np.float64))
        except Exception as error:  # of any library
            raise UsageError(
                f"the step {type(step).__name__} before the MLP cannot be asked with plain numbers "
                f"({type(error).__name__}): pass the MLP alone, pipeline[-1], with inputs as it "
                "receives them."
            ) from None


def tensor(name: str, array: Any) -> Tensor:
    return check_finite(name, torch.tensor(array))


def one_logit(estimator: Any) -> bool:
    """Tell whether it is a classifier of two classes with one logit."""
    classes = getattr(estimator, "classes_", ())
    return len(classes) == 2 and estimator.n_outputs_ == 1


def head_of(estimator: Any) -> str | None:
    """Return what the estimator applies behind its last layer; None for nothing."""
    if one_logit(estimator):
        return "softmax of −z/2 and z/2, z the one logit of the estimator"
    name = estimator.out_activation_
    return {"identity": None, "logistic": "sigmoid of each logit"}.get(name, name)


def check_against(whole: Any, estimator: Any, layers: list[MLPWeights]) -> Agreement:
    """Return how far the layers are from the estimator: probabilities, or a regressor's outputs."""
    x = normal_inputs(layers[0].d_in, dtype=layers[0].up.dtype)
    y: Tensor = x
    for layer in layers:
        y = layer(y.to(layer.up.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inputs without the names of columns are meant
        if hasattr(estimator, "classes_"):
            expected = whole.predict_proba(x.numpy())
            several = estimator.out_activation_ == "logistic" and not one_logit(estimator)
            y = torch.sigmoid(y) if several else torch.softmax(y, dim=-1)
        else:
            expected = whole.predict(x.numpy()).reshape(len(x), -1)
            y = y.exp() if estimator.out_activation_ == "exp" else y
    against = f"the {type(whole).__name__}'s own outputs"
    return agreement("output", against, torch.as_tensor(expected), y).required()
