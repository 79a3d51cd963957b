"""Quantised weights are read as the numbers that their own libraries make of them, bit for bit.

Broken once: scales of blocks taken by columns instead of rows; spans of GPTQ cut by rows,
spans of stacked scales cut as one.
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
from bilens.io.byte_ranges import Unchanged
from bilens.io.formats.huggingface import read_layers
from bilens.io.load import LoadedModel, load
from bilens.io.loaded_model import WEIGHTS_NAME
from bilens.io.stored_mlp import StoredTensor
from models import edit_config

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


def in_words(codes: Tensor, bits: int, axis: int) -> Tensor:
    """Pack whole numbers into int32, the lowest bits first."""
    codes = codes.long().movedim(axis, -1)
    short = -codes.shape[-1] % (32 // bits)
    each = torch.nn.functional.pad(codes, (0, short)).unflatten(-1, (-1, 32 // bits))
    words = (each << torch.arange(0, 32, bits)).sum(-1)
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    return words.movedim(-1, axis).contiguous()


def in_groups(weight: Tensor, bits: int, group: Tensor, symmetric: bool) -> tuple[Tensor, ...]:
    """Codes, and the zeros and scales (groups, out), of a weight (out, in), by definition."""
    high, groups = 2**bits - 1, int(group.max()) + 1
    ends = [[w.amin(1), w.amax(1)] for w in (weight[:, group == g] for g in range(groups))]
    low, top = (
        torch.stack(e).clamp(*at)
        for e, at in zip(zip(*ends, strict=True), ((None, 0), (0, None)), strict=True)
    )
    if symmetric:
        top = torch.maximum(top, -low)
        low = -top
    scale = ((top - low) / high).half()
    zero = (
        torch.full_like(scale, 2 ** (bits - 1)).long()
        if symmetric
        else (-low / scale).round().long()
    )
    zero = zero.clamp(0, high)
    codes = ((weight.T / scale[group]).round().long() + zero[group]).clamp(0, high)
    return codes, zero, scale


def gptq(weight: Tensor, bits: int, version: int, order: bool, symmetric: bool) -> Packed:
    """As `dequantize_weight` of gptqmodel has it: scales[g_idx] (q − zeros[g_idx]), in float16.

    Compared once with gptqmodel 7.7.0 and its conversion of version 1 to 2: equal in every bit.
    """
    d_in = weight.shape[1]
    group = torch.arange(d_in) // 8
    if order:
        group = group[torch.randperm(d_in, generator=torch.Generator().manual_seed(1))]
    codes, zero, scale = in_groups(weight, bits, group, symmetric)
    stored = zero if version == 2 else (zero - 1) % 2**bits
    parts = {
        "qweight": in_words(codes, bits, 0),
        "qzeros": in_words(stored, bits, 1),
        "scales": scale,
        "g_idx": group.int(),
    }
    return parts, (scale[group] * (codes - zero[group])).T


def awq(weight: Tensor) -> Packed:
    """As `dequantize_gemm` of AutoAWQ has it; compared once with the copy in gptqmodel 7.7.0."""
    group = torch.arange(weight.shape[1]) // 8
    codes, zero, scale = in_groups(weight, 4, group, False)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    words, zeros = (
        in_words(t.unflatten(1, (-1, 8))[:, :, order].flatten(1), 4, 1) for t in (codes, zero)
    )
    parts = {"qweight": words, "qzeros": zeros, "scales": scale}
    return parts, ((codes - zero[group]) * scale[group]).T


def packed_integers(weight: Tensor, bits: int, symmetric: bool) -> Packed:
    """As pack-quantized of compressed-tensors; compared once with version 0.20.1, every bit."""
    group = torch.arange(weight.shape[1]) // 8
    codes, zero, scale = (t.T for t in in_groups(weight, bits, group, symmetric))
    scale = scale.bfloat16()
    parts = {
        "weight_packed": in_words(codes.T.contiguous().T, bits, 1),
        "weight_scale": scale,
        "weight_shape": torch.tensor(weight.shape),
    }
    if not symmetric:
        parts["weight_zero_point"] = in_words(zero, bits, 0)
    return parts, (codes - zero[:, group]).bfloat16() * scale[:, group]


def int8_of_bitsandbytes(weight: Tensor) -> Packed:
    """As `int8_vectorwise_dequant` of bitsandbytes 0.50.2, with which it was compared once."""
    largest = weight.abs().amax(dim=1)
    codes = (weight * (127 / largest[:, None])).round().to(torch.int8)
    parts = {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, codes * largest[:, None] * 7.874015718698502e-3


NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
]
FP4 = [one / 12 for one in (0, 0.0625, 8, 12, 4, 6, 2, 3)]
TABLES = {"nf4": torch.tensor(NF4), "fp4": torch.tensor([*FP4, *(-one for one in FP4)])}


def four_bits(weight: Tensor, kind: str, nested: bool, storage: torch.dtype) -> Packed:
    """As the definition in Python of bitsandbytes 0.50.2 (`_dequantize_4bit_compute`), every bit.

    Its kernel for the processor gave other numbers for blocks of 32 when both were compared.
    """
    size, table = 32, TABLES[kind]
    flat = weight.flatten().unflatten(0, (-1, size))
    largest = flat.abs().amax(dim=1)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": size, "dtype": "bfloat16"}
    state["shape"] = list(weight.shape)
    parts = {"weight.quant_map": table}
    if nested:
        offset, code = float(largest.mean()), torch.linspace(-1, 1, 256)
        blocks = (largest - offset).unflatten(0, (-1, 4))
        second = blocks.abs().amax(dim=1)
        near = (blocks / second[:, None]).unsqueeze(-1) - code
        parts["weight.absmax"] = near.abs().argmin(-1).flatten().to(torch.uint8)
        parts |= {"weight.nested_absmax": second, "weight.nested_quant_map": code}
        largest = (code[near.abs().argmin(-1)] * second[:, None]).flatten() + torch.tensor(offset)
        state |= {"nested_blocksize": 4, "nested_dtype": "float32", "nested_offset": offset}
    else:
        parts["weight.absmax"] = largest
    codes = ((flat / largest[:, None]).unsqueeze(-1) - table).abs().argmin(-1)
    numbers = (table[codes] * largest[:, None]).bfloat16().reshape(weight.shape)
    both = codes.flatten().unflatten(0, (-1, 2))
    packed = (both[:, 0] << 4 | both[:, 1]).to(torch.uint8)
    parts["weight"] = packed.view(storage)[:, None]
    text = json.dumps(state).encode()
    parts[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor([*text], dtype=torch.uint8)
    return parts, numbers


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
    "AWQ": ({"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm"}, awq),
    "bitsandbytes, 8 bits": ({"quant_method": "bitsandbytes"}, int8_of_bitsandbytes),
}
for bits, version, order, symmetric in (
    (4, 1, True, True),
    (4, 2, False, False),
    (8, 1, False, False),
    (4, 1, False, False),
):
    said: dict[str, Any] = {"quant_method": "gptq", "bits": bits, "group_size": 8, "sym": symmetric}
    said["checkpoint_format"] = "gptq" if version == 1 else "gptq_v2"
    pack = partial(gptq, bits=bits, version=version, order=order, symmetric=symmetric)
    SCHEMES[f"GPTQ {bits}, {version}, {order}, {symmetric}"] = said, pack
for bits, symmetric in ((4, True), (4, False), (8, True)):
    weights = {"num_bits": bits, "group_size": 8, "strategy": "group", "symmetric": symmetric}
    said = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": weights}}}
    pack = partial(packed_integers, bits=bits, symmetric=symmetric)
    SCHEMES[f"packed {bits}, {symmetric}"] = said, pack
for kind, nested, storage in (
    ("nf4", True, torch.uint8),
    ("fp4", False, torch.uint8),
    ("nf4", False, torch.bfloat16),
):
    pack = partial(four_bits, kind=kind, nested=nested, storage=storage)
    SCHEMES[f"{kind} {nested} {storage}"] = {"quant_method": "bitsandbytes"}, pack


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
            parts, numbers = pack(tensor)
            tensors[name] = numbers.contiguous()
            stored |= {module + ending: part.contiguous().clone() for ending, part in parts.items()}
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


def read_in_spans(tensor: StoredTensor) -> Tensor:
    """Read a tensor; no byte of a file is read that its spans do not say."""
    read, fill = list[tuple[int, int]](), Unchanged.fill

    def counted(file: Unchanged, buffer: memoryview, start: int) -> None:
        read.append((start, start + len(buffer)))
        fill(file, buffer, start)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Unchanged, "fill", counted)
        found = tensor.read_tensor()
    spans = [span[1:] for span in tensor.spans]
    assert all(any(low <= start and stop <= high for low, high in spans) for start, stop in read)
    assert read
    return found


def check_spans_of_one(stack: StoredTensor) -> None:
    """One expert of a stack is read from its own codes and scales alone."""
    count, size = stack.shape[0], sum(stop - start for _, start, stop in stack.spans)
    for index in range(count):
        one = stack.at_index(index)
        assert torch.equal(read_in_spans(one), stack.read_tensor()[index])
        assert sum(stop - start for _, start, stop in one.spans) * count == size


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
        whole = read_in_spans(tensor)
        for start, stop in ((0, 3), (3, 11), (5, 6)):
            assert torch.equal(read_in_spans(tensor.rows(start, stop)), whole[start:stop])


SIZES = {"hidden_size": 16, "moe_intermediate_size": 8, "intermediate_size": 24}
MIXTURES = [("deepseek_v3", FP8, {}), ("qwen3_moe", FP8, {})]
MIXTURES += [("qwen3_moe", SCHEMES["GPTQ 4, 1, True, True"], SIZES)]


@pytest.mark.parametrize(("kind", "scheme", "sizes"), MIXTURES)
def test_experts_with_a_scale_each_are_read(
    tmp_path: Path, kind: str, scheme: Scheme, sizes: dict[str, int]
) -> None:
    plain, packed = (load(one) for one in write(tmp_path, kind, scheme, **sizes))
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
    found = load(packed)
    check_same(load(plain), found)
    stacks = [one for name, one in found.tensors.items() if name.endswith("experts.down_proj")]
    for stack in stacks:
        check_spans_of_one(stack)
    assert stacks


EXPERTS = "model.layers.0.mlp.experts."


def write_gpt_oss(folder: Path) -> tuple[Path, Path]:
    """As the released model: stacks of experts in MXFP4, biases beside them in floating point."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    plain, packed = folder / "plain", folder / "packed"
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1}
    tiny.write(plain, "gpt_oss", torch.float32, **sizes)
    tensors = load_file(plain / WEIGHTS_NAME)
    stored, generator = dict(tensors), torch.Generator().manual_seed(2)
    for name in ("gate_up_proj", "down_proj"):
        experts, d_in, d_out = stored.pop(EXPERTS + name).shape
        shape = experts, d_out, d_in // 32
        codes = torch.randint(256, (*shape, 16), generator=generator, dtype=torch.uint8)
        exponents = torch.randint(122, 128, shape, generator=generator).to(torch.uint8)
        stored |= {f"{EXPERTS}{name}_blocks": codes, f"{EXPERTS}{name}_scales": exponents}
        tensors[EXPERTS + name] = convert_moe_packed_tensors(codes, exponents)
    packed.mkdir()
    save_file(tensors, plain / WEIGHTS_NAME, {"format": "pt"})
    save_file(stored, packed / WEIGHTS_NAME, {"format": "pt"})
    content = json.loads((plain / "config.json").read_text())
    said = {"quantization_config": {"quant_method": "mxfp4"}}
    (packed / "config.json").write_text(json.dumps({**content, **said}))
    return plain, packed


