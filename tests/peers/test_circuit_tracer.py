"""Transcoders and graphs of circuit-tracer, as its own code writes, runs and reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
from bilens.base.errors import CheckpointError
from bilens.report.reports import TraceReport
from trace_documents import make_trace

single: Any = pytest.importorskip(
    "circuit_tracer.transcoder.single_layer_transcoder", reason="`make test-peers` installs it"
)
activations: Any = pytest.importorskip("circuit_tracer.transcoder.activation_functions")
cross: Any = pytest.importorskip("circuit_tracer.transcoder.cross_layer_transcoder")
graph_models: Any = pytest.importorskip("circuit_tracer.frontend.graph_models")

WIDTH, LATENTS = 6, 20
CONFIG = """model_name: "tiny"
model_kind: "transcoder_set"
feature_input_hook: ln2.hook_normalized  # the stream that is divided
feature_output_hook: 'hook_mlp_out'
"""


def write(folder: Path, jumps: bool, skip: bool, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(4)
    threshold = torch.rand(LATENTS, generator=generator).to(dtype)
    act = activations.JumpReLU(threshold) if jumps else torch.nn.functional.relu
    options = {"device": torch.device("cpu"), "dtype": dtype, "skip_connection": skip}
    theirs = single.SingleLayerTranscoder(WIDTH, LATENTS, act, 3, **options)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "threshold" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    (folder / "config.yaml").write_text(CONFIG)
    theirs.to_safetensors(str(folder / "layer_3.safetensors"))
    return theirs


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("jumps", [True, False])
def test_a_transcoder_computes_the_same(jumps: bool, skip: bool, tmp_path: Path) -> None:
    theirs, x = write(tmp_path, jumps, skip), torch.randn(200, WIDTH) * 2
    for place in (tmp_path, tmp_path / "layer_3.safetensors"):
        found = bl.load(place)
        ours: Any = found.module
        assert 0 < float((ours.encode(x) > 0).double().mean()) < 0.9
        torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
        assert found.provenance == {
            "format": "circuit-tracer",
            "hook": "blocks.3.mlp_in",
            "hook_out": "blocks.3.mlp_out",
            "model": "tiny",
        }


def test_a_cross_layer_transcoder_is_refused_by_name(tmp_path: Path) -> None:
    theirs = cross.CrossLayerTranscoder(2, LATENTS, WIDTH, lazy_decoder=False, device="cpu")
    theirs.to_safetensors(str(tmp_path))
    for place in (tmp_path, *sorted(tmp_path.glob("*.safetensors"))):
        with pytest.raises(CheckpointError, match="is a cross-layer transcoder of circuit-tracer"):
            bl.load(place)


def test_its_own_loader_takes_our_graphs() -> None:
    for graph in TraceReport(make_trace()).graphs().values():
        found = graph_models.Model.model_validate(graph)
        assert len(found.links) == len(graph["links"])
