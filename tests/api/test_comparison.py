"""What operations of two files are set to and read, where their tensors are the same.

Damage seen to fail: values left out that are those without a word; inputs not compared; settings of
operations of other names compared by name alone.
"""

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bilens as bl
from bilens.api.alignment import align_models
from bilens.api.comparison import changed_graph, whole_difference
from bilens.base import silent
from bilens.io.any_model import header_of, open_any
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.records.tensor_changes import GraphChange, WholeDifference
from builders import randn
from onnx_files import write

WEIGHTS = {
    "k": np.ones((2, 2, 3, 3), np.float32),
    "v": np.arange(4, dtype=np.float32).reshape(2, 2),
    "g": np.ones(2, np.float32),
}
Nodes = list[tuple[Any, ...]]
NODES: Nodes = [
    ("Conv", "x k", "a", {"strides": [1, 1], "pads": [1, 1, 1, 1]}),
    ("LayerNormalization", "a g", "b", {"epsilon": 1e-5}),
    ("Softmax", "b", "c", {"axis": -1}),
    ("Clip", "c", "d", {"max": 6.0}),
    ("Relu", "d", "e"),
    ("Add", "e d", "y"),
]


def changed_at(at: int, node: tuple[Any, ...]) -> Nodes:
    return [*NODES[:at], node, *NODES[at + 1 :]]


CHANGES: dict[str, tuple[Nodes, list[str]]] = {
    "nothing": (NODES, []),
    "a default that is written": (changed_at(2, ("Softmax", "b", "c")), []),
    "a stride": (
        changed_at(0, ("Conv", "x k", "a", {"strides": [2, 2], "pads": [1, 1, 1, 1]})),
        ["Conv a: strides 1, 1 → 2, 2"],
    ),
    "padding": (
        changed_at(0, ("Conv", "x k", "a", {"strides": [1, 1]})),
        ["Conv a: pads 1, 1, 1, 1 → –"],
    ),
    "an epsilon": (
        changed_at(1, ("LayerNormalization", "a g", "b", {"epsilon": 0.5})),
        ["LayerNormalization b: epsilon 9.999999747378752e-06 → 0.5"],
    ),
    "an axis": (changed_at(2, ("Softmax", "b", "c", {"axis": 1})), ["Softmax c: axis -1 → 1"]),
    "a bound": (changed_at(3, ("Clip", "c", "d", {"max": 1.0})), ["Clip d: max 6.0 → 1.0"]),
    "what is read": (changed_at(5, ("Add", "e c", "y")), ["Add y: inputs e, d → e, c"]),
}


def graph_change(model: Path, baseline: Path) -> GraphChange:
    both = (
        open_any(path, ReadOptions(allow_pickle=True), compared=True) for path in (model, baseline)
    )
    found = changed_graph(*map(header_of, both))
    assert found is not None
    return found


