"""One MLP in files: which tensors play which role, left where they lie until they are asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import CLAMPED, Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_loaded
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.memory import check_memory
from bilens.io.byte_ranges import Block, Region, Span, soon_read
from bilens.io.tensors import check_all_finite, read_codes, tensor_of
from bilens.nn.layer_view import Gives, LayerView, Reads
from bilens.records.sweep import Span as StoredSpan, StoredPart

WORKING_COPIES = 3  # in float64: as stored, widened, and what a map makes of it


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file, or a block of one: known by its header, read on demand."""

    path: Path
    name: str
    shape: tuple[int, ...]  # of what is read
    dtype: torch.dtype
    fetch: Callable[[Block], Tensor]
    block: Block = ()
    added_to: torch.dtype | None = None  # of the tensor that an adapter is added to, in float64
    rescaled: bool = False  # by DoRA, row by row
    # the bytes that a block is made of; none for what no file holds byte by byte
    locate: Callable[[Block], tuple[Span, ...]] = lambda _: ()
    quantised_as: str = ""  # the format's name of codes that `read_tensor` turns into numbers
    is_weight: bool = True  # else it is compared with another file's alone, and never counted
    readable: bool = True  # or its name and shape alone are known
    made_of: tuple[str, ...] = ()  # other tensors of the file, such as the scales of codes
    grid: Callable[[Block], Tensor] | None = None  # of 32 codes each the lowest level and the step
    stands_as: str = ""  # the name that its graph tells: inputs are its rows
    called: str = ""  # by its file, where a function that it is in is called under another name

    @property
    def storage(self) -> str:
        """How the file holds the numbers: their dtype, or the format's name of their codes."""
        return self.quantised_as or str(self.added_to or self.dtype).removeprefix("torch.")

    @property
    def spans(self) -> tuple[tuple[str, int, int], ...]:
        """The bytes that `read_tensor` reads: file, first byte, the one behind the last."""
        return tuple((file.path.name, low, high) for file, low, high in self.locate(self.block))

    def read_tensor(self) -> Tensor:
        """Return the tensor, finite and of the file that was opened."""
        tensor = self.fetch(self.block).reshape(self.shape)
        check_all_finite(self.path, {self.name: tensor})
        return tensor

    def at_index(self, index: int) -> StoredTensor:
        return replace(self, shape=self.shape[1:], block=(*self.block, slice(index, index + 1)))

    def rows(self, start: int, stop: int) -> StoredTensor:
        block = (*self.block, slice(start, stop))
        return replace(self, shape=(stop - start, *self.shape[1:]), block=block)

    def as_vector(self) -> StoredTensor:
        """Return numbers along one axis without the axes of length 1 around it."""
        fetch: Callable[[Block], Tensor] = lambda block: self.fetch(()).flatten()[block]  # noqa: E731
        return replace(self, shape=(prod(self.shape),), fetch=fetch)

    def halves(self) -> tuple[StoredTensor, StoredTensor]:
        """Return the first and the second half of the rows."""
        if not self.shape or self.shape[0] % 2 != 0:
            raise self.wrong_shape("an even number of rows, half of them the gate's")
        half = self.shape[0] // 2
        return self.rows(0, half), self.rows(half, 2 * half)

    def halves_of_columns(self, in_turns: bool) -> tuple[StoredTensor, StoredTensor]:
        """Return the columns of two branches, one behind the other or in turns."""
        if not self.shape or self.shape[-1] % 2 != 0:
            raise self.wrong_shape("an even number of columns, half of them the gate's")
        half = self.shape[-1] // 2
        apart, turns = (slice(0, half), slice(half, None)), (slice(0, None, 2), slice(1, None, 2))
        parts = turns if in_turns else apart
        fetches = (partial(columns, self.fetch, part) for part in parts)
        shape = (*self.shape[:-1], half)
        first, second = (replace(self, shape=shape, fetch=fetch) for fetch in fetches)
        return first, second

    def wrong_shape(self, expected: str) -> CheckpointError:
        said = f"{self.path}: tensor {self.name!r} has shape {self.shape}; expected {expected}"
        return CheckpointError(f"{said}: use the files that were saved together.")


