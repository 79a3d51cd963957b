"""The pages that are drawn from code and data say what the code and the data say."""

from pathlib import Path

import pytest

from tools.docs import ROOT, pages

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generated_page_is_fresh(path: Path) -> None:
    """`make docs` writes it anew."""
    assert path.read_text() == PAGES[path]
