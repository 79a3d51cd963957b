"""Long generated pages, cut at their headings into parts that a reader can take in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 15_000  # of the Markdown of a page
ROOM = 400  # for the title of a part and the links to the others
HEADING = re.compile(r"^(?=#{2,} )", re.MULTILINE)


def anchor(heading: str) -> str:
    """Return what links call a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def split_page(path: Path, text: str, most: int = MOST_BYTES) -> dict[Path, str]:
    """Return a page, or its parts (NAME.md, NAME_2.md, …) where it is longer."""
    if size(text) <= most:
        return {path: text}
    parts = [""]
    for piece in pieces(text, most - ROOM):
        if size(parts[-1] + piece) > most - ROOM:
            parts.append("")
        parts[-1] += piece
    numbers = {number: f"_{number}" if number > 1 else "" for number in range(1, len(parts) + 1)}
    names = {number: f"{path.stem}{end}.md" for number, end in numbers.items()}
    places = {
        anchor(heading): names[number]
        for number, part in enumerate(parts, 1)
        for heading in re.findall(r"^#+ (.*)$", part, re.MULTILINE)
    }
    title = text.partition("\n")[0]
    pages = {}
    for number, part in enumerate(parts, 1):
        others = (f"{n}" if n == number else f"[{n}]({name})" for n, name in names.items())
        head = f"{title}, part {number}\n\n" if number > 1 else ""
        whole = f"{head}{part.strip()}\n\nParts: {' · '.join(others)}\n"
        pages[path.parent / names[number]] = rewire(whole, places, names[number])
    return pages


def rewire(part: str, places: dict[str, str], own: str) -> str:
    """Return a part whose links to headings lead to the part that has them."""

    def link(found: re.Match[str]) -> str:
        place = places.get(found[1], own)
        return f"]({'' if place == own else place}#{found[1]})"

    return re.sub(r"\]\(#([^)]+)\)", link, part)


def write_parts(path: Path, text: str) -> None:
    """Write a page, or its parts, in the place of those that were there."""
    for old in path.parent.glob(f"{path.stem}_[0-9]*.md"):
        old.unlink()
    for part, content in split_page(path, text).items():
        part.write_text(content)


def pieces(text: str, most: int) -> Iterator[str]:
    """Yield what stands under each heading; where that is too long, its paragraphs and tables."""
    for section in HEADING.split(text):
        if size(section) <= most:
            yield section
        else:
            yield from (f"{block}\n\n" for block in section.split("\n\n"))


def size(text: str) -> int:
    """Return the bytes of a text."""
    return len(text.encode())
