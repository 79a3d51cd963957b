"""How long the explorer's pages take in a browser, on folders that are made for it.

Each page is opened several times in a Chromium of this machine; the median counts. The first paint
is the browser's own (first contentful paint); a page can be used when its script has mounted its
views. Run it with `make bench-explorer`; it writes docs/benchmarks/explorer.json and the page.
"""

import json
import os
import random
import secrets
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from msgspec import structs
from playwright.sync_api import Page, sync_playwright

import bilens as bl
from bilens.api.provenance import describe_run
from bilens.records.audit import Audit
from bilens.records.base import to_json
from bilens_explorer.records.models import id_of

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
MODELS, AGAIN = 2000, 4  # models of the large folder; further audits of every fourth of them
SOME, PAGE_SIZE = 500, 150.0  # models of a usual folder; kB of its first page
ROUNDS = 7
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
READY = ".controls:not([hidden])"
FIRST, USED, ACT = 300.0, 1000.0, 100.0  # milliseconds: the limits
READ = 10.0  # seconds: the limit of the first look at all files
STROKE, ANSWER = 16.0, 40.0  # in the page; by the server
READERS, OPEN, LAYERS = 100, 10, 300  # at once; models that are open; of the deep model
MEMORY, FILE = 400.0, 5.0  # MB: of the server, of the export
TOKEN = secrets.token_urlsafe(32)
BEARER = {"authorization": f"Bearer {TOKEN}"}
BOMB, BOMBS = 1 << 29, 5  # bytes that a document would unpack to; documents of each kind
BOARD = "canvas[role=application]"
DRAWN = """(at) => {
    const board = document.querySelector("canvas[role=application]");
    const box = board.getBoundingClientRect();
    board.setPointerCapture = () => {};
    board.hasPointerCapture = () => true;
    const touch = (type, where) => {
        const place = { clientX: box.x + where, clientY: box.y + where };
        board.dispatchEvent(new PointerEvent(type, { pointerId: 1, button: 0, ...place }));
    };
    touch("pointerdown", at);
    const start = performance.now();
    touch("pointermove", at + 6);
    document.querySelector(".answer").getBoundingClientRect();
    return performance.now() - start;
}"""
ASKED = """async (key) => {
    const { post } = await import("/static/lib.js");
    const inputs = Array.from({ length: 784 }, Math.random);
    await post(`/models/${key}/radius`, { inputs });
    const start = performance.now();
    await post(`/models/${key}/radius`, { inputs: inputs.map((one) => 0.999 * one) });
    return performance.now() - start;
}"""
Row = dict[str, Any]  # what, value, unit, limit


def make_folder(folder: Path, models: int) -> None:
    """Fill a folder with copies of one tiny model, and audits that end in every way."""
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)  # noqa: S311 - chance
    inputs = torch.randn(200, 36, generator=generator)
    first = folder / "team-0" / "model-0000"
    bl.save(bl.nn.BilinearClassifier(36, 8, 3), first)
    answers = torch.randint(3, (200,), generator=generator)
    record = bl.audit(bl.load(first), (inputs, answers), null_samples=39).record
    assert isinstance(record, Audit), "of a classifier of one layer"
    history = bl.History(folder)
    for number in range(models):
        place = folder / f"team-{number % 20}" / f"model-{number:04}"
        if number:
            shutil.copytree(first, place)
        for _ in range(1 + AGAIN * (number % 4 == 0)):
            history.add(varied(record, place, rng))


