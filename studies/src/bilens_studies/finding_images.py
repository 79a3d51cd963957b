"""Images that are drawn: letters, which fix nothing, and shapes, which help to fix the findings."""

import math
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens import ImageDataset
from bilens.base.errors import MissingExtraError

SIDE, LARGE = 28, 112  # pixels of an image, and of the sheet that it is drawn on
NUM_TRAIN, NUM_TEST = 20_000, 5_000
LETTERS = "ABCDEFGHIJ"
FONTS = ["DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSerif", "DejaVuSerif-BoldItalic"]
FONTS += ["DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBolIta", "STIXGeneralItalic"]
FONTS += ["cmr10", "cmss10", "cmtt10", "cmmi10"]
Draw = random.Random


def drawn_images(name: str) -> ImageDataset:
    """Return "letters", in fonts that matplotlib has, or "shapes", on spotted ground.

    Raises: MissingExtraError if matplotlib is not installed, for letters.
    """
    one = {"letters": letter, "shapes": shape}[name]
    names = tuple(LETTERS) if name == "letters" else SHAPES
    images, labels = torch.empty(NUM_TRAIN + NUM_TEST, SIDE**2), []
    for index in range(len(images)):
        draw = random.Random(f"{name} {index}")  # noqa: S311 - no secret
        labels.append(draw.randrange(len(names)))
        images[index] = turned(one(labels[-1], draw), draw)
    truth = torch.tensor(labels)
    return ImageDataset(
        name=name,
        train_images=images[:NUM_TRAIN],
        train_labels=truth[:NUM_TRAIN],
        test_images=images[NUM_TRAIN:],
        test_labels=truth[NUM_TRAIN:],
        image_shape=(SIDE, SIDE),
        class_names=names,
        source=f"{len(images):,} images of {name} drawn by the study",
        source_kind="tensors",
    )


def turned(sheet: Any, draw: Draw) -> Tensor:
    """Return a sheet turned, moved, enlarged and in grey of some strength, (pixels,)."""
    from PIL import Image

    angle, size = math.radians(draw.uniform(-15, 15)), draw.uniform(0.85, 1.2)
    slant, move = draw.uniform(-0.2, 0.2), (draw.uniform(-8, 8), draw.uniform(-8, 8))
    a, b = math.cos(angle) / size, math.sin(angle) / size
    c, d = -b + slant * a, a + slant * b
    half = LARGE / 2
    offsets = [
        half - p * half - q * half + m for (p, q), m in zip(((a, c), (b, d)), move, strict=True)
    ]
    flat = (a, c, offsets[0], b, d, offsets[1])
    image = sheet.transform((LARGE, LARGE), Image.Transform.AFFINE, flat, Image.Resampling.BILINEAR)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).float() / 255
    return grey * draw.uniform(0.7, 1.0)


@lru_cache(maxsize=len(FONTS))
def font(name: str) -> Any:
    from PIL import ImageFont

    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "Drawing letters") from None
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / f"{name}.ttf"), 88)


def letter(label: int, draw: Draw) -> Any:
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (LARGE, LARGE))
    text = LETTERS[label] if draw.random() < 0.5 else LETTERS[label].lower()
    middle = (LARGE / 2, LARGE / 2)
    ImageDraw.Draw(sheet).text(middle, text, fill=255, font=font(draw.choice(FONTS)), anchor="mm")
    return sheet


def shape(label: int, draw: Draw) -> Any:
    """Return one of `SHAPES` on a ground of spots."""
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (LARGE, LARGE), draw.randrange(0, 60))
    pen = ImageDraw.Draw(sheet)
    for _ in range(draw.randrange(12)):
        x, y, spot = draw.randrange(LARGE), draw.randrange(LARGE), draw.randrange(3, 9)
        pen.ellipse(around(x, y, spot), fill=draw.randrange(40, 140))
    middle, r = LARGE / 2, draw.uniform(24, 40)
    SHAPE_PENS[SHAPES[label]](pen, middle, r)
    return sheet


def around(x: float, y: float, r: float) -> tuple[float, float, float, float]:
    return x - r, y - r, x + r, y + r


def corners(m: float, r: float, count: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Return the corners of a polygon, or of a star whose inner corners are nearer."""
    radii = [r] if inner == 1 else [r, r * inner]
    turns = len(radii) * count
    angles = (math.pi * (2 * k / turns - 0.5) for k in range(turns))
    return [
        (m + radii[k % len(radii)] * math.cos(a), m + radii[k % len(radii)] * math.sin(a))
        for k, a in enumerate(angles)
    ]


def stripes(pen: Any, m: float, r: float) -> None:
    for k in (-1, 0, 1):
        pen.rectangle((m - r, m + 0.7 * k * r - 5, m + r, m + 0.7 * k * r + 5), fill=255)


def plus(pen: Any, m: float, r: float) -> None:
    pen.rectangle((m - r, m - 6, m + r, m + 6), fill=255)
    pen.rectangle((m - 6, m - r, m + 6, m + r), fill=255)


def two_discs(pen: Any, m: float, r: float) -> None:
    for k in (-1, 1):
        pen.ellipse(around(m, m + k * 0.55 * r, 0.45 * r), fill=255)


def arrow(pen: Any, m: float, r: float) -> None:
    pen.rectangle((m - 6, m - r, m + 6, m + r), fill=255)
    pen.polygon([(m, m - r - 4), (m - 0.6 * r, m), (m + 0.6 * r, m)], fill=255)


SHAPE_PENS: dict[str, Callable[[Any, float, float], None]] = {
    "disc": lambda pen, m, r: pen.ellipse(around(m, m, r), fill=255),
    "ring": lambda pen, m, r: pen.ellipse(around(m, m, r), outline=255, width=9),
    "square": lambda pen, m, r: pen.rectangle(around(m, m, 0.9 * r), fill=255),
    "frame": lambda pen, m, r: pen.rectangle(around(m, m, 0.9 * r), outline=255, width=9),
    "triangle": lambda pen, m, r: pen.polygon(corners(m, 1.1 * r, 3), fill=255),
    "star": lambda pen, m, r: pen.polygon(corners(m, 1.2 * r, 5, 0.45), fill=255),
    "plus": plus,
    "stripes": stripes,
    "two discs": two_discs,
    "arrow": arrow,
}
SHAPES = tuple(SHAPE_PENS)
