"""A path that is none is refused before anything is read or written.

Broken once: the check dropped; `None` ended in a TypeError of pathlib.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bilens.base.errors import UsageError
from bilens.io.paths import check_path


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_a_text_or_a_path_is_taken(value: str | Path) -> None:
    assert check_path("path", value) == Path("a/b")


@pytest.mark.parametrize("value", [None, 3, b"a/b", ["a"]])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"^path is a \w+; expected a text or a Path\.$"):
        check_path("path", value)
