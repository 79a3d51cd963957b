"""The commands of the pages run, each page's in their order, on tiny models under their names.

What cannot run here stands in a table with its reason. Long jobs are shortened by options behind
those of the page. Broken once: with an option that no command has, a model that is not there, and a
condition on a number that the audit of the page does not have.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from commands import Shell
from documented_models import BEFORE, write_everything
from test_docs import PAGES, REPOSITORY, command_lines, named, shell_lines

README = REPOSITORY / "README.md"
# Words of a command → why it is not run here.
NOT_RUN = {
    "--install-completion": "writes to the shell of who runs it",
    r"--to bilinear --text ": "needs a model that knows its text; tests/api/test_conversion_job.py",
    r"gguf --text ": "needs all tensors of a language model; tests/io/formats/test_gguf.py",
    "^bilens train image$": "is cut short",
    r"://|hf://|^bilens push ": "asks another machine; test_push.py, tests/io/test_remote.py",
    r"^bilens serve ": "runs until Ctrl-C; explorer/tests",
    r"^bilens watch (?!.*--once)": "runs until Ctrl-C; tests/cli/test_watch.py",
    r"^bilens demo ": "trains on 5,000 images; tests/test_distributions.py",
    r"--engine (ray|slurm)": "needs a cluster; tests/sweep",
    r"^bilens reproduce ": "takes minutes to hours; studies/tests",
}
PROGRAMS = {
    "make": "test_docs.py looks for the target",
    "pip": "installs from an index; tests/test_distributions.py",
    "hf": "asks the hub",
    "curl": "asks an explorer that runs; explorer/tests",
    "openssl": "another program",
    "model_signing": "another program; tests/report/test_evidence.py",
    "torchrun": "starts several processes; tests/train",
    "python": "a tool of this repository, of minutes to hours",
    "jupyter": "tests/test_notebooks.py",
    ".venv/bin/pre-commit": "of a checkout; tests/cli/test_gates.py",
}
# How a command begins → what is added, so that it ends in a moment.
SMALL = "--steps 3 --model-width 24 --hidden 16 --layers 2 --context-length 16 --batch-size 4"
SHORTER = {
    "train language --corpus stories.txt": f"{SMALL} --vocabulary 300",
    "train language --corpus grammar": SMALL,
    "train sae": "--num-latents 8 --k 2 --tokens 2000 --batch-size 100",
    "train image": "--hidden 8 --epochs 1 --batch-size 40",
    "read ": "--rules 3 --samples 19 --farthest 2",
}
CODES = {"audit": (0, 1), "watch": (0, 1)}  # the models are drawn, and some are not good
REFUSES = {"inspect --no-code model.pt": 3}  # as the page says


def lines_of(page: Path) -> list[list[str]]:
    """The commands of a page: those in blocks, and of the README those of its tables too."""
    found = command_lines(page) if page == README else shell_lines(page)
    return [words for words in found if words]


def reason(words: list[str]) -> str | None:
    if words[0] != "bilens":
        return PROGRAMS[words[0]]
    line = shlex.join(words)
    return next((why for what, why in NOT_RUN.items() if re.search(what, line)), None)


def runs_here(page: Path) -> list[list[str]]:
    return [words[1:] for words in lines_of(page) if reason(words) is None]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("transformers", "tokenizers", "onnx", "gguf", "PIL"):
        pytest.importorskip(package)
    return write_everything(tmp_path_factory.mktemp("pages") / "all")


def test_each_reason_is_of_a_command_that_there_is() -> None:
    lines = [words for page in PAGES for words in lines_of(page)]
    joined = [shlex.join(words) for words in lines]
    assert not [what for what in NOT_RUN if not any(re.search(what, line) for line in joined)]
    assert {*PROGRAMS} == {words[0] for words in lines} - {"bilens"}
    assert sum(reason(words) is None for words in lines) > 80


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runs_here(page)], ids=named)
def test_the_commands_of_a_page_run(
    page: Path,
    everything: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "here"
    bilens, failed = Shell(capsys, monkeypatch), []
    for words in runs_here(page):
        line = shlex.join(words)
        if not here.exists() or page == README:  # each line of its tables is for itself
            here = tmp_path / str(len([*tmp_path.iterdir()]))
            shutil.copytree(everything, here)
            monkeypatch.chdir(here)
        for what, prepare in BEFORE.items():
            if what in line:
                prepare(here)
        more = next((text.split() for start, text in SHORTER.items() if line.startswith(start)), [])
        if "--out" in words and words[0] in ("train", "convert"):
            shutil.rmtree(here / words[words.index("--out") + 1], ignore_errors=True)
        result = bilens(*words, *more)
        right = (REFUSES[line],) if line in REFUSES else CODES.get(words[0], (0,))
        if result.code not in right:
            failed.append(f"bilens {line}\n  {result.code}: {result.err[-600:]}")
    assert not failed, "\n".join(failed)
