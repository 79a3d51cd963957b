"""One MLP in files: which tensors play which role, left where they lie until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.errors import CheckpointError
from bilens.base.memory import check_memory
from bilens.io.tensors import check_all_finite
from bilens.nn.layer_view import Gives, LayerView, Reads

WORKING_COPIES = 6  # in float64: as stored, widened, and what a map makes of it
Block = tuple[slice, ...]  # of the leading axes of a tensor; empty for all of it


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, or a block of one: known by its header, read on demand."""

    path: Path
    name: str
    shape: tuple[int, ...]  # of what is read
    dtype: torch.dtype
    fetch: Callable[[Block], Tensor]
    block: Block = ()

    def read(self) -> Tensor:
        """Return the tensor, finite and of the file that was opened."""
        tensor = self.fetch(self.block).reshape(self.shape)
        check_all_finite(self.path, {self.name: tensor})
        return tensor

    def one(self, index: int) -> StoredTensor:
        return replace(self, shape=self.shape[1:], block=(*self.block, slice(index, index + 1)))

    def rows(self, start: int, stop: int) -> StoredTensor:
        block = (*self.block, slice(start, stop))
        return replace(self, shape=(stop - start, *self.shape[1:]), block=block)

    def halves(self) -> tuple[StoredTensor, StoredTensor]:
        """Return the gate's rows and the other branch's of a tensor that holds both."""
        if not self.shape or self.shape[0] % 2 != 0:
            raise self.wrong_shape("an even number of rows, half of them the gate's")
        half = self.shape[0] // 2
        return self.rows(0, half), self.rows(half, 2 * half)

    def wrong_shape(self, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: tensor {self.name!r} has shape {self.shape}; expected {expected}: use "
            "the files that were saved together."
        )


