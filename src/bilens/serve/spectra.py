"""What the page of a model's layers is drawn from: the layers, and the spectra of their outputs."""

from __future__ import annotations

from bilens.records.explorer import LayerRow, LayerTable
from bilens.serve.endpoint import Asked, Endpoint
from bilens.serve.folder import ServedFolder


def layer_table(served: ServedFolder, asked: Asked) -> LayerTable | None:
    opened = served.opened(asked.path["key"])
    if opened is None:
        return None
    rows = (
        LayerRow(
            name=name,
            reads=view.reads,
            gives=view.gives,
            activation=view.activation.name,
            gated=view.gated,
            exact=view.exact,
            d_in=view.sizes.d_in,
            d_hidden=view.sizes.d_hidden,
            d_out=view.sizes.d_out,
        )
        for name, view in opened.model.layers.items()
    )
    return LayerTable(weights_sha256=opened.model.weights_sha256, layers=tuple(rows))


ENDPOINTS = (
    Endpoint(
        "/models/{key}/layers",
        "The layers of a model, without reading their weights.",
        (LayerTable,),
        layer_table,
        held=lambda served: (Asked({"key": key}) for key in served.found().models),
    ),
)
