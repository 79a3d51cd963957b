"""Autoencoders layer by layer (App. G), and over training with the latents they give (App. H).

Both studies read one model, given by --model.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from bilens import eigendecompose_all
from bilens.api import LEAST_ACTIVE, read_model
from bilens.base.errors import NumericalError, UsageError
from bilens.interp import (
    LoadedSAE,
    TracedLayer,
    held_out_text,
    latent_map,
    low_rank_fit,
    only,
    open_layer,
    open_sae,
)
from bilens.report import Curve, line_figure
from bilens.train import activations_of
from bilens_studies.published import Reproduced, rising
from bilens_studies.study import (
    CellContext,
    Measure,
    OneModelStudy,
    Record,
    StudyOptions,
    metrics_around,
    model_of,
    sae_recipe,
)

LAYER_STEPS, LAYER_BUFFER = 512, 16  # a buffer of so many steps holds all hook points
POINTS = ("mlp_out", "resid_mid")
STEPS, BUFFER_STEPS = 1024, 64  # of the longest training; of a buffer at most
DOUBLINGS = 4
MOST_RANK = 32  # eigenpairs of a form
NUM_RANDOM = 5  # random forms
FIT_TOKENS = 8192
HIGH = 0.75  # a correlation
RANK_NAMES = {1: "1 eigenvector", 2: "2 eigenvectors", 8: "8 eigenvectors"}  # over time
LAYERS_NAME = "layers.svg"
BY_RANK_NAME, OVER_TIME_NAME = "sae_training_ranks.svg", "sae_training_steps.svg"
PUBLISHED_LAYERS: Record = {
    "source": "arXiv:2410.08417, App. G: TinyStories, 6 layers of width 512, about 150 M tokens",
    "loss_added": {
        "mlp_out": [0.0119, 0.0205, 0.0379, 0.0487, 0.0593, 0.0868],
        "resid_mid": [0.0173, 0.0278, 0.0878, 0.1648, 0.2196, 0.2861],
    },
}
PUBLISHED: Record = {
    "source": "arXiv:2410.08417, App. H: 16 layers, 335 M weights, layer 12; 16 times as many "
    "latents as dimensions",
    "steps": [2**13, 2**14, 2**15, 2**16, 2**17],
    "nmse": [0.17, 0.16, 0.16, 0.15, 0.15],
    "recovered": [0.60, 0.61, 0.65, 0.65, 0.66],
    "correlation": [0.17, 0.28, 0.42, 0.52, 0.59],
}


class LayerStudy(OneModelStudy):
    """Loss added at every layer of one model: at what MLPs write, and at the stream before them.

    All autoencoders are trained in one pass over the text.
    """

    name = "language/layers"
    title = "Sparse autoencoders layer by layer"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        return {"all-layers": partial(measure_layers, options)}

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {**cells["all-layers"], "published": PUBLISHED_LAYERS}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
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


def measure_layers(options: StudyOptions, context: CellContext) -> Record:
    model = model_of(options)
    read = read_model(model, None, context.say)
    config = read.model.config
    steps = options.steps or LAYER_STEPS
    hooks = {
        point: [f"blocks.{index}.{point}" for index in range(config.n_layer)] for point in POINTS
    }
    everywhere = [hook for names in hooks.values() for hook in names]
    recipe = sae_recipe(everywhere, steps, min(LAYER_BUFFER, steps), config.n_ctx)
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


class SAETrainingStudy(OneModelStudy):
    """Reconstruction, and agreement of latents with few eigenvectors, by length of training.

    Autoencoders around one MLP are trained from the same start for 1, 2, 4, 8 and 16 times as
    long. Each output latent is a quadratic form of the MLP's input; the better the autoencoder,
    the fewer eigenvectors of the form say where the latent is active, and how much.
    """

    name = "language/sae-training"
    title = "Sparse autoencoders over training time"

    def check(self, options: StudyOptions) -> None:
        """Refuse trainings that are too short to be halved."""
        super().check(options)
        if options.steps is not None and options.steps < 2**DOUBLINGS:
            raise UsageError(
                f"--steps {options.steps}: the longest training is halved {DOUBLINGS} times; "
                f"expected at least {2**DOUBLINGS}."
            )

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        lengths = lengths_of(options)
        return {f"steps-{steps}": partial(measure, options, steps) for steps in lengths}

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {"rows": list(cells.values()), "published": PUBLISHED}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        rows = result["rows"]
        fit, behind = rows[-1]["fit"], [row["metrics"]["out"] for row in rows]
        size = f"{rows[0]['num_layers']} blocks, {rows[0]['tokens']:,} to {rows[-1]['tokens']:,}"
        where = f"{size} tokens"
        falling = rising([-side["nmse"] for side in behind], "")
        errors = ", ".join(f"{side['nmse']:.3g}" for side in behind)
        found = {
            "correlation": rising([row["fit"]["correlation"][0] for row in rows], where),
            "recovered": rising([side["recovered_from_zero"] for side in behind], where),
            "nmse": Reproduced(holds=falling.holds, note=f"{errors} ({where})", runs=1),
            "one": Reproduced(
                (fit["correlation"][0],), note="a smaller model, after all its steps"
            ),
        }
        if high := fit.get("share_above"):
            found["two"] = Reproduced((high[1],), high[1] > 0.5)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        rows, published = result["rows"], result["published"]["correlation"]
        by_rank = [Curve(f"{row['tokens']:,}", points_of(row, "correlation")) for row in rows]
        null = Curve("random", points_of(rows[-1], "null"), dashed=True)
        known = [dict(curve.points) for curve in by_rank]
        over_time = [
            Curve(RANK_NAMES[rank], tuple(enumerate(x[rank] for x in known)))
            for rank in RANK_NAMES
            if rank in known[0]
        ]
        other = Curve("published, other model", tuple(enumerate(published)), dashed=True)
        time, what = "doublings of the training", "correlation"
        return {
            BY_RANK_NAME: line_figure(
                "By tokens of training", "eigenvectors", what, [*by_rank, null]
            ),
            OVER_TIME_NAME: line_figure(self.title, time, what, [*over_time, other]),
        }


def lengths_of(options: StudyOptions) -> list[int]:
    longest = options.steps or STEPS
    return [longest >> halvings for halvings in range(DOUBLINGS, -1, -1)]


def measure(options: StudyOptions, steps: int, context: CellContext) -> Record:
    """Train both autoencoders for so many updates, and compare the latents with eigenvectors."""
    model = model_of(options)
    layer = upper_layer(model)
    hooks = layer.hook("mlp_in"), layer.hook("mlp_out")
    buffer_steps = min(BUFFER_STEPS, lengths_of(options)[0])
    recipe = sae_recipe(hooks, steps, buffer_steps, layer.module.config.n_ctx)
    result = context.train_sae(model, recipe)
    behind = open_sae(result.folders[hooks[1]], layer, "mlp_out")
    return {
        "steps": result.history[-1].step,
        "tokens": result.history[-1].tokens,
        "model": model.name,
        "model_sha256": layer.loaded.weights_sha256,
        "layer": layer.index,
        "num_layers": layer.module.config.n_layer,
        "num_latents": behind.sae.num_latents,
        "k": behind.sae.k,
        "recipe": recipe.to_dict(),
        "metrics": metrics_around(result, hooks),
        "fit": agreement(layer, behind, context),
    }


def upper_layer(model: Path) -> TracedLayer:
    """Return the block three quarters up, which is the paper's layer 12 of 16."""
    first = open_layer(model, 0)
    return open_layer(first.loaded, 3 * first.module.config.n_layer // 4, first.tokenizer)


def agreement(layer: TracedLayer, behind: LoadedSAE, context: CellContext) -> Record:
    text = held_out_text(layer, None, FIT_TOKENS, context.say)
    hooks = layer.hook("mlp_in"), behind.hook
    read = activations_of(layer.module, text.blocks, hooks)
    with torch.no_grad():
        active = behind.sae.encode(read[behind.hook].double()) > 0
    alive = (active.sum(dim=0) >= LEAST_ACTIVE).nonzero()[:, 0]
    if len(alive) == 0:
        raise NumericalError(
            f"no latent at {behind.hook} is active at {LEAST_ACTIVE} of {len(active)} held-out "
            "tokens, so there is nothing to compare: train for more --steps."
        )
    g = only(latent_map(layer.f, behind.sae.encoder, behind.sae.offset), alive)
    fit = low_rank_fit(
        g,
        eigendecompose_all(g, k=min(MOST_RANK, g.sizes.d_in)),
        read[hooks[0]].double(),
        active[:, alive],
        torch.Generator().manual_seed(0),
        num_random=NUM_RANDOM,
    )
    return {
        "ranks": fit.ranks.tolist(),
        "correlation": fit.correlation_active.nanmean(dim=0).tolist(),
        "null": fit.null_correlation_active.nanmean(dim=0).tolist(),
        "share_above": (fit.correlation_active > HIGH).double().mean(dim=0).tolist(),
        "num_latents": len(alive),
        "num_inputs": fit.num_inputs,
        "num_random": fit.num_random,
    }


def points_of(row: Record, name: str) -> tuple[tuple[float, float], ...]:
    return tuple(zip(row["fit"]["ranks"], row["fit"][name], strict=True))
