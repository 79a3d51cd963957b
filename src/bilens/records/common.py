"""Parts that documents share: verdict, model, identity, and where all of it comes from."""

import hashlib
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from bilens.records.base import Count, Integer, Record, json_text, require

Outcome = Literal["pass", "warn", "fail", "info"]
Value = Integer | float | str


class Finding(Record, frozen=True):
    """One sentence of the verdict: a rule, how it ended, and the numbers that fill the sentence."""

    rule: str
    outcome: str  # `pass`, `warn`, `fail` or `info`
    values: dict[str, Value]  # the numbers that fill the sentence


class JudgedCondition(Record, frozen=True):
    """A condition that was asked for, and its end; it also fails if its rule judged nothing."""

    condition: str  # as it was asked for
    rule: str
    value: float | None  # what was compared; null where there was nothing to judge
    failed: bool
    # why it does not simply pass: `assumed`, the value rests on an input that nobody gave, so it
    # failed; `units`, it does not hold where all inputs have deviation 1; empty otherwise
    ground: str = ""


class NullInterval(Record, frozen=True):
    """A quantity under the null distribution: what chance would give."""

    median: float
    low: float  # of an interval that holds at least 95%
    high: float


class Interval(Record, frozen=True):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Share(Record, frozen=True):
    """Right answers of a data set, with the exact 95% interval of Clopper and Pearson."""

    right: Count  # inputs with the right answer
    total: Count  # inputs
    value: float  # `right` / `total`
    low: float
    high: float
    plain: float | None = None  # the share of the most frequent class; null in an older document


class Exactness(Record, frozen=True):
    """The errors of the reading xᵀQx + b·x + c against the model's own forward pass."""

    precision: str  # `float32` or `float64`
    largest_error: float  # largest |forward − (xᵀQx + b·x + c)|, in logits, over all inputs
    relative_error: float  # `largest_error` divided by the largest |logit|
    tolerance: float  # of `relative_error`
    num_inputs: Count  # standard normal inputs
    passed: bool  # `relative_error` is within `tolerance`


class ModelSummary(Record, frozen=True):
    """The classifier that was read: its class, sizes and dtype."""

    kind: str  # class of the model
    d_input: Count  # numbers in an input
    d_hidden: Count  # hidden units
    d_output: Count  # classes
    bias: bool  # the layer has biases
    residual: bool  # the layer has a residual path
    num_parameters: Count
    dtype: str  # of the weights as stored, e.g. `float32`
    input_shape: tuple[Count, Count]  # rows and columns; one row where inputs are no images
    input_shape_assumed: bool  # the shape was not known, and a square (or a row) was assumed
    output_names: tuple[str, ...]  # one name for each class
    # one name for each input, such as the columns of a table; null where inputs have numbers alone
    input_names: tuple[str, ...] | None = None


class LayeredModel(Record, frozen=True):
    """A model that is read layer by layer."""

    kind: str  # class or format
    num_layers: Count
    dtype: str  # of the weights as stored, where there are several the one of most numbers first
    # rows and columns of an input; one row where inputs are no images; null where that is not known
    input_shape: tuple[Count, Count] | None = None
    output_names: tuple[str, ...] = ()  # one name for each class or output, where they are known


class ModelFacts(LayeredModel, frozen=True):
    """The model that was audited: its sizes where it is one exact layer, and its columns."""

    d_input: Count | None = None  # numbers in an input; null, as all that follows, of other models
    d_hidden: Count | None = None  # hidden units
    d_output: Count | None = None  # classes
    bias: bool | None = None  # the layer has biases
    residual: bool | None = None  # the layer has a residual path
    num_parameters: Count | None = None
    # the shape was not known, and a square (or a row) was assumed
    input_shape_assumed: bool = False
    # one name for each input, such as the columns of a table; null where inputs have numbers alone
    input_names: tuple[str, ...] | None = None
    # of a table: `classification`, or `regression` where there is one output
    task: str | None = None
    standardised: bool | None = None  # mean and standard deviation of the columns are known
    input_mean: tuple[float, ...] | None = None  # null where they are not known
    input_scale: tuple[float, ...] | None = None
    rows: Count = 0  # in whose mean and deviations columns are read where the model knows none
    logarithm: bool = False  # whether its output is the logarithm of a mean in the target's unit

    @property
    def one_layer(self) -> ModelSummary:
        """The sizes of a model of one exact layer, as a certificate has them."""
        sizes = {name: getattr(self, name) for name in ModelSummary.__struct_fields__}
        lacking = [name for name, value in sizes.items() if value is None and name != "input_names"]
        require(not lacking, f"model: {', '.join(lacking)} of one exact layer is missing")
        return ModelSummary(**sizes)


