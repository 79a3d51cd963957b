"""The watch of a folder: models that changed since their last audit are audited again as before."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from bilens.api.history import History, now
from bilens.api.recorded_command import RefusedError, RepeatedCommand, recorded_base, repeat_command
from bilens.api.register_state import AuditedFiles, RegisterState, compare_with_audit
from bilens.base.errors import BilensError, CheckpointError, MemoryLimitError, UsageError
from bilens.base.files import shortened
from bilens.io.file_kinds import MARKS, is_listed
from bilens.io.formats.peft import named_base
from bilens.io.remote import address_in
from bilens.records.audit import Audit
from bilens.records.base import LOST, UNPRINTABLE, read_document
from bilens.records.history import UNNAMED, PastAudit, WatchedModel, WatchReport
from bilens.version import VERSION

FAILED, UNEXPECTED = 1, 70  # exit codes: a condition failed, an audit that left nothing
AT_ADDRESS = "it lies at an address, where nobody looks for what changed: audit it by hand."
MEANWHILE = (
    "it changed meanwhile, or reads otherwise each time: it is audited again at the next look."
)
WATCH = "bilens watch"  # who says so
LIMIT = 6 * 3600.0  # seconds that an audit may take
DEEPEST, MOST_FOLDERS = 6, 20_000  # below the folder; that are looked into


def watch_folder(
    folder: Path, inputs: Sequence[Path] = (), say: Callable[[str], None] = lambda _: None
) -> WatchReport:
    """Audit the models of a history again that changed; say how all models of its folder stand.

    Each runs in a process of its own, so that one that cannot be audited stops no other. Recorded
    commands may read out of `inputs`, too; `say` hears of each model that is audited again.
    """
    history = History(folder)
    last: dict[str, PastAudit] = {}
    for audit in history.audits():
        last.setdefault(audit.model, audit)
    last.pop(UNNAMED, None)  # it lies nowhere
    parts = {(Path(name) / file).as_posix() for name, one in last.items() for file, _ in one.files}
    names = {*last} | ({*models_below(history.folder)} - parts)  # a part of one that was audited
    places = [one.resolve() for one in inputs]
    found = [look_at(history, name, last.get(name), places, say) for name in sorted(names)]
    code = max((one.code for one in found), default=0)
    name = history.folder.name
    return WatchReport(folder=name, date=now(), version=VERSION, code=code, models=tuple(found))


def models_below(folder: Path) -> Iterator[str]:
    """Yield the models below a folder as a history names them; what lies in one is none.

    The folder itself may be one, called ".", and others lie below it all the same.
    """
    own = is_listed(folder)
    if own:
        yield "."
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        here = Path(place)
        deep = len(here.relative_to(folder).parts)
        inner = deep < DEEPEST and count < MOST_FOLDERS
        paths = [here / name for name in (*folders, *files) if not name.startswith(".")]
        paths = [path for path in paths if not (own and here == folder and path.name in MARKS)]
        models = [path for path in paths if is_listed(path)]
        yield from (path.relative_to(folder).as_posix() for path in models)
        others = [path.name for path in paths if inner and path not in models]
        folders[:] = [name for name in folders if name in others]


def look_at(
    history: History,
    name: str,
    last: PastAudit | None,
    inputs: Sequence[Path],
    say: Callable[[str], None],
) -> WatchedModel:
    """Return how a model stands, audited again where it changed."""
    if last is None:
        return WatchedModel(name, "never")
    if address_in(name):
        return WatchedModel(name, "unread", code=UsageError.exit_code, said=AT_ADDRESS)
    path, told = history.folder / name, Path(name).name if Path(name).is_absolute() else name
    if history.name_of(path) != name or not lies_in(path, (history.folder, *inputs)):
        said = str(RefusedError("outside", told))
        return WatchedModel(told, "unread", code=UsageError.exit_code, said=said)
    if last.unread:
        why = f"row {last.number} of the history is damaged or of a later release: audit by hand."
        return WatchedModel(told, "unread", code=CheckpointError.exit_code, said=why)

    def compare(audit: PastAudit) -> RegisterState:
        base = recorded_base(audit.command, history.folder, inputs)
        return compare_with_audit(AuditedFiles(path, audit.weights_sha256, audit.files, base))

    found = compare(last)
    state = "changed" if found.state == "unread" else found.state  # what cannot be read is not it
    model = WatchedModel(told, state, files=tuple(one.name for one in found.differences))
    if state != "changed":
        return describe_audit(history, last, model)
    if any(one.text == still_unlike(last, found) for one in history.entries(name)):
        return structs.replace(model, code=UNEXPECTED, said=still_unlike(last, found))
    try:
        say(f"Changed since audit {last.number}: {name}")
        code, said = run_audit(
            repeat_command(last.command, history.folder, name, inputs), history.folder
        )
    except BilensError as error:
        code, said = error.exit_code, str(error)
    for place in inputs:
        said = said.replace(str(place), place.name)
    new = [one for one in history.audits(name, last.number)[:1] if code in (0, FAILED)]
    if not new:
        return structs.replace(model, code=code or UNEXPECTED, said=said)
    model, now = describe_audit(history, new[0], model), compare(new[0])
    if now.state in ("audited", "gone"):
        return model
    if now.seen != found.seen:
        return structs.replace(model, code=UNEXPECTED, said=MEANWHILE)
    why = still_unlike(new[0], now)
    history.say("note", name, "model", why, WATCH)
    return structs.replace(model, code=UNEXPECTED, said=why)


def still_unlike(audit: PastAudit, now: RegisterState) -> str:
    """Say that what was just audited is not what lies there, which one more audit cannot mend."""
    there = now.seen[:12]
    names = shortened([one.name for one in now.differences]) or "nobody can read all of it"
    return (
        f"Right after audit {audit.number}, what lay there ({there}) was not known to be what it "
        f"read: {names}. It is not audited again before its files change: audit it by hand."
    )


def lies_in(path: Path, places: Sequence[Path]) -> bool:
    """Tell whether a model lies in one of some folders, and that below it, if it is an adapter."""

    def lies(one: Path) -> bool:
        return any(Path(os.path.realpath(one)).is_relative_to(place) for place in places)

    base = None
    with suppress(
        BilensError, OSError
    ):  # damaged, or a name that none can have: told where it is opened
        base = named_base(path) if lies(path) else None
    return lies(path) and (base is None or lies(base))


def describe_audit(history: History, audit: PastAudit, model: WatchedModel) -> WatchedModel:
    """Return a model by the audit that holds for it, with what fails and nobody accepted."""
    if model.state == "gone":
        return model
    try:
        record = read_document(Audit, history.document(audit.number))
        accepted = history.accepted(audit.model)
        fails = history.still_fails(record, accepted)
    except BilensError as error:
        said = without_folder(str(error), history.folder)
        return structs.replace(model, code=CheckpointError.exit_code, said=said)
    return structs.replace(
        model,
        code=FAILED if fails else 0,
        audit=audit.number,
        answer=audit.answer,
        failed=tuple(rule for rule in audit.failed if rule not in accepted),
    )


def run_audit(command: RepeatedCommand, folder: Path) -> tuple[int, str]:
    """Return the exit code of an audit and the last line that it wrote; it ends with the watch."""
    with command.start(folder) as process:
        try:
            _, told = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return MemoryLimitError.exit_code, f"it took longer than {LIMIT / 3600:g} hours."
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode < 0:
        return MemoryLimitError.exit_code, f"it was ended by signal {-process.returncode}."
    last = (told.strip().splitlines() or [""])[-1].removeprefix("error: ")
    return process.returncode, UNPRINTABLE.sub(LOST, without_folder(last, folder))


def without_folder(text: str, folder: Path) -> str:
    """Return a sentence without the place of the folder, which the document is not to hold."""
    return text.replace(str(folder), folder.name)
