"""What became of the weights, in one word: planted differences, across names, axes and formats.

Damage seen to fail: contents matched without turned axes; a match by chance taken; parts searched
in one direction alone; swapped blocks told as the same tensors; codes not held to the nearest one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file
from torch import Tensor, nn

from bilens.base.errors import CheckpointError
from bilens.findings.rules.changes import kind_of_change
from bilens.findings.rules.registry import Condition, find_rule, judge_condition
from bilens.findings.rules.rule import Evidence
from bilens.findings.tensor_difference import compare_tensors
from bilens.findings.tensor_matching import match_tensors, place_of
from bilens.io.any_model import tensors_beside, tensors_of_parts
from bilens.io.contents import Contents, Operation, Tensor as HeldTensor, TensorBytes
from bilens.io.formats.named_roles import open_tensors
from bilens.io.inventory import contents_at
from bilens.io.load import load
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.records.layer_readings import LayerDifference
from bilens.records.tensor_changes import (
    CountChange,
    FileChange,
    GraphChange,
    SettingChange,
    WholeDifference,
)
from bilens.report.sections.difference import difference_sentences, headline_sentence
from bilens.report.text import load_catalogue
from builders import randn
from onnx_files import export

D, H, VOCAB, BLOCKS = 32, 48, 80, 2
Tensors = Mapping[str, Tensor]


def store(tensors: Tensors, codes: str = "") -> Store:
    def held(name: str, tensor: Tensor) -> StoredTensor:
        coded = codes if tensor.ndim > 1 else ""
        place = Path("m"), name, tuple(tensor.shape), tensor.dtype, tensor.__getitem__
        return StoredTensor(*place, quantised_as=coded)

    return {name: held(name, tensor) for name, tensor in tensors.items()}


def net(seed: int = 0) -> dict[str, Tensor]:
    """The weights of a small transformer: spread as trained ones are, norms about 1, biases."""
    sizes = {"embed_tokens": (VOCAB, D), "lm_head": (VOCAB, D)}
    for k in range(BLOCKS):
        at = f"layers.{k}"
        sizes |= {f"{at}.self_attn.{one}_proj": (D, D) for one in "qkvo"}
        sizes |= {f"{at}.mlp.gate_proj": (H, D), f"{at}.mlp.up_proj": (H, D)}
        sizes[f"{at}.mlp.down_proj"] = (D, H)
    found = {
        f"{name}.weight": randn(*shape, seed=100 * seed + at).float() / 6
        for at, (name, shape) in enumerate(sizes.items())
    }
    for k in range(BLOCKS):
        for at, one in enumerate("qkv"):
            name = f"layers.{k}.self_attn.{one}_proj.bias"
            found[name] = randn(D, seed=100 * seed + 50 + 3 * k + at).float()
        found[f"layers.{k}.norm.weight"] = 1 + randn(D, seed=100 * seed + 70 + k).float() / 9
        found[f"layers.{k}.mlp.down_proj.bias"] = torch.zeros(D)
    return found


def changed(name: str, change: Callable[..., Tensor]) -> dict[str, Tensor]:
    tensors = net()
    return {**tensors, name: change(tensors[name])}


def one_number(tensor: Tensor) -> Tensor:
    found = tensor.clone()
    found[3, 5] += 0.25
    return found


def of_rank(rank: int, *names: str) -> dict[str, Tensor]:
    tensors = net()
    for at, name in enumerate(names):
        rows, columns = tensors[name].shape
        left, right = randn(rows, rank, seed=at), randn(rank, columns, seed=9 + at)
        tensors[name] = tensors[name] + 0.02 * (left @ right).float()
    return tensors


def renamed(tensors: Tensors, change: Callable[[Tensor], Tensor] = lambda x: x) -> Tensors:
    """The tensors in another order, under names that say nothing."""
    return {f"onnx::MatMul_{k}": change(x) for k, x in enumerate([*tensors.values()][::-1])}


def flipped(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor


def swapped_blocks() -> dict[str, Tensor]:
    other = {"0": "1", "1": "0"}
    place = lambda n: ".".join(other.get(part, part) for part in n.split("."))  # noqa: E731
    tensors = net()
    return {name: tensors[place(name)] for name in tensors}


def permuted(*, noise: float = 0.0) -> dict[str, Tensor]:
    """Hidden units of one block in another order, and perhaps trained on."""
    tensors, order = net(), torch.randperm(H, generator=torch.Generator().manual_seed(1))
    for one in ("gate", "up"):
        name = f"layers.1.mlp.{one}_proj.weight"
        tensors[name] = tensors[name][order]
    tensors["layers.1.mlp.down_proj.weight"] = tensors["layers.1.mlp.down_proj.weight"][:, order]
    more = {
        name: noise * randn(*x.shape, seed=400 + k) for k, (name, x) in enumerate(net().items())
    }
    return {name: (x + more[name]).float() if noise else x for name, x in tensors.items()}


def fused(tensors: Tensors, how: str) -> dict[str, Tensor]:
    """q, k, v and gate, up as one matrix, one behind the other, by heads or in turns."""
    found = {name: x for name, x in tensors.items() if "_proj" not in name}
    for k in range(BLOCKS):
        parts = [tensors[f"layers.{k}.self_attn.{one}_proj.weight"] for one in "qkv"]
        biases = [tensors[f"layers.{k}.self_attn.{one}_proj.bias"] for one in "qkv"]
        both = [tensors[f"layers.{k}.mlp.{one}_proj.weight"] for one in ("gate", "up")]
        heads = [part.reshape(4, 1, D // 4, -1) for part in parts]
        rows = torch.cat(heads, 1).reshape(3 * D, D) if how == "heads" else torch.cat(parts)
        pair = torch.stack(both, 1).reshape(2 * H, D) if how == "turns" else torch.cat(both)
        turn = flipped if how == "columns" else lambda x: x
        found[f"h.{k}.c_attn.weight"], found[f"h.{k}.c_attn.bias"] = turn(rows), torch.cat(biases)
        found[f"h.{k}.gate_up.weight"] = turn(pair)
        for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight", "mlp.down_proj.bias"):
            found[f"h.{k}.{name}"] = turn(tensors[f"layers.{k}.{name}"])
    return found


def stacked(*order: int) -> dict[str, Tensor]:
    """The matrices up of all blocks as one tensor."""
    names = [f"layers.{k}.mlp.up_proj.weight" for k in order]
    left = {name: x for name, x in net().items() if name not in names}
    return {**left, "up_exps.weight": torch.stack([net()[name] for name in names])}


def quantised(tensors: Tensors, levels: int = 255, along: int = 1) -> dict[str, Tensor]:
    """Matrices as codes with one scale a row, or a column, say them."""

    def nearest(x: Tensor) -> Tensor:
        scale = x.abs().amax(along, keepdim=True) / (levels // 2)
        return (x / scale).round() * scale

    return {name: nearest(x) if x.ndim > 1 else x for name, x in tensors.items()}


def without(name: str) -> dict[str, Tensor]:
    return {other: x for other, x in net().items() if other != name}


def tied() -> dict[str, Tensor]:
    tensors = net()
    return {**tensors, "lm_head.weight": tensors["embed_tokens.weight"].clone()}


def trained_on(size: float, seed: int = 5) -> dict[str, Tensor]:
    return {
        n: (x + size * randn(*x.shape, seed=seed + k)).float()
        for k, (n, x) in enumerate(net().items())
    }


def with_outlier(value: float | None) -> dict[str, Tensor]:
    """One number of a matrix is twenty, and a row perhaps zero."""
    tensors = changed(UP, lambda x: x / 8)
    tensors[UP][7, 9] = 20
    tensors[UP][20] *= 1 if value is None else value
    return tensors


def outlying(more: float) -> Tensor:
    found = randn(64, seed=4).float() / 9
    found[3], found[10] = 30, 0.25 + more
    return found


def larger(tensor: Tensor) -> Tensor:
    found = tensor.clone()
    found[3, 5] = 1000
    return found


def new_head(seed: int) -> dict[str, Tensor]:
    sizes = {"fc1.weight": (16, 8), "fc1.bias": (16,), "fc2.bias": (1,)}
    found = {name: randn(*shape, seed=at) for at, (name, shape) in enumerate(sizes.items())}
    return {**found, "fc2.weight": randn(1, 16, seed=9 + seed)}


def kernel(seed: int = 0) -> Tensor:
    return randn(8, 8, 3, 3, seed=seed).float()


def experts() -> dict[str, Tensor]:
    return {
        f"layers.0.mlp.experts.{k}.w{j}.weight": randn(16, 16, seed=9 * k + j)
        for k in range(4)
        for j in (1, 2, 3)
    }


def as_stacks(*order: int) -> dict[str, Tensor]:
    name = "layers.0.mlp.experts.{}.w{}.weight"
    return {
        f"layers.0.mlp.experts.w{j}": torch.stack([experts()[name.format(k, j)] for k in order])
        for j in (1, 2, 3)
    }


BIAS = "layers.0.mlp.up_proj.bias"
MASKS = {f"h.{k}.attn.bias": torch.tril(torch.ones(1, 1, 16, 16)) for k in range(40)}
Q, UP = "layers.1.self_attn.q_proj.weight", "layers.0.mlp.up_proj.weight"
EXTRA = {"adapter.weight": randn(D, 4, seed=77).float()}
CASES: dict[str, tuple[Tensors, Tensors, str, dict[str, Any]]] = {
    "a copy": (net(), net(), "same_tensors", {"ways": ("header",)}),
    "other names and order": (renamed(net()), net(), "same_tensors", {"differing": 0, "alone": 0}),
    "transposed, under other names": (renamed(net(), flipped), net(), "same_tensors", {"alone": 0}),
    "transposed, under the same names": (
        *({n: flipped(x) for n, x in net().items()}, net(), "same_tensors", {"differing": 0}),
    ),
    "one square matrix transposed": (changed(Q, flipped), net(), "reordered", {"differing": 1}),
    "float16": ({n: x.half() for n, x in net().items()}, net(), "rounded", {"types": ("float16",)}),
    "a baseline in bfloat16": (
        *(net(), {n: x.bfloat16() for n, x in net().items()}, "baseline_rounded", {"alone": 0}),
    ),
    "float16 stored as float32": (
        *({n: x.half().float() for n, x in net().items()}, net(), "rounded", {"differing": 0}),
    ),
    "float16 in float32": (
        {n: x.half().float() for n, x in net().items()},
        {n: x.half() for n, x in net().items()},
        *("same_numbers", {"types": ("float32",), "error": 0.0}),
    ),
    "float16, transposed and renamed": (
        renamed({n: x.half() for n, x in net().items()}, flipped),
        *(net(), "rounded", {"alone": 0}),
    ),
    "half in name alone": (
        {n: x.half() for n, x in trained_on(0.01).items()},
        *(net(), "differ", {"no_copy": True}),
    ),
    "one changed number": (
        *(changed(UP, one_number), net(), "differ", {"ranks": (1, 1), "layers": (0,)}),
    ),
    "one changed number, renamed": (
        *(renamed(changed(UP, one_number), flipped), net(), "differ", {"ranks": (1, 1)}),
    ),
    "rank 2 in two blocks": (
        *(of_rank(2, Q, UP), net(), "differ", {"ranks": (2, 2), "layers": (0, 1), "differing": 2}),
    ),
    "rank 2, in float16": (
        {n: x.half() for n, x in of_rank(2, Q).items()},
        *(net(), "differ", {"ranks": (2, 2), "differing": 1}),
    ),
    "units in another order": (permuted(), net(), "reordered", {"layers": (1,), "differing": 3}),
    "swapped blocks": (swapped_blocks(), net(), "reordered", {"layers": (0, 1)}),
    "swapped blocks, names of llama.cpp": (
        {n.replace("layers", "blk").replace("self_attn.q_proj", "attn_q"): x
         for n, x in swapped_blocks().items() if "q_proj" in n},
        {n: x for n, x in net().items() if "q_proj" in n},
        *("reordered", {"layers": (0, 1)}),
    ),
    "swapped blocks, other names": (
        {n.replace("layers", "h").replace("proj", "map"): x for n, x in swapped_blocks().items()},
        *(net(), "reordered", {"layers": (0, 1), "differing": 22}),
    ),
    "a stack": (stacked(0, 1), net(), "same_tensors", {"alone": 0}),
    "a stack in another order": (stacked(1, 0), net(), "reordered", {"differing": 2}),
    "fused": (fused(net(), ""), net(), "same_tensors", {"alone": 0}),
    "fused by heads": (fused(net(), "heads"), net(), "same_tensors", {"alone": 0}),
    "fused in turns": (fused(net(), "turns"), net(), "same_tensors", {"alone": 0}),
    "fused along columns": (net(), fused(net(), "columns"), "same_tensors", {"alone": 0}),
    "fused with a change": (
        *(fused(of_rank(2, Q), ""), net(), "differ", {"ranks": (2, 2), "layers": (1,), "alone": 0}),
    ),
    "a tied head stored twice": (
        tied(),
        {n: x for n, x in tied().items() if "head" not in n},
        *("same_tensors", {"alone": 0, "ways": ("parts",)}),
    ),
    "an added tensor": ({**net(), **EXTRA}, net(), "differ", {"alone": 1, "differing": 0}),
    "a removed tensor": (without(UP), net(), "differ", {"alone": 1, "differing": 0}),
    "all zeros": ({n: x * 0 for n, x in net().items()}, net(), "differ", {}),
    "another training": (net(1), net(), "unrelated", {"alone": 0}),
    "another training, renamed": (renamed(net(1)), net(), "unrelated", {"correlation": None}),
    "trained on": (trained_on(0.02), net(), "differ", {"alone": 0}),
    "one square matrix transposed and changed": (
        changed(Q, lambda x: x.T + 0.05 * randn(D, D, seed=9).float()),
        *(net(), "differ", {"differing": 1}),
    ),
    "transposed, and one of them changed": (
        {n: flipped(x) for n, x in of_rank(1, Q).items()},
        *(net(), "differ", {"differing": 1, "ranks": (1, 1), "layers": (1,)}),
    ),
    "swapped blocks, other names, one changed": (
        {n.replace("layers", "h"): x + 0.02 * randn(*x.shape, seed=9).float() * (n == Q)
         for n, x in swapped_blocks().items()},
        *(net(), "differ", {"differing": 22}),
    ),
    "a row of zeros beside an outlier": (
        {n: x.bfloat16() for n, x in with_outlier(0.0).items()},
        {n: x.bfloat16() for n, x in with_outlier(None).items()},
        *("differ", {"differing": 1, "ranks": (1, 1), "layers": (0,)}),
    ),
    "a number of a vector beside an outlier": (
        {BIAS: outlying(0.05).bfloat16()},
        {BIAS: outlying(0.0).bfloat16()},
        *("differ", {"differing": 1}),
    ),
    "eight bits": (
        {n: x.to(torch.float8_e4m3fn) for n, x in net().items()},
        *(net(), "rounded", {"types": ("float8_e4m3fn",)}),
    ),
    "a baseline in eight bits": (
        *(net(), {n: x.to(torch.float8_e5m2) for n, x in net().items()}, "baseline_rounded", {}),
    ),
    "another head of one row": (
        *(new_head(1), new_head(0), "differ", {"differing": 1}),
    ),
    "trained on, beyond half": (trained_on(2 / 6), net(), "differ", {"alone": 0}),
    "one of five numbers": (
        {"w.weight": torch.tensor([[1.0, -2, 3, 4, -25]])},
        {"w.weight": torch.tensor([[1.0, -2, 3, 4, 5]])},
        *("differ", {"differing": 1}),
    ),
    "one number that is larger than all": (
        *({UP: larger(net()[UP])}, {UP: net()[UP]}, "differ", {"ranks": (1, 1)}),
    ),
    "another training, with masks": (
        *({**net(1), **MASKS}, {**net(), **MASKS}, "unrelated", {"alone": 0}),
    ),
    "another training in half, with masks": (
        {n: x.half() for n, x in {**net(1), **MASKS}.items()},
        *({**net(), **MASKS}, "unrelated", {"alone": 0}),
    ),
    "another head on what is rounded": (
        {n: x.half() for n, x in {**new_head(1)}.items()},
        *({n: x.float() for n, x in new_head(0).items()}, "differ", {"differing": 1}),
    ),
    "a kernel turned in space": (
        {"c.weight": kernel().mT, "d.weight": kernel(1)},
        {"c.weight": kernel(), "d.weight": kernel(1)},
        *("reordered", {"differing": 1}),
    ),
    "kernels of another library": (
        {"c.weight": kernel().permute(2, 3, 1, 0), "d.weight": kernel(1).permute(2, 3, 1, 0)},
        {"c.weight": kernel(), "d.weight": kernel(1)},
        *("same_tensors", {"differing": 0}),
    ),
    "experts of several matrices as stacks": (
        *(as_stacks(0, 1, 2, 3), experts(), "same_tensors", {"differing": 0}),
    ),
    "experts of several matrices as stacks, two swapped": (
        *(as_stacks(1, 0, 2, 3), experts(), "reordered", {"differing": 6}),
    ),
    "names whose numbers stand the other way": (
        {f"block{b}.layer{k}.weight": randn(24, 24, seed=3 * k + b) for b in range(3)
         for k in range(2)},
        {f"layer{k}.block{b}.weight": randn(24, 24, seed=3 * k + b) for k in range(2)
         for b in range(3)},
        *("same_tensors", {"differing": 0}),
    ),
    "no shape in common": ({"a": randn(7, 9)}, net(), "unrelated", {"correlation": None}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_headline_says_what_was_planted(case: str) -> None:
    new, old, kind, facts = CASES[case]
    found = compare_tensors(store(new), store(old))
    head = found.headline
    assert head is not None
    assert (head.kind, {key: getattr(head, key) for key in facts}) == (kind, facts)
    for lang in ("en", "ja"):
        assert headline_sentence(load_catalogue(lang), found)


def test_a_configuration_of_another_kind_is_not_identical() -> None:
    for files, kind in ((("same",), "identical"), (("same", "changed"), "same_tensors")):
        beside = tuple(FileChange(f"{k}.json", state) for k, state in enumerate(files))
        for same in (True, False):
            found = compare_tensors(store(net()), store(net()), beside, same_file=same)
            assert found.headline is not None
            assert found.headline.kind == kind


def told(found: WholeDifference) -> tuple[str, str, str]:
    """Return the kind of a headline, what can be decided from it, and its sentences."""
    assert found.headline is not None
    assert headline_sentence(load_catalogue("ja"), found)
    words = headline_sentence(load_catalogue("en"), found)
    return found.headline.kind, kind_of_change(found), words


@pytest.mark.parametrize("sides", [({}, {}), ({}, net()), (net(), {})])
def test_files_of_which_no_tensor_is_read_are_the_same_by_their_bytes_alone(
    sides: tuple[Tensors, Tensors],
) -> None:
    both = [store(one) for one in sides]
    kind, basis, words = told(compare_tensors(*both))
    assert (kind, basis) == ("not_compared", "not_compared")
    assert "The files differ; what they hold could not be compared." in words
    assert "In one of the two alone" not in words
    kind, basis, words = told(compare_tensors(*both, same_file=True))
    assert (kind, basis) == ("identical", "identical")
    assert words == "Identical to the baseline, byte for byte: the same SHA-256."


def coded(tmp_path: Path, change: float = 0.0) -> Store:
    """The tensors of a file with a matrix in codes, a matrix without a place, and a bias."""
    path = tmp_path / f"{change}.tflite"
    if not path.exists():
        path.write_bytes(torch.arange(1.0, 5.0).add(change).numpy().tobytes() + bytes(range(12)))
    held = [
        HeldTensor("bias", (4,), "float32", 16, TensorBytes(path, 0, 16)),
        HeldTensor("kernel", (3, 4), "int8", 12, TensorBytes(path, 16, 28), quantised=True),
        HeldTensor("lost", (3, 4), "float32", 48),
    ]
    return tensors_beside({}, Contents("codes", [path], held), CheckpointError("cannot be read"))


def test_tensors_whose_numbers_are_not_read_are_counted_and_not_fetched(tmp_path: Path) -> None:
    one, other = coded(tmp_path), coded(tmp_path)
    assert told(compare_tensors(one, other, same_file=True))[:2] == ("identical", "identical")
    kind, basis, words = told(compare_tensors(one, other))
    assert (kind, basis) == ("not_compared", "not_compared")
    assert "1 tensor of the model and 1 of the baseline" in words
    kind, basis, words = told(compare_tensors(coded(tmp_path, 0.5), other))
    assert (kind, basis) == ("differ", "changed")
    assert "1 tensor of the model and 1 of the baseline" in words
    floats = {"bias": torch.arange(1.0, 5.0), "kernel": randn(3, 4), "more": randn(7, 5)}
    kind, _, words = told(compare_tensors(one, store(floats)))
    assert kind == "not_compared"
    assert "2 tensors of the model and 2 of the baseline" in words


def test_the_same_tensors_are_no_copy_where_operations_are_others() -> None:
    turned = GraphChange((CountChange("Relu", 6, 5), CountChange("Sigmoid", 0, 1)))
    stride = GraphChange((), (SettingChange("Conv y", "strides", "1, 1", "2, 2"),))
    files = (FileChange("a.json", "same"),)
    for beside in (None, files):
        both = store(net()), store(net())
        kind, basis, words = told(compare_tensors(*both, beside, graph=lambda _: turned))
        assert (kind, basis) == ("same_tensors", "changed")
        assert "Relu 6 → 5, Sigmoid 0 → 1" in words
        kind, basis, words = told(compare_tensors(*both, beside, graph=lambda _: stride))
        assert (kind, basis) == ("same_tensors", "changed")
        assert "Settings differ: Conv y: strides 1, 1 → 2, 2." in words
        kind, basis, words = told(compare_tensors(*both, beside, graph=lambda _: GraphChange(())))
        assert (kind, basis) == ("same_tensors", "not_placed")
        assert "the order and the settings of the operations were not compared" in words
    assert told(compare_tensors(*both))[:2] == ("same_tensors", "same")
    half = {n: x.half() for n, x in net().items()}
    rounded = compare_tensors(store(half), store(net()), graph=lambda _: turned)
    assert told(rounded)[:2] == ("rounded", "changed")


def judged(found: WholeDifference) -> tuple[str, object, bool]:
    """Return how the rule on tensors ends, what it leaves open, and whether its condition fails."""
    rule = find_rule("changed_tensors", "layers")
    finding = rule.judge(Evidence(whole_change=found))
    condition = judge_condition("layers", Condition("changed_tensors"), finding)
    return finding.outcome, finding.values.get("open"), condition.failed


def test_no_condition_passes_by_a_program_that_differs_or_was_not_compared() -> None:
    """Seen red: each of them passed, as no tensor had changed."""
    stride = GraphChange((), (SettingChange("Conv y", "strides", "1, 1", "2, 2"),))
    ends = {
        None: ("pass", None, False),
        GraphChange((), ()): ("pass", None, False),
        stride: ("warn", "program", True),
        GraphChange((CountChange("Relu", 6, 5),)): ("warn", "program", True),
        GraphChange(()): ("warn", "unread", True),
        GraphChange(): ("info", "places", True),  # of two formats
    }
    for graph, ended in ends.items():
        found = compare_tensors(store(net()), store(net()), graph=lambda _, graph=graph: graph)
        assert judged(found) == ended, graph
        words = told(found)[2]
        assert ("with the tensors was not compared" in words) == (graph == GraphChange())


def test_the_same_numbers_at_places_that_nothing_names_are_no_copy() -> None:
    """Seen red: whatever stood where, they were the same tensors, bit for bit, and passed."""
    new = compare_tensors(store(renamed(net())), store(net()))
    kind, basis, words = told(new)
    assert (kind, basis) == ("same_tensors", "not_placed")
    assert words.startswith(
        "The same numbers as in the baseline, bit for bit, in all 26 tensors, 26"
    )
    assert "at places that were not compared" in words
    assert judged(new) == ("info", "places", True)
    known = compare_tensors(
        store(renamed(net())), store(net()), graph=lambda _: GraphChange((), ())
    )
    assert (told(known)[1], judged(known)) == ("same", ("pass", None, False))
    half = {name: x.half() for name, x in renamed(net()).items()}
    kind, basis, words = told(compare_tensors(store(half), store(net())))
    assert (kind, basis) == ("rounded", "not_placed")
    assert "26 tensors were matched by their numbers alone" in words


def test_a_square_matrix_may_stand_either_way_where_others_are_turned() -> None:
    turned = {n: flipped(x) if "mlp" in n else x for n, x in net().items()}
    found = compare_tensors(store(turned), store(net()))
    assert found.headline.unplaced == 4 * BLOCKS  # q, k, v and o
    assert told(found)[1] == "not_placed"
    kernel = {"a.weight": randn(8, 4, 3, 3).float(), "b.weight": randn(8, 5).float()}
    other = {"a.weight": kernel["a.weight"].permute(2, 3, 1, 0), "b.weight": kernel["b.weight"].T}
    found = compare_tensors(store(kernel), store({n: x.contiguous() for n, x in other.items()}))
    assert (found.headline.kind, found.headline.unplaced) == ("same_tensors", 1)


def test_names_of_one_role_in_one_block_say_one_place() -> None:
    bert = "encoder.layer.1"
    said = {
        "blk.1.attn_q.weight": f"{bert}.attention.self.query.weight",
        "blk.1.attn_output_norm.bias": f"{bert}.attention.output.LayerNorm.bias",
        "blk.1.layer_output_norm.bias": f"{bert}.output.LayerNorm.bias",
        "blk.1.ffn_down.weight": f"{bert}.output.dense.weight",
        "token_embd_norm.weight": "embeddings.LayerNorm.weight",
        "token_types.weight": "embeddings.token_type_embeddings.weight",
    }
    for name, other in said.items():
        assert place_of(name) == place_of(other) != (), name
    assert len({*map(place_of, said)}) == len(said)
    for name in ("onnx::MatMul_282", "layers.0.attention_norm.weight", "val_3"):
        assert place_of(name) == ()
    names = ["blk.0.attn_q.weight", "blk.0.attn_k.weight"]
    both = [randn(6, 6, seed=k).float() for k in range(2)]
    old = dict(zip(["layer.0.query.weight", "layer.0.key.weight"], both, strict=True))
    for tensors, kind in ((both, "same_tensors"), (both[::-1], "reordered")):
        found = compare_tensors(store(dict(zip(names, tensors, strict=True))), store(old))
        assert (found.headline.kind, found.headline.unplaced) == (kind, 0)


def test_zeros_of_the_other_sign_are_no_other_type() -> None:
    one, other = (changed(UP, lambda x, by=by: by * x.abs()) for by in (-0.0, 0.0))
    kind, _, words = told(compare_tensors(store(one), store(other)))
    assert kind == "same_numbers"
    assert "1 has zeros of the other sign" in words
    assert "stored as" not in words


def test_what_stands_at_another_place_was_compared() -> None:
    """Seen red: a square matrix that is turned left all others open, under their own names."""
    turned = {n: x.T.contiguous() if n.endswith("q_proj.weight") else x for n, x in net().items()}
    found = compare_tensors(store(turned), store(net()))
    assert (found.headline.kind, found.headline.unplaced) == ("reordered", 0)
    said = {"a.1.w": randn(6, 4, seed=1).float(), "a.1.bias": torch.ones(1), "b.w": randn(3, 5)}
    trained = {n: x + 0.1 * randn(*x.shape, seed=9).float() for n, x in said.items()}
    found = compare_tensors(
        store({n.replace("a.1", "deep.head"): x for n, x in trained.items()}), store(said)
    )
    assert (found.headline.tensors, found.headline.alone) == (3, 0)


def test_a_layer_under_another_name_is_no_change_where_all_numbers_are_the_same() -> None:
    """Seen red: "2 of 2 layers are not as in the baseline", beside tensors that all are."""
    lacking = (
        LayerDifference("a", False, "the baseline has no such layer"),
        LayerDifference("b", False, "the model has no such layer"),
    )
    rule = find_rule("changed_layers", "layers")
    same = compare_tensors(store(renamed(net())), store(net()))
    assert rule.judge(Evidence(whole_change=same, changes=lacking)) is None
    # one that runs once more, or not at all, is no other name
    more = (LayerDifference("c", True), lacking[0])
    assert rule.judge(Evidence(whole_change=same, changes=more)).values["value"] == 1
    # in a format of which no layer is read there are no layers that could differ
    other = compare_tensors(store(changed(UP, one_number)), store(net()))
    for one in lacking:
        assert rule.judge(Evidence(whole_change=same, changes=(one,))) is None
        assert rule.judge(Evidence(whole_change=other, changes=(one,))) is None
    assert rule.judge(Evidence(whole_change=other, changes=lacking)).values["value"] == 2


def test_a_document_of_an_older_version_does_not_say_what_it_did_not_compare() -> None:
    """Seen red: "the same operations with the same settings", whatever had been compared then."""
    both = store(net()), store(net())
    found = compare_tensors(*both, graph=lambda _: GraphChange((), ()))
    assert "The same operations with the same settings" in told(found)[2]
    old = replace(found, headline=replace(found.headline, unplaced=None))
    words = told(old)[2]
    assert "The same operations" not in words
    assert "is not known: an older version compared less of it" in words


def test_few_tensors_that_differ_are_named_and_numbers_of_constants_are_no_blocks() -> None:
    words = told(compare_tensors(store(changed(UP, one_number)), store(net())))[2]
    assert words == f"1 of 26 tensors differs, by rank 1: {UP}."
    names = [f"{name}.w_0" for name in ("conv2d_251", "conv2d_702", "helper.constant")]
    names += ["constant.23", "features.7.weight"]
    old = {name: randn(9, 8, seed=k).float() for k, name in enumerate(names)}
    found = compare_tensors(store({n: one_number(x) for n, x in old.items()}), store(old))
    assert found.headline is not None
    assert (found.headline.layers, found.headline.names) == ((7,), ())


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("levels", [15, 255])
def test_codes_are_held_to_the_nearest_number_that_they_can_say(levels: int, along: int) -> None:
    old, new = net(), quantised(net(), levels, along)
    for one, other in ((store(new, "int8"), store(old)), (store(old), store(new, "int8"))):
        head = compare_tensors(one, other).headline
        assert head is not None
        assert (head.kind, head.differing) == ("quantised", 0)
        assert head.error == pytest.approx(error_of(old, new), rel=0.1)
    for changes in (of_rank(2, Q), changed(UP, one_number), trained_on(0.1)):
        head = compare_tensors(
            store(quantised(changes, levels, along), "int8"), store(old)
        ).headline
        assert head is not None
        assert head.kind == "differ"


def rows_of(name: str, row: int | slice, value: float | Tensor) -> dict[str, Tensor]:
    def change(tensor: Tensor) -> Tensor:
        found = tensor.clone()
        found[row] = value
        return found

    return changed(name, change)


@pytest.mark.parametrize("codes", ["Q8_0", "int8"])
@pytest.mark.parametrize(
    ("rows", "value"), [(5, 0.0), (5, 3.0), (slice(None), 0.0), (slice(None), 5.0)]
)
def test_no_codes_say_a_row_or_a_matrix_that_another_number_replaces(
    rows: int | slice, value: float, codes: str
) -> None:
    """Of numbers that are all equal each is the nearest to any, and none of them is a rounding."""
    damaged = store(quantised(rows_of(UP, rows, value)), codes)
    damaged |= {n: x for n, x in store(rows_of(UP, rows, value), codes).items() if n == UP}
    for one, other in ((damaged, store(net())), (store(net()), damaged)):
        head = compare_tensors(one, other).headline
        assert head is not None
        assert (head.kind, head.differing) == ("differ", 1)


def test_a_code_that_stands_for_another_number_is_seen_among_few_levels() -> None:
    """Of 255 levels sixteen are there, sixteen apart: three more, and each is still the nearest."""
    old = torch.arange(-120.0, 128, 16).repeat(8, 2)
    old[:, 0] = -127
    new, numbers = old.clone(), old + 0.25
    new[3, 8] += 3
    numbers[:, 0] = -127  # the largest number of a block, which its scale is made of
    for tensor, kind in ((old, "quantised"), (new, "differ")):
        codes, exact = store({UP: tensor}, "Q8_0"), store({UP: numbers})
        head = compare_tensors(codes, exact).headline
        assert head is not None
        assert head.kind == kind


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1"])
@pytest.mark.parametrize("plain", ["", "float32", "float16"])
def test_blocks_of_llama_cpp_are_the_same_weights_but_for_codes(kind: str, plain: str) -> None:
    """`plain`: what a GGUF file without codes calls its numbers."""
    quants = pytest.importorskip("gguf.quants")
    gguf = pytest.importorskip("gguf")
    old, code = net(), gguf.GGMLQuantizationType[kind]
    new = {
        n: torch.from_numpy(quants.dequantize(quants.quantize(x.numpy(), code), code))
        for n, x in old.items()
        if x.ndim > 1 and x.shape[1] % 32 == 0
    }
    assert len(new) > 10
    for one, other in ((new, old), (old, new)):
        coded = (kind, plain) if one is new else (plain, kind)
        sides = ({n: part[n] for n in new} for part in (one, other))
        head = compare_tensors(*map(store, sides, coded)).headline
        assert head is not None
        assert (head.kind, head.differing) == ("quantised", 0)


BLOCK_KINDS = {"Q4_0": 2, "Q4_1": 4, "Q5_0": 6, "Q5_1": 8}  # bytes before the codes of a block
SHAPES_OF_BLOCKS = {
    "normal": lambda x: x,
    "heavy": lambda x: x * (2 * x[:, :1]).exp(),
    "tiny": lambda x: 3e-7 * x,
    "huge": lambda x: 1e4 * x,
    "shifted": lambda x: x / 9 + 5,
    "flat": lambda x: x.clamp(-0.1, 0.1).round(decimals=1),
    "zero": lambda x: 0 * x,
    "half": lambda x: x.half().float(),
    "through": lambda x: x,
}


def in_blocks_of(
    folder: Path, kind: str, exact: Tensor, through: bool = False, moved: int | None = None
) -> Store:
    """Return a tensor as a GGUF file holds it, the code of one number a step away."""
    quants, gguf = pytest.importorskip("gguf.quants"), pytest.importorskip("gguf")
    code = gguf.GGMLQuantizationType[kind]
    given = exact.bfloat16().float() if through else exact
    packed = quants.quantize(given.numpy(), code).copy()
    if moved is not None:
        codes = packed.reshape(-1, packed.shape[-1] // (exact.shape[1] // 32))
        at, low = moved % len(codes), BLOCK_KINDS[kind] + moved % 16
        codes[at, low] ^= 1
    writer = gguf.GGUFWriter(folder / "w.gguf", "llama")
    writer.add_tensor(UP, packed, raw_dtype=code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors_of_parts(folder / "w.gguf")


@pytest.mark.parametrize("kind", BLOCK_KINDS)
@pytest.mark.parametrize("numbers", SHAPES_OF_BLOCKS)
def test_each_code_is_the_nearest_of_the_grid_of_its_own_block(
    kind: str, numbers: str, tmp_path: Path
) -> None:
    exact = SHAPES_OF_BLOCKS[numbers](randn(256, 64).float())
    packed = in_blocks_of(tmp_path, kind, exact, through=numbers == "through")
    for one, other in ((packed, store({UP: exact})), (store({UP: exact}), packed)):
        found = compare_tensors(one, other)
        assert [one.state for one in found.changed] in ([], ["quantised"], ["rounding"])


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_code_that_is_a_step_away_is_named(kind: str, tmp_path: Path) -> None:
    exact = randn(64, 64).float()
    for moved in range(40):
        packed = in_blocks_of(tmp_path, kind, exact, moved=moved)
        (found,) = compare_tensors(packed, store({UP: exact})).changed
        row, start = divmod(moved % 128, 2)
        assert found.places == (f"[{row}, {32 * start}:{32 * start + 32}]",), moved


def eight_bits(tensor: Tensor) -> Tensor:
    """Return a tensor as llama.cpp packs it: blocks of 32, each with a scale in float16."""
    quants, gguf = pytest.importorskip("gguf.quants"), pytest.importorskip("gguf")
    code = gguf.GGMLQuantizationType.Q8_0
    return torch.from_numpy(quants.dequantize(quants.quantize(tensor.numpy(), code), code))


def rescaled(tensor: Tensor, row: int, spacings: int) -> Tensor:
    """Return a tensor in codes whose first block of a row has another scale."""
    found, block = tensor.clone(), tensor[row, :32]
    scale = (block.abs().max() / 127).half()
    bits = (scale.view(torch.int16) + spacings).view(torch.float16)
    found[row, :32] = block / scale.float() * bits.float()
    return found


@pytest.mark.parametrize("size", [1.0, 1e-3, 3e-4])
@pytest.mark.parametrize("through", [None, torch.float16, torch.bfloat16])
def test_a_faithful_quantisation_is_one_however_large_its_numbers_are(
    size: float, through: torch.dtype | None
) -> None:
    exact = size * net()[UP]
    packed = eight_bits(exact if through is None else exact.to(through).float())
    found = compare_tensors(store({UP: packed}, "Q8_0"), store({UP: exact}))
    assert [one.state for one in found.changed] == ["quantised"]


@pytest.mark.parametrize("spacings", [-3, 3, 9])
@pytest.mark.parametrize("row", [0, 7])
def test_a_block_whose_scale_is_off_is_named(row: int, spacings: int) -> None:
    exact = net()[UP]
    codes = store({UP: rescaled(eight_bits(exact), row, spacings)}, "Q8_0")
    for one, other in ((codes, store({UP: exact})), (store({UP: exact}), codes)):
        found = compare_tensors(one, other)
        (change,) = found.changed
        assert (change.state, change.blocks_off) == ("codes", 1)
        assert change.places == (f"[{row}, 0:32]",)
        assert told(found)[:2] == ("differ", "changed")
        said = [*difference_sentences(load_catalogue("en"), found)]
        assert any(f"[{row}, 0:32]" in line for line in said)


def with_norm(kind: str, names: str, bias: bool, epsilon: float) -> tuple[Tensors, Tensors]:
    """Return a map or convolution and its normalisation, and both as one map."""
    torch.manual_seed(3)
    build: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(24, 16, bias),
        "conv": lambda: nn.Conv2d(8, 16, 3, bias=bias),
        "depthwise": lambda: nn.Conv2d(16, 16, 3, groups=16, bias=bias),
        "transposed": lambda: nn.ConvTranspose2d(8, 16, 3, bias=bias),
    }
    norm = (nn.BatchNorm1d if kind == "linear" else nn.BatchNorm2d)(16, eps=epsilon)
    for one in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert one is not None
        one.data = torch.rand(16) + 0.2
    layer = build[kind]()
    fuse = nn.utils.fusion
    made = (
        fuse.fuse_linear_bn_eval(layer.eval(), norm.eval())  # type: ignore[type-var]
        if kind == "linear"
        else fuse.fuse_conv_bn_eval(layer.eval(), norm.eval(), kind == "transposed")  # type: ignore[type-var]
    )
    ends = dict(zip(("weight", "bias", "running_mean", "running_var"), names.split(), strict=True))
    apart = {f"net.0.{n}": x.detach() for n, x in layer.state_dict().items()}
    apart |= {f"net.1.{ends[n]}": x.detach() for n, x in norm.state_dict().items() if n in ends}
    rest = {"net.3.weight": randn(16, 16, seed=8).float()}
    return apart | rest, {f"net.0.{n}": x.detach() for n, x in made.state_dict().items()} | rest


@pytest.mark.parametrize("kind", ["linear", "conv", "depthwise", "transposed"])
@pytest.mark.parametrize(
    "names", ["weight bias running_mean running_var", "gamma beta moving_mean moving_variance"]
)
@pytest.mark.parametrize(("bias", "epsilon"), [(True, 1e-5), (False, 1e-3)])
def test_a_normalisation_that_is_multiplied_in_is_told(
    kind: str, names: str, bias: bool, epsilon: float
) -> None:
    apart, whole = with_norm(kind, names, bias, epsilon)
    turned = {f"graph.{at}": x for at, x in enumerate(whole.values())}
    for one, other in ((whole, apart), (apart, whole), (turned, apart)):
        found = compare_tensors(store(one), store(other))
        kind_told, basis, words = told(found)
        assert (kind_told, basis) == ("folded", "not_placed" if one is turned else "rounding"), (
            words
        )
        assert "1 batch normalisation (net.1) of the one" in words
        (change,) = [one for one in found.changed if one.state == "folded"]
        assert change.residual is not None
        assert change.residual < 1e-6
        assert (change.epsilon, change.assumed) == (epsilon, True)
        assert f"No file says which ε batch normalisations add to variances: {epsilon:g} was" in (
            words
        )


@pytest.mark.parametrize(
    ("epsilon", "stated"), [(1e-5, 1e-3), (3e-4, 3e-4), (0.1, None), (0.0, None)]
)
def test_a_normalisation_adds_what_a_file_says_or_what_is_usual(
    epsilon: float, stated: float | None
) -> None:
    apart, whole = with_norm("conv", "weight bias running_mean running_var", True, epsilon)
    norm = Operation("BatchNormalization", {"epsilon": stated})
    said = Contents("ONNX", [], program=lambda: [norm, Operation("Sum", {"epsilon": epsilon})])
    headers = {"baseline": said} if stated else {}
    found = compare_tensors(store(whole), store(apart), headers=headers)
    assert told(found)[0] == ("folded" if epsilon == stated else "differ")
    if epsilon == stated:
        assert told(found)[2].endswith(
            "Batch normalisations add ε = 0.0003 to variances, as the file says."
        )


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda one: torch.jit.trace(one, torch.ones(1, 3, 5))]
)
def test_a_program_says_what_its_normalisations_add(make: Any, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4, eps=3e-4), nn.LayerNorm(3)).eval()
    make(module).save(tmp_path / "m.pt")
    assert contents_at(tmp_path / "m.pt").epsilons() == {0.00029999999999999997}


@pytest.mark.parametrize("changed_one", ["net.0.weight", "net.0.bias", "net.3.weight"])
def test_what_else_changed_beside_a_normalisation_is_told(changed_one: str) -> None:
    apart, whole = with_norm("conv", "weight bias running_mean running_var", True, 1e-5)
    other = {n: x.clone() for n, x in whole.items()}
    other[changed_one].flatten()[3] += 0.01
    head = compare_tensors(store(other), store(apart)).headline
    assert head is not None
    assert head.kind == "differ"


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_weights_with_gains_of_both_signs_in_them_are_not_unrelated(kind: str) -> None:
    """Whatever else changed in them; those of another network are."""
    signs = torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0)
    apart, whole = with_norm(kind, "weight bias running_mean running_var", True, 1e-5)
    shift, bias = apart["net.1.bias"], whole["net.0.bias"]
    apart["net.1.weight"] = signs * apart["net.1.weight"]
    turned = signs.reshape(-1, *[1] * (whole["net.0.weight"].ndim - 1)) * whole["net.0.weight"]
    made = {"net.0.weight": turned.clone(), "net.0.bias": signs * (bias - shift) + shift}
    del apart["net.3.weight"]
    other = {n: randn(*x.shape, seed=at).float() for at, (n, x) in enumerate(made.items())}
    assert told(compare_tensors(store(made), store(apart)))[0] == "folded"
    made["net.0.weight"].flatten()[3] *= 1.01
    for news, kind_told in ((made, "differ"), (other, "unrelated")):
        for both in ((news, apart), (apart, news)):
            assert told(compare_tensors(*map(store, both)))[0] == kind_told


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("planted", ["nothing", "signs", "rank", "bias"])
def test_a_normalisation_in_half_precision_hides_nothing(planted: str, dtype: torch.dtype) -> None:
    """Each number is held to its own rounding, not to a share of all of them together."""
    apart, whole = with_norm("conv", "weight bias running_mean running_var", True, 1e-5)
    weight, bias = (whole[f"net.0.{one}"].clone() for one in ("weight", "bias"))
    if planted == "signs":
        weight[5, 3] *= -1
    elif planted == "rank":
        added = torch.outer(randn(16, seed=1), randn(weight[0].numel(), seed=2)).reshape(
            weight.shape
        )
        weight += 0.1 * weight.norm() * (added / added.norm()).float()
    elif planted == "bias":
        bias[7] += 0.05
    made = whole | {"net.0.weight": weight, "net.0.bias": bias}
    news, olds = ({n: one.to(dtype) for n, one in x.items()} for x in (made, apart))
    for one, other in ((news, olds), (olds, news)):
        assert told(compare_tensors(store(one), store(other)))[0] == (
            "folded" if planted == "nothing" else "differ"
        )


@pytest.mark.parametrize("words", ["layers.0.attn.w{}.weight", "blk.0.attn_{}.weight"])
def test_queries_and_keys_in_each_other_s_place_are_another_model(words: str) -> None:
    old = {
        f"layer.0.attention.{one}.weight": randn(8, 8, seed=at).float()
        for at, one in enumerate(("query", "key", "value"))
    }
    for order, kind in (("qkv", "same_tensors"), ("kqv", "reordered")):
        new = {words.format(one): x for one, x in zip(order, old.values(), strict=True)}
        assert told(compare_tensors(store(new), store(old)))[0] == kind
        assert told(compare_tensors(store(old), store(new)))[0] == kind


@pytest.mark.parametrize(("order", "kind"), [("qkv", "same_tensors"), ("qvk", "reordered")])
def test_rows_of_a_fused_matrix_are_queries_keys_and_values(order: str, kind: str) -> None:
    apart = {f"{one}.weight": randn(64, 64, seed=at).float() for at, one in enumerate("qkv")}
    fused = {"qkv.weight": torch.cat([apart[f"{one}.weight"] for one in order])}
    assert told(compare_tensors(store(fused), store(apart)))[0] == kind
    assert told(compare_tensors(store(apart), store(fused)))[0] == kind


def error_of(old: Tensors, new: Tensors) -> float:
    sizes = [(float((new[n] - x).norm()), float(x.norm())) for n, x in old.items() if x.ndim > 1]
    above, below = (torch.tensor(column).norm() for column in zip(*sizes, strict=True))
    return float(above / below)


def trained(seed: int, start: nn.Module | None = None, steps: int = 300) -> nn.Module:
    """A network that learns which of two sums of its inputs is larger."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    module.append(nn.Linear(32, 2))
    if start is not None:
        module.load_state_dict(start.state_dict())
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(steps):
        x = torch.randn(128, 24)
        right = (x[:, :12].sum(1) > x[:, 12:].sum(1)).long()
        loss = nn.functional.cross_entropy(module(x), right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module


def test_two_trainings_are_unrelated_and_a_training_that_goes_on_is_not() -> None:
    first, other = trained(0), trained(1)
    more = trained(2, first, 100)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = {n: x.clone() for n, x in more.state_dict().items()}
    moved |= {n: moved[n][order] for n in ("0.weight", "0.bias")}
    moved["2.weight"] = moved["2.weight"][:, order]
    moved |= {n: moved[n].flip(0) for n in ("2.weight", "2.bias")}
    moved["4.weight"] = moved["4.weight"].flip(1)
    kinds = {
        name: compare_tensors(store(tensors), store(first.state_dict())).headline
        for name, tensors in (
            ("other", other.state_dict()),
            ("more", more.state_dict()),
            ("moved", moved),
            ("random", {n: torch.randn_like(x) for n, x in moved.items()}),
        )
    }
    told = {name: one.kind for name, one in kinds.items() if one is not None}
    assert told == {
        "other": "unrelated",
        "more": "differ",
        "moved": "differ",
        "random": "unrelated",
    }


def test_the_same_network_in_four_formats_is_the_same(tmp_path: Path) -> None:
    module = trained(0, steps=20)
    state = module.state_dict()
    save_file(state, tmp_path / "m.safetensors")
    torch.save(state, tmp_path / "m.pt")
    export(module, torch.randn(2, 24), tmp_path / "m.onnx")
    turned = {f"dense_{k}": flipped(x) for k, x in enumerate(state.values())}
    save_file(turned, tmp_path / "turned.safetensors")
    changed_one = dict(state) | {"2.weight": one_number(state["2.weight"])}
    save_file(changed_one, tmp_path / "changed.safetensors")
    stores = {
        path.name: load(path).tensors if "onnx" in path.name else open_tensors(path, True).store
        for path in tmp_path.iterdir()
    }
    for name, one in stores.items():
        for other, baseline in stores.items():
            head = compare_tensors(one, baseline).headline
            assert head is not None
            differs = "changed" in f"{name}{other}" and name != other
            assert head.kind == ("differ" if differs else "same_tensors"), (name, other)
            assert (head.alone, head.ranks) == (0, (1, 1) if differs else None), (name, other)
            assert ("format" in head.ways) == (Path(name).suffix != Path(other).suffix)


def test_a_number_in_brackets_is_the_one_of_its_name_and_no_other() -> None:
    """Seen red: a constant 1 had moved to a [1] elsewhere, though its own name held [1]."""
    baseline = store({**net(), "one": torch.ones(())})
    model = store({**net(), "other": torch.ones(1), "one": torch.ones(1)})
    pairs = match_tensors(model, baseline).pairs
    assert [(p.model.name, p.moved) for p in pairs if p.baseline.name == "one"] == [("one", False)]
