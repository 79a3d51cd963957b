"""Guards against numbers of one function that stand beside another of the same weights.

Damage that it notices: rows recorded of a module with another constant in its code, or of a folder
with another config.json; R² of another activation in the table of an explorer.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import UsageError
from bilens.report.reports import TraceReport
from bilens_explorer.records.models import id_of
from commands import Shell
from contract.table import cell
from contract.test_llamas import llama
from explorer_server import client_of
from trace_documents import make_trace


class Waves(nn.Module):
    """An MLP behind a wave, whose size is a number in the code."""

    def __init__(self, size: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.enter = nn.Linear(4, 6)
            self.mlp = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.mlp(self.size * torch.sin(self.enter(x)))
        return answer


def audited(model: Any, inputs: Any) -> float:
    (layer,) = bl.audit(model, inputs=inputs, null_samples=3).record.layers.readings
    assert layer.fit is not None
    assert layer.fit.quadratic is not None
    return layer.fit.quadratic


ROWS = torch.randn(600, 4, generator=torch.Generator().manual_seed(1))


@cell("audit", "other function", "same function")
@pytest.mark.parametrize("stored", [False, True])
def test_rows_are_of_the_module_as_it_runs(tmp_path: Path, *, stored: bool) -> None:
    """R² of the other one was 1.0 in place of 0.97."""
    other = bl.layer_inputs(Waves(0.1), ROWS)
    with pytest.raises(UsageError, match="gives this model other inputs"):
        audited(Waves(20), other.store(tmp_path / "rows") if stored else other)
    assert audited(Waves(20), bl.layer_inputs(Waves(20), ROWS)) < 0.99
    assert audited(bl.from_module(Waves(0.1).train()), other) > 0.999


@cell("audit", "other function")
def test_rows_are_of_a_folder_with_its_config(tmp_path: Path) -> None:
    """Norms with another ε in config.json give other rows, and the weights are the same."""
    from bilens.train.record_inputs import open_host
    from bilens.train.recorded_inputs import LayerInputs

    theirs = llama(num_attention_heads=4, num_key_value_heads=2)
    theirs.save_pretrained(tmp_path / "m")
    host = open_host(tmp_path / "m")
    about = {"model_sha256": bl.load(tmp_path / "m").weights_sha256}
    tokens = torch.randint(13, (60, 9), generator=torch.Generator().manual_seed(0))
    items: dict[Any, Tensor] = {"fit": tokens[:48], "held_out": tokens[48:]}
    sites = {site.name: site for site in host.sites}
    found = LayerInputs(host, sites, items, about | of_config(tmp_path / "m"))
    bl.audit(bl.load(tmp_path / "m"), inputs=found, null_samples=3)
    change_config(tmp_path / "m", rms_norm_eps=3.0)
    with pytest.raises(UsageError, match=r"config\.json"):
        bl.audit(bl.load(tmp_path / "m"), inputs=found, null_samples=3)
    unsaid = replace(found, about=about)  # and where it was not recorded, the model runs
    with pytest.raises(UsageError, match="gives this model other inputs"):
        bl.audit(bl.load(tmp_path / "m"), inputs=unsaid, null_samples=3)


def of_config(folder: Path) -> dict[str, str]:
    from bilens.base.files import file_sha256

    return {"config_sha256": file_sha256(folder / "config.json")}


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@cell("explore", "other function")
def test_a_table_of_layers_is_of_the_audit_of_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R² of SiLU stood beside ReLU, after config.json had been changed."""
    root = tmp_path / "runs"
    llama(num_attention_heads=4, num_key_value_heads=2).save_pretrained(root / "m")
    bilens = Shell(capsys, monkeypatch)
    bilens("audit", root / "m", "--null-samples", "3", "--history", root)
    address = f"/api/v1/models/{id_of('m')}/layers"
    with client_of(root) as client:
        before = client.get(address).json()
        change_config(root / "m", hidden_act="relu")
        now = client.get(address).json()
    assert before["audit"] == 1
    assert all(row["r_squared"] is not None for row in before["layers"])
    assert {row["activation"] for row in now["layers"]} == {"relu"}
    assert now["audit"] is None
    assert all(row["r_squared"] is None for row in now["layers"])


@cell("explore", "other function")
def test_a_trace_is_of_the_model_with_the_files_that_it_names(tmp_path: Path) -> None:
    """A trace of the same weights behind another config.json was shown as one of this model."""
    llama(num_attention_heads=4, num_key_value_heads=2).save_pretrained(tmp_path / "m")
    source = bl.audit(bl.load(tmp_path / "m"), null_samples=3).record.source
    document = TraceReport(make_trace()).to_dict() | {
        "source": {
            "path": str(tmp_path / "m"),
            "weights_sha256": source.weights_sha256,
            "provenance": {},
            "files": source.files,
        }
    }
    TraceReport(document).to_json(tmp_path / "trace.json")
    address = f"/api/v1/reports/{id_of('trace.json')}/circuits"
    with client_of(tmp_path) as client:
        assert client.get(address).json()["model"] == id_of("m")
        change_config(tmp_path / "m", rms_norm_eps=3.0)
        assert client.get(address).json()["model"] is None
