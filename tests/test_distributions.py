"""What is built of the sources holds all of them, and works where nothing else of ours is.

Broken once: with the templates left out of the package data, a test in a source archive, a link of
the README that stayed relative, a tag that is not the version, and a Containerfile without `src`.
"""

import fnmatch
import re
import shutil
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.installation import serve_once
from bilens.version import VERSION
from commands import FILE, model_folder
from github_runner import Ended, run_steps
from offline_environment import Container, make_environment
from tools.dist import DISTRIBUTIONS, ELSEWHERE, LINK, find_faults, link_readme, source_files

ROOT = Path(__file__).parents[1]
PLACE = "https://code.example/owner/bilens"
GITHUB = {
    "GITHUB_REF_NAME": f"v{VERSION}",
    "GITHUB_SERVER_URL": "https://code.example",
    "GITHUB_REPOSITORY": "owner/bilens",
}


@pytest.mark.parametrize("folder", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_every_file_beside_the_modules_is_in_the_package_data(folder: str) -> None:
    about = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))
    ((package, patterns),) = about["tool"]["setuptools"]["package-data"].items()
    inside = [name.removeprefix(f"{package}/") for name in source_files(folder)]
    others = [name for name in inside if not name.endswith(".py")]
    assert others
    missing = [x for x in others if not any(fnmatch.fnmatch(x, one) for one in patterns)]
    assert not missing


def test_the_links_of_a_readme_lead_into_the_repository() -> None:
    text = "[a](../docs/a.md#b), ![c](d.svg), [e](https://x.example), [f](#f)"
    assert link_readme(text, "explorer", PLACE) == (
        f"[a]({PLACE}/blob/v{VERSION}/docs/a.md#b), ![c]({PLACE}/raw/v{VERSION}/explorer/d.svg), "
        "[e](https://x.example), [f](#f)"
    )
    assert link_readme(text, "explorer", "") == "a, , [e](https://x.example), [f](#f)"
    for folder in DISTRIBUTIONS.values():
        readme = link_readme((ROOT / folder / "README.md").read_text("utf-8"), folder, PLACE)
        assert all(ELSEWHERE.match(target) for *_, target in LINK.findall(readme))


# ---- the workflow of a release


def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8")))


def test_a_job_may_do_what_it_needs_and_no_more() -> None:
    jobs = workflow()["jobs"]
    assert workflow()["permissions"] == {}
    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "build": {"contents": "read"},
        "try": None,
        "publish": {"id-token": "write"},
    }
    steps = [step for job in jobs.values() for step in job["steps"]]
    for step in steps:
        assert "${{" not in step.get("run", ""), "an input is never a part of a script"
        assert re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", step.get("uses", "a@v1"))
    checkout = next(step for step in steps if "checkout" in step.get("uses", ""))
    assert checkout["with"] == {"persist-credentials": False}
    assert "secrets" not in str(workflow())


def test_each_distribution_is_published_from_an_environment_of_its_own() -> None:
    publish = workflow()["jobs"]["publish"]
    assert publish["strategy"]["matrix"]["distribution"] == [*DISTRIBUTIONS]
    assert publish["environment"] == "pypi-${{ matrix.distribution }}"
    assert (publish["needs"], workflow()["jobs"]["try"]["needs"]) == ("try", "build")
    versions = workflow()["jobs"]["try"]["strategy"]["matrix"]["python"]
    for folder in DISTRIBUTIONS.values():
        about = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
        told = [x.rpartition(" ")[2] for x in about["classifiers"] if "Python :: 3" in x]
        assert told == versions


