"""Runs the cases in a working folder and writes one JSON file for each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

import bilens
from tools.net import calls, foreign, inputs
from tools.net.commands import Case, cases
from tools.net.describe import Describer

ROOT = Path(__file__).parents[2]
SOURCE = Path(bilens.__file__).parents[1]
WORKERS = 2
LAST_LINES = 12  # of stderr
FAULT = 70  # the exit code of a fault of bilens, which comes with a traceback
SLOW = ("demo", "reproduce")
FIXED = {  # one thread, no colours, no network, one memory limit
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "BILENS_MEMORY_LIMIT": "4GiB",
}
Jobs = dict[str, Callable[[], None]]


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Of every process: the bilens that is imported here, and these tools."""
    path = os.pathsep.join([str(SOURCE), str(ROOT)])
    return {**os.environ, **FIXED, "PYTHONPATH": path}


class Shell:
    """Runs command lines in the working folder, as many at once as there are threads that ask."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.local = threading.local()
        self.workers: list[subprocess.Popen[str]] = []

    def __call__(self, words: Sequence[str], name: str = "line", **more: str) -> Ended:
        """`bilens WORDS`."""
        printed = [self.folder / "printed" / f"{name}.{kind}" for kind in ("out", "err")]
        printed[0].parent.mkdir(exist_ok=True)
        worker = self.worker()
        assert worker.stdin is not None
        assert worker.stdout is not None
        job = {
            "words": [*words],
            "environment": more,
            "stdout": str(printed[0]),
            "stderr": str(printed[1]),
        }
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        code = int(worker.stdout.readline())
        out, err = (path.read_text("utf-8", "replace") for path in printed)
        return Ended(code, out, err)

    def worker(self) -> subprocess.Popen[str]:
        """The worker of this thread."""
        if not hasattr(self.local, "worker"):
            self.local.worker = subprocess.Popen(
                [sys.executable, "-m", "tools.net.worker"],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.workers.append(self.local.worker)
        worker: subprocess.Popen[str] = self.local.worker
        return worker

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.communicate()


def record_command(case: Case, shell: Shell, describer: Describer) -> dict[str, Any]:
    """Run one command line; what it returned, printed and wrote."""
    out = Path("out") / case.name
    (shell.folder / out).mkdir(parents=True, exist_ok=True)
    words = [word.replace("OUT", str(out)) for word in case.line]
    ended = shell(words, case.name, **case.environment)
    written = shell.folder / case.written.replace("OUT", str(out))
    describer.learn(shell.folder, str(written.relative_to(shell.folder)))
    printed: Any = describer.text(ended.out)
    if "--json" in words and ended.out.startswith("{"):
        printed = describer.document(json.loads(ended.out))
    lines = ended.err.splitlines()[-2 if ended.code == FAULT else -LAST_LINES :]
    said = describer.text("\n".join(lines))
    return {
        "line": " ".join(words),
        "code": ended.code,
        "stdout": "VARIES" if case.measures_time else printed,
        "stderr": "VARIES" if case.measures_time else said,
        "files": describe_files(written, describer, case.only),
    }


def describe_files(folder: Path, describer: Describer, only: str = "**/*") -> dict[str, Any]:
    """Every file below a folder but those of checkpoints."""
    return {
        str(path.relative_to(folder)): describer.file(path)
        for path in sorted(folder.glob(only))
        if path.is_file() and "checkpoints" not in path.parts
    }


def record(
    target: Path,
    artefacts: Path | None,
    readers: Sequence[Case],
    only: str = "",
    quick: bool = False,
) -> int:
    """Record all cases, `readers` of artefacts too; `only` is a pattern of names."""
    start = time.monotonic()
    if target.exists():
        shutil.rmtree(target)
    (target / "cases").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="net-") as name:
        folder = Path(name).resolve()
        shell = Shell(folder)
        words = {str(folder): "FOLDER", str(SOURCE): "SOURCE", str(ROOT): "ROOT"}
        describer = Describer(words)
        prepare(folder, artefacts)
        describer.learn(folder)
        save(target, "inputs", describe_files(folder / "models", describer))
        with ThreadPoolExecutor(WORKERS) as pool:
            for jobs in stages(shell, describer, target, readers):
                chosen = [
                    job
                    for key, job in jobs.items()
                    if re.search(only, key) and not (quick and key in SLOW)
                ]
                for _ in pool.map(lambda job: job(), chosen):
                    pass
        shell.close()
    number = len([*(target / "cases").iterdir()])
    about = {"bilens": str(SOURCE), "torch": torch.__version__, "cases": number}
    (target / "about.json").write_text(json.dumps(about, indent=1))
    print(f"{number} cases of {SOURCE} in {time.monotonic() - start:.0f} s: {target}")
    return 0


def prepare(folder: Path, artefacts: Path | None) -> None:
    """Everything that the cases read."""
    inputs.make(folder)
    foreign.make(folder)
    if artefacts is not None:
        shutil.copytree(artefacts, folder / "old")


def stages(shell: Shell, describer: Describer, target: Path, readers: Sequence[Case]) -> list[Jobs]:
    """Jobs by name; those of a stage may run at once."""

    def command(case: Case) -> Callable[[], None]:
        return lambda: save(target, case.name, record_command(case, shell, describer))

    def group(name: str) -> Callable[[], None]:
        return lambda: record_calls(name, shell.folder, target, describer)

    lines = [*cases(), *readers]
    lines.sort(key=lambda case: case.stage)
    found = [
        {case.name: command(case) for case in part}
        for _, part in groupby(lines, key=lambda case: case.stage)
    ]
    groups = {f"calls_{name}": group(name) for name in calls.GROUPS if readers or name != "old"}
    found[-1] = {**groups, **found[-1]}  # the long ones first
    return found


def record_calls(group: str, folder: Path, target: Path, describer: Describer) -> None:
    """Run one group of calls in a process of its own."""
    written = folder / "calls" / f"{group}.json"
    written.parent.mkdir(exist_ok=True)
    ended = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", "tools.net.calls", group, str(written)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads(written.read_text("utf-8")) if written.exists() else {}
    if ended.returncode:
        results["crash"] = ended.stderr.splitlines()[-3:]
    for name in ("estimator", "sae_saelens", "sae_sparsify", "sae_official", "llama"):
        describer.learn(folder, f"out/{name}")
    for name, result in results.items():
        save(target, f"call_{group}_{name}", describer.document(result))


def save(target: Path, name: str, result: Any) -> None:
    """The file of one case."""
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (target / "cases" / f"{name}.json").write_text(text + "\n", "utf-8")
