"""The folder of a run: what it refuses and leaves, and that no kill and no full disk loses it."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bilens
import runs
import tiny
from bilens.base.errors import (
    BilensError,
    CheckpointError,
    DiskError,
    InterruptedRunError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens.io.load import load
from bilens.train.run_folder import (
    CHECKPOINTS,
    EARLIER_NAME,
    OWN_FILES,
    RUN_NAME,
    bring_back,
    interruptible,
    set_aside,
)
from bilens.train.tasks.image import train_in_folder
from raising import raising


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run goes; its parent does not exist yet either."""
    return tmp_path / "runs" / "one"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_run_says_what_it_is(folder: Path) -> None:
    seen: list[int] = []
    result = runs.go(
        folder, on_epoch=lambda line: seen.append(line.epoch), provenance={"command": "here"}
    )
    assert result.folder == folder
    assert [line.epoch for line in result.history] == seen == [1, 2, 3, 4]
    model = load(folder)
    assert model.input_shape == (6, 6)
    assert model.output_names == runs.DATA.class_names
    assert model.provenance["data_sha256"] == runs.DATA.fingerprint
    assert model.provenance["data_name"] == "tiny"
    assert model.provenance["seed"] == "0"
    assert model.provenance["command"] == "here"
    assert json.loads(model.provenance["recipe"]) == runs.RECIPE.to_dict()
    about = json.loads((folder / "run.json").read_text())
    recipe = {**runs.RECIPE.to_dict(), "stop": None}
    assert about == {"recipe": recipe, "data": runs.DATA.fingerprint}
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert lines == [line.to_dict() for line in result.history]
    assert {item.name for item in folder.iterdir()} == {
        "checkpoints",
        "config.json",
        "model.safetensors",
        "README.md",
        "run.json",
        "history.jsonl",
    }


def test_auto_precision_is_resolved_before_it_is_written(folder: Path) -> None:
    runs.go(folder, dataclasses.replace(runs.RECIPE, epochs=1, precision="auto"))
    precision = json.loads((folder / "run.json").read_text())["recipe"]["precision"]
    assert precision in ("float32", "bfloat16")


