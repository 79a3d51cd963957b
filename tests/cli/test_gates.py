"""The gates: the steps of the action, and the hooks of pre-commit, are run here as they are there.

No network: what installs bilens is written down and not done, and `gh` is a stand-in.
"""

import json
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from bilens.findings.rules.registry import parse_conditions
from bilens.io.file_kinds import LISTED, MODELS, NAMED
from commands import FILE, USAGE, Result, Shell, model_folder
from github_runner import REPOSITORY, Ended, action, run_action
from test_docs import blocks
from test_pytest_plugin import run_pytest

PAGE = REPOSITORY / "docs/gates.md"
QUICK = "--null-samples=39"
FAILS = "changed_layers"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a model, the one before it, and a copy that nothing was changed in."""
    folder = tmp_path_factory.mktemp("work") / "checkout"
    changed = tiny.classifier()
    with torch.no_grad():
        changed.head.weight[0] *= 1.5
    for name, model in (("base", None), ("copy", None), ("tuned", changed)):
        model_folder(folder / "models" / name, model)
    (folder / "models" / "notes.md").write_text("no model")
    comments = [{"id": 1, "mine": False, "body": "looks good"}]
    said = {"comments": comments, "calls": [], "refuses": False}
    (folder.parent / "gh.json").write_text(json.dumps(said))
    return folder


def held(checkout: Path) -> dict[str, Any]:
    return dict(json.loads((checkout.parent / "gh.json").read_text()))


@pytest.fixture(scope="module")
def passed(checkout: Path) -> Ended:
    """The action on a model that is as its baseline, where somebody tries a comment's place."""
    given = {"model": "models/copy", "baseline": "models/base", "sarif": "true"}
    given |= {"fail-on": f"{FAILS}\nnon_finite\n\n", "arguments": QUICK, "extras": "onnx"}
    ended = run_action(checkout, given)
    said = held(checkout)
    said["comments"][0]["body"] = said["comments"][1]["body"].splitlines()[0]  # of another's
    (checkout.parent / "gh.json").write_text(json.dumps(said))
    return ended


@pytest.fixture(scope="module")
def failed(checkout: Path, passed: Ended) -> Ended:  # noqa: ARG001 - there is a comment already
    """The same on one that is not, in Japanese; its model has the name of the other."""
    given = {"model": "models/copy", "baseline": "models/tuned", "lang": "ja"}
    return run_action(checkout, given | {"fail-on": FAILS, "arguments": QUICK})


def test_a_model_that_passes_passes_the_check(passed: Ended, checkout: Path) -> None:
    assert passed.code == 0, passed.said
    assert passed.outputs["exit-code"] == "0"
    assert passed.summary.startswith("## bilens audit: models/copy")
    assert f"{FAILS}: does not hold".replace("_", "\\_") in passed.summary
    assert Path(passed.outputs["report"]).read_text("utf-8") == passed.summary
    assert passed.installed.split("\n")[:2] == ["-m", "pip"]
    assert f"{REPOSITORY}[onnx]" in passed.installed
    comment = held(checkout)["calls"][1]
    assert comment[0][:3] == ["pr", "comment", "7"]
    assert comment[1] == "a token"


def test_findings_go_to_code_scanning_where_it_is_asked_for(passed: Ended, failed: Ended) -> None:
    names = [name.partition("@")[0] for name, _ in passed.used]
    assert names == ["actions/setup-python", "github/codeql-action/upload-sarif"]
    found = json.loads(Path(passed.used[1][1]["sarif_file"]).read_text("utf-8"))
    (run,) = found["runs"]
    assert {f"fail-on:{FAILS}", "decision"} <= {one["id"] for one in run["tool"]["driver"]["rules"]}
    assert [name.partition("@")[0] for name, _ in failed.used] == names[:1]


