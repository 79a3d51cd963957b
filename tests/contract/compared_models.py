"""Models that are compared, made by hand, and what changed between two of them by hand."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bilens as bl
from bilens.io.loaded_model import LoadedModel
from bilens.records.base import json_text
from bilens.records.column_readings import TableColumn, TableReading

ANIMALS = ("ape", "bee", "cat")
COLUMNS = ("age", "dose", "mass", "size")
EXACT = 1e-9  # of what is computed in float64


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(seed: int, sizes: tuple[int, int, int] = (6, 5, 3), layers: int = 1) -> Any:
    """A bilinear classifier in float64, with biases."""
    module = bl.nn.BilinearClassifier(*sizes, n_layers=layers, bias=True).double()
    generator = generator_of(seed)
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
    return module.eval()


def images(seed: int, **more: Any) -> LoadedModel:
    """A classifier of images of six pixels, whose classes have names."""
    named = {"input_shape": (2, 3), "output_names": ANIMALS, **more}
    return LoadedModel(classifier(seed), "", "", **named)


def table(seed: int, outputs: Sequence[str] = ANIMALS, **more: Any) -> LoadedModel:
    """A model of four columns with their means and deviations."""
    generator = generator_of(seed + 1)
    mean, scale = (5 * torch.rand(4, generator=generator).double() + 1 for _ in range(2))
    known = {"input_mean": tuple(mean.tolist()), "input_scale": tuple(scale.tolist())}
    module = classifier(seed, (4, 5, len(outputs)))
    known |= {"input_names": COLUMNS, "output_names": tuple(outputs)} | more
    return LoadedModel(module, "", "", **known)


def with_units(model: LoadedModel, units: dict[str, str]) -> LoadedModel:
    """A model of a table that says in which units its columns were."""
    columns = tuple(
        TableColumn(name, "number", (name,), units.get(name, ""))
        for name in model.input_names or ()
    )
    said = {**model.provenance, "reading": json_text(TableReading(columns, ()))}
    return dataclasses.replace(model, provenance=said)


def copied(model: LoadedModel, **more: Any) -> LoadedModel:
    """The model with a module of its own, and whatever is said otherwise."""
    module: Any = model.module
    own = bl.nn.BilinearClassifier(
        module.embed.in_features,
        module.embed.out_features,
        module.head.out_features,
        n_layers=len(module.layers),
        bias=True,
        residual=module.residual,
    )
    own = own.to(module.embed.weight.dtype)
    own.load_state_dict(module.state_dict())
    return dataclasses.replace(model, module=own.eval(), **more)


def picked(names: Sequence[Any] | None, order: Sequence[int]) -> Any:
    return None if names is None else tuple(names[at] for at in order)


def with_outputs(model: LoadedModel, order: Sequence[int]) -> LoadedModel:
    """The same model with its outputs in another order, their names with them."""
    found = copied(model, output_names=picked(model.output_names, order))
    head = found.module.head.weight  # type: ignore[union-attr]
    with torch.no_grad():
        head.copy_(head[list(order)].clone())
    return found


def with_inputs(model: LoadedModel, order: Sequence[int]) -> LoadedModel:
    """The same model with its inputs in another order, what is known of them with them."""
    named = ("input_names", "input_mean", "input_scale")
    found = copied(model, **{name: picked(getattr(model, name), order) for name in named})
    embed = found.module.embed.weight  # type: ignore[union-attr]
    with torch.no_grad():
        embed.copy_(embed[:, list(order)].clone())
    return found


def with_units_permuted(model: LoadedModel, order: Sequence[int], scale: Tensor) -> LoadedModel:
    """The same function: hidden units in another order, one branch times a number."""
    found = copied(model)
    module: Any = found.module
    layer, at = module.layers[-1], list(order)
    with torch.no_grad():
        for branch, factor in ((layer.left, scale), (layer.right, 1 / scale)):
            branch.weight.copy_(factor[:, None] * branch.weight[at].clone())
            branch.bias.copy_(factor * branch.bias[at].clone())
        module.head.weight.copy_(module.head.weight[:, at].clone())
    return found


def with_common_function(model: LoadedModel, seed: int) -> LoadedModel:
    """The same predictions: the same function of the hidden units added to all logits."""
    found = copied(model)
    head = found.module.head.weight  # type: ignore[union-attr]
    with torch.no_grad():
        head.add_(torch.randn(head.shape[1], generator=generator_of(seed), dtype=torch.float64))
    return found


def quadratic_parts(model: LoadedModel) -> np.ndarray[Any, Any]:
    """The symmetric matrix of each logit, less their mean, (out, in, in), by hand."""
    module: Any = model.module
    e = module.embed.weight.detach().double().numpy()
    left, right = (
        branch.weight.detach().double().numpy() @ e
        for branch in (module.layers[0].left, module.layers[0].right)
    )
    products = np.einsum("hi,hj->hij", left, right)
    head = module.head.weight.detach().double().numpy()
    parts = np.einsum("oh,hij->oij", head, (products + products.transpose(0, 2, 1)) / 2)
    return parts - parts.mean(axis=0) if len(parts) > 1 else parts


def change_by_hand(model: LoadedModel, baseline: LoadedModel) -> float:
    """‖Q − Q₀‖ / ‖Q₀‖ over the classes of both, each by its name."""
    names, before = model.output_names or (), baseline.output_names or ()
    mine, theirs = quadratic_parts(model), quadratic_parts(baseline)
    theirs = theirs[[before.index(name) for name in names]]
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs))


def compared(model: Any, baseline: Any, data: Any = None, **more: Any) -> dict[str, Any]:
    """The document of an audit beside a baseline."""
    report = bl.audit(model, data, baseline=baseline, command="here", **more)
    found: dict[str, Any] = report.to_dict()
    return found


def only_layer(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["difference"]["layers"]
    one: dict[str, Any] = found
    return one