def foreign(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")


def a_file(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file")


def a_run(folder: Path) -> None:
    runs.go(folder, dataclasses.replace(runs.RECIPE, epochs=1))


def a_damaged_run(folder: Path) -> None:
    a_run(folder)
    (folder / "run.json").write_text('{"recipe": null, "data": ""}')


def nothing(folder: Path) -> None:
    assert not folder.exists()


REFUSALS: list[tuple[Any, dict[str, Any], type[BilensError], str]] = [
    (foreign, {}, OutputExistsError, r"already holds files \(thesis.tex\): .*--overwrite"),
    (foreign, {"overwrite": True}, OutputExistsError, "not a run of bilens .*not overwritten"),
    (foreign, {"resume": True}, CheckpointError, "holds no run to resume .*without --resume"),
    (a_file, {}, OutputExistsError, "is a file; expected a folder"),
    (a_file, {"overwrite": True}, OutputExistsError, "is a file; expected a folder"),
    (
        a_run,
        {},
        OutputExistsError,
        r"already holds files \(README.md, checkpoints, config.json, .*--resume",
    ),
    (a_run, {"resume": True}, UsageError, "with epochs=1; this command says epochs=4: resume"),
    (a_run, {"resume": True, "overwrite": True}, UsageError, "give one of them"),
    (a_damaged_run, {"resume": True}, CheckpointError, r"run\.json: is damaged"),
    (nothing, {"resume": True}, CheckpointError, r"holds no run to resume \(run.json is missing\)"),
]


@pytest.mark.parametrize(("before", "options", "error", "message"), REFUSALS)
def test_a_folder_is_refused_and_stays_as_it_is(
    before: Any, options: dict[str, Any], error: type[BilensError], message: str, folder: Path
) -> None:
    before(folder)
    content = snapshot(folder)
    with pytest.raises(error, match=message) as caught:
        runs.go(folder, **options)
    assert caught.type is error
    assert str(folder) in str(caught.value) or "give one" in message
    assert snapshot(folder) == content


def test_a_run_of_another_recipe_names_every_field_that_differs(folder: Path) -> None:
    a_run(folder)
    recipe = dataclasses.replace(runs.RECIPE, seed=3, gate="relu")
    with pytest.raises(UsageError) as caught:
        runs.go(folder, recipe, resume=True)
    assert (
        "started with gate=None, epochs=1, seed=0; this command says gate='relu', epochs=4, "
        in (str(caught.value))
    )


def test_a_run_on_other_images_is_not_resumed(folder: Path) -> None:
    with runs.interrupted_after(3), pytest.raises(InterruptedRunError):
        runs.go(folder)
    with pytest.raises(UsageError, match="was started on other images"):
        train_in_folder(folder, tiny.images(seed=1), runs.RECIPE, resume=True)
    runs.go(folder, resume=True)
    runs.assert_as_uninterrupted(folder)


def test_a_history_that_lacks_epochs_is_not_papered_over(folder: Path) -> None:
    with runs.checkpoint_every_epoch():
        runs.go(folder)
    (folder / "history.jsonl").unlink()
    with pytest.raises(CheckpointError, match="holds 0 epochs, the checkpoint 4"):
        runs.go(folder, resume=True)


def test_a_batch_that_is_too_large_leaves_no_folder_behind(folder: Path) -> None:
    with pytest.raises(UsageError, match="choose a smaller batch size"):
        runs.go(folder, dataclasses.replace(runs.RECIPE, batch_size=500))
    assert not folder.exists()


def test_overwrite_replaces_a_run_and_leaves_other_files(folder: Path) -> None:
    with runs.checkpoint_every_epoch():
        runs.go(folder, dataclasses.replace(runs.RECIPE, seed=7))
    (folder / "notes.txt").write_text("mine")
    runs.go(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / ".earlier").exists()
    (folder / "notes.txt").unlink()
    runs.assert_as_uninterrupted(folder)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_the_lock_of_another_process_keeps_everything_as_it_is(
    options: dict[str, Any], folder: Path
) -> None:
    if options:
        with runs.checkpoint_every_epoch():
            runs.go(folder)
    with held(folder):
        content = snapshot(folder)
        with pytest.raises(UsageError, match="is being written by another process: wait for it"):
            runs.go(folder, **options)
        assert snapshot(folder) == content


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = (
        "import filelock, sys\n"
        f"lock = filelock.FileLock({str(folder / '.lock')!r})\nlock.acquire()\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_lock_of_a_dead_process_is_free(folder: Path) -> None:
    with held(folder):
        pass
    (folder / ".run.json.x1y2").write_text("staged by a process that was killed")
    runs.go(folder)
    runs.assert_as_uninterrupted(folder)


def test_the_lock_is_free_after_a_failure(folder: Path) -> None:
    with pytest.raises(runs.Break):
        runs.go(folder, on_epoch=runs.break_at(2))
    with held(folder):
        pass


def test_ctrl_c_ends_the_step_and_a_second_one_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as event:
        assert not event.is_set()
        signal.raise_signal(signal.SIGINT)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_training_saves_and_says_how_to_go_on(folder: Path) -> None:
    with pytest.raises(InterruptedRunError, match=r"^Interrupted in epoch 3; .*--resume") as caught:
        runs.go(
            folder,
            on_epoch=lambda line: signal.raise_signal(signal.SIGINT) if line.epoch == 2 else None,
        )
    assert caught.value.exit_code == 130
    assert runs.checkpoints(folder) == ["ckpt-000001-000000", "ckpt-000002-000001"]
    assert not (folder / ".lock").exists()
    runs.go(folder, resume=True)
    runs.assert_as_uninterrupted(folder)


def test_training_works_outside_the_main_thread(folder: Path) -> None:
    thread = threading.Thread(target=runs.go, args=(folder,))
    thread.start()
    thread.join()
    runs.assert_as_uninterrupted(folder)


def test_a_run_that_diverges_leaves_no_model_and_no_lock(folder: Path) -> None:
    with pytest.raises(NumericalError, match="lower the learning rate"):
        runs.go(folder, dataclasses.replace(runs.RECIPE, learning_rate=1e30))
    assert {item.name for item in folder.iterdir()} == {"run.json", "history.jsonl"}


@pytest.mark.parametrize("fault", [NumericalError("diverged"), DiskError("full")])
def test_a_failed_overwrite_brings_the_earlier_run_back(fault: Exception, folder: Path) -> None:
    runs.go(folder)
    before = snapshot(folder)

    with pytest.raises(type(fault)):
        runs.go(folder, overwrite=True, on_epoch=raising(fault))
    assert snapshot(folder) == before


def test_resuming_a_finished_run_changes_nothing(folder: Path) -> None:
    result = runs.go(folder, provenance={"command": "train"})
    before = snapshot(folder)
    said: list[str] = []
    again = runs.go(folder, resume=True, provenance={"command": "resume"}, say=said.append)
    assert snapshot(folder) == before
    assert again.history == result.history
    assert said[-1] == f"{folder} is finished: nothing is left to do."


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_resuming_a_run_that_lost_its_model_writes_it_again(name: str, folder: Path) -> None:
    runs.go(folder)
    (folder / name).unlink()
    runs.go(folder, resume=True)
    runs.assert_as_uninterrupted(folder)


def test_an_interrupted_overwrite_keeps_the_earlier_run_until_it_is_done(folder: Path) -> None:
    runs.go(folder, dataclasses.replace(runs.RECIPE, seed=7))
    before = snapshot(folder)
    aside = folder / ".earlier"
    for options in ({"overwrite": True}, {"resume": True}):
        with runs.interrupted_after(3), pytest.raises(InterruptedRunError) as caught:
            runs.go(folder, **options)
        assert str(caught.value).endswith(f" Until then {aside} keeps the run that it overwrites.")
        assert snapshot(aside) == before
        assert load(aside).provenance["seed"] == "7"
    runs.go(folder, resume=True)
    runs.assert_as_uninterrupted(folder)  # the one set aside is gone


def test_a_second_overwrite_that_fails_brings_back_what_the_first_one_set_aside(
    folder: Path,
) -> None:
    runs.go(folder)
    before = snapshot(folder)
    with runs.interrupted_after(3), pytest.raises(InterruptedRunError):
        runs.go(folder, overwrite=True)
    with pytest.raises(runs.Break):
        runs.go(folder, overwrite=True, on_epoch=runs.break_at(1))
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", [".earlier", ".earlier.moving"])
def test_a_run_that_was_set_aside_is_not_lost_without_overwrite(name: str, folder: Path) -> None:
    runs.go(folder / name)
    with pytest.raises(OutputExistsError, match=rf"already holds files \({name}\): .*--overwrite"):
        runs.go(folder)
    runs.go(folder, overwrite=True)
    runs.assert_as_uninterrupted(folder)


NAMES = (*OWN_FILES, CHECKPOINTS)


def run_in(earlier: Path, content: str) -> None:
    """Something with the files of a run."""
    (earlier / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    for name in (*OWN_FILES, f"{CHECKPOINTS}/last"):
        (earlier / name).write_text(content)


def whole_run(earlier: Path) -> set[str]:
    """What the files of a whole run hold."""
    assert {item.name for item in earlier.iterdir()} - {"notes.txt"} == set(NAMES)
    return {(earlier / name).read_text() for name in (*OWN_FILES, f"{CHECKPOINTS}/last")}


def killed_before_move(number: int, step: Callable[[Path], None], earlier: Path) -> bool:
    """Do a step, killed before one of its renames; tell whether it came that far."""
    moves, rename = 0, Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == number:
            raise runs.Break
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        try:
            step(earlier)
        except runs.Break:
            return True
    return False


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run and a file of the user's."""
    run_in(tmp_path, "earlier")
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def test_a_run_goes_aside_and_comes_back(earlier: Path) -> None:
    set_aside(earlier)
    assert whole_run(earlier / EARLIER_NAME) == {"earlier"}
    assert {item.name for item in earlier.iterdir()} == {EARLIER_NAME, "notes.txt"}
    run_in(earlier, "new")
    bring_back(earlier)
    assert whole_run(earlier) == {"earlier"}
    assert (earlier / "notes.txt").read_text() == "mine"


def test_what_is_aside_already_is_the_one_to_keep(earlier: Path) -> None:
    set_aside(earlier)
    run_in(earlier, "interrupted")
    set_aside(earlier)
    assert whole_run(earlier / EARLIER_NAME) == {"earlier"}
    assert {item.name for item in earlier.iterdir()} == {EARLIER_NAME, "notes.txt"}


@pytest.mark.parametrize("number", range(1, len(NAMES) + 2))
@pytest.mark.parametrize("repair", [set_aside, bring_back])
def test_a_kill_on_the_way_aside_loses_nothing(
    repair: Callable[[Path], None], number: int, earlier: Path
) -> None:
    assert killed_before_move(number, set_aside, earlier)
    repair(earlier)
    assert whole_run(earlier / EARLIER_NAME if repair is set_aside else earlier) == {"earlier"}


@pytest.mark.parametrize("number", range(1, len(NAMES) + 2))
@pytest.mark.parametrize("repair", [set_aside, bring_back])
def test_a_kill_on_the_way_back_loses_nothing(
    repair: Callable[[Path], None], number: int, earlier: Path
) -> None:
    set_aside(earlier)
    run_in(earlier, "new")
    assert killed_before_move(number, bring_back, earlier)
    repair(earlier)
    assert whole_run(earlier / EARLIER_NAME if repair is set_aside else earlier) == {"earlier"}


def test_nothing_is_made_where_there_is_no_run(tmp_path: Path) -> None:
    set_aside(tmp_path)
    bring_back(tmp_path)
    assert list(tmp_path.iterdir()) == []


KILLS = 50
PATHS = os.pathsep.join(str(Path(file).parent) for file in (runs.__file__, bilens.__path__[0]))
KILLER = """
import sys, time
from pathlib import Path

import runs
from bilens.base.errors import CheckpointError
from bilens.train import run_folder
from kill_sweep import sweep

run_folder.SECONDS_BETWEEN_CHECKPOINTS = -1.0
place = Path(sys.argv[1])
runs.go(place / "warm")
began = time.perf_counter()
runs.go(place / "warm", overwrite=True)
whole = time.perf_counter() - began

def run(folder):
    try:
        runs.go(folder, resume=True)
    except CheckpointError:  # killed before there was a run
        runs.go(folder)

print(sweep(run, whole, place, int(sys.argv[2])))
"""


def test_kill_9_at_random_moments_costs_nothing_but_time(
    tmp_path: Path, sweep_share: float
) -> None:
    kills = round(sweep_share * KILLS)
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), str(kills)],
        env=tiny.environment(PYTHONPATH=PATHS),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for index in range(int(result.stdout)):
        runs.assert_as_uninterrupted(tmp_path / str(index))


def writes_of_a_run(folder: Path, fail_at: int | None = None) -> int:
    """Run with a checkpoint each epoch; the disk is full from the write `fail_at` on."""
    calls = 0

    def fsync(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if fail_at is not None and calls >= fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch, runs.checkpoint_every_epoch():
        patch.setattr(os, "fsync", fsync)
        runs.go(folder)
    return calls


def test_a_full_disk_at_any_write_leaves_a_run_that_goes_on(
    tmp_path: Path, sweep_share: float
) -> None:
    total = writes_of_a_run(tmp_path / "whole")
    # A file and its folder are synced: run.json 2, history 2; each of four epochs a history 2, two
    # files of a checkpoint 4 and the folder it is in 1; the three of the model 3 and 1.
    assert total == 2 + 2 + 4 * (2 + 4 + 1) + 4
    for fail_at in range(1, total, 3 if sweep_share == 1 else 7):  # behind the last it is done
        folder = tmp_path / f"run-{fail_at}"
        with pytest.raises(DiskError, match=r"No space left on device.*free some space"):
            writes_of_a_run(folder, fail_at)
        found = runs.checkpoints(folder)
        said: list[str] = []
        if (folder / RUN_NAME).exists():
            runs.go(folder, resume=True, say=said.append)
        else:
            with pytest.raises(CheckpointError, match="start it without --resume"):
                runs.go(folder, resume=True)
            runs.go(folder)
        if found:  # the last one that was there is sound
            assert said == [f"Continuing {folder} after epoch {int(found[-1][5:11])}, step 0."]
        runs.assert_as_uninterrupted(folder)


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    """Permissions do not stop a superuser, so the error is made, not met."""

    refused = raising(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(Exception, match=r"cannot be written \(Permission denied\)") as caught:
            runs.go(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
