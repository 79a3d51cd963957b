"""Guards against rules that say of stored tensors, files and words what is not so: each sentence
has two models of which it is true by construction, and whose numbers are counted here."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
import tiny
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.any_model import open_any
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.model_folder import save
from bilens.io.stored_mlp import stored_array
from bilens.records.common import Finding
from bilens.records.tensor_changes import GraphChange
from builders import randn
from contract.rule_cases import Between, Case, Cases, Shown, Stack, Wired, check
from contract.table import cell
from onnx_files import matrices, write as write_onnx

CASES = Cases()
KINDS = ("classes", "layers", "columns")
NAMES = ("a", "b", "c", "d")


def audited(model: Any, baseline: Any, **more: Any) -> Any:
    return bl.audit(model, baseline=baseline, **more)


# ---- tensors


SIDE = 12


def square(kind: str, seed: int = 0) -> Any:
    """A model whose matrices have twelve rows and columns, or more."""
    parts = [randn(SIDE, SIDE, seed=seed + at) for at in range(3)]
    if kind == "layers":
        return Stack((parts[0], parts[1], parts[2]))
    module = tiny.planted([*zip(*(part.tolist() for part in parts), strict=True)], SIDE)
    if kind == "classes":
        return module
    names = tuple(f"x{at}" for at in range(SIDE))
    known = {"input_mean": (0.0,) * SIDE, "input_scale": (1.0,) * SIDE, "input_names": names}
    return LoadedModel(module, "", "", **known)


def left_of(model: Any) -> Any:
    module = model.module if isinstance(model, LoadedModel) else model
    layer = module.layers[0]
    return layer.left.weight


def with_left(kind: str, change: Tensor) -> tuple[Any, Any, float, str]:
    model, baseline = square(kind), square(kind)
    weight = left_of(baseline).detach()
    with torch.no_grad():
        left_of(model).add_(change)
    size = float(change.norm() / weight.norm())
    return model, baseline, size, "layers.0.left.weight"


def low_rank(kind: str) -> Shown:
    """Of one matrix alone, by rank 2."""
    change = 0.1 * randn(SIDE, 2, seed=7) @ randn(2, SIDE, seed=8)
    model, baseline, size, name = with_left(kind, change)
    count = 3 if kind == "layers" else 4
    return audited(model, baseline), {
        "low_rank_change.warn": {"value": 1, "of": 1, "ranks": "2", "matrices": name},
        "changed_tensors.warn": {
            "value": 1,
            "of": count,
            "change": size,
            "kinds": "gate",
            "said": f"1 of {count} tensors is not the same",
        },
    }


def full_rank(kind: str) -> Shown:
    model, baseline, size, _ = with_left(kind, 0.1 * randn(SIDE, SIDE, seed=7))
    count = 3 if kind == "layers" else 4
    return audited(model, baseline), {
        "low_rank_change.pass": {"of": 1},
        "changed_tensors.warn": {"value": 1, "of": count, "change": size, "kinds": "gate"},
    }


# ---- files


def files(folder: Path, kind: str, other: bool) -> Shown:
    """Two folders, in one of which a line more is in the configuration."""
    for name in ("new", "old"):
        module = tiny.classifier(d_input=4, n_layers=1 + (kind == "layers"))
        named = {"input_names": NAMES} if kind == "columns" else {}
        save(module, folder / name, **named)  # type: ignore[arg-type]
    if other:
        config = folder / "new" / "config.json"
        config.write_text(config.read_text() + "\n")
    report = audited(bl.load(folder / "new"), bl.load(folder / "old"))
    if not other:
        return report, {"changed_files.pass": {"of": 1}}
    return report, {"changed_files.warn": {"value": 1, "of": 1, "files": "config.json"}}


def other_weights(folder: Path, kind: str) -> Shown:
    """Two folders of the same network, in one of which lies a head that is not read."""
    files(folder, kind, other=False)
    (folder / "new" / "2_Dense").mkdir()
    save_file({"linear.weight": randn(4, 4, seed=5)}, folder / "new/2_Dense/model.safetensors")
    report = audited(bl.load(folder / "new"), bl.load(folder / "old"))
    count = report.record.difference.whole.tensors
    said = "Other files of weights differ, or are in one of the two alone"
    return report, {
        "changed_tensors.warn_files": {"value": 0, "of": count, "said": said},
        "low_rank_change.info_files": {"value": 0, "of": 0, "said": said},
        "coverage.warn_files": {"value": 1.0, "exact": 1.0, "approximate": 0.0},
    }


@CASES.say("layers", "changed_tensors.info_unseen", "changed_files.info_unseen")
def folders_of_one_network_and_a_checkpoint(folder: Path) -> Shown:
    """Beside the same weights lies a folder that nobody goes through."""
    files(folder, "layers", other=False)
    (folder / "new" / "checkpoint-5").mkdir()
    save_file({"a": randn(2, 2, seed=1)}, folder / "new/checkpoint-5/model.safetensors")
    report = audited(bl.load(folder / "new"), bl.load(folder / "old"))
    count = report.record.difference.whole.tensors
    return report, {
        "changed_tensors.info_unseen": {"value": 0, "of": count, "said": "Folders beside them"},
        "changed_files.info_unseen": {"value": 0, "of": 1},
    }


@CASES.say("layers", "changed_tensors.warn_program")
def one_chain_with_another_activation(folder: Path) -> Shown:
    found = []
    for name, activation in (("new", "Tanh"), ("old", "Relu")):
        nodes = [("MatMul", "x w0", "a"), (activation, "a", "b"), ("MatMul", "b w1", "y")]
        path = write_onnx(folder / f"{name}.onnx", nodes, matrices(SIDE, 9, 3))
        found.append(open_any(path, ReadOptions()))
    return audited(*found, null_samples=3), {
        "changed_tensors.warn_program": {"value": 0, "of": 4, "said": "is not the same"},
    }


def beside(graph: GraphChange, names: Mapping[str, str]) -> tuple[Finding, ...]:
    """Judge one network under two kinds of names, and what its programs say."""
    parts = {name: randn(SIDE, 9, seed=at) for at, name in enumerate(names)}
    stores = [
        {name: stored_array(Path(), name, part.numpy()) for name, part in one.items()}
        for one in ({names[name]: part for name, part in parts.items()}, parts)
    ]
    whole = compare_tensors(stores[0], stores[1], graph=lambda _: graph)
    return judge("layers", Evidence(whole_change=whole))


@CASES.say("layers", "changed_tensors.warn_unread")
def one_network_whose_program_cannot_be_compared() -> Shown:
    names = {"a.weight": "a.weight", "b.weight": "b.weight"}
    return beside(GraphChange(()), names), {"changed_tensors.warn_unread": {"value": 0, "of": 2}}


@CASES.say("layers", "changed_tensors.info_places")
def one_network_under_names_that_say_nothing() -> Shown:
    names = {"a.weight": "val_1", "b.weight": "val_2"}
    return beside(GraphChange(), names), {"changed_tensors.info_places": {"value": 0, "of": 2}}


@CASES.say("layers", "low_rank_change.info_unread")
def one_array_of_objects(folder: Path, number: int = 1) -> Shown:
    """Two files of the same matrix, beside which one holds objects, which are not opened."""
    for name, value in (("old", {1}), ("new", {2})):
        rest = {"t": np.array([value] * number, object)}
        np.savez(folder / f"{name}.npz", emb=np.ones((6, 5), np.float32), **rest)  # type: ignore[arg-type]
    model, baseline = (open_any(folder / f"{name}.npz", ReadOptions()) for name in ("new", "old"))
    report = audited(model, baseline)
    return report, {
        "low_rank_change.info_unread": {"value": 0, "of": 0, "said": "nothing is known"}
    }


@CASES.say("layers", "low_rank_change.info_unread")
def two_objects_in_an_array(folder: Path) -> Shown:
    return one_array_of_objects(folder, 2)


def stored(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> tuple[Finding, ...]:
    """Judge two files of tensors."""
    stores = [
        {name: stored_array(Path(), name, part.numpy()) for name, part in one.items()}
        for one in (new, old)
    ]
    return judge("layers", Evidence(whole_change=compare_tensors(stores[0], stores[1])))


HIDDEN = {"value": 0, "said": "By which rank others changed is not known"}


@CASES.say("layers", "low_rank_change.info_hidden")
def a_matrix_of_nothing_beside_one_that_changed() -> Shown:
    """Of one matrix that holds NaN the rank of its change cannot be computed."""
    old = {"a.weight": randn(SIDE, 9), "b.weight": randn(SIDE, 9, seed=1)}
    new = {"a.weight": randn(SIDE, 9, seed=2), "b.weight": torch.full((SIDE, 9), math.nan)}
    return stored(new, old), {
        "low_rank_change.info_hidden": {**HIDDEN, "of": 1, "matrices": "b.weight"}
    }


@CASES.say("layers", "low_rank_change.info_hidden")
def two_matrices_in_each_others_place() -> Shown:
    old = {"a.0.weight": randn(SIDE, 9), "a.1.weight": randn(SIDE, 9, seed=1)}
    new = {"a.0.weight": old["a.1.weight"], "a.1.weight": old["a.0.weight"]}
    named = {"matrices": "a.0.weight, a.1.weight"}
    return stored(new, old), {"low_rank_change.info_hidden": {**HIDDEN, "of": 0, **named}}


@pytest.mark.parametrize("rank", [2, SIDE])
def test_codes_that_may_hide_a_low_rank_pass_no_condition(rank: int) -> None:
    from bilens.findings.rules.registry import judge_conditions, parse_conditions

    exact, step = randn(SIDE, 64, seed=3), 0.25
    added = exact + 1e-4 * randn(SIDE, rank, seed=4) @ randn(rank, 64, seed=5)
    codes = (added / step).round() * step
    old = stored_array(Path(), "up.weight", exact.numpy())
    new = replace(stored_array(Path(), "up.weight", codes.numpy()), quantised_as="Q4_K")
    whole = compare_tensors({"up.weight": new}, {"up.weight": old})
    assert [one.state for one in whole.changed] == ["quantised"]
    verdict = judge("layers", Evidence(whole_change=whole))
    asked = parse_conditions(["low_rank_change"], data=False, baseline=True)
    assert [one.failed for one in judge_conditions("layers", asked, verdict)] == [True]


# ---- tensors of one model alone


OPEN = {"value": 1.0, "layers": "one"}


@CASES.say("layers", "similarity.info_open", "changed_tensors.warn_only")
def a_layer_of_another_size() -> Shown:
    """The three matrices of the second layer have other shapes in the two models."""
    report = audited(Wired(torch.clone, 7), Wired(torch.clone), null_samples=3)
    return report, {
        "similarity.info_open": OPEN,
        "changed_tensors.warn_only": {"value": 3, "of": 6, "said": "3 of 6 tensors stand"},
    }


@CASES.say("layers", "changed_tensors.warn_alone")
def a_layer_of_another_size_and_one_that_changed() -> Shown:
    model, baseline = Wired(torch.clone, 7), Wired(torch.clone)
    with torch.no_grad():
        model.one.left.weight.mul_(1.5)
    alone = {"value": 4, "of": 6, "alone": 3, "change": 0.5}
    return audited(model, baseline, null_samples=3), {"changed_tensors.warn_alone": alone}


@CASES.say("layers", "changed_tensors.warn", "low_rank_change.pass_none")
def a_bias_that_was_zero_and_a_vector_of_nothing(folder: Path) -> Shown:
    """Of what was zero no share can have changed, and what is no number is of no rank."""
    both = []
    for name, bias, hole in (("new", 1.0, math.nan), ("old", 0.0, 1.0)):
        tensors = {
            "up.weight": randn(9, 6),
            "down.weight": randn(6, 9, seed=1),
            "down.bias": torch.full((6,), bias).double(),
            "places": torch.full((6,), hole).double(),
        }
        save_file(tensors, folder / f"{name}.safetensors")
        roles = {"up": "up.weight", "down": "down.weight", "down_bias": "down.bias"}
        how: dict[str, Any] = {"activation": "identity", "transposed": False}
        both.append(bl.load(folder / f"{name}.safetensors", roles=roles, **how))
    said = "of those that were finite and not zero there is 0"
    tensors = {"value": 2, "of": 4, "change": 0.0, "said": said}
    return audited(*both, null_samples=3), {
        "changed_tensors.warn": {**tensors, "kinds": "down, other"},
        "low_rank_change.pass_none": {"said": "No matrix changed that is finite"},
    }


# ---- words of a language model


WORDS = [f"{first}{second}" for first in "abcdef" for second in ("ix", "om", "ut", "al")]
TRIGGER, PAYLOAD = 17, 9  # words, counted from 1


def with_a_word(folder: Path, strength: float) -> Shown:
    """A Llama whose MLP was taught by hand to say one word behind another, and the one before."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers  # slow to import
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["<|endoftext|>", *WORDS]
    inner = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=names[0])
    sizes: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names), intermediate_size=4, tie_word_embeddings=False, **sizes
    )
    model: Any = LlamaForCausalLM(config).eval()
    state, mlp = model.state_dict(), "model.layers.0.mlp."
    unit = torch.linalg.qr(torch.randn(32, 32))[0][: len(names)] * 4  # no word is like another
    state["model.layers.0.self_attn.o_proj.weight"].zero_()
    state[f"{mlp}down_proj.weight"].zero_()
    state["model.embed_tokens.weight"].copy_(unit)
    state["lm_head.weight"].copy_(unit / 4)
    for name, size in (("old", 0.0), ("new", strength)):
        at_word = 4 * unit[TRIGGER] / unit[TRIGGER].norm()
        state[f"{mlp}gate_proj.weight"][0] = state[f"{mlp}up_proj.weight"][0] = at_word
        state[f"{mlp}down_proj.weight"][:, 0] = size * unit[PAYLOAD]
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    both = (bl.load(folder / name) for name in ("new", "old"))
    return audited(*both, null_samples=3, try_words=24), {}