Store = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class LayerLocation:
    """The tensors of one MLP, by name."""

    up: str  # reads the input; of a gated layer the branch without the activation
    down: str | None = None  # gives the output; None where the neurons themselves do
    # the branch with the activation; None for an ordinary layer; the name of `up` where one tensor
    # holds both, the gate's rows first
    gate: str | None = None
    up_bias: str | None = None  # added to what `up` reads; None for none
    down_bias: str | None = None  # added to the output; None for none
    gate_bias: str | None = None  # added to what `gate` reads; None for none
    name: str = "layer"  # that the layer is called by
    # of the layer in stacks of all experts; None where it has tensors of its own
    index: int | None = None
    transposed: bool = False  # whether the matrices are (in, out), as of GPT-2 or JAX

    @property
    def fused(self) -> bool:
        """Whether one tensor holds both branches."""
        return self.gate == self.up

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield role and tensor of what there is."""
        for field in fields(self)[:6]:
            tensor = getattr(self, field.name)
            if tensor is not None:
                yield field.name, tensor

    def tensors(self) -> list[str]:
        """Return the names of its tensors, each once."""
        return [*dict.fromkeys(tensor for _, tensor in self.named())]

    def __str__(self) -> str:
        return ", ".join(f"{role} = {tensor}" for role, tensor in self.named())


@dataclass(frozen=True)
class Layout:
    """The names of the linear maps of an MLP below its prefix; `gate` as in `LayerLocation`."""

    gate: str | None
    up: str
    down: str
    transposed: bool = False

    def at(
        self,
        name: str,
        prefix: str,
        bias: bool = False,
        *,
        weight: str = ".weight",
        index: int | None = None,
    ) -> LayerLocation:
        """Return the MLP whose names begin with a prefix."""
        gate = None if self.gate is None else f"{prefix}{self.gate}"
        up, down = f"{prefix}{self.up}", f"{prefix}{self.down}"
        return LayerLocation(
            f"{up}{weight}",
            f"{down}{weight}",
            None if gate is None else f"{gate}{weight}",
            f"{up}.bias" if bias else None,
            f"{down}.bias" if bias else None,
            f"{gate}.bias" if bias and gate is not None else None,
            name=name,
            index=index,
            transposed=self.transposed,
        )


@dataclass(frozen=True, eq=False)
class StoredMLP:
    """f(x) = down [φ(gate x + gate_bias) ∘ (up x + up_bias)] + down_bias; or φ(up x …) alone."""

    name: str
    up: StoredTensor
    down: StoredTensor | None
    activation: Activation
    gate: StoredTensor | None = None
    up_bias: StoredTensor | None = None
    down_bias: StoredTensor | None = None
    gate_bias: StoredTensor | None = None
    transposed: bool = False
    scale: float = 1.0

    @classmethod
    def of(
        cls, store: Store, location: LayerLocation, activation: Activation, scale: float = 1.0
    ) -> StoredMLP:
        """Return the MLP at a location, its shapes checked to fit together."""
        parts = {role: store[name] for role, name in location.named()}
        if location.index is not None:
            for stack in parts.values():
                if len(stack.shape) != 3 or stack.shape[0] <= location.index:
                    raise stack.wrong_shape(f"a stack of more than {location.index} matrices")
            parts = {role: stack.one(location.index) for role, stack in parts.items()}
        if location.fused:
            parts["gate"], parts["up"] = parts["up"].halves()
            if "up_bias" in parts:
                parts["gate_bias"], parts["up_bias"] = parts["up_bias"].halves()
        found = cls(
            name=location.name,
            activation=activation,
            transposed=location.transposed,
            scale=scale,
            **{"down": None, **parts},  # type: ignore[arg-type]
        )
        found.check_shapes()
        return found

    def check_shapes(self) -> None:
        first = self.up if self.gate is None else self.gate
        down = (self.down,) if self.down is not None else ()
        for matrix, sizes in ((first, "hidden, in"), *((one, "out, hidden") for one in down)):
            if len(matrix.shape) != 2 or 0 in matrix.shape:
                raise matrix.wrong_shape(f"a matrix ({sizes})")
        d_out, d_hidden, d_in = self.sizes
        expected = {
            "up": (d_hidden, d_in),
            "down": (d_out, d_hidden),
            "gate_bias": (d_hidden,),
            "up_bias": (d_hidden,),
            "down_bias": (d_out,),
        }
        for role, shape in expected.items():
            tensor: StoredTensor | None = getattr(self, role)
            shape = shape[::-1] if self.transposed else shape
            if tensor is not None and tensor.shape != shape:
                raise tensor.wrong_shape(f"{shape}, beside {first.name!r}")

    @property
    def sizes(self) -> FactorSizes:
        way = -1 if self.transposed else 1
        d_hidden, d_in = (self.up if self.gate is None else self.gate).shape[::way]
        return FactorSizes(
            d_hidden if self.down is None else self.down.shape[::way][0], d_hidden, d_in
        )

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds all of them exactly."""
        return reduce(torch.promote_types, [tensor.dtype for tensor in self.parts().values()])

    def parts(self) -> dict[str, StoredTensor]:
        """Return role → tensor of what there is."""
        roles = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias")
        found = {role: getattr(self, role) for role in roles}
        return {role: tensor for role, tensor in found.items() if tensor is not None}

    def raw(self) -> dict[str, Tensor]:
        """Return role → tensor in float64, as it lies in the file."""
        return {role: tensor.read().double() for role, tensor in self.parts().items()}

    def read(self) -> Layer:
        """Return the layer in one dtype; where the activation has a scale, in float64."""
        elements = sum(prod(tensor.shape) for tensor in self.parts().values())
        what = f"reading {self.up.name!r} and the rest of its layer in float64"
        check_memory(WORKING_COPIES * 8 * elements, what, "use a larger machine")
        dtype = self.dtype if self.scale == 1 else torch.float64
        parts = {role: tensor.read().to(dtype) for role, tensor in self.parts().items()}
        if self.transposed:
            parts = {role: part.T if part.ndim == 2 else part for role, part in parts.items()}
        up = parts["up"]
        down = parts["down"] if "down" in parts else torch.eye(len(up), dtype=dtype)
        if self.scale != 1:
            for role in ("up", "up_bias") if self.gate is None else ("gate", "gate_bias"):
                if role in parts:
                    parts[role] = self.scale * parts[role]
            down = down / self.scale
        biases = {"up_bias": parts.get("up_bias"), "gate_bias": parts.get("gate_bias")}
        constant = parts.get("down_bias")
        if self.gate is None:
            return MLPWeights(
                down, parts["up"], self.activation, biases["up_bias"], constant=constant
            )
        return GLUWeights(
            down,
            parts["gate"],
            parts["up"],
            self.activation,
            biases["gate_bias"],
            biases["up_bias"],
            constant=constant,
        )

    def view(
        self, about_input: str = "", reads: Reads = "residual stream", gives: Gives = "outputs"
    ) -> LayerView:
        return LayerView(
            self.sizes,
            self.activation,
            self.dtype,
            self.read,
            self.gate is not None,
            reads,
            gives,
            about_input,
            self.name,
        )