def difference_of(model: Path, baseline: Path) -> WholeDifference:
    both = [open_any(path, ReadOptions(), compared=True) for path in (model, baseline)]
    found = whole_difference(align_models(*both), (), None, silent).whole
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_operation_is_set_to_is_compared(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    nodes, expected = CHANGES[name]
    for file, made in (("old", NODES), ("new", nodes)):
        write(tmp_path / f"{file}.onnx", made, WEIGHTS)
    found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
    assert found.operations == ()
    assert [str(one) for one in found.settings or ()] == expected


def test_operations_of_other_names_are_compared_by_kind(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    names = dict(zip("abcde", "pqrst", strict=True))

    def renamed(nodes: Nodes) -> Nodes:
        turn = lambda text: " ".join(names.get(word, word) for word in text.split())  # noqa: E731
        return [(kind, turn(given), turn(made), *more) for kind, given, made, *more in nodes]

    write(tmp_path / "old.onnx", NODES, WEIGHTS)
    for name, said in (
        ("nothing", []),
        ("a stride", ["Conv p: strides 1, 1 → 2, 2"]),
    ):
        write(tmp_path / "new.onnx", renamed(CHANGES[name][0]), WEIGHTS)
        found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
        assert found.operations == ()
        assert [str(one) for one in found.settings or ()] == said


def test_tensors_of_other_names_are_no_other_inputs(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    write(tmp_path / "old.onnx", NODES, WEIGHTS)
    nodes = changed_at(0, ("Conv", "x kernel", *NODES[0][2:]))
    write(
        tmp_path / "new.onnx", nodes, {"kernel": WEIGHTS["k"], "v": WEIGHTS["v"], "g": WEIGHTS["g"]}
    )
    found = graph_change(tmp_path / "new.onnx", tmp_path / "old.onnx")
    assert (found.operations, found.settings) == ((), ())


def test_another_set_of_operations_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for opset in (11, 13):
        write(
            tmp_path / f"{opset}.onnx", [("Einsum", "x v", "y", {"equation": ""})], WEIGHTS, opset
        )
    found = graph_change(tmp_path / "13.onnx", tmp_path / "11.onnx")
    assert "graph: opset ai.onnx 11 → ai.onnx 13" in [str(one) for one in found.settings or ()]


def keras_file(path: Path, **said: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
    dense = {"class_name": "Dense", "config": {"name": "d", "activation": "relu"} | said}
    with zipfile.ZipFile(path, "w") as archive:
        config = {"class_name": "Sequential", "config": {"layers": [dense]}}
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


def test_layers_of_keras_are_set_to_something_too(tmp_path: Path) -> None:
    old = keras_file(tmp_path / "old.keras", kernel_initializer="zeros")
    for said, expected in (
        ({"activation": "tanh"}, ["Dense d: activation relu → tanh"]),
        ({"kernel_initializer": "ones"}, []),
    ):
        found = graph_change(keras_file(tmp_path / "new.keras", **said), old)
        assert [str(one) for one in found.settings or ()] == expected


def test_the_program_of_an_archive_and_the_header_of_a_gguf_are_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    for name, act in (("old", nn.ReLU()), ("same", nn.ReLU()), ("new", nn.LeakyReLU(0.3))):
        torch.jit.save(torch.jit.script(nn.Sequential(linear, act)), tmp_path / f"{name}.pt")
    assert graph_change(tmp_path / "same.pt", tmp_path / "old.pt").settings == ()
    assert graph_change(tmp_path / "new.pt", tmp_path / "old.pt").settings != ()
    gguf = pytest.importorskip("gguf")
    for name, epsilon, tokens, more in (
        ("old", 1e-5, "ab", {}),
        ("new", 1e-3, "ab", {}),
        ("swapped", 1e-5, "ba", {}),
        ("sampled", 1e-5, "ab", {"general.sampling.temp": "2"}),
        ("renamed", 1e-5, "ab", {"general.name": "other"}),
    ):
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", "mamba")
        for key, value in more.items():
            writer.add_string(key, value)
        writer.add_layer_norm_rms_eps(epsilon)
        writer.add_token_list([*tokens])
        writer.add_tensor("a", np.ones((2, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for name, key in (
        ("new", "mamba.attention.layer_norm_rms_epsilon"),
        ("swapped", "tokenizer.ggml.tokens"),
        ("sampled", "general.sampling.temp"),
    ):
        found = graph_change(tmp_path / f"{name}.gguf", tmp_path / "old.gguf")
        assert [one.setting for one in found.settings or ()] == [key]
    whole = difference_of(tmp_path / "renamed.gguf", tmp_path / "old.gguf")
    assert (whole.not_compared, whole.headline.graph.settings) == (("general.name",), ())  # type: ignore[union-attr]


CHECKPOINT = {
    "model": {"state_dict": {"w": torch.ones(2, 3)}, "args": {"cutoff": 6, "act": "silu"}},
    "hyper_parameters": {"heads": 4, "sizes": [8, 8]},
    "classes": ("a", "b"),
    "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    "epoch": 3,
}


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("model", "args", "cutoff"), 3, "model.args.cutoff 6 → 3"),
        (("hyper_parameters", "sizes"), [8, 9], "hyper_parameters.sizes.1 8 → 9"),
        (("classes",), ("b", "a"), "classes.0 a → b"),
        (("epoch",), 4, ""),
        (("optimizer", "param_groups"), [{"lr": 0.2}], ""),
    ],
)
def test_plain_values_of_a_checkpoint_are_compared(
    tmp_path: Path, keys: tuple[str, ...], value: Any, told: str
) -> None:
    changed = copy.deepcopy(CHECKPOINT)
    inner: Any = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    for name, content in (("old", CHECKPOINT), ("new", changed)):
        torch.save(content, tmp_path / f"{name}.pt")
    whole = difference_of(tmp_path / "new.pt", tmp_path / "old.pt")
    assert whole.not_compared == ("epoch", "optimizer")
    assert whole.headline is not None
    assert whole.headline.graph is not None
    settings = [str(one) for one in whole.headline.graph.settings or ()]
    assert [one.removeprefix("checkpoint: ") for one in settings][:1] == ([told] if told else [])


def test_the_order_in_which_keras_reads_weights_is_compared(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    names = [f"{layer}/{part}" for layer in "ab" for part in ("gamma", "beta")]
    for path, layers, parts in (
        ("old", "ab", ("gamma", "beta")),
        ("same", "ab", ("gamma", "beta")),
        ("parts", "ab", ("beta", "gamma")),
        ("layers", "ba", ("gamma", "beta")),
    ):
        with h5py.File(tmp_path / f"{path}.h5", "w") as file:
            for at, name in enumerate(names):
                file[f"{name[0]}/{name}"] = np.arange(4.0) + at
            file.attrs["layer_names"] = [one.encode() for one in layers]
            for layer in "ab":
                file[layer].attrs["weight_names"] = [f"{layer}/{one}".encode() for one in parts]
    for path in ("same", "parts", "layers"):
        found = graph_change(tmp_path / f"{path}.h5", tmp_path / "old.h5")
        assert found.settings is not None
        assert bool(found.settings) == (path != "same")


@pytest.mark.parametrize("place", ["/", "a", "a/w"])
def test_attributes_of_an_hdf5_file_of_others_are_compared(place: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name, value in (("old", "relu"), ("same", "relu"), ("new", "gelu")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["a/w"] = np.arange(4.0)
            file[place].attrs["act"] = value
            file["a"].attrs["scales"] = [1.0, 2.0]
    for name in ("same", "new"):
        found = graph_change(tmp_path / f"{name}.h5", tmp_path / "old.h5")
        assert bool(found.settings) == (name == "new")


@pytest.mark.parametrize(
    ("before", "after", "told", "left_out"),
    [
        ({"act": "silu"}, {"act": "gelu"}, "metadata: act silu → gelu", ()),
        ({"format": "pt"}, {"act": "gelu"}, "metadata: act – → gelu", ()),
        ({"act": "silu"}, None, "metadata: act silu → –", ()),
        ({"format": "pt", "act": "silu"}, {"act": "silu"}, "", ()),
        (None, {"format": "pt"}, "", ()),
        ({"spec.date": "1", "ss_seed": "2"}, {"epoch": "3"}, "", ("epoch", "spec.date", "ss_seed")),
    ],
)
def test_words_in_a_header_of_tensors_are_compared(
    tmp_path: Path, before: Any, after: Any, told: str, left_out: tuple[str, ...]
) -> None:
    for name, said in (("old", before), ("new", after)):
        save_file({"w": torch.ones(2, 3)}, tmp_path / f"{name}.safetensors", said)
    whole = difference_of(tmp_path / "new.safetensors", tmp_path / "old.safetensors")
    graph = whole.headline and whole.headline.graph
    settings = [str(one).strip() for one in (graph and graph.settings) or ()]
    assert settings == ([told] if told else [])
    assert whole.not_compared == left_out


def test_words_of_every_shard_are_compared(tmp_path: Path) -> None:
    said = {"old": ("a", "b"), "cut otherwise": ("a", "b", "b"), "new": ("a", "c")}
    for folder, words in said.items():
        (tmp_path / folder).mkdir()
        names = [f"model-{at:05}-of-{len(words):05}.safetensors" for at in range(1, len(words) + 1)]
        places = {f"w{at}": name for at, name in enumerate(names)}
        index = tmp_path / folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
        for (tensor, name), word in zip(places.items(), words, strict=True):
            about = {"first" if tensor == "w0" else "more": word}
            save_file({tensor: torch.ones(2, 3)}, tmp_path / folder / name, about)
    same, other = (graph_change(tmp_path / x, tmp_path / "old") for x in ("cut otherwise", "new"))
    assert (same.settings, [str(one) for one in other.settings or ()]) == (
        (),
        ["metadata: more b → c"],
    )


def test_words_that_a_graph_is_used_by_are_compared(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for name, said in (
        ("old", {"names": "cat, dog", "date": "1"}),
        ("date", {"names": "cat, dog", "date": "2"}),
        ("names", {"names": "dog, cat", "date": "1"}),
    ):
        model = onnx.load(write(tmp_path / f"{name}.onnx", NODES, WEIGHTS))
        onnx.helper.set_model_props(model, said)
        onnx.save(model, tmp_path / f"{name}.onnx")
    for name, told in (("date", []), ("names", ["metadata: names cat, dog → dog, cat"])):
        found = graph_change(tmp_path / f"{name}.onnx", tmp_path / "old.onnx")
        assert [str(one) for one in found.settings or ()] == told


def test_what_is_around_the_layers_of_one_program_is_the_same(tmp_path: Path) -> None:
    """Seen red: an identical file had "what is around the layers was not compared"."""
    pytest.importorskip("onnx")
    layer = {f"w{at}": randn(4, 4, seed=at).float().numpy() for at in range(2)}

    def saved(name: str, last: str, tensors: dict[str, Any]) -> LoadedModel:
        nodes: Nodes = [("MatMul", "x w0", "a"), ("Relu", "a", "b"), ("MatMul", "b w1", "c")]
        nodes += [("Sin", "c", "d"), (last, "d", "y")]
        return bl.load(write(tmp_path / name, nodes, tensors))

    old = saved("old.onnx", "Cos", layer)
    for name, model, around in (
        ("the same file", saved("same.onnx", "Cos", layer), ""),
        ("other numbers", saved("new.onnx", "Cos", {**layer, "w1": layer["w1"] + 1}), ""),
        ("another operation", saved("other.onnx", "Tan", layer), "unknown"),
    ):
        found = bl.audit(model, baseline=old).record.difference
        assert found is not None
        assert found.around == around, name


def test_tensors_alone_say_nothing_of_operations(tmp_path: Path) -> None:
    for name in ("old", "new"):
        save_file({"w": torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
        torch.save(
            {"state_dict": nn.Linear(2, 2).state_dict(), "epoch": 3}, tmp_path / f"{name}.pt"
        )
    for ends in (("safetensors", "safetensors"), ("pt", "pt"), ("pt", "safetensors")):
        paths = (tmp_path / f"{name}.{end}" for name, end in zip(("new", "old"), ends, strict=True))
        both = (open_any(one, ReadOptions(), compared=True) for one in paths)
        assert changed_graph(*map(header_of, both)) is None


# ---- another program beside the same tensors

ENDS = {"h": np.ones((2, 2), np.float32), "z": np.float32(0)}


def onnx_graph(
    path: Path, nodes: list[Any], outputs: str = "y", functions: tuple[Any, ...] = ()
) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    x, *ends = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in f"x{outputs}"
    )
    weights = [numpy_helper.from_array(np.asarray(one), name) for name, one in ENDS.items()]
    graph = helper.make_graph(nodes, "g", [x], ends, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    save(helper.make_model(graph, opset_imports=opsets, functions=[*functions]), path)
    return path


def node(text: str, **said: Any) -> Any:
    """Return a node as it is written: outputs = operation inputs."""
    from onnx import helper

    made, _, rest = text.partition(" = ")
    kind, *given = rest.split()
    domain = "my" if kind in ("F", "G") else ""
    return helper.make_node(kind, given, made.split(), domain=domain, **said)


def body(*texts: str, gives: str) -> Any:
    from onnx import TensorProto, helper

    end = helper.make_tensor_value_info(gives, TensorProto.FLOAT, [2, 2])
    return helper.make_graph([node(text) for text in texts], gives, [], [end])


def function(name: str, inputs: str, text: str) -> Any:
    from onnx import helper

    made = text.partition(" = ")[0]
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function("my", name, [*inputs], [made], [node(text)], opsets)


def planted_graphs(kind: str) -> list[dict[str, Any]]:
    """Return what two graphs are made of that hold the same tensors and compute something else."""
    if kind in ("branches", "what a branch gives"):
        one, other = body("t = Relu m", gives="t"), body("e = Neg m", gives="e")
        longer = [body("t = Relu m", "u = Sigmoid t", gives=end) for end in "ut"]
        pairs = [(one, other), (other, one)] if kind == "branches" else [(x, other) for x in longer]
        start = [
            node("m = MatMul x h"),
            node("s = ReduceSum x", keepdims=0),
            node("c = Greater s z"),
        ]
        return [
            {"nodes": [*start, node("y = If c", then_branch=then, else_branch=other)]}
            for then, other in pairs
        ]
    if kind == "outputs of a node":
        ends = [node("a = Sub q k"), node("y = Mul a v")]
        return [{"nodes": [node(f"{x} = Split x", axis=1), *ends]} for x in ("q k v", "q v k")]
    if kind == "names of functions":
        calls = [node("a = F x"), node("b = MatMul a h"), node("y = G b")]
        return [
            {
                "nodes": calls,
                "functions": (function(f, "u", "o = Relu u"), function(g, "u", "p = Tanh u")),
            }
            for f, g in ("FG", "GF")
        ]
    if kind == "inputs of a function":
        return [
            {"nodes": [node("y = F x h")], "functions": (function("F", x, "o = Sub u v"),)}
            for x in ("uv", "vu")
        ]
    return [
        {"nodes": [node("a = MatMul x h"), node("y = Relu a")], "outputs": x} for x in ("ay", "ya")
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "branches", "what a branch gives", "outputs of a node", "names of functions",
        "inputs of a function", "outputs of the graph",
    ],
)  # fmt: skip
def test_a_graph_that_computes_something_else_is_told(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnx")
    files = [
        onnx_graph(tmp_path / f"{at}.onnx", **made) for at, made in enumerate(planted_graphs(kind))
    ]
    for new, old in (files, files[::-1]):
        found = graph_change(new, old)
        assert found.operations == ()
        assert found.settings


def test_weights_of_other_names_that_stand_in_each_others_place_are_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    one, other = (randn(3, 3, seed=seed).float().numpy() for seed in (1, 2))

    def chain(file: str, names: str, tensors: dict[str, Any]) -> Path:
        first, second = names
        nodes: Nodes = [("MatMul", f"x {first}", "a"), ("Relu", "a", "b")]
        return write(tmp_path / file, [*nodes, ("MatMul", f"b {second}", "y")], tensors)

    old = chain("old.onnx", "vw", {"v": one, "w": other})
    for name, (order, tensors, kind, changed) in {
        "other names alone": ("pq", {"p": one, "q": other}, "same_tensors", False),
        "the names of each other": ("wv", {"w": one, "v": other}, "same_tensors", False),
        "the numbers of the other": ("pq", {"p": other, "q": one}, "same_tensors", True),
        "read by the other": ("qp", {"p": one, "q": other}, "same_tensors", True),
        "the other's numbers": ("vw", {"v": other, "w": one}, "reordered", False),
        "read by the other, too": ("wv", {"v": one, "w": other}, "same_tensors", True),
    }.items():
        whole = difference_of(chain(f"{name}.onnx", order, tensors), old)
        assert whole.headline is not None
        assert whole.headline.graph is not None
        assert whole.headline.kind == kind, name
        assert whole.headline.graph.is_other == changed, name
        assert whole.headline.unplaced == 0 or changed, name


def test_names_of_functions_say_nothing_and_what_is_told_is_told_again(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")

    def saved(file: str, name: str, domain: str) -> Path:
        call = onnx.helper.make_node(name, ["x"], ["y"], domain=domain)
        held = function(name, "u", "o = Relu u")
        held.domain = domain
        path = onnx_graph(tmp_path / file, [call], functions=(held,))
        model = onnx.load(path)
        model.opset_import[1].domain = domain
        onnx.save(model, path)
        return path

    old = saved("old.onnx", "F", "my")
    for name, domain in (("G", "my"), ("F", "his")):
        assert graph_change(saved("new.onnx", name, domain), old) == GraphChange((), ())
    onnx_graph(tmp_path / "plain.onnx", [node("y = Relu x")])
    told = [graph_change(tmp_path / "plain.onnx", old).settings for _ in range(2)]
    assert told[0] == told[1] != ()
    assert all(one.operation for one in told[0] or ())


def inner_graph(path: Path, place: str, names: str, weights: list[np.ndarray]) -> Path:
    """Write x → x A → x A B with A in a body or a function, called by names; B is outside of it."""
    from onnx import helper, numpy_helper

    inner, outer = (numpy_helper.from_array(x, n) for n, x in zip(names, weights, strict=True))
    shapes: dict[str, Any] = {"k": (7, []), "i": (7, []), "go": (9, []), "on": (9, [])}
    values = {
        name: helper.make_tensor_value_info(name, *shapes.get(name, (1, [2, 2])))
        for name in ("x", "y", "i", "go", "on", "s", "t", "e")
    }
    functions = []
    if place == "function":
        first = [node("h = F x")]
        parts = [helper.make_node("Constant", [], [names[0]], value=inner)]
        parts.append(node(f"o = MatMul u {names[0]}"))
        functions = [
            helper.make_function("my", "F", ["u"], ["o"], parts, [helper.make_opsetid("", 17)])
        ]
    elif place == "If":
        parts = [node(f"t = MatMul x {names[0]}")]
        then = helper.make_graph(parts, "then", [], [values["t"]], [inner])
        other = helper.make_graph([node("e = Relu x")], "else", [], [values["e"]])
        first = [node("go = IsNaN k"), node("h = If go", then_branch=then, else_branch=other)]
    else:
        parts = [node("on = Identity go"), node(f"t = MatMul s {names[0]}")]
        ends = [[values[n] for n in text.split()] for text in ("i go s", "on t")]
        body = helper.make_graph(parts, "body", *ends, [inner])
        first = [helper.make_node("Loop", ["n", "", "x"], ["h"], body=body)]
    held = [
        outer,
        numpy_helper.from_array(np.int64(3), "n"),
        numpy_helper.from_array(np.float32(3), "k"),
    ]
    nodes = [*first, node(f"y = MatMul h {names[1]}")]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"]], held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, functions=functions).SerializeToString()
    )
    return path


@pytest.mark.parametrize("place", ["If", "Loop", "function"])
def test_a_weight_inside_a_body_is_compared_at_its_place(tmp_path: Path, place: str) -> None:
    """Under another name, and trained on, exchanged with one outside of it, or as it was."""
    pytest.importorskip("onnx")
    one, other = (randn(2, 2, seed=seed).float().numpy() for seed in (1, 2))
    old = inner_graph(tmp_path / "old.onnx", place, "ab", [one, other])
    for changed, names, weights, said in (
        ("nothing", "pb", [one, other], ("same_tensors", 0, True)),
        ("trained on", "pb", [one * 1.01 + 0.001, other], ("differ", 1, True)),
        ("exchanged", "pq", [other, one], ("same_tensors", 0, False)),
        ("the same names, exchanged", "ab", [other, one], ("reordered", 2, True)),
    ):
        new = inner_graph(tmp_path / f"{changed}.onnx", place, names, weights)
        head = difference_of(new, old).headline
        assert head is not None
        assert (head.kind, head.differing, head.graph == GraphChange((), ())) == said, changed
        assert (head.unread, head.unplaced == 0) == ((0, 0), said[2]), changed


def stored_as(kind: str, table: np.ndarray, path: Path) -> Path:
    """Write x → relu(x A) with A in an initializer, or in a node, and stored dense or sparse."""
    from onnx import helper, numpy_helper, save

    how, _, home = kind.partition(" in a ")
    places = np.argwhere(table) if how == "places" else np.flatnonzero(table)
    parts = (table[table != 0], "A"), (places, "at")
    held = numpy_helper.from_array(table, "A")
    if how in ("sparse", "places"):
        held = helper.make_sparse_tensor(
            *(numpy_helper.from_array(*one) for one in parts), table.shape
        )
    word = "value" if how == "dense" else "sparse_value"
    nodes = [node("m = MatMul x A"), node("y = Relu m")]
    nodes = [helper.make_node("Constant", [], ["A"], **{word: held}), *nodes] if home else nodes
    x, y = (helper.make_tensor_value_info(name, 1, [2, 4]) for name in "xy")
    own = {"initializer" if how == "dense" else "sparse_initializer": [] if home else [held]}
    graph = helper.make_graph(nodes, "g", [x], [y], **own)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("kind", ["dense in a node", "sparse", "places", "sparse in a node"])
def test_numbers_of_a_graph_are_the_same_however_they_are_stored(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnx")
    table = np.diag(np.arange(1, 5, dtype="f4")) @ np.eye(4, dtype="f4")[[2, 0, 3, 1]]
    dense = stored_as("dense", table, tmp_path / "dense.onnx")
    other = stored_as(kind, table, tmp_path / "other.onnx")
    moved = stored_as(kind, table + table * (table > 3), tmp_path / "moved.onnx")
    for pair in ((other, dense), (dense, other)):
        found = difference_of(*pair)
        assert (found.changed, found.model_alone, found.baseline_alone) == ((), (), ())
        assert found.headline is not None
        assert (found.headline.kind, found.headline.graph) == ("same_tensors", GraphChange((), ()))
    assert difference_of(moved, dense).headline.differing == 1  # type: ignore[union-attr]
    assert bl.inventory(other).parameters == bl.inventory(dense).parameters == 16


PARTS = ("attention.self.query", "attention.self.key", "intermediate.dense")
NET = {f"encoder.layer.0.{part}": (6 if part[0] == "i" else 4, 4) for part in PARTS}


@pytest.mark.parametrize(
    ("kind", "unplaced"), [("honest", 0), ("not turned", 1), ("exchanged", 2), ("twice", 1)]
)
def test_a_matrix_without_a_name_stands_beside_its_bias(
    tmp_path: Path, kind: str, unplaced: int
) -> None:
    """As torch exports `nn.Linear`: turned and without a name, where a bias keeps its own."""
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper, save

    weights = {n: randn(*size, seed=at).float() for at, (n, size) in enumerate(NET.items())}
    biases = {n: randn(size[0], seed=9 + at).float() for at, (n, size) in enumerate(NET.items())}
    held = {f"{name}.weight": one for name, one in weights.items()}
    held |= {f"{name}.bias": one for name, one in biases.items()}
    save_file(held, tmp_path / "old.safetensors")
    query, key, up = (one.T.contiguous() for one in weights.values())
    query, key = (key, query) if kind == "exchanged" else (query, key)
    arrays = {"w0": query.T.contiguous() if kind == "not turned" else query, "w1": key, "w2": up}
    arrays |= {f"{name}.bias": one for name, one in biases.items()}
    ends = [*(f"y{at}" for at in range(3)), *(["z"] if kind == "twice" else [])]
    nodes = [node(f"m{at} = MatMul x w{at}") for at in range(3)]
    nodes += [node(f"y{at} = Add m{at} {name}.bias") for at, name in enumerate(NET)]
    nodes += [node("z = MatMul x w0")] if kind == "twice" else []
    x, *ends = (helper.make_tensor_value_info(name, 1, None) for name in ("x", *ends))
    told = [numpy_helper.from_array(one.numpy(), name) for name, one in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], ends, told)
    save(helper.make_model(graph), tmp_path / "new.onnx")
    for pair in (("new.onnx", "old.safetensors"), ("old.safetensors", "new.onnx")):
        head = difference_of(*(tmp_path / name for name in pair)).headline
        assert head is not None
        assert (head.kind, head.unplaced) == ("same_tensors", unplaced)


def test_independent_operations_in_another_order_are_the_same_program(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    nodes = [node("a = Relu x"), node("b = Neg x"), node("y = Sub a b")]
    files = [
        onnx_graph(tmp_path / f"{at}.onnx", [nodes[k] for k in order])
        for at, order in enumerate(([0, 1, 2], [1, 0, 2]))
    ]
    assert graph_change(*files) == GraphChange((), ())


class Scaled(nn.Module):
    def __init__(self, scale: float, parts: list[float]) -> None:
        super().__init__()
        self.linear, self.scale, self.parts = nn.Linear(4, 4), scale, parts
        nn.init.ones_(self.linear.weight), nn.init.ones_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.dropout(self.linear(x) * self.scale, 0.5, self.training) + self.parts[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attributes_and_constants_of_an_archive_are_compared(tmp_path: Path) -> None:
    def saved(name: str, module: Any) -> Path:
        torch.jit.save(module, tmp_path / name)
        return tmp_path / name

    class Kept(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.linear, self.kept = Scaled(1.0, [0.0]).linear, [by * torch.arange(4.0)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * self.kept[0]

    def traced(by: float) -> Any:
        return torch.jit.trace(Kept(by), torch.ones(2, 4))  # type: ignore[no-untyped-call]

    old = saved("old.pt", torch.jit.script(Scaled(1.0, [0.0]).eval()))
    again = saved("again.pt", torch.jit.load(old))  # type: ignore[no-untyped-call]
    assert graph_change(again, old) == GraphChange((), ())
    for name, module in {
        "scale": Scaled(3.0, [0.0]).eval(),
        "parts": Scaled(1.0, [5.0]).eval(),
        "training": Scaled(1.0, [0.0]).train(),
    }.items():
        found = graph_change(saved(f"{name}.pt", torch.jit.script(module)), old)
        assert found.settings
        assert name in str(found.settings[0])
    both = [saved(f"traced {by}.pt", traced(by)) for by in (1.0, 2.0)]
    assert graph_change(*both).settings
    assert graph_change(both[0], both[0]).settings == ()


def layer(name: str, reads: str, **said: Any) -> dict[str, Any]:
    history = {"class_name": "__keras_tensor__", "config": {"keras_history": [reads, 0, 0]}}
    inbound = [{"args": [history], "kwargs": {}}]
    return {"class_name": "Dense", "config": {"name": name, **said}, "inbound_nodes": inbound}


def test_order_and_wiring_of_keras_are_compared_and_numbers_of_a_run_are_not(
    tmp_path: Path,
) -> None:
    h5py = pytest.importorskip("h5py")

    def saved(file: str, layers: list[dict[str, Any]], outputs: str = "b") -> Path:
        ends = [[name, 0, 0] for name in outputs.split()]
        config = {"name": "m", "layers": layers, "output_layers": ends}
        with h5py.File(tmp_path / file, "w") as held:
            held.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
            for at, name in enumerate(sorted(one["config"]["name"] for one in layers)):
                values = np.arange(at, at + 4, dtype=np.float32).reshape(2, 2)
                held[f"model_weights/{name}/{name}/kernel"] = values
        return tmp_path / file

    layers = [layer("a", "i"), layer("b", "a"), layer("c", "b")]
    old = saved("old.h5", layers, "b c")
    for name, others, outputs, changed in (
        ("a number of the run", [layer("a", "i", shared_object_id=7), *layers[1:]], "b c", False),
        ("order", [layers[1], layers[0], layers[2]], "b c", True),
        ("outputs", layers, "c b", True),
        ("wiring", [*layers[:2], layer("c", "a")], "b c", True),
    ):
        found = graph_change(saved("new.h5", others, outputs), old)
        assert found.is_other == changed, name
        assert found.settings is not None
    renamed = [layer("p", "i"), layer("q", "p"), layer("r", "q")]
    whole = difference_of(saved("new.h5", renamed, "q r"), old)
    assert whole.headline is not None
    assert whole.headline.graph == GraphChange((), ())
