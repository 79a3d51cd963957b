"""What an installation weighs and takes, and whether it works: the wheels in empty environments.

They are built as `make dist` does, installed by pip into environments that hold nothing, and used
in a folder outside of the checkout. Run it with `make bench-installation`; it writes
docs/benchmarks/installation.json and the page.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from tools.dist import VERSION, build_distributions

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
INSTALLED = ("bilens", "bilens[explorer]")
COMMANDS = {  # what a first look does
    "bilens demo": ["demo", "--out", "runs/demo"],
    "bilens audit": ["audit", "runs/demo", "--history", "runs", "--json"],
}
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")
WHERE = "import bilens, torch; print(bilens.__version__, bilens.__file__, torch.__version__)"


def run_program(
    words: list[str], folder: Path, environment: Mapping[str, str]
) -> tuple[str, dict[str, float]]:
    """Return what a program printed, and its seconds: on the clock, of processors; or exit."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(  # noqa: S603 - of the environment that was just made
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    waited, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"clock": waited, "processor": worked}


def serve_once(
    program: Path, folder: Path, environment: Mapping[str, str]
) -> tuple[float, int, str]:
    """Serve a folder; return seconds until the first page is there, its status and its text."""
    words = [str(program), "serve", ".", "--port", "0", "--no-open"]
    began = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - of the environment that was just made
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        said = server.stdout or ()
        found = next((address for line in said if (address := ADDRESS.search(line))), None)
        if found is None:
            sys.exit(f"{' '.join(words)} gave no address.")
        try:
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            browser.open(found[0], timeout=60).close()  # the token becomes a cookie
            with browser.open(found[0].partition("?")[0], timeout=60) as answer:
                page = answer.read().decode()
                return time.perf_counter() - began, answer.status, page
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)


def megabytes_in(folder: Path) -> float:
    """Return the size of the files below a folder, links left out."""
    files = (one for one in folder.rglob("*") if one.is_file() and not one.is_symlink())
    return sum(one.stat().st_size for one in files) / 1e6


def install(name: str, archives: Path, home: Path) -> dict[str, Any]:
    """Install one thing into an empty environment in `home`, and measure it."""
    environment = {key: one for key, one in os.environ.items() if not key.startswith("PYTHON")}
    programs = home / "env" / "bin"
    run_program([sys.executable, "-m", "venv", str(home / "env")], home, environment)
    line = [str(programs / "pip"), "install", "--quiet", "--find-links", str(archives), name]
    _, seconds = run_program(line, home, environment)
    told, _ = run_program([str(programs / "python"), "-c", WHERE], home, environment)
    version, place, torch = told.split()
    if version != VERSION or home not in Path(place).parents:
        sys.exit(f"{place} of version {version} was imported, which is not what was installed.")
    packages = Path(place).parents[1]
    sizes = {one.name: megabytes_in(one) for one in packages.iterdir() if one.is_dir()}
    found: dict[str, Any] = {
        "name": name,
        "seconds": seconds["clock"],
        "packages": len([*packages.glob("*.dist-info")]),
        "megabytes": megabytes_in(packages),
        "torch": {"version": torch, "megabytes": sizes["torch"]},
        "ours": sum(size for one, size in sizes.items() if one.startswith("bilens")),
    }
    if name != INSTALLED[0]:
        program = programs / "bilens"
        found["commands"] = {
            label: run_program([str(program), *words], home, environment)[1]
            for label, words in COMMANDS.items()
        }
        waited, status, _ = serve_once(program, home / "runs", environment)
        if status != 200:
            sys.exit(f"the first page of bilens serve has the status {status}.")
        found["first_page"] = waited
    return found


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    run = result["run"]
    installed = "\n".join(
        f'| `pip install "{one["name"]}"` | {one["seconds"]:,.0f} | {one["packages"]} | '
        f"{one['megabytes']:,.0f} | {one['torch']['megabytes']:,.0f} | {one['ours']:.1f} |"
        for one in result["installed"]
    )
    archives = "\n".join(f"| {name} | {size:.2f} |" for name, size in result["archives"].items())
    commands = "\n".join(
        f"| {name} | {took['clock']:.0f} | {took['processor']:.0f} |"
        for name, took in result["installed"][-1]["commands"].items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return f"""# Installation: what it weighs, how long it takes

Generated by `make bench-installation` from `installation.json`; do not edit. The wheels, built
as a release builds them, in empty environments.

| what | seconds | packages | MB | of them torch | of them ours |
|---|---|---|---|---|---|
{installed}

| archive | MB |
|---|---|
{archives}

Then, in a folder outside of the checkout:

| command | seconds | of processors |
|---|---|---|
{commands}

`bilens serve` shows its first page after {result["installed"][-1]["first_page"]:.1f} s.

* torch is {result["installed"][0]["torch"]["version"]}. That for CUDA, which Linux gets where no
  other index is named, weighs several GB.
* Seconds are on the clock of a machine with other work: those of pip with downloads, but for what
  it had kept or lay on the disk. MB are of the files in `site-packages`, bytecode included.
* {run["date"]}; {run["hardware"]}; {versions}.
"""


def main() -> None:
    """Run the benchmark, write its result and page."""
    with tempfile.TemporaryDirectory() as place:
        archives = Path(place) / "dist"
        sizes = {one.name: one.stat().st_size / 1e6 for one in build_distributions(archives)}
        installed = []
        for number, name in enumerate(INSTALLED):
            home = Path(place) / str(number)
            home.mkdir()
            installed.append(install(name, archives, home))
    about = to_json(describe_run("make bench-installation", 0))
    result = {"archives": sizes, "installed": installed, "run": about}
    (PAGE / "installation.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "installation.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
