"""What a release says of itself: one version, a changelog of one screen, promises that tests hold.

Broken once: with another version in CITATION.cff, a fragment of a kind that nobody knows (towncrier
leaves it out without a word), a dependency that the recipe lacks, a promise that no test holds.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bilens.version import VERSION

ROOT = Path(__file__).parents[1]
SCREEN = 60  # lines
WIDEST = 170  # characters
FRAGMENT = re.compile(r"\+[\w-]+\.(\w+)\.md")
CONDA_NAMES = {"torch": "pytorch"}
# Promise of the README → the tests that hold it.
HELD = {
    "public names, their parameters and attributes": (
        "tests/test_frozen_names.py::test_public_names_are_a_promise",
        "tests/test_frozen_names.py::test_a_signature_is_a_promise",
        "tests/test_frozen_names.py::test_attributes_of_a_record_are_a_promise",
        "tests/test_frozen_names.py::test_every_public_signature_is_frozen",
    ),
    "commands, their options and exit codes": (
        "tests/cli/test_help.py::test_no_command_is_missing_from_the_frozen_list",
        "tests/cli/test_help.py::test_the_options_of_a_command_are_a_promise",
        "tests/base/test_errors.py::"
        "test_every_error_has_the_exit_code_that_the_command_line_promises",
    ),
    "names of saved weights, and keys of the `config.json` beside them": (
        "tests/nn/test_mlp.py::test_saved_names_are_a_promise",
        "tests/nn/test_transformer.py::test_saved_names_are_a_promise",
        "tests/nn/test_huggingface.py::test_the_configuration_is_a_promise",
        "tests/nn/test_polynomial_transformer.py::test_config_json_is_a_promise",
        "tests/io/test_model_folder.py::test_config_json_is_a_promise",
    ),
    "fields of the JSON documents, and what kind of value each holds": (
        "tests/records/test_frozen_fields.py::test_fields_are_a_promise",
        "tests/records/test_frozen_fields.py::test_what_is_added_has_a_default",
        "tests/records/test_frozen_fields.py::test_another_second_number_asks_for_a_new_list",
        "tests/records/test_documents.py::test_another_schema_version_is_refused_in_one_sentence",
    ),
}


def project(folder: str = "") -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"])


def recipe() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "conda/recipe.yaml").read_text("utf-8")))


def test_the_version_is_the_same_wherever_it_is_said() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    said = {"CITATION.cff": citation["version"], "recipe.yaml": recipe()["context"]["version"]}
    for folder in ("explorer", "studies"):
        about = project(folder)
        said[folder] = about["version"]
        (said[f"bilens of {folder}"],) = (
            one.removeprefix("bilens==") for one in about["dependencies"] if "bilens" in one
        )
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    said["CHANGELOG.md"] = newest[1] if newest else ""
    assert said == dict.fromkeys(said, VERSION)


# ---- the changelog


def test_the_section_of_a_release_is_one_screen() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    head, *releases = re.split(r"(?m)^(?=## )", text)
    assert "<!-- releases -->\n" in head
    assert releases
    for section in releases:
        lines = section.splitlines()
        assert len(lines) <= SCREEN, lines[0]
        assert max(map(len, lines)) <= WIDEST, lines[0]


def kinds() -> set[str]:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return {one["directory"] for one in about["tool"]["towncrier"]["type"]}


def odd_fragments(folder: Path) -> list[str]:
    """Files that towncrier would leave out of the changelog, or that say nothing."""
    found = sorted(one for one in folder.iterdir() if one.name not in (".gitignore", "README.md"))
    fits = {one: FRAGMENT.fullmatch(one.name) for one in found}
    return [
        one.name
        for one, match in fits.items()
        if match is None or match[1] not in kinds() or not one.read_text("utf-8").strip()
    ]


def test_a_fragment_is_of_a_kind_that_the_changelog_has(tmp_path: Path) -> None:
    assert odd_fragments(ROOT / "changelog.d") == []
    names = ["+a.added.md", "+b.feature.md", "12.fixed.md", "+c.fixed", "+d.removed.md"]
    for name in names:
        (tmp_path / name).write_text("" if name == "+d.removed.md" else "Something.")
    assert odd_fragments(tmp_path) == sorted(names[1:])


def test_fragments_become_a_section_above_the_last(tmp_path: Path) -> None:
    pytest.importorskip("towncrier", reason="the extra `release` installs it")
    (tmp_path / "changelog.d").mkdir()
    for name in ("CHANGELOG.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    for kind in kinds():
        (tmp_path / f"changelog.d/+one.{kind}.md").write_text(f"What was {kind}.\n")
    line = [sys.executable, "-m", "towncrier", "build", "--keep", "--version", "9.8.7"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "CHANGELOG.md").read_text("utf-8")
    new, old = text.index("## 9.8.7 — "), text.index(f"## {VERSION}")
    assert new < old
    assert all(f"- What was {kind}.\n" in text[new:old] for kind in kinds())
    assert re.findall(r"^### (\w+)", text[new:old], re.MULTILINE) == sorted(
        kind.title() for kind in kinds()
    )


# ---- what may change


def test_every_promise_of_the_readme_is_held_by_tests() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.partition("## What may change, and when\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\* (.*?)[;.]$", section, re.MULTILINE) == [*HELD]
    for place in (test for tests in HELD.values() for test in tests):
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), place


# ---- the conda recipe


@pytest.mark.parametrize(("index", "folder"), [(0, ""), (1, "explorer")])
def test_the_recipe_installs_what_the_distribution_asks_for(index: int, folder: str) -> None:
    about, output = project(folder), recipe()["outputs"][index]
    assert output["package"]["name"] == about["name"]
    python, *runs = output["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert about["requires-python"] == f">={recipe()['context']['python_min']}"
    wanted = [re.sub(r"(?=[>=]=)", " ", one, count=1) for one in about["dependencies"]]
    renamed = [" ".join([CONDA_NAMES.get(n, n), v]) for n, v in (one.split() for one in wanted)]
    assert runs == [one.replace(f"=={VERSION}", "==${{ version }}") for one in renamed]
    entries = output["build"].get("python", {}).get("entry_points", [])
    assert entries == [f"{name} = {at}" for name, at in about.get("scripts", {}).items()]
    assert output["about"]["license"] == about["license"]
    built = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["build-system"]
    assert [one.replace(" ", "") for one in output["requirements"]["host"][2:]] == built["requires"]


def test_the_recipe_is_one_that_rattler_build_renders() -> None:
    rattler = pytest.importorskip("rattler_build", reason="the extra `release` installs it")
    found = rattler.Stage0Recipe.from_file(ROOT / "conda/recipe.yaml")
    rendered = [one.recipe for one in found.render(rattler.VariantConfig(), rattler.RenderConfig())]
    assert [(one.package.name, one.package.version) for one in rendered] == [
        ("bilens", VERSION),
        ("bilens-explorer", VERSION),
    ]
    assert f"bilens =={VERSION}" in map(str, rendered[1].requirements.run)
