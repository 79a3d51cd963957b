"""The explorer's addresses: pages for people, and the same records as JSON for scripts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bilens.base.errors import BilensError
from bilens.records.base import Record, to_json
from bilens.records.explorer import ModelPage, Overview
from bilens.records.history import Action, Entry
from bilens.report.reports import SavedReport
from bilens.report.text import LANGUAGES
from bilens.serve.folder import ServedFolder
from bilens.serve.guard import Guard
from bilens.serve.pages import failure_page, model_page, overview_page

STATIC = {  # package and folder of each file
    **dict.fromkeys(("explorer.js", "explorer.css"), ("bilens.serve", "static")),
    **dict.fromkeys(("base.css", "parts.css"), ("bilens.report", "templates")),
}
REPORT_POLICY = (  # a report is one closed file, with its style inside
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
Asked = TypeVar("Asked")
Answer = Callable[[Request], Awaitable[Response]]


class NewEntry(Record, frozen=True, forbid_unknown_fields=True):
    """What is sent to say something of a model; the fields are those of an `Entry`."""

    action: Action
    subject: str
    text: str
    author: str
    until: str | None = None


def build_app(served: ServedFolder, hosts: list[str], token: str | None = None) -> Guard:
    """Return the explorer of a folder as an ASGI application.

    Args:
        served: the folder.
        hosts: `name:port` under which it may be asked for.
        token: that every request needs; None on this machine alone.
    """

    def overview(request: Request) -> Overview:  # noqa: ARG001 - all that is there
        return served.overview()

    def model(request: Request) -> ModelPage:
        return known(served.model(request.path_params["key"]))

    def report(request: Request) -> SavedReport[Any]:
        return known(served.report(request.path_params["key"]))

    def audit(request: Request) -> SavedReport[Any]:
        return served.audit(request.path_params["number"])

    def say(request: Request, body: bytes) -> Entry:
        found = model(request)
        said = msgspec.structs.asdict(msgspec.json.decode(body, type=NewEntry))
        return served.history.say(model=served.folder / found.model.name, **said)

    async def page_of_overview(request: Request) -> Response:
        found = await run_sync(overview, request)
        return HTMLResponse(overview_page(found, lang_of(request), secret_of(request)))

    async def page_of_model(request: Request) -> Response:
        found = await run_sync(model, request)
        return HTMLResponse(model_page(found, lang_of(request), secret_of(request)))

    def page_of_report(find: Callable[[Request], SavedReport[Any]]) -> Answer:
        async def answer(request: Request) -> Response:
            found = await run_sync(find, request)
            page = await run_sync(lambda: found.to_html(lang=lang_of(request)))
            return HTMLResponse(page, headers={"content-security-policy": REPORT_POLICY})

        return answer

    def as_json(find: Callable[[Request], Record | SavedReport[Any]]) -> Answer:
        async def answer(request: Request) -> Response:
            found = await run_sync(find, request)
            record = found.record if isinstance(found, SavedReport) else found
            return JSONResponse(to_json(record))

        return answer

    async def add_entry(request: Request) -> Response:
        body = await request.body()
        return JSONResponse(to_json(await run_sync(say, request, body)), 201)

    def failed(request: Request, error: Exception) -> Response:
        """Return an error as a sentence; no path of the machine and no traceback is in it."""
        reading = request.method in ("GET", "HEAD")
        status = 404 if reading and isinstance(error, BilensError) else 400
        told = str(error).replace(str(served.folder), served.folder.name)
        if isinstance(error, HTTPException):
            status, told = error.status_code, error.detail
        if request.url.path.startswith(api):
            return JSONResponse({"error": told}, status)
        return HTMLResponse(failure_page(told, lang_of(request)), status)

    number, api = "{number:int}", "/api/v1"
    return Guard(
        Starlette(
            routes=[
                Route("/", page_of_overview),
                Route("/models/{key}", page_of_model),
                Route("/reports/{key}", page_of_report(report)),
                Route(f"/audits/{number}", page_of_report(audit)),
                Route("/static/{name}", static),
                Route(f"{api}/overview", as_json(overview)),
                Route(f"{api}/models/{{key}}", as_json(model)),
                Route(f"{api}/models/{{key}}/entries", add_entry, methods=["POST"]),
                Route(f"{api}/reports/{{key}}", as_json(report)),
                Route(f"{api}/audits/{number}", as_json(audit)),
            ],
            exception_handlers={
                HTTPException: failed,
                BilensError: failed,
                msgspec.MsgspecError: failed,
            },
        ),
        hosts,
        token,
    )


def known(found: Asked | None) -> Asked:
    if found is None:
        raise HTTPException(404)
    return found


async def static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    package, folder = STATIC[name]
    text = files(package).joinpath(folder, name).read_text("utf-8")
    return Response(text, media_type="text/css" if name.endswith(".css") else "text/javascript")


def secret_of(request: Request) -> str:
    return str(request.scope["bilens_secret"])


def lang_of(request: Request) -> str:
    """Return the language of the address, else the first that the browser asks for."""
    asked = request.query_params.get("lang", "")
    preferred = request.headers.get("accept-language", "").split(",")
    wanted = [asked, *(part.strip()[:2] for part in preferred)]
    return next((lang for lang in wanted if lang in LANGUAGES), LANGUAGES[0])
