"""Autoencoders and transcoders of SAELens, of every kind that it has, made and run by itself.

SAELens asks for a TransformerLens below 4, so `make test-peers` runs this beside the others.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import CheckpointError
from bilens.nn import ThresholdSAE

saelens: Any = pytest.importorskip("sae_lens", reason="`make test-peers` installs it")

WIDTH, LATENTS, OUT = 6, 20, 5
METADATA = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
INFERENCE: dict[str, dict[str, Any]] = {
    "Standard": {},
    "TopK": {"k": 3},
    "JumpReLU": {},
    "Gated": {},
}
TRANSCODERS = ("Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder")
TRAINED: dict[str, dict[str, Any]] = {
    "Standard": {},
    "TopK": {"k": 3},
    "BatchTopK": {"k": 3},
    "MatryoshkaBatchTopK": {"k": 3, "matryoshka_widths": [8, LATENTS]},
    "JumpReLU": {},
    "Gated": {},
}


def filled(sae: Any) -> Any:
    """Weights, biases, factors and thresholds drawn at random, thresholds of both signs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
        if hasattr(sae, "topk_threshold"):  # of all latents
            sae.topk_threshold = torch.tensor(0.45, dtype=torch.double)
    return sae.eval()


def inputs() -> Tensor:
    return torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(2)) * 2


def check_same(folder: Path, theirs: Any) -> Any:
    ours, x = bl.load(folder).module, inputs()
    assert 0 < float((ours.encode(x) != 0).double().mean()) < 0.9
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    return ours


def made(name: str, **options: Any) -> Any:
    config = getattr(saelens, f"{name}Config")(d_in=WIDTH, d_sae=LATENTS, **options)
    config.metadata.hook_name = METADATA["hook_name"]
    config.metadata.hook_name_out = METADATA["hook_name_out"]
    return filled(getattr(saelens, name)(config))


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("kind", INFERENCE)
def test_an_autoencoder_computes_the_same(kind: str, subtracts: bool, tmp_path: Path) -> None:
    theirs = made(f"{kind}SAE", apply_b_dec_to_input=subtracts, **INFERENCE[kind])
    theirs.save_model(tmp_path)
    check_same(tmp_path, theirs)
    assert bl.load(tmp_path).provenance["hook"] == "blocks.1.mlp_in"


@pytest.mark.parametrize("width", [OUT, WIDTH])
@pytest.mark.parametrize("kind", TRANSCODERS)
def test_a_transcoder_computes_the_same(kind: str, width: int, tmp_path: Path) -> None:
    theirs = made(kind, d_out=width, apply_b_dec_to_input=False)
    theirs.save_model(tmp_path)
    ours = check_same(tmp_path, theirs)
    assert (ours.d_out, ours.skip is not None) == (width, "Skip" in kind)
    said = bl.load(tmp_path).provenance
    assert (said["hook"], said["hook_out"]) == ("blocks.1.mlp_in", "blocks.1.mlp_out")


@pytest.mark.parametrize("kind", TRAINED)
def test_what_training_saves_for_inference_computes_the_same(kind: str, tmp_path: Path) -> None:
    made(f"{kind}TrainingSAE", **TRAINED[kind]).save_inference_model(tmp_path)
    check_same(tmp_path, saelens.SAE.load_from_disk(tmp_path))


@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_a_checkpoint_of_training_is_refused_with_what_saves_it(kind: str, tmp_path: Path) -> None:
    made(f"{kind}TrainingSAE", **TRAINED[kind]).save_model(tmp_path)
    with pytest.raises(CheckpointError, match="whose threshold is not made yet"):
        bl.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("Temporal", {"n_heads": 1, "bottleneck_factor": 1}), ("MatchingPursuit", {})],
)
def test_others_are_refused_by_name(kind: str, options: dict[str, int], tmp_path: Path) -> None:
    theirs = made(f"{kind}SAE", **options)
    theirs.save_model(tmp_path)
    name = theirs.cfg.architecture()
    with pytest.raises(CheckpointError, match=f"the architecture '{name}', wh"):
        bl.load(tmp_path)


@pytest.mark.parametrize("kind", [{}, {"d_out": OUT}, {"d_out": OUT, "skip": True}])
def test_what_we_write_computes_the_same_there(kind: dict[str, Any], tmp_path: Path) -> None:
    ours = filled(ThresholdSAE(WIDTH, LATENTS, **kind))
    ours.threshold.copy_(torch.rand(LATENTS, generator=torch.Generator().manual_seed(3)))
    ours.scale.fill_(1.7)
    said = {"hook": "blocks.1.mlp_in", "hook_out": "blocks.1.mlp_out", "model": "tiny"}
    bl.export_sae(ours, tmp_path, provenance=said)
    theirs, x = saelens.SAE.load_from_disk(tmp_path), inputs()
    torch.testing.assert_close(theirs.encode(x) * 1.7, ours.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
    assert bl.load(tmp_path).provenance.items() >= said.items()
