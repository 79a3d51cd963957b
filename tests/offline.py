"""No test leaves this machine: a guard around the two ways a socket connects."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any


class NetworkAccessError(Exception):
    """A test tried to leave this machine; no code may hide it by catching OSError."""


def is_local(address: object) -> bool:
    """Tell whether an address is a Unix socket or loopback; other names would need a resolver."""
    if isinstance(address, str | bytes):  # AF_UNIX
        return True
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return False
    if address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    except ValueError:
        return False


def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of `socket.socket` that raises for every address that is not local.

    A socket for datagrams may connect, which sends nothing: Ray asks in that way which
    address this machine has.
    """

    def local_only(self: socket.socket, address: object) -> Any:
        if not is_local(address) and self.type != socket.SOCK_DGRAM:
            self.close()  # `create_connection` leaves it open
            raise NetworkAccessError(f"tests are offline, and one connects to {address}")
        return connect(self, address)

    return local_only