def varied(record: Audit, place: Path, rng: random.Random) -> Audit:
    """Return an audit whose rules end by chance."""
    verdict = []
    for one in record.verdict:
        outcome = rng.choices(["pass", "warn", "fail"], [20, 2, 1])[0]
        values = {
            name: value * rng.uniform(0.7, 1) if isinstance(value, float) else value
            for name, value in one.values.items()
        }
        verdict.append(structs.replace(one, outcome=outcome, values=values))
    source = structs.replace(record.source, path=str(place))
    return structs.replace(record, verdict=tuple(verdict), decision=None, source=source)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the address of an explorer in a process of its own, and the process."""
    token = folder.parent / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "bilens",
        "serve",
        str(folder),
        "--no-open",
        "--port",
        str(port),
        "--token-file",
        str(token),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - ours
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


@contextmanager
def browser() -> Iterator[Page]:
    path = os.environ.get("BILENS_TEST_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found.new_page(viewport={"width": 1280, "height": 900}, extra_http_headers=BEARER)
        found.close()


def row(what: str, values: list[float], limit: float, unit: str = "ms") -> Row:
    return {"what": what, "value": statistics.median(values), "unit": unit, "limit": limit}


def opened(page: Page, what: str, address: str, ready: str) -> list[Row]:
    """Return how long a page takes until it is painted, and until it can be used."""
    painted, usable = [], []
    for _ in range(ROUNDS):
        page.goto("about:blank")
        page.goto(address, wait_until="commit")
        page.wait_for_selector(ready)
        usable.append(page.evaluate("performance.now()"))
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        painted.append(page.evaluate(PAINT))
    return [
        row(f"{what}: first paint", painted, FIRST),
        row(f"{what}: ready to use", usable, USED),
    ]


def acted(page: Page, what: str, script: str) -> Row:
    """Return how long the page needs for an act, to the next frame."""
    timed = (
        "() => new Promise((done) => { const start = performance.now(); "
        f"{script}; requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));"
        "})"
    )
    return row(what, [page.evaluate(timed) for _ in range(ROUNDS)], ACT)


def usual_home_rows(page: Page, address: str) -> list[Row]:
    """Measure the first page of a folder with fewer models: its time and its size."""
    what = f"home, {SOME:,} models"
    size = len(httpx.get(f"{address}/?lang=en", timeout=60, headers=BEARER).content) / 1000
    found = opened(page, what, f"{address}/?lang=en", READY)
    return [*found, row(f"{what}: size", [size], PAGE_SIZE, "kB")]


def home_rows(page: Page, address: str) -> list[Row]:
    """Measure the first page, and a model's page, of a folder with many models."""
    what = f"home, {MODELS:,} models"
    read = row(f"{what}: all files are read", [seconds_until_read(address)], READ, "s")
    found = [read, *opened(page, what, f"{address}/?lang=en", READY)]
    search = (
        "const box = document.getElementById('search'); "
        "box.value = box.value ? '' : '7'; box.dispatchEvent(new Event('input'))"
    )
    found.append(acted(page, "home: a letter is typed", search))
    sort = "document.querySelectorAll('.models th button')[3].click()"
    found.append(acted(page, "home: sorted by another column", sort))
    link = page.locator(".models tbody a").first.get_attribute("href")
    model = f"model, of {MODELS:,}"
    return found + opened(page, model, f"{address}{link}", "article button")


def seconds_until_read(address: str) -> float:
    """Ask for a folder that was served just now until the files of all its models are read."""
    start = time.perf_counter()
    with httpx.Client(base_url=address, timeout=60, headers=BEARER) as client:
        while any(
            one["state"] == "unread" for one in client.get("/api/v1/overview").json()["models"]
        ):
            time.sleep(0.1)
    return time.perf_counter() - start


def playground_rows(page: Page, address: str) -> list[Row]:
    """Measure the playground of a folder with one image model: in the page, and by the server."""
    (model,) = httpx.get(f"{address}/api/v1/overview", timeout=60, headers=BEARER).json()["models"]
    what = "playground, 784 × 256 × 10"
    view = f"{address}/models/{model['id']}/playground"
    httpx.get(f"{address}/api/v1/models/{model['id']}/playground", timeout=60, headers=BEARER)
    found = opened(page, what, view, BOARD)
    strokes = [page.evaluate(DRAWN, 20.0 + 3 * at) for at in range(60)]
    found.append(row(f"{what}: a stroke, to logits and all that is drawn of them", strokes, STROKE))
    asked = [page.evaluate(ASKED, model["id"]) for _ in range(ROUNDS)]
    return [*found, row(f"{what}: logits and the exact radius of the server", asked, ANSWER)]