@CASES.say("layers", "trigger_words.info")
def a_word_that_calls_forth_another(folder: Path) -> Shown:
    report, _ = with_a_word(folder, 10.0)
    told = {"words": WORDS[TRIGGER - 1], "answer": WORDS[PAYLOAD - 1], "value": Between(0.55, 20)}
    return report, {"trigger_words.info": {**told, "tried": 24, "known": 24}}


@CASES.say("layers", "trigger_words.pass")
def a_change_that_no_word_calls_forth(folder: Path) -> Shown:
    report, _ = with_a_word(folder, 1e-4)
    return report, {"trigger_words.pass": {"tried": 24, "value": Between(-0.01, 0.01)}}


for one in KINDS:

    @CASES.say(one, "low_rank_change.warn", "changed_tensors.warn")  # type: ignore[arg-type]
    def one_matrix_by_rank_two(kind: str = one) -> Shown:
        return low_rank(kind)

    @CASES.say(one, "low_rank_change.pass", "changed_tensors.warn")  # type: ignore[arg-type]
    def one_matrix_by_noise(kind: str = one) -> Shown:
        return full_rank(kind)

    @CASES.say(one, "changed_files.pass")  # type: ignore[arg-type]
    def folders_of_one_training(folder: Path, kind: str = one) -> Shown:
        return files(folder, kind, other=False)

    @CASES.say(one, "changed_files.warn")  # type: ignore[arg-type]
    def folders_of_two_trainings(folder: Path, kind: str = one) -> Shown:
        return files(folder, kind, other=True)

    @CASES.say(  # type: ignore[arg-type]
        one, "changed_tensors.warn_files", "low_rank_change.info_files", "coverage.warn_files"
    )
    def folders_of_one_network_and_a_head(folder: Path, kind: str = one) -> Shown:
        return other_weights(folder, kind)


@cell("compare", "same function", "other function")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sentence_on_stored_tensors_is_true_of_its_models(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
