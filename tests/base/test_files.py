"""Files of others: what is no regular file is never opened, and each refusal says why."""

import os
from pathlib import Path

import pytest

from bilens.base.errors import CheckpointError, DataError, UsageError
from bilens.base.files import check_path, check_regular_file, file_sha256, shortened
from bilens.io.load import load


def make_pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def test_the_status_of_a_regular_file_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert check_regular_file(tmp_path / "a", "expected anything").st_size == 3


def test_what_is_no_file_with_content_is_refused_without_opening_it(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    cases = {
        "none": "no such file; expected a model",
        "none/below": "no such file; expected a model",
        "empty": r"is empty \(0 bytes\): download or save it again",
        "": "is not a regular file; expected a model",
        "pipe": "is not a regular file; expected a model",
    }
    make_pipe(tmp_path, "pipe")
    for name, words in cases.items():
        with pytest.raises(DataError, match=words):
            check_regular_file(tmp_path / name, "expected a model", DataError)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        check_regular_file(Path("/dev/zero"), "expected a model")


def test_a_file_without_permission_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"abc")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    for read in (lambda: check_regular_file(path, "expected a model"), lambda: load(path)):
        with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\): check"):
            read()


@pytest.mark.parametrize("suffix", [".gguf", ".bin", ".safetensors", ".pt"])
def test_no_reader_of_models_opens_a_pipe_or_a_device(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for path in (make_pipe(tmp_path, f"pipe{suffix}"), tmp_path / f"zero{suffix}"):
        with pytest.raises(CheckpointError, match="is not a regular file; expected a model file"):
            load(path, allow_pickle=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    make_pipe(folder, "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: is not a regular file"):
        load(folder)


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_a_text_or_a_path_is_taken(value: str | Path) -> None:
    assert check_path("path", value) == Path("a/b")


@pytest.mark.parametrize("value", [None, 3, b"a/b", ["a"]])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"^path is a \w+; expected a text or a Path\.$"):
        check_path("path", value)


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == (  # the test vector of FIPS 180-2
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_long_list_of_names_is_shortened() -> None:
    assert shortened(["a"]) == "'a'"
    assert shortened([*"abcdef"]) == "'a', 'b', 'c', 'd' and 2 more"
