"""What of a recorded command is run again: options of a list, and files of the folder alone.

Broken once: with an unknown option let through, with a path taken from another folder than the one
in which the command was run, with a link out of the folder followed. Seen red: a class that is run,
a model out of the folder, a file of names taken for a name.
"""

import re
from pathlib import Path

import pytest

from bilens.api.recorded_command import OPTIONS, RefusedError, repeat_command
from bilens.cli.app import app
from bilens.cli.command_group import build_all_commands

LEFT = {
    "--activations",
    "--allow-pickle",
    "--trust-pickle",
    "--class",
    "--help",
}  # run code, or files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for name in ("mnist", "before", "sets/digits"):
        (folder / name).mkdir(parents=True)
    for name in ("rows.csv", "answers.npy", "story.txt"):
        (folder / name).touch()
    (tmp_path / "secret.csv").touch()
    (tmp_path / "rows.csv").touch()  # others than those in the folder
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "far" / "away").mkdir(parents=True)
    return folder


def repeated(command: str, folder: Path) -> list[str]:
    found = repeat_command(command, folder, "mnist").arguments
    assert found[:2] == ("audit", "--history=.")
    assert found[-2:] == ("--", "mnist")
    return [*found[2:-2]]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("audit mnist --history .", ""),
        ("audit runs/mnist --history runs", ""),
        ("--quiet audit mnist --history . --html x.html --json --overwrite --lang ja", ""),
        ("audit mnist before --history=. --seed 3", "--seed=3"),  # for this model alone
        ("audit mnist --history . --data rows.csv", "--data=rows.csv"),
        ("audit runs/mnist --history runs --data runs/sets/digits", "--data=sets/digits"),
        ("audit {folder}/mnist --history {folder} --table {folder}/rows.csv", "--table=rows.csv"),
        ("audit x --history runs --train-data runs/../runs/rows.csv", "--train-data=rows.csv"),
        ("audit x --history . --baseline before --residual", "--baseline=before --residual"),
        (
            "audit x --history . --fail-on 'r2<0.9' --fail-on exact",
            "--fail-on=r2<0.9 --fail-on=exact",
        ),
        (
            "audit x --history . --map up=a.weight --activation relu",
            "--map=up=a.weight --activation=relu",
        ),
        ("audit x --history . --text story.txt --tokens 100", "--text=story.txt --tokens=100"),
        ("audit x --history . --data rows.csv --labels answer", "--data=rows.csv --labels=answer"),
        ("audit x --history runs --labels runs/answers.npy", "--labels=answers.npy"),
        ("audit --history . --fail-on=-x -- mnist --trust-pickle", "--fail-on=-x"),
        ("audit x --history . --text grammar -qv", "--text=grammar"),
        ("audit x --history {folder} --classes cat,dog", "--classes=cat,dog"),
        ("audit x --history . --classes risk", "--classes=risk"),
        ("audit x --history . --data ./sets/../rows.csv", "--data=rows.csv"),
        ("audit x --history a/runs --data a/runs/rows.csv", "--data=rows.csv"),
        ("audit x --history ../runs --data ../runs/rows.csv", "--data=rows.csv"),
        ("audit x --history runs --labels answer", "--labels=answer"),
        ("audit x --history runs --classes runs/story.txt", "--classes=story.txt"),
        ("audit x --history {folder} --labels answer", "--labels=answer"),
    ],
)
def test_options_are_kept_and_paths_are_from_the_folder(
    folder: Path, command: str, wanted: str
) -> None:
    line = f"bilens {command.format(folder=folder)}"
    assert repeated(line, folder) == wanted.split()


