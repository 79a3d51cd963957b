"""A model for sweeps, and what a sweep over it writes where nothing happens."""

from pathlib import Path

import pytest

import sweep_runs
from bilens.sweep import driver, manifest
from sweep_faults import FaultySpec
from sweep_runs import Swept


@pytest.fixture(scope="session")
def swept_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    one = sweep_runs.made(tmp_path_factory.mktemp("sweep"))
    return one.model, one.alone()


@pytest.fixture
def expected(swept_alone: tuple[Path, dict[str, bytes]]) -> dict[str, bytes]:
    return swept_alone[1]


@pytest.fixture
def swept(
    swept_alone: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Swept:
    """A sweep to be, into a relative path: jobs of two rows, two attempts, faults for workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", sweep_runs.PATHS)
    monkeypatch.setattr(driver, "Spec", FaultySpec)
    monkeypatch.setattr(driver, "ATTEMPTS", 2)
    monkeypatch.setattr(manifest, "MOST_ROWS", 2)
    monkeypatch.setattr(manifest, "JOBS_EACH", 1e-9)  # no more jobs than that makes
    return Swept(swept_alone[0], Path())
