"""Files of Keras: the dense layers of a model, by its configuration; no code in it is run."""

import json
import operator
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import CheckpointError, NoLayersError, optional_package
from bilens.base.files import file_sha256
from bilens.base.memory import check_memory
from bilens.io.contents import TRAINING_GROUPS
from bilens.io.formats.graph_model import Operations, reading
from bilens.io.formats.keras_run import is_ready, load_keras, open_keras
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.stored_mlp import Store, StoredTensor, stored_array
from bilens.nn.mlp_search.observation import check_layers

WEIGHTS_ALONE = (".h5", ".hdf5")
SOURCE = "torch's functions on the tensors, as the configuration says"
SAVE_AGAIN = "save it with Keras 3, model.save('model.keras'), or convert it to ONNX."
ALIKE = ("relu", "gelu", "silu", "tanh", "sigmoid")  # in Keras and in torch
ACTIVATIONS: dict[str, tuple[Any, ...]] = {name: (getattr(functional, name),) for name in ALIKE}
ACTIVATIONS |= {"swish": (functional.silu,), "softmax": (torch.softmax, -1)}
ACTIVATIONS |= {"leaky_relu": (functional.leaky_relu, 0.2)}
PASSED = ("InputLayer", "Dropout", "GaussianNoise", "GaussianDropout", "Identity")
NESTED = ("Sequential", "Functional")
MERGES = {"Add": operator.add, "Multiply": operator.mul}
CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")
# What Keras is let build: the layers that are read, and parts that are numbers alone.
LAYERS = {*PASSED, *NESTED, *MERGES, *CONVOLUTIONS, "Flatten", "Activation", "Softmax", "ReLU"}
LAYERS |= {"LeakyReLU", "Dense", "Normalization", "BatchNormalization", "Rescaling", "DTypePolicy"}
LAYERS |= {f"{kind}{n}D" for kind in ("MaxPooling", "AveragePooling") for n in (1, 2, 3)}
LAYERS |= {"GlobalAveragePooling1D", "GlobalAveragePooling2D", "ZeroPadding2D", "UpSampling2D"}
LAYERS |= {"Concatenate", "LayerNormalization", "DepthwiseConv2D", "Reshape", "Permute"}
HOMES = ("keras", "keras.layers", "keras.src.models.functional", "keras.src.models.sequential")
PARTS = ("keras.initializers", "keras.regularizers", "keras.constraints")
NUMBERS = ("float16", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")
DTYPES = {name: getattr(torch, name) for name in NUMBERS}  # of inputs, else float32
TENSOR = "__keras_tensor__"  # a value, in place of a class
NOT_RUN = (
    "Keras ran no whole model to compare with: it is not installed with a backend, or the layers "
    "are not all that the file computes"
)


def read_keras(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the MLPs of a `.keras` file, an archive of a configuration and weights."""
    options.refuse_residual(path, "is a file of Keras, which says what is added where")
    kind = "Sequential or Functional model of Keras 3"
    with reading(path, kind), zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        check_memory(4 * size, f"{path}", "load a smaller file")
        config, weights = map(archive.read, ("config.json", "model.weights.h5"))
        reader = KerasReader(Operations(path, kind, read_hdf5(path, weights)))
        content = json.loads(config)
        ends = reader.model(content["config"])
        check = partial(check_layers, reader.to.root, reader.to.graph, source=SOURCE)
        owner = partial(predict, path, content)
        run = partial(open_keras, path, is_inert({**content, "compile_config": None}))
        given = ends, file_sha256(path), check, owner, (NOT_RUN,)
        return reader.to.loaded(*given, where=reader.name_of, runner=run)


def predict(path: Path, content: Any, x: Tensor) -> tuple[str, Tensor] | str:
    """Run a file in Keras itself; say so where it is not installed or cannot."""
    if not is_ready() or not is_inert({**content, "compile_config": None}):
        return NOT_RUN
    with suppress(Exception), warnings.catch_warnings():  # of another version, or no rows
        warnings.simplefilter("ignore")  # Keras' own
        model = load_keras(path)
        rows = x.numpy().reshape(len(x), *model.input_shape[1:])
        made = np.array(model.predict(rows, verbose=0))
        if "float16" in json.dumps(content):  # inside, where it may not be seen from outside
            made = made.astype(np.float16)
        return "Keras' own predict", torch.from_numpy(made).reshape(len(x), -1)
    return NOT_RUN


def is_inert(content: Any) -> bool:
    """Tell whether a configuration names no class or function but those known to be harmless.

    Keras imports what a configuration names, and calls it.
    """
    if isinstance(content, list):
        return all(map(is_inert, content))
    if not isinstance(content, dict):
        return True
    module, name = content.get("module"), content.get("class_name", TENSOR)
    known = name in LAYERS if module in HOMES else module in PARTS and name != "function"
    if (name != TENSOR and not known) or content.get("registered_name") not in (None, name):
        return False
    return all(map(is_inert, content.values()))


def refuse_saved_model(path: Path, _: ReadOptions) -> LoadedModel:
    raise NoLayersError(
        f"{path}: is a SavedModel of TensorFlow, whose graph is not read: {SAVE_AGAIN}"
    )


KERAS = Format("Keras", lambda path: path.suffix == ".keras", read_keras)
SAVED_MODEL = Format("SavedModel", lambda p: (p / "saved_model.pb").exists(), refuse_saved_model)


# ---- weights


def read_hdf5(path: Path, content: bytes | None = None, any_kind: bool = False) -> Store:
    """Return the tensors of weights, all in memory; `content` is that of a file inside another.

    `any_kind` takes whole models of before Keras 3, too.
    """
    h5py = optional_package("h5py", "keras", "reading a file of Keras")
    file = path if content is None else BytesIO(content)
    with reading(path, "HDF5 file"), h5py.File(file, "r") as opened:
        if "model_weights" in opened and not any_kind:
            raise NoLayersError(f"{path}: is a model in the format before Keras 3: {SAVE_AGAIN}")
        return dict(tensors_in(path, opened, ""))


def tensors_in(path: Path, group: Any, prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors below a group; links to other files and places are refused."""
    for name in group:
        full, kind = f"{prefix}{name}", type(group.get(name, getlink=True)).__name__
        one = group[name] if kind == "HardLink" else None
        if group.name == "/" and name in TRAINING_GROUPS and hasattr(one, "keys"):
            continue
        if one is None or getattr(one, "external", None):
            raise CheckpointError(f"{path}: {full!r} leads out of the file: save the model again.")
        if hasattr(one, "keys"):
            home = "" if one.name == "/model_weights" else f"{full}/"
            yield from tensors_in(path, one, home)
        elif hasattr(one, "dtype"):
            check_memory(16 * prod(one.shape), f"{path}", "load a smaller file")
            found = stored_array(path, full, one[()])
            is_counter = one.ndim < 2 and not found.dtype.is_floating_point
            yield full, replace(found, is_weight=found.is_weight and not is_counter)


# ---- the configuration


@dataclass(eq=False)
class KerasReader:
    """Writes the layers of a configuration as operations of torch."""

    to: Operations
    named: dict[Any, str] = field(default_factory=dict)  # value → the layer that gives it

    def model(self, config: Mapping[str, Any], given: Sequence[Any] = (), home: str = "") -> Any:
        """Return the output of a Sequential or a Functional model, perhaps inside another."""
        is_chain, value = "output_layers" not in config, given[0] if given else None
        outer, met = given if not is_chain else (), Counter[str]()
        ends = histories(config.get("input_layers") if outer else None)
        values: dict[tuple[str, int], Any] = dict(zip(ends, outer, strict=True))
        for layer in config["layers"]:
            kind, name = in_snake_case(layer["class_name"]), layer["config"]["name"]
            place = f"{home}layers/{kind}_{met[kind]}/" if met[kind] else f"{home}layers/{kind}/"
            met[kind] += 1
            if (name, 0) in values:  # what the model around it gives
                continue
            for number, node in enumerate(layer.get("inbound_nodes") or [None]):
                read = [values.get(one) or self.to.unknown("later") for one in histories(node)]
                given = [value] if is_chain and value is not None else read
                if not given:  # an input alone reads nothing
                    begins = is_chain or layer["class_name"] == "InputLayer"
                    given = [self.begun(layer["config"]) if begins else self.to.unknown("input")]
                value = self.applied(layer, place, given)
                values[name, number] = value
                if not home and number == 0:  # inside another model it is no output of this one
                    self.named.setdefault(value, name)
        made = [value] if is_chain else [values[one] for one in histories(config["output_layers"])]
        return made[0] if len(made) == 1 else made

    def name_of(self, value: Any) -> str:
        """Return the layer that gives a value; empty for none."""
        return self.named.get(value, "")

    def begun(self, said: Mapping[str, Any]) -> Any:
        """Return the input of a model, and keep what its configuration says of it."""
        _, *sides = said.get("batch_shape") or [None]
        self.to.shape = tuple(sides) if {*map(type, sides)} == {int} else ()
        self.to.dtype = DTYPES.get(str(said.get("dtype")), torch.float32)
        return self.to.graph.placeholder("x")

    def applied(self, layer: Mapping[str, Any], place: str, given: list[Any]) -> Any:
        """Return the output of a layer from its inputs; taken as it comes where it is not read."""
        kind, said, x = layer["class_name"], layer["config"], given[0]
        held = self.to.tensors.items()
        names = sorted(name for name, one in held if name.startswith(place) and one.is_weight)
        in_order = not isinstance(said.get("input_layers"), dict)
        if kind in NESTED and f"{layer.get('module')}.".startswith("keras.") and in_order:
            return self.model(said, given, place)
        if layer.get("module") != "keras.layers" or said.get("lora_rank"):
            kind = f"own {kind}"
        if kind in PASSED:
            return x
        if kind in MERGES:
            return reduce(lambda y, one: self.to.call(MERGES[kind], y, one), given)
        if kind == "Flatten":
            return self.to.call(torch.flatten, x, 1)
        if kind in ("Activation", "Softmax"):
            over_classes = said.get("axis", -1) in (-1, [-1])
            return self.activated(x, said.get("activation", "softmax" if over_classes else kind))
        bent = said.get("max_value") is not None or said.get("threshold")
        if kind in ("ReLU", "LeakyReLU") and not bent:
            return self.to.call(functional.leaky_relu, x, float(said["negative_slope"]))
        if kind == "Dense" and len(names) == 1 + said["use_bias"]:
            if self.to.tensors[names[0]].shape[1:] != (said["units"],):
                raise ValueError(f"{names[0]} is not of {said['units']} units")
            y = self.to.call(torch.matmul, x, self.to.weight(names[0]))
            for bias in names[1:]:
                y = self.to.call(operator.add, y, self.to.weight(bias))
            return self.activated(y, said["activation"])
        is_conv = kind in CONVOLUTIONS and len(names) == 1 + said["use_bias"]
        if is_conv and (y := self.convolved(x, said, names)) is not None:
            return self.activated(y, said["activation"])
        if kind == "Normalization" and names and said["axis"] == [-1] and not said["invert"]:
            kind = "BatchNormalization"  # Keras divides by √v, and by no less than 1e-7
            said = {"axis": -1, "scale": False, "epsilon": 0.0, "least": 1e-14}
        if kind == "BatchNormalization" and said["axis"] == -1:
            least = said.get("least", 0.0)
            *both, mean = map(self.to.weight, names[:-1])
            variance = self.to.weight(names[-1], lambda v: v.clamp(min=least))
            gain = both.pop(0) if said["scale"] else None
            parts = mean, variance, gain, both[0] if both else None, False, 0.0
            return self.to.call(functional.batch_norm, x, *parts, said["epsilon"])
        if kind == "Rescaling" and {*map(type, (said["scale"], said["offset"]))} <= {int, float}:
            return self.to.call(
                operator.add, self.to.call(operator.mul, x, said["scale"]), said["offset"]
            )
        return self.to.unknown(kind, *given)

    def convolved(self, x: Any, said: Mapping[str, Any], names: list[str]) -> Any:
        """Return a convolution, channels first as torch has them; None where it is another one."""
        steps, apart = said["strides"], said["dilation_rate"]
        around = [d * (k - 1) for d, k in zip(apart, said["kernel_size"], strict=True)]
        same = said["padding"] == "same" and {*steps} == {1} and not any(n % 2 for n in around)
        if said["data_format"] != "channels_last" or not (same or said["padding"] == "valid"):
            return None
        kernel = self.to.weight(names[0], lambda t: t.movedim((-1, -2), (0, 1)))
        bias = self.to.weight(names[1]) if names[1:] else None
        sizes = steps, [n // 2 * same for n in around], apart
        return self.to.convolution(x, kernel, bias, *sizes, said["groups"])

    def activated(self, x: Any, name: object) -> Any:
        """Return an activation of Keras; one that is not known is taken as it comes."""
        if name in (None, "linear"):
            return x
        if (known := ACTIVATIONS.get(str(name))) is None:
            return self.to.unknown(f"{name}"[:40], x)
        return self.to.call(known[0], x, *known[1:])


def in_snake_case(kind: str) -> str:
    """Return the name that Keras gives the weights of layers of a class, which it counts."""
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()


def histories(node: object) -> Iterator[tuple[str, int]]:
    """Yield the layers, and which call of each, that a call reads, in order."""
    known = [str, int, int], [str, int, int, dict]  # the second is of Keras 2
    if isinstance(node, list) and [*map(type, node)] in known:
        yield node[0], node[1]
    elif isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from histories(part)
