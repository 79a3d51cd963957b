"""Files of images, sound or arrays, each as the inputs that a model is run on."""

from __future__ import annotations

import hashlib
import re
import wave
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.data import arrays
from bilens.data.arrays import Array, read_arrays
from bilens.records.common import DataNote

IMAGES, SOUND = (".png", ".jpg", ".jpeg", ".bmp", ".webp"), (".wav",)
SIDES = 32  # of an image whose size nothing says: a multiple, for networks that halve it
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # pixels, as Pillow has them
AT_ONCE = 64  # windows of sound
RANGE = re.compile(r"(-?[\d.]+)\.\.(-?[\d.]+)")
Call = Mapping[str, Array]  # input → what it is given


@dataclass(frozen=True)
class ModelInput:
    """An input of a model that can be run."""

    name: str
    shape: tuple[int, ...] | None = None  # 0 for a side that is open; None where nothing says
    dtype: str = "float32"  # as NumPy calls it

    def __str__(self) -> str:
        if self.shape is None:
            return repr(self.name)
        return f"{self.name!r}, {self.dtype} ({', '.join(str(side or '…') for side in self.shape)})"

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def is_whole(self) -> bool:
        return self.dtype.startswith(("int", "uint"))


@dataclass(frozen=True)
class InputScale:
    """How values of an image from 0 to 1, or of sound from −1 to 1, become a model's inputs."""

    text: str
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    assumed: bool = False

    @classmethod
    def parse(cls, text: str | None, usual: str, least: float) -> InputScale:
        """Read a scale as it is written: low..high, or mean,deviation, with / between colours.

        `least` is the lowest value of what is given, whose highest is 1.
        """
        found = cls(text or usual, assumed=text is None)
        if ends := RANGE.fullmatch(found.text):
            low, high = map(float, ends.groups())
            if low < high:
                unit = (1 - least) / (high - low)
                return replace(found, mean=(least - low * unit,), deviation=(unit,))
        else:
            try:
                mean, deviation = (
                    tuple(map(float, part.split("/"))) for part in found.text.split(",")
                )
            except ValueError:
                mean, deviation = (), (0.0,)
            if len(mean) == len(deviation) and 0 not in deviation:
                if not all(least <= one <= 1 for one in mean) or max(deviation) > 1 - least:
                    raise off_scale(found.text, mean, deviation, least)
                return replace(found, mean=mean, deviation=deviation)
        raise UsageError(
            f"normalise={text!r} (--normalise): expected a range such as 0..1, 0..255 or -1..1, or "
            "mean,deviation of images from 0 to 1 or sound from -1 to 1, such as 0.5,0.5, with one "
            "for each colour as in 0.485/0.456/0.406,0.229/0.224/0.225."
        )

    def rescale(self, values: Array, channels: int) -> Array:
        """Return values, (channels, …), on this scale."""
        if len(self.mean) not in (1, channels):
            raise DataError(
                f"normalise={self.text!r} (--normalise) has {len(self.mean)} numbers a side, and "
                f"the model reads {channels} channel(s): give one, or {channels}."
            )
        sides = (-1,) + (1,) * (values.ndim - 1)
        mean, deviation = (np.reshape(part, sides) for part in (self.mean, self.deviation))
        return np.asarray((values - mean) / deviation)


