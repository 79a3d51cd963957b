"""The tensors of one gated MLP in their roles, and the view of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_memory
from bilens.base.errors import CheckpointError
from bilens.io.stored.tensor import Store, StoredTensor
from bilens.nn.layer_view import LayerView

WORKING_COPIES = 6  # in float64: as stored, widened, and what a map makes of it


@dataclass(frozen=True)
class Layout:
    """The names of the linear maps of a gated MLP.

    Attributes:
        gate: the branch with the activation.
        value: the other branch; the same name where one map holds both, the gate's rows first.
        down: what follows the product.
    """

    gate: str
    value: str
    down: str

    @property
    def fused(self) -> bool:
        """Whether one map holds both branches."""
        return self.gate == self.value

    def names(self, bias: bool, weight: str = ".weight") -> list[str]:
        """Return the names of the tensors of an MLP, below its prefix."""
        maps = dict.fromkeys((self.gate, self.value, self.down))
        return [
            f"{name}{end}" for name in maps for end in ((weight, ".bias") if bias else (weight,))
        ]


@dataclass(frozen=True, eq=False)
class GatedTensors:
    """f(x) = down [φ(gate x + gate_bias) ∘ (value x + value_bias)] + down_bias, in files.

    Attributes:
        gate: (hidden, in).
        value: (hidden, in).
        down: (out, hidden).
        activation: φ.
        gate_bias: (hidden,); None is zero.
        value_bias: (hidden,); None is zero.
        down_bias: (out,); None is zero.
    """

    gate: StoredTensor
    value: StoredTensor
    down: StoredTensor
    activation: Activation
    gate_bias: StoredTensor | None = None
    value_bias: StoredTensor | None = None
    down_bias: StoredTensor | None = None

    @classmethod
    def of(
        cls, store: Store, prefix: str, layout: Layout, activation: Activation, bias: bool
    ) -> GatedTensors:
        """Return the MLP whose names begin with a prefix.

        Raises:
            CheckpointError: If its shapes do not fit together.
        """

        def named(name: str) -> StoredTensor | None:
            return store[f"{prefix}{name}.bias"] if bias else None

        gate, value = (store[f"{prefix}{name}.weight"] for name in (layout.gate, layout.value))
        gate_bias, value_bias = named(layout.gate), named(layout.value)
        if layout.fused:
            gate, value = halves(gate)
            if gate_bias is not None:
                gate_bias, value_bias = halves(gate_bias)
        down, down_bias = store[f"{prefix}{layout.down}.weight"], named(layout.down)
        return cls(gate, value, down, activation, gate_bias, value_bias, down_bias).checked()

    def checked(self) -> GatedTensors:
        """Return these tensors if their shapes fit together.

        Raises:
            CheckpointError: With the first one that does not.
        """
        if len(self.gate.shape) != 2 or 0 in self.gate.shape:
            raise wrong_shape(self.gate, "a matrix (hidden, in)")
        d_hidden, d_in = self.gate.shape
        if len(self.down.shape) != 2 or 0 in self.down.shape:
            raise wrong_shape(self.down, "a matrix (out, hidden)")
        d_out = self.down.shape[0]
        expected = {
            "value": (d_hidden, d_in),
            "down": (d_out, d_hidden),
            "gate_bias": (d_hidden,),
            "value_bias": (d_hidden,),
            "down_bias": (d_out,),
        }
        for role, shape in expected.items():
            tensor: StoredTensor | None = getattr(self, role)
            if tensor is not None and tensor.shape != shape:
                raise wrong_shape(tensor, f"{shape}, beside {self.gate.name!r}")
        return self

    @property
    def sizes(self) -> FactorSizes:
        """(d_out, d_hidden, d_in)."""
        return FactorSizes(self.down.shape[0], *self.gate.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds all of them exactly."""
        return reduce(torch.promote_types, [tensor.dtype for tensor in self.parts()])

    def parts(self) -> Iterator[StoredTensor]:
        """Yield the tensors that are there."""
        roles = (self.gate, self.value, self.down, self.gate_bias, self.value_bias, self.down_bias)
        yield from (tensor for tensor in roles if tensor is not None)

    def read(self) -> GLUWeights:
        """Return the layer in one dtype.

        Raises:
            CheckpointError: If a file is damaged or was changed.
            NonFiniteError: If a weight is NaN or infinite.
            MemoryLimitError: If it would not fit.
        """
        elements = sum(tensor.num_bytes // tensor.dtype.itemsize for tensor in self.parts())
        what = f"reading {self.gate.name!r} and the rest of its layer in float64"
        check_memory(WORKING_COPIES * 8 * elements, what, "use a larger machine")

        def read(tensor: StoredTensor | None) -> Tensor | None:
            return None if tensor is None else tensor.read().to(self.dtype)

        gate, value, down = (
            tensor.read().to(self.dtype) for tensor in (self.gate, self.value, self.down)
        )
        return GLUWeights(
            down,
            gate,
            value,
            self.activation,
            read(self.gate_bias),
            read(self.value_bias),
            constant=read(self.down_bias),
        )

    def view(self, about_input: str) -> LayerView:
        """Return the layer of a language model."""
        return LayerView(
            self.sizes,
            self.activation,
            self.dtype,
            self.read,
            reads="residual stream",
            about_input=about_input,
        )


def halves(both: StoredTensor) -> tuple[StoredTensor, StoredTensor]:
    """Return the gate's rows and the value's of a tensor that holds both.

    Raises:
        CheckpointError: If it cannot be cut in two.
    """
    if not both.shape or both.shape[0] % 2 != 0:
        raise wrong_shape(both, "an even number of rows, half of them the gate's")
    half = both.shape[0] // 2
    return both.rows(0, half), both.rows(half, 2 * half)


def wrong_shape(tensor: StoredTensor, expected: str) -> CheckpointError:
    """Return what is said of a tensor of the wrong shape."""
    path: Path = tensor.path
    return CheckpointError(
        f"{path}: tensor {tensor.name!r} has shape {tensor.shape}; expected {expected}: use the "
        "files that were saved together."
    )
