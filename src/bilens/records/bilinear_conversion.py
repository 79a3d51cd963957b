"""A conversion: what making MLPs bilinear costs, and what can be read of them since."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Record
from bilens.records.common import DataOrigin, LayeredModel, Run, Source, TextOrigin
from bilens.records.mlp_trace import DirectionReading, LatentReading
from bilens.records.view import View

# the share is of squared errors, and of the variance of what the teacher gives
Unit = Literal["nats per token", "nats per row", "squared error", "share of the variance"]


class LossAt(Record, frozen=True):
    """The loss that a conversion adds at the predictions of one token or position."""

    kind: Annotated[str, "`token` or `position`"]
    at: Annotated[str, "the token of the text, or how many tokens are known before it, as 4–7"]
    count: Annotated[Count, "of predictions"]
    loss_added: Annotated[float, "at these predictions, on average"]
    error: Annotated[float, "over these predictions"]


class Continuation(Record, frozen=True):
    """The texts of both models behind a held-out beginning, the most probable token each time."""

    beginning: Annotated[tuple[str, ...], "its tokens"]
    teacher: Annotated[tuple[str, ...], "tokens of the model as it was"]
    student: Annotated[tuple[str, ...], "tokens of the converted model"]


class DomainLoss(Record, frozen=True, kw_only=True):
    """A converted model beside its teacher on held-out inputs of one domain; errors are standard.

    They are over texts, or rows, of the paired difference: ± 1.96 of one is a 95% interval.
    """

    name: Annotated[str, "of the domain"]
    fitted: Annotated[bool, "whether the rest of it was learnt from, or is only measured"] = True
    texts: Annotated[Count, "texts or rows that errors are over"] = 0
    tokens: Annotated[Count, "predictions that means are over"]
    teacher_loss: Annotated[float, "in the unit of the document"]
    loss: Annotated[float, "of the converted model"]
    loss_added: Annotated[float, "`loss` − `teacher_loss`"]
    error: Annotated[float, "of `loss_added`"]
    kl: Annotated[float | None, "KL(teacher, converted model) in nats; null if unmeasured"] = None
    kl_error: Annotated[float | None, "of `kl`"] = None
    same_top_token: Annotated[float | None, "share of which both prefer the same answer"] = None
    same_error: Annotated[float | None, "of `same_top_token`"] = None
    teacher_accuracy: Annotated[float | None, "right answers: next tokens or classes"] = None
    accuracy: Annotated[float | None, "of the converted model"] = None
    accuracy_error: Annotated[float | None, "of `accuracy` − `teacher_accuracy`"] = None
    losses: Annotated[tuple[LossAt, ...], "tokens that lose most in sum, and all positions"] = ()
    worst: Annotated[LatentReading | None, "text around the largest KL, its activations"] = None
    samples: Annotated[
        tuple[Continuation, ...], View("texts that both models write", instead=())
    ] = ()


class ConvertedLayer(Record, frozen=True, kw_only=True):
    """One MLP; R² are on held-out rows of its own inputs, null where its output never varies."""

    name: Annotated[str, "as `bl.load(...).layers` has it"]
    rows: Annotated[Count, "that it was fitted to"]
    r_squared: Annotated[float | None, "of all rows"] = None
    trimmed: Annotated[float | None, "without the 0.1% of rows with the largest outputs"] = None
    median: Annotated[float | None, "of the median row"] = None
    closed_form: Annotated[float | None, "of all rows, before it was trained"] = None


class DistillationPoint(Record, frozen=True):
    """The model during the distillation, on a little held-out text of all domains together."""

    tokens: Annotated[Count, "read so far, in all stages and passes"]
    loss_added: Annotated[float, "loss less that of the teacher"]
    kl: Annotated[float, "KL(teacher, model) in nats"]


class Conversion(Document, frozen=True, kw_only=True):
    """A conversion to bilinear layers: its costs and layers; of other networks rows are tokens."""

    kind: Annotated[Literal["bilinear conversion"], "of the document"] = "bilinear conversion"
    unit: Annotated[Unit, "of losses"] = "nats per token"
    folder: Annotated[str, "where the converted model lies"]
    loaded_by: Annotated[str, "what opens the folder"]
    model: Annotated[LayeredModel, "its class"]
    num_parameters: Annotated[Count, "of the converted model"]
    exact_parameters: Annotated[Count, "of MLPs that are read exactly now"]
    layers: Annotated[tuple[ConvertedLayer, ...], "those that are bilinear now"]
    kept: Annotated[tuple[str, ...], "names of those that are as they were"]
    swap_in_costs: Annotated[dict[str, float], "block → loss that it alone adds at first"]
    swap_in_errors: Annotated[dict[str, float], "of these, standard"]
    after_layers: Annotated[tuple[DomainLoss, ...], "once the layers were fitted and trained"]
    domains: Annotated[tuple[DomainLoss, ...], "at the end"]
    curve: Annotated[tuple[DistillationPoint, ...], "the model during the distillation"] = ()
    line_tokens: Annotated[Count, "held-out predictions behind the curve"] = 0
    gain: Annotated[tuple[DirectionReading, ...], "of a few layers, named by them"] = ()
    bfloat16_added: Annotated[float | None, "to the loss, by storage in bfloat16"] = None
    seconds: Annotated[dict[str, float], "stage → how long it took"]
    notes: Annotated[tuple[str, ...], "remarks on what could not be done, in words"]
    data: Annotated[TextOrigin | None, "the text that was learnt from; null without"] = None
    rows: Annotated[DataOrigin | None, "in the place of text"] = None
    spread: Annotated[float | None, "standard deviation of the teacher's one number"] = None
    source: Annotated[Source, "the converted model; its provenance names teacher and recipe"]
    reproduce: Annotated[Run, "what it takes to run the same again"]
