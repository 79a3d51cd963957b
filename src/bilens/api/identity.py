"""What makes two results ones of the same: the key that histories, folders and caches ask for."""

from collections.abc import Mapping
from pathlib import Path

import torch

from bilens.algebra.approximation.layer_weights import in_dtype
from bilens.base.files import file_sha256
from bilens.data.model_interface import LabelledData
from bilens.io.load import LoadedModel
from bilens.io.tensors import tensors_sha256
from bilens.records.identity import Identity, key_of

BESIDE = ("config.json", "cfg.json")  # what weights are read with


def identity_of(
    model: LoadedModel,
    data: LabelledData | None = None,
    baseline: LoadedModel | None = None,
    options: Mapping[str, object] | None = None,
) -> Identity:
    """Return what a result on a model is of; `options` are what else its numbers depend on."""
    return Identity(
        weights=model.identity,
        reading=key_of(how_it_is_read(model)),
        data=data_sha256(data),
        baseline="" if baseline is None else key_of(how_it_is_read(baseline)),
        options=key_of(options or {}),
    )


def how_it_is_read(model: LoadedModel) -> dict[str, object]:
    """Return weights and what the same weights can be read otherwise by.

    Weights are read of a module in memory alone, whose code has numbers of its own.
    """
    layers = {
        name: [str(view.activation), view.gated, view.reads, view.gives, view.about_input]
        for name, view in model.layers.items()
    }
    report = model.load_report
    return {
        "weights": model.identity,
        "layers": layers,
        "roles": None if report is None else [report.roles, report.head],
        "residual": bool(getattr(model.module, "residual", False)),
        "names": [model.input_names, model.output_names, model.input_shape],
        "units": [model.input_mean, model.input_scale],
        "beside": files_beside(model),
        **({} if model.original is None else {"numbers": numbers_of(model)}),
    }


def numbers_of(model: LoadedModel) -> str:
    """Return the SHA-256 of the layers as they are read, in float32; empty without weights."""
    views = model.layers.items() if model.weights_sha256 else ()
    parts = (
        (f"{name} {part}", number)
        for name, view in views
        for part, number in vars(in_dtype(view.read(), torch.float32)).items()
    )
    return tensors_sha256((name, one) for name, one in parts if isinstance(one, torch.Tensor))


def files_beside(model: LoadedModel) -> dict[str, str]:
    """Return the SHA-256 of what lies beside weights and says how they are read."""
    places = [Path(place) for place in (model.source, model.below) if place]
    paths = {f"{n} {name}": place / name for n, place in enumerate(places) for name in BESIDE}
    return {name: file_sha256(path) for name, path in paths.items() if path.is_file()}


def data_sha256(data: LabelledData | None) -> str:
    """Return the SHA-256 of inputs and right answers as a model is given them; empty for none."""
    if data is None:
        return ""
    parts = [("inputs", data.inputs)]
    return tensors_sha256(parts if data.targets is None else [*parts, ("targets", data.targets)])
