"""A model from its first audit to its second one, in a real browser, as those would who ship it.

Broken once: with the decision of the audit before shown for other weights.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from bilens_explorer.records.models import id_of
from chromium import needs_browser
from commands import model_folder
from explorer_folder import run

pytestmark = needs_browser
SLOW = 240_000.0  # milliseconds, after which an audit is given up


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that was audited on data, under a condition that it fails."""
    root = tmp_path_factory.mktemp("folder") / "runs"
    model_folder(root / "m", tiny.classifier(), input_shape=(tiny.SIDE, tiny.SIDE))
    data = tiny.images()
    np.savez(root / "rows.npz", x=data.test_images, y=data.test_labels)
    words = ["audit", "m", "--history", ".", "--data", "rows.npz", "--fail-on", "accuracy<0.95"]
    words += ["--null-samples", str(tiny.ROTATIONS)]
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)  # of the audit that a click runs
        patch.chdir(root)
        patch.setattr(sys, "argv", ["bilens", *words])
        run(*words)
        yield root


def accept(page: Any, name: str, why: str, until: str) -> None:
    """Accept a finding of the last audit, as the page of the model offers it."""
    finding = page.locator(f'[data-subject="rule:{name}"]')
    finding.get_by_role("button", name="Accept").click()
    finding.get_by_label("Why").fill(why)
    finding.get_by_label("Until").fill(until)
    finding.get_by_label("Your name").fill("Ada")
    finding.locator("form button:not([type])").click()
    finding.get_by_text(f"Accepted until {until}.").wait_for()


def test_what_is_shipped_is_what_was_approved(page: Any, root: Path, tmp_path: Path) -> None:
    line = "Ada (name as typed): Accuracy (until 2199-03-31)"
    page.goto(f"/models/{id_of('m')}?lang=en")
    accept(page, "accuracy", "known", "2199-03-31")
    page.locator("[data-fresh=state]").get_by_text(line).wait_for()
    page.goto("/?lang=en")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="m", exact=True))
    row.get_by_text(line).wait_for()
    assert row.locator(".badge").count() == 1

    new = model_folder(tmp_path / "new", tiny.classifier(7), input_shape=(tiny.SIDE, tiny.SIDE))
    for each in new.iterdir():
        each.replace(root / "m" / each.name)
    page.reload()
    row.get_by_text("model.safetensors is another file").wait_for()
    assert row.locator(".badge").count() == 0
    assert row.get_by_text(line).count() == 0
    page.goto(f"/models/{id_of('m')}?lang=en")
    page.get_by_text("Changed since audit 1").wait_for()
    assert page.locator(".badge").count() == 0

    page.get_by_role("button", name="Audit again").click()
    page.locator(".state").get_by_text("done", exact=True).wait_for(timeout=SLOW)
    page.reload()
    page.get_by_text("What lies here is what audit 2 read").wait_for()
    page.get_by_text("Nobody has approved it.").wait_for()
    command = page.locator("pre").first.inner_text()
    for part in ("--data=rows.npz", "'--fail-on=accuracy<0.95'", "--null-samples"):
        assert part in command
    accept(page, "accuracy", "known of these, too", "2199-06-30")

    out = tmp_path / "explorer.html"
    run("serve", root, "--export", out)
    page.goto(out.as_uri())
    page.get_by_role("link", name="m", exact=True).click()
    page.get_by_text("Ada (name as typed): Accuracy (until 2199-06-30)").wait_for()
    page.get_by_text("What lies here is what audit 2 read").wait_for()
