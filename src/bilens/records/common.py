"""Parts that documents share: verdict, model, identity, and where all of it comes from."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec

from bilens.records.base import Count, Integer, Record, json_text, require

Outcome = Literal["pass", "warn", "fail", "info"]
Value = Integer | float | str


class Finding(Record, frozen=True):
    """One sentence of the verdict: a rule, how it ended, and the numbers that fill the sentence."""

    rule: Annotated[str, "its name, as `--fail-on` takes it"]
    outcome: Annotated[str, "`pass`, `warn`, `fail` or `info`"]
    values: Annotated[dict[str, Value], "the numbers that fill the sentence"]


class JudgedCondition(Record, frozen=True):
    """A condition that was asked for, and its end; it also fails if its rule judged nothing."""

    condition: Annotated[str, "as it was asked for"]
    rule: Annotated[str, "the rule that it names"]
    value: Annotated[float | None, "what was compared; null where there was nothing to judge"]
    failed: Annotated[bool, "it holds, or could not be judged"]
    ground: Annotated[
        str, "`assumed`: it rests on an input nobody gave; `units`: on deviations of 1; or empty"
    ] = ""


class NullInterval(Record, frozen=True):
    """A quantity under the null distribution: what chance would give."""

    median: Annotated[float, "over all draws"]
    low: Annotated[float, "of an interval that holds at least 95%"]
    high: Annotated[float, "the upper end of the same interval"]


class FileInterval(Record, frozen=True):
    """How sure R² is where it is of rows from files that nothing was fitted to."""

    files: Annotated[Count, "that are held out"]
    low: Annotated[float | None, "of a 95% interval over files with inputs no larger; null for one"]
    high: Annotated[float | None, "of the interval"]


class Interval(Record, frozen=True):
    """A number with its 95% interval."""

    value: Annotated[float, "as measured"]
    low: Annotated[float, "lower end of the interval"]
    high: Annotated[float, "upper end of the interval"]


class Share(Record, frozen=True):
    """Right answers of a data set, with the exact 95% interval of Clopper and Pearson."""

    right: Annotated[Count, "inputs with the right answer"]
    total: Annotated[Count, "inputs"]
    value: Annotated[float, "`right` / `total`"]
    low: Annotated[float, "lower end of the interval"]
    high: Annotated[float, "upper end of the interval"]
    plain: Annotated[float | None, "share of the most frequent class; null if older"] = None


class Exactness(Record, frozen=True):
    """The errors of the reading xᵀQx + b·x + c against the model's own forward pass."""

    precision: Annotated[str, "`float32` or `float64`"]
    largest_error: Annotated[float, "largest |forward − (xᵀQx + b·x + c)| of all inputs, in logits"]
    relative_error: Annotated[float, "`largest_error` divided by the largest |logit|"]
    tolerance: Annotated[float, "of `relative_error`"]
    num_inputs: Annotated[Count, "standard normal inputs"]
    passed: Annotated[bool, "`relative_error` is within `tolerance`"]


class ModelSummary(Record, frozen=True):
    """The classifier that was read: its class, sizes and dtype."""

    kind: Annotated[str, "class of the model"]
    d_input: Annotated[Count, "numbers in an input"]
    d_hidden: Annotated[Count, "hidden units"]
    d_output: Annotated[Count, "classes"]
    bias: Annotated[bool, "the layer has biases"]
    residual: Annotated[bool, "the layer has a residual path"]
    num_parameters: Annotated[Count, "numbers in all weights and biases"]
    dtype: Annotated[str, "of the weights as stored, e.g. `float32`"]
    input_shape: Annotated[tuple[Count, Count], "rows and columns; one row for no image"]
    input_shape_assumed: Annotated[bool, "the shape was not known, but assumed"]
    output_names: Annotated[tuple[str, ...], "one name for each class"]
    input_names: Annotated[tuple[str, ...] | None, "one for each input; null without"] = None


class LayeredModel(Record, frozen=True):
    """A model that is read layer by layer."""

    kind: Annotated[str, "class or format"]
    num_layers: Annotated[Count, "layers that can be read"]
    dtype: Annotated[str, "of the weights as stored; of several that of most numbers first"]
    input_shape: Annotated[
        tuple[Count, Count] | None, "rows, columns; one row for no image; null if not known"
    ] = None
    output_names: Annotated[tuple[str, ...], "one name for each output, where known"] = ()


