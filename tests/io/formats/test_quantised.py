"""Quantised weights are read as the numbers that their own libraries make of them, bit for bit.

Broken once: scales of blocks taken by columns instead of rows.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_language_models as tiny
from bilens.base.errors import BilensError
from bilens.io.formats.huggingface import read_layers
from bilens.io.formats.safetensors_folder import WEIGHTS_NAME
from bilens.io.load import LoadedModel, load
from bilens.io.stored_mlp import StoredTensor

transformers = pytest.importorskip("transformers")
Tensors = dict[str, Tensor]
Packed = tuple[Tensors, Tensor]  # by how a name ends, behind that of the module; and the numbers
E4M3 = torch.float8_e4m3fn


def fp8_in_blocks(weight: Tensor, tall: int = 5, wide: int = 8) -> Packed:
    """As of DeepSeek-V3, the last blocks cut short."""
    rows, columns = weight.shape
    scale = torch.empty(-(-rows // tall), -(-columns // wide))
    codes, numbers = weight.to(E4M3), weight.clone()
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = slice(tall * i, tall * (i + 1)), slice(wide * j, wide * (j + 1))
            scale[i, j] = weight[at].abs().max() / 448
            codes[at] = (weight[at] / scale[i, j]).to(E4M3)
            numbers[at] = codes[at].float() * scale[i, j]
    return {"weight": codes, "weight_scale_inv": scale}, numbers


def fp8_by_transformers(weight: Tensor) -> Packed:
    """In whole blocks, as transformers itself makes the numbers of them."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    parts, _ = fp8_in_blocks(weight, 4, 4)
    undo = Fp8Dequantize(None)._dequantize_one
    return parts, undo(parts["weight"], parts["weight_scale_inv"])


def fp8_of_a_row(weight: Tensor) -> Packed:
    """A bfloat16 scale for each row, the product rounded to that, and a scale of activations."""
    scale = (weight.abs().amax(dim=1, keepdim=True) / 448).bfloat16()
    codes = (weight / scale.float()).to(E4M3)
    parts = {"weight": codes, "weight_scale": scale, "input_scale": torch.ones(1)}
    return parts, codes.bfloat16() * scale


def fp8_of_a_tensor(weight: Tensor) -> Packed:
    scale = weight.abs().max().reshape(1) / 448
    codes = (weight / scale).to(E4M3)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


def int8_of_a_row(weight: Tensor) -> Packed:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    codes = (weight / scale).round().to(torch.int8)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale


Scheme = tuple[dict[str, Any], Callable[[Tensor], Packed]]
FP8: Scheme = {"quant_method": "fp8", "weight_block_size": [5, 8]}, fp8_in_blocks
SCHEMES: dict[str, Scheme] = {
    "FP8 in blocks": FP8,
    "FP8 in blocks, by transformers": (
        {"quant_method": "fp8", "weight_block_size": [4, 4]},
        fp8_by_transformers,
    ),
    "FP8 by rows": ({"quant_method": "compressed-tensors"}, fp8_of_a_row),
    "FP8 of a tensor": ({"quant_method": "compressed-tensors"}, fp8_of_a_tensor),
    "int8 by rows": ({"quant_method": "compressed-tensors"}, int8_of_a_row),
}


def write(folder: Path, kind: str, scheme: Scheme, **options: Any) -> tuple[Path, Path]:
    """Write a tiny model with its MLPs packed, and one with the numbers of that."""
    said, pack = scheme
    plain, packed = folder / "plain", folder / "packed"
    tiny.write(plain, kind, torch.float32, **options)
    tensors, content = (
        load_file(plain / WEIGHTS_NAME),
        json.loads((plain / "config.json").read_text()),
    )
    stored = {}
    for name, tensor in [*tensors.items()]:
        module = name.removesuffix("weight")
        if module.endswith("_proj.") and ".mlp." in name:
            parts, tensors[name] = pack(tensor)
            stored |= {module + ending: part.contiguous() for ending, part in parts.items()}
        else:
            stored[name] = tensor
    packed.mkdir()
    save_file(tensors, plain / WEIGHTS_NAME, {"format": "pt"})
    save_file(stored, packed / WEIGHTS_NAME, {"format": "pt"})
    said = {**said, "modules_to_not_convert": ["lm_head"]}
    (packed / "config.json").write_text(json.dumps({**content, "quantization_config": said}))
    return plain, packed


def check_same(plain: LoadedModel, packed: LoadedModel) -> None:
    assert [*plain.layers] == [*packed.layers]
    for name, view in packed.layers.items():
        ours, theirs = (one.weights(torch.float64) for one in (view, plain.layers[name]))
        for part in ("gate", "value", "down"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part))
    assert packed.exactness.source.startswith("transformers' ")
    assert packed.exactness.relative_error < 1e-12


