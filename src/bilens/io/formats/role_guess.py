"""Guessing the roles of tensors from their names and shapes; several readings are no guess."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.stored_mlp import LayerLocation

Shapes = Mapping[str, tuple[int, ...]]
GRAMMAR = (
    "up, gate and down, each with _bias, and .0, .1, … where there are several layers "
    "(for example up.0, up_bias.0, down.0)"
)
# Names of the parts of one MLP, as far as they are in wide use: (gate, up, down).
GATED = (
    ("gate", "up", "down"),
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "w3", "w2"),
    ("wi_0", "wi_1", "wo"),
    ("left", "right", "down"),
)
ORDINARY = (
    ("fc1", "fc2"),
    ("fc_1", "fc_2"),
    ("linear1", "linear2"),
    ("lin1", "lin2"),
    ("c_fc", "c_proj"),
    ("up_proj", "down_proj"),
    ("up", "down"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("wi", "wo"),
    ("w1", "w2"),
    ("W1", "W2"),
    ("W_in", "W_out"),
)
MOST_PERMUTED = 6  # matrices whose orders are all tried
WEIGHT, BIAS = ("", ".weight", ".kernel"), (".bias", "_bias")
BIASES = {
    "fc1": "b1",
    "W1": "b1",
    "W2": "b2",
    "w1": "b1",
    "w2": "b2",
    "W_in": "b_in",
    "W_out": "b_out",
}


def guess_roles(path: Path, shapes: Shapes) -> list[LayerLocation]:
    """Return the layers of a file that says nothing but names and shapes."""
    blocks = blocks_by_name(shapes)
    plain = len(blocks) == 1 and blocks[0].gate is None
    whole = {name for layer in blocks for _, name in layer.named()} == {*shapes}
    layers = chain(path, shapes) if not blocks or (plain and not whole) else blocks
    layers = layers or blocks
    if not layers:
        matrices = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) == 2]
        more = f" and {len(matrices) - 8} more" if len(matrices) > 8 else ""
        raise CheckpointError(
            f"{path}: holds no MLP that names and shapes give away. Its matrices: "
            f"{', '.join(matrices[:8]) or 'none'}{more}. Say which is what: roles= (--map), with "
            f"{GRAMMAR}."
        )
    return layers


def blocks_by_name(shapes: Shapes) -> list[LayerLocation]:
    """Return the MLPs with names in wide use, each under a prefix of its own."""
    found: dict[str, LayerLocation] = {}
    for kinds in (GATED, ORDINARY):
        for kind in kinds:
            for prefix in prefixes(shapes, kind[-1]):
                names = [weight(shapes, prefix + part) for part in kind]
                if prefix in found or None in names:
                    continue
                biases = [bias(shapes, prefix, part) for part in kind]
                found[prefix] = layer_of(names, biases)  # type: ignore[arg-type]
    return [found[prefix] for prefix in sorted(found, key=natural)]


def layer_of(names: list[str], biases: list[str | None]) -> LayerLocation:
    gate, gate_bias = (names[0], biases[0]) if len(names) == 3 else (None, None)
    return LayerLocation(
        names[-2],
        names[-1],
        gate,
        biases[-2],
        biases[-1],
        gate_bias,
    )


def prefixes(shapes: Shapes, part: str) -> Iterator[str]:
    """Yield what stands before a part, wherever it is a matrix."""
    for name, shape in shapes.items():
        for end in WEIGHT:
            before, found, after = name.rpartition(f"{part}{end}")
            if found and not after and len(shape) == 2 and (not before or before[-1] in "._/"):
                yield before


def weight(shapes: Shapes, name: str) -> str | None:
    names = (f"{name}{end}" for end in WEIGHT)
    return next((one for one in names if len(shapes.get(one, ())) == 2), None)


def bias(shapes: Shapes, prefix: str, part: str) -> str | None:
    names = [f"{prefix}{part}{end}" for end in BIAS]
    names += [f"{prefix}{BIASES[part]}"] if part in BIASES else []
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def chain(path: Path, shapes: Shapes) -> list[LayerLocation]:
    """Return all tensors as a network; empty where they are none."""
    matrices = sorted((name for name, shape in shapes.items() if len(shape) == 2), key=natural)
    read = {*matrices, *(bias_beside(shapes, name) for name in matrices)} - {None}
    if len(matrices) < 2 or read != {*shapes}:
        return []
    if fits(in_order(shapes, matrices), shapes):
        return in_order(shapes, matrices)
    if len(matrices) > MOST_PERMUTED:
        return []
    found = [order for order in permutations(matrices) if fits(in_order(shapes, order), shapes)]
    if len(found) > 1:
        raise UsageError(
            f"{path}: {len(found)} orders of its matrices fit, for example "
            f"{' → '.join(found[0])} and {' → '.join(found[1])}: say which is what: roles= "
            f"(--map), with {GRAMMAR}."
        )
    return in_order(shapes, found[0]) if found else []


def in_order(shapes: Shapes, matrices: Sequence[str]) -> list[LayerLocation]:
    """Return matrices one behind the other, an activation between any two."""
    *ups, down = matrices
    layers = [LayerLocation(up, up_bias=bias_beside(shapes, up)) for up in ups]
    layers[-1] = replace(layers[-1], down=down, down_bias=bias_beside(shapes, down))
    return layers


def fits(layers: list[LayerLocation], shapes: Shapes) -> bool:
    return any(misfit(layers, shapes, way) is None for way in (False, True))


def bias_beside(shapes: Shapes, name: str) -> str | None:
    """Return the bias of a matrix that is named like it."""
    stem = re.sub(r"(\.weight|\.kernel)$", "", name)
    swapped = re.sub(
        r"(?i)w(eight)?(?=[^a-z]*$)", lambda m: {"w": "b", "W": "b"}.get(m[0], "bias"), name
    )
    names = [*(f"{stem}{end}" for end in BIAS), swapped]
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def natural(name: str) -> list[tuple[bool, int | str]]:
    """Return a key that sorts layers.10 behind layers.9."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts if part]


def is_network(layers: list[LayerLocation]) -> bool:
    """Tell whether layers are one behind the other: only the last has an output map of its own."""
    return all(layer.down is None for layer in layers[:-1])


def misfit(layers: list[LayerLocation], shapes: Shapes, transposed: bool) -> str | None:
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
    first, second = shape
    return (second, first) if transposed else (first, second)


def oriented(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    """Return the shape as (out, in), of a vector as it is."""
    return shape[::-1] if transposed else shape
