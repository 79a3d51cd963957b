"""`bilens serve`."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import socket
import sys
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilens.base import shortened, write_error, write_file
from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import (
    Lang,
    Overwrite,
    check_outputs,
    expand,
    flags_of,
    option,
    refuse_unless,
)

if TYPE_CHECKING:
    import uvicorn

    from bilens_explorer.guard import Guard

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 0.1  # seconds that a page waits for files; what is read later, it says
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
SETTINGS: dict[str, Any] = {  # of uvicorn; the guard bounds what runs at once
    "log_level": "warning",
    "limit_concurrency": 1000,  # connections
    "timeout_keep_alive": 20,  # seconds
    "timeout_graceful_shutdown": 3,
    "server_header": False,
    "proxy_headers": False,  # or whoever asks could say from where
    "ws": "none",
}


@dataclass(frozen=True)
class Address:
    """Where the explorer listens."""

    host: str = option("127.0.0.1", "Address to listen at.")
    open: bool = option(True, "Open it in a browser, where there is a screen.")
    port: int = option(8737, "Port to listen at; 0 takes a free one.", min=0, max=65535)
    allow_host: list[str] | None = option(
        None, "Another name under which it may be asked for; repeat it for each.", metavar="NAME"
    )
    token_file: Path | None = option(
        None,
        "File with the token that every request needs, the same at each start; it is made where "
        "there is none.",
    )
    user_header: str | None = option(
        None,
        "Header in which a proxy names who signed in there; that is who says something.",
        metavar="NAME",
    )
    proxy: str = option("127.0.0.1", "Address of that proxy, which alone is believed.")

    def __post_init__(self) -> None:
        for name, value in (
            ("host", self.host),
            *(("allow-host", one) for one in self.allow_host or ()),
        ):
            if not value or set(value) & set("/@ "):
                raise UsageError(
                    f"--{name} is {value!r}; expected an address or a name of a machine."
                )
        header = self.user_header
        if header is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,80}", header):
            raise UsageError(f"--user-header is {header!r}; expected one as X-Forwarded-User.")
        try:
            ip_address(self.proxy)
        except ValueError:
            raise UsageError(f"--proxy is {self.proxy!r}; expected an address of IP.") from None

    @property
    def is_elsewhere(self) -> bool:
        """Whether others than this machine can reach it."""
        return self.host not in LOOPBACK

    def token(self) -> str:
        """Return the token that every request needs: a new one, or that of a file."""
        return secrets.token_urlsafe(32) if self.token_file is None else kept_token(self.token_file)

    def bound(self) -> socket.socket:
        """Return a socket that listens, or say why there is none."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # named as TCP, else asyncio leaves Nagle's algorithm on: 40 ms an answer
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((self.host, self.port))
        except (OSError, UnicodeError) as error:
            found.close()
            why = getattr(error, "strerror", None) or error
            hint = "choose another --host, or another --port; 0 takes a free one"
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                hint = "is an explorer open there? Choose another with --port, or 0 for a free one"
            raise UsageError(
                f"{with_port(self.host, self.port)} cannot be listened at ({why}): {hint}."
            ) from None
        return found

    def names(self) -> list[str]:
        """Return the names under which it may be asked for; the first one is printed."""
        if not self.is_elsewhere:
            found = [self.host, *LOOPBACK]
        else:
            own = socket.gethostname()
            found = [own, socket.getfqdn()]
            if self.host in EVERYWHERE:
                with suppress(OSError):
                    places = [str(item[4][0]) for item in socket.getaddrinfo(own, None)]
                    found += [*LOOPBACK, *(place.partition("%")[0] for place in places)]
            else:
                found.insert(0, self.host)
        return [name.lower() for name in dict.fromkeys([*found, *(self.allow_host or ())])]

    def hosts(self, port: int) -> list[str]:
        """Return the values of the Host header that may come; the first one is printed."""
        found = [with_port(name, port) for name in self.names()]
        if port == 80:  # of which browsers say nothing
            found += [host.removesuffix(":80") for host in found]
        if self.user_header is not None:  # the proxy listens at a port that browsers do not say
            found += [name.lower() for name in self.allow_host or ()]
        return found