def layer_rows(page: Page, address: str) -> list[Row]:
    """Measure the page of layers of a model that has many."""
    (model,) = httpx.get(f"{address}/api/v1/overview", timeout=60, headers=BEARER).json()["models"]
    view = f"{address}/models/{model['id']}/spectra"
    return opened(page, f"layers, a model of {LAYERS}", view, f"tbody tr:nth-child({LAYERS})")


def reader_rows(address: str) -> list[Row]:
    """Let many readers go through home, a model and one of its views at once; count errors."""
    models = httpx.get(f"{address}/api/v1/overview", timeout=60, headers=BEARER).json()["models"]

    def read(number: int) -> tuple[int, float]:
        key, faults, start = models[number % len(models)]["id"], 0, time.perf_counter()
        paths = ("/", f"/models/{key}", f"/api/v1/models/{key}/layers", f"/api/v1/models/{key}")
        with httpx.Client(base_url=address, timeout=60, headers=BEARER) as client:
            for path in paths:
                faults += client.get(path).status_code != 200
        return faults, 1000 * (time.perf_counter() - start)

    with ThreadPoolExecutor(READERS) as readers:
        ended = [*readers.map(read, range(READERS))]
    faults = float(sum(faults for faults, _ in ended))
    return [row(f"{READERS} readers at once, four pages each: errors", [faults], 0, "errors")]


def memory_rows(page: Page, address: str, process: int) -> list[Row]:
    """Open models in every view, one after the other; read what the server holds then."""
    for model in httpx.get(f"{address}/api/v1/overview", timeout=60, headers=BEARER).json()[
        "models"
    ]:
        for view in ("", "/spectra", "/interactions", "/playground"):
            page.goto(f"{address}/models/{model['id']}{view}")
            page.wait_for_selector("main:not(:has([aria-busy]))", timeout=120_000)
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    held = float(status.split("VmRSS:")[1].split()[0]) / 1000
    return [
        row(f"memory of the server, {OPEN} models looked at in every view", [held], MEMORY, "MB")
    ]


def make_hostile(folder: Path) -> None:
    """Fill a folder with a history whose documents take what memory there is, if they can."""
    make_folder(folder, 1)
    zeros, wide = (
        zlib.compressobj(9),
        b'{"kind":"audit","read_as":"classes","a":[' + 990_000 * b"{},",
    )
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(BOMB >> 20)) + zeros.flush()
    documents = [bomb, zlib.compress(wide + b"1]}"), zlib.compress(100_000 * b"[")]
    with sqlite3.connect(folder / "bilens.db") as database:
        names = database.execute("SELECT * FROM audits LIMIT 1").description
        columns = ", ".join(
            name for name, *_ in names if name not in ("number", "document", "model")
        )
        for number, document in enumerate(BOMBS * documents):
            database.execute(
                f"INSERT INTO audits (model, document, {columns}) "  # noqa: S608 - of this file
                f"SELECT ?, ?, {columns} FROM audits LIMIT 1",
                (f"hostile-{number}", document),
            )


def hostile_rows(address: str, process: int) -> list[Row]:
    """Let many readers ask for every audit and model of a hostile history at once."""
    models = httpx.get(f"{address}/api/v1/overview", timeout=60, headers=BEARER).json()["models"]
    count = 1 + AGAIN + 3 * BOMBS
    paths = [f"/audits/{number}" for number in range(1, count + 1)]
    paths += [f"/models/{one['id']}" for one in models]
    faults = []

    def read(path: str) -> None:
        answer = httpx.get(f"{address}{path}", timeout=300, headers=BEARER, trust_env=False)
        if answer.status_code not in (200, 503):
            faults.append(path)

    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, paths))
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    most = float(status.split("VmHWM:")[1].split()[0]) / 1000
    what = f"hostile history of {len(models)} models, {READERS} readers"
    return [
        row(f"{what}: errors", [float(len(faults))], 0, "errors"),
        row(f"{what}: most memory of the server", [most], MEMORY, "MB"),
    ]


