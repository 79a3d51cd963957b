"""What trackers are told is read back from what the real packages wrote on this machine.

`pip install "bilens[tracking]"` installs them. Broken once: with a step left out, and with the
picture left out.
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TRAIN = """
import sys, torch, bilens as bl
from bilens.base.errors import InterruptedRunError
images = torch.rand(90, 16, 16, generator=torch.Generator().manual_seed(0))
labels = torch.arange(90) % 3
def stop(line):
    if line.epoch == 2: raise InterruptedRunError("as by Ctrl-C")
how = dict(epochs=3, d_hidden=8, batch_size=30, watch=True, tracker=sys.argv[1])
try: bl.train_image(images, labels, "runs/one", on_epoch=stop, **how)
except InterruptedRunError: pass
bl.train_image(images, labels, "runs/one", resume=True, **how)
"""


BESIDE = """
import json, sys, torch, bilens as bl
library = __import__(sys.argv[1])
mine = library.init(project="mine", name="mine")
mine.log({"x": 0})
images = torch.rand(90, 16, 16, generator=torch.Generator().manual_seed(0))
how = dict(epochs=3, d_hidden=8, batch_size=30, tracker=sys.argv[1])
bl.train_image(images, torch.arange(90) % 3, "runs/one", **how)
library.log({"x": 1})
library.finish()
"""


@pytest.fixture
def trained(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Train, stop and go on in processes of their own, without a network; return the folder."""
    name, _, script = request.param.partition(" ")
    pytest.importorskip(name, reason='`pip install "bilens[tracking]"` installs it')
    quiet = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "CI": "1"}
    quiet |= {"MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}", "MLFLOW_ALLOW_FILE_STORE": "1"}
    environment = {**os.environ, **quiet, "GIT_PYTHON_REFRESH": "quiet", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", BESIDE if script else TRAIN, name]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert script or done.stdout == ""
    return tmp_path


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (folder / "runs/one/history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("trained", ["tensorboard"], indirect=True)
def test_tensorboard(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "runs/one/tensorboard")).Reload()
    losses = [
        (one.step, pytest.approx(one.value, rel=1e-6)) for one in events.Scalars("train_loss")
    ]
    assert losses == [(one["epoch"], one["train_loss"]) for one in history(trained)]
    images = events.Images("eigenvectors")
    assert [one.step for one in images] == [1, 2, 3]
    assert (images[0].height, images[0].width) == (54, 36)
    assert "weights/left" in events.Tags()["scalars"]


def records_in(content: bytes) -> Iterator[bytes]:
    """Yield the records of a run of W&B: parts with a header of 7 bytes, in blocks of 32 KiB."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is empty
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def rows_of_wandb(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each run of W&B, by the name of its file."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in records_in(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {one.key or "/".join(one.nested_key): json.loads(one.value_json)
                       for one in record.history.item}  # fmt: skip
                found.setdefault(str(path), []).append(row)
    return found


@pytest.mark.parametrize("trained", ["wandb beside"], indirect=True)
def test_a_run_of_wandb_that_is_open_stays_open(trained: Path) -> None:
    runs = [[(one.get("x"), one.get("train_loss")) for one in rows]
            for rows in rows_of_wandb(trained).values()]  # fmt: skip
    ours = [(None, one["train_loss"]) for one in history(trained)]
    assert sorted(runs, key=len) == [[(0, None), (1, None)], ours]


@pytest.mark.parametrize("trained", ["trackio beside"], indirect=True)
def test_a_run_of_trackio_that_is_open_stays_open(trained: Path) -> None:
    found = {}
    for project in ("mine", "bilens"):
        with sqlite3.connect(trained / f"trackio/{project}.db") as base:
            rows = base.execute("select metrics from metrics order by step").fetchall()
        found[project] = [json.loads(text) for (text,) in rows]
    assert [one.get("x") for one in found["mine"]] == [0, 1]
    losses = [one["train_loss"] for one in history(trained)]
    assert [one["train_loss"] for one in found["bilens"]] == losses


@pytest.mark.parametrize("trained", ["wandb"], indirect=True)
def test_wandb(trained: Path) -> None:
    rows = [row for each in rows_of_wandb(trained).values() for row in each]
    found = [(row["_step"], row["train_loss"]) for row in rows]
    pictures = sum(any(name.startswith("eigenvectors") for name in row) for row in rows)
    assert found == [(one["epoch"], one["train_loss"]) for one in history(trained)]
    assert pictures == 3


@pytest.mark.parametrize("trained", ["trackio"], indirect=True)
def test_trackio(trained: Path) -> None:
    with sqlite3.connect(trained / "trackio/bilens.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, *_ in rows}) == 1
    told = [(step, json.loads(text)) for _, step, text in rows]
    assert [(step, one["train_loss"]) for step, one in told] == [
        (one["epoch"], one["train_loss"]) for one in history(trained)
    ]
    assert all("eigenvectors" in one for _, one in told)


@pytest.mark.parametrize("trained", ["mlflow"], indirect=True)
def test_mlflow(trained: Path) -> None:
    (curve,) = trained.glob("mlruns/*/*/metrics/train_loss")  # one run: timestamp, value, step
    lines = [line.split() for line in curve.read_text().splitlines()]
    assert [(int(step), float(value)) for _, value, step in lines] == [
        (one["epoch"], one["train_loss"]) for one in history(trained)
    ]
    run = curve.parents[1]
    assert (run / "params/d_hidden").read_text() == "8"
    assert len([*run.glob("artifacts/images/eigenvectors*.png")]) >= 3