class ModelFacts(LayeredModel, frozen=True):
    """The model that was audited: its sizes where it is one exact layer, and its columns."""

    d_input: Annotated[Count | None, "numbers in an input; null, like all below, of others"] = None
    d_hidden: Annotated[Count | None, "hidden units"] = None
    d_output: Annotated[Count | None, "classes"] = None
    bias: Annotated[bool | None, "the layer has biases"] = None
    residual: Annotated[bool | None, "the layer has a residual path"] = None
    num_parameters: Annotated[Count | None, "numbers in all weights and biases"] = None
    input_shape_assumed: Annotated[bool, "the shape was a guess: a square or a row"] = False
    input_names: Annotated[tuple[str, ...] | None, "one for each input; null without"] = None
    task: Annotated[str | None, "of a table: `classification`, or `regression`: one output"] = None
    standardised: Annotated[bool | None, "mean and deviation of the columns are known"] = None
    input_mean: Annotated[tuple[float, ...] | None, "null where they are not known"] = None
    input_scale: Annotated[tuple[float, ...] | None, "deviations; null likewise"] = None
    rows: Annotated[Count, "in whose deviations columns are read if the model knows none"] = 0
    logarithm: Annotated[bool, "whether it gives the logarithm of a mean"] = False

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

    path: Annotated[str, "empty for a model that was passed from memory"]
    weights_sha256: Annotated[str, "of the weights file; empty where there is none"]
    provenance: Annotated[dict[str, str], "what the file of the weights says about itself"]
    files: Annotated[
        dict[str, str],
        "the files that were read, weights first, and the SHA-256 of each; empty where there is "
        "none",
    ] = msgspec.field(default_factory=dict)
    given_in_training: Annotated[bool, "it trained when given, and is read in evaluation"] = False
    hooks: Annotated[tuple[str, ...], "parts with hooks that may act on other inputs"] = ()


class DataNote(Record, frozen=True):
    """A change of the data, or an assumption about them, before they were measured on."""

    kind: Annotated[str, "of the sentence"]
    values: Annotated[dict[str, Value], "what fills it"]


class DataOrigin(Record, frozen=True):
    """The origin of the images or rows that were used."""

    name: Annotated[str, "e.g. `mnist`; empty for data from memory"]
    source: Annotated[str, "where the data come from, one sentence"]
    source_kind: Annotated[
        str,
        "`data-dir`, `cache`, `download`, `table`, `arrays`, `images`, `tensors`, or `embedded`: "
        "the 5,000 digits, which are not the full data set",
    ]
    num_images: Annotated[Count, "test inputs"]
    sha256: Annotated[str, "of the data; empty where it was not taken"]
    notes: Annotated[tuple[DataNote, ...], "what was done to them, or taken for granted"] = ()


class TextOrigin(Record, frozen=True):
    """The origin of the text that was used."""

    name: Annotated[str, "e.g. `tinystories`; empty for tokens from memory"]
    source: Annotated[str, "where the text comes from, one sentence"]
    num_tokens: Annotated[Count, "tokens that were read"]
    sha256: Annotated[str, "of the text; empty where it was not taken"]


Part = Literal["weights", "reading", "data", "baseline", "options"]
PARTS: tuple[Part, ...] = get_args(Part)


class Identity(Record, frozen=True):
    """Hashes of all that a result depends on; it holds for another result only if all are equal.

    Each part is a SHA-256, empty for nothing: no data, no baseline. Without a hash of the weights
    it is nobody's.
    """

    weights: Annotated[str, "of the files; of an adapter with its base"]
    reading: Annotated[str, "activation, roles, sizes, names of inputs and outputs, and head"] = ""
    data: Annotated[str, "inputs and right answers as the model was given them"] = ""
    baseline: Annotated[str, "weights and reading of the model that it was compared with"] = ""
    options: Annotated[str, "what else the numbers depend on"] = ""

    def parts_unlike(self, other: "Identity") -> tuple[Part, ...]:
        """Return the parts in which two results differ."""
        return tuple(one for one in PARTS if getattr(self, one) != getattr(other, one))

    def holds_for(self, now: "Identity | None") -> bool:
        """Tell whether what was said of this result holds for another one, `now`.

        A model beside an unchanged copy of itself is the same result as one without a baseline.
        """
        if now is None:
            return False
        alone = (one.baseline in ("", one.reading) for one in (self, now))
        return self == (msgspec.structs.replace(now, baseline=self.baseline) if all(alone) else now)


def key_of(values: Mapping[str, object]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their names."""
    ordered = {name: values[name] for name in sorted(values)}
    return hashlib.sha256(json_text(ordered).encode()).hexdigest()


class Run(Record, frozen=True):
    """Command, seed and versions that give the same result again."""

    command: Annotated[str, "the command line"]
    seed: Annotated[Integer, "of everything that is drawn at random"]
    versions: Annotated[dict[str, str], "package to version"]
    hardware: Annotated[str, "processor and threads"]
    date: Annotated[str, "year-month-day, UTC"]
    identity: Annotated[Identity | None, "what the result is of; null if older"] = None


class Origin(Record, frozen=True):
    """Weights, data and run of one result."""

    source: Annotated[Source, "where the weights come from"]
    data: Annotated[DataOrigin | None, "null without data"]
    reproduce: Annotated[Run, "what it takes to run the same again"]


IN_MEMORY = Source("", "", {})
UNKNOWN = Origin(IN_MEMORY, None, Run("", 0, {}, "", ""))