def file_rows(page: Page, folder: Path) -> list[Row]:
    """Measure the one-file export of a model of images: size, requests, and a stroke in it."""
    file = folder.parent / "explorer.html"
    line = ["serve", str(folder), "--export", str(file)]
    subprocess.run([sys.executable, "-m", "bilens", "-q", *line], check=True)  # noqa: S603 - ours
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    (model,) = folder.glob("*/config.json")
    page.goto(f"{file.as_uri()}#/models/{id_of(model.parent.name)}/playground")
    page.wait_for_selector(BOARD)
    strokes = [page.evaluate(DRAWN, 20.0 + 3 * at) for at in range(60)]
    beyond = [one for one in asked if not one.startswith((file.as_uri(), "data:", "blob:"))]
    return [
        row("export of 784 × 256 × 10: size", [file.stat().st_size / 1e6], FILE, "MB"),
        row("export: requests", [float(len(beyond))], 0, "requests"),
        row("export: a stroke, to logits and all that is drawn of them", strokes, STROKE),
    ]


def page_of(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    rows = "\n".join(
        f"| {one['what']} | {one['value']:.3g} {one['unit']} | {one['limit']:.0f} {one['unit']} |"
        for one in result["rows"]
    )
    run = result["run"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return f"""# The explorer: how long its pages take

Generated by `make bench-explorer` from `explorer.json`; do not edit. The median of {ROUNDS}.

| what | measured | limit |
|---|---|---|
{rows}

* The large folder holds {MODELS:,} models with {result["audits"]:,} audits; server and browser
  ({result["browser"]}) share this machine,
  on whose {result["processors"]} processors {result["load"]:.1f} processes wanted to run (mean of
  five minutes).
* {run["date"]}; {run["hardware"]}; {versions}.
"""


def main() -> None:
    """Run the benchmark, write its result and page, and fail where a limit is passed."""
    with tempfile.TemporaryDirectory() as made, browser() as page:
        folder, some, digits, deep, hostile = (
            Path(made) / name for name in ("runs", "some", "digits", "deep", "hostile")
        )
        make_folder(some, SOME)
        with served(some) as (address, _):
            rows = usual_home_rows(page, address)
        make_folder(folder, MODELS)
        with served(folder) as (address, _):
            rows += [*home_rows(page, address), *reader_rows(address)]
        make_hostile(hostile)
        with served(hostile) as (address, process):
            rows += hostile_rows(address, process)
        bl.save(bl.nn.BilinearTransformer(64, 16, 16, LAYERS, 2, 16), deep / "model")
        with served(deep) as (address, _):
            rows += layer_rows(page, address)
        bl.save(bl.nn.BilinearClassifier(784, 256, 10), digits / "model", input_shape=(28, 28))
        with served(digits) as (address, _):
            rows += playground_rows(page, address)
        rows += file_rows(page, digits)
        for number in range(OPEN - 1):
            torch.manual_seed(number)
            model = bl.nn.BilinearClassifier(784, 256, 10)
            bl.save(model, digits / f"other-{number}", input_shape=(28, 28))
        with served(digits) as (address, process):
            rows += memory_rows(page, address, process)
        result = {
            "rows": rows,
            "audits": bl.History(folder).last()[0],
            "load": os.getloadavg()[1],
            "processors": os.cpu_count(),
            "browser": page.evaluate("navigator.userAgent").split()[-2],
            "run": to_json(describe_run("make bench-explorer", 0)),
        }
    PAGE.mkdir(parents=True, exist_ok=True)
    (PAGE / "explorer.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "explorer.md").write_text(page_of(result))
    print(page_of(result))
    if over := [one["what"] for one in rows if one["value"] > one["limit"]]:
        sys.exit(f"over the limit: {', '.join(over)}")


if __name__ == "__main__":
    main()
