"""Which way round the matrices of a file are: decided by shapes, or refused until it is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.mapped.roles import LayerRoles, is_network

Shapes = Mapping[str, tuple[int, ...]]


def orientation(path: Path, layers: list[LayerRoles], shapes: Shapes, said: bool | None) -> bool:
    """Return whether the matrices are (in, out), as of Conv1D or JAX, and not (out, in).

    Args:
        path: of the file, for messages.
        layers: of it.
        shapes: of its tensors.
        said: what the caller says; None where the shapes have to say it.

    Raises:
        CheckpointError: If the shapes fit neither, or not what was said.
        UsageError: If they fit both.
    """
    problems = {way: misfit(layers, shapes, way) for way in (False, True)}
    if said is not None:
        if (problem := problems[said]) is not None:
            raise CheckpointError(f"{path}: with transposed={said}, {problem}.")
        return said
    fits = [way for way, problem in problems.items() if problem is None]
    if not fits:
        raise CheckpointError(
            f"{path}: the shapes do not fit: {problems[False]}; and with transposed matrices, "
            f"{problems[True]}."
        )
    if len(fits) == 2:
        first = layers[0]
        raise UsageError(
            f"{path}: {first.up!r} with shape {shapes[first.up]} may be (out, in), as PyTorch has "
            "it, or (in, out), and nothing in the shapes decides it: say transposed=False or "
            "transposed=True (--no-transposed, --transposed)."
        )
    return fits[0]


def misfit(layers: list[LayerRoles], shapes: Shapes, transposed: bool) -> str | None:
    """Return what does not fit where matrices are read one way round; None if everything does."""
    given: int | None = None
    for layer in layers:
        d_hidden, d_in = sizes(shapes[layer.up], transposed)
        if given is not None and given != d_in:
            return f"{layer.up!r} reads {d_in} values and the layer before gives {given}"
        expected: dict[str | None, tuple[int, ...]] = {layer.gate: (d_hidden, d_in)}
        expected |= {layer.up_bias: (d_hidden,), layer.gate_bias: (d_hidden,)}
        d_out = d_hidden
        if layer.down is not None:
            d_out, reads = sizes(shapes[layer.down], transposed)
            if reads != d_hidden:
                return f"{layer.down!r} reads {reads} values and {layer.up!r} gives {d_hidden}"
            expected[layer.down_bias] = (d_out,)
        for name, shape in expected.items():
            if name is not None and (found := oriented(shapes[name], transposed)) != shape:
                return f"{name!r} has shape {found} where {layer.up!r} asks for {shape}"
        given = d_out if is_network(layers) else None
    return None


def sizes(shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    """Return (out, in) of a matrix."""
    first, second = shape
    return (second, first) if transposed else (first, second)


def oriented(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    """Return the shape as (out, in), of a vector as it is."""
    return shape[::-1] if transposed else shape


def check_axes(path: Path, layers: list[LayerRoles], shapes: Shapes) -> None:
    """Refuse matrices without two axes and biases without one, and empty axes.

    Raises:
        CheckpointError: With the tensor and its shape.
    """
    for layer in layers:
        for role, name in layer.named():
            axes = 1 if role.endswith("_bias") else 2
            if len(shapes[name]) != axes or 0 in shapes[name]:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has shape {shapes[name]}; expected {axes} axes with "
                    f"entries for the role {role}."
                )
