"""`bl.push`: a model on the Hugging Face hub, its own files and its card, and no others."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import structs
from torch import nn

from bilens.api.provenance import LOADED, check_unchanged, weight_files_of
from bilens.base import silent
from bilens.base.errors import BilensError, CheckpointError, UsageError, optional_package
from bilens.base.files import file_sha256
from bilens.base.model_card import CARD_NAME, NO_LICENCE, OF_WEIGHTS, card_file
from bilens.base.notebook import frozen_result
from bilens.io.file_kinds import MODELS
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_folder import save
from bilens.io.remote_stores import attempt
from bilens.records.audit import Audit
from bilens.records.base import kind_of, read_document
from bilens.report.evidence import evidence_files
from bilens.report.html import PAGES
from bilens.report.markdown import audit_markdown
from bilens.report.sections.overview import document_sha256
from bilens.report.text import LANGUAGES

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LICENCES = re.compile(r"(licen[cs]e|copying|notice)\b[^.]*(\.(txt|md))?", re.IGNORECASE)
OF_REPORTS = (".json", ".sarif", ".xml", ".md", ".html")
REPORTS = {kind_of(one): one for one in PAGES}
DOCUMENT = re.compile(r'<script type="application/json" id="bilens-[\w ]+">(.*?)</script>')
SENT = "<!-- bilens sent {} {} -->\n"  # in a card: what the next push may take away
SENT_LINE = re.compile(SENT.format("(.+)", "([0-9a-f]{64})"))
SECRET = re.compile(
    rb"(?:hf|api_org)_[A-Za-z0-9]{30,}|\bgh[a-z]_[A-Za-z0-9]{30,}|(?<![\w-])sk-[\w-]{32,}"
    rb"|\bAKIA[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
LOOKED_AT = 1 << 20  # first bytes of weights, where a header and its metadata are
Contents = Mapping[str, Path | bytes]


@frozen_result("repository", "private", "files", "left_here", "address")
class PushedModel:
    """A model as it was sent to the hub, or would be: the bytes of each file, and its commit."""

    repository: str
    private: bool
    files: Mapping[str, int]
    left_here: tuple[str, ...]  # what else lies in the folder
    address: str = ""  # for `bl.load`, with the commit; empty where nothing was sent, like `url`
    url: str = ""


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
        reports: files of reports of exactly these weights, or folders of them: JSON, HTML, and
            Markdown and evidence of audits whose JSON is named. The card has the audits' scores.
        license: as the hub names it ("apache-2.0"), for the card.
        dry_run: whether nothing is sent: what would be is returned.
        say: is told each file with its size, before any is sent.

    Raises: UsageError if it is no model of a file, a report is of other weights or nothing tells
        of which, a file or the message holds what looks like a key, the card cannot be read or says
        otherwise, or the repository is public or holds another model; CheckpointError if there is
        no model, or the hub refuses or is not reached.
    """
    if REPOSITORY.fullmatch(repository) is None:
        raise UsageError(f"repository={repository!r}: expected OWNER/NAME, as on the hub.")
    hub = optional_package("huggingface_hub", "hub", "pushing a model")
    with TemporaryDirectory() as made:
        given = save(model, Path(made) / "model") if isinstance(model, nn.Module) else model
        loaded = given if isinstance(given, LoadedModel) else load(given)
        place = Path(loaded.home)
        if not place.exists() or not loaded.is_as_read:
            raise UsageError(f"{place}: lies in no file here as it is: save it, and pass that.")
        files = files_to_send(hub, loaded, reports, repository, license)
        token = str(hub.get_token() or "").encode()
        check_secrets({**files, "the message": message.encode()}, token)
        check_unchanged(loaded)
        inside = {one.name for one in place.iterdir()} if place.is_dir() else set()
        sizes = {n: len(x) if isinstance(x, bytes) else x.stat().st_size for n, x in files.items()}
        for name, size in sizes.items():
            say(f"{name}: {size:,} bytes")
        found = PushedModel(repository, private, sizes, tuple(sorted(inside - {*files})))
        say(f"Stays here: {', '.join(found.left_here) or 'nothing'}.")
        message = message or f"A model of bilens: {loaded.weights_sha256[:12]}"
        send = partial(send_files, hub, found, files, message, say)
        try:
            return found if dry_run else attempt(f"hf://{repository}", send, "sent")
        except (FileNotFoundError, PermissionError):
            raise CheckpointError(
                f"hf://{repository}: may not be written: check the name, and run `hf auth login` "
                "with a token that may write there."
            ) from None


