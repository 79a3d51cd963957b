"""Sweeps over stores on loopback: what is fetched, and what becomes of faults on the way.

A server of files with byte ranges, and one of S3 (moto), each behind a counter that may plant
faults. They serve the generated model in the layout of DeepSeek-V3 and SmolLM2-135M, as a GGUF and
as a folder of Hugging Face in bfloat16 that is made of it. `make bench-sweep` runs it behind
`bench.sweep.kills`.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import numpy as np
import torch
from safetensors.torch import save_file
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request

from bench.sweep.deepseek import write_model
from bench.sweep.engines import digest, paths, save
from bilens.io.load import load

KINDS = ("http", "s3")
FAULTS = ("503", "cut", "short")
EACH = 12  # requests of a sweep that one of them befalls
CHANGED = -3  # file of the small model, in which its last experts are
LIMIT = 1.02  # of the bytes of the tensors
NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}
PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
    "attn_output": "self_attn.o_proj",
    **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
}


def as_folder(gguf: Path, folder: Path) -> Path:
    """Write the weights of a GGUF of SmolLM2 as a folder of Hugging Face in bfloat16."""
    tensors, model = {}, load(gguf)
    for name, stored in model.tensors.items():
        *block, part, _ = name.split(".")
        known = f"layers.{block[1]}.{PARTS[part]}" if block else NAMES[part]
        tensors[f"model.{known}.weight"] = stored.read_tensor().to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    hidden, width = tensors["model.layers.0.mlp.up_proj.weight"].shape
    about = {"model_type": "llama", "hidden_act": "silu", "hidden_size": width}
    about |= {"intermediate_size": hidden, "num_hidden_layers": len(model.layers)}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


class Counted:
    """An application that counts what it sends; of some requests for ranges, something is lost."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app, self.lock = app, threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.sent: list[tuple[str, int, int]] = []  # file, first byte, the one behind the last
        self.requests: Counter[str] = Counter()
        self.fault: Callable[[int], str] = lambda _number: ""

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        name, text = environ["PATH_INFO"].rpartition("/")[2], environ.get("HTTP_RANGE", "")
        low = int(text[6:].partition("-")[0]) if text else 0
        get = environ["REQUEST_METHOD"] == "GET"
        with self.lock:
            self.requests[environ["REQUEST_METHOD"]] += 1
            number = self.requests["ranges"] = self.requests["ranges"] + (bool(text) and get)
        fault = self.fault(number) if text and get else ""
        if fault == "503":
            start("503 Slow Down", [("Content-Length", "0")])
            return []
        said: list[Any] = []
        body = b"".join(self.app(environ, lambda *of: said.extend(of)))  # type: ignore[arg-type]
        body, told = body[: -3 if fault == "short" else None], str(len(body))
        if fault == "short":
            told = str(len(body))
        if get:
            said[1] = [*(one for one in said[1] if one[0].lower() != "content-length")]
            said[1].append(("Content-Length", told))
        start(said[0], said[1])
        if fault == "cut":
            return half(body)
        if get and said[0][0] == "2" and "." in name:  # a file
            with self.lock:
                self.sent.append((name, low, low + len(body)))
        return [body]