class Reading(Record, frozen=True):
    """One reading of an audit; which one there is decides on rules, sections and tables."""

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse a reading that is not of this model."""


class ModelReading(Reading, frozen=True):
    """The reading of the model itself: by classes, layers or columns; an audit has one of them."""


def check_input_shape(model: ModelSummary) -> None:
    """Refuse rows and columns that are not those of an input."""
    rows, columns = model.input_shape
    require(rows * columns == model.d_input > 0, f"input_shape is {[rows, columns]}")


class Source(Record, frozen=True):
    """The origin of the weights."""

    path: str  # empty for a model that was passed from memory
    weights_sha256: str  # of the weights file; empty where there is none
    provenance: dict[str, str]  # what the file of the weights says about itself
    # the files that were read, weights first, and the SHA-256 of each; empty where there is none
    files: dict[str, str] = msgspec.field(default_factory=dict)
    # the module was in training mode and is read and run in evaluation, where a part of it may
    # compute something else
    given_in_training: bool = False
    # parts of the module with hooks that may act on other inputs than those that were compared
    hooks: tuple[str, ...] = ()


class DataNote(Record, frozen=True):
    """A change of the data, or an assumption about them, before they were measured on."""

    kind: str  # of the sentence
    values: dict[str, Value]  # what fills it


class DataOrigin(Record, frozen=True):
    """The origin of the images or rows that were used."""

    name: str  # e.g. `mnist`; empty for data from memory
    source: str  # where the data come from, one sentence
    # `data-dir`, `cache`, `download`, `table`, `arrays`, `images`, `tensors`, or `embedded`: the
    # 5,000 digits, which are not the full data set
    source_kind: str
    num_images: Count  # test inputs
    sha256: str  # of the data; empty where it was not taken
    notes: tuple[DataNote, ...] = ()  # what was done to them, or taken for granted


class TextOrigin(Record, frozen=True):
    """The origin of the text that was used."""

    name: str  # e.g. `tinystories`; empty for tokens from memory
    source: str  # where the text comes from, one sentence
    num_tokens: Count
    sha256: str  # of the text; empty where it was not taken


Part = Literal["weights", "reading", "data", "baseline", "options"]
PARTS: tuple[Part, ...] = get_args(Part)


class Identity(Record, frozen=True):
    """Hashes of all that a result depends on; it holds for another result only if all are equal.

    Each part is a SHA-256, empty for nothing: no data, no baseline. Without a hash of the weights
    it is nobody's.
    """

    weights: str  # of the files; of an adapter with its base
    reading: str = ""  # activation, roles, sizes, names of inputs and outputs, and head
    data: str = ""  # inputs and right answers as the model was given them
    baseline: str = ""  # weights and reading of the model that it was compared with
    options: str = ""  # what else the numbers depend on

    def parts_unlike(self, other: "Identity") -> tuple[Part, ...]:
        """Return the parts in which two results differ."""
        return tuple(one for one in PARTS if getattr(self, one) != getattr(other, one))


def key_of(values: Mapping[str, object]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their names."""
    ordered = {name: values[name] for name in sorted(values)}
    return hashlib.sha256(json_text(ordered).encode()).hexdigest()


class Run(Record, frozen=True):
    """Command, seed and versions that give the same result again."""

    command: str  # the command line
    seed: Integer
    versions: dict[str, str]  # package to version
    hardware: str  # processor and threads
    date: str  # year-month-day, UTC
    # what the result is of; null where that was not taken, and in an older document
    identity: Identity | None = None


class Origin(Record, frozen=True):
    """Weights, data and run of one result."""

    source: Source
    data: DataOrigin | None  # null without data
    reproduce: Run


IN_MEMORY = Source("", "", {})
UNKNOWN = Origin(IN_MEMORY, None, Run("", 0, {}, "", ""))