def test_gpt_oss_is_read_from_mxfp4(tmp_path: Path) -> None:
    plain, packed = (load(one) for one in write_gpt_oss(tmp_path))
    check_same(plain, packed)
    view = packed.layers["layers.0.mlp.experts.1"]
    assert (view.activation.name, view.sizes) == ("clamped_swiglu", (64, 32, 64))
    stack = packed.tensors[f"{EXPERTS}gate_up_proj"]
    assert torch.equal(read_in_spans(stack.at_index(1).rows(2, 5)), stack.read_tensor()[1, 2:5])
    check_spans_of_one(stack)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[f"{EXPERTS}down_proj_scales"][0].fill_(255), "down_proj_scales' holds 255"),
        (lambda t: t.pop(f"{EXPERTS}down_proj_scales"), "and lacks '.*down_proj_scales'"),
        (
            lambda t: t.update({f"{EXPERTS}down_proj_scales": torch.zeros(2, 64, 2)}),
            r"down_proj_scales' has shape \(2, 64, 2\); expected \(2, 64, 1\)",
        ),
    ],
)
def test_damaged_experts_are_refused(
    tmp_path: Path, change: Callable[[Tensors], object], message: str
) -> None:
    _, packed = write_gpt_oss(tmp_path)
    edit(packed, change)
    with pytest.raises(BilensError, match=message):
        load(packed).layers["layers.0.mlp.experts.0"].weights()


