"""A network in a file that lists its operations: a graph of torch's, and the MLPs found in it."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node
from torch.nn import functional

from bilens.base.errors import BilensError, CheckpointError, NoLayersError
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import PIXELS, LoadedModel
from bilens.io.runner import OpenRunner, entry_of
from bilens.io.stored_mlp import Store
from bilens.nn.agreement import Agreement, agreement_with_outputs, inputs_that_reach
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.expression import FoundLayer
from bilens.nn.mlp_search.find_mlps import Check, in_words, mlps_in_graph

# What a file gives for inputs of its type, run by the library that it is of, and that library in
# words; where it does not run here, why.
Owner = Callable[[Tensor], tuple[str, Tensor] | str]
WIDEST = 2**15  # of whole numbers that a file is run on
# What does not mix inputs. An input is meant to be a byte where that divides it by 255, or centres
# and divides it as pixels are standardised.
SCALING = (operator.mul, operator.truediv, operator.add, operator.sub, functional.batch_norm)
CENTRES, DIVISORS = (60, 200), (20, 300)  # of pixels from 0 to 255 that are standardised


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Refuse in one sentence what is damaged or made up, which leads a library anywhere."""
    try:
        yield
    except BilensError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: is no readable {kind} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): check that the download is complete and that "
            "the file is what its name says."
        ) from error


@dataclass(eq=False)
class Operations:
    """A graph in the making, over all tensors of a file; no operation of it is run here."""

    path: Path
    kind: str  # of the file, in words
    tensors: Store
    shape: tuple[int, ...] = ()  # of one input, as the file says it; empty where it does not
    dtype: torch.dtype = torch.float32  # of inputs
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: nn.Module = field(default_factory=nn.Module)

    def weight(self, name: str, turned: Callable[[Tensor], Tensor] = lambda t: t) -> Node:
        """Return a tensor of the file as a value, and keep it under its name."""
        # whole names, as those of parts may be those of torch's own: half, train
        self.root._parameters[name] = nn.Parameter(turned(self.tensors[name].read_tensor()), False)
        return self.graph.get_attr(name)

    def call(self, function: Callable[..., Any], *given: Any, **options: Any) -> Node:
        return self.graph.call_function(function, given, options)

    def convolution(self, x: Any, kernel: Any, bias: Any, *sizes: Any) -> Node:
        """Return a convolution; `sizes` are strides, padding, dilation and groups."""
        function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(sizes[0]) - 1]
        return self.call(function, x, kernel, bias, *sizes)

    def unknown(self, kind: str, *given: Any) -> Node:
        """Add a node for an operation that is not read; its output is taken as it comes."""

        def unread(*_: Tensor) -> Tensor:
            raise NotImplementedError(kind)

        unread.__name__ = f"the operation {kind}"  # and none of torch's
        return self.call(unread, *given)

    def loaded(
        self,
        ends: Any,
        sha256: str,
        check: Check,
        owner: Owner,
        unverified: tuple[str, ...] = (),
        when: Callable[[FoundLayer], list[str]] = lambda _: [],
        where: Callable[[Any], str] | None = None,
        runner: OpenRunner | None = None,
    ) -> LoadedModel:
        """Return the MLPs of the graph with these ends.

        Where they are all of it they are compared with what `owner` says the file gives. `check`
        compares each; `unverified` says why, without an owner, that is no comparison with the file;
        `when` says of a layer that is not always run when it is. `runner` runs the file on given
        inputs, for values that have the names of `where`.
        """
        self.graph.output(ends)
        found = mlps_in_graph(self.root, self.graph, check)
        used = {name for view in found.layers.values() for name in view.tensors}
        weights = (name for name, one in self.tensors.items() if one.is_weight)
        unread = [f"tensor {name}" for name in weights if name not in used]
        left_out = (*found.left_out, *unread)
        read = {name: place.layer for name, place in found.places.items()}
        if not found.layers:
            raise NoLayersError(
                f"{self.path}: no MLP is found in this {self.kind}: expected linear maps with a "
                f"known activation or a product between them.{in_words(left_out)}"
            )
        layers = {n: with_condition(one, when(read[n])) for n, one in found.layers.items()}
        views, checks = [*layers.values()], found.checks
        first = views[0]
        compare = partial(compare_with_owner, owner, self.dtype, views, found.head)
        whole = compare(inputs_of(first, self.dtype)) if found.network else None
        if isinstance(whole, str):
            unverified = (whole,)
        if isinstance(whole, Agreement):
            checks, unverified = {"output": whole.required()}, ()
        elif unverified:
            checks = {}
        entries = {n: entry_of(where(one.source.location), one) for n, one in read.items() if where}
        sides = tuple(side for side in self.shape if side > 1)
        says_shape = found.network and len(sides) > 1 and prod(sides) == first.sizes.d_in
        bytes_by = self.scale_of_bytes(first.sizes.d_in) if found.network else ""
        pixels = {PIXELS: bytes_by} if bytes_by else {}
        return LoadedModel(
            None,
            str(self.path),
            sha256,
            sides if says_shape else None,
            provenance={"format": self.kind, **pixels},
            views=layers,
            load_report=LoadReport(found.made_of, False, checks, left_out, found.head, unverified),
            stored=self.tensors,
            compare_rows=compare if isinstance(whole, Agreement) else None,
            entries=entries,
            runner=runner,
        )

    def scale_of_bytes(self, d_in: int) -> str:
        """Return by what the file seems to read numbers from 0 to 255; empty where it does not."""
        if self.dtype == torch.uint8:
            return "uint8"
        node, *others = self.graph.find_nodes(op="placeholder")
        held = self.graph.find_nodes(op="get_attr")
        known = {one: self.root._parameters[str(one.target)] for one in held}
        ends = [torch.full((1, *(self.shape or (d_in,))), float(end)).double() for end in (0, 1)]
        while not others and len(node.users) == 1:
            (step,) = node.users
            reads_others = {*step.all_input_nodes} - {node, *known}
            if reads_others or step.target not in (*SCALING, torch.flatten):
                break
            with suppress(RuntimeError, ValueError):  # of shapes that do not fit
                ends = [given_to(step, {**known, node: end}) for end in ends]
            node = step
        slope = ends[1] - ends[0]
        divisor, centre = float((1 / slope).median()), float((-ends[0] / slope).median())
        if abs(centre) < 1:
            return (
                f"x / {divisor:.4g}" if abs(divisor / 255 - 1) < 0.02 else ""
            )  # 256 is usual, too
        standard = CENTRES[0] < centre < CENTRES[1] and DIVISORS[0] < divisor < DIVISORS[1]
        return f"(x − {centre:.4g}) / {divisor:.4g}" if standard else ""


