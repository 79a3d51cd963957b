"""A page as PDF, printed by a Chromium that is installed: bilens holds no browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bilens.base.errors import FileError, UsageError
from bilens.base.files import write_file

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")


def find_chromium() -> str:
    """Return the program that prints, the first of `BROWSERS` on the path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UsageError(
            "a PDF is printed by Chromium, and none is on the PATH (looked for "
            f"{', '.join(BROWSERS)}): install one, or write --html and print it from a browser."
        )
    return found


def write_pdf(html: str, path: Path) -> None:
    """Print a page to a PDF file, in one step."""
    program = find_chromium()
    with TemporaryDirectory(prefix="bilens-") as folder:
        page, printed = Path(folder, "page.html"), Path(folder, "page.pdf")
        page.write_text(html, "utf-8")
        command = [program, "--headless", "--disable-gpu", "--no-pdf-header-footer"]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command += [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}", page.as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603
            content = printed.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            fault = f"{path}: {program} did not print the page ({type(error).__name__})"
            raise FileError(f"{fault}: write --html and print it from a browser.") from None
    write_file(path, content)
