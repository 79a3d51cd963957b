"""Who may ask for what: one ASGI layer in front of everything, web sockets too.

A page of another site can make a browser send requests to this machine. So the name of the host is
checked (against DNS rebinding), requests that change anything need the origin of the explorer
itself and a secret that only its own pages know, and an explorer that listens beyond this machine
needs a token for every request.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = ("GET", "HEAD")
LARGEST = 1 << 20  # bytes of a body
HEADER, COOKIE = "x-bilens-secret", "bilens-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what may pass, with the headers of a closed page.

    Args:
        app: what is guarded.
        hosts: `name:port`, as a browser may write the explorer's address.
        token: that every request needs; None on this machine alone.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None) -> None:
        self.app, self.hosts, self.token = app, frozenset(hosts), token
        self.origins = frozenset(f"http://{host}" for host in self.hosts)
        self.secret = secrets.token_urlsafe(32)  # of this start, in the explorer's own pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self.refusal(scope)
        if refused is not None:
            await refused(scope, receive, closed(send))
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST:  # whatever content-length said
                return {"type": "http.disconnect"}
            return message

        scope["bilens_secret"] = self.secret
        await self.app(scope, bounded, closed(send))

    def refusal(self, scope: Scope) -> Response | None:
        """Return why a request may not pass."""
        headers = Headers(scope=scope)
        if headers.get("host", "") not in self.hosts:
            return refuse(421, "the Host header is not the explorer's own address.")
        if self.token is not None and (missing := self.unknown(scope, headers)):
            return missing
        if scope["method"] in SAFE:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if origin not in self.origins or site != "same-origin":
            return refuse(403, "a request that changes something must come from the explorer.")
        if not same(headers.get(HEADER, ""), self.secret):
            return refuse(403, "the page is of an earlier start of the explorer: load it again.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return refuse(413, f"a body has at most {LARGEST} bytes.")
        kind = headers.get("content-type", "").partition(";")[0].strip()
        return None if kind == "application/json" else refuse(415, "a body must be JSON.")

    def unknown(self, scope: Scope, headers: Headers) -> Response | None:
        """Return what somebody without the token sees; one who brings it in an address keeps it."""
        assert self.token is not None, "asked for"
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["method"] in SAFE and same(asked.get("token", ""), self.token):
            found = RedirectResponse(scope["path"], 303)
            found.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return found
        given = headers.get("authorization", "").removeprefix("Bearer ")
        kept = SimpleCookie()
        try:
            kept.load(headers.get("cookie", ""))
        except CookieError:
            kept.clear()
        morsel = kept.get(COOKIE)
        if same(given, self.token) or (morsel is not None and same(morsel.value, self.token)):
            return None
        return refuse(401, "the token that `bilens serve` printed is needed: open that address.")


def same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def refuse(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)


def closed(send: Send) -> Send:
    """Return what sends responses with the headers of a closed page; those that are set stay."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
