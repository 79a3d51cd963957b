"""Guesses which tensors of a file are an MLP, from names and shapes.

Several readings are no guess.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.io.stored_mlp import MLPLocation

Shapes = Mapping[str, tuple[int, ...]]
GRAMMAR = (
    "up, gate and down, each with _bias, and .0, .1, … where there are several layers "
    "(for example up.0, up_bias.0, down.0)"
)
LENS = ("W_gate", "W_in", "W_out")  # of TransformerLens, with matrices (in, out)
IN_LENS = re.compile(r"(.*\.)?blocks\.\d+\.mlp\.", re.ASCII)
# Names of the parts of one MLP, as far as they are in wide use: (gate, up, down).
GATED = (
    ("gate", "up", "down"),
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "w3", "w2"),
    ("wi_0", "wi_1", "wo"),
    ("left", "right", "down"),
    LENS,
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
FIRST = {"encoder", "enc", "encode", "input", "in", "inp", "embed", "embedding", "first", "stem"}
LAST = {"decoder", "dec", "decode", "output", "out", "head", "classifier", "last", "final"}
LAST |= {"logits", "predictions"}
# Where `down` is often first: from a wide residual stream into a narrow layer and up again.
ADAPTER = re.compile(r"adapter|bottleneck", re.ASCII | re.IGNORECASE)
# Where w1, w2 and w3 are known to be gate, down and up: in LLaMA's and Mixtral's own files.
GATED_HOMES = re.compile(r"feed_?forward|ffn|moe|experts?|glu", re.ASCII | re.IGNORECASE)
WEIGHT, BIAS = ("", ".weight", ".kernel"), (".bias", "_bias")
BIASES = {f"{part}{k}": f"b{k}" for part in ("fc", "W", "w") for k in (1, 2, 3)}
BIASES |= {"W_in": "b_in", "W_out": "b_out"}


def guess_roles(path: Path, shapes: Shapes) -> list[MLPLocation]:
    """Return the layers of a file that says nothing but names and shapes."""
    # MLPs with names in wide use are what their names say. Where there are none, or an ordinary one
    # and more (fc1, fc2, fc3), and every tensor is a matrix that reads what the one before gives or
    # the bias of one, they are a network: in the order of their names, or else in the only order in
    # which the shapes fit.
    blocks = blocks_by_name(shapes)
    read = {name for layer in blocks.values() for _, name in layer.named()}
    plain = len(blocks) == 1 and next(iter(blocks.values())).gate is None
    layers = chain(path, shapes) if not blocks or (plain and read != {*shapes}) else []
    if len(blocks) == 1 and not plain:
        ((prefix, layer),) = blocks.items()
        refuse_numbered_gate(path, prefix, layer, shapes)
    if not layers and not blocks:
        matrices = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) == 2]
        more = f" and {len(matrices) - 8} more" if len(matrices) > 8 else ""
        example = Retry(str(path), {"roles": {"up": "TENSOR", "down": "TENSOR"}})
        raise NoLayersError(
            f"{path}: holds no MLP that names and shapes give away. Its matrices: "
            f"{', '.join(matrices[:8]) or 'none'}{more}. Say which is what, with {GRAMMAR}.",
            [example] if matrices else [],
        )
    if not layers:
        refuse_like_gates(path, blocks, read, shapes)
        refuse_adapters(path, blocks)
    return layers or [*blocks.values()]


def blocks_by_name(shapes: Shapes) -> dict[str, MLPLocation]:
    """Return prefix → MLP with names in wide use."""
    found: dict[str, MLPLocation] = {}
    for kinds in (GATED, ORDINARY):
        for kind in kinds:
            for prefix in prefixes(shapes, kind[-1]):
                names = [matrix_at(shapes, prefix + part) for part in kind]
                if prefix in found or None in names:
                    continue
                biases = [bias_at(shapes, prefix, part) for part in kind]
                roles = ("gate", "up", "down")[-len(kind) :]
                parts = dict(zip(roles, names, strict=True))
                parts |= {f"{r}_bias": bias for r, bias in zip(roles, biases, strict=True)}
                lens = kind[-2:] == LENS[1:] and IN_LENS.fullmatch(prefix) is not None
                found[prefix] = MLPLocation(**parts, transposed=lens)  # type: ignore[arg-type]
    return {prefix: found[prefix] for prefix in sorted(found, key=natural)}


def prefixes(shapes: Shapes, part: str) -> Iterator[str]:
    """Yield what stands before a part, wherever it is a matrix."""
    for name, shape in shapes.items():
        for end in WEIGHT:
            before, found, after = name.rpartition(f"{part}{end}")
            if found and not after and len(shape) == 2 and (not before or before[-1] in "._/"):
                yield before


def matrix_at(shapes: Shapes, name: str) -> str | None:
    names = (f"{name}{end}" for end in WEIGHT)
    return next((one for one in names if len(shapes.get(one, ())) == 2), None)


def bias_at(shapes: Shapes, prefix: str, part: str) -> str | None:
    names = [f"{prefix}{part}{end}" for end in BIAS]
    names += [f"{prefix}{BIASES[part]}"] if part in BIASES else []
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def refuse_like_gates(
    path: Path, blocks: Mapping[str, MLPLocation], read: Collection[str], shapes: Shapes
) -> None:
    """Refuse an unread matrix beside a layer, or in it, with the shape of one that is read."""
    for prefix, layer in blocks.items():
        like = {shapes[layer.up], shapes[layer.down or layer.up]}
        for name in shapes:
            near = name.startswith(prefix) if prefix else "." not in name.removesuffix(".weight")
            if name in read or not near or shapes[name] not in like:
                continue
            roles = {**dict(layer.named()), "gate": name}
            if len(blocks) > 1:
                roles = {role: re.sub(r"\d+", "*", one, count=1) for role, one in roles.items()}
            said: dict[str, object] = {"roles": roles}
            if not any(misfit([replace(layer, gate=name)], shapes, way) for way in (False, True)):
                said["transposed"] = layer.transposed
            raise CheckpointError(
                f"{path}: {name} {shapes[name]} beside {layer.up} has the shape of a part of the "
                "layer, and its name does not say which: without a gate the layer would be another "
                "function. Say what each is; gate has the activation.",
                [Retry(str(path), said)],
            )


def refuse_numbered_gate(path: Path, prefix: str, layer: MLPLocation, shapes: Shapes) -> None:
    """Refuse a gated MLP whose matrices differ in their number alone and fit in a row as well.

    Where what stands before the number is of a family of such MLPs, it is no guess.
    """
    roles = {role: name for role, name in layer.named() if not role.endswith("_bias")}
    alike = {re.sub(r"\d+", "*", name) for name in roles.values()}
    in_a_row = len(alike) == 1 and fits(shapes, sorted(roles.values(), key=natural))
    if in_a_row and not GATED_HOMES.search(prefix):
        raise CheckpointError(
            f"{path}: {', '.join(sorted(roles.values()))} are a gated MLP, or three layers one "
            "behind the other: names and shapes fit both. Say which is what, with up.0, up.1 and "
            "down.1 for the layers; gate has the activation.",
            [Retry(str(path), {"roles": dict(layer.named())})],
        )


def refuse_adapters(path: Path, blocks: Mapping[str, MLPLocation]) -> None:
    """Refuse matrices up and down of an adapter, of which names do not say which reads."""
    for prefix, layer in blocks.items():
        if ADAPTER.search(prefix) and layer.gate is None and layer.up.startswith(f"{prefix}up"):
            roles = {"up": layer.down, "down": layer.up}
            raise CheckpointError(
                f"{path}: {layer.up} and {layer.down} of an adapter may come in either order. Say "
                "which is what; the matrix that reads the input has the role up.",
                [Retry(str(path), {"roles": roles})],
            )


def chain(path: Path, shapes: Shapes) -> list[MLPLocation]:
    """Return all tensors as a network; empty where they are none."""
    matrices = sorted((name for name, shape in shapes.items() if len(shape) == 2), key=natural)
    read = {*matrices, *(bias_beside(shapes, name) for name in matrices)} - {None}
    if len(matrices) < 2 or read != {*shapes}:
        return []
    # the alphabet says nothing: `decoder` is before `encoder` in it
    orders = [order for order in orders_by_name(matrices) if fits(shapes, order)]
    if not orders and len(matrices) <= MOST_PERMUTED:
        orders = [order for order in permutations(matrices) if fits(shapes, order)]
    if len(orders) > 1:
        roles = {f"up.{k}": name for k, name in enumerate(orders[0][:-1])}
        roles[f"down.{len(roles) - 1}"] = orders[0][-1]
        raise UsageError(
            f"{path}: {len(orders)} orders of its matrices fit, for example "
            f"{' → '.join(orders[0])} and {' → '.join(orders[1])}. Say which is what, with "
            f"{GRAMMAR}.",
            [Retry(str(path), {"roles": roles})],
        )
    return in_order(shapes, orders[0]) if orders else []


def orders_by_name(matrices: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the orders in which names may follow each other, matrices in natural order.

    Those that differ in their numbers alone come one behind the other; where words say which of the
    others is first or last, it is.
    """
    alike: dict[str, list[str]] = {}
    for name in matrices:
        alike.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    groups = [*permutations(alike)] if len(alike) <= MOST_PERMUTED else [tuple(alike)]
    said = [one for one in groups if [*map(stage, one)] == sorted(map(stage, one))]
    return [tuple(name for group in one for name in alike[group]) for one in said]


