"""ONNX files: the MLPs in their graph, each compared with what onnx's own evaluator computes."""

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import Node
from torch.nn import functional

from bilens.base.files import file_sha256
from bilens.base.memory import check_memory
from bilens.io.formats.graph_model import Operations, reading
from bilens.io.formats.onnx_bodies import TURN
from bilens.io.formats.onnx_run import open_onnx, open_session
from bilens.io.formats.onnx_tensors import DOUBLE, DTYPES, open_graph, package, stored_tensors
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.onnx_export import with_what_it_says
from bilens.nn.agreement import Agreement
from bilens.nn.mlp_search.expression import FoundLayer
from bilens.nn.mlp_search.observation import compared

# The first version that onnx's evaluator has of what means the same in earlier ones.
SINCE = {"BatchNormalization": 14, "DequantizeLinear": 19}
PASSED = ("Identity", "Dropout")
NO_LIMIT = 3e38  # of a clamp: the largest number of float32 says that there is none
FLOATING = {1, 10, 11, 16}  # onnx's numbers of types; casts between them are passed
WHOLE = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64}
WHOLE |= {4: torch.uint16, 12: torch.uint32, 9: torch.bool}
READ = DTYPES | WHOLE | {16: torch.bfloat16}  # types of inputs
SAME = ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Abs", "Sqrt", "Pow", "MatMul", "Clip")
FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(torch, name.lower()) for name in SAME}
FUNCTIONS |= {"Add": operator.add, "Sub": operator.sub}
FUNCTIONS |= {"Mul": operator.mul, "Div": operator.truediv}


def read_onnx(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the MLPs of an ONNX file; no operation of it is run that is not also read."""
    options.refuse_residual(path, "is an ONNX file, which says what is added where")
    kind = "ONNX file"
    model, bodies, files = open_graph(path)
    with reading(path, kind):
        if codes := dequantised(path, model):
            kind = f"ONNX file, {len(codes)} matrices of it dequantised"
        tensors = dict(stored_tensors(path, model.graph))
        for name, (code, parts) in codes.items():
            tensors[name] = replace(tensors[name], quantised_as=code, made_of=parts)
        graph = OnnxGraph(model, Operations(path, kind, tensors))
        owner, when = partial(outputs_of, path), partial(graph.when_run, bodies)
        where, run = graph.called.__getitem__, partial(open_onnx, path)
        found = graph.to.loaded(
            graph.ends,
            file_sha256(*files),
            graph.compare,
            owner,
            when=when,
            where=where,
            runner=run,
        )
        return with_what_it_says(path, model, replace(found, files=tuple(files)))


ONNX = Format("ONNX", lambda path: path.suffix == ".onnx", read_onnx)


def dequantised(path: Path, model: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Put packed weights as DequantizeLinear makes them in their place.

    Returns:
        Name → type of their codes, and the tensors that are in them.
    """
    graph, found = model.graph, dict[str, tuple[str, tuple[str, ...]]]()
    stored = {proto.name: proto for proto in graph.initializer}
    users = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        name, *numbers = filter(None, node.input) if node.input else [""]
        plain = node.op_type == "DequantizeLinear" and {name, *numbers} <= {*stored}
        if not plain or users[name] > 1:
            continue
        packed = stored[name]
        check_memory(16 * prod(packed.dims), f"{path}: {name}", "load a smaller file")
        made = run_nodes(
            model, [node], [stored[one] for one in (name, *numbers)], {}, node.output[0]
        )
        kind = package().TensorProto.DataType.Name(packed.data_type).lower()
        packed.CopyFrom(package().numpy_helper.from_array(made.astype("f4"), name))
        users.subtract(numbers)
        node.op_type = "Identity"
        if packed.dims:
            found[name] = kind, tuple(numbers)
        del node.input[1:], node.attribute[:]
        for one in numbers:
            if not users[one]:
                graph.initializer.remove(stored[one])
    return found


def version_of(model: Any) -> int:
    """Return the version of the operations of a model."""
    return max(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))


