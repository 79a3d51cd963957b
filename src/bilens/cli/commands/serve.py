"""`bilens serve`."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bilens.base.errors import UsageError, optional_package
from bilens.cli.console import Output
from bilens.cli.options import option

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AT_ONCE, KEEP = 64, 5  # requests; seconds for which an idle connection stays open


@dataclass(frozen=True)
class Address:
    """Where the explorer listens."""

    host: str = option("127.0.0.1", "Address to listen at; any but this machine's needs a token.")
    port: int = option(8737, "Port to listen at; 0 takes a free one.", min=0, max=65535)

    def bound(self) -> socket.socket:
        """Return a socket that listens, or say why there is none."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((self.host, self.port))
        except OSError as error:
            found.close()
            raise UsageError(
                f"{self.host}:{self.port} cannot be listened at ({error.strerror or error}): is an "
                "explorer open there already? Choose another with --port, or 0 for a free one."
            ) from None
        return found


def serve(
    output: Output,
    folder: Annotated[Path, typer.Argument(help="Folder with models and reports.")],
    address: Address,
) -> None:
    """Show the models of a folder, their audits and what people said, in a browser.

    Example: bilens serve runs
    """
    uvicorn = optional_package("uvicorn", "serve", "the explorer", "starlette")
    from bilens.serve.app import build_app
    from bilens.serve.folder import ServedFolder

    served = ServedFolder(folder)
    with address.bound() as listening:
        port = listening.getsockname()[1]
        here = address.host in LOOPBACK
        token = None if here else secrets.token_urlsafe(32)
        names = LOOPBACK if here else (address.host, socket.gethostname())
        hosts = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names]
        query = "" if token is None else f"/?token={token}"
        output.say(f"Explorer of {folder}: http://{hosts[0]}{query} (Ctrl-C ends it)")
        config = uvicorn.Config(
            build_app(served, hosts, token),
            log_level="warning",
            limit_concurrency=AT_ONCE,
            timeout_keep_alive=KEEP,
            server_header=False,
            ws="none",
        )
        uvicorn.Server(config).run(sockets=[listening])
