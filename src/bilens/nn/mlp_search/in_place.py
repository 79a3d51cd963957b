"""Operations in place, which change values that a graph goes on using under their old names."""

import copy
import inspect
import operator

import torch
from torch import fx, nn
from torch.fx.node import Node

# What returns new memory. The result of anything else may be a view of what went in.
NEW = {
    "linear", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "conv3d", "embedding",
    "add", "sub", "mul", "truediv", "div", "pow", "neg", "square", "exp", "sqrt", "rsqrt", "abs",
    "sum", "mean", "cat", "stack", "clone", "softmax", "log_softmax", "relu", "gelu", "silu",
    "tanh", "sigmoid", "leaky_relu", "elu", "layer_norm", "batch_norm", "rms_norm",
    "scaled_dot_product_attention", "size", "dim", "numel", "len",
}  # fmt: skip
VIEWS = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)


def use_results_in_place(root: nn.Module, graph: fx.Graph) -> str | None:
    """Let what comes after an operation in place use its result.

    Returns: None, or, where what is changed may have other names, which operation it is, in words.
    """
    in_place = [node for node in graph.nodes if works_in_place(root, node)]
    order = {node: index for index, node in enumerate(graph.nodes)} if in_place else {}
    for node in in_place:
        out = node.kwargs.get("out")
        changed = out if isinstance(out, Node) else node.all_input_nodes[0]
        later = {user for user in changed.users if order[user] > order[node]}
        changed.replace_all_uses_with(node, delete_user_cb=later.__contains__)
        views = [one for one in changed.users if one is not node and not is_new(root, one)]
        own = changed in in_place or changed.op == "placeholder" or is_new(root, changed)
        if views or not own:
            return f"{node.name} works in place on what may have another name too"
    return None


def works_in_place(root: nn.Module, node: Node) -> bool:
    """Tell whether an operation changes what it is given."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return bool(getattr(module, "inplace", False)) or changes_its_input(module)
    if node.op not in ("call_method", "call_function") or not node.all_input_nodes:
        return False
    name = str(getattr(node.target, "__name__", node.target))
    if getattr(node.target, "__module__", None) == operator.add.__module__:
        return name == "setitem" or (name[0] == "i" and hasattr(operator, name[1:]))
    if name.endswith("__"):
        return name.startswith(("__i", "__setitem"))
    return name.endswith("_") or "out" in node.kwargs or asked_in_place(node)


def asked_in_place(node: Node) -> bool:
    """Tell whether a function is told to work in place, by name or by position."""
    try:
        said = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # written in C, or a method
        return bool(node.kwargs.get("inplace"))
    return bool(said.arguments.get("inplace"))


def changes_its_input(module: nn.Module) -> bool:
    """Tell whether a small module of somebody else's changes what it is given."""
    if type(module).__module__.startswith("torch.nn.") or next(module.children(), None):
        return False
    given = torch.ones(1, 8)
    try:
        with torch.no_grad():
            copy.deepcopy(module).cpu()(given)
    except Exception:  # of another input
        return False
    return given._version > 0


def is_new(root: nn.Module, node: Node) -> bool:
    """Tell whether the result of an operation is memory of its own, for sure."""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        plain = not works_in_place(root, node) and not isinstance(module, VIEWS)
        return plain and type(module).__module__.startswith("torch.nn.")
    name = str(getattr(node.target, "__name__", node.target))
    return name in NEW or (name == "getattr" and node.args[1] not in ("T", "mT", "data"))
