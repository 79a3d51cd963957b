"""The guard that keeps every test offline, and the folder with real data."""

import socket
from pathlib import Path

import pytest

from offline import NetworkAccessError

# TEST-NET-1 and the documentation prefix of IPv6: they exist nowhere, should the guard fail.
OUTSIDE = [
    (socket.AF_INET, ("192.0.2.1", 80)),
    (socket.AF_INET, ("example.org", 443)),
    (socket.AF_INET, ("127.0.0.1.example.org", 80)),
    (socket.AF_INET6, ("2001:db8::1", 80, 0, 0)),
]


@pytest.mark.parametrize(("family", "address"), OUTSIDE)
@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_no_connection_leaves_this_machine(
    family: socket.AddressFamily, address: tuple[object, ...], method: str
) -> None:
    with socket.socket(family) as client:
        client.settimeout(0.1)
        with pytest.raises(NetworkAccessError, match="offline"):
            getattr(client, method)(address)


def test_create_connection_is_guarded_too() -> None:
    with pytest.raises(NetworkAccessError):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_server_on_loopback_can_be_reached(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection((name, server.getsockname()[1]), timeout=5)
        client.close()


def test_a_unix_socket_can_be_reached(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen(1)
        client.connect(str(tmp_path / "s"))


def test_the_data_folder_holds_real_digits(data_dir: Path) -> None:
    assert (data_dir / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").is_file()
