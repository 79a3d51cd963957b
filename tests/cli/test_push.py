"""`bilens push` lists what goes before any of it does, and never prints the token."""

import json
from pathlib import Path

import pytest

import bilens as bl
import tiny
from commands import USAGE, Shell, assert_one_line
from fake_hub import TOKEN, hub_of_this_process

pytest.importorskip("huggingface_hub")
NAME = "me/digits"


def test_the_files_are_listed_first_and_the_answer_names_the_commit(
    bilens: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = bl.save(tiny.classifier(), tmp_path / "digits")
    with hub_of_this_process(monkeypatch, tmp_path) as hub:
        dry = bilens("push", folder, NAME, "--dry-run")
        assert dry.code == 0
        assert dry.out.strip() == "Nothing was sent. (3 files, private)"
        assert "model.safetensors: " in dry.err
        assert hub.seen == []
        done = bilens("push", folder, NAME, "-m", "hello", "--license", "mit", "--json")
        said = json.loads(done.out)
        repository = hub.repositories[NAME]
    assert (said["kind"], said["private"]) == ("push", True)
    assert repository.messages[-1] == "hello"
    assert said["address"] == f"hf://{NAME}@{repository.head}"
    assert TOKEN not in done.out + done.err
    assert_one_line(bilens("push", folder, "digits"), USAGE, ["expected OWNER/NAME"])