def test_another_limit_of_the_gate_is_refused(tmp_path: Path) -> None:
    plain, _ = write_gpt_oss(tmp_path)
    edit_config(plain, lambda content: content.update(swiglu_limit=5.0))
    with pytest.raises(BilensError, match=r"swiglu_limit 5.0; the gate is read of 7.0"):
        load(plain)


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME, {"format": "pt"})


UP = "model.layers.0.mlp.up_proj.weight"
SCALE, WORDS = f"{UP}_scale_inv", UP.removesuffix(".weight")
DAMAGE: dict[str, tuple[Scheme, Callable[[Tensors], object], str]] = {
    "no scale": (FP8, lambda t: t.pop(SCALE), f"{UP}' is of torch.float8_e4m3fn and has no scale"),
    "codes in the order of a GPU": (
        SCHEMES["bitsandbytes, 8 bits"],
        lambda t: t[UP.replace(".weight", ".weight_format")].fill_(3),
        "weight_format' is 3: the codes lie in the order of a GPU",
    ),
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
    "three bits": (
        ({**SCHEMES["GPTQ 4, 1, True, True"][0], "bits": 3}, SCHEMES["GPTQ 4, 1, True, True"][1]),
        len,
        "has bits 3 in its quantization_config; expected 4 or 8",
    ),
    "other zeros": (
        SCHEMES["GPTQ 4, 1, True, True"],
        lambda t: t.update({f"{WORDS}.qzeros": torch.zeros(1, 3).int()}),
        rf"{WORDS}.qzeros' has shape \(1, 3\); expected \(2, 3\)",
    ),
    "a group that is not there": (
        SCHEMES["GPTQ 4, 1, True, True"],
        lambda t: t[f"{WORDS}.g_idx"].fill_(9),
        f"{WORDS}.g_idx' has shape .*expected a group from 0 to 1",
    ),
    "another order": (({**SCHEMES["AWQ"][0], "version": "gemv"}, awq), len, "has version 'gemv'"),
    "a width that does not fit": (
        SCHEMES["packed 4, True"],
        lambda t: t.update({f"{WORDS}.weight_packed": torch.zeros(24, 3).int()}),
        r"weight_packed' has shape \(24, 3\); expected \[24, 16\] numbers of \[4\] bits",
    ),
    "no state": (
        SCHEMES["nf4 True torch.uint8"],
        lambda t: t[f"{UP}.quant_state.bitsandbytes__nf4"].fill_(65),
        "quant_state.bitsandbytes__nf4' is no state of a quantisation",
    ),
    "a block of nothing": (
        ({"quant_method": "fp8", "weight_block_size": [0, 8]}, fp8_in_blocks),
        len,
        "has weight_block_size 0 in its quantization_config",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights_are_refused_by_name(tmp_path: Path, name: str) -> None:
    scheme, damage, message = DAMAGE[name]
    fp8 = scheme[1] is fp8_in_blocks
    sizes = {} if fp8 else {"hidden_size": 16, "intermediate_size": 24}
    _, packed = write(tmp_path, "mistral", scheme, **sizes)
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
    assert torch.equal(found.read_tensor().float(), codes * scales.repeat_interleave(5, 0)[:12])
