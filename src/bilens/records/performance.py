"""How good the predictions of a model are on data with right answers."""

from typing import Literal

from bilens.records.base import Count, Numbers, Record, require
from bilens.records.common import DataNote, Reading, Share

SEEN = 0.05  # share of rows, beyond chance, from which some are taken for rows of the training
Curve = tuple[tuple[float, float], ...]  # points, both coordinates from 0 to 1


class ClassPerformance(Record, frozen=True):
    """The quality of answers of one class; areas are against all others, null on one side alone."""

    name: str
    recall: Share | None  # its rows that are recognised; null where there are none
    precision: Share | None  # answers that name it and are right; null where none does
    auc: float | None  # area under the ROC curve
    average_precision: float | None  # Σ (recall − recall before) · precision


class ReliabilityBin(Record, frozen=True):
    """Rows whose answers have about the same confidence."""

    confidence: float  # mean probability of the answer
    accuracy: Share


class Classification(Record, frozen=True):
    """The quality of answers that name a class; probabilities are the softmax of the outputs."""

    accuracy: Share
    classes: tuple[ClassPerformance, ...]  # in the order of the names
    confusion: tuple[tuple[Count, ...], ...]  # rows by label and answer; empty beyond 30 classes
    ece: float  # expected calibration error: Σ rows of a bin / rows · |accuracy − confidence|
    ece_null: float  # about what a perfectly calibrated model would have on so many rows
    brier: float  # mean Σ over classes of (probability − 1 where it is the label)², 0 to 2
    reliability: tuple[ReliabilityBin, ...]  # ten of equal width, empty ones left out
    roc: Curve  # (1 − specificity, recall) of the second of two classes; empty with more
    precision_recall: Curve  # (recall, precision); likewise


class Answer(Record, frozen=True):
    """The answer to one row."""

    index: Count  # row, as a spreadsheet numbers it; of rows from memory from 0
    name: str  # of its file; empty where rows have numbers alone
    target: float  # the right number, or the index of the right class
    predicted: float
    confidence: float | None  # probability of the answer; null where it is a number
    image: Numbers | None  # grey levels row by row, for drawing; null for no image


class Regression(Record, frozen=True):
    """The quality of answers that are numbers."""

    r_squared: float | None  # 1 − Σ residual² / Σ (target − mean)²; null for a constant target
    rmse: float  # √ mean residual², in units of the target
    mae: float  # mean |residual|
    spread: float  # standard deviation of the target: the RMSE of its mean
    residuals: tuple[Answer, ...]  # rows spread evenly over the data, at most 400


class ApproximationOnData(Record, frozen=True):
    """R² of the quadratic approximation of a layer on what reaches it when the data run through."""

    layer: str
    r_squared: float | None  # of the one that is read, under N(0, I); null where outputs are equal
    fitted: float | None  # of the one under a normal input with mean and covariance of these data
    classes: tuple[float | None, ...]  # `r_squared` within each class; empty without labels


class Performance(Reading, frozen=True):
    """Accuracy or error of the predictions on the data that were given."""

    rows: Count
    names: tuple[str, ...]  # of the classes; one name where the answer is a number
    image_shape: tuple[Count, Count] | None  # of the images of `mistakes`; null where there is none
    classification: Classification | None  # null where answers are numbers, or labels not known
    regression: Regression | None  # null likewise
    mistakes: tuple[Answer, ...]  # the most confident wrong answers, or the largest errors
    approximation: tuple[ApproximationOnData, ...]  # layers that are not exactly quadratic
    notes: tuple[DataNote, ...]  # what was done to the data
    trained: Count | None = None  # rows that equal ones of the training; null where not known
    twins: float = 0.0  # share of the training's rows that equal another: what chance would give

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
