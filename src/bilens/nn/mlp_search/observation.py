"""Looking at a module: traced with torch.fx without running it, or watched while it runs.

What enters a linear map is made of what left others.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.checks import check_finite
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.nn.agreement import Agreement, agreement, normal_inputs
from bilens.nn.mlp_search.expression import (
    Applied,
    FoundLayer,
    Neurons,
    Step,
    ValueSource,
    is_transposed_linear,
    linear_step,
    rows,
    steps,
)
from bilens.nn.mlp_search.in_place import use_results_in_place
from bilens.nn.mlp_search.patches import places
from bilens.nn.mlp_search.pointwise import POINTS, activation_through, factors, the_only
from bilens.nn.real_run import WEIGHT_HOOKS, call, copy_of_input, is_traced_by_nnsight

FEED_FORWARD = "_ff_block"  # the method of torch's transformer layers that is their MLP
TORCH_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
ROWS = 64  # of a run that are looked at
REACH = 8  # linear maps back: an MLP is close together
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}  # of a value


class Tracer(fx.Tracer):
    """Looks into every module that has parts or weights of its own, but for linear maps."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Tell whether a module stays one operation."""
        bare = next(module.children(), None) is None
        if is_transposed_linear(module) or (bare and next(module.parameters(), None) is None):
            return True
        return super().is_leaf_module(module, qualified_name)


def traced(module: nn.Module) -> fx.Graph | str:
    """Return the graph of a module without operations in place, or why there is none."""
    tracer = Tracer()
    if isinstance(module, TORCH_LAYERS):
        tracer.traced_func_name = FEED_FORWARD
    before = torch.get_rng_state()
    try:
        graph = tracer.trace(module)
    except Exception:  # somebody else's code, run on values that are no tensors
        return ""
    if not torch.equal(torch.get_rng_state(), before):
        return "random numbers drawn in this one run would stand in the graph as constants"
    return use_results_in_place(module, graph) or graph


def evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy with the same tensors, in evaluation mode, to find layers in.

    It has no hooks, but for those that compute a weight: there it is computed when it is read.
    Nor has it the wrappers of nnsight, which outside of a trace run what they wrap.
    """
    parts = [*module.modules()]
    kept = [value for part in parts for value in vars(part).values() if isinstance(value, Tensor)]
    tensors = [*module.parameters(), *module.buffers()]
    shared = {id(one): one.detach() for one in kept} | {id(tensor): tensor for tensor in tensors}
    try:
        copied = copy.deepcopy(module, shared)
    except Exception as error:
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({error}), and is not to be changed: pass "
            "the part of the model that is an MLP."
        ) from error
    for part in copied.modules():
        for hook in part._forward_pre_hooks.values():
            compute_when_read(part, hook)
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.clear()
        if is_traced_by_nnsight(part):
            del part.forward
        part.training = False
    return copied


def compute_when_read(part: nn.Module, hook: Any) -> None:
    """Make a weight that a hook computes before each run a property of a part."""
    if not isinstance(hook, WEIGHT_HOOKS):
        return
    name: Any = getattr(hook, "name", None) or getattr(hook, "_tensor_name")  # noqa: B009
    if isinstance(hook, SpectralNorm):
        compute: Callable[[Any], Any] = partial(hook.compute_weight, do_power_iteration=False)
    else:
        compute = hook.compute_weight if isinstance(hook, WeightNorm) else hook.apply_mask
    kind = type(part)
    own = {name: property(compute), "__module__": kind.__module__}
    part.__class__ = type(kind.__name__, (kind,), own)
    vars(part).pop(name, None)


@torch.no_grad()
def check_layers(
    root: nn.Module,
    graph: fx.Graph,
    layers: list[FoundLayer],
    source: str = "the module's own operations",
) -> list[Agreement | str]:
    """Compare each layer with the operations of its module, or say why it cannot be."""
    for layer in layers:
        for step in steps(layer.tree):
            for kind, fetch in (("weight", step.weight), ("bias", step.bias)):
                if fetch is not None:
                    check_finite(f"{step.path}.{kind}", fetch())
    numel = sum(parameter.numel() for parameter in root.parameters())
    check_memory(8 * numel, "a copy in float64, to check the layers", "pass a part of the model")
    wide = copy.deepcopy(root).to("cpu", torch.float64)
    runner = fx.Interpreter(wide, graph=graph, garbage_collect_values=False)
    order = {node: index for index, node in enumerate(graph.nodes)}
    run = partial(evaluated, runner, order)
    return [compared(layer, run, source) for layer in layers]


def compared(
    layer: FoundLayer, run: Callable[[Any, Any, Tensor], Tensor], source: str
) -> Agreement | str:
    """Compare a layer with what runs between its ends, or say why it cannot be."""
    patch = layer.source.patch
    try:
        given = x = normal_inputs(layer.sizes.d_in)
        if patch is not None:
            given = patch.images()
            check_memory(8 * patch.width * given.numel(), "its patches", "pass a part of the model")
            x = patch.vectors(given)
        made = run(layer.source.location, layer.location, given.clone())
        found = in_float64(layer.read_layer())(x)
    except Exception as error:  # somebody else's operations, run apart from the rest
        return f"its part of the source does not run by itself ({type(error).__name__}: {error})"
    expected = made if patch is None or made.ndim < 3 else places(made)
    if expected.shape[:-2].numel() == 1:  # of a bias with axes of length 1
        expected = expected.reshape(expected.shape[-2:])
    if expected.shape != found.shape:
        return f"the source gives {tuple(expected.shape)} where the layer has {tuple(found.shape)}"
    return agreement("", source, expected, found)


def evaluated(
    runner: fx.Interpreter, order: dict[Node, int], start: Node, end: Node, x: Tensor
) -> Tensor:
    """Return the value of a node, given that of another one that it depends on."""
    needed, waiting = {end}, [end]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before is not start and before not in needed:
                needed.add(before)
                waiting.append(before)
    runner.env = {start: x}
    for node in sorted(needed, key=order.__getitem__):
        if node.op == "placeholder":
            raise LookupError(f"it also reads the argument {node.target!r}")
        runner.env[node] = runner.run_node(node)
    result: Tensor = runner.env[end]
    return result


# ---- a module that runs


@dataclass(frozen=True, eq=False)
class Watched:
    """A linear map as it ran."""

    path: str
    step: Step
    given: Tensor  # what entered it, (rows, in)
    made: Tensor  # what left it, (rows, out)


def watch(module: nn.Module, example: object, planted: Collection[str] = ()) -> list[Watched]:
    """Return the linear maps of a module in the order in which an example runs through them.

    What leaves those at the paths `planted` is replaced by `POINTS`, which reach far out, in as
    many runs as it takes to have all of them there.
    """
    numel = sum(parameter.numel() for parameter in module.parameters())
    check_memory(8 * numel, "a run in float64", "pass a part of the model")
    for dtype in (torch.float64, torch.float32):
        runner = copy.deepcopy(module).to("cpu", dtype)
        try:
            first = watch_once(module, runner, in_dtype(example, dtype), planted)
            seen = min((one.made.numel() for one in first if one.path in planted), default=1)
            runs = [first]
            for start in range(seen, len(POINTS) if planted else 0, seen):
                runner = copy.deepcopy(module).to("cpu", dtype)
                given = in_dtype(example, dtype)
                runs.append(watch_once(module, runner, given, planted, start))
            return [joined(parts) for parts in zip(*runs, strict=True)]
        except Exception as error:
            failure = error
    said = " ".join(str(failure).split())  # on one line
    raise UsageError(
        f"the example does not run through the {type(module).__name__} "
        f"({type(failure).__name__}: {said}): pass an input, a tuple of arguments or a mapping."
    ) from failure


@torch.no_grad()
def watch_once(
    module: nn.Module,
    runner: nn.Module,
    example: object,
    planted: Collection[str] = (),
    start: int = 0,
) -> list[Watched]:
    """Run a copy of a module, which is spent then; return inputs and outputs of its linear maps."""
    seen: dict[str, Watched] = {}
    for path, part in runner.named_modules():
        if (step := linear_step(path, module.get_submodule(path))) is None:
            continue

        def keep(
            _: nn.Module, args: Any, kwargs: Any, made: Any, path: str = path, step: Step = step
        ) -> Tensor | None:
            given = copy_of_input(args, kwargs)
            if path in seen or given is None or not isinstance(made, Tensor):
                return None
            if path in planted:
                # of no two maps the same points
                shift, stride = divmod([*planted].index(path), 3)
                places = (start + shift + torch.arange(made.numel())) * (1 + stride)
                points: Tensor = POINTS[places % len(POINTS)]
                made = points.to(made).reshape(made.shape)
            seen[path] = Watched(path, step, first_rows(given), first_rows(made))
            changed: Tensor = made
            return changed

        part.register_forward_hook(keep, with_kwargs=True)
    call(runner, example)
    return list(seen.values())


def joined(parts: Sequence[Watched]) -> Watched:
    """Return one linear map as it ran several times."""
    given, made = (torch.cat([getattr(one, name) for one in parts]) for name in ("given", "made"))
    return replace(parts[0], given=given, made=made)


def in_dtype(example: object, dtype: torch.dtype, device: torch.device | str = "cpu") -> object:
    """Return a copy of an example, its floating-point tensors in a dtype, all on a device."""
    if isinstance(example, Mapping):
        return {name: in_dtype(part, dtype, device) for name, part in example.items()}
    if isinstance(example, tuple):
        return tuple(in_dtype(part, dtype, device) for part in example)
    if isinstance(example, Tensor):
        kept = dtype if example.is_floating_point() else None
        return example.detach().to(device, kept, copy=True)
    return example


def first_rows(values: Tensor) -> Tensor:
    return values.detach().reshape(-1, values.shape[-1])[:ROWS].clone()


def observed_layers(watched: Sequence[Watched]) -> list[FoundLayer]:
    """Return the layers among linear maps that ran."""
    layers: list[FoundLayer] = []
    for index, last in enumerate(watched):
        before = watched[max(0, index - REACH) : index]
        neurons = ordinary(before, last) or gated(before, last)
        if neurons is None:
            continue
        layers.append(FoundLayer(Applied(last.step, neurons), neurons, last.path, None))
    return layers


def check_of_observed(layer: FoundLayer, watched: Sequence[Watched]) -> Agreement:
    """Return how far a layer among linear maps is from what ran."""
    of = {one.path: one for one in watched}
    given, last = of[str(layer.source.location)].given, of[str(layer.location)]
    found = in_float64(layer.read_layer())(given.double())
    return agreement("", "the module's own operations", last.made, found)


def those_alike(watched: Sequence[Watched], path: str) -> list[str]:
    """Return the linear maps near one that gave what it gave, itself among them."""
    (at,) = (place for place, one in enumerate(watched) if one.path == path)
    near = watched[max(0, at - REACH) : at + REACH + 1]
    return [one.path for one in near if torch.equal(one.made, watched[at].made)]


def ordinary(before: Sequence[Watched], last: Watched) -> Neurons | None:
    """Return φ(a) where it is what enters the last map, a what left an earlier one."""
    for one in reversed(before):
        if one.made.shape != last.given.shape:
            continue
        found = activation_through(
            one.made.reshape(-1), last.given.reshape(-1), TOLERANCES[last.given.dtype]
        )
        if found is not None and found.name != "identity":
            source = ValueSource(one.path, one.step.d_in)
            return Neurons(found, Applied(one.step, source), None, source, by_values=True)
    return None


@dataclass(frozen=True, eq=False)
class ObservedBranch:
    """One of two values that may be multiplied: a map, or a half of its outputs."""

    source: ValueSource
    given: Tensor
    step: Step
    made: Tensor


def gated(before: Sequence[Watched], last: Watched) -> Neurons | None:
    """Return φ(a) ∘ b where it is what enters the last map, a and b of the same input."""
    width = last.given.shape[1]
    branches = [branch for one in before for branch in branches_of(one, width)]
    for pair in reversed([*combinations(branches, 2)]):
        if pair[0].given.shape != pair[1].given.shape or pair[0].made.shape != last.given.shape:
            continue
        if not torch.equal(pair[0].given, pair[1].given):
            continue
        tolerance = TOLERANCES[last.given.dtype]
        fits = dict[Activation, tuple[ObservedBranch, ObservedBranch]]()
        for gate, value in (pair[::-1], pair):  # a product without one is the same both ways
            t, v, y = (one.reshape(-1) for one in (gate.made, value.made, last.given))
            fits |= dict.fromkeys(factors(t, v, y, tolerance), (gate, value))
        if (found := the_only(fits)) is not None:
            gate, value = fits[found]
            left, right = (Applied(one.step, gate.source) for one in (gate, value))
            return Neurons(found, left, right, gate.source, by_values=True)
    return None


def branches_of(one: Watched, width: int) -> list[ObservedBranch]:
    """Return a map, or the halves of its outputs, where they have a width."""
    source = ValueSource(one.path, one.step.d_in)
    if one.made.shape[1] == width:
        return [ObservedBranch(source, one.given, one.step, one.made)]
    if one.made.shape[1] != 2 * width:
        return []
    parts = ((0, width), (width, 2 * width))
    return [
        ObservedBranch(source, one.given, rows(one.step, *part), one.made[:, slice(*part)])
        for part in parts
    ]
