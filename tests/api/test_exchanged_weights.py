"""Weights that exchange their numbers are told, whatever they are called and wherever they lie.

Damage seen to fail: names of the calls of functions cut off of names that a file has itself; two
functions whose weights have one name; weights of bodies not found among what was read.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bilens.api.alignment import align_models
from bilens.api.comparison import whole_difference
from bilens.base import silent
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from bilens.records.tensor_changes import DifferenceHeadline, GraphChange
from builders import randn

SIDE = 6
# As exporters write them: of tf2onnx, of torch, of calls of functions, beginnings of others.
NAMES = (
    "W", "W_", "W__", "W__1", "W__2", "W__10", "W__1_0", "W__1_1", "W_1", "W_2", "W.1", "W.2",
    "W__1.b", "W__2.b", "a.W__1", "a.W__2", "F0.W__1", "F1.W", "F1.W__2", "onnx::MatMul_1",
    "onnx::MatMul_2", "const_fold_opt__12", "const_fold_opt__13", "layers.0.fc__1",
    "layers.1.fc__1",
)  # fmt: skip
PLACES = ("initializer", "constant", "function", "branches")


def head_of(model: Path, baseline: Path) -> DifferenceHeadline:
    both = [
        open_any(path, ReadOptions(allow_pickle=True), compared=True) for path in (model, baseline)
    ]
    whole = whole_difference(align_models(*both), (), None, silent).whole
    assert whole is not None
    assert whole.headline is not None
    return whole.headline


def says_the_same(head: DifferenceHeadline) -> bool:
    """Tell whether a headline says that two files compute the same, with nothing left open."""
    other = head.kind in ("differ", "reordered", "unrelated")
    told = head.graph is not None and head.graph.is_other
    return not (other or told or head.unplaced or any(head.unread))


def layers(
    path: Path, places: list[str], names: list[str], tables: list[np.ndarray], maker: str = ""
) -> Path:
    """Write x → relu(x W) → …, each W in the graph, in a node, in a function or in two branches."""
    from onnx import TensorProto, helper, numpy_helper, save

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    left, nodes, functions, held = [*zip(names, tables, strict=True)], [], [], []
    last = "x"

    def pop() -> tuple[str, Any]:
        name, table = left.pop(0)
        return name, numpy_helper.from_array(table, name)

    nodes.append(helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0))
    nodes.append(helper.make_node("Greater", ["s", "zero"], ["go"]))
    held.append(numpy_helper.from_array(np.float32(0), "zero"))
    for at, place in enumerate(places):
        name, table = pop()
        product, out = helper.make_node("MatMul", [last, name], [f"p{at}"]), f"h{at}"
        if place == "initializer":
            held.append(table)
            nodes.append(product)
        elif place == "constant":
            nodes += [helper.make_node("Constant", [], [name], value=table), product]
        elif place == "function":
            inner = helper.make_node("Constant", [], [name], value=table)
            parts = [inner, helper.make_node("MatMul", ["u", name], ["o"])]
            functions.append(helper.make_function("own", f"F{at}", ["u"], ["o"], parts, opsets[:1]))
            nodes.append(helper.make_node(f"F{at}", [last], [f"p{at}"], domain="own"))
        else:
            end = [helper.make_tensor_value_info(f"{x}{at}", TensorProto.FLOAT, None) for x in "te"]
            both = [(name, table), pop()]
            bodies = [
                helper.make_graph(
                    [helper.make_node("MatMul", [last, n], [e.name])], e.name, [], [e], [t]
                )
                for (n, t), e in zip(both, end, strict=True)
            ]
            then, other = bodies
            nodes.append(
                helper.make_node("If", ["go"], [f"p{at}"], then_branch=then, else_branch=other)
            )
        nodes.append(
            helper.make_node("Relu" if at < len(places) - 1 else "Identity", [f"p{at}"], [out])
        )
        last = out
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, SIDE]) for n in ("x", last)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    made = helper.make_model(
        graph, opset_imports=opsets, functions=functions, ir_version=9, producer_name=maker
    )
    save(made, path)
    return path


def answers(path: Path) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session, x = runtime.InferenceSession(str(path)), randn(3, SIDE).float().abs().numpy()
    return np.stack([session.run(None, {"x": one})[0] for one in (x, -x)])


def tables_of(count: int, seed: int = 0) -> list[np.ndarray]:
    found = [randn(SIDE, SIDE, seed=seed + at).float().numpy() for at in range(count)]
    return [np.full_like(one, 0.5) if at == 3 else one for at, one in enumerate(found)]


@pytest.mark.parametrize("seed", range(60))
def test_a_headline_says_the_same_where_answers_are_and_never_else(
    tmp_path: Path, seed: int
) -> None:
    """Drawn: where weights lie, what they are called and which of them exchange their numbers."""
    pytest.importorskip("onnx")
    draw = random.Random(seed)
    places = [draw.choice(PLACES) for _ in range(draw.randint(2, 4))]
    count = len(places) + places.count("branches")
    names = draw.sample(NAMES, count)
    if places.count("function") > 1:  # whose names are their own
        inner = draw.choice(names)
        at = [k + places[:k].count("branches") for k, x in enumerate(places) if x == "function"]
        names = [inner if k in at else name for k, name in enumerate(names)]
    tables = tables_of(count, seed)
    other = draw.sample(tables, count) if draw.random() < 0.8 else tables
    old = layers(tmp_path / "old.onnx", places, names, tables)
    new = layers(tmp_path / "new.onnx", places, names, other, "another maker")
    same = all(one is two for one, two in zip(tables, other, strict=True))
    head = head_of(new, old)
    assert says_the_same(head) == same
    assert same == np.array_equal(answers(old), answers(new))
    assert head.unread == (0, 0)
    assert head.tensors == count + 1


@pytest.mark.parametrize(
    "names", [("W__1", "W__2"), ("a.W__1.b", "a.W__2.b"), ("const_fold_opt__12", "W__1_0")]
)
def test_weights_called_as_by_an_exporter_are_told_where_they_exchange(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    pytest.importorskip("onnx")
    places, tables = ["initializer", "initializer"], tables_of(2)
    old = layers(tmp_path / "old.onnx", places, [*names], tables)
    head = head_of(layers(tmp_path / "new.onnx", places, [*names], tables[::-1]), old)
    assert (head.kind, head.differing, head.names) == ("reordered", 2, names)


@pytest.mark.parametrize("names", [("w", "w"), ("w__1", "w__2"), ("w", "v")])
def test_weights_of_two_functions_are_told_where_they_exchange(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Of one name, too; a copy of another maker is no news."""
    pytest.importorskip("onnx")
    places, tables = ["function", "function"], tables_of(2)
    old = layers(tmp_path / "old.onnx", places, [*names], tables)
    head = head_of(layers(tmp_path / "new.onnx", places, [*names], tables[::-1]), old)
    assert (head.kind, head.differing, head.unread) == ("reordered", 2, (0, 0))
    again = head_of(layers(tmp_path / "again.onnx", places, [*names], tables, "another"), old)
    assert (again.kind, again.unread, again.graph) == ("same_tensors", (0, 0), GraphChange((), ()))


