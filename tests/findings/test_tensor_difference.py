"""Every tensor beside the baseline's: each change is seen, and its rank, in every kind of matrix.

Damage seen to fail: same_bits comparing values; a stack compared as one matrix; kernels not
flattened; names compared without their roots; rows of llama.cpp left as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bilens.findings.rules.changes import low_rank_change
from bilens.findings.rules.registry import Condition, judge_conditions
from bilens.findings.rules.rule import Evidence
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.records.tensor_changes import FileChange, TensorChange, WholeDifference
from bilens.report.sections.difference import headline_sentence
from bilens.report.text import load_catalogue
from builders import randn
from planted_changes import planted

D, H, VOCAB = 40, 48, 44
SAME = (FileChange("config.json", "same"),)
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": H,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_embd": D,
    "n_inner": H,
    "n_head": 2,
    "tie_word_embeddings": False,
}


def store(tensors: Mapping[str, Tensor]) -> Store:
    def held(name: str, tensor: Tensor) -> StoredTensor:
        fetch = lambda block: tensor[block]  # noqa: E731
        return StoredTensor(Path("m"), name, tuple(tensor.shape), tensor.dtype, fetch)

    return {name: held(name, tensor) for name, tensor in tensors.items()}


@cache
def model(kind: str, layers: int = 4) -> dict[str, Tensor]:
    """The tensors of a small model of transformers, all of them random."""
    transformers = pytest.importorskip("transformers")
    depth = {"n_layer": layers} if kind == "gpt2" else {"num_hidden_layers": layers}
    more = {"num_local_experts": 3, "num_experts_per_tok": 2} if kind == "mixtral" else {}
    config = transformers.AutoConfig.for_model(kind, **SIZES, **depth, **more)
    state = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    return {
        name: randn(*tensor.shape, seed=seed).float() / 6
        for seed, (name, tensor) in enumerate(state.items())
    }


def compared(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], **options: Any
) -> WholeDifference:
    return compare_tensors(store(new), store(old), SAME, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_rank_of_a_change_is_found_in_every_kind_of_matrix(dtype: torch.dtype) -> None:
    tensors = {
        **model("llama", 1),
        **{f"transformer.{name}": part for name, part in model("gpt2", 1).items()},
        **model("mixtral", 1),
        "features.conv.weight": randn(36, 8, 3, 3).float(),
    }
    router = "mlp.gate.weight"
    old = {n: t.to(dtype) for n, t in tensors.items() if t.ndim > 1 and not n.endswith(router)}
    kinds = set()
    for rank in range(1, 17):
        found = compared(old, {name: planted(part, rank, dtype) for name, part in old.items()})
        assert {one.name: one.rank for one in found.changed} == dict.fromkeys(old, rank)
        assert {one.state for one in found.changed} == {"low_rank"}
        kinds |= {one.kind for one in found.changed}
    assert kinds >= {"q", "k", "v", "o", "gate", "up", "down", "embedding", "head", "qkv", "conv"}
    assert any("experts" in one.name for one in found.changed)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_change_of_a_single_tensor_is_seen(kind: str) -> None:
    old = model(kind)
    assert len(old) > 30
    for name, tensor in old.items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1e-4
        found = compared(old, {**old, name: changed})
        assert [one.name for one in found.changed] == [name]
        assert (found.identical, found.tensors) == (False, len(old))


def test_an_unchanged_copy_is_unchanged_and_nothing_less_is() -> None:
    old = model("llama")
    copy = {name: tensor.clone() for name, tensor in old.items()}
    assert compared(old, copy).identical
    name = "model.layers.1.self_attn.q_proj.weight"
    for files in (None, (FileChange("tokenizer.json", "changed"),)):
        assert not compare_tensors(store(copy), store(old), files).identical
    assert not compared(old, {n: t for n, t in copy.items() if n != name}).identical
    assert not compared(old, {**copy, name: copy[name][:-1]}).identical
    assert not compared(old, {**copy, name: copy[name].double()}).identical
    zero = {"a": torch.zeros(3)}
    assert not compared(zero, {"a": -torch.zeros(3)}).identical  # not the same bits


def only(found: WholeDifference) -> TensorChange:
    (change,) = found.changed
    return change


def test_what_a_change_is_like_is_said() -> None:
    old = {"layers.3.fc1.weight": randn(D, H)}
    name, weight = next(iter(old.items()))
    noise = only(compared(old, {name: weight + 0.05 * randn(D, H, seed=1)}))
    assert (noise.state, noise.layer, noise.kind) == ("noise", 3, "up")
    assert noise.change == pytest.approx(0.05, rel=0.1)
    rounded = only(compared(old, {name: weight.bfloat16()}))
    assert (rounded.state, rounded.dtype, rounded.baseline_dtype) == (
        *("rounding", "bfloat16", "float64"),
    )
    left, values, right = torch.linalg.svd(randn(D, H, seed=2), full_matrices=False)
    falling = left @ torch.diag(values / torch.arange(1, D + 1)) @ right
    assert only(compared(old, {name: weight + falling})).state == "changed"
    assert only(compared(old, {name: weight * torch.nan})).state == "not_finite"
    grown = compared(old, {name: weight[1:], "more": randn(D, H, seed=3)})
    assert (grown.tensors, grown.other_shape) == (0, (name,))
    assert (grown.model_alone, grown.baseline_alone) == (("more",), ())


@pytest.mark.parametrize("rows", [torch.ones(8, 1), randn(8, 1).float().abs()], ids=["one", "more"])
def test_rows_of_one_direction_are_in_no_other_order(rows: Tensor) -> None:
    """All of them are alike, so that each has others that are as near as its own."""
    weight = rows * torch.ones(1, 8)
    change = only(compared({"t": weight}, {"t": 2 * weight}))
    assert (change.change, change.state) == (1.0, "low_rank")
    assert only(compared({"t": randn(8, 8)}, {"t": 2 * randn(8, 8).flip(0)})).state == "permuted"


def test_vectors_scalars_and_integers_are_compared() -> None:
    old = {"norm.bias": torch.zeros(4), "scale": torch.tensor(2.0), "count": torch.tensor(3)}
    new = {"norm.bias": torch.ones(4), "scale": torch.tensor(2.5), "count": torch.tensor(4)}
    found = {one.name: one for one in compared(old, new).changed}
    assert (found["norm.bias"].change, found["norm.bias"].full) == (None, 0)
    assert found["scale"].change == pytest.approx(0.25)
    assert len(found) == 3


def test_names_of_other_libraries_are_the_same_tensors() -> None:
    old = model("llama", 2)
    new = {f"module._orig_mod.{name.removeprefix('model.')}": t for name, t in old.items()}
    assert compared(old, new).tensors == len(old)
    assert compared(old, new).identical


def test_a_rank_below_the_full_one_is_no_noise() -> None:
    for rank in (1, 2, 6, 8, 9, 10):
        old = {"head.weight": randn(10, 64)}
        new = {"head.weight": old["head.weight"] + randn(10, rank) @ randn(rank, 64) / 9}
        (found,) = compared(old, new).changed
        assert found.rank == rank
        state = "low_rank" if rank <= 5 else "changed" if rank < 10 else found.state
        assert found.state == state, rank
    old = {"head.weight": randn(2, 64)}  # of two classes, whose rows add up to what is free
    step = randn(1, 64)
    (found,) = compared(old, {"head.weight": old["head.weight"] + torch.cat([step, -step])}).changed
    assert (found.rank, found.state) == (1, "changed")


@pytest.mark.parametrize(("size", "state"), [(3e-8, "rounding"), (1e-6, "low_rank")])
def test_a_sum_in_float64_beside_its_stored_merge_is_rounding(size: float, state: str) -> None:
    stored, apart = randn(D, H, seed=1).float(), randn(D, 1, seed=2) @ randn(1, H, seed=3)
    summed = stored.double() + size * apart * stored.norm() / apart.norm()
    plain, sums = store({"a.weight": stored}), store({"a.weight": summed})
    sums["a.weight"] = replace(sums["a.weight"], added_to=torch.float32)
    for old, new in ((plain, sums), (sums, plain)):
        assert only(compare_tensors(new, old, SAME)).state == state
    changed = only(compared({"a.weight": stored}, {"a.weight": summed}))
    assert changed.state == "low_rank"  # float64 in a file was not summed here


def test_a_mask_of_infinity_is_compared_by_its_bits() -> None:
    mask = torch.full((3, 3), -torch.inf).triu(1)
    assert not compared({"attn_mask": mask}, {"attn_mask": mask.clone()}).changed
    assert only(compared({"attn_mask": mask}, {"attn_mask": mask.T})).state == "not_finite"


def moved_by(tensor: Tensor, spacings: int, at: int) -> Tensor:
    """Return a tensor with one number so many spacings further from zero."""
    whole = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    bits = tensor.clone().view(whole)
    bits.view(-1)[at] += spacings
    return bits.view(tensor.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["a.weight", "a.bias"])
@pytest.mark.parametrize("spacings", [1, 2, 4])
def test_in_one_type_nothing_is_rounded(dtype: torch.dtype, name: str, spacings: int) -> None:
    old = {"b.weight": randn(20, 30).to(dtype), name: randn(20, 30).to(dtype)}
    if name == "a.bias":
        old[name] = old[name].flatten()
    new = {**old, name: moved_by(old[name], spacings, int(old[name].abs().argmax()))}
    found = compared(old, new)
    assert only(found).state in ("changed", "low_rank")
    assert found.headline is not None
    assert found.headline.kind == "differ"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("planted", [0.0, 3.0, -3.0])
def test_what_is_rounded_is_half_a_spacing_away(dtype: torch.dtype, planted: float) -> None:
    """Also where another type was on the way, and not where one number is further away."""
    old = {"a.weight": randn(40, 30).float(), "a.bias": randn(50).float()}
    wide = {name: one.double() * (1 + 2e-8) for name, one in old.items()}
    new = {name: one.float().to(dtype) for name, one in wide.items()}
    for name, one in new.items():
        changed = one.clone().flatten()
        changed[7] += planted * torch.finfo(dtype).eps * changed[7].abs()
        found = compared(old, {**new, name: changed.reshape(one.shape)})
        other = [one.name for one in found.changed if one.state != "rounding"]
        assert other == ([name] if planted else [])
        assert found.headline is not None
        assert (found.headline.kind == "differ") == bool(planted)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64], ids=str)
def test_whole_numbers_are_not_rounded(dtype: torch.dtype) -> None:
    old = {"b.weight": randn(4, 4), "codes": torch.arange(120).repeat(20).reshape(60, 40).to(dtype)}
    for change in (old["codes"] > 100, torch.arange(2400).reshape(60, 40) == 119):
        found = compared(old, {**old, "codes": old["codes"] + change.to(dtype)})
        assert only(found).state not in ("rounding", "reordered")
        assert found.headline is not None
        assert found.headline.kind == "differ"
        assert found.headline.types == (str(dtype).removeprefix("torch."),)


def test_a_file_of_one_type_was_rewritten_as_a_whole_or_not_at_all() -> None:
    old = {"a.weight": randn(20, 30).float(), "b.weight": randn(20, 30).float()}
    rewritten = {name: one.bfloat16().float() for name, one in old.items()}
    for pair, kind in (((old, rewritten), "rounded"), ((rewritten, old), "baseline_rounded")):
        head = compared(*pair).headline
        assert head is not None
        assert head.kind == kind
        in_part = {**pair[0], "a.weight": pair[1]["a.weight"]}
        head = compared(pair[0], in_part).headline
        assert head is not None
        assert head.kind == "differ"
    gain = {"norm.weight": torch.ones(30)}  # simple numbers are those of every type
    moved = {"norm.weight": torch.ones(30).add(randn(30).float() / 1e4)}
    head = compared({**old, **gain}, {**old, **moved}).headline
    assert head is not None
    assert head.kind == "differ"


@pytest.mark.parametrize("axes", [(), (1,)])
def test_a_parameter_of_one_number_alone_is_a_difference(axes: tuple[int, ...]) -> None:
    old = {"a.weight": randn(4, 4)}
    head = compared(old, {**old, "scale": torch.full(axes, 5.0)}).headline
    assert head is not None
    assert (head.kind, head.alone) == ("differ", 1)
    head = compared(old, {**old, "num_batches_tracked": torch.tensor(5)}).headline
    assert head is not None
    assert (head.kind, head.alone) == ("same_tensors", 0)  # a counter


def test_no_type_is_named_that_no_file_is_rounded_to() -> None:
    old = {"a.weight": randn(20, 30).bfloat16(), "a.bias": torch.tensor([2.6]).bfloat16()}
    for name, part in (("a.bias", torch.tensor([2.5])), ("a.weight", torch.zeros(20, 30))):
        small = {**old, "a.weight": old["a.weight"] * 1e-4}
        head = compared(small, {**small, name: part.bfloat16()}).headline
        assert head is not None
        assert head.kind in ("differ", "unrelated")
    wide = {name: one.float() + 1e-6 for name, one in old.items()}
    found = compared(wide, {name: one.bfloat16() for name, one in wide.items()})
    assert {one.rounded_to for one in found.changed} == {"bfloat16"}


def test_whole_numbers_of_another_type_are_the_same_numbers() -> None:
    old = {"a.weight": randn(4, 4), "ids": torch.arange(30)}
    head = compared(old, {**old, "ids": torch.arange(30).int()}).headline
    assert head is not None
    assert (head.kind, head.differing) == ("same_numbers", 0)


def test_a_tensor_of_another_shape_is_told_once() -> None:
    old = {"a.weight": randn(4, 4), "embed.weight": randn(30, 4)}
    found = compared(old, {**old, "embed.weight": randn(33, 4)})
    head = found.headline
    assert head is not None
    assert (head.kind, head.alone, head.other_shape) == ("differ", 0, 1)
    said = headline_sentence(load_catalogue("en"), found)
    assert said.endswith("differ. In both, of another shape: 1 tensor.")


def test_what_an_exporter_counts_is_no_order_of_blocks() -> None:
    """Constants of a graph have numbers of their own, whatever convolution they are of."""
    kernels = [randn(6, 5, seed=n) for n in range(3)]
    old = {f"const_fold_opt__{n}": one for n, one in zip((7, 5, 6), kernels, strict=True)}
    new = {f"net/conv2d_{n}/Conv2D": one for n, one in enumerate(kernels)}
    head = compared(old, new).headline
    assert head is not None
    assert (head.kind, head.differing) == ("same_tensors", 0)


@pytest.mark.parametrize("changed", [0, 1])
def test_matrices_that_were_not_read_are_not_unchanged(changed: int) -> None:
    tensors = store({"a.weight": randn(4, 4), "b.weight": randn(4, 4)})
    tensors["b.weight"] = replace(tensors["b.weight"], readable=False)
    others = {**tensors, **store({"a.weight": randn(4, 4, seed=changed)})}
    found = low_rank_change.judge(Evidence(whole_change=compare_tensors(tensors, others, SAME)))
    assert found is not None
    assert low_rank_change.sentence_key(found.outcome, found.values).endswith("info_unread")
    assert found.values["of"] == changed
    (judged,) = judge_conditions("layers", [Condition("low_rank_change")], [found])
    assert judged.failed
    same = compare_tensors(tensors, tensors, SAME, same_file=True)
    whole = low_rank_change.judge(Evidence(whole_change=same))
    assert whole is not None
    assert whole.outcome == "pass"
