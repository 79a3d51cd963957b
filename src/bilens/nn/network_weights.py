"""The weights of a module as layers of the two kinds that can be fitted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.algebra.closest.activation import Activation
from bilens.algebra.closest.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.errors import UsageError
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer
from bilens.nn.mlp import BilinearMLP
from bilens.nn.ordinary_mlp import MLP

PASSED_OVER = (nn.Identity, nn.Dropout, nn.Flatten)  # they change nothing of rows in evaluation


def network_weights(module: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a module, first to last, in float64 and cut from the graph of gradients.

    Args:
        module: a layer, MLP or classifier of bilens, or a `torch.nn.Sequential` of linear maps and
            activations (with dropout, flattening and identities passed over).

    Raises:
        UsageError: If the module, or a part of it, is none of these.
    """
    wide = copy.deepcopy(module).cpu().double().requires_grad_(False)
    if isinstance(wide, BilinearClassifier):
        return tuple(classifier_layers(wide))
    if isinstance(wide, BilinearMLP):
        return (gated(wide, wide.down.weight, constant=wide.down.bias),)
    if isinstance(wide, BilinearLayer):
        return (gated(wide, identity(wide.left.out_features)),)
    if isinstance(wide, MLP):
        up, down = wide.up, wide.down
        return (
            MLPWeights(down.weight, up.weight, Activation("gelu"), up.bias, constant=down.bias),
        )
    if isinstance(wide, nn.Sequential):
        return tuple(sequential_layers(wide))
    raise UsageError(
        f"a {type(module).__name__} is no MLP that can be fitted: pass a layer or classifier of "
        "bilens, a torch.nn.Sequential of Linear and activations, or plain weights "
        "(bl.MLPWeights, bl.GLUWeights); of a transformer, one of its MLPs."
    )


def identity(width: int) -> Tensor:
    """Return an identity matrix, the `down` of a layer that is not followed by a linear map."""
    return torch.eye(width, dtype=torch.float64)


def gated(
    layer: BilinearLayer,
    down: Tensor,
    *,
    embed: Tensor | None = None,
    linear: Tensor | None = None,
    constant: Tensor | None = None,
) -> GLUWeights:
    """Return a layer of ours between a linear map before it and one behind it."""
    left, right = layer.left.weight, layer.right.weight
    return GLUWeights(
        down,
        left if embed is None else left @ embed,
        right if embed is None else right @ embed,
        Activation("identity" if layer.gate is None else layer.gate),
        layer.left.bias,
        layer.right.bias,
        linear,
        constant,
    )


def classifier_layers(model: BilinearClassifier) -> Iterator[GLUWeights]:
    """Yield the layers of a classifier; the first contains the embedding, the last the head."""
    last = len(model.layers) - 1
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, BilinearLayer), "built in __init__"
        embed = model.embed.weight if index == 0 else None
        down = model.head.weight if index == last else identity(layer.left.out_features)
        linear = None
        if model.residual:
            linear = down if embed is None else down @ embed
        yield gated(layer, down, embed=embed, linear=linear)


ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Activation]] = {
    nn.ReLU: lambda _: Activation("relu"),
    nn.LeakyReLU: lambda part: Activation("leaky_relu", float(part.negative_slope)),  # type: ignore[arg-type]
    nn.GELU: lambda part: Activation("gelu" if part.approximate == "none" else "gelu_tanh"),
    nn.SiLU: lambda _: Activation("silu"),
    nn.Tanh: lambda _: Activation("tanh"),
    nn.Sigmoid: lambda _: Activation("sigmoid"),
}


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ weight x + bias; None is the identity, or no bias."""

    weight: Tensor | None = None
    bias: Tensor | None = None

    def then(self, linear: nn.Linear) -> Affine:
        """Return this map followed by another one."""
        weight: Tensor = linear.weight
        bias: Tensor | None = linear.bias
        if self.bias is not None:
            moved = weight @ self.bias
            bias = moved if bias is None else moved + bias
        return Affine(weight if self.weight is None else weight @ self.weight, bias)


def sequential_layers(module: nn.Sequential) -> Iterator[MLPWeights]:
    """Yield the layers of a sequence: each activation with the linear map before it.

    The last one also has the linear map behind it.

    Raises:
        UsageError: If a part is neither linear nor a known activation, or none is an activation
            behind a linear map.
    """
    here = Affine()
    held: tuple[Affine, Activation] | None = None
    for part in flattened(module):
        if isinstance(part, nn.Linear):
            here = here.then(part)
            continue
        if type(part) not in ACTIVATIONS:
            known = ", ".join(kind.__name__ for kind in ACTIVATIONS)
            raise UsageError(
                f"the Sequential has a {type(part).__name__}; expected Linear and the activations "
                f"{known}: pass the part of the model that is an MLP."
            )
        if here.weight is None:
            raise UsageError(
                f"the Sequential has a {type(part).__name__} that no Linear stands before: "
                "expected Linear, activation, Linear, …"
            )
        if held is not None:
            yield neurons(*held)
        held, here = (here, ACTIVATIONS[type(part)](part)), Affine()
    if held is None:
        raise UsageError("the Sequential has no activation: it is no MLP, but a linear map.")
    yield neurons(*held, here)


def neurons(up: Affine, activation: Activation, down: Affine | None = None) -> MLPWeights:
    """Return neurons between two linear maps."""
    weight = up.weight
    assert weight is not None
    behind = None if down is None else down.weight
    return MLPWeights(
        identity(len(weight)) if behind is None else behind,
        weight,
        activation,
        up.bias,
        constant=None if down is None else down.bias,
    )


def flattened(module: nn.Sequential) -> Iterator[nn.Module]:
    """Yield the parts of a sequence and of sequences in it, without those that change nothing."""
    for part in module:
        if isinstance(part, nn.Sequential):
            yield from flattened(part)
        elif not isinstance(part, PASSED_OVER):
            yield part
