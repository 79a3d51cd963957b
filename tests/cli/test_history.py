"""`bilens audit --history`: every audit is kept, and what was accepted fails nothing for a time."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
import tiny
from bilens.api.history import NAME
from bilens.api.watch import watch_folder
from commands import FILE, Shell, assert_one_line, model_folder


def test_an_accepted_finding_fails_no_build_until_it_ends(bilens: Shell, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", tiny.classifier(n_layers=2, gate="silu"))
    line = ("audit", folder, "--null-samples", 3, "--fail-on", "r2<0.9999")
    line = (*line, "--history", tmp_path)
    result = bilens(*line)
    assert result.code == 1
    assert "Recorded as audit 1" in result.err
    history = bl.History(tmp_path)
    (audit,) = history.audits()
    (rule,) = audit.failed
    assert (audit.model, audit.passed) == ("model", False)
    history.say("accept", audit.model, f"rule:{rule}", "known", "Ada", until="2999-01-01")
    result = bilens(*line, "--html", tmp_path / "report.html", "--json")
    assert result.code == 0
    assert "Accepted until 2999-01-01. Ada, " in (tmp_path / "report.html").read_text()
    assert json.loads(result.out)["people"]["entries"][0]["author"] == "Ada"
    assert history.document(2)["people"] is None  # they are kept by themselves
    assert f"Accepted by Ada until 2999-01-01: {rule} (known)" in result.err
    history.say("withdraw", audit.model, f"rule:{rule}", "", "Ada")
    assert bilens(*line).code == 1
    assert len(history.audits("model")) == 3


def test_a_history_that_cannot_be_kept_is_told_before_any_work(
    bilens: Shell, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "model", tiny.classifier())
    (tmp_path / NAME).write_bytes(b"something else" * 100)
    assert_one_line(bilens("audit", folder, "--history", tmp_path), FILE, ["no history"])


@pytest.mark.parametrize("labels", ["labels.txt", "labels.json", "params.yml"])
def test_what_is_accepted_of_a_folder_is_of_its_files_too(
    bilens: Shell, tmp_path: Path, labels: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / labels).write_text(f'["{name}"]')
        save_file({"rnn.weight_hh_l0": torch.eye(4)}, tmp_path / name / "net.safetensors")
    history = bl.History(tmp_path)
    assert bilens("audit", tmp_path / "a", "--history", tmp_path).code == 0
    history.say(
        "accept", "a", "rule:decision", "tried", "Ada", until=str(date.today() + timedelta(1))
    )
    result = bilens("audit", tmp_path / "b", "--history", tmp_path, "--baseline", tmp_path / "a")
    assert "in the baseline, bit for bit, beside other" in result.out
    assert [*history.accepted("a")] == ["decision"]
    assert not history.accepted("b")
    told = {one.model: one.state for one in watch_folder(tmp_path).models}
    assert told == {"a": "audited", "b": "audited"}
