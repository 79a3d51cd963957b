"""Layers of neurons: the bilinear layer, the bilinear MLP, and the ordinary MLP beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, in_dtype
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.base.option_rules import Gate as Gate
from bilens.nn.agreement import AS_IT_RUNS, ROWS, agreement, inputs_far_out
from bilens.nn.real_run import (
    foreign_methods,
    refuse_what_acts,
    run_as_owner,
    watch_what_acts,
    what_may_differ,
)

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(functional, name) for name in get_args(Gate)
}


def check_gate(gate: Gate | None) -> Gate | None:
    if gate is not None and gate not in get_args(Gate):
        raise UsageError(
            f"gate={gate!r} is not known: use None (bilinear), {', '.join(get_args(Gate))}."
        )
    return gate


def check_linear(name: str, part: nn.Module, bias: bool) -> None:
    """Refuse a part that was replaced by one of which more than a weight would have to be read."""
    plain = isinstance(part, nn.Linear) and type(part).forward is nn.Linear.forward
    if not plain or (part.bias is not None) != bias:
        raise UsageError(
            f"{name} is {part}; expected a plain torch.nn.Linear {'with' if bias else 'without'} "
            "a bias, as it was built: what another part adds is in no map. Multiply it into the "
            "weight, or read the model with bl.from_module."
        )


def compare_with_run(
    module: nn.Module,
    read: Callable[[], Sequence[QuadraticMap]],
    *expected: tuple[nn.Module, type[nn.Module]],
) -> None:
    """Compare maps, one behind the other, with a module that hooks or methods may have changed.

    `expected` are parts, each with the class whose forward it should have.
    """
    own, why = foreign_methods(module), what_may_differ(module)
    if not own and not why and all(type(one).forward is kind.forward for one, kind in expected):
        return
    like, maps = next(module.parameters()), read()
    x = inputs_far_out(maps[0].sizes.d_in).to(like)
    with watch_what_acts(module) as acted:
        made, found = run_as_owner(module, x)[0], x.double()
    for f in maps:
        found = f.detach().to(torch.float64)(found)
    tolerance = max(1e-4, 16 * torch.finfo(like.dtype).eps)
    for rows, ours in zip(torch.split(made, ROWS), torch.split(found, ROWS), strict=True):
        kept = rows.isfinite().all(dim=-1)
        if bool(kept.any()):
            name = type(module).__name__
            agreement(name, AS_IT_RUNS, rows[kept], ours[kept], tolerance).required(because=why)
    refuse_what_acts(module, [*acted, *own])


class BilinearLayer(nn.Module):
    """g(x) = gate(left x) ∘ (right x), with an optional bias in each branch.

    `gate=None` is the bilinear layer, exactly quadratic; "relu", "gelu" (erf form) and "silu" make
    it the hidden part of ReGLU, GEGLU and SwiGLU.

    Args:
        d_input: width of the input.
        d_output: width of the product.
        bias: whether both branches have a bias.
        gate: the activation on the left branch.

    Raises: UsageError if a width is not a positive integer, or the gate is not one of the above.

    Source: arXiv:2410.08417, equations 1 and 2.
    """

    def __init__(
        self, d_input: int, d_output: int, bias: bool = False, gate: Gate | None = None
    ) -> None:
        super().__init__()
        d_input = check_count("d_input", d_input, minimum=1)
        d_output = check_count("d_output", d_output, minimum=1)
        self.gate = check_gate(gate)
        self.has_bias = bias
        self.left = nn.Linear(d_input, d_output, bias=bias)
        self.right = nn.Linear(d_input, d_output, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return g(x) for inputs along the last axis, (..., d_input) → (..., d_output)."""
        left: Tensor = self.left(x)
        if self.gate is not None:
            left = GATES[self.gate](left)
        product: Tensor = left * self.right(x)
        return product

    def product_map(self, down: Tensor) -> QuadraticMap:
        """Return x ↦ down·g(x), exact, sharing the weights of this layer.

        Raises: NotQuadraticError if the layer is gated.
        """
        if self.gate is not None:
            raise NotQuadraticError(
                f"this layer has the gate {self.gate!r}, so its output is not a quadratic form of "
                "its input: build or train it with gate=None, or read its weights left, right "
                "and down yourself."
            )
        for name, part in (("left", self.left), ("right", self.right)):
            check_linear(name, part, self.has_bias)
        f = QuadraticMap(BilinearTensor(down, self.left.weight, self.right.weight))
        return f.with_biases(self.left.bias, self.right.bias) if self.has_bias else f

    def quadratic_map(self) -> QuadraticMap:
        """Return g as a `QuadraticMap`, exact, biases multiplied out.

        The output axis is the hidden axis, so `down` is an identity: O(d_output²) memory.

        Raises: NotQuadraticError if the layer is gated; UsageError if a part was replaced by
            another than a plain linear map; NumericalError if hooks or a forward of its own make it
            compute something else.
        """
        weight = self.left.weight
        f = self.product_map(torch.eye(len(weight), dtype=weight.dtype, device=weight.device))
        compare_with_run(self, lambda: [f], (self, BilinearLayer))
        return f


