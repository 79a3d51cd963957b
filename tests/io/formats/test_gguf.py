"""GGUF files, written with the package of llama.cpp: dequantised as it does, read one by one."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from bilens.api.alignment import align_models
from bilens.api.comparison import whole_difference
from bilens.base import silent
from bilens.base.errors import CheckpointError, MissingExtraError
from bilens.io.formats import gguf as module
from bilens.io.load import load
from bilens.records.tensor_changes import WholeDifference
from tools.net.foreign import write_gguf

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")
D, H, LAYERS = 64, 96, 2
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1")
X = torch.randn(9, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
RANDOM = np.random.default_rng(0)


def matrix(*shape: int) -> Any:
    return (RANDOM.standard_normal(shape) / 8).astype(np.float32)


def plain(prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}ffn_gate.weight": matrix(H, D),
        f"{prefix}ffn_up.weight": matrix(H, D),
        f"{prefix}ffn_down.weight": matrix(D, H),
    }


def fused(prefix: str) -> dict[str, Any]:
    return {f"{prefix}ffn_up.weight": matrix(2 * H, D), f"{prefix}ffn_down.weight": matrix(D, H)}


def mixture(prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}ffn_gate_inp.weight": matrix(3, D),
        f"{prefix}exp_probs_b.bias": matrix(3),
        f"{prefix}ffn_gate_exps.weight": matrix(3, H, D),
        f"{prefix}ffn_up_exps.weight": matrix(3, H, D),
        f"{prefix}ffn_down_exps.weight": matrix(3, D, H),
        f"{prefix}ffn_gate_shexp.weight": matrix(H, D),
        f"{prefix}ffn_up_shexp.weight": matrix(H, D),
        f"{prefix}ffn_down_shexp.weight": matrix(D, H),
    }


def write(
    path: Path,
    arch: str = "llama",
    make: Callable[[str], dict[str, Any]] = plain,
    kind: str = "F32",
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    **values: int,
) -> dict[str, Tensor]:
    """A model as llama.cpp converts it; returns what its tensors are when dequantised."""
    tensors = {"token_embd.weight": matrix(4, D), "output_norm.weight": matrix(D)}
    for index in range(LAYERS):
        tensors[f"blk.{index}.attn_q.weight"] = matrix(D, D)
        tensors[f"blk.{index}.ffn_norm.weight"] = matrix(D)
        tensors |= make(f"blk.{index}.")
    change(tensors)
    return write_gguf(path, tensors, kind, arch, values.pop("blocks", LAYERS), **values)


def glu(gate: Tensor, value: Tensor, down: Tensor, phi: Any = functional.silu) -> Tensor:
    gate, value, down = gate.double(), value.double(), down.double()
    found: Tensor = (phi(X @ gate.T) * (X @ value.T)) @ down.T
    return found


FUSED, MIXED = {"glm4", "phi3"}, {"deepseek2", "olmoe", "qwen2moe", "qwen3moe"}


@pytest.mark.parametrize("arch", sorted({*module.ARCHITECTURES} - MIXED))
def test_an_architecture_is_compared_with_its_module_in_transformers(
    tmp_path: Path, arch: str
) -> None:
    """Which brings its own activation: the file does not say it."""
    pytest.importorskip("transformers")
    write(tmp_path / "m.gguf", arch, fused if arch in FUSED else plain)
    found = load(tmp_path / "m.gguf").exactness
    assert found.source.startswith("transformers' ")
    assert found.relative_error < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_dequantised_as_llama_cpp_does(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    meant = write(path, kind=kind)
    model = load(path)
    assert [*model.layers] == ["layers.0.mlp", "layers.1.mlp"]
    assert model.provenance["stored_as"] == kind
    for index, view in enumerate(model.layers.values()):
        names = (f"blk.{index}.ffn_{name}.weight" for name in ("gate", "up", "down"))
        found = view.weights(torch.float64)(X)
        torch.testing.assert_close(found, glu(*(meant[name] for name in names)))
        assert view.sizes == (D, H, D)
    assert model.exactness.relative_error < 1e-12


def test_fused_branches_have_the_gate_first(tmp_path: Path) -> None:
    meant = write(tmp_path / "m.gguf", "phi3", fused, "Q8_0")
    view = load(tmp_path / "m.gguf").layers["layers.1.mlp"]
    both, down = (meant[f"blk.1.ffn_{name}.weight"] for name in ("up", "down"))
    torch.testing.assert_close(view.weights(torch.float64)(X), glu(both[:H], both[H:], down))


def test_gemma_has_the_tanh_form(tmp_path: Path) -> None:
    meant = write(tmp_path / "m.gguf", "gemma2")
    view = load(tmp_path / "m.gguf").layers["layers.0.mlp"]
    parts = (meant[f"blk.0.ffn_{name}.weight"] for name in ("gate", "up", "down"))
    expected = glu(*parts, phi=lambda t: functional.gelu(t, approximate="tanh"))
    torch.testing.assert_close(view.weights(torch.float64)(X), expected)


def test_experts_are_read_one_at_a_time(tmp_path: Path) -> None:
    meant = write(tmp_path / "m.gguf", "deepseek2", mixture, "Q8_0")
    model = load(tmp_path / "m.gguf")
    assert [*model.layers][:4] == [
        *(f"layers.0.mlp.experts.{n}" for n in range(3)),
        "layers.0.mlp.shared_experts",
    ]
    stacks = [meant[f"blk.1.ffn_{name}_exps.weight"] for name in ("gate", "up", "down")]
    found = model.layers["layers.1.mlp.experts.2"].weights(torch.float64)(X)
    torch.testing.assert_close(found, glu(*(stack[2] for stack in stacks)))
    shared = [meant[f"blk.1.ffn_{name}_shexp.weight"] for name in ("gate", "up", "down")]
    found = model.layers["layers.1.mlp.shared_experts"].weights(torch.float64)(X)
    torch.testing.assert_close(found, glu(*shared))


def split(folder: Path, path: Path, **changes: int) -> list[Path]:
    """Write a model again as two parts, of which the first alone says what it is."""
    reader = gguf.GGUFReader(path)
    found = []
    for part in range(2):
        file = folder / f"part-{part + 1:05}-of-00002.gguf"
        writer = gguf.GGUFWriter(file, "llama")
        if part == 0:
            writer.add_block_count(2)
        else:
            del writer.kv_data[0]["general.architecture"]
        said = {"split.no": part, "split.count": 2, "split.tensors.count": len(reader.tensors)}
        for key, value in (said | (changes if part else {})).items():
            writer.add_uint16(key, value)
        for tensor in reader.tensors[part::2]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found.append(file)
    return found


def test_all_parts_of_a_split_model_are_read(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write(whole)
    first, second = split(tmp_path, whole)
    ours, theirs = load(first), load(whole)
    assert [*ours.layers] == [*theirs.layers]
    for name, view in ours.layers.items():
        assert torch.equal(view.weights().down, theirs.layers[name].weights().down)
    assert {*ours.tensors} == {*theirs.tensors}
    with pytest.raises(CheckpointError, match=r"name the first one, which ends with -00001-of-0"):
        load(second)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"2 parts, and part-00002-of-00002\.gguf is missing"):
        load(first)
    first, _ = split(tmp_path, whole, **{"split.count": 3})
    with pytest.raises(CheckpointError, match="does not say that it is part 2 of 2"):
        load(first)


def apart(prefix: str) -> dict[str, Any]:
    """A mixture as old converters wrote it: tensors for each expert."""
    sizes = {"gate": (H, D), "up": (H, D), "down": (D, H)}
    return {f"{prefix}ffn_gate_inp.weight": matrix(3, D)} | {
        f"{prefix}ffn_{role}.{n}.weight": matrix(*size)
        for n in range(3)
        for role, size in sizes.items()
    }


def test_experts_with_tensors_of_their_own_are_read(tmp_path: Path) -> None:
    meant = write(tmp_path / "m.gguf", "llama", apart, "Q8_0")
    model = load(tmp_path / "m.gguf")
    assert [*model.layers] == [f"layers.{i}.mlp.experts.{n}" for i in range(2) for n in range(3)]
    parts = (meant[f"blk.1.ffn_{role}.2.weight"] for role in ("gate", "up", "down"))
    found = model.layers["layers.1.mlp.experts.2"].weights(torch.float64)(X)
    torch.testing.assert_close(found, glu(*parts))


def test_the_experts_of_qwen_2_have_a_router_of_the_shared_one(tmp_path: Path) -> None:
    def routed(prefix: str) -> dict[str, Any]:
        tensors = mixture(prefix) | {f"{prefix}ffn_gate_inp_shexp.weight": matrix(D)}
        return {name: t for name, t in tensors.items() if "exp_probs_b" not in name}

    write(tmp_path / "m.gguf", "qwen2moe", routed)
    assert "layers.1.mlp.shared_experts" in load(tmp_path / "m.gguf").layers


def rest_of_a_llama(tensors: dict[str, Any]) -> None:
    """Put in what transformers needs for a whole model."""
    for index in range(LAYERS):
        for name in ("q", "k", "v", "output"):
            tensors[f"blk.{index}.attn_{name}.weight"] = matrix(D, D)
        tensors[f"blk.{index}.attn_norm.weight"] = matrix(D)


def test_it_is_the_mlp_that_transformers_makes_of_the_file(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    write(
        tmp_path / "m.gguf",
        kind="Q4_0",
        change=rest_of_a_llama,
        llama_embedding__length=D,
        llama_feed__forward__length=H,
        llama_attention_head__count=4,
        llama_context__length=8,
        llama_vocab__size=4,
    )
    read = transformers.modeling_gguf_pytorch_utils.load_gguf_checkpoint
    config = read(str(tmp_path / "m.gguf"))["config"]
    blank = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    found = read(str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=blank)["tensors"]
    blank.load_state_dict(found, strict=False)
    for name, view in load(tmp_path / "m.gguf").layers.items():
        theirs = blank.double().model.get_submodule(name)
        assert torch.equal(theirs.up_proj.weight, found[f"model.{name}.up_proj.weight"].double())
        torch.testing.assert_close(view.weights(torch.float64)(X), theirs(X))


def cut_to(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def put(offset: int, new: bytes) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[offset : offset + len(new)] = new
        path.write_bytes(content)

    return change


HUGE = struct.pack("<Q", 2**62)
DAMAGE: dict[str, tuple[dict[str, Any], Callable[[Path], object], str]] = {
    "empty": ({}, cut_to(0), r"is empty \(0 bytes\)"),
    "cut in the header": ({}, cut_to(200), "ends after 200 bytes, in the middle of its header"),
    "cut in the tensors": ({}, lambda p: cut_to(p.stat().st_size // 2)(p), "ends behind the end"),
    "no GGUF": ({}, put(0, b"GGML"), "does not begin with GGUF"),
    "version 1": ({}, put(4, b"\1"), "is of GGUF version 1; versions 2 and 3 are read"),
    "big-endian": ({}, put(4, b"\0\0\0\3"), "is of GGUF version 50331648"),
    "many tensors": ({}, put(8, HUGE), "claims a length of 4611686018427387904"),
    "many values": ({}, put(16, HUGE), "claims a length of 4611686018427387904"),
    "a long key": ({}, put(24, HUGE), "claims a length of 4611686018427387904"),
    "another architecture": ({"arch": "gpt2"}, bool, "is of the architecture 'gpt2'; gated MLPs"),
    "more blocks": ({"blocks": 3}, bool, "missing 'ffn_down.weight', 'ffn_gate.weight', 'ffn_up"),
    "a million blocks": ({"blocks": 10**6}, bool, "claims 1000000 blocks"),
    "a part of a model": ({"split_count": 2}, bool, "is one of 2 parts of a model: name the first"),
    "a later part": ({"arch": "", "split_count": 3}, bool, "is one of 3 parts of a model"),
    "an expert that lacks a part": (
        {"make": apart, "change": lambda t: t.pop("blk.1.ffn_up.1.weight")},
        bool,
        "missing 'ffn_up.1.weight'",
    ),
    "a missing tensor": (
        {"change": lambda t: t.pop("blk.1.ffn_up.weight")},
        bool,
        "missing 'ffn_up.weight'",
    ),
    "an unknown tensor": (
        {"change": lambda t: t.update({"blk.1.ffn_more.weight": matrix(3, D)})},
        bool,
        "unexpected 'ffn_more.weight'",
    ),
    "a wrong shape": (
        {"change": lambda t: t.update({"blk.1.ffn_up.weight": matrix(H, H)})},
        bool,
        r"shape \(96, 96\); expected \(96, 64\)",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    options, damage, message = DAMAGE[name]
    path = tmp_path / "m.gguf"
    write(path, **options)
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def with_offset(name: str, change: Callable[[int], int]) -> Callable[[Path], object]:
    """Point a tensor of the header somewhere else."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = content.index(name.encode()) + len(name)
        (axes,) = struct.unpack_from("<I", content, at)
        where = at + 4 + 8 * axes + 4
        (offset,) = struct.unpack_from("<Q", content, where)
        struct.pack_into("<Q", content, where, change(offset))
        path.write_bytes(content)

    return damage


OFFSETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "the offset of another": (
        with_offset("blk.1.ffn_up.weight", lambda _: 0),
        "'blk.1.ffn_up.weight' begins at byte .*before the end of 'blk.1.ffn_gate.weight'",
    ),
    "overlap": (with_offset("blk.1.ffn_up.weight", lambda n: n - 32), "begins at byte"),
    "alignment": (with_offset("blk.1.ffn_down.weight", lambda n: n + 4), "off the alignment of 32"),
    "order": (with_offset("blk.0.ffn_gate.weight", lambda n: n + 2 * 4 * H * D), "begins at byte"),
    "a gap beyond the end": (
        with_offset("blk.1.ffn_down.weight", lambda n: n + 32 * 10**6),
        "ends behind the end",
    ),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_tensors_out_of_order_or_overlapping_are_refused(tmp_path: Path, name: str) -> None:
    damage, message = OFFSETS[name]
    write(tmp_path / "m.gguf")
    damage(tmp_path / "m.gguf")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "m.gguf")


def test_a_mixture_of_no_experts_is_refused(tmp_path: Path) -> None:
    def none(prefix: str) -> dict[str, Any]:
        made = mixture(prefix).items()
        return {name: tensor[:0] if "_exps" in name else tensor for name, tensor in made}

    write(tmp_path / "m.gguf", "deepseek2", none)
    with pytest.raises(CheckpointError, match=r"has shape \(0, 96, 64\); expected a stack of as"):
        load(tmp_path / "m.gguf")


