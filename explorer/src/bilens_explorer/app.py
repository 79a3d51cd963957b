"""The explorer's addresses: pages for people, and the same records as JSON for scripts."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, compile_path

from bilens.api import RefusedError
from bilens.base.errors import BilensError, CheckpointError, DiskError, FileError
from bilens.records import Attack, Audit, Certificate, Conversion, Trace, displayable, to_json
from bilens.report import Catalogue, load_catalogue, reason_text
from bilens_explorer import compare, interactions, people, playground, spectra, traces
from bilens_explorer.compare_page import compare_page
from bilens_explorer.endpoint import API, Arguments, Endpoint, openapi, query_of, read_query
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import POLICY, Guard, NamingProxy, lang_of
from bilens_explorer.inside import MissingError, ToldError, without_paths
from bilens_explorer.pages import (
    MODEL_VIEWS,
    STATIC,
    circuits_page,
    failure_page,
    model_page,
    overview_page,
    view_page,
)
from bilens_explorer.records.models import KEY, Key, Number
from bilens_explorer.report_pages import (
    audit_page,
    draw_report,
    draw_summary,
    last_audit,
    mistakes_page,
    report_page,
    wrong_answers,
)

REPORT_POLICY = (  # a report is one closed file, with its style inside
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
NO_KEY = 16 * "0"
REFUSED = BilensError, msgspec.MsgspecError, UnicodeError  # what is told of
IN_VAIN = FileError, DiskError, CheckpointError  # whoever asks
Answer = Callable[[Request], Awaitable[Response]]
Proxy = NamingProxy | None


class ExplorerPage(NamedTuple):
    """A page of the explorer: what is found for it, what draws that, and what it may load."""

    find: Callable[..., Any]  # takes the folder, and what path and query say
    draw: Callable[[Any, str, str], str]  # found, language, and the secret of its forms
    policy: str = POLICY

    def with_arguments(
        self, served: ServedFolder, path: Arguments, query: Mapping[str, str]
    ) -> Callable[[], Any]:
        wanted = (one for one in query_of(self.find) if one.name not in path)
        return partial(self.find, served, **path, **read_query(wanted, query))


def build_app(
    served: ServedFolder, hosts: list[str], token: str | None = None, proxy: Proxy = None
) -> Guard:
    """Return the explorer of a folder as an ASGI application; all else is `Guard`'s."""

    def as_page(page: ExplorerPage) -> Answer:
        async def answer(request: Request) -> Response:
            find = page.with_arguments(served, request.path_params, request.query_params)
            found = await run_sync(find)
            secret = str(request.scope["bilens_secret"])
            text = await run_sync(page.draw, found, lang_of(request), secret)
            return HTMLResponse(text, headers={"content-security-policy": page.policy})

        return answer

    def as_json(endpoint: Endpoint) -> Answer:
        async def answer(request: Request) -> Response:
            body = await request.body()
            if not re.fullmatch(KEY, request.path_params.get("key", NO_KEY)):
                raise HTTPException(404)
            asked = request.path_params, request.query_params, body, request.scope["bilens_user"]
            find = partial(endpoint.find, served, **endpoint.arguments(*asked))
            found = await run_sync(find)
            return JSONResponse(displayable(to_json(found)), 201 if endpoint.adds else 200)

        return answer

    async def described(_request: Request) -> Response:
        return JSONResponse(openapi(ENDPOINTS))

    def failed(request: Request, error: Exception) -> Response:
        """Return an error as a sentence; no path of the machine and no traceback is in it."""
        status, told, spoken = describe_error(error, served, load_catalogue(lang_of(request)))
        headers = {**(getattr(error, "headers", None) or {}), "content-language": spoken}
        if request.url.path.startswith(API):
            return JSONResponse({"error": told}, status, headers)
        return HTMLResponse(failure_page(status, told, lang_of(request), spoken), status, headers)

    addresses = {path: as_page(page) for path, page in PAGES.items()}
    addresses |= {"/static/{name}": static, f"{API}/openapi.json": described}
    routes = [Route(path, answer) for path, answer in addresses.items()]
    for one in ENDPOINTS:
        path = f"{API}{one.path.replace('{number}', '{number:int}')}"
        routes.append(Route(path, as_json(one), methods=[one.method]))
    handlers = dict.fromkeys((HTTPException, *REFUSED, Exception), failed)
    app = Starlette(routes=routes, exception_handlers=handlers)
    slow = [(one.address, one.slow) for one in ENDPOINTS if one.slow]
    slow += [(re.compile("/compare"), "background")]

    def refused(status: int, told: str, lang: str) -> str:
        return failure_page(status, told, lang, lang)

    return Guard(app, hosts, token, served.runs.close, refused, slow, proxy)


