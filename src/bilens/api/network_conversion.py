"""Ordinary networks and image encoders made bilinear, on the data of their task."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, reading
from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.api.conversion_job import ConversionJob
from bilens.api.given_data import by_name, ends_in, find_data, interface_of, of_dataset
from bilens.api.subject import check_on_rows, open_subject
from bilens.api.training_options import ConvertNetworkOptions
from bilens.base import silent
from bilens.base.errors import DataError, UsageError
from bilens.base.files import check_path, read_json
from bilens.base.keyword_options import takes_options
from bilens.data.images import ImageDataset
from bilens.data.labelled_data import as_array, labelled
from bilens.data.model_interface import LabelledData, ModelInterface
from bilens.data.table_rows import FITTED_KEY, row_fingerprints
from bilens.io.host import VISION, Host, Site, open_host
from bilens.io.load import load
from bilens.io.loaded_model import CONFIG_NAME, LOG_OF_MEAN, PIXELS, LoadedModel, foreign_keys
from bilens.io.model_config import OPTIONAL, names_by_id
from bilens.io.model_folder import save
from bilens.io.tensors import tensors_sha256
from bilens.nn.classifier import classifier_of_layers
from bilens.nn.mlp import BilinearMLP, PlainLayer
from bilens.nn.module_layers import plain_weights
from bilens.records.common import DataOrigin
from bilens.train.distillation import token_table
from bilens.train.layer_fit import ROWS
from bilens.train.layer_inputs import Rows, check_enough
from bilens.train.processes import together
from bilens.train.randomness import ORDER, stream
from bilens.train.recipes import ROWS_RECIPE as RECIPE, ConversionRecipe
from bilens.train.trackers import check_trackers

Units = tuple[Tensor, Tensor, Tensor]  # of a network: mean and scale of inputs, scale of outputs
HELD_OUT = 0.2  # of the rows, where the data have no test part
JUDGED = 10  # of the other rows, one in so many tells whether training helps a layer
UNUSED = (
    "Right answers were not measured against: what the model gives is no number in their unit, "
    "and losses are against the model itself."
)
LOGARITHMS = (
    "The model gives the logarithm of a mean, and so does the conversion: take the exponential. "
    "Right answers were not measured against."
)


@takes_options(ConvertNetworkOptions)
def convert_network(
    model: Any, data: Any, folder: str | Path, options: ConvertNetworkOptions
) -> dict[str, Any]:
    """Replace the hidden layers of a network by bilinear ones; return what came of it, as JSON.

    Math: layer by layer on what reaches it, the least-squares quadratic of each neuron, ridge
        regression of the output weights and Adam, with the network's own layer as the target; then
        all layers learn what the network gives, by KL on logits or squared error on numbers.
    Cost: as `fit_neurons` and `refit_down` for each layer; `recipe.tokens` rows through both.

    Args:
        model: layers one behind the other, as a path, a loaded model, a module of PyTorch or an MLP
            of scikit-learn; or a ViT or DeiT of Hugging Face, whose MLPs are replaced.
        data: inputs (rows, in), such a pair with right answers, which measure alone, a path, or
            an `ImageDataset`, whose test images are held out.
        folder: for the result: one layer is one exact map, several are a network of exact ones.
        options: a `ConvertNetworkOptions`, or its fields:

    Returns: the content of `conversion.json`.
    Raises: UsageError for a model that is neither, or exact already; DataError for too few rows,
        NaN, or a layer that is never active; ShapeError for rows that do not fit.
    """
    recipe, report, say = options.recipe or RECIPE, options.report or silent, options.say or silent
    trackers = check_trackers(options.tracker)
    with together(options.device, options.shard) as group:
        recipe.check_stages(RECIPE)
        model = load(model) if isinstance(model, str | Path) else model
        source = open_subject(model, "a conversion", on_cpu=True)
        reads = data_interface(source)
        parts = split(source, data, reads, options.held_out, recipe.seed)
        fitted, measured, targets, about = parts
        seen = row_fingerprints(fitted)
        host, units, targets = open_network(source, reads, fitted, targets)
        if units is None:
            side = host.config.image_size // host.config.patch_size
            recipe = replace(recipe, n_ctx=side * side + 1)
            shape = reads.input_shape or ()
            fitted, measured = (x.reshape(-1, *shape) for x in (fitted, measured))
        else:
            check_all_learn(recipe)
            fitted, measured = ((x - units[0]) / units[1] for x in (fitted, measured))
        host.module.to(group.device)
        rows = Rows(fitted, measured, about.name, recipe.seed, recipe.n_ctx)
        recipe, folder = recipe.resolved(group.device), check_path("folder", folder)
        run = NetworkConversion(
            host,
            rows,
            recipe,
            folder,
            report,
            say,
            source,
            units,
            targets,
            seen,
            about,
            group=group,
            tracker=trackers,
        )
        return run.start(options.resume, options.overwrite)


def open_network(
    source: LoadedModel, reads: ModelInterface, rows: Tensor, targets: Tensor | None
) -> tuple[Host, Units | None, Tensor | None]:
    """Open an image encoder whole, or a network as a chain of layers with units of its numbers.

    The targets that come back are in these units; None where they are no numbers of its kind.
    """
    units: Units | None = None
    if not source.network:
        host = open_host(Path(source.source))
    elif reads.link:  # targets are means, the outputs logarithms
        host, units = chain_of(source, rows, None)
        return replace(host, notes=(*host.notes, LOGARITHMS)), units, None
    else:
        host, units = chain_of(source, rows, targets)
    if targets is not None and host.gives == "numbers":
        targets = answers_in_units(source, units, targets)
        host = host if targets is not None else replace(host, notes=(*host.notes, UNUSED))
    return host, units, targets


def check_all_learn(recipe: ConversionRecipe) -> None:
    """Refuse a recipe that leaves layers of a chain as they are, or lets others learn."""
    if recipe.layers or recipe.keep or recipe.keep_worst or recipe.unfreeze:
        idle = "leave out --layers, --keep, --keep-worst and --unfreeze."
        raise UsageError(f"of layers one behind the other all are converted, and learn: {idle}")


def answers_in_units(source: LoadedModel, units: Units | None, targets: Tensor) -> Tensor | None:
    """Return right answers in the unit of what a network gives; None where these say nothing.

    So do answers of several numbers or of classes, and of a model that gives another unit.
    """
    one = units is not None and len(units[2]) == 1 and targets.is_floating_point()
    if units is None or not one or source.head is not None:
        return None
    return (targets / units[2]).float()


# ---- model and data


def data_interface(model: LoadedModel) -> ModelInterface:
    """Return the interface that data have to fit; refuse a model that is not converted on rows."""
    name, views = model.source, [*model.layers.values()]
    if model.network:
        if all(view.exact for view in views):
            raise UsageError(f"{name} is exact already: there is nothing to convert.")
        with suppress(UsageError):  # several numbers, each of its own: right answers are not read
            return interface_of(model)
        d_in, d_out = views[0].sizes.d_in, views[-1].sizes.d_out
        shape, names = model.input_shape, model.own_input_names
        own = model.provenance.get(PIXELS, "")
        return ModelInterface(
            d_in, d_out, input_shape=shape, input_names=names, answers=False, reads_bytes=own
        )
    path = Path(name) / CONFIG_NAME
    content = read_json(path) if foreign_keys(Path(name)) else {}
    if content.get("model_type") in VISION:
        side, classes = content["image_size"], content.get("id2label", {"0": "0", "1": "1"})
        shape, names = (content["num_channels"], side, side), names_by_id(path, classes)
        d_in, d_out = math.prod(shape), len(names)
        return ModelInterface(
            d_in, d_out, "classification", input_shape=shape, output_names=names, positions=True
        )
    if views and views[0].reads == "residual stream":
        raise UsageError(f"{name} reads text: give some with --text, in the place of --data.")
    raise UsageError(
        f"{name} is not MLPs one behind the other, which data convert: its layers are "
        f"{', '.join([*model.layers][:4])}."
    )


def split(
    model: LoadedModel, data: Any, reads: ModelInterface, held_out: float | None, seed: int
) -> tuple[Tensor, Tensor, Tensor | None, DataOrigin]:
    """Return rows to fit to, rows only measured on, right answers of these, and their origin."""
    if isinstance(data, str | Path):
        data = find_data(model, Path(data), interface=reads)
    if isinstance(data, ImageDataset):
        if held_out is not None:
            raise UsageError("the data set has test images of its own: leave out --held-out.")
        known, judged = (of_dataset(data, replace(reads, notes=[]), one) for one in (True, False))
        assert judged.targets is not None, "images of a data set have labels"
        for one in (known, judged):
            check_on_rows(model, one.inputs)
        shuffled = torch.randperm(len(judged.inputs), generator=stream(seed, ORDER))
        labels = judged.targets[shuffled]  # so that the first ones are a draw
        return known.inputs, judged.inputs[shuffled], labels, judged.origin
    if not isinstance(data, LabelledData):
        pair = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        x = as_array(by_name(pair[0], reads.input_names))
        data = labelled(x, pair[1], DataOrigin("data", "data", "arrays", len(x), ""), reads)
    check_on_rows(model, data.inputs, data.numbers)
    check_enough(len(data.inputs), 2 * JUDGED, "a conversion", "rows")
    if held_out is not None and not 0 < held_out < 1:
        raise UsageError(f"held_out must be more than 0 and less than 1, got {held_out!r}.")
    order = torch.randperm(len(data.inputs), generator=stream(seed, ORDER))
    count = max(1, round(len(order) * (HELD_OUT if held_out is None else held_out)))
    targets = None if data.targets is None else data.targets[order[:count]]
    return data.inputs[order[count:]], data.inputs[order[:count]], targets, data.origin


# ---- layers one behind the other


def in_units(layers: list[Layer], mean: Tensor, scale: Tensor, spread: Tensor) -> list[Layer]:
    """Return layers that read (x − mean) / scale, and give what they give / spread."""
    *others, last = [reading(layers[0], scale, mean), *layers[1:]]
    parts = {name: getattr(last, name) for name in ("down", "linear", "constant")}
    parts = {n: p / spread.view(-1, *[1] * (p.ndim - 1)) for n, p in parts.items() if p is not None}
    return [*others, replace(last, **parts)]


def chain_of(model: LoadedModel, x: Tensor, targets: Tensor | None) -> tuple[Host, Units]:
    """Return layers one behind the other as a host, in units that suit weights and inputs."""
    layers: list[Layer] = [view.weights(torch.float64) for view in model.network]
    chosen = torch.randperm(len(x), generator=stream(0, ORDER))[: RECIPE.layer_tokens]
    x = y = x[chosen]
    for name, layer in zip(model.layers, layers, strict=True):
        y = in_blocks(layer, y)
        if float(y.std(dim=0).max()) == 0:
            raise DataError(
                f"{name} gives the same for all {len(y)} rows: none of its neurons is active. Pass "
                "inputs in the units that the model was trained on."
            )
    last, head = model.network[-1], model.head
    named = targets is not None and not targets.is_floating_point()
    several = y.shape[1] > 1 and "sigmoid" not in (head or "") and not ends_in(last)
    logits = several and (named or last.gives == "logits")
    # columns of the weights of one size, and inputs of about 1
    columns = torch.cat([getattr(layers[0], name) for name in layers[0].branches]).norm(dim=0)
    columns = columns.clamp(min=1e-6 * float(columns.max()))
    scale, spread = (columns * x.std(dim=0)).square().mean().sqrt() / columns, y.std(dim=0)
    parts = [(f"{one.phi} {name}", part) for one in layers for name, part in vars(one).items()]
    sha256 = tensors_sha256((name, part) for name, part in parts if isinstance(part, Tensor))
    units = x.mean(dim=0), scale, spread.where((spread > 0) & (not logits), 1.0)
    layers = in_units(layers, *units)
    sites = [
        Site(f"layers.{i}", (str(i),), replace(view, read=lambda one=one: one, dtype=torch.float64))  # type: ignore[misc]
        for i, (view, one) in enumerate(zip(model.network, layers, strict=True))
    ]
    ends = replace(sites[-1].view, gives="logits" if logits else "outputs")
    sites[-1] = replace(sites[-1], view=ends)
    module, source = nn.Sequential(), Path(model.source)
    for layer in layers:
        module.append(PlainLayer(layer))
    gives = "logits" if logits else "numbers"
    return Host(module, "", tuple(sites), source, sha256, False, (), "rows", gives), units  # type: ignore[arg-type]


@dataclass(eq=False)
class NetworkConversion(ConversionJob):
    """A conversion on rows of data."""

    source: LoadedModel
    units: Units | None
    targets: Tensor | None
    seen: str  # fingerprints of the rows that are fitted to
    origin: DataOrigin
    num_written: int = 0  # parameters of the classifier that is written

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units is not None and self.teacher.gives == "numbers":
            self.unit = "share of the variance"
        told = None if self.targets is None else tensors_sha256([("targets", self.targets)])
        self.how["targets_sha256"] = told  # they measure
        count, at_once = self.mixture.tokens // self.recipe.n_ctx, ROWS // self.recipe.n_ctx or 1
        self.judged = min(max(2, count // JUDGED), at_once)
        self.layer_texts = min(self.layer_texts, count - self.judged)
        self.judged_texts = self.mixture.texts(0, self.judged)  # rows stand alone

    def tables(self, most: int | None = None) -> dict[str, Tensor]:
        ((name, x),), hosts = self.mixture.held_out.items(), (self.teacher, self.student)
        x = x[: max(1, (most or self.recipe.measured_tokens) // self.recipe.n_ctx)]
        return {name: token_table(*hosts, x, self.targets)}

    def looked_at(self) -> dict[str, Any]:
        """Measure losses, and count the parameters of what was written, which are all exact."""
        counts = ("num_parameters", "exact_parameters") if self.num_written else ()
        spread = self.units[2].tolist() if self.units and self.teacher.gives == "numbers" else []
        alone = spread[0] if len(spread) == 1 else None
        found = {**super().looked_at(), "rows": self.origin, "spread": alone}
        return {**found, **dict.fromkeys(counts, self.num_written)}

    def save(self) -> str:
        """Write layers one behind the other as a classifier of ours, in the units of the model."""
        if self.units is None:
            return super().save()
        blocks = [cast(BilinearMLP, self.student.at(site)) for site in self.teacher.sites]
        mean, scale, spread = self.units
        layers = [plain_weights(block) for block in blocks]
        layers = in_units(layers, -mean / scale, 1 / scale, 1 / spread)
        source = self.source
        made = {"converted_from": source.source, "weights_sha256": source.weights_sha256}
        made[FITTED_KEY] = self.seen
        made |= {key: text for key, text in source.provenance.items() if key == PIXELS}
        said = {name: getattr(source, name) for name in OPTIONAL}
        if self.teacher.gives == "numbers":
            if source.head is not None:
                made["head"] = source.head  # the exponential of a Poisson regressor, or sigmoids
            try:
                reads = interface_of(source)  # classes of several, as far as anything says
            except UsageError:
                made["gives"] = "numbers"
            else:
                if reads.link and source.output_names is None:
                    said["output_names"] = (LOG_OF_MEAN,)
                made |= {"task": reads.task, "ends": reads.ends}  # or nothing here would say it
        made_of_them = classifier_of_layers(cast(list[GLUWeights], layers)).float()
        self.num_written = sum(one.numel() for one in made_of_them.parameters())
        save(made_of_them, self.folder, overwrite=True, provenance=made, **said)
        return "bl.load"