@dataclass(frozen=True)
class Exporting:
    """The explorer as a file instead of a server."""

    export: Path | None = option(
        None, "Write the explorer to this HTML file, which needs no server, and end."
    )
    model: list[str] | None = option(
        None,
        "Model of the file, by its path from FOLDER; repeat it for each. Otherwise all are in it.",
        metavar="NAME",
    )
    with_data: bool = option(
        False, "Put rows of test data into the file too: images, cells and stretches of text."
    )
    lang: Lang = option("en", "Language in which the file opens; a server asks the browser.")


def kept_token(file: Path) -> str:
    """Return the token in a file that only its owner may read; it is made where there is none."""
    made = secrets.token_urlsafe(32)
    try:
        with suppress(FileExistsError):
            place = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(place, "w") as written:
                written.write(f"{made}\n")
        others, text = file.stat().st_mode & 0o077, file.read_bytes()[:4096].decode().strip()
    except OSError as error:
        raise write_error(file, error) from None
    except UnicodeDecodeError:
        others, text = 0, ""
    if others:
        raise UsageError(f"{file} may be read by others than you: run `chmod 600` on it.")
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]{32,}=*", text):
        raise UsageError(f"{file} holds no token: 32 or more letters and digits. Remove it.")
    return text


def with_port(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def has_screen() -> bool:
    """Return whether a browser would be seen; without a screen one may open in the terminal."""
    here = sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
    return bool(here) and sys.stderr.isatty()


def server_of(app: Guard, shown: str | None = None) -> uvicorn.Server:
    """Return the server of the explorer; it ends audits before it waits for open connections.

    `shown` is the address that a browser opens as soon as it answers.
    """
    import uvicorn

    from bilens_explorer.connections import PromptConnection

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if shown is not None:
                Thread(target=webbrowser.open, args=(shown,), daemon=True).start()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.close()
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # who ends it knows
            await super().shutdown(sockets)

    return Server(uvicorn.Config(app, http=PromptConnection, **SETTINGS))


def serve(
    output: Output,
    folder: Annotated[Path, typer.Argument(help="Folder with models and reports.")],
    address: Address,
    file: Exporting,
    overwrite: Overwrite = False,
) -> None:
    """Show the models of a folder, their audits and what people said, in a browser.

    Example: bilens serve runs
    """
    from bilens_explorer.app import build_app
    from bilens_explorer.folder import ServedFolder
    from bilens_explorer.guard import NamingProxy

    if file.export is not None:
        check_outputs([("--export", file.export)], overwrite)
        if idle := flags_of(address):
            raise UsageError(f"{', '.join(idle)}: --export starts no server; leave that out.")
    refuse_unless(flags_of(file) if file.export is None else [], "--export")
    exporting = file.export is not None
    patience = None if exporting else PATIENCE
    served = ServedFolder(folder, exporting=exporting, with_data=file.with_data, patience=patience)
    if file.export is not None:
        from bilens_explorer.export import export

        if file.model:
            served.choose_models(file.model)
        with output.progress() as report:
            made = export(served, file.lang, report)
        write_file(file.export, made.html.encode("utf-8"))
        output.say(f"Explorer of {folder} as one file: {file.export}")
        if made.left_out:
            output.say(
                "Left out, since a model would take more than 5 MB of the file: "
                f"{shortened(made.left_out)}. Serve the folder to look at them."
            )
        return
    with address.bound() as listening:
        port = listening.getsockname()[1]
        token, hosts, header = address.token(), address.hosts(port), address.user_header
        here = f"http://{hosts[0]}/?token={token}"
        listening.listen()  # who asks from now on waits and is not refused
        output.say(f"Explorer of {folder}: {here} (Ctrl-C ends it)")
        proxy = None if header is None else NamingProxy(address.proxy, header)
        Thread(target=served.overview, daemon=True).start()  # what can be known before one asks
        app = build_app(served, hosts, token, proxy)
        with NamedTemporaryFile("w", prefix="bilens-", suffix=".html") as page:
            # its name is in the list of processes that every account sees, and the token is not
            page.write(f'<meta http-equiv="refresh" content="0; url={here}">')
            page.flush()
            shown = Path(page.name).as_uri() if address.open and has_screen() else None
            server_of(app, shown).run(sockets=[listening])


run = expand(serve, as_json=False)