def test_a_model_that_fails_fails_the_check_after_its_report(failed: Ended, checkout: Path) -> None:
    assert failed.code == 1, failed.said
    assert failed.outputs["exit-code"] == "1"
    assert f"Failed: {FAILS}" in failed.said
    assert "層" in failed.summary
    other, mine = held(checkout)["comments"]  # one comment, which is changed
    assert mine["body"].endswith(failed.summary)
    assert mine["body"].startswith("<!-- bilens audit ")
    assert other["body"] == mine["body"].splitlines()[0], "that of another is left as it is"
    assert [call[0][:2] for call in held(checkout)["calls"]].count(["pr", "comment"]) == 1


def test_a_folder_is_watched_with_its_history(checkout: Path, bilens: Shell) -> None:
    runs = checkout / "runs"
    model_folder(runs / "m")
    assert bilens("audit", runs / "m", "--history", runs, QUICK).code == 0
    ended = run_action(checkout, {"watch": "runs", "comment": "false"})
    assert ended.code == 0, ended.said
    assert ended.summary.startswith("## bilens watch\n")
    assert "m: audited, audit 1" in ended.summary
    changed = tiny.classifier(7)
    for file in model_folder(checkout.parent / "new", changed).iterdir():
        file.replace(runs / "m" / file.name)
    ended = run_action(checkout, {"watch": "runs", "comment": "false"})
    assert "m: changed (model.safetensors), audit 2" in ended.summary
    ended = run_action(checkout, {"watch": "nowhere", "comment": "false"})
    assert ended.code == FILE
    assert "Nothing was audited (exit code 3)" in ended.summary


def test_a_model_that_cannot_be_read_says_so_and_fails_with_its_code(checkout: Path) -> None:
    said = held(checkout) | {"refuses": True}
    (checkout.parent / "gh.json").write_text(json.dumps(said))
    name = "$(touch ran)`touch ran`\"; touch ran; '${{ github.token }}"
    ended = run_action(checkout, {"model": name, "fail-on": 'x"; touch ran #\nnon_finite'})
    assert ended.code == FILE, ended.said
    assert "Nothing was audited (exit code 3)" in ended.summary
    assert "error: " in ended.summary
    assert "::warning::The report could not be written as a comment" in ended.said
    assert not [*checkout.rglob("ran")], "an input is never a part of a script"
    none = run_action(checkout, {"model": "models/notes.md", "python-version": ""}, "")
    assert (none.code, none.used) == (FILE, [])
    assert "a comment" not in none.said, "there is no pull request"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": ""}, "an argument of 'bilens audit' is empty"),
        ({"model": "models/base", "watch": "models"}, "give 'model' or 'watch', not both"),
    ],
    ids=["neither", "both"],
)
def test_a_model_or_a_folder_to_watch_is_given(
    checkout: Path, given: dict[str, str], words: str
) -> None:
    """Nothing is audited: neither the checkout itself, nor one of the two in the other's place."""
    ended = run_action(checkout, given | {"comment": "false"})
    assert ended.code == USAGE, ended.said
    assert "Nothing was audited (exit code 2)" in ended.summary
    (line,) = (line for line in ended.summary.splitlines() if words in line)
    assert line.startswith("error: ")
    assert "Traceback" not in ended.said


def test_a_folder_without_a_history_is_no_green_check(checkout: Path) -> None:
    ended = run_action(checkout, {"watch": "models", "comment": "false"})
    assert ended.code == USAGE, ended.said
    for name in ("gates", "history"):
        page = (REPOSITORY / f"docs/{name}.md").read_text("utf-8")
        assert "nothing was ever audited ends with exit code 2" in " ".join(page.split())


