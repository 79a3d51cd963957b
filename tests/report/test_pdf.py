"""A PDF through a Chromium that is installed: found by name, refused in one sentence without one.

Damage seen to fail: the search left out; a browser that fails taken for one that printed.
"""

import os
from pathlib import Path

import pytest

from bilens.base.errors import FileError, UsageError
from bilens.report.html import find_chromium, write_pdf

PRINTS = """#!/bin/sh
for each in "$@"; do case "$each" in
  --print-to-pdf=*) printf '%%PDF-1.4' > "${each#--print-to-pdf=}";;
  file:*) grep -q '<h1>' "${each#file://}" || exit 3;;
esac; done
"""


def install(folder: Path, patch: pytest.MonkeyPatch, script: str, name: str = "chromium") -> Path:
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return program


def test_it_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="none is on the PATH"):
        find_chromium()
    program = install(tmp_path, monkeypatch, PRINTS)
    assert find_chromium() == str(program)


def test_what_it_prints_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, PRINTS)
    write_pdf("<h1>a page</h1>", tmp_path / "deep" / "a.pdf")
    assert (tmp_path / "deep" / "a.pdf").read_bytes() == b"%PDF-1.4"


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 0\n"])
def test_a_browser_that_prints_nothing_is_said(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, script)
    with pytest.raises(FileError, match="did not print the page"):
        write_pdf("<h1>a page</h1>", tmp_path / "a.pdf")
    assert not (tmp_path / "a.pdf").exists()
