"""What is installed beside bilens: the library does not know it, and it knows public names.

Broken once: by an import of `bilens.algebra.hosvd` in a study, by one of `bilens_studies` in
`io/load.py`, and by a command whose module raised an error when it was imported.
"""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bilens
import tiny
from bilens.base.errors import MissingExtraError

SOURCE = Path(bilens.__file__).parent
ROOT = Path(__file__).parents[1]
SATELLITES = {
    "bilens_studies": ROOT / "studies" / "src" / "bilens_studies",
    "bilens_explorer": ROOT / "explorer" / "src" / "bilens_explorer",
}
# May be imported by a satellite: what users import, the errors, what a command is written with, and
# what the packages of the library offer to others (their `__init__.pyi`).
PUBLIC = {f"bilens{part}" for part in ("", ".certify", ".nn", ".plot", ".sklearn")}
PUBLIC |= {"bilens.base.errors", "bilens.cli.console", "bilens.cli.options"}
OFFERED = {f"bilens.{folder.parent.name}" for folder in SOURCE.glob("*/__init__.pyi")}
ASKED = {"reproduction.py"}  # the one place where the library names a satellite: `bl.reproduce`


def modules_imported_by(file: Path) -> Iterator[str]:
    """The modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else str(node.module) for name in inner)


def is_module(name: str) -> bool:
    place = SOURCE.parent.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def test_the_library_does_not_import_its_satellites() -> None:
    for file in SOURCE.rglob("*.py"):
        known = {name.split(".")[0] for name in modules_imported_by(file)} & set(SATELLITES)
        assert not known or file.name in ASKED, f"{file.relative_to(SOURCE)} imports {known}"


def names_imported_by(file: Path) -> Iterator[tuple[str, str]]:
    """The modules of bilens that a file imports from, each with the name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "bilens":
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("name", SATELLITES)
def test_a_satellite_imports_public_names_and_nothing_else(name: str) -> None:
    for file in SATELLITES[name].rglob("*.py"):
        modules = {one for one in modules_imported_by(file) if one.split(".")[0] == "bilens"}
        inside = modules - PUBLIC - OFFERED
        assert not inside, f"{file.name}: {inside}; offer what it needs in an __init__.pyi"


@pytest.mark.parametrize("package", sorted(OFFERED))
def test_what_a_package_offers_is_there_says_what_it_is_and_is_used(package: str) -> None:
    offered = importlib.import_module(package)
    silent = [
        name
        for name in offered.__all__
        if inspect.isroutine(item := getattr(offered, name)) or inspect.isclass(item)
        if not inspect.getdoc(item)
    ]
    assert not silent
    used = {
        imported
        for folder in SATELLITES.values()
        for file in folder.rglob("*.py")
        for module, imported in names_imported_by(file)
        if module == package
    }
    assert package == "bilens.certify" or {*offered.__all__} <= used, (
        "nobody imports it: take it out"
    )


@pytest.mark.parametrize("name", SATELLITES)
def test_the_modules_of_a_satellite_import_each_other_in_no_circle(name: str) -> None:
    folder = SATELLITES[name]
    graph = {
        ".".join(file.relative_to(folder.parent).with_suffix("").parts): {
            x for x in modules_imported_by(file) if x.startswith(f"{name}.")
        }
        for file in folder.rglob("*.py")
        if file.stem != "__init__"
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", SATELLITES)
def test_a_satellite_has_the_version_of_bilens(name: str) -> None:
    about = tomllib.loads((SATELLITES[name].parents[1] / "pyproject.toml").read_text())
    assert about["project"]["version"] == bilens.__version__


def test_without_the_studies_the_name_is_there_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bilens.reproduction.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="run `pip install bilens-studies`"):
        bilens.reproduce("toy", "runs")


GREET = '''
from bilens.cli.options import expand

def greet(output, name: str, loud: bool = False) -> None:
    """Say hello to a name."""
    output.answer({"schema_version": 1, "hello": name}, f"hello {name}")

plain = expand(greet, as_json=False)
'''


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the metadata of a distribution of two commands, one of which is broken."""
    about = tmp_path / "greetings-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: greetings\nVersion: 1.0\nSummary: Say hello.\n")
    names = ["greet = greeting:greet", "plain = greeting:plain", "wave = waving:wave"]
    names.append("audit = greeting:greet")
    (about / "entry_points.txt").write_text("\n".join(["[bilens.commands]", *names, ""]))
    (tmp_path / "greeting.py").write_text(GREET)
    (tmp_path / "waving.py").write_text("import nothing_of_this_name\n")
    return tmp_path


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    """Run `bilens` where a folder is on the path: exit code, stdout and stderr."""
    paths = ":".join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "bilens", *words],
        capture_output=True,
        text=True,
        env=tiny.environment(PYTHONPATH=paths, COLUMNS="100"),
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_command_of_another_distribution_is_listed_without_an_import_and_runs(
    installed: Path,
) -> None:
    code, out, err = run(installed, "--help")
    assert (code, err) == (0, "")  # with the broken one among them
    assert [line.split()[1:4] for line in out.splitlines() if "Say hello." in line] == [
        ["greet", "Say", "hello."],
        ["plain", "Say", "hello."],
        ["wave", "Say", "hello."],
    ]  # and `audit` is that of bilens
    assert run(installed, "greet", "you") == (0, "hello you\n", "")
    assert '"hello": "you"' in run(installed, "greet", "you", "--json")[1]
    assert "--loud" in run(installed, "greet", "--help")[1]
    assert "--json" not in run(installed, "plain", "--help")[1]
    assert "html" in run(installed, "audit", "--help")[1]


def test_a_command_that_cannot_be_imported_says_so_in_one_line(installed: Path) -> None:
    code, out, err = run(installed, "wave")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: the command 'wave' of greetings cannot be imported (Module")
    assert "install greetings again, or uninstall it" in err
