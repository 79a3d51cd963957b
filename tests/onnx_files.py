"""ONNX files as people have them: exported by torch, or written node by node."""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def export(module: nn.Module, x: Tensor, path: Path, **options: Any) -> Path:
    """Write a module as torch does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no further package
        torch.onnx.export(module.eval(), (x,), str(path), dynamo=False, **options)
    return path


def write(
    path: Path, nodes: list[tuple[Any, ...]], tensors: dict[str, Any], opset: int = 20, **given: Any
) -> Path:
    """Write a graph from x to y: nodes are (operation, inputs, output, attributes)."""
    from onnx import TensorProto, helper, numpy_helper, save

    made = [
        helper.make_node(kind, inputs.split(), outputs.split(), **(more[0] if more else {}))
        for kind, inputs, outputs, *more in nodes
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    weights = [numpy_helper.from_array(np.asarray(t), name) for name, t in tensors.items()]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path, **given)
    return path


def matrices(*sizes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return w0, b0, w1, … of linear maps (in, out) from size to size."""
    generator = np.random.default_rng(seed)
    found = {}
    for index, (wide, narrow) in enumerate(pairwise(sizes)):
        found[f"w{index}"] = generator.normal(size=(wide, narrow)).astype(np.float32)
        found[f"b{index}"] = generator.normal(size=narrow).astype(np.float32)
    return found
