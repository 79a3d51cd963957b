"""An environment of its own into which pip installs without an index, and a container's steps.

What bilens needs is there already, as links to the packages of the tests; bilens itself is not.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import tiny

OURS = re.compile(r"bilens|__editable__|_virtualenv|__pycache__|easy-install|distutils-precedence")
CONTINUED = re.compile(r"\\\n\s*")


def make_environment(folder: Path) -> dict[str, str]:
    """Make an environment in a folder; return the variables with which its programs run."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / "needed"
    packages.mkdir()
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for item in Path(path).iterdir():
            if not OURS.match(item.name):
                (packages / item.name).symlink_to(item)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "needed.pth").write_text(f"{packages}\n")
    pip = folder / "bin/pip"
    pip.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    pip.chmod(0o755)
    variables = tiny.environment(
        PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",  # which is how pip spells that there is none
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    variables.pop("PYTHONPATH", None)
    variables.pop("PIP_FIND_LINKS", None)
    return variables


def instructions(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Containerfile in order, each with its text."""
    lines = [one for one in file.read_text("utf-8").splitlines() if not one.startswith("#")]
    for line in CONTINUED.sub(" ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.partition(" ")
            yield name, text.strip()


class Container:
    """Takes the steps of a Containerfile in a folder that stands for `/`, and runs what came."""

    def __init__(self, root: Path, context: Path, environment: dict[str, str]) -> None:
        self.root, self.context, self.environment = root, context, dict(environment)
        self.folder, self.user, self.entry, self.base = root, "0", list[str](), ""
        programs = root / "stand-ins"
        programs.mkdir(parents=True)
        add = programs / "useradd"  # the users of this machine are none of its business
        add.write_text(f'#!/bin/sh\nprintf "%s " "$@" >> "{root}/users"\n')
        add.chmod(0o755)
        self.environment["PATH"] = f"{programs}:{environment['PATH']}"

    def build(self, file: Path) -> None:
        for name, text in instructions(file):
            getattr(self, f"take_{name.lower()}")(text)

    def take_from(self, text: str) -> None:
        self.base = re.sub(r"\$\{(\w+)\}", lambda found: self.environment[found[1]], text)

    def take_arg(self, text: str) -> None:
        name, given, value = text.partition("=")
        if given:
            self.environment.setdefault(name, value)

    def take_run(self, text: str) -> None:
        shell = ["/bin/sh", "-ec", text]
        done = subprocess.run(
            shell, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"

    def take_workdir(self, text: str) -> None:
        self.folder = self.root / text.lstrip("/")
        self.folder.mkdir(parents=True, exist_ok=True)

    def take_copy(self, text: str) -> None:
        *sources, target = shlex.split(text)
        into = self.folder / target
        for source in sources:
            found = self.context / source
            place = into if found.is_dir() else into / found.name
            place.parent.mkdir(parents=True, exist_ok=True)
            kept = ["cp", "-r", "-L", "--", str(found), str(place)]
            subprocess.run(kept, check=True)

    def take_user(self, text: str) -> None:
        known = (self.root / "users").read_text().split()
        assert text in known, f"USER {text}, and RUN useradd {' '.join(known)}"
        self.user = text

    def take_entrypoint(self, text: str) -> None:
        self.entry = json.loads(text)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run what the container starts with, in its last folder."""
        return subprocess.run(
            [*self.entry, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
