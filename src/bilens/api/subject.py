"""The one way into a model: whatever a job is given is opened here, and compared as it is now."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilens.base.errors import UsageError
from bilens.io.estimator import from_sklearn
from bilens.io.load import from_module
from bilens.io.loaded_model import CHANGED, LoadedModel, is_of_numbers
from bilens.io.stored_mlp import module_tensors
from bilens.nn import BilinearClassifier
from bilens.nn.agreement import Agreement
from bilens.nn.mlp_search.compare_run import compare_rows
from bilens.nn.module_layers import Module, check_runs_as_read
from bilens.nn.real_run import what_may_differ
from bilens.train.randomness import drawn_rows

MOST_COMPARED = 10_000  # rows of data that the model itself is run on
AT_ONCE = 1_000  # so that what is between its layers fits


def open_classifier(given: object, reader: str) -> LoadedModel:
    """Return a model whose classes a job is about; refuse one whose outputs are none."""
    model = open_subject(given, reader, on_cpu=True)
    module = model.module_for(reader)
    outputs = module.head.out_features if isinstance(module, BilinearClassifier) else 1
    if outputs > 1 and is_of_numbers(model, outputs):
        raise UsageError(
            f"{reader} is about the class that a model answers with, and the outputs of "
            f"{model.source} are no classes: numbers, or yes-no answers, each of its own. "
            f"`bilens decompose {model.source}` reads each of them."
        )
    return model


def open_subject(
    given: object, reader: str, *, on_cpu: bool = False, bare: bool = False
) -> LoadedModel:
    """Return a model as a job reads it, compared with the object that the caller has.

    Whatever is called exact rests on this: the module itself runs, hooks and all, as it is now,
    whatever was read of it before.

    Args:
        given: what `bl.load` returned, a module of PyTorch or a fitted estimator.
        reader: the job, in words: "an audit".
        on_cpu: whether a module of ours that is elsewhere is read as a copy on the CPU.
        bare: whether a module without an MLP will do, for its tensors.

    Raises: UsageError if it is none of these, or holds nothing that can be read; NumericalError if
        what is read is another function than the module; NonFiniteError if a weight of a classifier
        is NaN or infinite.
    """
    if isinstance(given, str | Path):
        raise UsageError(
            f"{reader} reads a model, got the path {str(given)!r}: pass bl.load({str(given)!r})."
        )
    if isinstance(given, LoadedModel):
        model = as_it_is_now(given)
    elif isinstance(given, Module):
        model = LoadedModel(given, "", "")
    elif isinstance(given, nn.Module) or hasattr(given, "_module"):  # of nnsight
        module: Any = copy_on_cpu(given) if on_cpu else given
        with suppress(*[UsageError] if bare else []):
            return replace(from_module(module), module_sha256="")  # hashed once for a job
        return LoadedModel(None, "", "", stored=module_tensors(module), original=module)
    elif hasattr(given, "get_params"):
        model = from_sklearn(given)
    else:
        raise UsageError(
            f"{reader} reads a model, got a {type(given).__name__}: pass what bl.load returned, a "
            "torch.nn.Module, a fitted estimator of bl.sklearn, or a fitted MLP of scikit-learn."
        )
    if on_cpu and model.module is not None:
        model = replace(model, module=copy_on_cpu(model.module))
    check_runs_as_read(model.module)
    return model


def as_it_is_now(model: LoadedModel) -> LoadedModel:
    """Return a model whose module is in memory as that module is now, and not as it was read.

    A module that was given is read and compared again. One that was loaded, and of which weights
    or fields were changed since, is no longer what its files hold: it has no file.
    """
    if model.reread is not None:
        now = model.reread()
        return replace(
            model,
            read_sha256=now.read_sha256,
            views={name: view for name, view in now.views.items() if name in model.views},
            stored=now.stored,
            load_report=now.load_report,
            module_sha256="",
        )
    if model.is_as_read:
        return replace(model, module_sha256="")  # a job asks for it often: it is hashed once
    return replace(
        model,
        source=f"the {type(model.module or model).__name__} in memory",
        read_sha256=model.weights_sha256,
        provenance={**model.provenance, CHANGED: model.source},
        stored={} if model.module is not None else model.stored,
        files=(),
        folder="",
        compare=None,
        alone=None,
        module_sha256="",
    )


def check_on_rows(model: LoadedModel, x: Tensor | None, numbers: Sequence[int] = ()) -> None:
    """Refuse rows to which the model that the caller has answers otherwise than its layers do.

    All rows, or of many those drawn with the seed 0 and the extremes of each column. Rows that do
    not fit the model are left to whoever reads them.
    """
    module, views = model.module or model.original, model.network
    if x is None or not views or (module is None and model.compare_rows is None):
        return
    if x.shape[1:] != (views[0].sizes.d_in,) or not bool(x.isfinite().all()):
        return
    x, rows = x.detach().cpu().double(), torch.arange(len(x))
    if len(x) > MOST_COMPARED:
        drawn = drawn_rows(len(x), MOST_COMPARED)
        rows = torch.unique(torch.cat([drawn, x.argmin(dim=0), x.argmax(dim=0)]))
    rows = rows[x[rows].norm(dim=1).argsort()]  # large ones do not hide the errors of small ones
    why = "" if module is None else what_may_differ(module)
    found: Agreement | str | None = None
    if module is not None:
        layers = [view.weights(torch.float64) for view in views]
        head = None if model.load_report is None else model.load_report.head
        found = compare_rows(module, layers, head, x[rows], AT_ONCE)
    elif model.compare_rows is not None:
        found = model.compare_rows(x[rows])
    if isinstance(found, str) and model.module is None and model.reported is None:
        return  # it could not be run at all, and is said to be unverified
    if isinstance(found, str):
        name = model.source if module is None else f"the {type(module).__name__}"
        raise UsageError(f"the data: {name} cannot be compared: {found}.")
    if found is not None and not found.passed:
        row = int(rows[found.row])
        row = numbers[row] if numbers else row
        found.required(because=f" on row {row} of the data{why}")


def copy_on_cpu(module: Any) -> Any:
    """Return a module, or a copy of it on the CPU if a parameter is elsewhere."""
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    if all(one.device.type == "cpu" for one in parameters):
        return module
    return copy.deepcopy(module).cpu()


def is_one_exact_layer(model: LoadedModel) -> bool:
    """Tell whether a model is a classifier of one bilinear layer, which is read class by class."""
    module = model.module
    if not isinstance(module, BilinearClassifier) or is_of_numbers(model, module.head.out_features):
        return False  # outputs that are no classes have no mean that could be left out
    return len(module.layers) == 1 and getattr(module.layers[0], "gate", None) is None


def is_of_columns(model: LoadedModel) -> bool:
    """Tell whether a model is one exact layer that names its inputs, as that of a table does."""
    return model.input_names is not None and is_one_exact_layer(model)