def stage(name: str) -> int:
    """Return −1 for a name of what comes first in a network, 1 for the last, 0 for neither."""
    words = {*re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())}
    return bool(words & LAST) - bool(words & FIRST)


def in_order(shapes: Shapes, matrices: Sequence[str]) -> list[MLPLocation]:
    """Return matrices one behind the other, an activation between any two."""
    *ups, down = matrices
    layers = [MLPLocation(up, up_bias=bias_beside(shapes, up)) for up in ups]
    layers[-1] = replace(layers[-1], down=down, down_bias=bias_beside(shapes, down))
    return layers


def fits(shapes: Shapes, matrices: Sequence[str]) -> bool:
    layers = in_order(shapes, matrices)
    return any(misfit(layers, shapes, way) is None for way in (False, True))


def bias_beside(shapes: Shapes, name: str) -> str | None:
    """Return the bias of a matrix that is named like it."""
    stem = re.sub(r"(\.weight|\.kernel)$", "", name)
    swapped = re.sub(
        r"(?i)w(eight)?(?=[^a-z]*$)", lambda m: {"w": "b", "W": "b"}.get(m[0], "bias"), name
    )
    names = [*(f"{stem}{end}" for end in BIAS), swapped]
    names.append(re.sub(r"vars/0$", "vars/1", name))  # of Keras
    return next((one for one in names if len(shapes.get(one, ())) == 1), None)


