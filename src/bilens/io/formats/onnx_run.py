"""Running an ONNX file on given inputs in onnxruntime, which gives values inside it, too."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import UsageError, first_line, optional_package
from bilens.data.sample_files import Call, ModelInput
from bilens.io.onnx_contents import NUMBERS
from bilens.io.runner import LayerEntry, Runner, does_not_run


def open_onnx(path: Path, entries: Mapping[str, LayerEntry]) -> Runner:
    """Return a file as what runs; the values that layers read are outputs more of its graph.

    Those inside of the graph of a node (If, Loop) or of a function cannot be had.
    """
    onnx = optional_package("onnx", "onnx", "running an ONNX file")
    library = optional_package("onnxruntime", "run", "running an ONNX file on data")
    model = onnx.load(str(path))
    known = {one.name for one in (*model.graph.output, *model.graph.input)}
    there = known.union(*(node.output for node in model.graph.node))
    entries = {name: one for name, one in entries.items() if one.location in there}
    wanted = {entry.location for entry in entries.values()}
    if not entries:
        raise UsageError(
            f"{path}: its layers are in the body of an If, a Loop or a function, whose values "
            "onnxruntime does not give: leave --data out."
        )
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted - known))
    try:
        session = open_session(library, model.SerializeToString())
    except Exception as error:  # whatever onnxruntime says of an operation that it lacks
        raise UsageError(
            f"{path}: onnxruntime {library.__version__} does not run it "
            f"({first_line(error)[:200]}): leave --data out, to read its layers by their weights."
        ) from error
    ports = tuple(map(port_of, session.get_inputs()))
    run = partial(run_session, path, session, entries)
    return Runner(ports, run, f"onnxruntime {library.__version__}")


def open_session(library: Any, model: bytes | str) -> Any:
    """Open a file in onnxruntime, which is to compute each operation in the type of its numbers.

    By itself it would round what is multiplied by packed weights to 8 bits, to be faster.
    """
    options = library.SessionOptions()
    options.log_severity_level = 3  # it would speak of every output more
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return library.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def port_of(given: Any) -> ModelInput:
    kind = given.type.removeprefix("tensor(").removesuffix(")")
    sides = (side if isinstance(side, int) and side > 0 else 0 for side in given.shape)
    return ModelInput(given.name, tuple(sides), NUMBERS.get(kind, kind))


def run_session(
    path: Path, session: Any, entries: Mapping[str, LayerEntry], call: Call
) -> dict[str, Tensor]:
    """Run a file and return the values that layers read."""
    made = sorted({entry.location for entry in entries.values()} - {*call})
    try:
        found = session.run(made, dict(call)) if made else []  # of no names it gives all outputs
        values = dict(call) | dict(zip(made, found, strict=True))
    except Exception as error:  # whatever onnxruntime says of a shape that does not fit
        raise does_not_run(f"{path}", call, error) from error
    return {name: torch.from_numpy(values[one.location]) for name, one in entries.items()}
