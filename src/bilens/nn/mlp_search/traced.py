"""Tracing a module with torch.fx, as far as it can be traced without running it."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from bilens.base.errors import UsageError

FEED_FORWARD = "_ff_block"  # the method of torch's transformer layers that is their MLP
TORCH_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class Tracer(fx.Tracer):
    """Looks into every module that has parts or weights of its own, but for linear maps."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Tell whether a module stays one operation."""
        bare = next(module.children(), None) is None
        if is_transposed_linear(module) or (bare and next(module.parameters(), None) is None):
            return True
        return super().is_leaf_module(module, qualified_name)


def traced(module: nn.Module) -> fx.Graph | None:
    """Return the graph of a module; None where it cannot be traced.

    A transformer layer of torch is traced in the method that is its MLP. What draws random numbers
    of its own cannot be traced: those of this one run would stand in the graph as constants.
    """
    tracer = Tracer()
    if isinstance(module, TORCH_LAYERS):
        tracer.traced_func_name = FEED_FORWARD
    before = torch.get_rng_state()
    try:
        graph = tracer.trace(module)
    except Exception:  # somebody else's code, run on values that are no tensors
        return None
    return graph if torch.equal(torch.get_rng_state(), before) else None


def is_transposed_linear(module: nn.Module) -> bool:
    """Tell whether a module is the linear map of GPT-2, (in, out), by its name and its weight."""
    return type(module).__name__ == "Conv1D" and not isinstance(module, nn.Conv1d)


def twin(module: nn.Module) -> nn.Module:
    """Return a copy with the same tensors, in evaluation mode and without hooks.

    Tracing and running it leaves no trace in the module itself.

    Raises:
        UsageError: If the module cannot be copied.
    """
    tensors = [*module.parameters(), *module.buffers()]
    try:
        copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({error}), and is not to be changed: pass "
            "the part of the model that is an MLP."
        ) from error
    for part in copied.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.clear()
    return copied.eval()
