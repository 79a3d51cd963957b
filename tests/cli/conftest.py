"""The fixtures of this folder."""

from pathlib import Path

import pytest

from commands import Shell, model_folder, with_data


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """`bilens(...)` runs a command."""
    return Shell(capsys, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    return model_folder(tmp_path / "model")


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    """A folder with image data."""
    return with_data(tmp_path / "idx")
