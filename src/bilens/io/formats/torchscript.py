"""TorchScript archives: the MLPs in their graph, each compared with what TorchScript computes.

The archive is a program with its weights. torch loads it, which may run what is in it, and writes
its calls out in one graph; the operations of that graph are torch's own.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.data.sample_files import Call, ModelInput
from bilens.io.formats.graph_model import Operations, reading
from bilens.io.formats.safetensors_folder import WeightsFile
from bilens.io.loaded_model import LoadedModel
from bilens.io.runner import LayerEntry, Runner, does_not_run
from bilens.nn.agreement import Agreement
from bilens.nn.mlp_search.expression import FoundLayer
from bilens.nn.mlp_search.observation import compared

COPIES = 6  # of the file: as it is, in float64, and the tensors beside
SOURCE = "TorchScript"
# torch's number of a dtype, as casts have it
DTYPES = dict(enumerate((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)))
DTYPES |= {5: torch.float16, 6: torch.float32, 7: torch.float64, 11: torch.bool}
DTYPES[15] = torch.bfloat16


def read_torchscript(path: Path, file: WeightsFile) -> LoadedModel:
    """Return the MLPs of an archive, whose program torch runs."""
    with reading(path, "TorchScript file"):
        check_memory(COPIES * path.stat().st_size, f"{path}", "load a smaller file")
        graph = ScriptGraph(Operations(path, "TorchScript file", file.store), opened(path).double())
        plain = partial(outputs_of, opened(path))
        return graph.to.loaded(
            graph.ends,
            file.sha256,
            graph.compare,
            plain,
            when=graph.when_run,
            where=lambda value: graph.called.get(value, ""),
            runner=partial(open_torchscript, path),
        )


def opened(path: Path) -> Any:
    return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]


def outputs_of(module: Any, x: Tensor) -> tuple[str, Tensor] | str:
    """Run an archive as it stands on x; say why where it gives no rows for rows."""
    try:
        with torch.no_grad():
            made = module(x.float())
        if not isinstance(made, Tensor) or len(made) != len(x):
            return "the archive gives something else than one row each"
        return f"{SOURCE} on the whole file", made.reshape(len(x), -1)
    except Exception as error:  # somebody else's program
        why = f"{type(error).__name__}: {' '.join(str(error).split())[-120:]}"
        return f"the archive does not run on rows, to compare it with what was read ({why})"


def open_torchscript(path: Path, entries: Mapping[str, LayerEntry]) -> Runner:
    """Return an archive as what runs, in float64; it gives values of its graph by their names.

    Those inside of a condition or a loop, or changed in place behind a layer, cannot be had.
    """
    module = opened(path).double()
    names = [one.name for one in module.forward.schema.arguments][1:]
    kernel = next((one for one in module.parameters() if one.ndim in (3, 4, 5)), None)
    shape = None if kernel is None else (0, kernel.shape[1], *(0 for _ in kernel.shape[2:]))
    with reading(path, "TorchScript file"):
        tensors: dict[str, Any] = {}
        graph = ScriptGraph(Operations(path, "TorchScript file", tensors), module)
    kept = {
        name: one
        for name, one in entries.items()
        if one.location not in graph.inside
        and not graph.aliases.has_writers(graph.made[one.location])
    }
    if not kept:
        raise UsageError(
            f"{path}: what its layers read is in a condition or a loop of its program, or changed "
            "in place, and cannot be had: leave --data out."
        )
    try:
        run = graph.run_to([one.location for one in kept.values()])
    except LookupError as error:
        raise UsageError(
            f"{path}: its program keeps a state ({error}): leave --data out."
        ) from error
    whole = graph.reads_tokens()
    ports = tuple(
        ModelInput(name, None if whole else shape, "int64" if whole else "float64")
        for name in names
    )

    def values(call: Call) -> dict[str, Tensor]:
        try:
            with torch.no_grad():
                made = run(*(torch.from_numpy(call[name]) for name in names))
        except Exception as error:  # somebody else's program
            raise does_not_run(f"{path}", call, error) from error
        rows = (one.float() if one.is_floating_point() else one for one in made)
        return dict(zip(kept, rows, strict=True))

    return Runner(ports, values, f"{SOURCE} of torch {torch.__version__}, in float64")


class ScriptGraph:
    """The graph of an archive, written as operations of torch under the names of its weights."""

    def __init__(self, to: Operations, module: Any) -> None:
        self.to = to
        state = module.state_dict(keep_vars=True).items()
        self.names = {(one.data_ptr(), one.shape): name for name, one in state if one.numel()}
        self.script = torch.jit.freeze(module, optimize_numerics=False)
        self.values: dict[str, Any] = {}
        self.made: dict[str, Any] = {}  # name → value of TorchScript
        self.inside: dict[str, str] = {}  # name of a value in a block → when it is made, in words
        graph = self.script.graph
        torch._C._jit_pass_remove_mutation(graph)
        self.aliases = graph.alias_db()  # of what is changed in place all the same
        for given in [*graph.inputs()][1:]:
            self.keep(given, self.to.graph.placeholder("x"))
        self.walk(graph, "")
        self.ends = [self.values[made.debugName()] for made in graph.outputs()]
        self.called = {
            value: name for name, value in reversed(self.values.items()) if isinstance(value, Node)
        }

    def keep(self, given: Any, value: Any, when: str = "") -> None:
        self.values[given.debugName()], self.made[given.debugName()] = value, given
        if when:
            self.inside[given.debugName()] = when

    def walk(self, block: Any, when: str) -> None:
        """Give the outputs of all nodes of a block, and of those in them, their values."""
        for node in block.nodes():
            ends: list[Any] = []
            for number, inner in enumerate(node.blocks()):
                own = when_run(node.kind(), number)
                for given in inner.inputs():
                    self.keep(given, self.to.graph.placeholder("turn"), own)
                self.walk(inner, own)
                ends += [self.values[made.debugName()] for made in inner.outputs()]
            given = [self.values.get(one.debugName()) for one in node.inputs()]
            made = self.translated(node, given)
            if made is None:
                before = (one for one in (*given, *ends) if isinstance(one, Node | list))
                made = self.to.unknown(node.kind(), *before)
            parts = made if isinstance(made, tuple) else [made] * node.outputsSize()
            for output, part in zip(node.outputs(), parts, strict=True):
                self.keep(output, part, when)

    def translated(self, node: Any, given: list[Any]) -> Any:
        """Return a node as an operation of torch, or a value without one; None where not read."""
        kind, call = node.kind(), self.to.call
        if kind == "prim::Constant":
            return self.constant(node.output().toIValue())
        if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
            return list(given)
        if kind in ("prim::ListUnpack", "prim::TupleUnpack"):
            if isinstance(given[0], list):
                return tuple(given[0])
            return tuple(call(operator.getitem, *given, part) for part in range(node.outputsSize()))
        home, _, name = kind.partition("::")
        if home != "aten":
            return None
        x, *more = given
        if name in ("t", "numpy_T") or (name == "transpose" and {*more} <= {0, 1, -1, -2}):
            return call(torch.t, x) if isinstance(x, Node) and x.op == "get_attr" else None
        if name == "addmm" and more[2:] == [1, 1]:
            return call(operator.add, call(torch.matmul, *more[:2]), x)
        if name == "batch_norm" and not more[4]:
            gain, shift, mean, variance, _, momentum, epsilon, _ = more
            return call(
                functional.batch_norm, x, mean, variance, gain, shift, False, momentum, epsilon
            )
        if name in ("conv1d", "conv2d", "conv3d") and isinstance(more[3], list):
            return self.to.convolution(x, *more)
        if name == "_convolution" and not more[5]:
            return self.to.convolution(x, *more[:5], more[7])
        if name == "slice" and isinstance(x, Node):
            axis, start, stop, step = more
            part = call(operator.getitem, x, (..., slice(start, stop)))
            return part if axis == -1 and step == 1 else None
        return self.operation(node, name, given)

    def operation(self, node: Any, name: str, given: list[Any]) -> Any:
        """Return any operation of torch, with the arguments that are not as they are by default."""
        if not isinstance(given[0], Node) or not hasattr(torch.ops.aten, name):
            return None
        said = [*zip(torch._C.parse_schema(node.schema()).arguments, given, strict=True)]
        while said and said[-1][0].has_default_value() and said[-1][0].default_value == said[-1][1]:
            said.pop()
        values = [DTYPES.get(v, v) if one.name == "dtype" else v for one, v in said]
        plain = [v for (one, _), v in zip(said, values, strict=True) if not one.kwarg_only]
        options = {one.name: v for (one, _), v in zip(said, values, strict=True) if one.kwarg_only}
        return self.to.call(getattr(torch.ops.aten, name), *plain, **options)

    def constant(self, value: Any) -> Any:
        """Return a tensor of weights by its name, or a number or a text as it is."""
        if not isinstance(value, Tensor):
            return value
        name = self.names.get((value.data_ptr(), value.shape), "")
        if name in self.to.tensors:
            return self.to.weight(name)
        return value.item() if value.ndim == 0 else self.to.unknown("a constant")

    def when_run(self, layer: FoundLayer) -> list[str]:
        made: Any = layer.location
        return [*filter(None, [self.inside.get(self.called[made])])]

    def compare(self, layers: list[FoundLayer]) -> list[Agreement | str]:
        return [compared(layer, self.run, SOURCE) for layer in layers]

    def run(self, before: Any, behind: Any, given: Tensor) -> Tensor:
        """Return one value from another one that is given, by TorchScript in float64."""
        start, end = self.called[before], self.called[behind]
        part: Any = torch._C.Graph()
        copies = {start: part.addInput()}

        def copy_of(one: Any) -> Any:
            return copies[one.debugName()]

        for node in self.needed(start, end):
            if any(map(self.aliases.has_writers, (*node.inputs(), *node.outputs()))):
                raise LookupError("a value of it is changed in place")
            clone = part.createClone(node, copy_of)
            part.appendNode(clone)
            pairs = zip(node.outputs(), clone.outputs(), strict=True)
            copies |= {one.debugName(): made for one, made in pairs}
        part.registerOutput(copies[end])
        run = torch._C._create_function_from_graph("part", part)
        with torch.no_grad():
            made: Tensor = run(given)
        return made

    def run_to(self, names: Sequence[str]) -> Any:
        """Return a function of all inputs that gives values of the graph."""
        part: Any = torch._C.Graph()
        copies = {one.debugName(): part.addInput() for one in [*self.script.graph.inputs()][1:]}

        def copy_of(one: Any) -> Any:
            return copies[one.debugName()]

        for node in self.script.graph.nodes():
            clone = part.createClone(node, copy_of)
            part.appendNode(clone)
            pairs = zip(node.outputs(), clone.outputs(), strict=True)
            copies |= {one.debugName(): made for one, made in pairs}
        ends = part.create("prim::TupleConstruct", [copies[name] for name in names], 1)
        part.appendNode(ends)
        ends.output().setType(torch._C.TupleType([copies[name].type() for name in names]))
        part.registerOutput(ends.output())
        return torch._C._create_function_from_graph("whole", part)

    def reads_tokens(self) -> bool:
        """Tell whether an input is looked up in a table."""
        given = {one.debugName() for one in self.script.graph.inputs()}
        found = self.script.graph.findAllNodes("aten::embedding")
        return any([*node.inputs()][1].debugName() in given for node in found)

    def needed(self, start: str, end: str) -> Iterator[Any]:
        """Yield the nodes that lead from one value to another, in their order."""
        seen, todo = {start}, [(end, False)]
        while todo:
            name, ready = todo.pop()
            node = self.made[name].node()
            if ready:
                yield node
            elif name not in seen:
                if node.kind() == "prim::Param":
                    raise LookupError(f"it also reads {name!r}")
                seen |= {one.debugName() for one in node.outputs()}
                todo.append((name, True))
                todo += [(one.debugName(), False) for one in node.inputs()]


def when_run(kind: str, number: int) -> str:
    """Say when a block of a node is run."""
    if kind == "prim::If":
        return f"run only where a condition of its program {'does not hold' if number else 'holds'}"
    return "run in each turn of a loop of its program"
