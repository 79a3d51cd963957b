"""Guesses which tensors of a file are an MLP, from names and shapes.

Several readings are no guess.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, permutations
from math import prod
from pathlib import Path

from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.io.formats.families import FAMILIES, T5_ORDINARY
from bilens.io.stored_mlp import MLPLocation
from bilens.io.tensor_names import kind_of, natural, stage

Shapes = Mapping[str, tuple[int, ...]]
GRAMMAR = (
    "up, gate and down, each with _bias, and .0, .1, … where there are several layers "
    "(for example up.0, up_bias.0, down.0); gate_up or up_gate is one matrix of both branches, in "
    "that order"
)
LENS = ("W_gate", "W_in", "W_out")  # of TransformerLens, with matrices (in, out)
IN_LENS = re.compile(r"(.*\.)?blocks\.\d+\.mlp\.", re.ASCII)
# Names of the parts of one MLP, as far as they are in wide use: (gate, up, down), and those of the
# families.
LAYOUTS = [home.layout for family in FAMILIES.values() for home in family.homes]
LAYOUTS += [family.experts.each for family in FAMILIES.values() if family.experts is not None]
NAMED = dict.fromkeys((one.gate, one.up, one.down) for one in (*LAYOUTS, T5_ORDINARY))
# One matrix of both branches, and down: where the gate stands behind the other branch, and what the
# names before it are. Transformers' MLPs, ChatGLM and Megatron, ModernBERT, DINOv2; diffusers.
FUSED = {
    ("gate_up_proj", "down_proj"): (False, r"(.*\.)?mlp\."),
    ("dense_h_to_4h", "dense_4h_to_h"): (False, r".*"),
    ("Wi", "Wo"): (False, r"(.*\.)?mlp\."),
    ("w12", "w3"): (False, r".*"),
    ("net.0.proj", "net.2"): (True, r"(.*\.)?ff\."),
}
GATED = (
    ("gate", "up", "down"),
    ("left", "right", "down"),
    ("fc1_g", "fc1_x", "fc2"),  # of timm
    LENS,
    *((gate, up, down) for gate, up, down in NAMED if gate is not None and gate != up),
)
ORDINARY = (
    *((up, down) for gate, up, down in NAMED if gate is None),
    *FUSED,
    ("fc_1", "fc_2"),
    ("linear1", "linear2"),
    ("up", "down"),
    ("w1", "w2"),
    ("W1", "W2"),
    ("W_in", "W_out"),
)
OF_ATTENTION = ("qkv", "q", "k", "v", "o")
MOST_PERMUTED = 6  # matrices whose orders are all tried
# Where `down` is often first: from a wide residual stream into a narrow layer and up again.
ADAPTER = re.compile(r"adapter|bottleneck", re.ASCII | re.IGNORECASE)
# Where w1, w2 and w3 are known to be gate, down and up: in LLaMA's and Mixtral's own files.
GATED_HOMES = re.compile(r"feed_?forward|ffn|moe|experts?|glu", re.ASCII | re.IGNORECASE)
WEIGHT, BIAS = ("", ".weight", ".kernel"), (".bias", "_bias")
MATRIX = (".weight", "kernel", "kernel:*")  # how names of matrices end, but not of other tables
# Numbers that a module makes its weight of: of pruning, of norms of weights, of parametrisations.
MADE_INTO_WEIGHT = re.compile(r"weight_(orig|mask|[gvu])$|parametrizations\.")
BIASES = {f"{part}{k}": f"b{k}" for part in ("fc", "W", "w") for k in (1, 2, 3)}
BIASES |= {"W_in": "b_in", "W_out": "b_out"}


def without_attention(shapes: Shapes) -> Shapes:
    """Return the tensors without those of an attention, where queries and keys say that it is one.

    Without them a network may well have a map called `value` or `out_proj`.
    """
    kinds = {name: kind_of(name, shape) for name, shape in shapes.items()}
    three = [shapes[name] for name, kind in kinds.items() if kind == "qkv"]
    joined = any(len(one) == 2 and max(one) == 3 * min(one) for one in three)
    if not (joined or {"q", "k"} <= {*kinds.values()}):
        return shapes
    return {name: shape for name, shape in shapes.items() if kinds[name] not in OF_ATTENTION}


def guess_roles(path: Path, shapes: Shapes) -> list[MLPLocation]:
    """Return the layers of a file that says nothing but names and shapes."""
    everything, shapes = shapes, without_attention(shapes)
    # MLPs with names in wide use are what their names say. Where there are none, or an ordinary one
    # and more (fc1, fc2, fc3), and every tensor is a matrix that reads what the one before gives or
    # the bias of one, they are a network: in the order of their names, or else in the only order in
    # which the shapes fit.
    blocks = blocks_by_name(shapes)
    read = {name for layer in blocks.values() for _, name in layer.named()}
    plain = len(blocks) == 1 and next(iter(blocks.values())).gate is None
    alone = shapes is everything and (not blocks or (plain and read != {*shapes}))
    layers = chain(path, shapes) if alone else []
    if len(blocks) == 1 and not plain:
        ((prefix, layer),) = blocks.items()
        refuse_numbered_gate(path, prefix, layer, shapes)
    if not layers and not blocks:
        matrices = [f"{name} {shape}" for name, shape in everything.items() if len(shape) == 2]
        more = f" and {len(matrices) - 8} more" if len(matrices) > 8 else ""
        raise NoLayersError(
            f"{path}: holds no MLP that names and shapes give away. Its matrices: "
            f"{', '.join(matrices[:8]) or 'none'}{more}. Say which is what, with {GRAMMAR}.",
            [Retry(str(path), {"roles": example_of_roles(shapes)})] if matrices else [],
        )
    if not layers:
        refuse_like_gates(path, blocks, read, shapes)
        refuse_adapters(path, blocks, shapes)
    return layers or [*blocks.values()]


def example_of_roles(shapes: Shapes) -> dict[str, str]:
    """Return the longest row of matrices that fit and differ in numbers alone, or else blanks."""
    matrices = [name for name in sorted(shapes, key=natural) if len(shapes[name]) == 2]
    alike = groupby(matrices, lambda name: re.sub(r"\d+", "*", name))
    rows = [[*names] for name, names in alike if "*" in name and name.endswith(MATRIX)]
    row = max((one for one in rows if len(one) > 1 and fits(shapes, one)), key=len, default=[])
    return roles_of(in_order(shapes, row) if row else []) or {"up": "TENSOR", "down": "TENSOR"}


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
                layer = MLPLocation(**parts, transposed=lens)  # type: ignore[arg-type]
                gate_last, home = FUSED.get((kind[0], kind[-1]), (False, None))
                known = home is not None and re.fullmatch(home, prefix)
                if known and doubled(shapes, layer.up, str(layer.down)):
                    both = {"gate": layer.up, "gate_bias": layer.up_bias}
                    layer = replace(layer, **both, gate_last=gate_last)  # type: ignore[arg-type]
                found[prefix] = layer
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
    return next((one for one in names if is_vector(shapes.get(one, ()))), None)


def is_vector(shape: tuple[int, ...]) -> bool:
    """Tell whether numbers lie along one axis at most, as in (n,) or (1, 1, n)."""
    return bool(shape) and prod(shape) == max(shape)


def doubled(shapes: Shapes, up: str, down: str, way: int = 1) -> bool:
    """Tell whether one matrix gives twice what the next one reads."""
    return shapes[up][::way][0] == 2 * shapes[down][::way][1]


def refuse_two_branches(path: Path, layers: Sequence[MLPLocation], shapes: Shapes) -> None:
    """Refuse a matrix that may be a gate and another branch, where nothing says their order."""
    for layer in layers:
        if layer.gate is not None or layer.down is None or layer.up.endswith(".kernel"):
            continue  # (in, out) is the one way of those
        plain = [way for way in (False, True) if misfit([layer], shapes, way) is None]
        ways = [way for way in (1, -1) if doubled(shapes, layer.up, layer.down, way)]
        if not ways or False in plain or (plain and ways == [-1]):
            continue
        roles = with_stars(layer.roles(), len(layers))
        told: list[dict[str, object]] = [
            {"roles": {role.replace("up", both): name for role, name in roles.items()}}
            for both in ("gate_up", "up_gate")
        ]
        told += [{"roles": roles, "transposed": True}] * bool(plain)
        raise CheckpointError(
            f"{path}: {layer.up} {shapes[layer.up]} gives twice what {layer.down} "
            f"{shapes[layer.down]} reads: it may be two branches, the one with the activation "
            "first (gate_up) or last (up_gate), "
            + ("or a matrix (in, out), " if plain else "")
            + "and names do not say which. Each would be another function: look at the code that "
            "it was trained with.",
            [Retry(str(path), said) for said in told],
        )


def with_stars(roles: Mapping[str, str], layers: int) -> dict[str, str]:
    """Return the roles of one layer, a * for its number where it is one of several."""
    if layers == 1:
        return dict(roles)
    return {role: re.sub(r"\d+", "*", one, count=1) for role, one in roles.items()}


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
            roles = {**layer.roles(), "gate": name}
            if (bias := bias_beside(shapes, name)) is not None:
                roles["gate_bias"] = bias
            said: dict[str, object] = {"roles": with_stars(roles, len(blocks))}
            if not any(misfit([replace(layer, gate=name)], shapes, way) for way in (False, True)):
                said["transposed"] = layer.transposed
            raise CheckpointError(
                f"{path}: {name} {shapes[name]} beside {layer.up} has the shape of a part of the "
                "layer, and its name does not say which: without a gate the layer would be another "
                "function. Say what each is; gate has the activation.",
                [Retry(str(path), said)],
            )


def refuse_masks(path: Path, layers: Sequence[MLPLocation], shapes: Shapes) -> None:
    """Refuse a tensor in the module of a matrix, of its shape, which may be multiplied by it."""
    read = {name for layer in layers for name in layer.tensors()}
    modules = {(name.rpartition(".")[0], shapes[name]): name for name in read if "." in name}
    for name, shape in shapes.items():
        matrix = modules.get((name.rpartition(".")[0], shape))
        if name in read or matrix is None or len(shape) != 2:
            continue
        raise CheckpointError(
            f"{path}: {name} {shape} beside {matrix} may be its mask, and the layer without it "
            "another function: save the product of the two as the weight, or say which is what "
            "where it is none.",
            [Retry(str(path), {"roles": roles_of(layers)})],
        )


def roles_of(layers: Sequence[MLPLocation]) -> dict[str, str]:
    """Return the roles of layers as a caller says them, numbered where they are several."""
    several = len(layers) > 1
    return {
        f"{role}.{index}" if several else role: name
        for index, layer in enumerate(layers)
        for role, name in layer.roles().items()
    }


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
            [Retry(str(path), {"roles": layer.roles()})],
        )


def refuse_adapters(path: Path, blocks: Mapping[str, MLPLocation], shapes: Shapes) -> None:
    """Refuse matrices up and down of an adapter, of which names do not say which reads."""
    for prefix, layer in blocks.items():
        if not ADAPTER.search(prefix) or layer.gate is not None or layer.down is None:
            continue
        turned = replace(
            layer, up=layer.down, up_bias=layer.down_bias, down=layer.up, down_bias=layer.up_bias
        )
        ways = [(one, way) for one in (turned, layer) for way in (False, True)]
        fit = dict.fromkeys(one for one, way in ways if misfit([one], shapes, way) is None)
        if layer.up.startswith(f"{prefix}up") and [*fit] != [layer]:
            said = [with_stars(one.roles(), len(blocks)) for one in fit]
            raise CheckpointError(
                f"{path}: {layer.up} and {layer.down} of an adapter may come in either order. Say "
                "which is what; the matrix that reads the input has the role up.",
                [Retry(str(path), {"roles": roles}) for roles in said],
            )


def chain(path: Path, shapes: Shapes) -> list[MLPLocation]:
    """Return all tensors as a network; empty where they are none."""
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    biases = {bias_beside(shapes, name) for name in flat}
    matrices = sorted({*flat} - biases, key=natural)
    read = {*matrices, *(bias_beside(shapes, name) for name in matrices)} - {None}
    made = any(map(MADE_INTO_WEIGHT.search, matrices))
    if len(matrices) < 2 or read != {*shapes} or made:
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
        r"(?i)(w(eight)?|kernel)(?=[^a-z]*$)", lambda m: "b" if len(m[0]) == 1 else "bias", name
    )
    names = [*(f"{stem}{end}" for end in BIAS), swapped]
    names.append(re.sub(r"vars/0$", "vars/1", name))  # of Keras
    found = (one for one in names if one != name and is_vector(shapes.get(one, ())))
    return next(found, None)


def is_network(layers: list[MLPLocation]) -> bool:
    """Tell whether layers are one behind the other: only the last has an output map of its own."""
    return all(layer.down is None for layer in layers[:-1])


def misfit(layers: list[MLPLocation], shapes: Shapes, transposed: bool) -> str | None:
    """Say which shapes do not fit where matrices are read one way round; None if all do."""
    way = -1 if transposed else 1
    given: int | None = None
    for layer in layers:
        rows, d_in = shapes[layer.up][::way]
        d_hidden, odd = divmod(rows, 2) if layer.fused else (rows, 0)
        if odd:
            return f"{layer.up!r} gives {rows} values, which are no two halves"
        if given is not None and given != d_in:
            return f"{layer.up!r} reads {d_in} values and the layer before gives {given}"
        expected: dict[str | None, tuple[int, ...]] = {layer.gate: (rows, d_in)}
        expected |= {layer.up_bias: (rows,), layer.gate_bias: (rows,)}
        d_out = d_hidden
        if layer.down is not None:
            d_out, reads = shapes[layer.down][::way]
            if reads != d_hidden:
                return f"{layer.down!r} reads {reads} values and {layer.up!r} gives {d_hidden}"
            expected[layer.down_bias] = (d_out,)
        for name, shape in expected.items():
            found = () if name is None else shapes[name][::way]
            if len(shape) == 1 and is_vector(found):
                found = (prod(found),)
            if name is not None and found != shape:
                return f"{name!r} has shape {found} where {layer.up!r} asks for {shape}"
        given = d_out if is_network(layers) else None
    return None
