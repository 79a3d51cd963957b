"""Adapters of the real library: what is added is what its merge_and_unload adds.

Damage seen to fail: α/r for rsLoRA; B A not turned for GPT-2; rows for columns in DoRA; the alpha
pattern of another module; modules_to_save left out.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_language_models as tiny
from bilens.api.provenance import files_read
from bilens.base.errors import BilensError, CheckpointError
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.any_model import open_any
from bilens.io.load import ReadOptions, load

peft = pytest.importorskip("peft")
LLAMA = ["q_proj", "v_proj", "down_proj"]
GPT2 = ["c_attn", "c_proj", "c_fc"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama", {"target_modules": LLAMA}),
    "rsLoRA": ("llama", {"target_modules": LLAMA, "use_rslora": True}),
    "DoRA": ("llama", {"target_modules": LLAMA, "use_dora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 4, r"layers.\d+.mlp.down_proj": 1},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 32, "down_proj": 5},
        },
    ),
    "embedding and head": (
        "llama",
        {"target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "DoRA of an embedding": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "biases": ("llama", {"target_modules": ["q_proj"], "bias": "all"}),
    "GPT-2": ("gpt2", {"target_modules": GPT2}),
    "GPT-2 with DoRA": ("gpt2", {"target_modules": GPT2, "use_dora": True}),
    "GPT-2 with a head": ("gpt2", {"target_modules": ["c_attn", "c_proj", "lm_head"]}),
}


def make(folder: Path, case: str) -> dict[str, torch.Tensor]:
    """Save a base and an adapter with random factors; returns the tensors of the merged model."""
    kind, options = CASES[case]
    base = tiny.make(kind, tie_word_embeddings=False).float()
    base.save_pretrained(folder / "base")
    config = peft.LoraConfig(r=2, lora_alpha=6, **options)
    model = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or part.requires_grad:
                part.add_(0.3 * torch.randn(part.shape, generator=generator))
    model.save_pretrained(folder / "adapter")
    merged: dict[str, torch.Tensor] = model.double().merge_and_unload().state_dict()
    return merged


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("case", CASES)
def test_what_is_added_is_what_the_library_merges(tmp_path: Path, case: str) -> None:
    merged = make(tmp_path, case)
    model = load(tmp_path / "adapter", base=tmp_path / "base")
    base = load(tmp_path / "base").tensors
    assert {*model.tensors} == {*merged}
    moved = set()
    for name, expected in merged.items():
        before = base[name].read_tensor().double()
        found = model.tensors[name].read_tensor().double() - before
        torch.testing.assert_close(found, expected - before, rtol=1e-6, atol=1e-6)
        moved |= {name} if bool(found.any()) else set()
    assert len(moved) >= 1
    layer = next(iter(model.layers.values())).weights(torch.float64)
    assert bool(layer.down.isfinite().all())


def test_dora_is_no_noise(tmp_path: Path) -> None:
    make(tmp_path, "DoRA")
    base = load(tmp_path / "base").tensors
    adapter = load(tmp_path / "adapter", base=tmp_path / "base").tensors
    changed = compare_tensors(adapter, base).changed
    assert {one.state for one in changed} == {"rescaled"}
    assert {(one.dtype, one.baseline_dtype) for one in changed} == {("float32", "float32")}


def test_layers_are_those_of_the_merged_model(tmp_path: Path) -> None:
    merged = make(tmp_path, "LoRA")
    model = load(tmp_path / "adapter", base=tmp_path / "base")
    down = model.layers["layers.1.mlp"].weights(torch.float64).down
    torch.testing.assert_close(down, merged["model.layers.1.mlp.down_proj.weight"])
    assert "LoRA of rank 2 on 6 tensors is added to" in model.provenance["read"]
    assert model.exactness is not None


def test_a_base_that_the_adapter_names_is_found(tmp_path: Path) -> None:
    make(tmp_path, "LoRA")
    edit(tmp_path, base_model_name_or_path=str(tmp_path / "base"))
    assert load(tmp_path / "adapter").below == str(tmp_path / "base")
    edit(tmp_path, base_model_name_or_path="../base")
    assert load(tmp_path / "adapter").layers


def test_another_base_than_the_one_it_names_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "LoRA")
    tiny.make("llama").float().save_pretrained(tmp_path / "other")
    edit(tmp_path, base_model_name_or_path="../base")
    assert load(tmp_path / "adapter", base=tmp_path / "base").layers
    with pytest.raises(CheckpointError, match=r"was made for .*base, and .*other is another"):
        load(tmp_path / "adapter", base=tmp_path / "other")


def test_an_adapter_is_another_model_on_another_base_or_with_another_scale(tmp_path: Path) -> None:
    make(tmp_path, "LoRA")
    tiny.make("llama").half().float().save_pretrained(tmp_path / "other")
    one, again, other = (
        load(tmp_path / "adapter", base=tmp_path / base) for base in ("base", "base", "other")
    )
    assert one.provenance["adapter_sha256"] == other.provenance["adapter_sha256"]
    assert one.weights_sha256 == again.weights_sha256
    assert one.provenance["adapter_sha256"] == files_read(one)["adapter_model.safetensors"]
    edit(tmp_path, lora_alpha=64)
    scaled = load(tmp_path / "adapter", base=tmp_path / "base")
    assert len({model.identity for model in (one, other, scaled)}) == 3


def test_weights_of_an_adapter_alone_need_their_configuration(tmp_path: Path) -> None:
    make(tmp_path, "LoRA")
    folder = tmp_path / "adapter"
    assert load(folder / "adapter_model.safetensors", base=tmp_path / "base").layers
    (folder / "adapter_config.json").rename(tmp_path / "kept.json")
    (folder / "README.md").unlink(missing_ok=True)
    for path in (folder, folder / "adapter_model.safetensors"):
        for read in (load, partial(open_any, options=ReadOptions())):
            with pytest.raises(CheckpointError, match=r"without adapter_config\.json, .*rank"):
                read(path)


def plain(folder: Path, suffix: str = ".pt") -> tuple[Path, torch.nn.Module]:
    """An adapter of a module that is no model of Hugging Face's, and its merged module."""
    linear, torch_seed = torch.nn.Linear, torch.manual_seed(2)
    base = torch.nn.Sequential(linear(6, 8), torch.nn.ReLU(), linear(8, 3))
    path = folder / f"base{suffix}"
    if suffix == ".pt":
        torch.save({"model": base.state_dict()}, path)
    else:
        save_file(base.state_dict(), path)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0", "2"]))
    for name, part in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(part, generator=torch_seed)
    model.save_pretrained(folder / "adapter")
    return path, model.double().merge_and_unload()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_adapter_is_added_to_a_file_of_tensors(tmp_path: Path, suffix: str) -> None:
    base, merged = plain(tmp_path, suffix)
    with pytest.raises(BilensError) as caught:
        load(tmp_path / "adapter", base=base)
    assert ("--allow-pickle",) in caught.value.retries[0].options() or suffix != ".pt"
    assert ("--baseline", str(base)) in caught.value.retries[0].options()
    (call,) = re.findall(r"bl\.(load\(.*\))\.$", str(caught.value))
    model = eval(call.replace("ACTIVATION", "relu"), {"load": load})  # noqa: S307 - our own
    (view,) = model.layers.values()
    x = torch.randn(9, 6).double()
    torch.testing.assert_close(view.weights(torch.float64)(x), merged(x))
    changed = compare_tensors(model.tensors, load(base, **told(suffix)).tensors).changed
    assert [(one.name, one.rank, one.dtype) for one in changed] == [
        *(("0.weight", 2, "float32"), ("2.weight", 2, "float32"))
    ]