class BilinearMLP(BilinearLayer):
    """f(x) = down(gate(left x) ∘ (right x)) [+ skip x]: maps (..., d_model) to (..., d_output).

    It takes the place of any MLP block that acts on the last axis. At equal parameters an
    ordinary block of hidden width 4·d corresponds to d_hidden = 8·d/3.

    Args:
        d_model: width of the input.
        d_hidden: number of products.
        d_output: width of the output; None is d_model.
        bias: whether left, right and down have biases.
        gate: None (bilinear), "relu", "gelu" or "silu", on the left branch.
        skip: whether there is a linear path past the products.

    Raises: UsageError if a width is not a positive integer, or the gate is not one of the above.

    Source: arXiv:2410.08417, equation 1; arXiv:2002.05202 for the family.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        d_output: int | None = None,
        bias: bool = False,
        gate: Gate | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__(d_model, d_hidden, bias=bias, gate=gate)
        width = check_count("d_output", d_model if d_output is None else d_output, minimum=1)
        self.down = nn.Linear(self.left.out_features, width, bias=bias)
        self.skip = nn.Linear(d_model, width, bias=False) if skip else None

    @classmethod
    def from_weights(cls, layer: GLUWeights) -> BilinearMLP:
        """Return a layer of two branches as a frozen block in float32 with biases."""
        d_out, d_hidden = layer.down.shape
        gate: Any = None if layer.phi.name == "identity" else layer.phi.name
        block = cls(layer.d_in, d_hidden, d_out, True, gate, layer.linear is not None)
        parts = {"left": layer.gate, "right": layer.value, "down": layer.down, "skip": layer.linear}
        biases = {"left": layer.gate_bias, "right": layer.value_bias, "down": layer.constant}
        state = {f"{key}.weight": one for key, one in parts.items() if one is not None}
        for key, bias in biases.items():
            zeros = torch.zeros(len(state[f"{key}.weight"]))
            state[f"{key}.bias"] = zeros if bias is None else bias
        block.load_state_dict(state, strict=True)
        return block.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x) for inputs along the last axis, (..., d_model) → (..., d_output)."""
        y: Tensor = self.down(super().forward(x))
        return y if self.skip is None else y + self.skip(x)

    def quadratic_map(self) -> QuadraticMap:
        """Return f as a `QuadraticMap`, exact, sharing the weights; biases multiplied out.

        Raises: NotQuadraticError if the block is gated; UsageError, NumericalError as
            `BilinearLayer.quadratic_map`.
        """
        check_linear("down", self.down, self.has_bias)
        if self.skip is not None:
            check_linear("skip", self.skip, bias=False)
        f = self.product_map(self.down.weight).plus_affine(
            None if self.skip is None else self.skip.weight,
            self.down.bias if self.has_bias else None,
        )
        compare_with_run(self, lambda: [f], (self, BilinearMLP))
        return f


class PlainLayer(nn.Module):
    """A layer of plain weights of any kind, frozen, in float32."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = in_dtype(layer, torch.float32)
        parts = {name: one for name, one in vars(self.layer).items() if isinstance(one, Tensor)}
        self.parts = nn.ParameterDict(parts).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = replace(self.layer, **self.parts)(x)
        return y


class Experts(nn.Module):
    """Experts of a mixture, each a block of its own, in the place of the stack of transformers."""

    def __init__(self, experts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Return Σ_k weights[:, k] · expert_{index[:, k]}(x), (rows, d) → (rows, d)."""
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            row, slot = (index == number).nonzero(as_tuple=True)
            y = y.index_add(0, row, (expert(x[row]) * weights[row, slot, None]).to(y.dtype))
        return y


class MLP(nn.Module):
    """f(x) = down(gelu(up x)), (..., d_model) → (..., d_model): what gated blocks are compared to.

    Args:
        d_model: width of the input and of the output.
        d_hidden: number of neurons; 3/2 of a gated block's has as many weights.
        bias: whether up and down have biases.

    Raises: UsageError if a width is not a positive integer.
    """

    def __init__(self, d_model: int, d_hidden: int, bias: bool = False) -> None:
        super().__init__()
        d_model = check_count("d_model", d_model, minimum=1)
        d_hidden = check_count("d_hidden", d_hidden, minimum=1)
        self.has_bias = bias
        self.up = nn.Linear(d_model, d_hidden, bias=bias)
        self.down = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x) for inputs along the last axis."""
        y: Tensor = self.down(functional.gelu(self.up(x)))
        return y

    def quadratic_map(self) -> NoReturn:
        """Refuse: the activation is no polynomial.

        Raises:
            NotQuadraticError: Always.
        """
        raise NotQuadraticError(
            "an ordinary MLP with GELU is not a quadratic form of its input: build or train the "
            'model with mlp_type="gated" and gate=None.'
        )
