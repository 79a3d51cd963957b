"""Two models from files beside each other: the whole difference, as an audit and its pages say it.

Damage seen to fail: layers alone compared; the files of an adapter's base left out; a model without
layers refused; a Llama that is read whole beside one that is not.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny_language_models as tiny
from bilens.api.audit_model import audit
from bilens.io.load import load
from commands import Shell
from planted_changes import planted

pytest.importorskip("transformers")
FEW: dict[str, Any] = {"null_samples": 3, "command": "here"}


def write(
    folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, **more: Any
) -> Any:
    plain = {"mlp_bias": False, "attention_bias": False} if kind == "llama" else {}
    return tiny.write(folder, kind, dtype, **plain, **more)


def changed(folder: Path, model: Any, name: str, change: Any, dtype: Any = torch.float32) -> None:
    other = copy.deepcopy(model).to(dtype)
    weight = other.get_parameter(name)
    with torch.no_grad():
        weight.copy_(change(weight.detach()))
    other.save_pretrained(folder)


def text(tmp_path: Path) -> str:
    return audit(load(tmp_path / "b"), baseline=load(tmp_path / "a"), **FEW).to_markdown()


def findings(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        one["rule"]: {**one["values"], "outcome": one["outcome"]} for one in document["verdict"]
    }


def compared(tmp_path: Path, model: str = "b", baseline: str = "a") -> dict[str, Any]:
    report = audit(load(tmp_path / model), baseline=load(tmp_path / baseline), **FEW)
    for lang in ("en", "ja"):
        report.to_html(lang=lang)
    document: dict[str, Any] = report.to_dict()
    return document


def test_a_copy_is_identical_and_a_config_is_part_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a").float().save_pretrained(tmp_path / "b")
    for folder in ("a", "b"):
        (tmp_path / folder / "modeling.py").write_text("x = 1")
    document = compared(tmp_path)
    assert "**Identical to the baseline, bit for bit: " in text(tmp_path)
    assert "All 3 files beside the weights are the same, byte for byte" in text(tmp_path)
    found = findings(document)
    rules = ("changed_tensors", "changed_files", "low_rank_change", "changed_layers")
    assert {found[rule]["outcome"] for rule in rules} == {"pass"}
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.5}))
    (tmp_path / "b" / "tokenizer.json").write_text("{}")
    (tmp_path / "b" / "modeling.py").write_text("x = 2")
    document = compared(tmp_path)
    assert "beside them were compared" not in text(tmp_path)
    files = {one["name"]: one for one in document["difference"]["whole"]["files"]}
    assert files["config.json"]["keys"] == ["rms_norm_eps"]
    assert files["tokenizer.json"]["state"] == "model"
    found = findings(document)["changed_files"]
    assert (found["value"], found["outcome"]) == (3, "warn")
    assert "the same weights may behave differently" in text(tmp_path)


def test_other_architectures_are_compared_where_they_match(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", "gpt2")
    document = compared(tmp_path)
    whole = document["difference"]["whole"]
    assert len(whole["model_alone"]) > 10
    assert len(whole["baseline_alone"]) > 10
    assert all(one["refused"] for one in document["difference"]["layers"])
    assert findings(document)["changed_tensors"]["alone"] > 20
    write(tmp_path / "c", num_hidden_layers=3)
    longer = compared(tmp_path, "c")["difference"]
    assert longer["whole"]["tensors"] == 21
    assert len(longer["whole"]["model_alone"]) == 9
    refused = {one["name"]: one["refused"] for one in longer["layers"]}
    assert [name for name, why in refused.items() if why] == ["layers.2.mlp"]
    assert len(refused) == 3


def test_a_llama_that_is_read_whole_and_one_that_is_not(tmp_path: Path) -> None:
    model = write(tmp_path / "a")
    other = copy.deepcopy(model).float()
    other.model.layers[0].self_attn.bfloat16()
    other.save_pretrained(tmp_path / "b")
    assert load(tmp_path / "a").module is not None
    assert load(tmp_path / "b").module is None
    document = compared(tmp_path)
    assert [one["identical"] for one in document["difference"]["layers"]] == [True, True]
    changed = document["difference"]["whole"]["changed"]
    assert {(one["state"], one["dtype"]) for one in changed} == {("rounding", "bfloat16")}


def test_models_without_layers_are_compared_too(bilens: Shell, tmp_path: Path) -> None:
    old = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    new = copy.deepcopy(old)
    new[0].weight.data = planted(new[0].weight.detach(), 1, torch.float32)
    record = audit(new, baseline=old, **FEW).to_dict()
    assert record["layers"]["readings"] == []
    (one,) = record["difference"]["whole"]["changed"]
    assert (one["kind"], one["rank"], one["state"]) == ("conv", 1, "low_rank")
    from safetensors.torch import save_file

    for name, module in (("a", old), ("b", new)):
        save_file(module.state_dict(), str(tmp_path / f"{name}.safetensors"))
    page = tmp_path / "page.html"
    line = ("audit", tmp_path / "b.safetensors", "--baseline", tmp_path / "a.safetensors")
    result = bilens(*line, "--html", page, "--markdown", tmp_path / "page.md")
    assert result.code == 0
    assert "by a low rank (1): 0.weight" in result.out
    assert "no layers" in result.err
    assert "change-map" in page.read_text("utf-8")


@pytest.mark.parametrize("kind", ["Q8_0", "F32", "BF16"])
def test_gguf_beside_safetensors(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    model = write(tmp_path / "a", **sizes)
    state = {name: part.float() for name, part in model.state_dict().items()}
    for layer in range(2):  # as convert_hf_to_gguf puts the rows
        for letter in "qk":
            name = f"model.layers.{layer}.self_attn.{letter}_proj.weight"
            state[name] = state[name].reshape(2, 2, 16, 64).swapaxes(1, 2).reshape(64, 64)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.add_block_count(2)
    writer.add_head_count(2)
    for name, part in state.items():
        wanted = gguf.GGMLQuantizationType["F32" if part.ndim < 2 else kind]
        packed = gguf.quants.quantize(part.numpy(), wanted)
        theirs = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(theirs, packed, raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    document = compared(tmp_path, "b.gguf")
    whole = document["difference"]["whole"]
    assert whole["model_alone"] == []
    assert whole["baseline_alone"] == []
    states = {one["state"] for one in whole["changed"]}
    assert states == {"F32": set(), "Q8_0": {"quantised"}, "BF16": {"rounding"}}[kind]
    if kind == "Q8_0":
        assert all(0.001 < one["change"] < 0.01 for one in whole["changed"])


def test_an_adapter_is_what_it_adds_to_its_base(bilens: Shell, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = write(tmp_path / "a", hidden_size=16).float()
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().bfloat16().save_pretrained(tmp_path / "merged")
    line = ("audit", tmp_path / "adapter", "--baseline", tmp_path / "a", "--null-samples", 3)
    result = bilens(*line, "--json")
    found = findings(result.json())["low_rank_change"]
    assert (found["value"], found["of"], found["ranks"]) == (4, 4, "2")
    assert "LoRA of rank 2 on 4 tensors is added to" in result.err
    files = result.json()["difference"]["whole"]["files"]
    assert {one["state"] for one in files if one["name"] == "config.json"} == {"same"}
    assert not any(one["identical"] for one in result.json()["difference"]["layers"])
    merged = audit(
        load(tmp_path / "merged"), baseline=load(tmp_path / "adapter", base=tmp_path / "a"), **FEW
    ).to_dict()["difference"]["whole"]
    assert {one["state"] for one in merged["changed"]} == {"rounding"}
    assert bilens("audit", tmp_path / "adapter").code == 3