def with_condition(view: LayerView, conditions: Sequence[str]) -> LayerView:
    """Return a layer that says when it is run, beside what it says of its input."""
    return replace(view, about_input="; ".join(filter(None, (view.about_input, *conditions))))


def given_to(step: Node, values: Mapping[Node, Any]) -> Any:
    """Run a node of a graph on values of the nodes that it reads."""
    function: Any = step.target
    return function(*fx.node.map_arg(step.args, lambda one: values[one].double()))


def compare_with_owner(
    owner: Owner, dtype: torch.dtype, views: Sequence[LayerView], head: str | None, x: Tensor
) -> Agreement | str:
    """Compare layers with what a file itself gives; say why where nothing here runs it."""
    given = x.to(dtype)
    if not dtype.is_floating_point and not torch.equal(given.to(x.dtype), x):
        return f"the file reads {dtype}, and the inputs are other numbers"
    if isinstance(outputs := owner(given), str):
        return outputs
    source, made = outputs
    if head == "log_softmax":  # logarithms of what is nearly 0 are rounded anyhow
        made = made.exp()
    return agreement_with_outputs(source, given.to(x.dtype), made, partial(run_layers, views, head))


def inputs_of(first: LayerView, dtype: torch.dtype) -> Tensor:
    """Return inputs of a network that reach the neurons of its first layer at several scales.

    Where it reads whole numbers, they are rounded, and others follow that its type can hold.
    """
    layer = first.weights(torch.float64)
    matrix = getattr(layer, layer.branches[0])
    bias = getattr(layer, f"{layer.branches[0]}_bias")
    x = inputs_that_reach(matrix, matrix.new_zeros(len(matrix)) if bias is None else bias)
    if dtype.is_floating_point:
        return x
    low, high = 0, 1
    if dtype != torch.bool:
        info = torch.iinfo(dtype)
        low, high = max(info.min, -WIDEST), min(info.max, WIDEST)
    drawn = torch.randint(low, high + 1, x.shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([x.round().clamp(low, high), drawn.to(x)])


def run_layers(views: Sequence[LayerView], head: str | None, x: Tensor) -> Tensor:
    """Run layers one behind the other; return probabilities where a softmax is behind them."""
    for view in views:
        x = view.weights(x.dtype)(x)
    return x if head is None else x.softmax(dim=-1)
