"""A conversion: what making MLPs bilinear costs, and what can be read of them since."""

from typing import Literal

from bilens.records.base import Count, Document, Record
from bilens.records.common import DataOrigin, LayeredModel, Run, Source, TextOrigin
from bilens.records.mlp_trace import DirectionReading, LatentReading

# the share is of squared errors, and of the variance of what the teacher gives
Unit = Literal["nats per token", "nats per row", "squared error", "share of the variance"]


class LossAt(Record, frozen=True):
    """The loss that a conversion adds at the predictions of one token or position."""

    kind: str  # `token` or `position`
    at: str  # the token of the text, or how many tokens are known before it, as 4–7
    count: Count  # of predictions
    loss_added: float
    error: float  # over these predictions


class Continuation(Record, frozen=True):
    """The texts of both models behind a held-out beginning, the most probable token each time."""

    beginning: tuple[str, ...]
    teacher: tuple[str, ...]
    student: tuple[str, ...]


class DomainLoss(Record, frozen=True, kw_only=True):
    """A converted model beside its teacher on held-out inputs of one domain; errors are standard.

    They are over texts, or rows, of the paired difference: ± 1.96 of one is a 95% interval.
    """

    name: str
    fitted: bool = True  # whether the rest of it was learnt from; otherwise it is only measured
    texts: Count = 0  # texts or rows that errors are over
    tokens: Count  # predictions that means are over
    teacher_loss: float  # in the unit of the document
    loss: float
    loss_added: float  # `loss` − `teacher_loss`
    error: float  # of `loss_added`
    kl: float | None = None  # KL(teacher, converted model) in nats; null where not measured
    kl_error: float | None = None
    same_top_token: float | None = None  # share at which both find the same answer most probable
    same_error: float | None = None
    teacher_accuracy: float | None = None  # share of right answers: next tokens, or classes
    accuracy: float | None = None
    accuracy_error: float | None = None  # of `accuracy` − `teacher_accuracy`
    losses: tuple[LossAt, ...] = ()  # tokens at which most is lost in sum, and all positions
    worst: LatentReading | None = None  # the text around the largest KL; its activations are KL
    samples: tuple[Continuation, ...] = ()


class ConvertedLayer(Record, frozen=True, kw_only=True):
    """One MLP; R² are on held-out rows of its own inputs, null where its output never varies."""

    name: str
    rows: Count  # that it was fitted to
    r_squared: float | None = None  # of all rows
    trimmed: float | None = None  # without the 0.1% of rows with the largest outputs
    median: float | None = None  # of the median row
    closed_form: float | None = None  # of all rows, before it was trained


class DistillationPoint(Record, frozen=True):
    """The model during the distillation, on a little held-out text of all domains together."""

    tokens: Count  # read so far, in all stages and passes
    loss_added: float
    kl: float


class Conversion(Document, frozen=True, kw_only=True):
    """A conversion to bilinear layers: its costs and layers; of other networks rows are tokens."""

    kind: Literal["bilinear conversion"] = "bilinear conversion"
    unit: Unit = "nats per token"  # of losses
    folder: str
    loaded_by: str  # what opens the folder
    model: LayeredModel  # its class
    num_parameters: Count
    exact_parameters: Count  # of MLPs that are read exactly now
    layers: tuple[ConvertedLayer, ...]  # those that are bilinear now
    kept: tuple[str, ...]  # names of those that are as they were
    swap_in_costs: dict[str, float]  # block → loss that it alone adds to the teacher, at first
    swap_in_errors: dict[str, float]  # of these, standard
    after_layers: tuple[DomainLoss, ...]  # once the layers were fitted and trained
    domains: tuple[DomainLoss, ...]  # at the end
    curve: tuple[DistillationPoint, ...] = ()
    line_tokens: Count = 0  # held-out predictions behind the curve
    gain: tuple[DirectionReading, ...] = ()  # of a few layers, named by them
    bfloat16_added: float | None = None  # to the loss, by storage in bfloat16
    seconds: dict[str, float]  # stage → how long it took
    notes: tuple[str, ...]
    data: TextOrigin | None = None
    rows: DataOrigin | None = None  # in the place of text
    spread: float | None = None  # standard deviation of the one number that the teacher gives
    source: Source  # the converted model; its provenance names teacher and recipe
    reproduce: Run
