"""Runs the steps of an action, and of a job of a workflow, as a runner of GitHub does.

The action finds a `gh` that is made here, and a `python` that only writes down what it is asked to
install: its steps use the bilens of the tests.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import tiny

REPOSITORY = Path(__file__).parents[1]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
TERM = re.compile(r"([\w.-]+) (==|!=) '([^']*)'")
# What the runner puts in front of each script of `shell: bash`.
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
GH = """
import json, os, re, sys
from pathlib import Path
at = Path(os.environ["FAKE_GH"])
held = json.loads(at.read_text())
words = sys.argv[1:]
held["calls"].append([words, os.environ.get("GH_TOKEN")])
at.write_text(json.dumps(held))
if held["refuses"]:
    sys.exit("HTTP 403: Resource not accessible by integration")
if words[:2] == ["pr", "view"]:
    own = re.fullmatch(
        r'[.]comments\\[\\] \\| select\\([.]viewerDidAuthor and '
        r'\\([.]body \\| startswith\\("(.*)"\\)\\)\\) \\| [.]url', words[words.index("--jq") + 1])
    for one in held["comments"]:
        if one["mine"] and one["body"].startswith(own[1]):
            print(f"https://example.org/pull/7#issuecomment-{one['id']}")
elif words[:2] == ["pr", "comment"]:
    body = Path(words[words.index("--body-file") + 1]).read_text()
    held["comments"].append({"id": len(held["comments"]) + 1, "mine": True, "body": body})
elif words[0] == "api":
    number = int(words[-1].rpartition("/")[2])
    (body,) = [word for word in words if word.startswith("body=@")]
    one = next(one for one in held["comments"] if one["id"] == number)
    one["body"] = Path(body.removeprefix("body=@")).read_text()
at.write_text(json.dumps(held))
"""


@dataclass
class Ended:
    """How an action ended: what its steps printed, published and passed on."""

    code: int = 0
    said: str = ""
    summary: str = ""
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # other actions
    outputs: dict[str, str] = field(default_factory=dict)
    installed: str = ""


def action() -> dict[str, Any]:
    return dict(yaml.safe_load((REPOSITORY / "action.yml").read_text("utf-8")))


def run_action(checkout: Path, given: dict[str, str], pull_request: str = "7") -> Ended:
    """Run the action in a checkout, with these inputs; a step that fails ends it."""
    told, ended = action(), Ended()
    runner = checkout.parent / f"{checkout.name} runner"  # with a space, as some have
    home = runner / "bin"
    home.mkdir(parents=True, exist_ok=True)
    known = {f"inputs.{name}": one.get("default", "") for name, one in told["inputs"].items()}
    values = known | {"inputs.token": "a token"} | {f"inputs.{k}": v for k, v in given.items()}
    values["github.event.pull_request.number"] = pull_request
    assert values.keys() == known.keys() | {"github.event.pull_request.number"}, "no such input"
    programs = {
        "bilens": f'exec "{sys.executable}" -m bilens "$@"',
        "python": f'printf "%s\\n" "$@" > "{runner}/installed"',
        "gh": f'exec "{sys.executable}" "{home}/gh.py" "$@"',
    }
    for name, line in programs.items():
        (home / name).write_text(f"#!/bin/sh\n{line}\n")
        (home / name).chmod(0o755)
    (home / "gh.py").write_text(GH)
    environment = tiny.environment()
    paths = os.environ.get("PYTHONPATH", "").split(":")
    environment |= {
        "PATH": f"{home}:{environment['PATH']}",
        "PYTHONPATH": ":".join(str(Path(path).resolve()) for path in paths if path),
        "FAKE_GH": str(checkout.parent / "gh.json"),
        "RUNNER_TEMP": str(runner),
        "GITHUB_ACTION_PATH": str(REPOSITORY),
        "GITHUB_REPOSITORY": "owner/models",
        "GITHUB_STEP_SUMMARY": str(runner / "summary"),
    }
    (runner / "summary").write_text("")
    run_steps(told["runs"]["steps"], values, checkout, environment, runner, ended)
    ended.summary = (runner / "summary").read_text("utf-8")
    ended.installed = (runner / "installed").read_text()
    outputs = {name: one["value"] for name, one in told["outputs"].items()}
    ended.outputs = filled(outputs, values)
    return ended


def run_steps(
    steps: list[dict[str, Any]],
    values: dict[str, str],
    folder: Path,
    environment: dict[str, str],
    runner: Path,
    ended: Ended,
) -> None:
    """Run steps in a folder, one that fails is the last; other actions are written down."""
    for step in steps:
        if not holds(step.get("if", ""), values):
            continue
        if "uses" in step:
            ended.used.append((step["uses"], filled(step.get("with", {}), values)))
            continue
        output = runner / "output"
        output.write_text("")
        (runner / "script").write_text(step["run"])
        own = filled(step.get("env", {}), values) | {"GITHUB_OUTPUT": str(output)}
        done = subprocess.run(
            [*BASH, str(runner / "script")],
            cwd=folder,
            env=environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        ended.said += done.stdout
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
        if done.returncode:
            ended.code = done.returncode
            break


def filled(texts: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """Return texts with their expressions; one of a step that set nothing is empty."""
    return {
        name: EXPRESSION.sub(lambda found: values.get(found[1], ""), str(text))
        for name, text in texts.items()
    }


def holds(condition: str, values: dict[str, str]) -> bool:
    """Tell whether the condition of a step holds: comparisons with texts, all of which must."""
    found = []
    for term in condition.split(" && ") if condition else ():
        parts = TERM.fullmatch(term)
        assert parts is not None, condition
        found.append((values.get(parts[1], "") == parts[3]) == (parts[2] == "=="))
    return all(found)
