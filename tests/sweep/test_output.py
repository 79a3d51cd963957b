"""Where a sweep writes: whole files, and one driver at a time, in a folder and in a store.

Seen red: a lease that is not looked at again after it was written; a lease of a driver that died
taken for one that lives; a beat that ends with the first failure to write; OSErrors told alone.
"""

import threading
from pathlib import Path

import pytest

from bilens.base.errors import DiskError, FileError, UsageError
from bilens.sweep import output
from bilens.sweep.output import LEASE, SweepOutput

PLACES = ("folder", "memory://sweep-output")
TAKEN = "is being written by another"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(output, "BEAT", 0.05)
    if request.param == "folder":
        return str(tmp_path / "out")
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    found = SweepOutput(f"{request.param}/{tmp_path.name}")
    for name in found.names(""):
        found.remove(name)
    return found.place


def test_files_are_there_whole_or_not_at_all(place: str) -> None:
    one = SweepOutput(place)
    assert one.read_bytes("results/fit/000/000001.json") is None
    assert one.names("results") == set()
    one.write("results/fit/000/000001.json", b"{}")
    assert SweepOutput(place).read_bytes("results/fit/000/000001.json") == b"{}"
    assert one.names("results") == {"fit/000/000001.json"}
    one.remove("results/fit/000/000001.json")
    one.remove("results/fit/000/000001.json")
    assert one.names("results") == set()


def test_one_driver_at_a_time(place: str) -> None:
    with (
        SweepOutput(place).driven(),
        pytest.raises(UsageError, match=TAKEN),
        SweepOutput(place).driven(),
    ):
        pass
    with SweepOutput(place).driven():  # the first one ended
        pass


def test_a_lease_of_a_driver_that_died_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    monkeypatch.setattr(output, "BEAT", 0.05)
    one = SweepOutput("memory://sweep-lease")
    one.write(LEASE, b"somebody 7")
    with one.driven():
        assert (one.read_bytes(LEASE) or b"").split()[0] != b"somebody"
    assert one.read_bytes(LEASE) is None


def test_of_two_that_come_at_once_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    monkeypatch.setattr(output, "BEAT", 0.5)
    first, second = SweepOutput("memory://sweep-race"), SweepOutput("memory://sweep-race")
    write, started = first.write, threading.Event()

    def wrote(name: str, data: bytes) -> None:
        write(name, data)
        if not started.is_set():
            started.set()
            second.write(LEASE, b"another 0")  # which had looked before the first one wrote

    monkeypatch.setattr(first, "write", wrote)
    with pytest.raises(UsageError, match=TAKEN), first.driven():
        pass
    assert first.read_bytes(LEASE) == b"another 0"
    first.remove(LEASE)


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match="cannot be written"),
        SweepOutput(f"{tmp_path}/file/x").driven(),
    ):
        pass
    with pytest.raises(UsageError, match="cannot be written to: Protocol not known"):
        SweepOutput("nowhere://bucket")


def test_what_libraries_of_stores_raise_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    one = SweepOutput("memory://sweep-refused")

    def refuse(*_: object) -> None:
        raise RuntimeError("no keys.\n  at line 7")  # botocore has errors that are no OSError

    for name in ("cat_file", "pipe_file", "find", "rm_file"):
        monkeypatch.setattr(one.files, name, refuse)
    for call in (lambda: one.read_bytes("a"), lambda: one.names("a")):
        with pytest.raises(FileError, match=r"a cannot be read \(RuntimeError: no keys\): see to"):
            call()
    for write in (lambda: one.write("a", b""), lambda: one.remove("a")):
        with pytest.raises(DiskError, match=r"a cannot be written \(RuntimeError: no keys\): see"):
            write()