def test_a_file_changed_under_a_kept_size_and_time_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path)
    view, times = load(path).layers["layers.0.mlp"], path.stat()
    content = bytearray(path.read_bytes())
    content[-8:] = bytes(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(CheckpointError, match="was changed or moved after the model was loaded"):
        view.weights()


def test_every_cut_of_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path)
    whole = path.read_bytes()
    for size in range(13, 900, 13):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="is not a readable GGUF file"):
            load(path)


def test_a_type_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    write(path, kind="Q8_0")
    monkeypatch.delitem(gguf.GGML_QUANT_SIZES, gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(CheckpointError, match="is of the ggml type 8, which is not known"):
        load(path)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bilens\[gguf\]'"):
        load(tmp_path / "m.gguf")


def test_loading_other_models_does_not_load_the_package() -> None:
    code = "import sys; from bilens.io.load import load; print('gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- beside the same model of Hugging Face

SIZES = {"vocab_size": 16, "hidden_size": D, "intermediate_size": H, "num_hidden_layers": LAYERS}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True}
MOE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MOE |= {"shared_expert_intermediate_size": 32, "num_local_experts": 3}
GGUF_OF = {
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output", "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
    **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
    **{f"mlp.shared_expert.{one}_proj": f"ffn_{one}_shexp" for one in ("gate", "up", "down")},
}  # fmt: skip
EXPERT = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.\d+\.(gate|up|down|w[123])(?:_proj)?")
BRANCH = {"w1": "gate", "w2": "down", "w3": "up"}


