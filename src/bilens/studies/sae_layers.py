"""What autoencoders cost layer by layer: App. G of the paper."""

from collections.abc import Mapping
from functools import partial

from bilens.api.train import read_model
from bilens.report.charts.curves import Curve, line_figure
from bilens.studies.comparison import Measured, rising
from bilens.studies.study import (
    CellContext,
    Measure,
    OneModelStudy,
    Record,
    StudyOptions,
    model_of,
    sae_recipe,
)

STEPS = 512
BUFFER_STEPS = 16  # steps at most: a buffer holds the activations of all hook points
POINTS = ("mlp_out", "resid_mid")
LAYERS_NAME = "layers.svg"
PUBLISHED: Record = {
    "source": "arXiv:2410.08417, App. G: TinyStories, 6 layers of width 512, about 150 M tokens",
    "loss_added": {
        "mlp_out": [0.0119, 0.0205, 0.0379, 0.0487, 0.0593, 0.0868],
        "resid_mid": [0.0173, 0.0278, 0.0878, 0.1648, 0.2196, 0.2861],
    },
}


class LayerStudy(OneModelStudy):
    """Loss added at every layer of one model: at what MLPs write, and at the stream before them.

    All autoencoders are trained in one pass over the text.
    """

    name = "language/layers"
    title = "Sparse autoencoders layer by layer"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        return {"all-layers": partial(measure, options)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:  # noqa: ARG002 - of the interface
        return {**cells["all-layers"], "published": PUBLISHED}

    def ours(self, result: Record) -> Mapping[str, Measured]:
        size = f"{result['num_layers']} layers of width {result['d_model']}"
        return {
            point: rising([row["loss_added"] for row in rows], size)
            for point, rows in result["points"].items()
        }

    def figures(self, result: Record) -> Mapping[str, str]:
        curves = [
            Curve(point, tuple(enumerate((row["loss_added"] for row in rows), start=1)))
            for point, rows in result["points"].items()
        ]
        published = [
            Curve(f"{point}, published", tuple(enumerate(losses, start=1)), dashed=True)
            for point, losses in result["published"]["loss_added"].items()
        ]
        names = self.title, "layer", "loss added, nats per token"
        return {LAYERS_NAME: line_figure(*names, [*curves, *published])}


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
