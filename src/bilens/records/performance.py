"""How good the predictions of a model are on data with right answers."""

from typing import Annotated, Literal

from bilens.records.base import Count, Numbers, Record, require
from bilens.records.common import DataNote, Reading, Share
from bilens.records.view import View

SEEN = 0.05  # share of rows, beyond chance, from which some are taken for rows of the training
Curve = tuple[tuple[float, float], ...]  # points, both coordinates from 0 to 1


class ClassPerformance(Record, frozen=True):
    """The quality of answers of one class; areas are against all others, null on one side alone."""

    name: Annotated[str, "of the class"]
    recall: Annotated[Share | None, "its rows that are recognised; null where there are none"]
    precision: Annotated[Share | None, "answers that name it and are right; null where none does"]
    auc: Annotated[float | None, "area under the ROC curve"]
    average_precision: Annotated[float | None, "Σ (recall − recall before) · precision"]


class ReliabilityBin(Record, frozen=True):
    """Rows whose answers have about the same confidence."""

    confidence: Annotated[float, "mean probability of the answer"]
    accuracy: Annotated[Share, "right answers among them"]


class Classification(Record, frozen=True):
    """The quality of answers that name a class; probabilities are the softmax of the outputs."""

    accuracy: Annotated[Share, "right answers of all rows"]
    classes: Annotated[tuple[ClassPerformance, ...], "in the order of the names"]
    confusion: Annotated[tuple[tuple[Count, ...], ...], "by label and answer; empty beyond 30"]
    ece: Annotated[float, "expected calibration error: Σ share of bin · |accuracy − confidence|"]
    ece_null: Annotated[float, "about what a perfectly calibrated model would have on so many rows"]
    brier: Annotated[float, "mean Σ over classes of (probability − 1 for the label)², 0 to 2"]
    reliability: Annotated[tuple[ReliabilityBin, ...], "ten of equal width, empty ones left out"]
    roc: Annotated[Curve, "(1 − specificity, recall) of the second of two classes; empty with more"]
    precision_recall: Annotated[Curve, "(recall, precision); likewise"]


class Answer(Record, frozen=True):
    """The answer to one row."""

    index: Annotated[Count, "row, as a spreadsheet numbers it; of rows from memory from 0"]
    name: Annotated[str, "of its file; empty where rows have numbers alone"]
    target: Annotated[float, "the right number, or the index of the right class"]
    predicted: Annotated[float, "the number, or the index of the class, that the model gave"]
    confidence: Annotated[float | None, "probability of the answer; null where it is a number"]
    image: Annotated[Numbers | None, "grey levels row by row, for drawing; null for no image"]


class Regression(Record, frozen=True):
    """The quality of answers that are numbers."""

    r_squared: Annotated[float | None, "1 − Σ residual² / Σ (target − mean)²; null if constant"]
    rmse: Annotated[float, "√ mean residual², in units of the target"]
    mae: Annotated[float, "mean |residual|"]
    spread: Annotated[float, "standard deviation of the target: the RMSE of its mean"]
    residuals: Annotated[
        tuple[Answer, ...], View("rows spread evenly over the data, at most 400", instead=())
    ]


class ApproximationOnData(Record, frozen=True):
    """R² of the quadratic approximation of a layer on what reaches it when the data run through."""

    layer: Annotated[str, "its name"]
    r_squared: Annotated[float | None, "of that which is read, under N(0, I); null if constant"]
    fitted: Annotated[float | None, "of that under a normal input of these data's covariance"]
    classes: Annotated[tuple[float | None, ...], "`r_squared` in each class; empty without labels"]


class Performance(Reading, frozen=True):
    """Accuracy or error of the predictions on the data that were given."""

    rows: Annotated[Count, "that were answered"]
    names: Annotated[tuple[str, ...], "of the classes; one name where the answer is a number"]
    image_shape: Annotated[tuple[Count, Count] | None, "of the images of `mistakes`; null for none"]
    classification: Annotated[Classification | None, "null for numbers, or without labels"]
    regression: Annotated[Regression | None, "null likewise"]
    mistakes: Annotated[
        tuple[Answer, ...], View("most confident wrong answers, or largest errors", instead=())
    ]
    approximation: Annotated[tuple[ApproximationOnData, ...], "of layers not exactly quadratic"]
    notes: Annotated[tuple[DataNote, ...], "what was done to the data"]
    trained: Annotated[Count | None, "rows that equal training rows; null if not known"] = None
    twins: Annotated[float, "share of the training's rows that equal another, as by chance"] = 0.0

    @property
    def rows_seen(self) -> Literal["", "partly", "all"]:
        """Which rows the model was trained on: none beyond what chance would give, some, or all."""
        share = 0.0 if self.trained is None else self.trained / max(self.rows, 1)
        if share <= self.twins + SEEN:
            return ""
        return "all" if share == 1 else "partly"

    def __post_init__(self) -> None:
        count, found = len(self.names), self.classification
        lines = () if found is None else (found.classes, *found.confusion)
        require(all(len(line) == count for line in lines), "the classes of performance differ")
        worst = [] if found is None else [max(one.target, one.predicted) for one in self.mistakes]
        require(all(0 <= index < count for index in worst), "a mistake names no class")
