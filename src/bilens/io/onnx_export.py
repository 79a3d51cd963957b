"""ONNX files of bilens: a bilinear model as matrix products, sums and products alone."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilens.base.errors import CheckpointError, UsageError, optional_package
from bilens.base.files import parse_object
from bilens.base.memory import readable
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_config import OPTIONAL, ModelConfig, config_of, parse_config
from bilens.io.model_folder import INPUTS, check_description, parse_provenance
from bilens.nn import BilinearClassifier, BilinearLayer, BilinearMLP

CONFIG_KEY = "bilens_config"  # in the metadata of a file, beside the provenance
OPSET, IR_VERSION = 14, 8  # old ones, for old runtimes
LARGEST_FILE = 2**31 - 2**20  # protobuf holds less than 2 GiB
WRITTEN = BilinearClassifier, BilinearMLP, BilinearLayer
TYPES = {torch.float32: 1, torch.float64: 11}  # onnx's numbers of them


def onnx_bytes(model: LoadedModel) -> bytes:
    """Return a bilinear classifier, MLP or map of a table as the bytes of an ONNX file.

    The graph has MatMul, Add and Mul alone, in the type of the weights (float32 or float64), from
    `input` (rows, inputs) to `output` (rows, outputs): logits, or the numbers of a regression.
    Names, units and shape of inputs and the provenance stand in its metadata, where `bl.load`
    finds them.

    Raises: UsageError if the model is no such module, is gated, too large or of another type.
    """
    module = model.module_for("a conversion to ONNX")
    if type(module) not in WRITTEN:
        raise UsageError(
            f"{model.source} is a {type(module).__name__}; ONNX files are written of "
            f"{', '.join(one.__name__ for one in WRITTEN)}: classifiers, MLPs and maps of tables."
        )
    config, dtype = config_of(module), next(module.parameters()).dtype
    if (gate := config.arguments["gate"]) is not None:
        raise UsageError(
            f"{model.source} has the gate {gate!r}, and products and sums alone are written: make "
            "it bilinear first, with bilens convert --to bilinear."
        )
    if dtype not in TYPES:
        raise UsageError(
            f"{model.source} is in {dtype}; an ONNX file is written of float32 or float64: save "
            "module.float() first."
        )
    size = sum(one.numel() * one.element_size() for one in module.parameters())
    if size > LARGEST_FILE:
        raise UsageError(
            f"{model.source} has {readable(size)} of weights; an ONNX file holds less than 2 GiB."
        )
    onnx = optional_package("onnx", "onnx", "writing an ONNX file")
    helper, writer = onnx.helper, GraphWriter(onnx, module.state_dict())
    writer.write(module, "input", "output")
    ends = [
        [helper.make_tensor_value_info(name, TYPES[dtype], ["rows", width])]
        for name, width in zip(("input", "output"), widths(config), strict=True)
    ]
    graph = helper.make_graph(writer.nodes, config.class_name, *ends, writer.weights)
    versions = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(
        graph, opset_imports=versions, ir_version=IR_VERSION, producer_name="bilens"
    )
    said = replace(config, **{name: getattr(model, name) for name in OPTIONAL})
    provenance = json.dumps({**model.provenance, "weights_sha256": model.weights_sha256})
    helper.set_model_props(made, {CONFIG_KEY: said.to_json(), "provenance": provenance})
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def widths(config: ModelConfig) -> tuple[int, int]:
    """Return how many numbers a module reads and gives."""
    sizes = config.arguments
    return next(sizes[key] for key in INPUTS if key in sizes), sizes["d_output"]


def with_what_it_says(path: Path, model: Any, found: LoadedModel) -> LoadedModel:
    """Add names, units, shape and provenance to what was read of an ONNX file of bilens.

    Only where its layers are the whole model, of the sizes that its metadata say.
    """
    metadata = {one.key: one.value for one in model.metadata_props}
    if CONFIG_KEY not in metadata or not found.network:
        return found
    try:
        config = parse_config(path, parse_object(metadata[CONFIG_KEY].encode()))
        if widths(config) != (found.network[0].sizes.d_in, found.network[-1].sizes.d_out):
            raise UsageError("the sizes in its metadata are not those of its weights.")
        check_description(config)
    except (UsageError, ValueError, StopIteration, KeyError) as error:
        raise CheckpointError(f"{path}: {error}: write the file again.") from error
    provenance = {**parse_provenance(path, metadata), **found.provenance}
    said = {name: getattr(config, name) for name in OPTIONAL}
    return replace(found, provenance=provenance, **said)


class GraphWriter:
    """The nodes and weights of a graph in the making; weights keep the names of the module."""

    def __init__(self, onnx: Any, state: Mapping[str, Tensor]) -> None:
        self.onnx, self.state = onnx, state
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def call(self, kind: str, given: list[str], made: str) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, given, [made], name=made))
        return made

    def stored(self, name: str) -> str:
        """Keep a weight, a matrix as MatMul takes it: (in, out)."""
        array = self.state[name].detach().cpu().t().contiguous().numpy()
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def linear(self, name: str, x: str, end: str = "") -> str:
        """Write a linear map of the module; `end` is the name of its output."""
        end, bias = end or f"{name}.output", f"{name}.bias"
        if bias not in self.state:
            return self.call("MatMul", [x, self.stored(f"{name}.weight")], end)
        product = self.call("MatMul", [x, self.stored(f"{name}.weight")], f"{name}.product")
        return self.call("Add", [product, self.stored(bias)], end)

    def product(self, prefix: str, x: str, end: str) -> str:
        """Write (left x) ∘ (right x) of the layer whose weights begin with `prefix`."""
        factors = [self.linear(f"{prefix}{side}", x) for side in ("left", "right")]
        return self.call("Mul", factors, end)

    def write(self, module: nn.Module, x: str, end: str) -> None:
        """Write the whole module from the value `x` to the value `end`."""
        if isinstance(module, BilinearClassifier):
            h = self.linear("embed", x)
            for index in range(len(module.layers)):
                prefix, before = f"layers.{index}.", h
                h = self.product(prefix, h, f"{prefix}products")
                if module.residual:
                    h = self.call("Add", [h, before], f"{prefix}stream")
            self.linear("head", h, end)
        elif isinstance(module, BilinearMLP):
            made = self.product("", x, "products")
            if module.skip is None:
                self.linear("down", made, end)
            else:
                self.call("Add", [self.linear("down", made), self.linear("skip", x)], end)
        else:
            self.product("", x, end)
