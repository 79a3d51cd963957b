"""`bl.push`: a model on the Hugging Face hub, its own files and its card, and no others."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from bilens.api.provenance import LOADED, REPORTS, check_unchanged, weight_files_of
from bilens.base import silent
from bilens.base.errors import CheckpointError, UsageError, optional_package
from bilens.base.files import file_sha256
from bilens.base.model_card import CARD_NAME, OF_WEIGHTS, ModelCard, amend_card
from bilens.io.file_kinds import MODELS
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_folder import save
from bilens.io.remote_stores import attempt
from bilens.records.audit import Audit
from bilens.records.base import read_document
from bilens.records.bilinear_conversion import Conversion
from bilens.report.model_card import scores_of, words_of

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LICENCES = re.compile(r"(licen[cs]e|copying|notice)\b[^.]*(\.(txt|md))?", re.IGNORECASE)
OF_REPORTS = (".json", ".sarif", ".xml", ".md", ".html", ".svg")
SECRET = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}|\bgh[a-z]_[A-Za-z0-9]{30,}|(?<![\w-])sk-[\w-]{32,}|\bAKIA[A-Z0-9]{16}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
LOOKED_AT = 1 << 20  # first bytes of weights, where a header and its metadata are


@dataclass(frozen=True)
class PushedModel:
    """A model as it was sent to the hub, or would be: the bytes of each file, and its commit."""

    repository: str
    private: bool
    files: Mapping[str, int]
    left_here: tuple[str, ...]  # what else lies in the folder
    commit: str = ""  # like `url` empty where nothing was sent
    url: str = ""

    @property
    def address(self) -> str:
        """What `bl.load` takes for exactly this commit."""
        return f"hf://{self.repository}@{self.commit}" if self.commit else ""


def push(
    model: str | Path | LoadedModel | nn.Module,
    repository: str,
    *,
    private: bool = True,
    message: str = "",
    reports: Sequence[str | Path] = (),
    license: str = "",
    dry_run: bool = False,
    say: Callable[[str], None] = silent,
) -> PushedModel:
    """Send a model to the Hugging Face hub, with the token that huggingface_hub has.

    Weights, configuration, tokenizer, licence and card go there, and the reports that are named;
    nothing else of the folder does. The card is written where there is none.

    Args:
        model: its folder or file, what `bl.load` returned of one, or a module that `bl.save` takes.
        repository: "owner/name"; it is made where there is none.
        private: whether nobody else may see it. One that is public already is then refused.
        message: of the commit.
        reports: JSON of audits and conversions of exactly these weights, whose scores the card then
            has, and other files of reports or evidence, or folders of them.
        license: as the hub names it ("apache-2.0"), for the card.
        dry_run: whether nothing is sent: what would be is returned.
        say: is told each file with its size, before any is sent.

    Raises: UsageError if it is no model of a file, a report is of other weights, a file holds
        what looks like a key, or the repository is public or holds another model; CheckpointError
        if there is no model, or the hub refuses or is not reached.
    """
    if REPOSITORY.fullmatch(repository) is None:
        raise UsageError(f"repository={repository!r}: expected OWNER/NAME, as on the hub.")
    if isinstance(model, nn.Module):
        with TemporaryDirectory() as folder:
            how = {"private": private, "message": message, "reports": reports}
            more = {"license": license, "dry_run": dry_run, "say": say}
            return push(save(model, Path(folder) / "model"), repository, **how, **more)
    hub = optional_package("huggingface_hub", "hub", "pushing a model")
    loaded = model if isinstance(model, LoadedModel) else load(model)
    place = Path(loaded.source)
    if not place.exists() or not loaded.is_as_read:
        raise UsageError(f"{place}: is not what lies in a file here: save it, and pass its folder.")
    files: dict[str, Path | bytes] = {**model_files(loaded), **report_files(reports)}
    files[CARD_NAME] = card_for(loaded, reports, repository.split("/")[1], license).encode()
    token = str(hub.get_token() or "").encode()
    for name, content in files.items():
        check_secrets(name, content, token)
    check_unchanged(loaded)
    home = place if place.is_dir() else place.parent
    left = sorted({one.name for one in home.iterdir()} - {*files}) if place.is_dir() else []
    sizes = {n: len(x) if isinstance(x, bytes) else x.stat().st_size for n, x in files.items()}
    for name, size in sizes.items():
        say(f"{name}: {size:,} bytes")
    say(f"Stays here: {', '.join(left) or 'nothing'}.")
    found = PushedModel(repository, private, sizes, tuple(left))
    if dry_run:
        return found
    message = message or f"A model of bilens: {loaded.weights_sha256[:12]}"
    url = f"hf://{repository}"
    try:
        return attempt(url, partial(send_files, hub, found, files, message), "sent")
    except (FileNotFoundError, PermissionError):
        raise CheckpointError(
            f"{url}: may not be written: check the name, and run `hf auth login` with a token that "
            "may write there."
        ) from None


def model_files(model: LoadedModel) -> dict[str, Path]:
    """Return the files that a model is read from, and licences beside them."""
    place, weights = Path(model.source), {*weight_files_of(model)}
    if place.is_file():
        return {place.name: place}
    return {
        path.name: path
        for path in sorted(place.iterdir())
        if path.is_file()
        and (path in weights or is_beside_weights(path.name) or LICENCES.fullmatch(path.name))
    }


def is_beside_weights(name: str) -> bool:
    return LOADED.fullmatch(name) is not None and not name.endswith(".py")


def report_files(reports: Sequence[str | Path]) -> dict[str, Path]:
    """Return the files of reports; those of a folder are named with it."""
    found = dict[str, Path]()
    for given in map(Path, reports):
        inside = sorted(path for path in given.rglob("*") if path.is_file())
        found |= {path.relative_to(given.parent).as_posix(): path for path in inside or [given]}
    for name, path in found.items():
        if not path.is_file() or path.suffix not in OF_REPORTS or name == CARD_NAME:
            raise UsageError(
                f"{path}: is no file of a report ({', '.join(OF_REPORTS)}): rows that a model "
                "learnt from or was judged on are not sent."
            )
    return found


def card_for(model: LoadedModel, reports: Sequence[str | Path], name: str, license: str) -> str:
    """Return the card of a model, with the scores of the reports, which are of its weights."""
    place, sha256 = Path(model.source), model.weights_sha256
    there, kind = place / CARD_NAME, model.provenance.get("format", type(model.module).__name__)
    about = ModelCard(
        title=kind,
        text='A model that bilens reads: `bl.load("path")`.',
        weights_sha256=sha256,
        provenance=model.provenance,
    )
    text = there.read_text("utf-8") if there.is_file() else about.to_markdown()
    if (told := OF_WEIGHTS.search(text)) and told[1] != sha256:
        raise UsageError(f"{there}: is the card of other weights ({told[1][:12]}…): write it anew.")
    fields, words = dict[str, object]({"license": license} if license else {}), list[str]()
    for path in report_files(reports).values():
        record = report_of(path, model)
        if isinstance(record, Audit | Conversion):
            fields |= scores_of(record, name)
            words.append(words_of(record))
    return amend_card(text, fields, "\n\n".join(words)) if fields or words else text


def report_of(path: Path, model: LoadedModel) -> Any:
    """Return the report in a file; None where it is none, refused where it is of other weights."""
    content = json.loads(path.read_text("utf-8")) if path.suffix == ".json" else None
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in REPORTS:
        return None
    record: Any = read_document(REPORTS[kind], content)
    home, told = Path(model.source), record.source.files
    home = home if home.is_dir() else home.parent
    changed = [n for n, s in told.items() if (home / n).is_file() and file_sha256(home / n) != s]
    if record.source.weights_sha256 != model.weights_sha256 or changed:
        raise UsageError(f"{path}: is a report of other weights than {model.source}: audit these.")
    return record


def check_secrets(name: str, content: Path | bytes, token: bytes) -> None:
    """Refuse what looks like a key, or is the token of the hub; it is not told."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            content = file.read(LOOKED_AT if content.suffix in MODELS else -1)
    if SECRET.search(content) or (token and token in content):
        raise UsageError(f"{name}: holds what looks like a key or a token: take it out first.")


def send_files(
    hub: Any, pushed: PushedModel, files: Mapping[str, Path | bytes], message: str
) -> PushedModel:
    """Commit the files to their repository, which is made where there is none."""
    api, name = hub.HfApi(), pushed.repository
    api.create_repo(name, private=pushed.private, exist_ok=True)
    about = api.repo_info(name)
    if pushed.private and not about.private:
        raise UsageError(f"{name} is public on the hub: push it as public (--public), or rename.")
    there = {one.rfilename for one in about.siblings or ()} - {*files}
    others = [one for one in there if is_beside_weights(one) or one.endswith(MODELS)]
    if others := sorted(one for one in others if "/" not in one):
        raise UsageError(f"{name} holds files of another model ({', '.join(others)}): rename.")
    added = [hub.CommitOperationAdd(path, content) for path, content in files.items()]
    said = {"commit_message": message, "parent_commit": about.sha}
    done = api.create_commit(name, added, **said)
    return replace(pushed, private=about.private, commit=done.oid, url=str(done.commit_url))