@dataclass(frozen=True)
class SampleFiles:
    """Files of one kind, each of other inputs, and how they are read for a model."""

    kind: str  # images, sound or arrays
    files: tuple[Path, ...]
    sha256: tuple[str, ...]  # of what the model is given of each
    ports: tuple[ModelInput, ...]
    scale: InputScale | None  # None for arrays, which are as the model reads them
    size: tuple[int, ...]  # asked for
    repeated: int = 0  # files that give what another one gives, which are left out
    left: tuple[str, ...] = ()  # files of another kind

    def calls(self, path: Path) -> Iterator[Call]:
        """Yield what the model is run on for a file, run by run; refuse what is not finite."""
        made = {"images": self.image, "sound": self.windows, "arrays": self.arrays}[self.kind]
        for call in made(path):
            for name, values in call.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise DataError(f"{path}: {name!r} holds NaN or infinity: leave the file out.")
            yield call

    def given_sha256(self, path: Path) -> str:
        """Return the hash of what the model is given of a file, whatever its bytes are."""
        sha256 = hashlib.sha256()
        for call in self.calls(path):
            for name, values in sorted(call.items()):
                sha256.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
        return sha256.hexdigest()

    def notes(self) -> list[DataNote]:
        """Return how inputs are made of the files."""
        found = list[DataNote]()
        if self.left:
            found.append(DataNote("seen_left", {"names": ", ".join(self.left[:5])}))
        if self.scale is None:
            return [*found, DataNote("seen_arrays", {})]
        port = self.port
        how: dict[str, str | int | float] = {"input": port.name, "scale": self.scale.text}
        if self.kind == "images":
            channels, size, _ = self.layout(port)
            how["channels"] = "RGB" if channels == 3 else "L"
            how["size"] = " × ".join(str(side or "…") for side in size)
            found.append(DataNote("seen_images", how))
            if 0 in size:
                found.append(DataNote("seen_own_size", {"multiple": SIDES}))
        else:
            rate, _ = read_sound(self.files[0])
            found.append(DataNote("seen_sound", how | {"rate": rate, "window": self.window}))
        if self.scale.assumed:
            found.append(DataNote("seen_assumed", {"scale": self.scale.text}))
        return found

    @property
    def port(self) -> ModelInput:
        """The one input that takes an image or sound."""
        first, *others = self.ports
        if others:
            raise DataError(
                f"the model reads {len(self.ports)} inputs ({'; '.join(map(str, self.ports))}), "
                f"and {self.kind} are one: give .npz files with an array under each of these "
                "names, in calls one after another or of one call."
            )
        return first

    # ---- images

    def layout(self, port: ModelInput) -> tuple[int, tuple[int, int], bool]:
        """Return channels, rows and columns of an image (0 for its own), and if channels are last.

        A size that is asked for fills what the model leaves open.
        """
        shape = port.shape or (0, 3, 0, 0)
        last = len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
        channels = (shape[3] if last else shape[1] or 3) if len(shape) == 4 else 0
        if channels not in (1, 3):
            raise DataError(
                f"an image has 1 or 3 channels in rows and columns, and the model reads {port}: "
                "give arrays as it reads them (.npy, .npz)."
            )
        rows, columns = shape[1:3] if last else shape[2:]
        asked = (*self.size, *self.size)[:2] if self.size else (0, 0)
        for side, wanted in ((rows, asked[0]), (columns, asked[1])):
            if wanted and side not in (0, wanted):
                raise UsageError(f"size (--size): the model reads {port}: leave it out.")
        return channels, (rows or asked[0], columns or asked[1]), last

    def image(self, path: Path) -> Iterator[Call]:
        """Yield an image, stretched to what the model reads."""
        try:
            from PIL import Image
        except ImportError:
            raise MissingExtraError("Pillow", "images", "Reading images") from None
        port, scale = self.port, self.scale
        assert scale is not None, "images have one"
        channels, (rows, columns), last = self.layout(port)
        try:
            with Image.open(path) as opened:
                wide, high = (max(SIDES, SIDES * round(side / SIDES)) for side in opened.size)
                check_pixels(path, opened.mode)
                image = opened.convert("RGB" if channels == 3 else "L")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: is no image, or is damaged ({error}).") from error
        size = columns or wide, rows or high
        values = np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)
        values = values.reshape(*values.shape[:2], channels).transpose(2, 0, 1) / 255
        values = scale.rescale(values, channels)
        values = values.transpose(1, 2, 0) if last else values
        values = values if port.is_float else values.round()
        yield {port.name: self.cast(path, values[None], port)}

    # ---- sound

    @property
    def window(self) -> int:
        """How many values of sound the model reads at once."""
        port = self.port
        if not port.is_float or not 1 <= len(port.shape or (0, 0)) <= 3:
            raise DataError(f"the model reads {port}, and sound is one row of floats: give arrays.")
        length = (port.shape or (0,))[-1]
        if length and self.size not in ((), (length,)):
            raise UsageError(f"size (--size): the model reads {port}: leave it out.")
        if not length and not self.size:
            raise UsageError(
                f"the model reads {port}, of any length: say how many values of sound it is given "
                "at once, size (--size), as 16000."
            )
        return length or self.size[0]

    def windows(self, path: Path) -> Iterator[Call]:
        """Yield windows of sound, one behind the other; what is left at the end is dropped."""
        port, width, scale = self.port, self.window, self.scale
        assert scale is not None, "sound has one"
        rate, values = read_sound(path)
        first, _ = read_sound(self.files[0])
        if rate != first:
            raise DataError(
                f"{path}: has {rate} values a second, and {self.files[0].name} {first}: give files "
                "of one rate, the one that the model was trained on."
            )
        if len(values) < width:
            raise DataError(f"{path}: has {len(values)} values, and the model reads {width}.")
        parts = scale.rescale(values[None], 1)[0][: len(values) // width * width].reshape(-1, width)
        shape = port.shape or (0, 0)
        together = AT_ONCE if len(shape) > 1 and shape[0] == 0 else 1
        for start in range(0, len(parts), together):
            some = parts[start : start + together].astype(port.dtype)
            sides = (width,) if len(shape) == 1 else (len(some), *(1,) * (len(shape) - 2), width)
            yield {port.name: some.reshape(sides)}

    # ---- arrays

    def arrays(self, path: Path) -> Iterator[Call]:
        """Yield the calls in a file: an array an input, as it is read, or several along an axis."""
        found, ports = read_arrays(path), {port.name: port for port in self.ports}
        if len(found) == len(ports) == 1:  # of one array the name says nothing
            found = dict(zip(ports, found.values(), strict=True))
        if found.keys() != ports.keys():
            raise DataError(
                f"{path}: holds {', '.join(map(repr, found)) or 'nothing'}; expected an array for "
                f"each input of the model: {'; '.join(map(str, self.ports))}."
            )
        several = {
            name: port.shape is not None and found[name].ndim == len(port.shape) + 1
            for name, port in ports.items()
        }
        counts = {len(found[name]) for name, many in several.items() if many} or {1}
        wrong = [
            port
            for name, port in ports.items()
            if not takes_shape(port, found[name].shape[several[name] :])
            or (found[name].dtype.kind == "f") > port.is_float
        ]
        if wrong or len(counts) > 1:
            port = (wrong or self.ports)[0]
            raise DataError(
                f"{path}: {port.name!r} is {found[port.name].dtype} {found[port.name].shape}; the "
                f"model reads {port}, or as many of them one behind the other as of the others."
            )
        for number in range(counts.pop()):
            chosen = {n: found[n][number] if many else found[n] for n, many in several.items()}
            yield {name: self.cast(path, one, ports[name]) for name, one in chosen.items()}

    def cast(self, path: Path, values: Array, port: ModelInput) -> Array:
        """Return values as an input takes them; refuse whole numbers that it does not hold."""
        if port.is_whole and values.size:
            held, low, high = np.iinfo(port.dtype), int(values.min()), int(values.max())
            if low < held.min or high > held.max:
                how = " (--normalise)" if self.scale else ""
                raise DataError(
                    f"{path}: gives numbers from {low} to {high}, and the model reads {port}, "
                    f"which holds {held.min} to {held.max}: give numbers in this range{how}."
                )
        return values.astype(port.dtype)


def off_scale(
    text: str, mean: Sequence[float], deviation: Sequence[float], least: float
) -> UsageError:
    """Refuse a mean and deviation of another scale: all inputs would be nearly one number."""
    parts = [[one / 255 for one in side] for side in (mean, deviation)]
    fits = least == 0 and all(0 <= one <= 1 for side in parts for one in side)
    said = ",".join("/".join(f"{one:.6g}" for one in side) for side in parts)
    instead = f"if these are of pixels from 0 to 255, pass {said}" if fits else "pass them so"
    return UsageError(
        f"normalise={text!r} (--normalise): mean and deviation are of values from {least:g} to 1, "
        f"and these are of another scale: {instead}."
    )


def takes_shape(port: ModelInput, shape: Sequence[int]) -> bool:
    """Tell whether an array of a shape is what an input takes."""
    sides = shape if port.shape is None else port.shape
    return len(sides) == len(shape) and all(
        side in (0, own) for side, own in zip(sides, shape, strict=True)
    )


def check_pixels(path: Path, mode: str) -> None:
    """Refuse pixels that Pillow would cut off where it makes bytes of them."""
    if mode not in EIGHT_BITS:
        raise DataError(f"{path}: has {mode} pixels; expected 8 bits a colour.")


def read_sound(path: Path) -> tuple[int, Array]:
    """Return the values a second of a .wav file, and its sound from −1 to 1, channels averaged."""
    try:
        with wave.open(str(path)) as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = np.frombuffer(file.readframes(count), np.uint8)
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(
            f"{path}: is no .wav file of whole numbers ({error}): convert it to 16 bits."
        ) from error
    raw = raw[: len(raw) // (width * channels) * width * channels].reshape(-1, width)
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 4 - width :] = raw ^ 128 if width == 1 else raw  # one byte alone has no sign
    values = wide.view("<i4")[:, 0] / 2.0**31
    return rate, values.reshape(-1, channels).mean(axis=1)


def find_samples(
    path: Path, ports: Sequence[ModelInput], normalise: str | None = None, size: Sequence[int] = ()
) -> SampleFiles:
    """Return the files of one kind at a path; those that give a model the same count once.

    Raises: DataError for a folder without any, or with several kinds; for a single file, beside
        which nothing can be held out.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; expected a folder of images, .wav, .npy or .npz.")
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    every = [one for one in below if one.is_file() and not one.name.startswith(".")]
    kinds = {"images": IMAGES, "sound": SOUND, "arrays": arrays.KINDS}
    counts = Counter(kind for one in every for kind, ends in kinds.items() if has_suffix(one, ends))
    if len(counts) != 1:
        held = " and ".join(counts) or "no images (.png, .jpg), sound (.wav) or arrays (.npy, .npz)"
        raise DataError(f"{path}: holds {held}; expected files of one of these kinds.")
    (kind,) = counts
    files = [one for one in every if has_suffix(one, kinds[kind])]
    left = tuple(str(one.relative_to(path)) for one in every if one not in files)
    scale = None
    if kind != "arrays":
        is_bytes = any(port.is_whole for port in ports)
        usual = "-1..1" if kind == "sound" else "0..255" if is_bytes else "0..1"
        scale = InputScale.parse(normalise, usual, -1.0 if kind == "sound" else 0.0)
    elif normalise or size:
        raise UsageError("normalise, size (--normalise, --size): arrays are read as they are.")
    samples = SampleFiles(kind, tuple(files), (), tuple(ports), scale, tuple(size), left=left)
    known: dict[str, Path] = {}
    for one in files:
        known.setdefault(samples.given_sha256(one), one)
    if len(known) < 2:
        raise DataError(
            f"{path}: is one file of {kind}, or copies of one, and R² is of files that nothing was "
            "fitted to: give a folder with two or more."
        )
    repeated = len(files) - len(known)
    return replace(samples, files=(*known.values(),), sha256=(*known,), repeated=repeated)


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes
