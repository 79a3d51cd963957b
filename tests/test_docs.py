"""The pages: what they show runs, and what is drawn from code says what the code says."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens
import tiny
from bilens.findings.rules.registry import rules_asked_for
from bilens.io import file_kinds
from bilens.io.model_folder import save
from commands import commands
from tools.docs import REFERENCE, built, pages
from tools.page_parts import MOST_BYTES, anchor

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    {
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *REPOSITORY.glob("*/README.md"),
    }
    - {*REFERENCE.glob("*.md")}  # built, where they are there
)
BUILT = built()
NO_PAGE = REPOSITORY / "CHANGELOG.md"  # a record, of which nobody reads all
FOLDERS = ("callbacks", "certify", "nn", "plot", "sklearn")
SHELLS = ("sh", "bash", "console")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")


def named(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def shell_lines(page: Path) -> list[list[str]]:
    """The words of each command in the blocks for a shell; output and comments are left out."""
    lines = []
    for text in blocks(page, *SHELLS):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            lines += [words] if words else []
    return lines


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every command line on a page: in blocks, and in code spans, there cut off at an ellipsis."""
    yield from shell_lines(page)
    for span in CODE_SPAN.findall(prose(page)):
        yield shlex.split(span.split("…")[0]) if span.startswith(("bilens ", "make ")) else []


def test_every_row_of_a_table_has_the_cells_of_its_head() -> None:
    for page in PAGES:
        for rows in re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
            assert len(cells) == 1, f"{named(page)}: {rows[:80]}"


def cases(program: str) -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{named(page)}: {shlex.join(words)}")
        for page in PAGES
        for words in command_lines(page)
        if words[:1] == [program]
    ]


def test_there_is_a_readme_with_a_python_example_and_two_commands() -> None:
    readme = REPOSITORY / "README.md"
    (example,) = blocks(readme, "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    assert {"demo", "test"} <= {words[1] for words in shell_lines(readme) if words[0] == "make"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks share one namespace, in order, as a reader would type them after `make demo`."""
    save(
        tiny.classifier(),
        tmp_path / "runs" / "demo",
        input_shape=(tiny.SIDE, tiny.SIDE),
        output_names=("upright", "level", "slanting"),
    )
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for text in blocks(page, "python"):
        exec(compile(text, named(page), "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("words", cases("bilens"))
def test_a_bilens_command_parses(words: list[str]) -> None:
    """Every option exists and takes what it is given; a line cut short needs no more than that."""
    command: Any = commands()[""]
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands") or not rest or rest[0].startswith("--"), words
    known = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    for word in rest:
        if word.startswith("-"):
            assert word.split("=")[0] in known | {"--help"}, words


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words[1:], id=f"{named(page)}: {shlex.join(words)}")
        for page in PAGES
        for words in shell_lines(page)
        if words[0] == "bilens"
    ],
)
def test_a_bilens_command_to_be_typed_is_whole(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed as the program would, and not run; a bad value or a missing argument raises."""
    monkeypatch.setattr(file_kinds, "find_model", lambda path, *_: path)  # none of them is here
    monkeypatch.setattr(Path, "exists", lambda _: True)
    command: Any = commands()[""]
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context("bilens", rest)


JAPANESE = sorted((REPOSITORY / "docs/ja").glob("*.md"))


def use(words: list[str]) -> tuple[str, ...]:
    """What a command is an example of: its words before options, as many, and which options.

    Pages and conditions may be others: reports in Japanese are the point of these pages.
    """
    if words[0] != "bilens":
        return tuple(words)
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    return (words[1], *sorted(options - {"--html", "--lang", "--fail-on", "--labels"}))


@pytest.mark.parametrize("page", JAPANESE, ids=named)
def test_a_command_of_a_japanese_page_is_one_of_an_english_page(page: Path) -> None:
    english = {use(words) for one in PAGES if one not in JAPANESE for words in all_of(one)}
    assert not [shlex.join(words) for words in all_of(page) if use(words) not in english]


def all_of(page: Path) -> list[list[str]]:
    """The commands of a page with those of its sentences that install something."""
    spans = [shlex.split(one) for one in CODE_SPAN.findall(prose(page)) if one.startswith("pip ")]
    return [words for words in [*command_lines(page), *spans] if words]


def test_the_first_japanese_page_installs_as_the_first_page_does() -> None:
    first, japanese = REPOSITORY / "README.md", REPOSITORY / "docs/ja/start.md"
    english, own = (
        {shlex.join(words) for words in all_of(page) if words[0] in ("make", "pip")}
        for page in (first, japanese)
    )
    others = {"make explore", "make site", "make docs"}  # told of further down
    assert own == english - others
    assert ("about a minute on two cores" in prose(first)) == ("2コアで約1分" in prose(japanese))


@pytest.mark.parametrize("words", cases("make"))
def test_a_target_of_make_exists_and_is_phony(words: list[str]) -> None:
    """Folders called docs and bench would make a target of that name look up to date."""
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    for target in (word for word in words if "=" not in word):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
        assert target in " ".join(phony).split(), f"{target} is not in .PHONY"


def anchors_of(text: str) -> set[str]:
    """What the headings of a page are called in links, as code hosts spell them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", BLOCK.sub("", text), re.MULTILINE)
    return {anchor(heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in (first or second for first, second in LINK.findall(prose(page))):
        if re.match(r"[a-z]+:", target):
            continue  # the tests are offline
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert REPOSITORY in file.parents, target
        if fragment:
            assert fragment in anchors_of(file.read_text()), target


def test_a_table_of_rules_names_the_bad_side_of_each() -> None:
    """As the rules have it, and with the limit where all cases of a rule share it."""
    rules, named = rules_asked_for(), set()
    for page in ("rules", "tables_report"):
        text = (REPOSITORY / "docs" / f"{page}.md").read_text("utf-8")
        (table,) = re.findall(r"^\| rule \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
        for row in table.splitlines():
            name, _, bad = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:4])
            rule = rules[name.strip("`")]
            named.add(rule.id)
            assert bad.replace("≤", "<").startswith(rule.bad or ""), rule.id
            assert not rule.threshold or f"{rule.threshold:g}" in bad, rule.id
    assert {"r2", "similarity", "leak", "huge_norm"} <= named


def test_every_generated_page_is_fresh() -> None:
    """`make docs` writes them anew."""
    stale = [path for path, text in pages().items() if path.read_text() != text]
    assert stale == []


def test_no_page_is_longer_than_one_reads_at_a_sitting() -> None:
    kept = {page: page.read_text("utf-8") for page in PAGES if page != NO_PAGE}
    texts = {**kept, **{page: text for page, text in BUILT.items() if page.suffix == ".md"}}
    assert not [named(page) for page, text in texts.items() if len(text.encode()) > MOST_BYTES]


def test_a_page_that_is_built_is_named_as_it_is_called() -> None:
    """In a code span, since code hosts do not have it; the site makes a link of it."""
    for page in PAGES:
        for name in re.findall(r"`(docs/(?:reference|schema)/[^`]+)`", prose(page)):
            assert REPOSITORY / name in BUILT, f"{named(page)}: {name}"


def test_the_links_of_the_built_pages_lead_somewhere() -> None:
    texts = {page: text for page, text in BUILT.items() if page.suffix == ".md"}
    for page, text in texts.items():
        for target, _ in LINK.findall(BLOCK.sub("", text)):
            path, _, fragment = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file in BUILT or file.exists(), f"{named(page)}: {target}"
            found = texts.get(file) or (file.read_text() if fragment else "")
            assert not fragment or fragment in anchors_of(found), f"{named(page)}: {target}"


def test_the_pages_that_are_built_of_public_names_have_each_of_them() -> None:
    found = "".join(text for page, text in BUILT.items() if page.name.startswith("python_"))
    assert all(f"## `bl.{name}`\n" in found for name in bilens.__all__ if name not in FOLDERS)