def told(suffix: str) -> dict[str, Any]:
    return {"activation": "relu", "allow_pickle": suffix == ".pt"}


def test_a_file_of_other_tensors_is_no_base(tmp_path: Path) -> None:
    plain(tmp_path)
    torch.save({"0.weight": torch.zeros(8, 7)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"changes '0\.weight', which the model below"):
        load(tmp_path / "adapter", base=tmp_path / "other.pt", **told(".pt"))
    for other in ("none.pt", "base.onnx"):
        with pytest.raises(CheckpointError, match="neither a folder of Hugging Face nor a file"):
            load(tmp_path / "adapter", base=tmp_path / other)


def test_an_adapter_without_its_base_says_what_it_is(tmp_path: Path) -> None:
    make(tmp_path, "patterns")
    edit(tmp_path, base_model_name_or_path="someone/model")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "adapter")
    text = str(caught.value)
    for part in ("LoRA of rank 1, 2, 4 on 6 tensors", "down_proj", "‖ΔW‖ ", "someone/model"):
        assert part in text
    assert "--baseline" in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "IA3"}, "has 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "has 'pissa_niter_4'"),
        ({"layer_replication": [[0, 1]]}, "has 'layer_replication'"),
        ({"lora_bias": True}, "has 'lora_bias'"),
        ({"lora_alpha": "much"}, "has 'α of all'"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "has '(a+)+b'"),
        ({"alpha_pattern": {"[": 3}}, "has '['"),
    ],
)
def test_what_is_no_such_adapter_is_refused(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    make(tmp_path, "LoRA")
    edit(tmp_path, **values)
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load(tmp_path / "adapter", base=tmp_path / "base")


def test_another_base_and_damaged_files_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "LoRA")
    tiny.write(tmp_path / "other", "llama", hidden_size=16)
    with pytest.raises(CheckpointError, match="does not have in this shape: pass the model"):
        load(tmp_path / "adapter", base=tmp_path / "other")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(tmp_path / "adapter", base=tmp_path / "base")
    weights.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "adapter", base=tmp_path / "base")