def columns(fetch: Callable[[Block], Tensor], part: slice, block: Block) -> Tensor:
    return fetch(block)[..., part]


Store = Mapping[str, StoredTensor]


def headers_of(store: Store) -> dict[str, str]:
    """Return, by name of a file, the SHA-256 of what is known of it without its weights.

    That is names, dtypes, shapes and places of its tensors, its size and its version.
    """
    found: dict[str, Any] = {}
    for name in sorted(store):
        one = store[name]
        for file, start, stop in one.locate(()):
            said = f"{file.size} {file.version}\n".encode()
            digest = found.setdefault(file.path.name, hashlib.sha256(said))
            digest.update(f"{name} {one.dtype} {one.shape} {start} {stop}\n".encode())
    return {name: digest.hexdigest() for name, digest in found.items()}


def module_tensors(module: nn.Module) -> Store:
    """Return every parameter and buffer of a module in memory, one that is shared once."""
    found, seen = dict[str, StoredTensor](), set[int]()
    state = module.state_dict(keep_vars=True)
    pairs = {f"{n}.{k}": x for n, v in state.items() if type(v) is tuple for k, x in enumerate(v)}
    for name, tensor in {**state, **pairs}.items():  # quantised weights in pairs with their biases
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            plain = tensor.dequantize() if tensor.is_quantized else tensor
            path, shape = Path(type(module).__name__), tuple(tensor.shape)
            fetch = partial(block_now, module, name, tensor, plain)
            fetch = partial(block_of, plain) if name in pairs else fetch  # unpacked at each look
            found[name] = StoredTensor(path, name, shape, plain.dtype, fetch)
    return found


def block_now(module: nn.Module, name: str, tensor: Tensor, plain: Tensor, block: Block) -> Tensor:
    """Return a block of a tensor; UsageError if it is a parameter whose name another has by now."""
    try:
        now = attrgetter(name)(module)
    except AttributeError:  # a module may name its tensors otherwise
        now = module.state_dict(keep_vars=True).get(name)
    if now is not tensor and isinstance(tensor, nn.Parameter):
        raise UsageError(f"{name} of the module was replaced since it was read: read it again.")
    return block_of(plain, block)


def block_of(tensor: Tensor, block: Block) -> Tensor:
    return check_loaded("the tensor", tensor).detach()[block].cpu()


def stored_array(path: Path, name: str, array: Any) -> StoredTensor:
    """Return an array of numpy in memory, of whatever type."""
    data, kind = tensor_of(array)
    shape, fetch = tuple(data.shape), data.__getitem__
    return StoredTensor(path, name, shape, data.dtype, fetch, quantised_as=kind, is_weight=not kind)


def stored_codes(name: str, shape: tuple[int, ...], kind: str, place: Region) -> StoredTensor:
    """Return a tensor of a type that is not known: of each number its bits, as a whole number.

    Where numbers do not have as many bits each, its bytes.
    """
    bits, count = 8 * prod(place.shape), prod(shape)
    width = bits // max(count, 1)
    if width * count != bits or width > 64:
        shape, kind, width = place.shape, f"{kind} {shape}", 8
    fetch = partial(read_codes, place, shape, width)
    dtype, spans = torch.uint8 if width <= 8 else torch.int64, place.spans(())
    found = StoredTensor(place.file.path, name, shape, dtype, fetch, quantised_as=kind)
    return replace(found, locate=lambda _: spans)


