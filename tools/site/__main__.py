"""Builds the documentation as a site, looks at every page of it, and says what was found.

`make site` runs it; with `SITE_URL=https://host/folder/` it has a 404 page for there. MkDocs
fails on a link or a page that is not there (`--strict`); broken links, requests to other machines,
and tasks that are farther than two clicks from the first page end it with 1. Without a Chromium
pages are not opened, which is said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tools.docs import ROOT
from tools.site.gather import gather_pages
from tools.site.look import TASKS, broken_links, clicks_to, outside_requests, read_site

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def build_site(root: Path) -> Path:
    """Return the folder of the site, built anew below a folder."""
    gather_pages(root / "build/pages")
    config, site = root / "mkdocs.yml", root / "build/site"
    if root != ROOT:
        shutil.copy(ROOT / "mkdocs.yml", config)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(config)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=root, check=True, env=quiet)  # noqa: S603 - our own pages
    if not os.environ.get("SITE_URL"):  # links of this page begin at the root of a server
        (site / "404.html").unlink()
    for path in site.glob("docs/ja/*.html"):
        text = path.read_text("utf-8")
        path.write_text(text.replace('<html lang="en"', '<html lang="ja"', 1), "utf-8")
    return site


def main() -> int:
    """Build, look and say."""
    folder = build_site(ROOT)
    pages = read_site(folder)
    words = sorted(page.words for page in pages.values())
    middle, most = words[len(words) // 2], words[-1]
    print(f"pages: {len(pages)}; words a page: median {middle:,}, most {most:,}")
    broken = broken_links(folder, pages, urlsplit(os.environ.get("SITE_URL", "")).path or "/")
    print(f"broken links: {len(broken)}", *broken, sep="\n  ")
    faults = len(broken)
    for task, (path, anchor) in TASKS.items():
        way = clicks_to(pages, path, anchor)
        faults += way is None
        print(f"{task}: {' → '.join(way) if way else 'NOT FOUND in two clicks'}")
    return int(bool(faults + open_in_browser(folder, [*pages])))


def open_in_browser(folder: Path, names: list[str]) -> int:
    """Return how many requests leave the site, and say them."""
    named = os.environ.get("BILENS_TEST_BROWSER")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        print("requests to other machines: not looked at, for no Chromium is installed")
        return 0
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        asked = outside_requests(folder, browser, names)
        browser.close()
    print(f"requests to other machines: {len(asked)}", *sorted(set(asked)), sep="\n  ")
    return len(asked)


if __name__ == "__main__":
    sys.exit(main())
