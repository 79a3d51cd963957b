"""Sweeps over a store: each byte of a layer is fetched once, and faults on the way lose nothing.

Seen red: weights read anew by each task, one attempt instead of five, a model that is not opened
anew where its file cannot be read, so that each row of it fails by itself.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilens.base import Progress, silent
from bilens.base.errors import BilensError
from bilens.io import remote_stores
from bilens.records.sweep import SweepOptions
from bilens.sweep.driver import SweepState, drive, plan_of
from bilens.sweep.manifest import Plan
from bilens.sweep.output import SweepOutput
from engine_here import Here
from range_server import RangeServer, served

pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
pytest.importorskip("aiohttp", reason="addresses of http are read with aiohttp")
OPTIONS = SweepOptions(tasks=("fit", "decompose"), threshold=0.0, samples=200, directions=1, top=1)


@pytest.fixture(scope="module")
def server(swept_alone: tuple[Path, dict[str, bytes]]) -> Iterator[RangeServer]:
    with served(swept_alone[0]) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_kept(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote_stores, "WAIT", 1e-4)
    monkeypatch.setenv("BILENS_CACHE_LIMIT", "0")
    yield
    server.broken, server.etags = {}, {}


def planned(server: RangeServer, out: str = "out") -> Plan:
    return plan_of(f"{server.url}/", OPTIONS, SweepOutput(out))


def sweep(server: RangeServer, out: str = "out", progress: Progress = silent) -> SweepState:
    return drive(planned(server, out), SweepOutput(out), Here, progress)


def found(out: str = "out") -> dict[str, bytes]:
    """Each file with what was found."""
    files = (file for file in Path(out).glob("results/*/*/*") if file.is_file())
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def expected(server: RangeServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is found where nothing happens; each byte of a layer is fetched once for both tasks."""
    out = str(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BILENS_CACHE_LIMIT", "0")
        assert sweep(server, out).is_complete
    rows = planned(server, out).rows
    spans = [span for row in rows for part in row.parts for span in part.spans]
    starts = {(one.file, one.start) for one in spans}
    fetched = [one for one in server.asked if one[:2] in starts]
    assert sum(stop - start for _, start, stop in fetched) == sum(row.num_bytes for row in rows)
    assert len({*fetched}) == len(fetched)
    return found(out)


def test_faults_on_the_way_change_nothing(server: RangeServer, expected: dict[str, bytes]) -> None:
    chance, kinds = random.Random(0), (503, "cut", "short")
    server.faults = [chance.choice([chance.choice(kinds), None, None]) for _ in range(20)]
    assert sweep(server).is_complete
    assert server.faults == []
    assert found() == expected


def test_a_range_that_never_comes_is_a_row_that_failed(
    server: RangeServer, expected: dict[str, bytes]
) -> None:
    spans = [one for part in planned(server).rows[4].parts for one in part.spans]
    server.broken = {(spans[0].file, min(one.start for one in spans)): 503}
    ended = sweep(server)
    assert [*ended.failed] == ["fit 4", "decompose 4"]
    assert "could not be read (ClientResponseError 503, 5 times)" in ended.failed["fit 4"]
    assert {name for name in expected if "000004" in name} == expected.keys() - found().keys()
    server.broken = {}
    assert sweep(server).is_complete
    assert found() == expected


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "is not the model that the manifest is of"),  # but another one
        (404, "no such file: check the address"),
        (403, "access is refused: set up credentials"),
        (503, r"could not be read \(ClientResponseError 503, 5 times\)"),
    ],
)
def test_a_file_that_changes_on_the_way_ends_the_sweep_which_goes_on_when_it_is_back(
    server: RangeServer, expected: dict[str, bytes], status: int | None, said: str
) -> None:
    file = planned(server).rows[-1].parts[0].spans[0].file

    def progress(*_: object) -> None:
        server.broken = {file: status} if status else {}
        server.etags = {} if status else {file: '"another"'}

    with pytest.raises(BilensError, match=said):
        sweep(server, progress=progress)
    assert 0 < len(found()) < len(expected)
    server.broken, server.etags = {}, {}
    assert sweep(server).is_complete
    assert found() == expected