@dataclass(frozen=True)
class MLPLocation:
    """The tensors of one MLP, by name."""

    up: str  # reads the input; of a gated layer the branch without the activation
    down: str | None = None  # gives the output; None where the neurons themselves do
    # the branch with the activation; None for an ordinary layer; the name of `up` where one tensor
    # holds both
    gate: str | None = None
    up_bias: str | None = None  # added to what `up` reads; None for none
    down_bias: str | None = None  # added to the output; None for none
    gate_bias: str | None = None  # added to what `gate` reads; None for none
    name: str = "layer"  # that the layer is called by
    # of the layer in stacks of all experts; None where it has tensors of its own
    index: int | None = None
    transposed: bool = False  # whether the matrices are (in, out), as of GPT-2 or JAX
    interleaved: bool = False  # whether the branches of one tensor take turns, as of gpt-oss
    gate_last: bool = False  # whether one tensor of both branches has the gate behind the other

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

    def roles(self) -> dict[str, str]:
        """Return role → tensor as a caller says it, one role for a tensor of both branches."""
        found = dict(self.named())
        if not self.fused:
            return found
        both = "up_gate" if self.gate_last else "gate_up"
        kept = {role: name for role, name in found.items() if not role.startswith("gate")}
        return {role.replace("up", both): name for role, name in kept.items()}

    def __str__(self) -> str:
        return ", ".join(f"{role} = {tensor}" for role, tensor in self.roles().items())


@dataclass(frozen=True)
class Layout:
    """The names of the linear maps of an MLP below its prefix; `gate` as in `MLPLocation`."""

    gate: str | None
    up: str
    down: str
    transposed: bool = False
    interleaved: bool = False
    bias: str = ".bias"  # what the name of a bias ends with

    def at(
        self,
        name: str,
        prefix: str,
        bias: bool = False,
        *,
        weight: str = ".weight",
        index: int | None = None,
    ) -> MLPLocation:
        """Return the MLP whose names begin with a prefix."""
        up, down = f"{prefix}{self.up}", f"{prefix}{self.down}"
        gate = None if self.gate is None else f"{prefix}{self.gate}"
        return MLPLocation(
            f"{up}{weight}",
            f"{down}{weight}",
            None if gate is None else f"{gate}{weight}",
            f"{up}{self.bias}" if bias else None,
            f"{down}{self.bias}" if bias else None,
            f"{gate}{self.bias}" if bias and gate is not None else None,
            name=name,
            index=index,
            transposed=self.transposed,
            interleaved=self.interleaved,
        )


