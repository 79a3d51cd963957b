"""The folder that MkDocs builds from: pages as they are kept, and those that are made here.

Folders stay as they are in the repository, so that links between pages hold. Notebooks and formulas
become plain Markdown and HTML, and the name of a page that is built becomes a link.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

from tools.docs import ROOT, built

KEPT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#:]+)")
NOTEBOOK_LINK = re.compile(r"(\]\([^)\s]+)\.ipynb\)")
BUILT_NAME = re.compile(r"`(docs/(?:reference|schema)/[\w.]+)`")
REPORT = re.compile(r' srcdoc="([^"]*)"')  # a whole page in a frame of a cell's output
BLOCK_FORMULA = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$`(.+?)`\$")


def gather_pages(folder: Path) -> None:
    """Write everything that the site is built from into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {ROOT / name: (ROOT / name).read_text("utf-8") for name in KEPT}
    docs = ROOT / "docs"
    for path in (*docs.rglob("*.md"), ROOT / "studies/README.md", ROOT / "explorer/README.md"):
        pages[path] = path.read_text("utf-8")
    pages |= built()
    for path in sorted(docs.glob("notebooks/*.ipynb")):
        text, pictures = notebook_page(json.loads(path.read_text("utf-8")), path.stem)
        pages[path.with_suffix(".md")] = text
        for name, picture in pictures.items():
            put(folder / "docs/notebooks" / name, picture)
    put(folder / "docs/site/iframe-worker.js", (docs / "site/iframe-worker.js").read_bytes())
    for path, text in pages.items():
        is_page = path.suffix == ".md"
        whole = site_text(text, path) if is_page else text
        put(folder / path.relative_to(ROOT), whole.encode())
        for target in linked_files(whole, path) if is_page else ():
            if target not in pages and target.is_file():
                put(folder / target.relative_to(ROOT), target.read_bytes())


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def linked_files(text: str, page: Path) -> Iterator[Path]:
    """Yield the files of the repository that a page links to or shows."""
    for target in LINK.findall(text):
        path = (page.parent / target).resolve()
        if ROOT in path.parents:
            yield path


def site_text(text: str, page: Path) -> str:
    """Return a page as the site has it: formulas as MathML, built pages and notebooks as links."""
    text = BLOCK_FORMULA.sub(lambda m: f"<p>{mathml(m[1], 'block')}</p>", text)
    prose, blocks = CODE.split(text), [*CODE.findall(text), ""]
    return "".join(linked(part, page) + block for part, block in zip(prose, blocks, strict=True))


def linked(prose: str, page: Path) -> str:
    """Return prose with its links and formulas."""
    prose = NOTEBOOK_LINK.sub(r"\1.md)", prose)
    prose = FORMULA.sub(lambda m: mathml(m[1], "inline"), prose)
    return BUILT_NAME.sub(lambda m: f"[{m[0]}]({os.path.relpath(ROOT / m[1], page.parent)})", prose)


def mathml(formula: str, display: str) -> str:
    """Return a formula of TeX as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return str(convert(formula.strip(), display=display))


def notebook_page(notebook: Mapping[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as a page, and pictures and reports in it by the names of their files."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}_{len(pictures)}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell draws]({picture})")
            elif "text/html" in data:
                html = "".join(data["text/html"])
                if report := REPORT.search(html):
                    shown = f"{name}_report_{len(pictures)}.html"
                    pictures[shown] = unescape(report[1]).encode()
                    html = html.replace(report[0], f' src="{shown}"')
                lines = html.splitlines()
                parts.append("\n".join(line.strip() for line in lines if line.strip()))
            else:
                text = "".join(output.get("text") or data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures
