"""The model that a page computes: its whole map as numbers, and inputs to try."""

from typing import Literal

from bilens.records import Count, Document, Numbers, Record

Part = str  # `value`, `(missing)`, a part of a date, or a text that has an input of its own
DType = Literal["float32", "float64"]
Unfit = Literal["parts", "layers", "activation", "large"]


class Packed(Record, frozen=True):
    """An array: little-endian numbers row by row, in base64."""

    shape: tuple[Count, ...]
    dtype: DType
    base64: str


class PackedMap(Record, frozen=True):
    """f(x) = down[(left x)∘(right x)] + linear x + constant; the embedding is multiplied in."""

    down: Packed  # (out, hidden)
    left: Packed  # (hidden, in)
    right: Packed  # (hidden, in)
    linear: Packed | None  # (out, in); null is zero
    constant: Packed | None  # (out,); null is zero


class LeadingPairs(Record, frozen=True):
    """Eigenpairs of one form, the largest in size first, then more where a sign has few."""

    values: Numbers
    vectors: Packed  # (pairs, in)
    leading: Count  # so many are the largest in size, without a gap
    low: float  # no eigenvalue of the form is smaller: proven, rounding included
    high: float  # none is larger


class TrialImage(Record, frozen=True):
    """An image to begin with."""

    origin: Literal["audit", "data"]  # explained in the last audit, or held out of the data set
    index: Count
    label: Count | None
    pixels: Numbers


class PlayColumn(Record, frozen=True):
    """A column of a table, and which inputs it becomes."""

    name: str
    kind: Literal["number", "date", "category"]
    inputs: tuple[Count, ...]  # of the model
    parts: tuple[Part, ...]  # what each of them says
    unit: str
    first: str  # the day that days are counted from; empty for others
    low: float  # of numbers, and of days; 0 for texts
    high: float  # of the held-out rows, else three deviations from the mean
    whole: bool  # whether all known values are whole numbers


class Playground(Document, frozen=True, kw_only=True):
    """A model that is one quadratic map, whole: a page computes its answers from this alone.

    A map of an image is given in float32, and the spectra are those of these numbers; one of a
    table in float64, as a function of z = (x − mean) / scale.
    """

    kind: Literal["playground"] = "playground"
    weights_sha256: str
    map: PackedMap
    output_names: tuple[str, ...]
    baseline: Numbers  # what an absent input is, for attributions
    # of each class-centred output, or of the one there is; empty for a table
    spectra: tuple[LeadingPairs, ...] = ()
    shape: tuple[Count, Count] | None = None  # rows and columns of an image; null for a table
    tests: tuple[TrialImage, ...] = ()
    columns: tuple[PlayColumn, ...] = ()  # empty for an image
    means_known: bool = True  # the model says the mean of each input; else `input_mean` is 0
    input_mean: Numbers = ()
    input_scale: Numbers = ()
    rows: Packed | None = None  # (rows, in), that were held out; null where they are not there
    row_numbers: tuple[Count, ...] = ()  # as a spreadsheet shows them
    empty: tuple[tuple[Count, ...], ...] = ()  # of each row, the columns whose cell is empty


class NoPlayground(Document, frozen=True, kw_only=True):
    """Why a model cannot be computed by a page."""

    kind: Literal["no_playground"] = "no_playground"
    why: Unfit  # layers are not all of it; several layers; an activation; too many numbers
    layers: Count
    numbers: Count  # that it takes
    most: Count


class PairSpectrum(Document, frozen=True, kw_only=True):
    """Leading eigenpairs of one output minus another."""

    kind: Literal["pair_spectrum"] = "pair_spectrum"
    first: Count
    second: Count
    pairs: LeadingPairs


class Radius(Document, frozen=True, kw_only=True):
    """How far one input can move before the answer changes, and the nearest that was found."""

    kind: Literal["radius"] = "radius"
    weights_sha256: str
    label: Count  # the answer
    logits: Numbers
    # `certified`: proven; `misclassified`, `tied`, `unreachable`, `no_example`, `not_finite`
    status: str
    radius: float | None  # no nearer input is given another answer; null where there is none
    distance: float | None  # of the example
    rival: Count | None
    margin: float | None
    example: Numbers  # just beyond the border; empty where there is none
    inside: float | None  # margin of the example with its pixels clipped to 0 to 1