def run_job(name: str, folder: Path, environment: dict[str, str], **matrix: str) -> Ended:
    runner = folder.parent / f"{folder.name} runner"
    runner.mkdir(exist_ok=True)
    ended, values = Ended(), {f"matrix.{key}": value for key, value in matrix.items()}
    run_steps(workflow()["jobs"][name]["steps"], values, folder, environment, runner, ended)
    return ended


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    for name in ("build", "twine"):
        pytest.importorskip(name, reason="the extra `release` installs it")
    return make_environment(tmp_path_factory.mktemp("environment")) | GITHUB


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A copy of the checkout in which the job `build` ran."""
    folder = tmp_path_factory.mktemp("build") / "checkout"
    for name in ("src", "explorer", "studies", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    ended = run_job("build", folder, environment)
    assert ended.code == 0, ended.said
    assert ended.said.count("PASSED") == 6
    assert ended.used[-1][1]["path"] == "dist/"
    return folder


@pytest.mark.slow
def test_another_tag_builds_nothing(built: Path, environment: dict[str, str]) -> None:
    ended = run_job("build", built, environment | {"GITHUB_REF_NAME": "v9.9.9"})
    assert ended.code == 1
    assert f"The tag is v9.9.9, and src/bilens/version.py says {VERSION}" in ended.said
    assert "PASSED" not in ended.said


@pytest.mark.slow
def test_archives_hold_all_sources_and_nothing_else(built: Path, tmp_path: Path) -> None:
    archives = sorted((built / "dist").iterdir())
    assert len(archives) == 6
    assert not [fault for one in archives for fault in find_faults(one)]
    wheel = next(one for one in archives if one.name.startswith("bilens-") and one.suffix == ".whl")
    odd = tmp_path / wheel.name
    shutil.copy(wheel, odd)
    with zipfile.ZipFile(odd, "a") as packed:
        packed.writestr("tests/test_x.py", f"HERE = {str(ROOT)!r}")
    assert [*find_faults(odd)] == [
        "has tests/test_x.py besides",
        "tests/test_x.py names a path of this machine",
    ]


@pytest.mark.slow
def test_the_wheels_alone_do_what_a_first_look_does(
    built: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "somewhere"
    shutil.copytree(built / "dist", folder / "dist")
    ended = run_job("try", folder, environment)
    assert ended.code == 0, ended.said
    assert (folder / "runs/demo/report.html").stat().st_size > 100_000
    assert "<script" in (folder / "explorer.html").read_text("utf-8")
    program = Path(environment["PATH"].split(":")[0]) / "bilens"
    _, status, page = serve_once(program, folder / "runs", environment)
    assert status == 200
    assert "demo" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_only_the_archives_of_a_distribution_are_published(
    built: Path, environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "publish"
    shutil.copytree(built / "dist", folder / "dist")
    ended = run_job("publish", folder, environment, distribution=name)
    assert ended.code == 0, ended.said
    assert ended.used[-1] == ("pypa/gh-action-pypi-publish@release/v1", {"packages-dir": "upload/"})
    stem = f"{name.replace('-', '_')}-{VERSION}"
    assert sorted(one.name for one in (folder / "upload").iterdir()) == [
        f"{stem}-py3-none-any.whl",
        f"{stem}.tar.gz",
    ]


# ---- the container


@pytest.mark.slow
def test_the_steps_of_the_container_install_a_bilens_that_runs(tmp_path: Path) -> None:
    """In a folder in place of `/`, with the Python of the tests in place of the image's."""
    for name in ("setuptools", "mlxtend"):
        pytest.importorskip(name)
    home = tmp_path / "python"
    container = Container(tmp_path / "root", ROOT, make_environment(home))
    container.build(ROOT / "Containerfile")
    assert container.base.startswith("python:3.")
    assert container.user == "10001", "not as root"
    assert container.entry == ["bilens"]
    assert container.run("--version").stdout.split()[-1] == VERSION
    model_folder(container.folder / "model")
    audit = container.run("audit", "model", "--null-samples=39", "--json")
    assert audit.returncode == 0, audit.stderr
    assert '"kind":"audit"' in audit.stdout.replace(" ", "")
    assert container.run("audit", "nowhere").returncode == FILE
    for command in ("serve", "reproduce"):
        assert container.run(command, "--help").returncode == 0
    (at,) = home.glob("lib/python*/site-packages/bilens/__init__.py")
    assert not at.is_symlink()


def test_the_context_of_the_container_is_what_it_copies() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    kept = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(kept)
