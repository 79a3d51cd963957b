"""`bilens watch`."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from bilens.base.errors import BilensError, FileError, UsageError
from bilens.base.files import write_error, write_file
from bilens.cli.console import Output
from bilens.cli.options import check_outputs, option

if TYPE_CHECKING:
    from filelock import AcquireReturnProxy

    from bilens.records.history import WatchedModel

UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}  # seconds
PATIENCE = 10.0  # seconds for a webhook
ADDRESS = re.compile(r"https?://[^/\s@]+(/[!-~]*)?")
LOCK = ".bilens-watch.lock"
WEBHOOK = "BILENS_WEBHOOK"  # of the environment, which no list of processes shows


@dataclass(frozen=True)
class WatchChoices:
    """How often a folder is looked at, and who hears of it."""

    every: str | None = option(
        None, "Time from one look to the next, as 30m, 12h, 1d or 1w; without it 1d."
    )
    once: bool = option(False, "Look once, and end with the exit code: for cron and systemd.")
    inputs: list[Path] | None = option(
        None,
        "Another folder from which recorded commands may read data; repeat it for each.",
        metavar="FOLDER",
    )
    out: Path | None = option(None, "Write the result of each look to this JSON file.")
    webhook: str | None = option(
        None, f"Address that each result is posted to; else {WEBHOOK} names one.", metavar="URL"
    )

    @property
    def seconds(self) -> float:
        """Return the time from one look to the next."""
        found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", self.every or "1d", re.ASCII)
        if found is None:
            raise UsageError(f"--every is {self.every!r}; expected a time, as 30m, 12h, 1d or 1w.")
        if self.once and self.every is not None:
            raise UsageError(
                "--once looks once, and --every again and again: leave one of them out."
            )
        return int(found[1]) * UNITS[found[2]]


def watch(
    output: Output,
    folder: Annotated[Path, typer.Argument(help="Folder with models and their history.")],
    choices: WatchChoices,
) -> None:
    """Audit the models of a folder again, as before, whenever they changed.

    Exit code with --once: 0 nothing to object, 1 a rule fails that nobody accepted, else why a
    model could not be audited again, 2 where none was ever audited.

    Example: bilens watch runs --every 1d --webhook https://example.org/hooks/bilens
    """
    seconds, address = choices.seconds, choices.webhook or os.environ.get(WEBHOOK)
    if address is not None and not ADDRESS.fullmatch(address):
        raise UsageError("--webhook: expected an address, as https://example.org/hooks/bilens.")
    check_outputs([("--out", choices.out)], overwrite=True)
    from bilens.api.watch import watch_folder
    from bilens.records.base import json_text, to_json

    with lock_folder(folder):
        while True:
            start = time.monotonic()
            try:
                found = watch_folder(folder, choices.inputs or (), output.say)
                output.answer(to_json(found), *map(line_of, found.models))
                document = json_text(found).encode()
                if choices.out is not None:
                    write_file(choices.out, document)
                if address is not None:
                    post(address, document)
                if all(one.state == "never" for one in found.models):
                    raise UsageError(
                        f"{folder}: none of its models was ever audited with --history {folder}, "
                        "so that nothing is watched."
                    )
                if choices.once:
                    raise typer.Exit(found.code)
            except BilensError as error:
                if choices.once:
                    raise
                output.say(f"error: {error}")
            time.sleep(max(0.0, start + seconds - time.monotonic()))


def lock_folder(folder: Path) -> AcquireReturnProxy[Any]:
    """Keep a second watch out of a folder, until the lock is released or this process ends."""
    from filelock import FileLock, Timeout

    if not folder.is_dir():
        raise FileError(f"{folder}: is no folder; expected one with models and their history.")
    try:
        return FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout:
        raise UsageError(f"{folder} is being watched already: end that watch first.") from None
    except OSError as error:
        raise write_error(folder / LOCK, error) from None


def line_of(model: WatchedModel) -> str:
    """Return how a model stands as one line, whatever its name is."""
    from bilens.records.base import LOST, UNPRINTABLE

    files = f" ({', '.join(model.files)})" if model.files else ""
    audit = f"audit {model.audit}: {model.answer}" if model.audit else ""
    failed = f"failed: {', '.join(model.failed)}" if model.failed else ""
    parts = (f"{model.model}: {model.state}{files}", audit, failed, model.said)
    return UNPRINTABLE.sub(LOST, ", ".join(part for part in parts if part))


def post(address: str, document: bytes) -> None:
    """Send a document; the address may hold a secret, and errors name its host alone."""
    from http.client import HTTPException  # these take as long as bilens itself to import
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class StayHere(HTTPRedirectHandler):
        """Follows nothing: what is posted would be lost, or go to somebody else."""

        def redirect_request(self, *_: Any) -> None:
            """Refuse another address."""

    headers = {"Content-Type": "application/json", "User-Agent": "bilens"}
    request = Request(address, document, headers)  # noqa: S310 - http or https
    try:
        build_opener(StayHere).open(request, timeout=PATIENCE).close()
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "code", None) or getattr(error, "reason", None) or error
        raise FileError(
            f"the result could not be posted to {urlsplit(address).hostname} ({why}): check the "
            "address."
        ) from None
