"""The demo: from real digits to an audit report, in one folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bilens.api.audit import audit_one_layer
from bilens.api.provenance import this_command, versions
from bilens.base import Progress, silent
from bilens.base.errors import InterruptedRunError, OutputExistsError
from bilens.base.files import replace_folder, write_error, write_file
from bilens.data.images import ImageDataset
from bilens.io.load import load
from bilens.io.model_folder import CONFIG_NAME
from bilens.report.plates import eigenvector_plate
from bilens.report.reports import AuditReport
from bilens.train.loop import CHECKPOINTS
from bilens.train.run_folder import OWN_FILES, RUN_NAME
from bilens.train.tasks.image import EpochMetrics, ImageRecipe, train_in_folder

DEMO_RECIPE = ImageRecipe(  # 150 epochs of 4,000 digits: strokes become visible, in half a minute
    d_hidden=128,
    epochs=150,
    batch_size=256,
    noise=0.4,
    augmentations=("translation:0.04", "rotation:6"),
)
REPORT_NAME, REPORT_JSON, PLATE_NAME = "report.html", "report.json", "eigenvectors.svg"
OWN_NAMES = {*OWN_FILES, CHECKPOINTS, REPORT_NAME, REPORT_JSON, PLATE_NAME}


def run_demo(
    folder: Path,
    data: ImageDataset,
    *,
    recipe: ImageRecipe = DEMO_RECIPE,
    lang: str = "en",
    overwrite: bool = False,
    null_samples: int = 99,
    on_epoch: Callable[[EpochMetrics], None] = silent,
    progress: Progress = silent,
    say: Callable[[str], None] = silent,
) -> AuditReport:
    """Train a classifier, audit it, and leave a folder with the model and its reports."""
    check_demo_folder(folder, overwrite)
    if folder.exists():
        say(f"{folder} holds an earlier demo: it is replaced when this one is done.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        work.chmod(0o755)
        command = this_command()
        train_in_folder(
            work,
            data,
            recipe,
            provenance={"command": command, **versions()},
            on_epoch=on_epoch,
            say=say,
        )
        shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)  # a demo starts anew
        model = replace(load(work), source=str(folder))  # where it will be when all is done
        report = audit_one_layer(model, data, null_samples, command=command, progress=progress)
        report.to_json(work / REPORT_JSON)
        report.to_html(work / REPORT_NAME, lang=lang)
        write_file(work / PLATE_NAME, eigenvector_plate(report.record).encode())
        replace_folder(folder, work)
    except InterruptedRunError:
        raise InterruptedRunError(
            f"Interrupted; {folder} is as it was before. A demo is short and starts anew."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)  # gone already when the demo went well
    return report


def check_demo_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with anything but an earlier demo: all that is in it will be gone."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder for the demo.")
    names = {item.name for item in folder.iterdir()}
    foreign = sorted(names - OWN_NAMES)
    is_ours = bool(names & {CONFIG_NAME, RUN_NAME})
    if names and (not is_ours or (foreign and not overwrite)):
        raise OutputExistsError(
            f"{folder} holds something else than an earlier demo "
            f"({', '.join(foreign[:4] or sorted(names)[:4])}): choose another folder with --out"
            + (", or replace all of it with --overwrite." if is_ours else ".")
        )
