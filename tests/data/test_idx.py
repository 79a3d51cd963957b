"""The IDX reader: exact on good files, one clear sentence on every bad one."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from bilens.base.errors import DataError
from bilens.data import idx
from bilens.data.idx import read_idx, read_kind
from raising import raising

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([7, 2], dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """The format, from its definition: 0, 0, type, number of axes, big-endian sizes, entries."""
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


PACKED = gzip.compress(idx_bytes(IMAGES), mtime=0)


def error_of(path: Path) -> str:
    """The message about a bad file: one sentence that begins with the file."""
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert any(words in message for words in ("expected", "is empty", "cannot be read"))
    assert message.endswith(".")
    assert "\n" not in message
    return message


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(
    array=arrays.arrays(
        np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
    ),
    compressed=st.booleans(),
)
def test_what_was_written_is_read(array: np.ndarray, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"  # a name that says nothing: the content decides
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    found = read_idx(path)
    assert found.dtype == np.uint8
    assert found.shape == array.shape
    assert np.array_equal(found, array)


def test_images_and_labels_are_read_by_kind(tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(idx_bytes(IMAGES))  # plain, in spite of its name
    (tmp_path / "labels").write_bytes(gzip.compress(idx_bytes(LABELS)))
    assert np.array_equal(read_kind(tmp_path / "images.gz", 3), IMAGES)
    assert np.array_equal(read_kind(tmp_path / "labels", 1), LABELS)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
class TestBadContent:
    """Each fault, plain and inside a sound gzip file."""

    @pytest.fixture(autouse=True)
    def set_up(self, tmp_path: Path, compress) -> None:
        self.path = tmp_path / "train-images-idx3-ubyte"
        self.compress = compress

    def error_for(self, content: bytes) -> str:
        self.path.write_bytes(self.compress(content))
        return error_of(self.path)

    @pytest.mark.parametrize("missing", [1, 23, 24])
    def test_truncated_data(self, missing: int) -> None:
        message = self.error_for(idx_bytes(IMAGES)[:-missing])
        assert f"holds only {24 - missing} bytes of data, exactly 24 were expected" in message
        assert "(2, 3, 4)" in message
        assert "download it again" in message

    def test_a_header_that_ends_early(self) -> None:
        assert "ends inside its header; the sizes of 3 axes" in self.error_for(
            idx_bytes(IMAGES)[:15]
        )

    @pytest.mark.parametrize("extra", [b"\0", b"\0" * 5000])
    def test_trailing_bytes(self, extra: bytes) -> None:
        message = self.error_for(idx_bytes(IMAGES) + extra)
        assert "holds more bytes of data, exactly 24 were expected" in message

    def test_an_empty_file(self) -> None:
        assert "is empty" in self.error_for(b"")

    @pytest.mark.parametrize(
        "start",
        [
            b"<!DO",  # the page of a captive portal
            b"\0\0\x08\0",  # no axes
            b"\0\0\x08\x05",  # five axes
            b"\0\0\x0d\x03",  # floats
            b"\0\0\x08",  # ends too early
        ],
    )
    def test_wrong_magic_number(self, start: bytes) -> None:
        message = self.error_for(start)
        assert f"starts with the bytes {start.hex(' ')};" in message
        assert "starts with 00 00 08 01 to 04" in message
        assert "check that this is the right file" in message

    def test_a_declared_size_over_the_limit_is_refused_unread(self) -> None:
        message = self.error_for(bytes([0, 0, 8, 3]) + b"\xff" * 12)
        assert "declares the shape (4294967295, 4294967295, 4294967295)" in message
        assert "at most 1,073,741,824 bytes were expected" in message


class TestGzip:
    @pytest.mark.parametrize(
        ("damaged", "words"),
        [
            (PACKED[:-9], "is a damaged gzip file"),
            (PACKED[:-9], "download it again"),
            # A flipped bit of the stored checksum, an unknown kind of block, more after the end.
            (PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:], "gzip file (CRC check failed"),
            (PACKED[:10] + b"\xff" + PACKED[11:], "is a damaged gzip file"),
            (PACKED + b"garbage", "is a damaged gzip file"),
        ],
        ids=["cut", "cut, with advice", "checksum", "block", "garbage behind"],
    )
    def test_a_damaged_one_is_called_so(self, tmp_path: Path, damaged: bytes, words: str) -> None:
        (tmp_path / "images.gz").write_bytes(damaged)
        assert words in error_of(tmp_path / "images.gz")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            # It declares 24 bytes and unpacks to 64 MiB.
            (lambda: gzip.compress(idx_bytes(IMAGES) + bytes(2**26), 1), "more bytes of data, ex"),
            # A few bytes that declare 1 GiB.
            (
                lambda: bytes([0, 0, 8, 1]) + struct.pack(">I", idx.SIZE_LIMIT) + b"abc",
                "holds only 3 bytes of data, exactly 1,073,741,824",
            ),
        ],
    )
    def test_memory_follows_neither_a_bomb_nor_a_header(
        self, tmp_path: Path, content: Callable[[], bytes], words: str
    ) -> None:
        path = tmp_path / "images.gz"
        path.write_bytes(content())
        tracemalloc.start()
        try:
            message = error_of(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert words in message
        assert peak < 2**22


@pytest.mark.parametrize("chunk", [5, 8, 24, 25, 1000])
def test_the_end_of_a_chunk_is_not_taken_for_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(idx, "CHUNK", chunk)
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(IMAGES))
    assert np.array_equal(read_idx(path), IMAGES)
    path.write_bytes(idx_bytes(IMAGES) + b"\0")
    assert "holds more bytes of data" in error_of(path)


@pytest.mark.parametrize(
    ("array", "axes", "words"),
    [
        (
            LABELS,
            3,
            "a label file (1 axis), where an image file (3 axes) was expected: check that the "
            "image and label files are not swapped.",
        ),
        (IMAGES, 1, "an image file (3 axes), where a label file (1 axis) was expected: check that"),
        (IMAGES[None], 3, "an IDX file with 4 axes, where an image file"),
    ],
)
def test_another_kind_is_refused(array: np.ndarray, axes: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(idx_bytes(array))
    with pytest.raises(DataError) as caught:
        read_kind(tmp_path / "file", axes)
    assert str(caught.value).startswith(f"{tmp_path / 'file'} is {words}")


class TestPath:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "no such file; expected an IDX file" in error_of(tmp_path / "absent")

    def test_a_folder(self, tmp_path: Path) -> None:
        message = error_of(tmp_path)
        assert "is not a regular file; expected an IDX file" in message

    def test_an_unreadable_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Simulated: for the administrator, who may run the tests, every file is readable."""
        (tmp_path / "images").write_bytes(idx_bytes(IMAGES))

        monkeypatch.setattr(Path, "open", raising(PermissionError(13, "Permission denied")))
        message = error_of(tmp_path / "images")
        assert "cannot be read (Permission denied)" in message
        assert "its permissions" in message