def files_to_send(
    hub: Any, model: LoadedModel, reports: Sequence[str | Path], repository: str, license: str
) -> dict[str, Path | bytes]:
    """Return the files of a model and its reports by name, with its card."""
    own = model_files(model)
    named = report_files(reports, own)
    card = card_for(hub, model, named, repository, license)
    return {**own, **named, CARD_NAME: card.encode()}


def model_files(model: LoadedModel) -> dict[str, Path]:
    """Return the files that a model is read from, and licences beside them."""
    place, weights = Path(model.home), {*weight_files_of(model)}
    beside = filter(Path.is_file, sorted(place.iterdir()) if place.is_dir() else [place])
    return {
        path.name: path
        for path in beside
        if path in {place, *weights} or is_read(path.name) or LICENCES.fullmatch(path.name)
    }


def is_read(name: str) -> bool:
    """Tell whether a file is read beside weights; code never is."""
    return LOADED.fullmatch(name) is not None and not name.endswith(".py")


def report_files(reports: Sequence[str | Path], own: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of reports; those of a folder are named with it."""
    found = dict[str, Path]()
    for given in map(Path, reports):
        for path in sorted(filter(Path.is_file, given.rglob("*"))) or [given]:
            name = path.relative_to(given.parent).as_posix()
            if not path.is_file() or path.suffix not in OF_REPORTS or name == CARD_NAME:
                raise UsageError(
                    f"{path}: is no file of a report ({', '.join(OF_REPORTS)}): rows that a model "
                    "learnt from or was judged on are not sent."
                )
            if name in own or is_read(name) or not found.setdefault(name, path).samefile(path):
                raise UsageError(f"{path}: another file is sent or read as {name}: rename it.")
    return found


def card_for(
    hub: Any, model: LoadedModel, reports: Mapping[str, Path], repository: str, license: str
) -> str:
    """Return the card of a model, and of reports of its own weights alone."""
    place, sha256 = Path(model.home), model.weights_sha256
    kind = model.provenance.get("format", type(model.module).__name__)
    there, words = place / CARD_NAME, {"name": kind, "task": ""}
    try:
        made = card_file(place, "model", sha256, {}, model.provenance, words)
        text = there.read_text("utf-8") if there.is_file() else made[CARD_NAME].decode()
        card = hub.ModelCard(text)
    except Exception as error:  # what people wrote: YAML has errors of its own
        raise UsageError(f"{there}: cannot be read ({' '.join(str(error).split())}).") from None
    if (told := OF_WEIGHTS.search(text)) and told[1] != sha256:
        raise UsageError(f"{there}: is the card of other weights ({told[1][:12]}…): write it anew.")
    stated = card.data.license or license
    if license and stated != license:
        raise UsageError(f"{there}: its licence is {stated}, not {license}: change one of them.")
    card.data.license = stated or None
    card.text = card.text.replace(NO_LICENCE, str(stated or NO_LICENCE))
    for path, audit in audits_in(reports, model).items():
        if file_sha256(path) not in card.text:  # as evidence it may be named twice
            add_audit(hub, card, path, audit, repository.split("/")[1])
    card.text += "".join(SENT.format(name, file_sha256(path)) for name, path in reports.items())
    return str(card) if license or card.text not in text else text


def add_audit(hub: Any, card: Any, path: Path, audit: Audit, name: str) -> None:
    """Add an audit to a card, with its scores; the document it names is the one that is sent."""
    shown = structs.replace(audit, source=structs.replace(audit.source, path=name))
    text = evidence_files(shown, "en")["model-card.md"].decode()
    part = hub.ModelCard(text.replace(document_sha256(shown), file_sha256(path)))
    card.text += f"\n{part.text}"
    scores = [*(card.data.eval_results or ()), *(part.data.eval_results or ())]
    for a, b in combinations(scores, 2):
        if a.is_equal_except_value(b) and a.metric_value != b.metric_value:
            raise UsageError(
                f"{path}: {b.metric_type} on {b.dataset_name} is {b.metric_value}, and "
                f"{a.metric_value} in the card or another report: leave one of them out."
            )
    if scores:
        card.data.eval_results, card.data.model_name = scores, name


def audits_in(reports: Mapping[str, Path], model: LoadedModel) -> dict[Path, Audit]:
    """Return the audits among reports; refused is what is not known to be of these weights."""
    records = {path: report_of(path, model) for path in reports.values()}
    audits = {p: r for p, r in records.items() if isinstance(r, Audit) and p.suffix == ".json"}
    drawn = {
        text.strip()
        for one, lang in product(audits.values(), LANGUAGES)
        for text in (*evidence_files(one, lang).values(), audit_markdown(one, lang).encode())
    }
    for path, record in records.items():
        if record is None and path.read_bytes().strip() not in drawn:
            raise UsageError(
                f"{path}: nothing tells of which weights it is: expected a report of bilens, or "
                "evidence or Markdown of an audit whose JSON is sent, too."
            )
    return audits


def report_of(path: Path, model: LoadedModel) -> Any:
    """Return the report in a file; None where it is none, refused where it is of other weights."""
    try:
        text = path.read_text("utf-8")
        inside = DOCUMENT.findall(text) if path.suffix == ".html" else [text]
        content = json.loads(inside[0]) if path.suffix in (".html", ".json") else {}
        record: Any = read_document(REPORTS[content["kind"]], content)
    except (LookupError, TypeError):
        return None
    except (ValueError, RecursionError, BilensError) as error:
        raise UsageError(f"{path}: is no report that can be read ({error}).") from None
    home, told = Path(model.home), record.source.files
    home = home if home.is_dir() else home.parent
    other = {n for n, s in told.items() if (home / n).is_file() and file_sha256(home / n) != s}
    if other or record.source.weights_sha256 != (model.weights_sha256 or None):
        raise UsageError(f"{path}: is a report of other weights than {model.source}: audit these.")
    return record


def check_secrets(files: Contents, token: bytes) -> None:
    """Refuse what looks like a key, or is the token of the hub; it is not told."""
    for name, content in files.items():
        if isinstance(content, Path):
            with content.open("rb") as file:
                content = file.read(LOOKED_AT if name.endswith(MODELS) else -1)
        if SECRET.search(content) or (token and token in content):
            raise UsageError(f"{name}: holds what looks like a key or a token: take it out first.")


def send_files(
    hub: Any, pushed: PushedModel, files: Contents, message: str, say: Callable[[str], None]
) -> PushedModel:
    """Commit the files to their repository, which is made where there is none."""
    api, name = hub.HfApi(), pushed.repository
    api.create_repo(name, private=pushed.private, exist_ok=True)
    about = api.repo_info(name)
    if pushed.private and not about.private:
        raise UsageError(
            f"{name} is public on the hub: push it as public (--public), or to another name."
        )
    listed = {one.rfilename for one in about.siblings or ()}
    there = listed - {*files}
    others = sorted(one for one in there if is_read(one) or one.endswith(MODELS))
    if others:
        raise UsageError(
            f"{name} holds files of another model ({', '.join(others)}): push to another name."
        )
    added = [hub.CommitOperationAdd(path, content) for path, content in files.items()]
    fetch = partial(hub.hf_hub_download, name, revision=about.sha)
    card = Path(fetch(CARD_NAME)).read_text("utf-8", "replace") if CARD_NAME in listed else ""
    for path, sha256 in dict(SENT_LINE.findall(card)).items():
        if path in there and file_sha256(Path(fetch(path))) == sha256:
            say(f"{path}: a report of an earlier push, goes from there.")
            added.append(hub.CommitOperationDelete(path))
    parent = {"commit_message": message, "parent_commit": about.sha}
    done = api.create_commit(name, added, **parent)
    address = f"hf://{name}@{done.oid}"
    return replace(pushed, private=about.private, address=address, url=str(done.commit_url))
