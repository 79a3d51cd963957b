"""Who may ask for what: one ASGI layer in front of everything, web sockets too.

A page of another site can make a browser send requests to this machine. So the name of the host is
checked (against DNS rebinding), no page of elsewhere may ask for anything, though a link may lead
here, requests that change anything need the origin of the explorer itself and a secret that only
its own pages know, and each request needs a token, since other accounts of a machine reach its
ports, too.

A script brings that token as `Authorization: Bearer …` in place of origin and secret. A page of
another site cannot: a browser sends that header only where the server has allowed it, which asks
first with `OPTIONS`, and is refused here.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from html import escape
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bilens.report import LANGUAGES, load_catalogue

SAFE = ("GET", "HEAD")
LARGEST, PATIENCE = 1 << 21, 10.0  # bytes of a body (the largest image that is drawn), seconds
GLANCE = 1.0  # seconds for a body that is not wanted
NOTICE = 0.01  # seconds to hear that a reader is gone
LONGEST = 1000  # characters of an address
AGAIN = 2  # seconds after which a page asks a busy server again
AT_ONCE = 32  # requests that are worked on; others wait
FEW, MOST_WAITING = 2, 16  # slow ones of a kind that are worked on, and that may wait
HEADER = "x-bilens-secret"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PREFERRED = re.compile(r"\b([A-Za-z]{2})\b[\w-]*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?")
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Queue:
    """Where slow requests of a kind wait, so that they keep no other one waiting."""

    def __init__(self) -> None:
        self.running, self.waiting = asyncio.Semaphore(FEW), 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self.running.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.running.release()


class Refusal(NamedTuple):
    """Why a request may not pass: a status, and the key of its sentence."""

    status: int
    key: str


TOO_LARGE = Refusal(413, "largest")


@dataclass(frozen=True)
class NamingProxy:
    """A proxy that signs people in, and names them in a header of each request."""

    address: str  # from which it asks: nobody else is believed
    header: str

    def find_user(self, scope: Scope) -> str:
        """Return whom the proxy names; empty where it asks for nobody, or somebody else asks."""
        asks, named = scope.get("client"), Headers(scope=scope).getlist(self.header)
        if asks is None or asks[0].removeprefix("::ffff:") != self.address or len(named) != 1:
            return ""
        return named[0].encode("latin-1").decode("utf-8", "replace").strip(" \t")


class Guard:
    """Lets through what may pass, whole and not too much at once, as closed pages.

    Args:
        app: what is guarded.
        hosts: as a browser may write the explorer's address; the first one is `name:port`.
        token: that every request needs; None in a test.
        close: ends what still runs, so that the server can stop.
        draw: returns a refusal as a page: status, sentence and language.
        slow: paths whose answers take long, and their kind. No answer is ever cut off, as no
            thread can be: so these are few at once, and each of them is bounded.
        proxy: that names people; None where they name themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        token: str | None,
        close: Callable[[], None] = lambda: None,
        draw: Callable[[int, str, str], str] | None = None,
        slow: Sequence[tuple[re.Pattern[str], str]] = (),
        proxy: NamingProxy | None = None,
    ) -> None:
        self.app, self.hosts, self.close, self.draw = app, frozenset(hosts), close, draw
        queues = {kind: Queue() for _, kind in slow}
        self.slow = [(path, queues[kind]) for path, kind in slow]
        self.token, self.proxy = token, proxy
        schemes = ("http",) if proxy is None else ("http", "https")
        self.origins = frozenset(f"{one}://{host}" for host in self.hosts for one in schemes)
        self.cookie = f"bilens-token-{hosts[0].rpartition(':')[2]}"  # browsers mix those of ports
        self.running = asyncio.Semaphore(AT_ONCE)
        self.secret = secrets.token_urlsafe(32)  # of this start, in the explorer's own pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        user = None if self.proxy is None else (self.proxy.find_user(scope), self.proxy.header)
        scope["bilens_user"] = user
        refused, body = self.refusal(scope), b""
        if scope["method"] not in SAFE:  # a body that nobody reads would take the answer with it
            try:
                async with asyncio.timeout(PATIENCE if refused is None else GLANCE):
                    body = await body_of(receive)
            except TimeoutError:
                refused = refused or Refusal(408, "late")
            if len(body) > LARGEST:  # whatever content-length said
                refused = refused or TOO_LARGE
        queue = next((one for path, one in self.slow if path.fullmatch(scope["path"])), None)
        if refused is None and queue is not None and queue.waiting >= MOST_WAITING:
            refused = Refusal(503, "busy")
        if refused is not None:
            said = self.say(Request(scope), refused) if isinstance(refused, Refusal) else refused
            await said(scope, receive, closed(send))
            return
        scope["bilens_secret"] = self.secret
        answer: list[Message] = []

        async def receive_body() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: Message) -> None:
            answer.append(message)

        try:
            if queue is None:
                async with self.running:  # neither a slow sender nor a slow reader holds a place
                    await self.app(scope, receive_body, keep)
            else:
                async with queue.place():
                    if not await is_gone(receive):
                        await self.app(scope, receive_body, keep)
        finally:
            for message in answer:
                await closed(send)(message)

    def say(self, request: Request, refused: Refusal) -> Response:
        """Return a refusal in the reader's language, to browsers as a page.

        A body that was not read would be taken for the next request, so the connection ends.
        """
        status, lang = refused.status, lang_of(request)
        bounds = {"longest": LONGEST, "largest": LARGEST, "seconds": f"{PATIENCE:g}"}
        told = load_catalogue(lang)(f"explorer.unfit.{refused.key}", **bounds)
        again = {"retry-after": str(AGAIN), "refresh": str(AGAIN)} if status == 503 else {}
        headers = {"connection": "close", "content-language": lang, **again}
        if self.draw and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(self.draw(status, told, lang), status, headers)
        return JSONResponse({"error": told}, status, headers)

    def refusal(self, scope: Scope) -> Refusal | Response | None:
        """Return why a request may not pass."""
        headers = Headers(scope=scope)
        if len(scope["path"]) > LONGEST:
            return Refusal(414, "longest")
        if headers.get("host", "").lower() not in self.hosts:
            return Refusal(421, "host")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        away = site in ("cross-site", "same-site")  # of another port, too; links may lead here
        away = away and headers.get("sec-fetch-mode") != "navigate"
        if scope["method"] in SAFE and (away or origin not in (None, *self.origins)):
            return Refusal(403, "site")
        if self.token is not None and (missing := self.unknown(scope, headers)):
            return missing
        if scope["method"] in SAFE:
            return None
        by_proxy = scope["bilens_user"] is not None and scope["bilens_user"][0]
        is_script = origin is None and not by_proxy and self.bears_token(headers)
        if (origin not in self.origins and not is_script) or site != "same-origin":
            return Refusal(403, "outside")
        if not is_script and not same(headers.get(HEADER, ""), self.secret):
            return Refusal(403, "earlier")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return TOO_LARGE
        kind = headers.get("content-type", "").partition(";")[0].strip()
        return None if kind == "application/json" else Refusal(415, "json")

    def unknown(self, scope: Scope, headers: Headers) -> Refusal | Response | None:
        """Answer a visitor without the cookie; one who brings the token in the address gets it."""
        assert self.token is not None, "asked for"
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if same(asked.pop("token", ""), self.token) and scope["method"] in SAFE:
            path = f"/{quote(scope['path'].lstrip('/'))}"  # `//name` would be another machine
            place = f"{path}?{urlencode(asked)}" if asked else path
            # the next request is the explorer's own, so that it has the cookie; a redirect of one
            # that comes from elsewhere would not
            found = HTMLResponse(f'<a href="{escape(place)}">bilens</a>')
            found.headers["refresh"] = f"0; url={place}"
            found.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return found
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        if same(cookie, self.token) or self.bears_token(headers):
            return None
        return Refusal(401, "token")

    def bears_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = self.token is not None and same(given, self.token)
        return known and scheme.lower() == "bearer"


def lang_of(request: Request) -> str:
    """Return the language of the address, else the one that the browser likes best."""
    found = PREFERRED.findall(request.headers.get("accept-language", ""))
    weighed = [(float(weight or 1), name.lower()) for name, weight in found]
    liked = sorted(weighed, key=lambda one: -one[0])  # of two alike the first one
    asked = request.query_params.get("lang", "")
    wanted = [asked, *(name for weight, name in liked if weight > 0)]
    return next((lang for lang in wanted if lang in LANGUAGES), LANGUAGES[0])


def same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


async def body_of(receive: Receive) -> bytes:
    """Return the body of a request, cut where it is too long; empty where the sender is gone."""
    body = b""
    while len(body) <= LARGEST:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def is_gone(receive: Receive) -> bool:
    """Return whether nobody waits for an answer any more."""
    with suppress(TimeoutError):
        async with asyncio.timeout(NOTICE):
            for _ in range(2):  # the body, where it was not read
                if (await receive())["type"] == "http.disconnect":
                    return True
    return False


def closed(send: Send) -> Send:
    """Add the headers of a closed page to each response; those that are set stay."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
