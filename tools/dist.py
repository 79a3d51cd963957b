"""Builds the wheels and source archives of the three distributions, and checks what is in them.

`python -m tools.dist OUT --repository ADDRESS`, which `make dist` does. A page of an index shows no
other file of ours: links of the READMEs become addresses in the repository, at the tag of the
version, or plain text where no repository is given.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSION: str = runpy.run_path(str(ROOT / "src/bilens/version.py"))["VERSION"]
DISTRIBUTIONS = {"bilens": "", "bilens-explorer": "explorer", "bilens-studies": "studies"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|#")  # an address, or a place on the same page
IN_WHEEL = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
IN_ARCHIVE = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
METADATA = {"Version": VERSION, "License-Expression": "Apache-2.0", "Requires-Python": ">=3.11"}


def link_readme(text: str, folder: str, repository: str) -> str:
    """Return a README whose links lead into the repository; without one, they are plain text."""

    def linked(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if ELSEWHERE.match(target):
            return found[0]
        if not repository:
            return "" if picture else words
        path, hash_mark, anchor = target.partition("#")
        file = (ROOT / folder / path).resolve().relative_to(ROOT)
        kind = "raw" if picture else "blob"
        address = f"{repository}/{kind}/v{VERSION}/{file.as_posix()}{hash_mark}{anchor}"
        return f"{picture}[{words}]({address})"

    return LINK.sub(linked, text)


def source_files(folder: str) -> set[str]:
    """Return the files of a distribution's packages, by their place in `src`."""
    source = ROOT / folder / "src"
    return {
        file.relative_to(source).as_posix()
        for file in source.rglob("*")
        if file.is_file() and file.suffix != ".pyc" and ".egg-info" not in str(file)
    }


def stage_source(folder: str, into: Path, repository: str) -> None:
    """Copy what a distribution is built from, with the README and the addresses of its index."""
    for name in source_files(folder):
        file = into / "src" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / folder / "src" / name, file)
    shutil.copy(ROOT / "LICENSE", into)
    readme = (ROOT / folder / "README.md").read_text("utf-8")
    (into / "README.md").write_text(link_readme(readme, folder, repository), "utf-8")
    about = (ROOT / folder / "pyproject.toml").read_text("utf-8")
    if repository:
        changes = f"{repository}/blob/v{VERSION}/CHANGELOG.md"
        about += f'\n[project.urls]\nRepository = "{repository}"\nChangelog = "{changes}"\n'
    (into / "pyproject.toml").write_text(about, "utf-8")


def build_distributions(out: Path, repository: str = "") -> list[Path]:
    """Build all archives into an empty folder, each wheel from its source archive; return them."""
    for folder in DISTRIBUTIONS.values():
        with tempfile.TemporaryDirectory() as place:
            stage_source(folder, Path(place), repository)
            build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), place]
            done = subprocess.run(build, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                sys.exit(f"{folder or 'bilens'} was not built:\n{done.stdout}{done.stderr}")
    return sorted(out.iterdir())


def files_in(archive: Path) -> dict[str, bytes]:
    """Return the files of a wheel, or those of a source archive by their place in its folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as packed:
        members = [member for member in packed.getmembers() if member.isfile()]
        return {one.name.partition("/")[2]: packed.extractfile(one).read() for one in members}  # type: ignore[union-attr]


def find_faults(archive: Path) -> Iterator[str]:
    """Yield what is wrong with an archive: files, paths of this machine, metadata, links."""
    files = files_in(archive)
    name = archive.name.split("-")[0]
    sources = source_files(DISTRIBUTIONS[name.replace("_", "-")])
    if archive.suffix == ".whl":
        about = f"{name}-{VERSION}.dist-info"
        expected, metadata = sources | {f"{about}/{one}" for one in IN_WHEEL}, f"{about}/METADATA"
    else:
        made = {file for file in files if file.startswith(f"src/{name}.egg-info/")}
        expected = {f"src/{one}" for one in sources} | IN_ARCHIVE | made
        metadata = "PKG-INFO"
    yield from (f"has no {one}" for one in sorted(expected - {*files}))
    yield from (f"has {one} besides" for one in sorted({*files} - expected))
    here = str(ROOT).encode()
    yield from (
        f"{one} names a path of this machine" for one, text in files.items() if here in text
    )
    told = message_from_bytes(files[metadata])
    yield from (
        f"{key} is {told[key]}, not {value}"
        for key, value in METADATA.items()
        if told[key] != value
    )
    links = [target for *_, target in LINK.findall(str(told.get_payload()))]
    yield from (f"its page links to {one}" for one in links if not ELSEWHERE.match(one))
    url = {line.partition(", ")[0] for line in told.get_all("Project-URL", [])}
    if url not in (set(), {"Repository", "Changelog"}):
        yield f"its addresses are {url}"


def main() -> None:
    """Build, check, and say the size of each archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the archives; emptied")
    parser.add_argument("--repository", default="", help="address of the repository, https://…")
    given = parser.parse_args()
    if given.out.exists() and {one.suffix for one in given.out.iterdir()} - {".whl", ".gz"}:
        sys.exit(f"{given.out} holds other files than archives: name another folder.")
    shutil.rmtree(given.out, ignore_errors=True)
    archives = build_distributions(given.out, given.repository.rstrip("/"))
    faults = [f"{one.name} {fault}" for one in archives for fault in find_faults(one)]
    for one in archives:
        print(f"{one.name}: {one.stat().st_size / 1e6:.2f} MB, {len(files_in(one))} files")
    if faults:
        sys.exit("\n".join(faults))
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)]
    sys.exit(subprocess.run(check, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
