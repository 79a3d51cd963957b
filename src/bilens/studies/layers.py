"""What autoencoders cost layer by layer: App. G of the paper.

All autoencoders of a model are trained in one pass over the text, at what each MLP writes and at
the residual stream before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bilens.api.train import read_model
from bilens.report.charts.curves import Curve, line_figure
from bilens.studies.study import (
    CellContext,
    Measure,
    OneModelStudy,
    Record,
    StudyOptions,
    model_of,
    sae_recipe,
    share,
    table,
)

STEPS = 512
BUFFER_STEPS = 16  # at most: a buffer holds the activations of all hook points
POINTS = ("mlp_out", "resid_mid")
FIGURE_NAME = "layers.svg"
PUBLISHED: Record = {
    "source": "arXiv:2410.08417, App. G: TinyStories, 6 layers of width 512, about 150 M tokens",
    "loss_added": {
        "mlp_out": [0.0119, 0.0205, 0.0379, 0.0487, 0.0593, 0.0868],
        "resid_mid": [0.0173, 0.0278, 0.0878, 0.1648, 0.2196, 0.2861],
    },
}


class LayerStudy(OneModelStudy):
    """Loss added by autoencoders at every layer of one model."""

    name = "language/layers"
    title = "Sparse autoencoders layer by layer"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        return {"all-layers": partial(measure, options)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:  # noqa: ARG002 - of the interface
        return {**cells["all-layers"], "published": PUBLISHED}

    def figures(self, document: Record) -> Mapping[str, str]:
        result = document["result"]
        curves = [
            Curve(point, tuple(enumerate((row["loss_added"] for row in rows), start=1)))
            for point, rows in result["points"].items()
        ]
        published = [
            Curve(f"{point}, published", tuple(enumerate(losses, start=1)), dashed=True)
            for point, losses in result["published"]["loss_added"].items()
        ]
        return {
            FIGURE_NAME: line_figure(
                self.title, "layer", "loss added, nats per token", [*curves, *published]
            )
        }

    def page(self, document: Record) -> str:
        result = document["result"]
        published = result["published"]["loss_added"]
        lines = [
            f"{result['num_layers']} layers of width {result['d_model']}; "
            f"{result['num_latents']:,} latents and {result['k']} an input at every hook point, "
            f"all trained together on {result['tokens']:,} tokens ({result['steps']:,} steps).",
            "",
            table(
                "layer | hook point | loss added | fvu | dead | recovered, from zeros "
                "| from the mean",
                (
                    table_row(number, row)
                    for rows in result["points"].values()
                    for number, row in enumerate(rows, start=1)
                ),
            ),
            "",
            f"![Loss added by layer]({FIGURE_NAME})",
            "",
            "Loss added, in nats per token, on held-out texts with the reconstruction in the place "
            f"of all activations but the first of each text; the model's own loss is "
            f"{result['loss']:.4f}. Layers count from 1, as in the paper.",
            "",
            f"Published for another, larger model ({result['published']['source']}; only the "
            "order compares):",
            "",
            table(
                f"layer | {' | '.join(published)}",
                (
                    (number, *(f"{loss:.4f}" for loss in losses))
                    for number, losses in enumerate(zip(*published.values(), strict=True), start=1)
                ),
            ),
        ]
        return "\n".join(lines)


def measure(options: StudyOptions, context: CellContext) -> Record:
    model = model_of(options)
    read = read_model(model, None, context.say)
    config = read.model.config
    steps = options.steps or STEPS
    hooks = {
        point: [f"blocks.{index}.{point}" for index in range(config.n_layer)] for point in POINTS
    }
    everywhere = [hook for names in hooks.values() for hook in names]
    recipe = sae_recipe(everywhere, steps, min(BUFFER_STEPS, steps), config.n_ctx)
    result = context.train_sae(model, recipe)
    last = result.history[-1]
    return {
        "model": model.name,
        "model_sha256": read.weights_sha256,
        "num_layers": config.n_layer,
        "d_model": config.d_model,
        "num_latents": recipe.latents_for(config.d_model),
        "k": recipe.k,
        "steps": last.step,
        "tokens": last.tokens,
        "recipe": recipe.to_dict(),
        "loss": result.metrics[recipe.hooks[0]].loss,
        "points": {
            point: [result.metrics[hook].to_dict() for hook in names]
            for point, names in hooks.items()
        },
    }


def table_row(number: int, row: Record) -> tuple[object, ...]:
    errors = f"{row['loss_added']:.4f}", f"{row['fvu']:.3f}", f"{row['dead']:.1%}"
    recovered = share(row["recovered_from_zero"]), share(row["recovered_from_mean"])
    return (number, row["hook"], *errors, *recovered)
