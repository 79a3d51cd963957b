"""Sparse autoencoders of other libraries: what they computed is what is computed here.

The folders golden_sae_* were saved by the libraries themselves (make_golden_sae.py), with the
activations that they computed beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bilens
from bilens.base.errors import CheckpointError, NonFiniteError, OutputExistsError, UsageError
from bilens.io.load import load
from bilens.nn import ThresholdSAE, TopKSAE

HERE = Path(__file__).parent
GOLDEN = sorted(folder.name for folder in HERE.glob("golden_sae_*"))


def copied(name: str, target: Path) -> Path:
    shutil.copytree(HERE / f"golden_sae_{name}", target)
    return target


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_library_computed_is_computed_here(name: str) -> None:
    recorded = load_file(HERE / name / "recorded.safetensors")
    sae = load(HERE / name).module
    assert isinstance(sae, TopKSAE)
    assert sae.sign == "relu"
    assert sae.k == 3
    x = recorded["x"]
    torch.testing.assert_close(sae.encode(x), recorded["activations"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), recorded["reconstruction"], rtol=1e-5, atol=1e-5)


def test_there_are_golden_folders_of_both_libraries() -> None:
    """Square ones too: there a transposed tensor has the right shape."""
    assert len(GOLDEN) == 6
    assert {"golden_sae_saelens_square", "golden_sae_sparsify"} <= {*GOLDEN}


def test_what_a_file_says_comes_back() -> None:
    model = load(HERE / "golden_sae_saelens")
    assert model.provenance == {
        "format": "SAELens 6.54.12",
        "hook": "blocks.2.mlp_out",
        "model": "tiny",
    }
    with pytest.raises(UsageError, match="has no layers of its own"):
        _ = model.layers


BEFORE_6 = {
    "d_in": 6,
    "d_sae": 16,
    "dtype": "float32",
    "device": "cpu",
    "model_name": "tiny",
    "hook_point": "blocks.2.hook_mlp_out",
    "hook_layer": 2,
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 3},
    "normalize_activations": False,
    "prepend_bos": True,
}


def test_a_configuration_before_version_6_is_read(tmp_path: Path) -> None:
    folder = copied("saelens", tmp_path / "old")
    (folder / "cfg.json").write_text(json.dumps(BEFORE_6))
    model = load(folder)
    recorded = load_file(folder / "recorded.safetensors")
    torch.testing.assert_close(model.module.encode(recorded["x"]), recorded["activations"])
    assert model.provenance["format"] == "SAELens before 6"
    assert model.provenance["hook"] == "blocks.2.mlp_out"


BAD_SAELENS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "standard with a k": (lambda c: c.update(architecture="standard"), "unexpected 'k'"),
    "jumprelu with a k": (lambda c: c.update(architecture="jumprelu"), "unexpected 'k'"),
    "transcoder": (lambda c: c.update(architecture="transcoder"), "missing 'd_out'"),
    "temporal": (
        lambda c: c.update(architecture="temporal"),
        "'temporal', whose latents depend on the tokens before; bilens reads standard, topk",
    ),
    "matching pursuit": (
        lambda c: c.update(architecture="matching_pursuit"),
        "'matching_pursuit', which chooses its latents one after the other",
    ),
    "by absolute value": (lambda c: c.update(architecture="abstopk"), "by absolute value"),
    "unknown architecture": (lambda c: c.update(architecture="clt"), "the architecture 'clt'"),
    "a list of architectures": (lambda c: c.update(architecture=["topk"]), r"\['topk'\]"),
    "no architecture": (lambda c: c.pop("architecture"), "the architecture None"),
    "no k": (lambda c: c.pop("k"), "missing 'k'"),
    "k is a text": (lambda c: c.update(k="3"), "k is '3'; expected a positive integer"),
    "as many as latents": (lambda c: c.update(k=16), "k is 16 and num_latents is 16"),
    "an unknown key": (lambda c: c.update(act_scale=2.0), "unexpected 'act_scale'; an unknown"),
    "layer norm": (
        lambda c: c.update(normalize_activations="layer_norm"),
        "is 'layer_norm', which no autoencoder of bilens computes; expected 'none'",
    ),
    "heads": (lambda c: c.update(reshape_activations="hook_z"), "reshape_activations is 'hook_z'"),
    "a strange flag": (lambda c: c.update(apply_b_dec_to_input="no"), "apply_b_dec_to_input is"),
    "another width": (
        lambda c: c.update(d_in=7),
        r"has \(width, latents\) \(6, 16\); .* says \(7, 16\)",
    ),
}


def test_an_old_relu_autoencoder_is_not_read_as_top_k(tmp_path: Path) -> None:
    folder = copied("saelens", tmp_path / "sae")
    old = {key: value for key, value in BEFORE_6.items() if not key.startswith("activation")}
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    for content in (old, old | {"activation_fn": "relu"}, old | {"activation_fn_str": "relu"}):
        (folder / "cfg.json").write_text(json.dumps(content))
        sae = load(folder).module
        assert isinstance(sae, ThresholdSAE)
        torch.testing.assert_close(sae.encode(x), sae.pre_activations(x).relu())
    (folder / "cfg.json").write_text(json.dumps(old | {"activation_fn": "tanh-relu"}))
    with pytest.raises(CheckpointError, match="with the activation 'tanh-relu'"):
        load(folder)
    scaled = BEFORE_6 | {"finetuning_scaling_factor": True}
    (folder / "cfg.json").write_text(json.dumps(scaled))
    with pytest.raises(CheckpointError, match="finetuning_scaling_factor is True"):
        load(folder)


BAD_SPARSIFY: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "groups": (lambda c: c.update(activation="groupmax"), "activation is 'groupmax', which no"),
    "a skip": (lambda c: c.update(skip_connection=True), "skip_connection is True, which no auto"),
    "a skip of a transcoder": (
        lambda c: c.update(transcode=True, skip_connection=True),
        "missing 'W_skip'",
    ),
    "signed": (lambda c: c.update(signed=True), "signed is True"),
    "no width": (lambda c: c.pop("d_in"), "missing 'd_in'"),
    "unknown": (lambda c: c.update(gate=1), "unexpected 'gate'"),
    "expansion": (lambda c: c.update(num_latents=0), r"says \(6, 192\)"),
    "no latents": (lambda c: c.update(num_latents=-1), "num_latents is -1"),
}


@pytest.mark.parametrize(
    ("library", "name"),
    [*(("saelens", name) for name in BAD_SAELENS), *(("sparsify", name) for name in BAD_SPARSIFY)],
)
def test_a_folder_that_is_something_else_is_refused(
    tmp_path: Path, library: str, name: str
) -> None:
    change, message = (BAD_SAELENS if library == "saelens" else BAD_SPARSIFY)[name]
    folder = copied(library, tmp_path / "sae")
    edit(folder / "cfg.json", change)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


BAD_WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "one is missing": (lambda t: t.pop("b_enc"), "missing 'b_enc'"),
    "a threshold": (lambda t: t.update(threshold=torch.ones(16)), "unexpected 'threshold'"),
    "another dtype": (lambda t: t.update(b_enc=t["b_enc"].double()), "mixes the dtypes"),
    "a transposed decoder": (
        lambda t: t.update(W_dec=t["W_dec"].T.contiguous()),
        r"'decoder' has shape \(6, 16\); an encoder of 16 latents for width 6 asks for \(16, 6\)",
    ),
    "a flat decoder": (lambda t: t.update(W_dec=torch.ones(6)), "expected two axes"),
    "a flat encoder": (lambda t: t.update(W_enc=torch.ones(6)), "'W_enc' has shape .* two axes"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    change, message = BAD_WEIGHTS[name]
    folder = copied("saelens", tmp_path / "sae")
    edit_weights(folder / "sae_weights.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_broken_numbers_are_refused(tmp_path: Path) -> None:
    folder = copied("sparsify", tmp_path / "sae")
    edit_weights(folder / "sae.safetensors", lambda t: t["b_dec"].fill_(torch.nan))
    with pytest.raises(NonFiniteError, match="'b_dec'"):
        load(folder)


def test_decoder_rows_of_norm_zero_cannot_be_divided_by(tmp_path: Path) -> None:
    folder = copied("saelens_rescaled", tmp_path / "sae")
    edit_weights(folder / "sae_weights.safetensors", lambda t: t["W_dec"][2].zero_())
    with pytest.raises(CheckpointError, match="1 rows of W_dec are zero"):
        load(folder)


OFFICIAL = {
    "point": ["mlp_out", 4],
    "target": None,
    "d_model": 2,
    "expansion": 2,
    "k": 2,
    "lr": 1e-4,
    "normalize": None,
    "bilinear_encoder": False,
    "encoder_bias": False,
    "tag": None,
    "kwargs": {},
}


def official(folder: Path, **changes: object) -> Path:
    """Four latents that read (1, 0), (0, 1), (−1, 0), (0, −1) and write them; b_dec = (1, 0)."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(OFFICIAL | changes))
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    tensors = {
        "w_enc.weight": rows,
        "w_dec.weight": rows.T.contiguous(),
        "b_dec": torch.tensor([1.0, 0.0]),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_official_layout_keeps_negative_activations(tmp_path: Path) -> None:
    """x − b = (3, 2): pre = (3, 2, −3, −2), kept 3 and 2: x̂ = (3, 2) + (1, 0).

    With all latents but one reading nothing positive, as for x − b = (−3, 0): pre = (−3, 0, 3,
    −0), kept 3 and one of the zeros.
    """
    model = load(official(tmp_path / "4-mlp-out-x2-k2"))
    sae = model.module
    assert isinstance(sae, TopKSAE)
    assert sae.sign == "raw"
    assert sae.encode(torch.tensor([4.0, 2.0])).tolist() == [3.0, 2.0, 0.0, 0.0]
    assert sae(torch.tensor([4.0, 2.0])).tolist() == [4.0, 2.0]
    assert model.provenance["hook"] == "blocks.4.mlp_out"
    with torch.no_grad():
        sae.encoder[1:] = torch.tensor([-1.0, 0.0])
    assert sae.encode(torch.tensor([4.0, 0.0])).tolist() == [3.0, -3.0, 0.0, 0.0]


BAD_OFFICIAL: dict[str, tuple[dict[str, object], str]] = {
    "bilinear": ({"bilinear_encoder": True}, "bilinear_encoder is True"),
    "normalised": ({"normalize": 3.0}, "normalize is 3.0, which .* expected nothing"),
    "a transcoder": (
        {"target": ["mlp_in", 4]},
        "reads blocks.4.mlp_out and reconstructs blocks.4.",
    ),
    "no point": ({"point": None}, r"the point is None; expected \[name, layer\]"),
    "another point": ({"point": ["wherever", 4]}, "the point is"),
    "unknown": ({"gated": True}, "unexpected 'gated'"),
    "a bias that is not there": ({"encoder_bias": True}, "missing 'w_enc.bias'"),
    "another expansion": (
        {"expansion": 3},
        r"has \(width, latents\) \(2, 4\); .* says \(2, 6\)",
    ),
}


@pytest.mark.parametrize("name", BAD_OFFICIAL)
def test_an_official_folder_that_is_something_else_is_refused(tmp_path: Path, name: str) -> None:
    changes, message = BAD_OFFICIAL[name]
    with pytest.raises(CheckpointError, match=message):
        load(official(tmp_path / "sae", **changes))


def exported(sign: str = "relu") -> TopKSAE:
    sae = TopKSAE(6, 18, 4, sign=sign)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.normalise_decoder()
        sae.scale.fill_(0.37)
    return sae


@pytest.mark.parametrize(
    ("layout", "sign"), [("saelens", "relu"), ("sparsify", "relu"), ("official", "raw")]
)
def test_an_export_computes_the_same(tmp_path: Path, layout: str, sign: str) -> None:
    sae = exported(sign)
    said = {"hook": "blocks.1.mlp_in", "model": "tiny"}
    folder = bilens.export_sae(sae, tmp_path / "out", layout, provenance=said)
    back = load(folder)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * 3
    torch.testing.assert_close(back.module(x), sae(x))
    torch.testing.assert_close(back.module.encode(x) * sae.scale, sae.encode(x))
    assert back.provenance.get("hook") == (None if layout == "sparsify" else "blocks.1.mlp_in")
    with pytest.raises(OutputExistsError, match=r"already holds .*overwrite=True"):
        bilens.export_sae(sae, folder, layout, provenance=said)
    bilens.export_sae(sae, folder, layout, provenance=said, overwrite=True)


def test_what_a_layout_cannot_say_is_not_exported(tmp_path: Path) -> None:
    for layout in ("saelens", "sparsify"):
        with pytest.raises(UsageError, match="keeps negative activations"):
            bilens.export_sae(exported("raw"), tmp_path, layout)
    with pytest.raises(UsageError, match="got 'relu'"):
        bilens.export_sae(exported(), tmp_path, "official", provenance={"hook": "blocks.0.mlp_in"})
    with pytest.raises(UsageError, match="got none"):
        bilens.export_sae(exported("raw"), tmp_path, "official")
    with pytest.raises(UsageError, match=r"number of latents \(got 17"):
        bilens.export_sae(TopKSAE(6, 17, 2, sign="raw"), tmp_path, "official")
    with pytest.raises(UsageError, match="layout='pickle' is not known"):
        bilens.export_sae(exported(), tmp_path, "pickle")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="sae is a Linear; expected SparseAutoencoder"):
        bilens.export_sae(torch.nn.Linear(2, 2), tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_saelens_itself_computes_the_same_from_our_export(tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed")
    sae = exported()
    bilens.export_sae(sae, tmp_path / "out", provenance={"hook": "blocks.1.mlp_in"})
    theirs = saelens.SAE.load_from_disk(tmp_path / "out")
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs.encode(x), sae.folded().encode(x))
    torch.testing.assert_close(theirs(x), sae(x))
    assert theirs.cfg.metadata.hook_name == "blocks.1.ln2.hook_normalized"


def test_sparsify_itself_computes_the_same_from_our_export(tmp_path: Path) -> None:
    sparsify = pytest.importorskip("sparsify", reason="sparsify is not installed")
    sae = exported()
    bilens.export_sae(sae, tmp_path / "out", "sparsify")
    theirs = sparsify.SparseCoder.load_from_disk(tmp_path / "out")
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    top, indices, _ = theirs.encode(x)
    torch.testing.assert_close(theirs.decode(top, indices), sae(x))


def test_a_bias_is_folded_in_without_rounding(tmp_path: Path) -> None:
    content = {"architecture": "topk", "d_in": 2, "d_sae": 2, "k": 1}
    content |= {"apply_b_dec_to_input": False, "metadata": {"sae_lens_version": "6.0.0"}}
    (tmp_path / "cfg.json").write_text(json.dumps(content))
    encoder, decoder_bias = torch.tensor([[1.0, -1], [1, -1]]), torch.tensor([256.0, 1])
    parts = {"W_enc": encoder, "b_enc": torch.zeros(2), "W_dec": torch.eye(2)}
    parts = {name: part.bfloat16() for name, part in {**parts, "b_dec": decoder_bias}.items()}
    save_file(parts, tmp_path / "sae_weights.safetensors")
    module: Any = load(tmp_path).module
    assert module.encoder_bias.tolist() == [257, -257]