def natural(name: str) -> list[tuple[bool, int | str]]:
    """Return a key that sorts layers.10 behind layers.9."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts if part]


def is_network(layers: list[MLPLocation]) -> bool:
    """Tell whether layers are one behind the other: only the last has an output map of its own."""
    return all(layer.down is None for layer in layers[:-1])


def misfit(layers: list[MLPLocation], shapes: Shapes, transposed: bool) -> str | None:
    """Say which shapes do not fit where matrices are read one way round; None if all do."""
    way = -1 if transposed else 1
    given: int | None = None
    for layer in layers:
        d_hidden, d_in = shapes[layer.up][::way]
        if given is not None and given != d_in:
            return f"{layer.up!r} reads {d_in} values and the layer before gives {given}"
        expected: dict[str | None, tuple[int, ...]] = {layer.gate: (d_hidden, d_in)}
        expected |= {layer.up_bias: (d_hidden,), layer.gate_bias: (d_hidden,)}
        d_out = d_hidden
        if layer.down is not None:
            d_out, reads = shapes[layer.down][::way]
            if reads != d_hidden:
                return f"{layer.down!r} reads {reads} values and {layer.up!r} gives {d_hidden}"
            expected[layer.down_bias] = (d_out,)
        for name, shape in expected.items():
            if name is not None and (found := shapes[name][::way]) != shape:
                return f"{name!r} has shape {found} where {layer.up!r} asks for {shape}"
        given = d_out if is_network(layers) else None
    return None