def test_no_script_of_the_action_holds_an_expression() -> None:
    told = action()
    for step in told["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), step["name"]
        assert ("run" in step) == ("shell" in step)
    text = (REPOSITORY / "action.yml").read_text("utf-8")
    assert {*re.findall(r"inputs\.([\w-]+)", text)} == {*told["inputs"]}
    assert all(one["description"] for one in told["inputs"].values())


# ---- hooks of pre-commit


HOOKS = {
    one["id"]: one for one in yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
}


def run_hook(bilens: Shell, name: str, *words: Any) -> Result:
    """Run the entry of a hook, with its arguments and then the staged files that it is for."""
    program, *entry = shlex.split(HOOKS[name]["entry"])
    assert program == "bilens"
    files = [word for word in words if isinstance(word, Path)]
    taken = [file for file in files if re.search(HOOKS[name]["files"], file.as_posix())]
    return bilens(*entry, *(word for word in words if word not in files), *taken)


class Planted:
    """Leaves a file where it is unpickled."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> Any:
        return Path.touch, (self.at,)


def test_hooks_are_as_pre_commit_wants_them() -> None:
    from pre_commit.clientlib import MANIFEST_SCHEMA, load_manifest

    found = load_manifest(str(REPOSITORY / ".pre-commit-hooks.yaml"))
    assert MANIFEST_SCHEMA is not None
    assert [one["id"] for one in found] == ["bilens-inspect", "bilens-audit"]
    assert all(one["require_serial"] and one["language"] == "python" for one in found)
    for ending in MODELS:
        for name in (f"m{ending}", f"a/b{ending.upper()}"):
            assert all(re.search(one["files"], name) for one in found), name
    inspect = re.compile(found[0]["files"])
    for ending in {*LISTED, *NAMED, ".npy", ".npz", ".pt2", ".sav", ".dill"} - {".json"}:
        assert inspect.search(f"m{ending}"), ending
    for name in ("README.md", "pt", "model.py", "a.pt.txt", "config.json"):
        assert not any(re.search(one["files"], name) for one in found), name


def test_what_could_run_code_is_refused_and_not_run(bilens: Shell, tmp_path: Path) -> None:
    good = model_folder(tmp_path / "good") / "model.safetensors"
    bad, weights = tmp_path / "bad.pkl", tmp_path / "weights.pt"
    bad.write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    torch.save({"up.weight": torch.zeros(2, 2)}, weights)
    result = run_hook(bilens, "bilens-inspect", good, bad, weights, tmp_path / "README.md")
    assert result.code == FILE
    assert f"{good}: nothing found that opening it would run" in result.out
    assert f"{bad}: is opened as a pickle, which runs what it names: pathlib" in result.out
    assert f"{weights}: is opened as a pickle" in result.out
    assert "README" not in result.out
    assert not (tmp_path / "ran").exists()
    assert run_hook(bilens, "bilens-inspect", good).code == 0


def test_a_staged_model_is_audited_as_the_folder_that_it_is_a_part_of(
    bilens: Shell, checkout: Path
) -> None:
    weights = [checkout / "models" / name / "model.safetensors" for name in ("copy", "tuned")]
    base = f"--baseline={checkout / 'models' / 'base'}"
    line = ("bilens-audit", QUICK, base, "--fail-on", FAILS)
    one = run_hook(bilens, *line, weights[0])
    assert one.code == 0, one.err
    assert "100.0% were read exactly" in one.out
    both = run_hook(bilens, *line, *weights)
    assert both.code == 1
    assert "Model 2 of 2" in both.err
    twice = bilens("audit", "--staged", QUICK, weights[0], weights[0])
    assert "Model 2" not in twice.err
    alone = run_hook(bilens, "bilens-audit", "--fail-on", "non_finite", checkout / "none.gguf")
    assert alone.code == FILE


# ---- the page


def test_what_the_page_shows_is_what_there_is(tmp_path: Path) -> None:
    workflow, hooks = map(yaml.safe_load, blocks(PAGE, "yaml"))
    (step,) = (one for one in workflow["jobs"]["audit"]["steps"] if "bilens@" in one["uses"])
    assert step["with"].keys() <= action()["inputs"].keys()
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"`([\w-]+)`", " ".join(rows))
    assert sorted(named) == sorted(action()["inputs"])
    (repository,) = hooks["repos"]
    assert {one["id"] for one in repository["hooks"]} == HOOKS.keys()
    conditions = [*step["with"]["fail-on"].split(), *repository["hooks"][1]["args"][1::2]]
    parse_conditions(conditions, data=False, baseline=True)
    done = run_pytest(tmp_path, *blocks(PAGE, "python"))
    assert done == {"test_fine_tuning_leaves_the_first_layer_alone": "PASSED"}
