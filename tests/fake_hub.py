"""A hub on loopback: what huggingface_hub asks of repositories, files and commits, in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from bilens.io import remote_stores

TOKEN = "hf_" + "q" * 34
LFS = (".safetensors", ".onnx")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
Answer = tuple[int, Any, dict[str, str]]


@dataclass
class Repository:
    """Its commits, each with all its files, the newest last."""

    private: bool
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        text = repr((len(self.commits), message, sorted(files.items())))
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        return sha

    @property
    def head(self) -> str:
        return [*self.commits][-1]


class FakeHub(ThreadingHTTPServer):
    """Repositories by name, of one user whose token is `token`."""

    daemon_threads = True

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.seen: list[str] = []  # method and path
        self.meanwhile: Callable[[], object] = int  # what happens before a commit
        self.fault: int | None = None  # the status that everything is answered with

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str) -> dict[str, bytes]:
        repository = self.repositories[name]
        return repository.commits[repository.head]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(self.path.partition("?")[0])
        self.server.seen.append(f"{self.command} {path}")
        if self.server.fault is not None:
            self.send(self.server.fault, {"error": "broken"}, {})
            return
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, path):
                self.send(*answer(self, body, *found.groups()))
                return
        self.send(404, {"error": f"no such route: {path}"}, {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def send(self, status: int, content: Any, headers: dict[str, str]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def repository(self, name: str) -> Repository | None:
        """The repository, if the caller may know of it."""
        found = self.server.repositories.get(name)
        return None if found is None or (found.private and not self.is_known) else found

    def missing(self) -> Answer:
        status = 404 if self.is_known else 401
        return status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}


def revision_of(repository: Repository, revision: str) -> str | None:
    if revision == "main":
        return repository.head
    return revision if revision in repository.commits else None


NO_REVISION: Answer = (404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
NO_ENTRY: Answer = (404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound"})


def about(asked: Handler, _: bytes, name: str, revision: str | None = None) -> Answer:
    found = asked.repository(name)
    if found is None:
        return asked.missing()
    sha = revision_of(found, revision or "main")
    if sha is None:
        return NO_REVISION
    siblings = [{"rfilename": file} for file in found.commits[sha]]
    content = {"id": name, "modelId": name, "sha": sha, "private": found.private}
    return 200, {**content, "gated": found.gated, "siblings": siblings}, {}


def entry(path: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    found = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path.endswith(LFS):
        sha256 = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
    return found


def tree(asked: Handler, _: bytes, name: str, revision: str, below: str | None) -> Answer:
    found = asked.repository(name)
    if found is None:
        return asked.missing()
    sha = revision_of(found, revision)
    if sha is None:
        return NO_REVISION
    start = f"{below}/" if below else ""
    inside = {p: d for p, d in found.commits[sha].items() if p.startswith(start)}
    if start and not inside:
        return NO_ENTRY
    if "recursive=true" in asked.path.lower():
        return 200, [entry(p, d) for p, d in inside.items()], {}
    folders = {start + p[len(start) :].split("/")[0] for p in inside if "/" in p[len(start) :]}
    listed = [{"type": "directory", "path": one, "size": 0, "oid": "0" * 40} for one in folders]
    return 200, listed + [entry(p, d) for p, d in inside.items() if "/" not in p[len(start) :]], {}


def create(asked: Handler, body: bytes) -> Answer:
    said = json.loads(body)
    if not asked.is_known:
        return 401, {"error": "Invalid credentials"}, {}
    name = f"{said.get('organization', 'me')}/{said['name']}"
    if name in asked.server.repositories:
        return 409, {"error": "exists", "url": f"{asked.server.url}/{name}"}, {}
    private = said.get("private") is True or said.get("visibility") == "private"
    asked.server.repositories[name] = made = Repository(private)
    made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
    return 200, {"url": f"{asked.server.url}/{name}"}, {}


def preupload(asked: Handler, body: bytes, *_: str) -> Answer:
    asked.server.meanwhile()
    files = json.loads(body)["files"]
    modes = [
        {
            "path": one["path"],
            "uploadMode": "lfs" if one["path"].endswith(LFS) else "regular",
            "shouldIgnore": False,
            "oid": None,
        }
        for one in files
    ]
    return 200, {"files": modes}, {}


def batch(asked: Handler, body: bytes, _: str) -> Answer:
    def action(one: dict[str, Any]) -> dict[str, Any]:
        href = f"{asked.server.url}/lfs/{one['oid']}"
        return {**one, "actions": {"upload": {"href": href, "header": {}}}}

    objects = [action(one) for one in json.loads(body)["objects"]]
    return 200, {"transfer": "basic", "objects": objects}, {}


def put(asked: Handler, body: bytes, oid: str) -> Answer:
    if hashlib.sha256(body).hexdigest() != oid:
        return 400, {"error": "another hash"}, {}
    asked.server.blobs[oid] = body
    return 200, {}, {}


def commit(asked: Handler, body: bytes, name: str, _: str) -> Answer:
    found = asked.repository(name)
    if found is None or not asked.is_known:
        return asked.missing()
    files, message = dict(found.commits[found.head]), ""
    for line in map(json.loads, body.decode().splitlines()):
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
            if value.get("parentCommit") not in (None, found.head):
                return 412, {"error": "another parent"}, {}
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = asked.server.blobs[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    sha = found.commit(files, message)
    url = f"{asked.server.url}/{name}/commit/{sha}"
    return 200, {"success": True, "commitOid": sha, "commitUrl": url}, {}


def resolve(asked: Handler, _: bytes, name: str, revision: str, path: str) -> Answer:
    found = asked.repository(name)
    if found is None:
        return asked.missing()
    if found.gated:
        return 403 if asked.is_known else 401, {"error": "gated"}, {"X-Error-Code": "GatedRepo"}
    sha = revision_of(found, revision)
    if sha is None:
        return NO_REVISION
    data = found.commits[sha].get(path)
    if data is None:
        return NO_ENTRY
    headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": sha}
    part = RANGE.fullmatch(asked.headers.get("Range", ""))
    if part is None:
        return 200, data, headers
    start, stop = int(part[1]), min(int(part[2] or len(data) - 1) + 1, len(data))
    return 206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/*"}


NAME, REVISION = r"([\w.-]+/[\w.-]+)", r"([^/]+)"
ROUTES: tuple[tuple[str, Any], ...] = (
    (r"/api/repos/create", create),
    (r"/api/validate-yaml", lambda *_: (200, {"errors": [], "warnings": []}, {})),
    (rf"/api/models/{NAME}", about),
    (rf"/api/models/{NAME}/revision/{REVISION}", about),
    (rf"/api/models/{NAME}/tree/{REVISION}(?:/(.*))?", tree),
    (rf"/api/models/{NAME}/preupload/{REVISION}", preupload),
    (rf"/api/models/{NAME}/commit/{REVISION}", commit),
    (rf"/{NAME}\.git/info/lfs/objects/batch", batch),
    (r"/lfs/(\w+)", put),
    (rf"/{NAME}/resolve/{REVISION}/(.*)", resolve),
)


@contextmanager
def hub_on_loopback() -> Iterator[FakeHub]:
    server = FakeHub(TOKEN)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def hub_of_this_process(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[FakeHub]:
    """A hub that huggingface_hub asks in this process; caches are in the folder."""
    with hub_on_loopback() as server:
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(folder / "hub cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            patch.setattr(f"huggingface_hub.constants.{name}", value)
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("BILENS_CACHE", str(folder / "ranges"))
        patch.setattr(remote_stores, "WAIT", 1e-3)
        yield server