def test_layers_of_an_archive_of_torchscript_are_told_where_they_exchange(tmp_path: Path) -> None:
    def traced(file: str, order: tuple[int, int]) -> Path:
        module = nn.Sequential()
        for name, seed in zip(("fc__1", "fc__2"), order, strict=True):
            module.add_module(name, nn.Linear(SIDE, SIDE, bias=False))
            getattr(module, name).weight.data = randn(SIDE, SIDE, seed=seed).float()
        torch.jit.save(torch.jit.trace(module, randn(3, SIDE).float()), tmp_path / file)
        return tmp_path / file

    head = head_of(traced("new.pt", (1, 0)), traced("old.pt", (0, 1)))
    assert (head.kind, head.differing) == ("reordered", 2)


def test_tensors_in_branches_are_read_whatever_they_are_called(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    names, tables = ["If_0__Inline_0__248", "If_0__Inline_0__250"], tables_of(2)
    old, new = (
        layers(tmp_path / f"{maker}.onnx", ["branches"], names, tables, maker) for maker in "ab"
    )
    head = head_of(new, old)
    assert (head.kind, head.tensors, head.unread) == ("same_tensors", 3, (0, 0))
    assert head.graph == GraphChange((), ())


def test_a_constant_in_the_place_of_a_weight_counts_as_moved(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    places, names, tables = ["initializer"] * 4, ["a", "b", "c", "d"], tables_of(4)
    old = layers(tmp_path / "old.onnx", places, names, tables)
    order = [tables[at] for at in (3, 1, 2, 0)]
    head = head_of(layers(tmp_path / "new.onnx", places, names, order), old)
    assert (head.kind, head.differing, head.names) == ("reordered", 2, ("a", "d"))
