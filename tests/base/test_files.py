"""Files of others are guarded before they are opened; a write that fails leaves the old state."""

import errno
import os
import resource
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import (
    BilensError,
    CheckpointError,
    DataError,
    DiskError,
    FileError,
    UsageError,
)
from bilens.base.files import (
    check_path,
    check_regular_file,
    file_sha256,
    new_folder,
    replace_folder,
    shortened,
    write_error,
    write_file,
    write_files,
)
from bilens.io.load import load
from bilens.io.model_folder import save
from models import make, same_weights
from raising import raising

# errno: (error, exit code, what the message says to do)
FAILURES: dict[int, tuple[type[BilensError], int, str]] = {
    errno.ENOSPC: (DiskError, 5, "free some space or choose another output folder"),
    errno.EDQUOT: (DiskError, 5, "free some space or choose another output folder"),
    errno.EROFS: (FileError, 3, "choose an output folder that you may write to"),
    errno.EACCES: (FileError, 3, "choose an output folder that you may write to"),
    errno.EIO: (FileError, 3, "choose an output folder that you may write to"),
}
# Where a write of two files can fail before anything is replaced.
EARLY: list[tuple[Any, str, int]] = [  # owner, function, which of its calls
    (Path, "mkdir", 1),
    (Path, "mkdir", 2),
    (tempfile, "mkstemp", 1),
    (tempfile, "mkstemp", 2),
    (os, "fdopen", 2),
    (os, "fsync", 1),
    (os, "fsync", 2),
    (Path, "chmod", 2),
    (Path, "replace", 1),
]


@contextmanager
def failing(owner: Any, name: str, call: int, error: BaseException) -> Iterator[None]:
    """Let the `call`-th call of a function raise, and all others go through."""
    original, calls = getattr(owner, name), count(1)

    def function(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise error
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, function)
        yield


def failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_device_or_a_pipe_is_written_to_where_it_is(tmp_path: Path) -> None:
    """A file in the place of /dev/null would take it from every program."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BilensError, match="cannot be written"):  # nobody reads it
        write_files({pipe: b"a report"})
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_files({pipe: b"a report", tmp_path / "file": b"another"})
    assert os.read(reader, 99) == b"a report"
    os.close(reader)
    assert pipe.is_fifo()
    assert {*tmp_path.iterdir()} == {pipe, tmp_path / "file"}


@pytest.mark.parametrize("code", FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize(("owner", "name", "call"), EARLY, ids=str)
def test_a_write_that_fails_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, owner: Any, name: str, call: int, code: int
) -> None:
    error, exit_code, advice = FAILURES[code]
    save(make(seed=1), tmp_path)
    with failing(owner, name, call, failure(code)), pytest.raises(error) as caught:
        save(make(seed=2), tmp_path, overwrite=True)
    assert type(caught.value) is error
    assert caught.value.exit_code == exit_code
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/")
    assert f"cannot be written ({os.strerror(code)}): {advice}" in message
    assert message.endswith("What was there before is unchanged.")
    assert same_weights(load(tmp_path).module, make(seed=1))
    assert names(tmp_path) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(("owner", "name", "call"), EARLY[2:], ids=str)
def test_an_interrupt_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, owner: Any, name: str, call: int
) -> None:
    save(make(seed=1), tmp_path)
    with failing(owner, name, call, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        save(make(seed=2), tmp_path, overwrite=True)
    assert same_weights(load(tmp_path).module, make(seed=1))
    assert names(tmp_path) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(("owner", "name", "call"), [(Path, "replace", 2), (os, "fsync", 4)])
def test_a_failure_after_the_first_rename_says_what_was_replaced(
    tmp_path: Path, owner: Any, name: str, call: int
) -> None:
    """Two files cannot be renamed in one step; the message must not claim that nothing changed."""
    save(make(seed=1), tmp_path)
    with failing(owner, name, call, failure(errno.EIO)), pytest.raises(FileError) as caught:
        save(make(seed=2), tmp_path, overwrite=True)
    assert "unchanged" not in str(caught.value)
    assert f"Replaced already: {tmp_path / 'model.safetensors'}" in str(caught.value)
    assert names(tmp_path) == ["README.md", "config.json", "model.safetensors"]
    save(make(seed=2), tmp_path, overwrite=True)
    assert same_weights(load(tmp_path).module, make(seed=2))


def test_a_disk_that_turns_read_only_in_the_middle_is_still_one_error_of_ours(
    tmp_path: Path,
) -> None:
    """Then even the temporary file cannot be removed."""
    error = failure(errno.EROFS)
    refused = pytest.raises(FileError, match="Read-only file system")
    with failing(os, "fsync", 1, error), failing(Path, "unlink", 1, error), refused:
        write_file(tmp_path / "a", b"1")


def test_a_real_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    """The kernel itself refuses: RLIMIT_FSIZE of 100 bytes, and EFBIG from write."""
    save(make(seed=1), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(DiskError, match="File too large"):
            save(make(seed=2), tmp_path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same_weights(load(tmp_path).module, make(seed=1))
    assert names(tmp_path) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_real_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="Permission denied"):
            save(make(), tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("mine")
    for folder in (tmp_path / "m", tmp_path / "m" / "below"):
        with pytest.raises(FileError, match="cannot be written"):
            save(make(), folder)
    assert (tmp_path / "m").read_text() == "mine"


def test_files_are_written_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_files({tmp_path / "new" / "a": b"1", tmp_path / "b": b"2" * 10})
    finally:
        assert os.umask(mask) == 0o027  # reading the mask did not change it
    assert (tmp_path / "new" / "a").read_bytes() == b"1"
    assert (tmp_path / "b").read_bytes() == b"2" * 10
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640
    assert names(tmp_path) == ["b", "new"]


def test_a_link_is_replaced_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_new_folder_appears_when_all_went_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report"
    with new_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert names(target) == ["a"]
    with new_folder(target) as folder:  # in the place of what is there
        (folder / "b").write_text("2")
    assert names(target) == ["b"]
    assert names(target.parent) == ["report"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskError),
        (OSError(errno.EACCES, "Permission denied"), FileError),
        (DiskError("told already"), DiskError),
        (UsageError("told already"), UsageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=repr,
)
def test_a_new_folder_that_fails_leaves_what_was_there(
    tmp_path: Path, raised: BaseException, expected: type[BaseException]
) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "a").write_text("0")

    def fill() -> None:
        with new_folder(tmp_path / "report") as folder:
            (folder / "a").write_text("1")
            raise raised

    with pytest.raises(expected):
        fill()
    assert names(tmp_path) == ["report"]
    assert (tmp_path / "report" / "a").read_text() == "0"


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"page.html: cannot be written \(Not a directory\)"):
        write_file(tmp_path / "file" / "page.html", b"x")


def two_folders(root: Path) -> tuple[Path, Path]:
    for name in ("old", "new"):
        (root / name).mkdir()
        (root / name / "a").write_text(name)
    return root / "old", root / "new"


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target, source = two_folders(tmp_path)
    replace_folder(target, source)
    assert names(tmp_path) == ["old"]
    assert (target / "a").read_text() == "new"


def test_a_folder_can_take_a_place_that_is_free(tmp_path: Path) -> None:
    _, source = two_folders(tmp_path)
    replace_folder(tmp_path / "free", source)
    assert names(tmp_path) == ["free", "old"]


@pytest.mark.parametrize("call", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, call: int) -> None:
    target, source = two_folders(tmp_path)
    error = failure(errno.EACCES)
    with failing(Path, "replace", call, error), pytest.raises(FileError, match="is unchanged"):
        replace_folder(target, source)
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["new", "old"]


@pytest.mark.parametrize("make_error", [lambda: OSError("no number"), lambda: OSError(5, None)])
def test_an_error_without_a_reason_still_makes_a_sentence(
    make_error: Callable[[], OSError],
) -> None:
    assert str(write_error(Path("a"), make_error())).startswith("a: cannot be written (")


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

    monkeypatch.setattr(Path, "open", raising(PermissionError(13, "Permission denied")))
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
