"""The layers of neurons inside a module: what is found, how far it is right, what is left out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor, fx, nn

from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import basis_of
from bilens.base.checks import check_loaded, check_type
from bilens.base.errors import UsageError
from bilens.nn.agreement import Agreement
from bilens.nn.layer_view import Gives, LayerView, Reads
from bilens.nn.mlp_search.expression import (
    Applied,
    FoundLayer,
    Neurons,
    NormMoments,
    Tree,
    linearised,
)
from bilens.nn.mlp_search.observation import (
    TORCH_LAYERS,
    Watched,
    check_layers,
    check_of_observed,
    evaluation_copy,
    observed_layers,
    those_alike,
    traced,
    watch,
)
from bilens.nn.mlp_search.operations import read_graph
from bilens.nn.real_run import INSIDE, in_evaluation

Compared = Agreement | str | None  # a reason where it cannot be compared; None on meta devices
Check = Callable[[list[FoundLayer]], Sequence[Compared]]
WRAPPED = "_original_component"  # below a bridge of TransformerLens: what it runs
ADVICE = "If there is one all the same, pass example=..., an input to run the module on."


@dataclass(frozen=True, eq=False)
class Place:
    """The place in a module where a layer was found.

    Attributes:
        layer: what was found, with its two ends.
        path: of the part that was traced.
        graph: of that part; None where the ends are paths of modules that were watched.
    """

    layer: FoundLayer
    path: str
    graph: fx.Graph | None


@dataclass(frozen=True, eq=False)
class FoundMLPs:
    """The layers that were found in a module."""

    layers: Mapping[str, LayerView]  # name → layer, in the order in which they run
    made_of: Mapping[str, str]  # name → what it is and of which modules, in words
    checks: Mapping[str, Agreement]  # what was compared → how far it is from where it was found
    network: bool  # whether the layers one behind the other are the module
    # what the module applies behind its last layer, such as a softmax; None for nothing
    head: str | None
    left_out: tuple[str, ...]  # what was not read, and why where that is known, in words
    places: Mapping[str, Place] = field(default_factory=dict)  # name → where the module computes it
    unverified: tuple[str, ...] = ()  # what could not be compared with the module as it runs


def find_mlps(module: nn.Module, example: object = None) -> FoundMLPs:
    """Return the MLPs of a module; it is not changed, and its weights are not copied."""
    check_type("module", module, nn.Module, "pass a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError("TorchScript is not read: pass the module that it was compiled from.")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UsageError(f"{name} has no shape yet: run the module on an input once.")
        if example is not None:
            check_loaded(name, parameter)
    with in_evaluation(module):  # a trace, too, may change what it comes past
        search = Search(evaluation_copy(module))
        search.visit("")
        if example is not None and not search.network:
            search.watch(example)
    left_out = (*search.notes, *search.unread())
    if not search.layers:
        raise nothing_found(module, left_out, example)
    return search.collect_found(left_out)


def nothing_found(module: nn.Module, left_out: tuple[str, ...], example: object) -> UsageError:
    return UsageError(
        f"no MLP is found in the {type(module).__name__}: expected linear maps with a known "
        f"activation or a product between them.{in_words(left_out)}"
        + ("" if example is not None else f" {ADVICE}")
    )


def mlps_in_graph(root: nn.Module, graph: fx.Graph, check: Check) -> FoundMLPs:
    """Return the MLPs of a graph over the parameters of a module; `check` compares each."""
    search = Search(root)
    search.search_graph("", root, graph, check)
    return search.collect_found(tuple(search.notes))


def in_words(left_out: tuple[str, ...], limit: int = 6) -> str:
    """Name the parts that were left out, the first few of many; empty for none."""
    if not left_out:
        return ""
    more = f" and {len(left_out) - limit} more" if len(left_out) > limit else ""
    return f" Not read: {'; '.join(left_out[:limit])}{more}."


@dataclass(eq=False)
class Search:
    """A walk through a module."""

    module: nn.Module
    layers: dict[str, FoundLayer] = field(default_factory=dict)
    checks: dict[str, Agreement] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    network: bool = False
    head: str | None = None
    _seen: set[int] = field(default_factory=set)
    _paths: dict[str, set[str]] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)

    def visit(self, path: str) -> None:
        """Look for layers in a part of the module, and in its parts where it is not traced."""
        part = self.module.get_submodule(path)
        if id(part) in self._seen or next(part.parameters(), None) is None:
            return
        self._seen.add(id(part))
        graph = traced(part)
        if isinstance(graph, str):
            why = graph or ("" if path else "what it does around its parts cannot be traced")
            self.notes += [f"{path or 'the module itself'}: {why}"] if why else []
            for name, _ in part.named_children():
                self.visit(below(path, name))
            return
        check: Check = partial(check_layers, part, graph)
        if any(parameter.is_meta for parameter in part.parameters()):
            check = not_compared
        for name in self.search_graph(path, part, graph, check):
            self.visit(below(path, name))

    def search_graph(self, path: str, part: nn.Module, graph: fx.Graph, check: Check) -> list[str]:
        """Look for layers in a graph; return the modules in it that may hold some."""
        reader = read_graph(part, graph)
        kept = self.keep(path, reader.layers, check(reader.layers), graph)
        self.notes += [below(path, text) for text in reader.unknown]
        chain, head = reader.network
        if path == "" and chain and kept and not isinstance(part, TORCH_LAYERS):
            self.network, self.head = True, head
        return reader.inside

    def collect_found(self, left_out: tuple[str, ...]) -> FoundMLPs:
        made_of = {name: layer.made_of() for name, layer in self.layers.items()}
        places = {name: self._places[name] for name in self.layers}
        views, checks, whole = self.views(), self.checks, self.network
        return FoundMLPs(views, made_of, checks, whole, self.head, left_out, places)

    def watch(self, example: object) -> None:
        """Run the module and look for layers among the linear maps that are in no whole one yet."""
        bare = {name for name, one in self.layers.items() if isinstance(one.tree, Neurons)}
        whole = {path for name in self.layers if name not in bare for path in self._paths[name]}
        rest = [one for one in watch(self.module, example) if one.path not in whole]
        seen = observed_layers(rest)
        layers = self.known_far_out(seen, rest, example)
        checks = [check_of_observed(one, rest) for one in layers]
        for name in bare:  # a layer that ends with its neurons, and the map behind them is found
            if any(self._paths[name] & {*one.paths} for one in layers):
                del self.layers[name], self.checks[name], self._paths[name]
        self.keep("", layers, [*checks])

    def known_far_out(
        self, seen: list[FoundLayer], watched: Sequence[Watched], example: object
    ) -> list[FoundLayer]:
        """Return the layers whose activation is the same where an example does not reach.

        Of maps that give the same on the example it is the one that is read there: all are told
        apart by what is planted.
        """
        branches = dict.fromkeys(path for one in seen for path in one.branches)
        alike = (path for one in branches for path in those_alike(watched, one))
        planted = list(dict.fromkeys(alike))
        far: list[FoundLayer] = []
        with suppress(UsageError):  # it does not run on such values
            far = observed_layers(watch(self.module, example, planted)) if seen else []
        phi, ran = {one.location: one.neurons.activation for one in seen}, {w.path for w in watched}
        known = [one for one in far if phi.get(one.location) == one.neurons.activation]
        known = [one for one in known if ran.issuperset(one.paths)]
        told = {one.location for one in known}
        said = "the activation is not known beyond the values that the example reaches"
        self.notes += [f"{one.location}: {said}" for one in seen if one.location not in told]
        return known

    def keep(
        self,
        path: str,
        layers: list[FoundLayer],
        checks: Sequence[Compared],
        graph: fx.Graph | None = None,
    ) -> bool:
        """Keep the layers that are what the module computes, and say whether all are."""
        names = layer_names(path, layers, self.layers)
        everything = True
        for name, layer, check in zip(names, layers, checks, strict=True):
            if check is None or (isinstance(check, Agreement) and check.passed):
                self.layers[name] = layer
                if check is not None:
                    self.checks[name] = replace(check, layer=name)
                self._paths[name] = {below(path, part) for part in layer.paths}
                self._places[name] = Place(layer, path, graph)
                continue
            everything = False
            if isinstance(check, Agreement):
                check = f"what was read differs by {check.max_error:.1e} from the module"
            self.notes.append(f"{name}: {check}")
        return everything

    def views(self) -> dict[str, LayerView]:
        last = len(self.layers) - 1
        views = {}
        for index, (name, layer) in enumerate(self.layers.items()):
            reads: Reads = "activations"
            gives: Gives = "outputs"
            if self.network:
                reads = "neurons" if index else "inputs"
                gives = "neurons" if index < last else "logits" if self.head else "outputs"
            view = layer.view(name, reads, gives)
            own = partial(self.basis_before, index) if reads == "neurons" else None
            views[name] = replace(
                view,
                tensors=self.num_read(self._paths[name]),
                basis_name=own,
                assumed_input=partial(assumed_input, layer),
            )
        return views

    def basis_before(self, index: int) -> str:
        """Return the name of the coordinates that a layer of a network reads."""
        before = [layer.read_layer() for layer in [*self.layers.values()][:index]]
        parts = [p for one in before for p in vars(one).values() if isinstance(p, Tensor)]
        return basis_of(f"{[*self.layers][index - 1]} output", *parts)

    def num_read(self, paths: Collection[str]) -> dict[str, int]:
        """Return name → number of the parameters at paths, each a module or a parameter.

        What a parametrisation keeps beside its parameters counts, too.
        """
        kept = ((name, one) for name, one in self.module.named_buffers() if INSIDE in f".{name}")
        return {
            name: one.numel()
            for name, one in (*self.module.named_parameters(), *kept)
            if name in paths or owner_of(name) in paths
        }

    def unread(self) -> list[str]:
        """Return the modules with weights of their own that no layer contains."""
        used = {path for paths in self._paths.values() for path in paths}
        found = []
        for path, part in self.module.named_modules():
            own = [name for name, _ in part.named_parameters(path, recurse=False)]
            owner = owner_of(own[0]) if own else path
            if own and not used & {path, owner} and not used.issuperset(own):
                found.append(f"{path or 'the module itself'} ({type(part).__name__})")
        return found


def not_compared(layers: list[FoundLayer]) -> list[Compared]:
    """Say nothing of layers without weights."""
    return [None for _ in layers]


def owner_of(name: str) -> str:
    """Return the path of the module that computes with a parameter, plain or parametrised."""
    module, inside, _ = f".{name}".partition(INSIDE)
    return module[1:] if inside else name.rpartition(".")[0]


def below(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def layer_names(path: str, layers: Sequence[FoundLayer], taken: Collection[str]) -> list[str]:
    """Return a name for each layer of a part: of what holds it, or else its neurons, alone.

    A part that a bridge of TransformerLens wraps has the name of its bridge.
    """
    holders = [
        dict.fromkeys(below(path, holder(paths)) for paths in (layer.paths, layer.branches))
        for layer in layers
    ]
    every = ["", *taken, *(name for each in holders for name in each)]
    names: list[str] = []
    for layer, each in zip(layers, holders, strict=True):
        alone = (name for name in each if every.count(name) == 1)
        name = next(alone, below(path, layer.paths[0]))
        name = ".".join(part for part in name.split(".") if part != WRAPPED)
        while name in names or name in taken:  # a module that is used twice
            name += "'"
        names.append(name)
    return names


def holder(paths: Sequence[str]) -> str:
    """Return the innermost module that holds all of some modules or parameters."""
    parents = [part.split(".")[:-1] for part in paths]
    levels = takewhile(lambda level: len({*level}) == 1, zip(*parents, strict=False))
    return ".".join(level[0] for level in levels)


def assumed_input(layer: FoundLayer) -> GaussianInput | None:
    """Return the input that statistics in a module speak for; None where there are none.

    Those of a normalisation behind a matrix A say mean μ and variance σ² of Ax + c alone: x is
    taken to vary alike in all directions, σ² on average, about the least m with Am + c = μ.
    """
    seen = learnt_moments(layer)
    if seen is None:
        return None
    (tree, sees), width = seen, layer.sizes.d_in
    before = linearised(tree)
    a = before.matrix(layer.source, width).detach().double()
    mean, deviation = (one().detach().cpu().double() for one in (sees.mean, sees.deviation))
    mean = (mean if before.constant is None else mean - before.constant.double()).expand(len(a))
    deviation = deviation.expand(len(a))
    if len(a) == width and bool(a.diagonal().all()) and int(a.count_nonzero()) == width:
        scale = a.diagonal()
        root = torch.diag(deviation / scale.abs())
        return GaussianInput(mean / scale, root, f"N(μ, σ²) of the {sees.of} in front")
    spread = (deviation.square().sum() / a.square().sum().clamp(min=1e-300)).sqrt()
    centre = torch.linalg.lstsq(a, mean[:, None], driver="gelsd").solution[:, 0]
    root = spread * torch.eye(width, dtype=torch.float64)
    return GaussianInput(centre, root, f"N(μ, σ²) of the {sees.of} right behind")


def learnt_moments(layer: FoundLayer) -> tuple[Tree, NormMoments] | None:
    """Return the value nearest to the source whose moments are known; None for none."""
    tree: Tree = layer.neurons.gate
    found = None
    while isinstance(tree, Applied):
        if tree.step.sees is not None:
            found = tree.inner, tree.step.sees
        tree = tree.inner
    if tree is not layer.source:
        return None
    return (tree, layer.source.sees) if layer.source.sees is not None else found