@dataclass(frozen=True, eq=False)
class StoredMLP:
    """f(x) = down [φ(gate x + gate_bias) ∘ (up x + up_bias)] + down_bias; without a gate φ(up x …).

    With the clamped gate of gpt-oss, (up x + up_bias) is between −7 and 7, and 1 is added to it.
    Where `scale` is not 1, φ(t) stands for φ(scale · t) / scale, and the numbers go into the
    weights. Matrices are (out, in), or (in, out) where they are `transposed`.
    """

    name: str
    parts: Mapping[str, StoredTensor]  # by role; there is no `down` where the neurons are given
    activation: Activation
    transposed: bool = False
    scale: float = 1.0

    @classmethod
    def at_location(
        cls, store: Store, location: MLPLocation, activation: Activation, scale: float = 1.0
    ) -> StoredMLP:
        """Return the MLP at a location, its shapes checked to fit together."""
        parts = {role: store[name] for role, name in location.named()}
        if location.index is not None:
            for role, stack in parts.items():
                axes, what = (2, "biases") if role.endswith("_bias") else (3, "matrices")
                if len(stack.shape) != axes or stack.shape[0] <= location.index:
                    raise stack.wrong_shape(f"a stack of more than {location.index} {what}")
            parts = {role: stack.at_index(location.index) for role, stack in parts.items()}
        if location.fused:
            for end in ("", "_bias"):
                if both := parts.get(f"up{end}"):
                    by_rows = not location.transposed and not location.interleaved
                    cut = both.halves() if by_rows else both.halves_of_columns(location.interleaved)
                    cut = cut[::-1] if location.gate_last else cut
                    parts[f"gate{end}"], parts[f"up{end}"] = cut
        found = cls(location.name, parts, activation, location.transposed, scale)
        found.check_shapes()
        return found

    @property
    def first(self) -> StoredTensor:
        """The matrix that the activation is behind."""
        return self.parts.get("gate", self.parts["up"])

    def check_shapes(self) -> None:
        for matrix, sizes in ((self.first, "hidden, in"), (self.parts.get("down"), "out, hidden")):
            if matrix is not None and (len(matrix.shape) != 2 or 0 in matrix.shape):
                raise matrix.wrong_shape(f"a matrix ({sizes})")
        d_out, d_hidden, d_in = self.sizes
        expected: dict[str, tuple[int, ...]] = {
            "gate": (d_hidden, d_in),
            "up": (d_hidden, d_in),
            "down": (d_out, d_hidden),
            "gate_bias": (d_hidden,),
            "up_bias": (d_hidden,),
            "down_bias": (d_out,),
        }
        for role, tensor in self.parts.items():
            shape = expected[role][::-1] if self.transposed else expected[role]
            if tensor.shape != shape:
                raise tensor.wrong_shape(f"{shape}, beside {self.first.name!r}")

    @property
    def sizes(self) -> FactorSizes:
        way = -1 if self.transposed else 1
        d_hidden, d_in = self.first.shape[::way]
        d_out = self.parts["down"].shape[::way][0] if "down" in self.parts else d_hidden
        return FactorSizes(d_out, d_hidden, d_in)

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds all of them exactly; of biases and 1, float32 or more."""
        least = [torch.float32] if self.activation.name == CLAMPED else []
        return reduce(torch.promote_types, [t.dtype for t in self.parts.values()] + least)

    def read_layer(self) -> Layer:
        """Return the layer in one dtype; where a number goes into the weights, in float64."""
        elements = sum(prod(tensor.shape) for tensor in self.parts.values())
        what = f"reading {self.parts['up'].name!r} and the rest of its layer in float64"
        check_memory(WORKING_COPIES * 8 * elements, what, "use a larger machine")
        sums = self.scale != 1 or self.activation.name == CLAMPED
        dtype = torch.float64 if sums else self.dtype
        stored = self.parts.values()
        with soon_read(span for tensor in stored for span in tensor.locate(tensor.block)):
            parts = {role: tensor.read_tensor().to(dtype) for role, tensor in self.parts.items()}
        if self.transposed:
            parts = {role: part.T if part.ndim == 2 else part for role, part in parts.items()}
        down = parts["down"] if "down" in parts else torch.eye(len(parts["up"]), dtype=dtype)
        activated = "gate" if "gate" in parts else "up"
        if self.scale != 1:
            for role in {activated, f"{activated}_bias"} & {*parts}:
                parts[role] = self.scale * parts[role]
            down = down / self.scale
        up, up_bias, constant = parts["up"], parts.get("up_bias"), parts.get("down_bias")
        if self.activation.name == CLAMPED:
            up_bias = 1 + (up.new_zeros(len(up)) if up_bias is None else up_bias)
        if activated == "up":
            return MLPWeights(down, up, self.activation, up_bias, constant=constant)
        gate, bias = parts["gate"], parts.get("gate_bias")
        return GLUWeights(down, gate, up, self.activation, bias, up_bias, constant=constant)

    def view(
        self, about_input: str = "", reads: Reads = "residual stream", gives: Gives = "outputs"
    ) -> LayerView:
        return LayerView(
            self.sizes,
            self.activation,
            self.dtype,
            self.read_layer,
            "gate" in self.parts,
            reads,
            gives,
            about_input,
            self.name,
            tensors=self.num_read(),
            stored=self.stored,
        )

    def stored(self) -> tuple[StoredPart, ...]:
        return tuple(
            StoredPart(
                role,
                one.name,
                str(one.dtype).removeprefix("torch."),
                one.shape,
                tuple(StoredSpan(file, start, stop) for file, start, stop in one.spans),
            )
            for role, one in self.parts.items()
        )

    def num_read(self) -> Counter[str]:
        """Return how many parameters of each tensor it reads."""
        read: Counter[str] = Counter()
        for tensor in self.parts.values():
            read[tensor.name] += prod(tensor.shape)
        return read
