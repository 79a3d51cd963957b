"""A network in a file that lists its operations: a graph of torch's, and the MLPs found in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node
from torch.nn import functional

from bilens.base.errors import BilensError, CheckpointError
from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.stored_mlp import Store
from bilens.nn.agreement import Agreement, agreement_with_outputs, inputs_that_reach
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.find_mlps import Check, in_words, mlps_in_graph

# What a file gives for inputs, run by the library that it is of, and that library in words; None
# where it does not run here.
Owner = Callable[[Tensor], tuple[str, Tensor] | None]


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
        self, ends: Any, sha256: str, check: Check, owner: Owner, unverified: tuple[str, ...] = ()
    ) -> LoadedModel:
        """Return the MLPs of the graph with these ends.

        Where they are all of it they are compared with what `owner` says the file gives. `check`
        compares each; `unverified` says why, without an owner, that is no comparison with the file.
        """
        self.graph.output(ends)
        found = mlps_in_graph(self.root, self.graph, check)
        used = {name for view in found.layers.values() for name in view.tensors}
        unread = [f"tensor {name}" for name in self.tensors if name not in used]
        left_out = (*found.left_out, *unread)
        if not found.layers:
            raise CheckpointError(
                f"{self.path}: no MLP is found in this {self.kind}: expected linear maps with a "
                f"known activation or a product between them.{in_words(left_out)}"
            )
        checks, views = found.checks, [*found.layers.values()]
        compare = partial(compare_with_owner, owner, views, found.head) if found.network else None
        whole = None if compare is None else compare(inputs_of(views[0]))
        if whole is not None:
            checks, unverified = {"output": whole.required()}, ()
        elif unverified:
            checks = {}
        return LoadedModel(
            None,
            str(self.path),
            sha256,
            provenance={"format": self.kind},
            views=found.layers,
            load_report=LoadReport(found.made_of, False, checks, left_out, found.head, unverified),
            stored=self.tensors,
            compare_rows=compare,
        )


def compare_with_owner(
    owner: Owner, views: Sequence[LayerView], head: str | None, x: Tensor
) -> Agreement | None:
    """Compare layers with what a file itself gives; None where nothing here runs it."""
    if (outputs := owner(x)) is None:
        return None
    source, made = outputs
    if head == "log_softmax":  # logarithms of what is nearly 0 are rounded anyhow
        made = made.exp()
    return agreement_with_outputs(source, x, made, partial(run_layers, views, head))


def inputs_of(first: LayerView) -> Tensor:
    """Return inputs of a network that reach the neurons of its first layer at several scales."""
    layer = first.weights(torch.float64)
    matrix = getattr(layer, layer.branches[0])
    bias = getattr(layer, f"{layer.branches[0]}_bias")
    return inputs_that_reach(matrix, matrix.new_zeros(len(matrix)) if bias is None else bias)


def run_layers(views: Sequence[LayerView], head: str | None, x: Tensor) -> Tensor:
    """Run layers one behind the other; return probabilities where a softmax is behind them."""
    for view in views:
        x = view.weights(x.dtype)(x)
    return x if head is None else x.softmax(dim=-1)