def half(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionResetError


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass

    def connection_dropped(self, *_: Any) -> None:
        self.close_connection = True


@dataclass(frozen=True)
class Store:
    """A store that serves what is put into it."""

    kind: str
    counted: Counted
    place: str  # the address of what is in it
    put: Callable[[str, bytes], object]
    variables: dict[str, str]

    def sweep(self, name: str, out: Path, workers: int = 2) -> subprocess.CompletedProcess[str]:
        """Run the command, with a cache that holds nothing."""
        line = [sys.executable, "-m", "bilens", "sweep", f"{self.place}/{name}", "--do", "fit"]
        line += ["--out", str(out), "--workers", str(workers)]
        with tempfile.TemporaryDirectory() as cache:
            env = {**os.environ, **self.variables, "BILENS_CACHE": cache}
            env["PYTHONPATH"] = os.pathsep.join(paths())
            return subprocess.run(line, capture_output=True, text=True, env=env, check=False)  # noqa: S603


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Store]:
    """Serve a folder that is empty, or a bucket."""
    folder.mkdir(parents=True)
    counted = Counted(files(folder) if kind == "http" else s3())
    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"

    def put(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        os.utime(folder / name, (1, zlib.crc32(data)))  # the same bytes have the same ETag

    if kind == "http":
        yield Store(kind, counted, url, put, {})
    else:
        import fsspec

        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": url}
        bucket = fsspec.filesystem("s3", key="a", secret="b", endpoint_url=url)  # noqa: S106 - no secret
        bucket.mkdir("models")
        yield Store(
            kind,
            counted,
            "s3://models",
            lambda name, data: bucket.pipe_file(f"models/{name}", data),
            keys,
        )
    server.shutdown()
    thread.join()


def files(folder: Path) -> WSGIApplication:
    """Return a server of the files of a folder, with byte ranges and ETags."""

    @Request.application
    def app(request: Request) -> Any:
        return send_from_directory(folder, request.path.lstrip("/"), request.environ)

    found: WSGIApplication = app
    return found


def s3() -> WSGIApplication:
    """Return a server of S3 without anything in it."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    found: WSGIApplication = DomainDispatcherApplication(create_backend_app)
    return found


def files_of(model: Path) -> dict[str, Path]:
    """Return the files of a model by their names in a store."""
    parts = [model] if model.is_file() else sorted(model.iterdir())
    return {str(file.relative_to(model.parent)): file for file in parts}


def counts(store: Store, model: Path, out: Path) -> dict[str, Any]:
    """Sweep a model in a store; return what was fetched, of layers and of headers."""
    for name, file in files_of(model).items():
        store.put(name, file.read_bytes())
    store.counted.clear()
    began = time.monotonic()
    done = store.sweep(model.name, out)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stderr)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()[1:]]
    wanted = {file.name: np.zeros(file.stat().st_size, bool) for file in files_of(model).values()}
    for span in (span for row in rows for part in row["parts"] for span in part["spans"]):
        wanted[span["file"]][span["start"] : span["stop"]] = True
    kinds: Counter[str] = Counter()
    for name, low, high in store.counted.sent:
        tensors = int(wanted[name][low:high].sum())
        kinds["tensors"] += tensors
        kinds["index" if name.endswith(".json") else "headers"] += high - low - tensors
    return {
        "store": store.kind,
        "model": model.name,
        "layers": len(rows),
        "bytes_of_tensors": sum(int(one.sum()) for one in wanted.values()),
        "fetched": dict(kinds),
        "requests": dict(store.counted.requests),
        "seconds": seconds,
        "load": os.getloadavg()[0],
    }


def faults(store: Store, model: Path, folder: Path) -> list[dict[str, Any]]:
    """Sweep a model once for each kind of fault; return what it came to."""
    for name, file in files_of(model).items():
        store.put(name, file.read_bytes())
    store.counted.clear()
    store.sweep(model.name, folder / "whole")
    total, whole = store.counted.requests["ranges"], digest(folder / "whole" / "results")
    chance, found = random.Random(0), []  # noqa: S311 - moments

    def noted(what: str, planted: int, *runs: subprocess.CompletedProcess[str]) -> None:
        codes, lines = (
            [one.returncode for one in runs],
            (runs[0].stdout + runs[0].stderr).split("\n"),
        )
        error = next((one for one in lines if one.startswith("error: ") or " failed: " in one), "")
        same = digest(folder / what / "results") == whole
        one = {"store": store.kind, "fault": what, "planted": planted, "codes": codes}
        found.append({**one, "said": error, "same_bytes": same})
        print(found[-1], flush=True)

    for what in FAULTS:
        store.counted.clear()
        met = {*chance.sample(range(1, total), EACH)}
        store.counted.fault = partial(at, what, met)
        noted(what, EACH, store.sweep(model.name, folder / what))
    store.counted.clear()
    store.counted.fault = partial(at, "503", range(chance.randint(total // 2, total - 9), 10**9))
    first = store.sweep(model.name, folder / "silent")
    store.counted.clear()
    noted("silent", 1, first, store.sweep(model.name, folder / "silent"))
    name, file = [*files_of(model).items()][CHANGED]
    data, begins = file.read_bytes(), threading.Lock()

    def change(number: int, when: int = chance.randint(total // 2, total - 9)) -> str:
        if number >= when and begins.acquire(blocking=False):
            store.put(name, bytes([*data[:-1], data[-1] ^ 1]))
        return ""

    store.counted.clear()
    store.counted.fault = change
    first = store.sweep(model.name, folder / "changed")
    second = store.sweep(model.name, folder / "changed")
    store.put(name, data)
    noted("changed", 1, first, second, store.sweep(model.name, folder / "changed"))
    return found


def at(what: str, numbers: Container[int], number: int) -> str:
    return what if number in numbers else ""


def main() -> None:
    """Run the benchmark in a folder that is made anew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path, help="in the layout of DeepSeek-V3")
    parser.add_argument("gguf", type=Path)
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    models = [as_folder(given.gguf, folder / "SmolLM2-135M"), given.gguf, given.model]
    small = write_model(folder / "small", layers=5, experts=16, files=5)
    result: dict[str, Any] = {"fetched": [], "faults": []}
    for kind in KINDS:
        with served(kind, folder / kind) as store:
            result["faults"] += faults(store, small, folder / f"{kind}-faults")
            for model in models:
                one = counts(store, model, folder / f"{kind}-{model.name}")
                result["fetched"].append(one)
                print(one, flush=True)
    save("stores", result)
    more = [one for one in result["fetched"] if one["tensors"] > LIMIT * one["bytes_of_tensors"]]
    if more or not all(one["same_bytes"] for one in result["faults"]):
        sys.exit("more was fetched than the tensors, or not the same bytes")


if __name__ == "__main__":
    main()
