"""Autoencoders with thresholds and transcoders in files: written by hand, damaged, and our own.

`tests/peers` holds the readers against the libraries themselves.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import bilens as bl
from bilens.base.errors import BilensError, CheckpointError, NonFiniteError, UsageError
from bilens.io.load import load
from bilens.nn import ThresholdSAE, TopKSAE

WIDTH, LATENTS, OUT = 4, 8, 3
Tensors = dict[str, Tensor]
SHAPES: dict[str, tuple[int, ...]] = {
    "W_enc": (WIDTH, LATENTS), "W_dec": (LATENTS, WIDTH), "b_dec": (WIDTH,),
    **dict.fromkeys(("b_enc", "threshold", "b_gate", "b_mag", "r_mag"), (LATENTS,)),
    "W_skip": (OUT, WIDTH),
}  # fmt: skip


def drawn(names: str, **shapes: tuple[int, ...]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    draw = {name: torch.randn({**SHAPES, **shapes}[name], generator=generator) for name in SHAPES}
    return {name: draw[name] for name in names.split()}


def x_of(width: int = WIDTH) -> Tensor:
    return torch.randn(50, width, generator=torch.Generator().manual_seed(1)) * 2


def saelens(folder: Path, tensors: Tensors, architecture: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content: dict[str, Any] = {
        "architecture": architecture,
        "d_in": WIDTH,
        "d_sae": LATENTS,
        **more,
    }
    content["metadata"] = {"sae_lens_version": "6.54.12"}
    (folder / "cfg.json").write_text(json.dumps(content))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


ENDS = "W_enc W_dec b_dec"
WRITING = {"W_dec": (LATENTS, OUT), "b_dec": (OUT,)}


def gated(tensors: Tensors, x: Tensor) -> Tensor:
    x = x - tensors["b_dec"]
    magnitude = x @ (tensors["W_enc"] * tensors["r_mag"].exp()) + tensors["b_mag"]
    return magnitude.relu() * (x @ tensors["W_enc"] + tensors["b_gate"] > 0)


def test_a_gate_is_a_threshold(tmp_path: Path) -> None:
    tensors, x = drawn(f"{ENDS} b_gate b_mag r_mag"), x_of()
    found = load(saelens(tmp_path / "sae", tensors, "gated"))
    sae = found.module
    assert isinstance(sae, ThresholdSAE)
    torch.testing.assert_close(sae.encode(x), gated(tensors, x), rtol=1e-5, atol=1e-5)
    said = (tensors["b_mag"] - tensors["r_mag"].exp() * tensors["b_gate"]).clamp(min=0)
    torch.testing.assert_close(sae.threshold, said)
    assert found.load_report is not None
    assert "above thresholds, 8 latents of width 4" in "".join(found.load_report.lines())


def test_a_gate_is_folded_in_without_rounding(tmp_path: Path) -> None:
    tensors, x = drawn(f"{ENDS} b_gate b_mag r_mag"), x_of()
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    sae: Any = load(saelens(tmp_path / "sae", half, "gated")).module
    exact = {name: tensor.float() for name, tensor in half.items()}
    torch.testing.assert_close(sae.encode(x), gated(exact, x), rtol=1e-5, atol=1e-5)


def test_a_threshold_below_zero_keeps_what_a_relu_keeps(tmp_path: Path) -> None:
    tensors, x = drawn(f"{ENDS} b_enc threshold"), x_of()
    assert bool((tensors["threshold"] < 0).any())
    sae: Any = load(saelens(tmp_path / "sae", tensors, "jumprelu")).module
    pre = (x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    expected = pre.relu() * (pre > tensors["threshold"])
    torch.testing.assert_close(sae.encode(x), expected)


@pytest.mark.parametrize(
    ("architecture", "own"),
    [
        ("transcoder", ""),
        ("skip_transcoder", " W_skip"),
        ("jumprelu_transcoder", " threshold"),
        ("jumprelu_skip_transcoder", " threshold W_skip"),
    ],
)
def test_a_transcoder_writes_another_width(architecture: str, own: str, tmp_path: Path) -> None:
    tensors, x = drawn(f"{ENDS} b_enc{own}", **WRITING), x_of()
    said = {"d_out": OUT, "apply_b_dec_to_input": False}
    sae: Any = load(saelens(tmp_path / "sae", tensors, architecture, **said)).module
    pre = x @ tensors["W_enc"] + tensors["b_enc"]
    z = pre.relu() * (pre > tensors.get("threshold", torch.zeros(LATENTS)))
    expected = z @ tensors["W_dec"] + tensors["b_dec"]
    expected = expected + x @ tensors["W_skip"].T if "W_skip" in tensors else expected
    torch.testing.assert_close(sae(x), expected)
    with pytest.raises(CheckpointError, match="apply_b_dec_to_input is True"):
        load(saelens(tmp_path / "b", tensors, architecture, d_out=OUT, apply_b_dec_to_input=True))


DAMAGED: dict[str, tuple[str, str, Callable[[Tensors], object], dict[str, Any], str]] = {
    "a factor that overflows": (
        "gated", "b_gate b_mag r_mag", lambda t: t["r_mag"].fill_(1000.0), {},
        "'encoder' holds 32 non-finite",
    ),
    "a long threshold": (
        "jumprelu", "b_enc threshold", lambda t: t.update(threshold=torch.ones(LATENTS + 1)), {},
        r"'threshold' has shape \(9,\)",
    ),
    "a short gate": (
        "gated", "b_gate b_mag r_mag", lambda t: t.update(r_mag=torch.ones(1)), {},
        r"'r_mag' has shape \(1,\)",
    ),
    "no threshold": ("jumprelu", "b_enc", lambda _: None, {}, "missing 'threshold'"),
    "a threshold of a relu": ("standard", "b_enc threshold", lambda _: None, {}, "unexpected 'th"),
    "NaN": (
        "jumprelu", "b_enc threshold", lambda t: t["threshold"].fill_(torch.nan), {}, "'threshold'",
    ),
    "as it is trained": (
        "batchtopk", "b_enc", lambda _: None, {"k": 2},
        "'batchtopk', whose threshold is not made yet .save_inference_model saves it",
    ),
    "a skip that asks for more memory than there is": (
        "skip_transcoder", "b_enc",
        lambda t: t.update({
            "W_enc": torch.ones(1_500_000, 2), "W_dec": torch.ones(2, 1_500_000),
            "b_enc": torch.ones(2), "b_dec": torch.ones(1_500_000), "W_skip": torch.ones(1, 1),
        }),
        {"d_out": 1_500_000, "apply_b_dec_to_input": False, "d_in": 1_500_000, "d_sae": 2},
        r"'skip' has shape \(1, 1\)",
    ),
    "another d_out": (
        "transcoder", "b_enc", lambda _: None, {"d_out": 5, "apply_b_dec_to_input": False},
        r"\(width, latents, width written\) \(4, 8, 4\); its configuration says \(4, 8, 5\)",
    ),
    "a skip of another width": (
        "skip_transcoder", "b_enc W_skip", lambda _: None,
        {"d_out": WIDTH, "apply_b_dec_to_input": False},
        r"'skip' has shape \(3, 4\); an encoder of 8 latents for width 4 asks for \(4, 4\)",
    ),
    "a factor of the decoder": (
        "jumprelu", "b_enc threshold", lambda _: None, {"rescale_acts_by_decoder_norm": True},
        "rescale_acts_by_decoder_norm is True",
    ),
    "normalised": (
        "gated", "b_gate b_mag r_mag", lambda _: None,
        {"normalize_activations": "expected_average_only_in"}, "'expected_average_only_in', wh",
    ),
    "an unknown key": ("standard", "b_enc", lambda _: None, {"gain": 2.0}, "unexpected 'gain'"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_or_unknown_is_refused(name: str, tmp_path: Path) -> None:
    architecture, own, change, more, message = DAMAGED[name]
    tensors = drawn(f"{ENDS} {own}")
    change(tensors)
    folder = saelens(tmp_path / "sae", tensors, architecture, **more)
    with pytest.raises((CheckpointError, NonFiniteError), match=message):
        load(folder)


@pytest.mark.parametrize("skip", [True, False])
def test_a_transcoder_of_sparsify_is_read_and_written(skip: bool, tmp_path: Path) -> None:
    tensors, x = drawn("b_enc W_dec b_dec W_skip", W_skip=(WIDTH, WIDTH)), x_of()
    skips = tensors.pop("W_skip")
    tensors["encoder.bias"] = tensors.pop("b_enc")
    tensors["encoder.weight"] = drawn("W_enc")["W_enc"].T.contiguous()
    tensors |= {"W_skip": skips} if skip else {}
    content = {"d_in": WIDTH, "k": 2, "num_latents": LATENTS, "transcode": True}
    content["skip_connection"] = skip
    (tmp_path / "cfg.json").write_text(json.dumps(content))
    save_file(tensors, tmp_path / "sae.safetensors")
    sae: Any = load(tmp_path).module
    assert isinstance(sae, TopKSAE)
    values, indices = (x @ tensors["encoder.weight"].T + tensors["encoder.bias"]).topk(2)
    z = torch.zeros(50, LATENTS).scatter(1, indices, values.relu())
    expected = z @ tensors["W_dec"] + tensors["b_dec"] + (x @ skips.T if skip else 0)
    torch.testing.assert_close(sae(x), expected)
    back: Any = load(bl.export_sae(sae, tmp_path / "out", "sparsify")).module
    torch.testing.assert_close(back(x), expected)
    for layout, message in (
        ("saelens", "SAELens has no top-k transcoders"),
        ("official", "of sparsify"),
    ):
        with pytest.raises(UsageError, match=message):
            bl.export_sae(sae, tmp_path / layout, layout)


# ---- circuit-tracer

CONFIG = "model_kind: transcoder_set\nfeature_input_hook: ln2.hook_normalized\n"


def transcoder(folder: Path, name: str = "layer_2.safetensors", **changes: Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = drawn("b_enc W_dec b_dec W_skip", W_skip=(WIDTH, WIDTH))
    tensors["W_enc"] = drawn("W_enc")["W_enc"].T.contiguous()
    tensors["activation_function.threshold"] = torch.rand(LATENTS)
    save_file({**tensors, **changes}, folder / name)
    return folder / name


def test_a_transcoder_of_circuit_tracer_is_read(tmp_path: Path) -> None:
    file = transcoder(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    tensors, x, found = load_file(file), x_of(), load(file)
    sae: Any = found.module
    pre = x @ tensors["W_enc"].T + tensors["b_enc"]
    z = pre * (pre > tensors["activation_function.threshold"])
    expected = z @ tensors["W_dec"] + tensors["b_dec"] + x @ tensors["W_skip"].T
    torch.testing.assert_close(sae(x), expected)
    said = {"format": "circuit-tracer", "hook": "blocks.2.mlp_in"}
    assert {key: found.provenance[key] for key in said} == said
    assert found.weights_sha256 != ""
    with pytest.raises(UsageError, match="has no layers of its own"):
        _ = found.layers


def test_a_name_of_ones_own_is_read_beside_a_configuration(tmp_path: Path) -> None:
    file = transcoder(tmp_path, "first.safetensors")
    with pytest.raises(BilensError):  # four matrices, of which nobody says what they are
        load(file)
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert isinstance(load(file).module, ThresholdSAE)
    assert "hook" not in load(file).provenance  # whose layer is not said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function.threshold": -torch.ones(LATENTS)}, "8 thresholds are below 0"),
        ({"log_thresholds": torch.ones(LATENTS)}, "unexpected 'log_thresholds': expected the ten"),
        ({"W_dec": torch.ones(WIDTH, LATENTS)}, "'decoder' has shape"),
        ({"W_enc": torch.ones(LATENTS)}, "'W_enc' has shape .* two axes"),
        ({"b_enc": torch.ones(LATENTS, dtype=torch.float64)}, "mixes the dtypes"),
    ],
)
def test_a_transcoder_that_does_not_fit_is_refused(
    changes: Mapping[str, Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(transcoder(tmp_path, **changes))


def test_cross_layer_transcoders_are_refused_by_name(tmp_path: Path) -> None:
    for layer in range(2):
        parts = {
            f"W_enc_{layer}": torch.ones(LATENTS, WIDTH),
            f"b_enc_{layer}": torch.ones(LATENTS),
        }
        save_file(parts, tmp_path / f"W_enc_{layer}.safetensors")
    for place in (tmp_path, tmp_path / "W_enc_1.safetensors"):
        with pytest.raises(CheckpointError, match=r"cross-layer transcoder .* all later layers"):
            load(place)
    other = transcoder(tmp_path / "other")
    (tmp_path / "other" / "config.yaml").write_text("model_kind: cross_layer_transcoder\n")
    with pytest.raises(CheckpointError, match="is a cross-layer transcoder"):
        load(other)


def test_of_several_layers_one_is_asked_for(tmp_path: Path) -> None:
    for layer in range(3):
        transcoder(tmp_path, f"layer_{layer}.safetensors")
    with pytest.raises(CheckpointError, match="holds 3 models, of which one is read"):
        load(tmp_path)


def test_a_configuration_that_is_huge_or_no_text_says_nothing(tmp_path: Path) -> None:
    file = transcoder(tmp_path)
    for content in (b"\xff\xfe: \x00\n" * 9, CONFIG.encode() + b"#" * (1 << 17), b"{a: [b: c"):
        (tmp_path / "config.yaml").write_bytes(content)
        assert "hook" not in load(file).provenance


# ---- folders of ours

KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "transcoder": {"d_out": OUT},
    "skip": {"d_out": OUT, "skip": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_it_back_and_saelens_takes_it(kind: str, tmp_path: Path) -> None:
    sae, x = ThresholdSAE(WIDTH, LATENTS, **KINDS[kind]), x_of()
    with torch.no_grad():
        sae.threshold.copy_(torch.rand(LATENTS))
        sae.scale.fill_(2.0)
    back: Any = load(bl.save(sae, tmp_path / "ours")).module
    assert all(torch.equal(back.state_dict()[name], one) for name, one in sae.state_dict().items())
    torch.testing.assert_close(back(x), sae(x))
    there: Any = load(bl.export_sae(sae, tmp_path / "theirs")).module
    torch.testing.assert_close(there(x), sae(x))
    assert there.d_out == sae.d_out
    for layout in ("sparsify", "official"):
        with pytest.raises(UsageError, match="keep"):
            bl.export_sae(sae, tmp_path / layout, layout)


def test_a_threshold_below_zero_is_neither_saved_nor_read(tmp_path: Path) -> None:
    sae = ThresholdSAE(WIDTH, LATENTS)
    bl.save(sae, tmp_path / "one")
    sae.threshold.fill_(-1.0)
    with pytest.raises(UsageError, match=r"could not be loaded again: .* threshold is -1 at one"):
        bl.save(sae, tmp_path / "two")
    place = tmp_path / "one/model.safetensors"
    with safe_open(place, "pt") as file:
        metadata = file.metadata()
    save_file({**load_file(place), "threshold": sae.threshold}, place, metadata)
    with pytest.raises(CheckpointError, match="threshold is -1 at one place; expected a positive"):
        load(tmp_path / "one")