def describe_error(error: Exception, served: ServedFolder, t: Catalogue) -> tuple[int, str, str]:
    """Return the status of an error, its sentence, and the language of that.

    What the library says itself is English.
    """
    if isinstance(error, MissingError | HTTPException):
        status = 404 if isinstance(error, MissingError) else error.status_code
    elif isinstance(error, ToldError | RefusedError):
        values = dict(error.values)
        if "why" in values:
            values["why"] = reason_text(t, str(values["why"]))
        return 400, displayable(t(error.key, **values)), t.lang
    elif isinstance(error, REFUSED):
        status = 503 if isinstance(error, IN_VAIN) else 400
        return status, displayable(without_paths(str(error), served.folder)), "en"
    else:
        status = 500
    return status, t(f"explorer.told.{status if status in (404, 405) else 'fault'}"), t.lang


def overview(served: ServedFolder, every: str | None = None) -> Callable[[str, str], str]:
    return partial(overview_page, served.overview(), every=every is not None)


Reported = Audit | Certificate | Attack | Conversion | Trace


def audit_document(served: ServedFolder, number: Number) -> Audit:
    """The document of an audit of the history."""
    return served.audit(number).record


def report_document(served: ServedFolder, key: Key) -> Reported:
    """A report that lies in the folder."""
    record: Reported = served.report(key).record
    return record


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/overview", ServedFolder.overview),
    Endpoint("/state", ServedFolder.state),
    Endpoint("/models/{key}/state", ServedFolder.model_state),
    Endpoint(
        "/models/{key}",
        ServedFolder.model,
        held=lambda served: ({"key": row.id} for row in served.overview().models),
    ),
    *people.ENDPOINTS,
    Endpoint("/audits/{number}", audit_document),
    Endpoint("/reports/{key}", report_document),
    *spectra.ENDPOINTS,
    Endpoint("/models/{key}/audit", ServedFolder.audit_run),
    Endpoint("/models/{key}/audit", ServedFolder.audit_again, adds=True),
    Endpoint("/models/{key}/audit/cancel", ServedFolder.cancel_audit),
    *playground.ENDPOINTS,
    *traces.ENDPOINTS,
    *interactions.ENDPOINTS,
    *compare.ENDPOINTS,
)

PAGES: Mapping[str, ExplorerPage] = {
    "/": ExplorerPage(overview, lambda draw, lang, secret: draw(lang, secret)),
    "/models/{key}": ExplorerPage(compare.model_since, model_page),
    **{
        f"/models/{{key}}/{view}": ExplorerPage(ServedFolder.model, partial(view_page, view=view))
        for view in MODEL_VIEWS
    },
    "/models/{key}/mistakes": ExplorerPage(wrong_answers, mistakes_page),
    "/reports/{key}/circuits": ExplorerPage(traces.trace_page, circuits_page),
    "/models/{key}/summary": ExplorerPage(last_audit, draw_summary, REPORT_POLICY),
    "/reports/{key}": ExplorerPage(report_page, draw_report, REPORT_POLICY),
    "/audits/{number:int}": ExplorerPage(audit_page, draw_report, REPORT_POLICY),
    "/compare": ExplorerPage(compare.comparison, compare_page),
}


def draw_page(served: ServedFolder, path: str, query: Mapping[str, str], lang: str) -> str:
    """Return the page at a path without a server; empty where no page has this path."""
    for address, page in PAGES.items():
        form, _, convertors = compile_path(address)
        if match := form.match(path):
            named = {
                name: convertors[name].convert(text) for name, text in match.groupdict().items()
            }
            return page.draw(page.with_arguments(served, named, query)(), lang, "")
    return ""


async def static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    text = STATIC[name].read_text("utf-8")
    return Response(text, media_type="text/css" if name.endswith(".css") else "text/javascript")