def run_nodes(
    model: Any, nodes: list[Any], weights: list[Any], given: dict[str, Any], end: str
) -> Any:
    """Run some nodes of a model in onnx's reference evaluator; return the value called `end`."""
    helper, versions = package().helper, model.opset_import
    ends = [[helper.make_tensor_value_info(n, DOUBLE, None) for n in p] for p in (given, [end])]
    first = max((SINCE.get(node.op_type, 0) for node in nodes), default=0)
    if first > version_of(model):
        versions = [helper.make_opsetid("", first)]
    graph = helper.make_graph(nodes, "part", *ends, weights)
    part = helper.make_model(graph, opset_imports=versions)
    (made,) = package().reference.ReferenceEvaluator(part).run(None, given)
    return np.asarray(made)


def outputs_of(path: Path, x: Tensor) -> tuple[str, Tensor] | str:
    """Run the file as it stands on x; say why where nothing here runs it as a whole."""
    try:
        model = package().load(str(path))
        (given,) = inputs_in(model.graph)
        if given.type.tensor_type.elem_type not in READ:
            raise TypeError("it reads no numbers that torch has")
        shape, array = sides_of(given), x.numpy()
        source, run = runner_of(path, model)
        # as many rows at a time as the file says, the last ones made up by the first
        step = (shape[:1] or [0])[0] or len(array)
        padded = np.concatenate([array, array[: -len(array) % step]])
        parts = np.split(padded, len(padded) // step)
        sizes = shape[1:] if shape and all(shape[1:]) else [-1]
        sized = [one.reshape(len(one), *sizes) for one in parts]
        with np.errstate(all="ignore"):  # it may overflow
            made = np.concatenate([run({given.name: one}).reshape(len(one), -1) for one in sized])
        return source, torch.from_numpy(made[: len(array)])
    except Exception as error:  # a runtime may lack an operation, a version or a type
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return f"no runtime here ran the whole file, to compare it with what was read ({why})"


def inputs_in(graph: Any) -> list[Any]:
    """Return the inputs of a graph that are no weights stored in it."""
    stored = {proto.name for proto in graph.initializer}
    return [one for one in graph.input if one.name not in stored]


def sides_of(given: Any) -> list[int]:
    """Return the shape of an input, 0 where it is open."""
    return [dim.dim_value for dim in given.type.tensor_type.shape.dim]


def runner_of(path: Path, model: Any) -> tuple[str, Callable[[Any], Any]]:
    """Return onnxruntime on the file, or else onnx's own evaluator, each giving its one output."""
    with suppress(Exception):  # it is not installed, or older than an operation of the file
        import onnxruntime

        session = open_session(onnxruntime, str(path))
        return "onnxruntime on the whole file", lambda given: session.run(None, given)[0]
    for one in model.opset_import:  # of version 13 to those, what else there is means the same
        first = max((SINCE.get(node.op_type, 0) for node in model.graph.node), default=0)
        if one.domain in ("", "ai.onnx") and first > one.version >= 13:
            one.version = first
        elif one.domain in ("", "ai.onnx") and first > one.version:
            raise NotImplementedError("the evaluator takes another version of a node")
    evaluator = package().reference.ReferenceEvaluator(model)
    return "onnx's reference evaluator on the whole file", lambda g: evaluator.run(None, g)[0]


@dataclass(eq=False)
class OnnxGraph:
    """The nodes of a graph, written as operations of torch."""

    model: Any
    to: Operations

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.protos = {proto.name: proto for proto in graph.initializer}
        self.values: dict[str, Any] = {"": None}
        self.read: set[str] = set()  # the first outputs of nodes that torch has too
        # value → whole numbers that are known, such as where a slice begins
        self.numbers = {proto.name: proto for proto in graph.initializer}
        known = (*graph.input, *graph.value_info, *graph.output)
        types = {one.name: one.type.tensor_type for one in known}
        self.ranks = {n: len(t.shape.dim) for n, t in types.items() if t.HasField("shape")}
        kinds = {name: t.elem_type for name, t in types.items()}
        self.kinds = kinds | {proto.name: proto.data_type for proto in graph.initializer}
        for given in inputs_in(graph):
            self.values[given.name] = self.to.graph.placeholder("x")
            sides, kind = sides_of(given)[1:], given.type.tensor_type.elem_type
            self.to.shape = tuple(sides) if all(sides) else ()
            self.to.dtype = READ.get(kind, torch.float32)
        for node in graph.node:
            self.add(node)
        self.ends = [self.value(made.name) for made in graph.output]
        # value → the first name that it has, under which a node makes it
        self.called = {value: name for name, value in reversed(self.values.items())}

    def when_run(self, bodies: Mapping[str, str], layer: FoundLayer) -> list[str]:
        """Say when a layer is run that is in the body of an If or of a loop."""
        made = self.called[layer.location]
        return [said for prefix, said in bodies.items() if made.startswith(prefix)]

    def value(self, name: str) -> Any:
        """Return a value of the graph: a node, or a number."""
        if name not in self.values:
            self.values[name] = self.constant(name, self.protos[name])
        return self.values[name]

    def constant(self, name: str, proto: Any) -> Any:
        """Return a tensor of weights, or a number for one without axes."""
        if proto.data_type != DOUBLE:
            return self.to.unknown("Constant")
        helper = package().numpy_helper
        return self.to.weight(name) if proto.dims else float(helper.to_array(proto))

    def add(self, node: Any) -> None:
        """Give the outputs of a node their values."""
        if node.op_type == TURN:
            self.values[node.output[0]] = self.to.graph.placeholder(TURN)
            return
        given, made = [self.value(name) for name in node.input], None
        with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
            said = {one.name: package().helper.get_attribute_value(one) for one in node.attribute}
            made = self.translated(node, said, given) if node.domain in ("", "ai.onnx") else None
        if made is None:  # not read, or not as onnx says that such a node is
            made = self.to.unknown(node.op_type, *given)
        else:
            self.read.add(node.output[0])
        parts = made if isinstance(made, tuple) else (made,) * len(node.output)
        self.values |= dict(zip(node.output, parts, strict=True))

    def translated(self, node: Any, said: dict[str, Any], given: list[Any]) -> Any:
        """Return a node as operations of torch; None for one that is not read."""
        kind, call = node.op_type, self.to.call
        if kind == "Constant":
            self.numbers[node.output[0]] = said.get("value")
            return self.constant(node.output[0], said["value"])
        x, *more = given
        rank = self.ranks.get(node.input[0]) or self.ranks.get(node.output[0], 2)
        last = said.get("axis", -1) in (-1, rank - 1)
        if kind in PASSED:
            return x
        if kind in ("Cast", "CastLike"):  # one to whole numbers or truth values is no identity
            to = said["to"] if kind == "Cast" else self.kinds.get(node.input[1])
            for one in node.attribute if to in FLOATING else ():
                one.i = DOUBLE  # when it is compared with
            return x if to in FLOATING else None
        if kind == "Clip" and (said or (more[1:] and more[1] is not None and more[1] < NO_LIMIT)):
            return None  # far from here it is no ReLU, however large the limit
        if kind in ("Max", "Min") and {type(one) for one in given} == {Node, float}:
            value, limit = (given if isinstance(x, Node) else given[::-1])[:2]
            return call(torch.clamp_min if kind == "Max" else torch.clamp_max, value, limit)
        if kind in FUNCTIONS:
            return call(FUNCTIONS[kind], *given)
        if kind == "Gelu":
            return call(functional.gelu, x, approximate=said.get("approximate", b"none").decode())
        if kind == "LeakyRelu":
            return call(functional.leaky_relu, x, said.get("alpha", 0.01))
        if kind == "Flatten":
            return call(torch.flatten, x, said.get("axis", 1))
        if kind in ("Softmax", "LogSoftmax"):
            if "axis" not in said and version_of(self.model) < 13:  # of all axes behind the first
                last = rank == 2
            function = torch.softmax if kind == "Softmax" else torch.log_softmax
            return call(function, x, -1) if last else None
        if kind == "BatchNormalization" and not said.get("training_mode"):
            gain, shift, mean, variance = more
            numbers = 0.0, said.get("epsilon", 1e-5)
            return call(functional.batch_norm, x, mean, variance, gain, shift, False, *numbers)
        if kind == "Slice":
            starts, stops, axes, steps = (*map(self.numbers_of, node.input[1:]), None, None)[:4]
            along = axes in ([-1], [rank - 1]) and steps in (None, [1])
            plain = along and [*map(len, (starts, stops))] == [1, 1]
            return call(operator.getitem, x, (..., slice(starts[0], stops[0]))) if plain else None
        if kind == "Transpose" and x.op == "get_attr" and said.get("perm") == [1, 0]:
            return call(torch.t, x)
        weight, bias = [*more, None, None][:2]
        plain = (said.get("alpha", 1), said.get("beta", 1), said.get("transA", 0)) == (1, 1, 0)
        if kind == "Gemm" and plain:
            y = call(functional.linear if said.get("transB", 0) else torch.matmul, x, weight)
            return y if bias is None else call(operator.add, y, bias)
        if kind == "Conv" and said.get("auto_pad", b"NOTSET") == b"NOTSET":
            axes = len(said.get("kernel_shape") or self.protos[node.input[1]].dims[2:])
            return self.convolution(said, axes, x, weight, bias)
        if kind == "Split":
            return self.parts_of(node, said, x, last)
        return None

    def convolution(self, said: dict[str, Any], axes: int, x: Any, weight: Any, bias: Any) -> Any:
        """Return a convolution that is padded alike on both sides; None for another."""
        pads = said.get("pads", [0] * 2 * axes)
        if pads[:axes] != pads[axes:]:
            return None
        steps, apart = (said.get(key, [1] * axes) for key in ("strides", "dilations"))
        sizes = steps, pads[:axes], apart, said.get("group", 1)
        return self.to.convolution(x, weight, bias, *sizes)

    def parts_of(self, node: Any, said: dict[str, Any], x: Any, along_last: bool) -> Any:
        """Return the parts that a value is split into; None for other sizes along another axis."""
        call, count = self.to.call, len(node.output)
        sizes = said.get("split") or self.numbers_of((*node.input, "")[1])
        if sizes and len({*sizes}) > 1:
            ends = pairwise(accumulate(sizes, initial=0))
            parts = [call(operator.getitem, x, (..., slice(*part))) for part in ends]
            return tuple(parts) if along_last and "axis" in said else None
        whole = call(torch.chunk, x, count, said.get("axis", 0))
        return tuple(call(operator.getitem, whole, index) for index in range(count))

    def numbers_of(self, name: str) -> Any:
        """Return whole numbers that the file holds; None for others."""
        proto = self.numbers.get(name)
        return None if proto is None else package().numpy_helper.to_array(proto).tolist()

    def compare(self, layers: list[FoundLayer]) -> list[Agreement | str]:
        return [compared(layer, self.run, "onnx's reference evaluator") for layer in layers]

    def run(self, before: object, behind: object, given: Tensor) -> Tensor:
        """Return one value from another one that is given, by onnx's evaluator in float64."""
        start, end = self.called[before], self.called[behind]
        nodes: list[Any] = []
        needed = {end}
        for node in reversed(self.model.graph.node):
            if {*node.output} & needed - {start}:
                if node.output[0] not in self.read:
                    raise LookupError(f"it needs a {node.op_type}")
                nodes.insert(0, node)
                needed |= {*node.input}
        weights = [proto for name, proto in self.protos.items() if name in needed]
        made = run_nodes(self.model, nodes, weights, {start: given.numpy()}, end)
        return torch.from_numpy(made)
