"""Reading the graph of a module: which of its values are layers of neurons."""

from dataclasses import replace

import torch
from torch import fx, nn
from torch.fx.node import Argument, Node, map_arg

from bilens.algebra.approximation.activation import Activation
from bilens.nn.mlp_search.expression import (
    Applied,
    FoundLayer,
    Neurons,
    NormMoments,
    Step,
    Total,
    Tree,
    ValueSource,
    Weight,
    leaves,
    number,
    patch_of,
    steps,
    widths,
)
from bilens.nn.mlp_search.patches import Patch
from bilens.nn.mlp_search.pointwise import (
    Pointwise,
    ScaledActivation,
    factor_of_square,
    known_activation,
    scaled_activation,
)

CALLS = ("call_method", "call_function")
RESHAPES = (
    "flatten", "unflatten", "view", "reshape", "transpose", "permute", "squeeze", "unsqueeze",
    "contiguous", "getitem", "movedim", "swapaxes", "T", "mT", "clone", "to", "float", "double",
    "chunk", "split", "unbind", "narrow", "select", "expand", "detach",
)  # fmt: skip

Value = Tree | Pointwise | Weight | tuple[Tree, ...] | None


class GraphReader:
    """Gives each node of a graph its value, and closes layers where they end."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        self.root, self.graph = root, graph
        self.layers: list[FoundLayer] = []
        self.inside: list[str] = []
        self.unknown: list[str] = []
        self.values: dict[Node, Value] = {}
        self._nodes: dict[Tree, Node] = {}
        self._closed: dict[Tree, ValueSource] = {}
        self._realised: dict[Pointwise, Tree] = {}
        self._seen_as: dict[tuple[ValueSource, Patch], ValueSource] = {}
        self._layer_of: dict[ValueSource, FoundLayer] = {}
        self._heads: dict[ValueSource, tuple[ValueSource, str]] = {}
        self._ends: list[ValueSource] = []

    def keep(self, node: Node, value: Value) -> None:
        """Remember the value of a node, and where a tree was met first."""
        self.values[node] = value
        if isinstance(value, Tree):
            self._nodes.setdefault(value, node)

    def words(self, node: Node) -> str:
        if node.op == "call_module":
            return f"{node.target} ({type(self.root.get_submodule(str(node.target))).__name__})"
        return str(getattr(node.target, "__name__", node.target))

    def norm_moments(self, path: str) -> NormMoments | None:
        """Return mean and deviation behind a norm of each row: its shift, and its gain."""
        norm = self.root.get_submodule(path)
        if not isinstance(norm, nn.LayerNorm | nn.RMSNorm) or norm.weight is None:
            return None
        gain, shift = norm.weight, getattr(norm, "bias", None)
        mean = torch.zeros_like(gain) if shift is None else shift
        return NormMoments(f"{type(norm).__name__} {path}", lambda: mean, gain.abs)

    # ---- values

    def realised(self, value: Tree | Pointwise) -> Tree:
        """Return a value as a tree: a function is an activation, or is taken as it comes."""
        if not isinstance(value, Pointwise):
            return value
        if value not in self._realised:
            tree = self._neurons_of(value)
            self._realised[value] = tree
            self._nodes.setdefault(tree, value.node)
        return self._realised[value]

    def patches(self, value: Tree | Pointwise, patch: Patch) -> ValueSource:
        """Return the patches of an image, and close what it is made of."""
        closed = self.close(self.realised(value))
        if closed.patch == patch:
            return closed
        seen = ValueSource(closed.location, patch.width, patch)
        return self._seen_as.setdefault((closed, patch), seen)

    def at_places(self, value: Tree | Pointwise, point: Patch) -> Tree:
        """Return an image as it stands at each place."""
        tree = self.realised(value)
        return self.patches(tree, point) if patch_of(tree) is None else tree

    def _neurons_of(self, value: Pointwise) -> Tree:
        activation = known_activation(value.function)
        if activation is not None and activation.name == "identity":
            return value.argument
        square = factor_of_square(value.function) if activation is None else None
        scaled = None if activation is not None or square else scaled_activation(value.function)
        if scaled is not None:
            return self._scaled_neurons(value, scaled)
        if activation is None and square is None:
            paths = [step.path for step in steps(value.argument) if step.path]
            if paths and isinstance(value.argument, Applied):
                self.unknown.append(f"{self.words(value.node)} behind {paths[-1]}")
            self.close(value.argument)
            return self.source_behind(value.node)
        gate, source = self.linear(value.argument)
        if None in widths(gate):  # nothing linear stands before it
            return self.source_behind(value.node)
        if activation is None:
            neurons = Neurons(Activation("identity"), gate, gate, source)
            return neurons if square == 1 else Applied(Step("", number(square or 1)), neurons)
        has_slope = value.node.op == "call_module" and activation.name == "leaky_relu"
        path = str(value.node.target) if has_slope else ""
        return Neurons(activation, gate, None, source, path, value.by_values)

    def _scaled_neurons(self, value: Pointwise, scaled: ScaledActivation) -> Tree:
        """Return scale · φ(inner · t) + shift, numbers put into the maps around the neurons."""
        gate, source = self.linear(Applied(Step("", number(scaled.inner)), value.argument))
        if None in widths(gate):
            return self.source_behind(value.node)
        neurons = Neurons(scaled.activation, gate, None, source, "", value.by_values)
        return Applied(Step("", number(scaled.scale), number(scaled.shift)), neurons)

    def linear(self, tree: Tree) -> tuple[Tree, ValueSource]:
        """Return a value as linear in one source, what is below it closed as a layer."""
        resolved = self.resolved(tree)
        found = leaves(resolved)
        if len(found) == 1 and isinstance(found[0], ValueSource):
            return resolved, found[0]
        if isinstance(tree, Applied) and is_matrix(tree.step) and has_matrix(tree.inner):
            source = self.close(tree.inner)  # of two matrices the first one ends the layer before
            return Applied(tree.step, source), source
        if isinstance(tree, Applied) and tree.inner in self._nodes:
            inner, source = self.linear(tree.inner)
            return Applied(tree.step, inner), source
        source = self.close(tree)
        return source, source

    def product(self, first: Tree | Pointwise, second: Tree | Pointwise) -> Tree | None:
        """Return a product of two branches as neurons; None where it is none."""
        first, second = map(self.without_identity, (first, second))
        for gate, value in ((first, second), (second, first)):
            if isinstance(gate, Pointwise | Neurons):
                neurons = self.realised(gate)
                if isinstance(neurons, Neurons) and neurons.value is None:
                    branch, source = self.linear(self.realised(value))
                    if source is neurons.source:
                        return replace(neurons, value=branch)
        if isinstance(first, Pointwise) or isinstance(second, Pointwise):
            return None
        left, source = self.linear(first)
        right, other = self.linear(second)
        sized = None not in widths(left)
        if source is not other or not sized:
            return None
        return Neurons(Activation("identity"), left, right, source)

    def without_identity(self, value: Tree | Pointwise) -> Tree | Pointwise:
        """Return the argument of an activation that changes nothing, and all else as it is."""
        if not isinstance(value, Pointwise):
            return value
        activation = known_activation(value.function)
        return value.argument if activation and activation.name == "identity" else value

    # ---- layers

    def close(self, tree: Tree) -> ValueSource:
        """Return a value as a source, after the layer that it is, where it is one."""
        if isinstance(tree, ValueSource):
            return tree
        if tree not in self._closed:
            self._closed[tree] = self._close(tree)
        return self._closed[tree]

    def resolved(self, tree: Tree) -> Tree:
        """Return a value with the closed ones in it taken as they come."""
        if tree in self._closed:
            return self._closed[tree]
        if isinstance(tree, Applied):
            inner = self.resolved(tree.inner)
            return tree if inner is tree.inner else Applied(tree.step, inner)
        if isinstance(tree, Total):
            parts = tuple(map(self.resolved, tree.parts))
            return tree if parts == tree.parts else Total(parts)
        return tree

    def _close(self, tree: Tree) -> ValueSource:
        patch, width = patch_of(tree), widths(tree).given
        point = None if patch is None else Patch.point(width or 0, len(patch.kernel))
        source = ValueSource(self._nodes.get(tree), width, point)
        tree = self.resolved(tree)
        found = leaves(tree)
        neurons = [leaf for leaf in found if isinstance(leaf, Neurons)]
        own = len(neurons) == 1 and {*found} <= {neurons[0], neurons[0].source}
        # and not a bare activation
        own = own and any(step.weight or step.bias for step in steps(tree) if step.path)
        if own and source.width is not None and source.location is not None:
            before = self._layer_of.get(neurons[0].source)
            layer = FoundLayer(tree, neurons[0], source.location, before)
            self.layers.append(layer)
            self._layer_of[source] = layer
        elif isinstance(tree, Total):
            for part in tree.parts:
                self.close(part)
        elif isinstance(tree, Applied) and neurons:
            self.close(tree.inner)
        return source

    def head(self, node: Node, value: Tree | Pointwise, name: str, axis: object) -> ValueSource:
        """Return a softmax: what it is of is closed, and known to be all that stands before."""
        if axis not in (None, 1, -1):  # of rows, and none of classes
            return self.taken_as_it_comes(node)
        before = self.close(self.realised(value))
        source = ValueSource(node, before.width, about=f"what {self.words(node)} gives")
        self._heads[source] = before, name
        return source

    def taken_as_it_comes(self, node: Node) -> ValueSource:
        """Return a node that is nothing known; what goes into it is closed."""
        for before in node.all_input_nodes:
            value = self.values[before]
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Tree | Pointwise):
                    self.close(self.realised(part))
        if node.op == "call_module":
            about = f"what {self.words(node)} gives, its weights included"
            return ValueSource(node, about=about, sees=self.norm_moments(str(node.target)))
        return self.source_behind(node)

    def source_behind(self, node: Node) -> ValueSource:
        """Return the value of a call, with the module or function whose answer it reshapes."""
        chain = [node]
        while chain[-1].op in CALLS and len(chain[-1].all_input_nodes) == 1:
            chain += chain[-1].all_input_nodes
        made = [n for n in chain if n.op == "call_module" or self.computes(n)]
        if not made:
            return ValueSource(node)
        about = f"what {self.words(made[-1])} gives"
        about += ", its weights included" if made[-1].op == "call_module" else ""
        about += f", behind {self.words(node)}" if made[-1] is not node else ""
        return ValueSource(node, about=about)

    def computes(self, node: Node) -> bool:
        """Tell whether a node is a function of numbers, which are not moved alone."""
        return node.op in CALLS and self.words(node) not in RESHAPES

    def finish(self, outputs: Argument) -> None:
        """Close what the graph returns."""

        def end(node: Node) -> Node:
            value = self.values[node]
            if isinstance(value, Tree | Pointwise):
                self._ends.append(self.close(self.realised(value)))
            return node

        map_arg(outputs, end)

    @property
    def network(self) -> tuple[tuple[FoundLayer, ...], str | None]:
        """The layers one behind the other, if they are the module, and what follows them."""
        if len(self._ends) != 1:
            return (), None
        end, head = self._heads.get(self._ends[0], (self._ends[0], None))
        layer = self._layer_of.get(end)
        chain: list[FoundLayer] = []
        while layer is not None:
            chain.insert(0, layer)
            layer = layer.before
        first = chain[0].source.location if chain else None
        given = isinstance(first, Node) and first.op == "placeholder"
        given = given and all(one.source.patch is None for one in chain)  # places are many
        return (tuple(chain), head) if given and len(chain) == len(self.layers) else ((), None)


def is_matrix(step: Step) -> bool:
    return bool(step.path and step.weight is not None and step.weight().ndim == 2)


def has_matrix(tree: Tree) -> bool:
    """Tell whether one of the linear maps that a value ends with is a matrix of the module."""
    while isinstance(tree, Applied):
        if is_matrix(tree.step):
            return True
        tree = tree.inner
    return False
