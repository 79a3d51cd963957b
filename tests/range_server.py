"""A server of files on loopback that sends byte ranges, counts them, and can be told to fail."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class RangeServer(ThreadingHTTPServer):
    """Serves a folder. `faults` are taken one a request: a status, "cut" or "short"."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: list[Any] = []
        self.broken: dict[Any, int] = {}  # status of a file, or of a file from a byte on
        self.sent = 0  # bytes of bodies
        self.asked: list[tuple[str, int, int]] = []
        self.etags: dict[str, str] = {}
        self.in_ranges = True
        self.redirects: dict[str, str] = {}
        self.answers: dict[str, Any] = {}  # path: JSON
        self.seen: list[str] = []  # whole request lines
        self.authorised: str | None = None  # the header that is asked for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RangeServer

    def log_message(self, *_: Any) -> None:
        pass

    def empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        here = self.server
        here.seen.append(self.path)
        path = self.path.partition("?")[0].lstrip("/")
        if here.authorised not in (None, self.headers.get("Authorization")):
            self.empty(403)
            return
        if path in here.redirects:
            self.empty(302, Location=here.redirects[path])
            return
        if path in here.answers:
            body = json.dumps(here.answers[path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        file = here.folder / path
        if not file.is_file():
            self.empty(404)
            return
        size = file.stat().st_size
        found = RANGE.fullmatch(self.headers.get("Range", "")) if here.in_ranges else None
        start, stop = 0, size
        if found:
            start, stop = int(found[1]), min(int(found[2]) + 1, size)
            here.asked.append((file.name, start, stop))
        status = here.broken.get(file.name) or here.broken.get((file.name, start))
        if status is not None:
            self.empty(status)
            return
        # of weights alone: that a file is looked for says nothing
        get = self.command == "GET"
        fault = here.faults.pop(0) if get and here.faults and stop - start > 8 else None
        if isinstance(fault, int):
            self.empty(fault)
            return
        with file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(stop - start) if get else b""
        self.send_response(206 if found else 200)
        self.send_header("ETag", here.etags.get(file.name, f'"{file.name} 1"'))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start - (3 if fault == "short" else 0)))
        self.end_headers()
        if not get:
            return
        if fault in ("cut", "short"):
            body = body[: -3 if fault == "short" else len(body) // 2]
        try:
            self.wfile.write(body)
        except OSError:
            return
        here.sent += len(body)
        if fault == "cut":
            self.close_connection = True


@contextmanager
def served(folder: Path) -> Iterator[RangeServer]:
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
