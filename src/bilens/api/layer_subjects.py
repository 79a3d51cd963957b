"""The layers of a model as subjects of an audit, whatever the model is."""

from __future__ import annotations

from torch import Tensor, nn

from bilens.findings.layers.subject import LayerSubject
from bilens.io.load import LoadedModel
from bilens.io.module_reader import from_module
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import LayerView
from bilens.nn.module_layers import Module, layer_views


def layer_subjects(model: LoadedModel | nn.Module) -> tuple[LayerSubject, ...]:
    """Return the layers of a model, first to last; no weight of a loaded one is read."""
    module = model.module if isinstance(model, LoadedModel) else model
    if isinstance(model, LoadedModel):
        views = model.layers
    else:
        views = layer_views(model) if isinstance(model, Module) else from_module(model).layers
    return tuple(
        subject_of_view(name, view, module if place == 0 else None)
        for place, (name, view) in enumerate(views.items())
    )


def subject_of_view(name: str, view: LayerView, first_of: nn.Module | None) -> LayerSubject:
    """Return a layer of a model; the first one of a classifier contains its embedding."""
    embedding = None
    if isinstance(first_of, BilinearClassifier):
        classifier = first_of

        def embedding() -> Tensor:
            return classifier.embed.weight.detach().cpu().double()

    return LayerSubject(
        name,
        view.sizes.d_in,
        view.sizes.d_hidden,
        view.sizes.d_out,
        view.gated,
        view.activation.name,
        view.read,
        embedding,
        view.gives == "logits" and view.sizes.d_out > 1,
    )
