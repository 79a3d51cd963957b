"""The manifest says all of the work, and belongs to one model, one question and one release.

Seen red: rows packed without the limit of a minute; a manifest whose last line is cut; a model that
changed after the manifest; `--plan` that leaves something behind.
"""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from bench.sweep.deepseek import write_model
from bilens.base.errors import FileError, UsageError
from bilens.cli.app import app
from bilens.records.sweep import Cost, SweepOptions
from bilens.sweep import manifest
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.manifest import JOB_SECONDS, NAME, Plan, kept_plan, make_plan
from bilens.sweep.output import SweepOutput
from engine_here import Here

FIT = SweepOptions(tasks=("fit",), null_samples=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), layers=4, experts=2, files=3)


def test_a_row_for_each_mlp_and_its_bytes(model: Path) -> None:
    plan = make_plan(str(model), FIT)
    names = [row.name for row in plan.rows]
    dense = [f"layers.{index}.mlp" for index in range(3)]
    experts = ("experts.0", "experts.1", "shared_experts")
    assert names == [*dense, *(f"layers.3.mlp.{expert}" for expert in experts)]
    index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    for row in plan.rows:
        assert row.num_bytes == 3 * row.d_in * row.d_hidden + 3 * 4  # FP8, a scale of each block
        for part in row.parts:
            for span in part.spans:
                assert (model / span.file).stat().st_size >= span.stop > span.start
                assert span.file in index.values()


def test_jobs_of_about_a_minute(model: Path) -> None:
    plan = make_plan(str(model), FIT)
    half = {"fit": Cost(JOB_SECONDS / 2, 10)}
    slow = Plan(plan.head, 4 * tuple(replace(row, costs=half) for row in plan.rows))
    assert [len(job.rows) for job in slow.jobs(range(23))] == [*[2] * 11, 1]
    assert len(slow.jobs(range(24), workers=6)) == 24  # some for each worker


def test_a_job_is_not_too_many_layers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(str(model), FIT)
    monkeypatch.setattr(manifest, "MOST_ROWS", 2)
    quick = {"fit": Cost(1e-6, 10)}
    fast = Plan(plan.head, 4 * tuple(replace(row, costs=quick) for row in plan.rows))
    assert [job.rows for job in fast.jobs(range(3, 6))] == [(3,), (4,), (5,)]
    assert {len(job.rows) for job in fast.jobs(range(24))} == {2}


def test_what_is_kept_is_what_was_planned(model: Path, tmp_path: Path) -> None:
    output = SweepOutput(str(tmp_path))
    plan = plan_of(str(model), FIT, output)
    drive(plan, output, Here)
    kept = kept_plan(output)
    assert kept is not None
    assert kept.sha256 == plan.sha256 == plan_of(str(model), FIT, output).sha256
    with pytest.raises(UsageError, match="with other options"):
        plan_of(str(model), replace(FIT, seed=1), output)
    older = replace(plan.head, release="0.0.9")
    (tmp_path / NAME).write_bytes(Plan(older, plan.rows).text)
    with pytest.raises(UsageError, match=r"holds a sweep by bilens 0\.0\.9, and this is"):
        plan_of(str(model), FIT, output)
    (tmp_path / NAME).write_bytes(plan.text[:-40])
    with pytest.raises(FileError, match="damaged"):
        kept_plan(output)
    lines = plan.text.splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(FileError, match="changed or cut"):
        kept_plan(output)


def test_another_model_ends_the_sweep(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", layers=4, experts=2, files=1)
    output = SweepOutput(str(tmp_path / "out"))
    plan = plan_of(str(model), FIT, output)
    for change in ("activation", "experts"):
        if change == "activation":  # beside the same weights; broken once: they went on
            path = model / "config.json"
            path.write_text(path.read_text().replace("silu", "relu"))
        else:
            write_model(model, layers=4, experts=3, files=1)
        with pytest.raises(FileError, match="not the model that the manifest is of"):
            drive(plan, output, Here)
        assert not output.names("results")


def test_a_plan_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["sweep", str(model), "--plan", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "6 layers in 6 jobs" in done.stdout
    assert not out.exists()


def test_a_task_that_is_named_twice_is_done_once(model: Path, tmp_path: Path) -> None:
    """Broken once: half of the results that it waited for were never to come."""
    line = ["sweep", str(model), "--do", "fit,fit", "--workers", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "6 of 6 results" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "fog"], "--engine fog is not known"),
        (["--engine-option", "a=b"], "--engine-option a is not known to this engine"),
        (["--engine-option", "ab"], "expected NAME=VALUE"),
        (["--do", "dance"], "--do names 'dance'"),
        (["--do", "compare"], "compare needs --baseline"),
        (["--do", "fit", "--activations", "nowhere"], "--activations nowhere is no folder"),
        (["--do", "audit", "--activations", "nowhere"], "only with fit, decompose or convert"),
        (["--html", "x.html"], "only with `sweep report FOLDER`"),
    ],
)
def test_what_is_refused_keeps_nothing(
    model: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["sweep", str(model), "--out", str(out), *words])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
    assert not (out / NAME).exists()