@pytest.mark.parametrize(
    ("command", "why", "about"),
    [
        ("", "command", ""),
        ("python train.py", "command", ""),
        ("bilens", "command", ""),
        ("bilens certify audit", "command", ""),
        ("bilens 'audit x", "command", ""),
        ("bilens audit x --history", "command", ""),
        ("bilens audit x\x00 --history .", "unreadable", "mnist"),
        ("bilens audit x --history . --trust-pickle", "option", "--trust-pickle"),
        ("bilens audit x --history . --activations out", "option", "--activations"),
        ("bilens audit x --history . --json=1", "option", "--json"),
        ("bilens audit x --history . -c", "option", "-c"),
        ("bilens audit x --history runs --data rows.csv", "start", "rows.csv"),
        ("bilens audit x --history . --data ../secret.csv", "outside", "secret.csv"),
        ("bilens audit x --history . --data /etc/passwd", "outside", "passwd"),
        ("bilens audit x --history . --data s3://bucket/rows.csv", "gone", "s3:/bucket/rows.csv"),
        ("bilens audit x --history . --data link.csv", "gone", "link.csv"),
        ("bilens audit x --history . --data loop", "gone", "loop"),
        ("bilens audit x --history . --baseline gone", "gone", "gone"),
        ("bilens audit x --history {folder} --data rows.csv", "start", "rows.csv"),
        ("bilens audit x --history ../runs --data rows.csv", "start", "rows.csv"),
        ("bilens audit x --history {folder} --labels answers.npy", "start", "answers.npy"),
        ("bilens audit x --history runs --labels answers.npy", "start", "answers.npy"),
        ("bilens audit x --history . --labels ../secret.csv", "outside", "secret.csv"),
        ("bilens audit x --history . --class 'subprocess.getoutput(\"id\")'", "option", "--class"),
        ("bilens audit x --history {folder} --classes names.txt", "start", "names.txt"),
        ("bilens audit x --history {folder} --classes risk", "start", "risk"),
        ("bilens audit x --history . --classes gone.txt", "start", "gone.txt"),
        ("bilens audit x --history runs --classes risk", "start", "risk"),
        ("bilens audit x --history runs --data runs/link/../rows.csv", "outside", "rows.csv"),
        ("bilens audit x --history a/../runs --data runs/rows.csv", "start", "runs/rows.csv"),
        ("bilens audit x --history {folder} --labels answers/y.npy", "start", "answers/y.npy"),
        ("bilens audit x --history runs --baseline gpt2", "gone", "gpt2"),
        (
            "bilens audit x --history {folder} --baseline Qwen/Qwen2.5-0.5B",
            "gone",
            "Qwen/Qwen2.5-0.5B",
        ),
    ],
)
def test_all_else_is_refused_and_says_why(folder: Path, command: str, why: str, about: str) -> None:
    with pytest.raises(RefusedError) as refused:
        repeat_command(command.format(folder=folder), folder, "mnist")
    assert (refused.value.why, refused.value.about) == (why, about)
    assert str(folder) not in str(refused.value)


def test_a_link_to_the_folder_leads_to_no_other_data(folder: Path) -> None:
    """Seen red: a folder that was reached by a link, with other rows beside it than beside that."""
    (folder.parent / "home").mkdir()
    (folder.parent / "home" / "runs").symlink_to(folder)
    with pytest.raises(RefusedError, match="from where this path leads"):
        repeat_command(
            "bilens audit x --history runs --data rows.csv", folder, "mnist", [folder.parent]
        )


@pytest.mark.parametrize("model", ["../outside", "/etc", "out"])
def test_a_model_out_of_the_folder_is_not_audited(folder: Path, model: str) -> None:
    (folder.parent / "outside").mkdir()
    (folder / "out").symlink_to(folder.parent / "outside")
    with pytest.raises(RefusedError) as refused:
        repeat_command("bilens audit x --history .", folder, model)
    assert refused.value.why in ("gone", "outside")
    inputs = [folder.parent / "outside"]
    if model == "../outside":
        found = repeat_command("bilens audit x --history .", folder, model, inputs)
        assert found.arguments[-1] == str(inputs[0])


def test_no_option_that_runs_code_is_run_again() -> None:
    """Whatever option says that it runs something, now or later, is none of the list."""
    audit = build_all_commands(app).commands["audit"]
    runs = {
        one
        for each in audit.params
        if re.search(r"\bRUN", getattr(each, "help", "") or "")
        for one in each.opts
    }
    assert runs == {"--trust-pickle", "--class"}
    assert not runs & {*OPTIONS}


def test_every_option_of_an_audit_is_known() -> None:
    audit = build_all_commands(app).commands["audit"]
    options = {
        one
        for each in audit.params
        if each.param_type_name == "option"
        for one in (*each.opts, *each.secondary_opts)
    }
    assert {*OPTIONS} | LEFT == options | {"--help"}
    switches = {
        one
        for each in audit.params
        if getattr(each, "is_flag", False)
        for one in (*each.opts, *each.secondary_opts)
    }
    assert {name for name, use in OPTIONS.items() if use.endswith("switch")} == switches - LEFT