@pytest.mark.parametrize("name", SCHEMES)
def test_a_quantised_llama_has_the_numbers_of_its_library(tmp_path: Path, name: str) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "attention_bias": False}
    folders = write(tmp_path, "llama", SCHEMES[name], **sizes)
    plain, packed = read_layers(folders[0]), load(folders[1])
    check_same(plain, packed)
    assert packed.provenance["read"].endswith("its weights are quantised")
    assert packed.provenance["stored_as"]
    weights = {one: t for one, t in packed.tensors.items() if "mlp" in one}
    assert {one: t.shape for one, t in weights.items()} == {
        one: t.shape for one, t in plain.tensors.items() if "mlp" in one
    }
    for tensor in weights.values():
        whole = tensor.read()
        for start, stop in ((0, 3), (3, 11), (5, 6)):
            assert torch.equal(tensor.rows(start, stop).read(), whole[start:stop])


@pytest.mark.parametrize("kind", ["deepseek_v3", "qwen3_moe"])
def test_experts_with_a_scale_each_are_read(tmp_path: Path, kind: str) -> None:
    plain, packed = (load(one) for one in write(tmp_path, kind, FP8))
    assert any(".experts." in name for name in packed.layers)
    check_same(plain, packed)


def test_experts_in_one_stack_have_a_stack_of_scales(tmp_path: Path) -> None:
    """As transformers 5 holds them."""
    scheme = {"quant_method": "fp8", "weight_block_size": [3, 8]}, partial(fp8_in_blocks, tall=3)
    plain, packed = write(tmp_path, "qwen3_moe", scheme)

    def stacked(tensors: Tensors) -> None:
        home = "model.layers.1.mlp.experts."
        for end in ("", "_scale_inv"):
            gate, up, down = (
                torch.stack([tensors.pop(f"{home}{n}.{one}_proj.weight{end}") for n in range(3)])
                for one in ("gate", "up", "down")
            )
            tensors[f"{home}gate_up_proj{end}"] = torch.cat([gate, up], dim=1)
            tensors[f"{home}down_proj{end}"] = down

    edit(packed, stacked)
    check_same(load(plain), load(packed))


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME, {"format": "pt"})


UP = "model.layers.0.mlp.up_proj.weight"
SCALE = f"{UP}_scale_inv"
DAMAGE: dict[str, tuple[Scheme, Callable[[Tensors], object], str]] = {
    "no scale": (FP8, lambda t: t.pop(SCALE), f"{UP}' is of torch.float8_e4m3fn and has no scale"),
    "no codes": (FP8, lambda t: t.pop(UP), f"has '{SCALE}' and lacks '{UP}'"),
    "a scale of another shape": (
        FP8,
        lambda t: t.update({SCALE: torch.ones(4, 1)}),
        rf"{SCALE}' has shape \(4, 1\); expected \(3, 1\), beside",
    ),
    "codes of another kind": (
        FP8,
        lambda t: t.update({UP: torch.ones(12, 8)}),
        f"{UP}' has shape .*expected matrices of 8-bit numbers, and got torch.float32",
    ),
    "a NaN scale": (
        FP8,
        lambda t: t[SCALE].fill_(torch.nan),
        f"tensor '{SCALE}' holds 3 non-finite",
    ),
    "a NaN exponent": (
        FP8,
        lambda t: t.update({SCALE: torch.full((3, 1), torch.nan).to(torch.float8_e8m0fnu)}),
        f"tensor '{SCALE}' holds 3 non-finite",
    ),
    "an unknown method": (({"quant_method": "hqq"}, fp8_in_blocks), len, "is quantised by 'hqq'"),
    "another method": (({"quant_method": "fbgemm_fp8"}, fp8_in_blocks), len, "no tensor beside it"),
    "a block of nothing": (
        ({"quant_method": "fp8", "weight_block_size": [0, 8]}, fp8_in_blocks),
        len,
        "has weight_block_size 0 in its quantization_config",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights_are_refused_by_name(tmp_path: Path, name: str) -> None:
    scheme, damage, message = DAMAGE[name]
    _, packed = write(tmp_path, "mistral", scheme)
    edit(packed, damage)
    with pytest.raises(BilensError, match=message) as caught:
        load(packed).layers["layers.0.mlp"].weights()
    assert str(caught.value).startswith(str(packed))
    assert "\n" not in str(caught.value)


def test_exponents_alone_are_scales_too(tmp_path: Path) -> None:
    _, packed = write(tmp_path, "mistral", FP8)
    scales = torch.tensor([[0.5], [2.0], [2.0**-9]])
    edit(packed, lambda t: t.update({SCALE: scales.to(torch.float8_e8m0fnu)}))
    codes = load_file(packed / WEIGHTS_NAME)[UP].float()
    found: StoredTensor = load(packed).tensors[UP]
    assert found.dtype is torch.bfloat16
    assert torch.equal(found.read().float(), codes * scales.repeat_interleave(5, 0)[:12])
