"""The site of the pages: five doors, each page behind one, and nothing is asked of a network.

Broken once: with a page that no door has, a link too few on the first page, the worker that the
plugin for offline sites fetches, and a search that looks for its word lists in another folder.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chromium import needs_browser
from test_docs import BUILT, PAGES, REPOSITORY, anchors_of, prose
from tools.page_parts import MOST_BYTES
from tools.site.__main__ import build_site
from tools.site.gather import notebook_page, site_text
from tools.site.look import (
    CLICKS,
    TASKS,
    Page,
    broken_links,
    clicks_to,
    outside_requests,
    read_site,
    search,
)

DOORS = ["start", "look into a model", "approve a model", "prove", "extend"]
BEHIND = ("docs/benchmarks/", "docs/reproduction")  # reached from the pages on what was measured
JAPANESE = REPOSITORY / "docs/ja"
WANTED = ("mkdocs", "material", "latex2mathml")


def test_there_are_five_doors_and_each_page_is_behind_one() -> None:
    nav = (REPOSITORY / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    assert re.findall(r"^  - ([^:]+):$", nav, re.MULTILINE) == DOORS
    found = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert len(found) == len({*found})
    built = {path.relative_to(REPOSITORY).as_posix() for path in BUILT}
    notebooks = {f"docs/notebooks/{path.stem}.md" for path in REPOSITORY.glob("docs/*/*.ipynb")}
    kept = {page.relative_to(REPOSITORY).as_posix() for page in PAGES}
    assert {*found} <= kept | built | notebooks
    assert notebooks <= {*found}
    pages = {page for page in kept if page.startswith("docs/") and not page.startswith(BEHIND)}
    assert pages <= {*found}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_two_clicks_from_the_first_page(task: str) -> None:
    path, anchor = TASKS[task]
    page = REPOSITORY / path.replace(".html", ".md")
    assert not anchor or anchor in anchors_of(page.read_text("utf-8"))
    reached = {REPOSITORY / "README.md"}
    for _ in range(CLICKS):
        for one in [*reached & {*PAGES}]:
            links = re.findall(r"\]\(([^)#\s]+\.md)", prose(one))
            reached |= {(one.parent / link).resolve() for link in links}
    assert page in reached


def test_a_notebook_becomes_a_page_with_all_that_it_shows() -> None:
    (path,) = REPOSITORY.glob("docs/notebooks/ten_minutes_on_digits.ipynb")
    notebook = json.loads(path.read_text("utf-8"))
    page, pictures = notebook_page(notebook, path.stem)
    for cell in notebook["cells"]:
        assert "".join(cell["source"]) in page
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == len(drawn) == page.count("![")
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("docs/notebooks/*.ipynb")), ids=lambda p: p.stem
)
def test_a_page_of_a_notebook_is_no_longer_than_others(path: Path) -> None:
    """A whole report that a cell shows is a file of its own, in a frame."""
    page, files = notebook_page(json.loads(path.read_text("utf-8")), path.stem)
    assert len(page.encode()) <= MOST_BYTES
    assert "srcdoc" not in page
    assert all(f'"{name}"' in page for name in files if name.endswith(".html"))
    assert all(files[name].startswith(b"<!doctype") for name in files if name.endswith(".html"))


def test_what_a_code_host_lacks_is_a_link_in_the_site() -> None:
    page = REPOSITORY / "docs/history.md"
    text = "See `docs/reference/rules.md`, [it](notebooks/a.ipynb#x), [this](notebooks/b.ipynb).\n"
    text += "```sh\ncat `docs/reference/rules.md`\n```\n"
    found = site_text(text, page)
    assert found.count("[`docs/reference/rules.md`](reference/rules.md)") == 1
    assert "](notebooks/b.md)" in found


def test_a_formula_becomes_one_that_browsers_draw_by_themselves() -> None:
    pytest.importorskip("latex2mathml", reason="`make site` installs it")
    found = site_text("So $`x^2`$:\n\n```math\nq(x) = x\n```\n", REPOSITORY / "README.md")
    assert found.count("<math") == 2
    assert "```" not in found


def test_japanese_pages_speak_as_japanese_reports_do() -> None:
    words = json.loads((REPOSITORY / "src/bilens/report/strings/ja.json").read_text("utf-8"))
    said = "\n".join(words.values())
    for page in sorted(JAPANESE.glob("*.md")):
        quoted = re.findall("「([^」]+)」", prose(page))
        assert not [one for one in quoted if one not in said], page.name
    decisions = {"use", "conditions", "not_read", "cannot_judge", "do_not_use"}
    report = (JAPANESE / "report.md").read_text("utf-8")
    assert all(f"「{words[f'decision.{one}']}」 | `{one}`" in report for one in decisions)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in WANTED:
        pytest.importorskip(package, reason="`make site` installs it")
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.mark.slow  # `make site` does the same
def test_the_site_is_whole(site: Path) -> None:
    pages = read_site(site)
    assert len(pages) > len(PAGES)
    assert broken_links(site, pages) == []
    assert all(clicks_to(pages, *where) for where in TASKS.values())
    assert {name for name, page in pages.items() if '<html lang="ja"' in page.text} == {
        f"docs/ja/{page.stem}.html" for page in JAPANESE.glob("*.md")
    }


def test_a_link_from_the_root_of_the_server_is_broken_where_the_site_lies_in_a_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "index.html").write_text("")
    for link, root, right in (
        ("/index.html", "/", False),  # where the site lies is not known
        ("/bilens/index.html", "/bilens/", True),
        ("/bilens/.", "/bilens/", True),
        ("/index.html", "/bilens/", False),
        ("/bilens/none.html", "/bilens/", False),
    ):
        pages = {"404.html": Page(f'<a href="{link}">')}
        assert (broken_links(tmp_path, pages, root) == []) == right, link


@pytest.mark.slow
def test_a_site_in_a_folder_of_a_server_has_a_404_page_with_its_links(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (site / "404.html").exists()
    monkeypatch.setenv("SITE_URL", "https://example.org/bilens/")
    found = build_site(tmp_path)
    (page,) = (page for name, page in read_site(found).items() if name == "404.html")
    assert page.links
    assert broken_links(found, {"404.html": page}, "/bilens/") == []


@pytest.mark.slow  # `make site` does the same
@needs_browser
def test_the_site_asks_nobody_for_anything_and_its_search_finds(site: Path, browser: Any) -> None:
    assert outside_requests(site, browser, [*read_site(site)]) == []
    assert any("ONNX" in title for title in search(site, browser, "ONNX"))
    assert any("監査" in title for title in search(site, browser, "終了コード"))
