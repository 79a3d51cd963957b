"""The four corners of regularisation: input noise and weight decay, alone and together."""

from __future__ import annotations

from collections.abc import Mapping

from bilens.data.images import ImageDataset
from bilens.studies.comparison import Measured, Published, spread, table
from bilens.studies.study import Record, StudyOptions
from bilens.studies.vision import MEASURES, Models, SeedStudy, by_name, read_classifier, recipe_of
from bilens.train.tasks.image import ImageRecipe

CORNERS = {  # standard deviation of the noise, weight decay
    "none": (0.0, 0.0),
    "noise": (0.5, 0.0),
    "decay": (0.0, 1.0),
    "both": (0.5, 1.0),
}
EPOCHS, WIDTH = 100, 256
QUANTITIES = ("accuracy", "effective_rank_embedding", "top_share_embedding")
SHARE_TOLERANCE = 0.02  # of shares, which are published without a deviation
SOURCE = "reproduction, OpenReview 6k7qRdz7rD, seeds 42 to 46"
TABLE = {  # accuracy and effective rank with deviations, share of the ten largest |λ|
    "mnist": {
        "none": ((0.9749, 0.0006), (38.50, 0.74), (0.442, None)),
        "noise": ((0.9834, 0.0004), (82.18, 0.47), (0.249, None)),
        "decay": ((0.9749, 0.0005), (15.50, 0.33), (0.722, None)),
        "both": ((0.9801, 0.0004), (26.04, 0.34), (0.531, None)),
    },
    "fashion-mnist": {
        "none": ((0.8850, 0.0007), (47.20, 0.93), (0.386, None)),
        "noise": ((0.8680, 0.0004), (87.70, 0.77), (0.244, None)),
        "decay": ((0.8731, 0.0008), (11.75, 0.48), (0.787, None)),
        "both": ((0.8604, 0.0005), (20.06, 0.35), (0.623, None)),
    },
}


class CornerStudy(SeedStudy):
    """Accuracy, spectra and eigenvectors of the four corners, on two data sets."""

    name = "vision/corners"
    title = "Input noise and weight decay: accuracy, spectra and eigenvectors"
    published = {  # noqa: RUF012 - a constant
        f"{data} {corner} {quantity}": Published(
            f"{data}, {corner}: {MEASURES[quantity][0]}",
            SOURCE,
            value,
            deviation=deviation,
            tolerance=None if deviation else SHARE_TOLERANCE,
            flaw="" if quantity == "accuracy" else "in the embedding basis alone",
        )
        for data, corners in TABLE.items()
        for corner, numbers in corners.items()
        for quantity, (value, deviation) in zip(QUANTITIES, numbers, strict=True)
    }

    def recipes(self, options: StudyOptions, seed: int) -> list[ImageRecipe]:
        return [
            recipe_of(
                options, noise=noise, weight_decay=decay, d_hidden=WIDTH, epochs=EPOCHS, seed=seed
            )
            for noise, decay in CORNERS.values()
        ]

    def read(self, _options: StudyOptions, data: ImageDataset, models: Models) -> Record:
        pairs = zip(CORNERS, models, strict=True)
        return {corner: read_classifier(model, data) for corner, model in pairs}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {
            data: {corner: by_name([run[corner] for run in runs]) for corner in CORNERS}
            for data, runs in super().document(options, cells).items()
        }

    def ours(self, result: Record) -> Mapping[str, Measured]:
        return {
            f"{data} {corner} {quantity}": Measured(tuple(found[quantity]))
            for data, corners in result.items()
            for corner, found in corners.items()
            for quantity in QUANTITIES
        }

    def parts(self, result: Record) -> Record:
        heads = " | ".join(["", *CORNERS])
        tables = []
        for data, corners in result.items():
            rows = (
                [told, *(spread(corners[corner][name], digits) for corner in CORNERS)]
                for name, (told, digits) in MEASURES.items()
            )
            tables.append(f"### {data}\n\n{table(heads, rows)}")
        return {"tables": "\n\n".join(tables), "tolerance": SHARE_TOLERANCE}
