"""Running a file of Keras on given inputs, where Keras is installed, up to what layers read."""

import os
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import UsageError, first_line
from bilens.data.sample_files import Call, ModelInput
from bilens.io.runner import LayerEntry, Runner, does_not_run


def is_ready() -> bool:
    """Tell whether Keras is there with a backend; TensorFlow is its usual one."""
    known = "keras" in sys.modules or "KERAS_BACKEND" in os.environ
    return bool(known or find_spec("tensorflow"))


def load_keras(path: Path) -> Any:
    """Return a model of Keras, of a file that names no code of its own."""
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras' own
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def open_keras(path: Path, inert: bool, entries: Mapping[str, LayerEntry]) -> Runner:
    """Return a file as what runs: a model of the same layers that ends at what is read."""
    if not is_ready() or not inert:
        what = (
            "it has parts that may be code of its own"
            if is_ready()
            else "Keras is not here with a backend"
        )
        raise UsageError(
            f"{path}: is not run on data: {what}. Install keras and set KERAS_BACKEND=torch, or "
            "convert the model to ONNX."
        )
    try:
        import keras

        model = load_keras(path)
        given = {one.name for one in model.inputs}
        ends = {one.location for one in entries.values()} - given
        inner = keras.Model(model.inputs, {name: model.get_layer(name).output for name in ends})
    except Exception as error:  # whatever another version says of it
        raise UsageError(f"{path}: Keras does not run it ({first_line(error)[:200]}).") from error
    ports = tuple(
        ModelInput(one.name, tuple(side or 0 for side in one.shape), str(one.dtype))
        for one in model.inputs
    )
    run = partial(run_keras, path, inner, entries)
    return Runner(ports, run, f"Keras {keras.__version__}")


def run_keras(
    path: Path, model: Any, entries: Mapping[str, LayerEntry], call: Call
) -> dict[str, Tensor]:
    """Run a model and return what layers read, channels first where they read patches."""
    import keras

    try:
        made = model([call[one.name] for one in model.inputs], training=False)
    except Exception as error:  # whatever Keras says of a shape that does not fit
        raise does_not_run(f"{path}", call, error) from error
    values = dict(call) | {name: keras.ops.convert_to_numpy(one) for name, one in made.items()}
    found: dict[str, Tensor] = {}
    for name, entry in entries.items():
        value = torch.from_numpy(np.array(values[entry.location]))
        found[name] = value if entry.patch is None else value.movedim(-1, 1)
    return found