def converted(folder: Path, kind: str) -> dict[str, Any]:
    """A folder of Hugging Face, and its tensors as llama.cpp's convert_hf_to_gguf has them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **(MOE if kind != "llama" else {}))
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # biases and norms, too
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    found: dict[str, Any] = {}
    stacks: dict[str, list[Any]] = {}
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name in sorted(tensors):
        value, (stem, _, end) = tensors[name].numpy(), name.rpartition(".")
        index = re.match(r"model\.layers\.(\d+)\.", stem)
        prefix = f"blk.{index[1]}." if index else ""
        stem = re.sub(r"^model\.(layers\.\d+\.)?", "", stem)
        if expert := EXPERT.fullmatch(stem):
            branch = BRANCH.get(expert[1], expert[1])
            stacks.setdefault(f"{prefix}ffn_{branch}_exps.weight", []).append(value)
            continue
        if kind != "qwen2_moe" and stem[-7:-5] in (".q", ".k"):  # its `permute`
            heads = 4 if ".q_" in stem else 2
            shape = heads, 2, len(value) // heads // 2, *value.shape[1:]
            value = value.reshape(shape).swapaxes(1, 2).reshape(value.shape)
        found[f"{prefix}{GGUF_OF[stem]}.{end}"] = value
    return {**found, **{name: np.stack(parts) for name, parts in stacks.items()}}


HEADS = {"llama_attention_head__count": 4, "llama_attention_head__count__kv": 2}


def difference(model: Path, baseline: Path) -> WholeDifference:
    whole = whole_difference(align_models(load(model), load(baseline)), (), None, silent).whole
    assert whole is not None
    return whole


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_file_of_llama_cpp_is_the_model_that_it_was_made_from(tmp_path: Path, kind: str) -> None:
    tensors = converted(tmp_path / "hf", "llama")
    write_gguf(tmp_path / "m.gguf", tensors, kind, blocks=LAYERS, **HEADS)
    whole = difference(tmp_path / "m.gguf", tmp_path / "hf")
    assert whole.tensors == len(tensors)
    assert (whole.model_alone, whole.baseline_alone, whole.other_shape) == ((), (), ())
    assert {one.state for one in whole.changed} == (set() if kind == "F32" else {"rounding"})
    changed_ones = ("blk.0.attn_q.weight", "blk.1.attn_k.bias", "blk.1.ffn_norm.weight")
    for name in changed_ones if kind == "F16" else changed_ones[:1]:
        other = {**tensors, name: tensors[name] + np.float32(0.1) * (tensors[name] > 0.01)}
        write_gguf(tmp_path / "m.gguf", other, kind, blocks=LAYERS, **HEADS)
        changed = difference(tmp_path / "m.gguf", tmp_path / "hf").changed
        assert [one.name for one in changed if one.state != "rounding"] == [name]


@pytest.mark.parametrize(("family", "arch"), [("qwen2_moe", "qwen2moe"), ("mixtral", "llama")])
def test_stacked_experts_are_those_of_the_model(tmp_path: Path, family: str, arch: str) -> None:
    tensors = converted(tmp_path / "hf", family)
    write_gguf(tmp_path / "m.gguf", tensors, "F32", arch, LAYERS, **HEADS)
    model, baseline = tmp_path / "m.gguf", tmp_path / "hf"
    for one, other in ((model, baseline), (baseline, model)):
        whole = difference(one, other)
        assert (whole.changed, whole.model_alone, whole.baseline_alone) == ((), (), ())
    tensors["blk.1.ffn_up_exps.weight"][2, 0, 0] += 1
    write_gguf(model, tensors, "F32", arch, LAYERS, **HEADS)
    assert [one.name for one in difference(model, baseline).changed] == [
        "blk.1.ffn_up_exps.weight[2]"
    ]


def test_rows_in_another_order_are_a_change(tmp_path: Path) -> None:
    """As a conversion leaves them that does not turn queries, or for other heads."""
    tensors, name = converted(tmp_path / "hf", "llama"), "blk.0.attn_q.weight"
    write_gguf(tmp_path / "m.gguf", tensors, blocks=LAYERS, **HEADS)
    rows = tensors[name]
    for heads in (1, 2, 4):
        turned = rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
        write_gguf(tmp_path / "n.gguf", {**tensors, name: turned}, blocks=LAYERS, **HEADS)
        for baseline in ("hf", "m.gguf"):
            changed = difference(tmp_path / "n.gguf", tmp_path / baseline).changed
            assert [one.name for one in changed] == [name], (heads, baseline)
