"""The model that a page computes: its whole map as numbers, and inputs to try."""

from typing import Annotated, Literal

from bilens.records import Count, Document, Numbers, Record
from bilens_explorer.records.layer_spectra import Shape

Part = str  # `value`, `(missing)`, a part of a date, or a text that has an input of its own
DType = Literal["float32", "float64"]
Unfit = Literal["parts", "layers", "activation", "large"]


class Packed(Record, frozen=True):
    """An array: little-endian numbers row by row, in base64."""

    shape: Annotated[tuple[Count, ...], "of the array"]
    dtype: Annotated[DType, "of its numbers"]
    base64: Annotated[str, "the numbers, little-endian, row by row"]


class PackedMap(Record, frozen=True):
    """f(x) = down[(left x)∘(right x)] + linear x + constant; the embedding is multiplied in."""

    down: Annotated[Packed, "(out, hidden)"]
    left: Annotated[Packed, "(hidden, in)"]
    right: Annotated[Packed, "(hidden, in)"]
    linear: Annotated[Packed | None, "(out, in); null is zero"]
    constant: Annotated[Packed | None, "(out,); null is zero"]


class LeadingPairs(Record, frozen=True):
    """Eigenpairs of one form, the largest in size first, then more where a sign has few."""

    values: Annotated[Numbers, "eigenvalues"]
    vectors: Annotated[Packed, "(pairs, in)"]
    leading: Annotated[Count, "so many are the largest in size, without a gap"]
    low: Annotated[float, "no eigenvalue of the form is smaller: proven, rounding included"]
    high: Annotated[float, "none is larger: proven, rounding included"]


class TrialImage(Record, frozen=True):
    """An image to begin with."""

    origin: Annotated[Literal["audit", "data"], "of the last audit, or held-out data"]
    index: Annotated[Count, "in its data, from 0"]
    label: Annotated[Count | None, "its class; null where not known"]
    pixels: Annotated[Numbers, "row by row"]


class PlayColumn(Record, frozen=True):
    """A column of a table, and which inputs it becomes."""

    name: Annotated[str, "of the column"]
    kind: Annotated[Literal["number", "date", "category"], "what its cells hold"]
    inputs: Annotated[tuple[Count, ...], "of the model"]
    parts: Annotated[tuple[Part, ...], "what each of them says"]
    unit: Annotated[str, "of its numbers; empty where not known"]
    first: Annotated[str, "the day that days are counted from; empty for others"]
    low: Annotated[float, "of held-out rows, else mean − 3 deviations; of texts 0"]
    high: Annotated[float, "of held-out rows, else mean + 3 deviations; of texts 0"]
    whole: Annotated[bool, "whether all known values are whole numbers"]


class Playground(Document, frozen=True, kw_only=True):
    """A model that is one quadratic map, whole: a page computes its answers from this alone.

    A map of an image is given in float32, and the spectra are those of these numbers; one of a
    table in float64, as a function of z = (x − mean) / scale.
    """

    kind: Annotated[Literal["playground"], "of the document"] = "playground"
    weights_sha256: Annotated[str, "of the weights file"]
    map: Annotated[PackedMap, "from inputs to outputs"]
    output_names: Annotated[tuple[str, ...], "one for each output"]
    baseline: Annotated[Numbers, "what an absent input is, for attributions"]
    spectra: Annotated[
        tuple[LeadingPairs, ...],
        "of each class-centred output, or of the only one; none for a table",
    ] = ()
    shape: Annotated[Shape | None, "rows and columns of an image; null for a table"] = None
    tests: Annotated[tuple[TrialImage, ...], "images to begin with"] = ()
    columns: Annotated[tuple[PlayColumn, ...], "empty for an image"] = ()
    means_known: Annotated[bool, "whether the model says them; else `input_mean` is 0"] = True
    input_mean: Annotated[Numbers, "of each input; empty for an image"] = ()
    input_scale: Annotated[Numbers, "standard deviation of each input; empty for an image"] = ()
    rows: Annotated[Packed | None, "(rows, in), that were held out; null for none"] = None
    row_numbers: Annotated[tuple[Count, ...], "as a spreadsheet shows them"] = ()
    empty: Annotated[tuple[tuple[Count, ...], ...], "of each row, its empty columns"] = ()


class NoPlayground(Document, frozen=True, kw_only=True):
    """Why a model cannot be computed by a page."""

    kind: Annotated[Literal["no_playground"], "of the document"] = "no_playground"
    why: Annotated[Unfit, "other parts, several layers, an activation or too many numbers"]
    layers: Annotated[Count, "how many it has"]
    numbers: Annotated[Count, "numbers that the page would have to take"]
    most: Annotated[Count, "numbers that a page takes at most"]


class PairSpectrum(Document, frozen=True, kw_only=True):
    """Leading eigenpairs of one output minus another."""

    kind: Annotated[Literal["pair_spectrum"], "of the document"] = "pair_spectrum"
    first: Annotated[Count, "the output"]
    second: Annotated[Count, "the output that is taken from it"]
    pairs: Annotated[LeadingPairs, "of the difference"]


class Radius(Document, frozen=True, kw_only=True):
    """How far one input can move before the answer changes, and the nearest that was found."""

    kind: Annotated[Literal["radius"], "of the document"] = "radius"
    weights_sha256: Annotated[str, "of the weights file"]
    label: Annotated[Count, "the answer"]
    logits: Annotated[Numbers, "of the input"]
    status: Annotated[str, "`certified`: proven; or another `RadiusStatus`, in small letters"]
    radius: Annotated[float | None, "no nearer input has another answer; null for none"]
    distance: Annotated[float | None, "of the example; null where there is none"]
    rival: Annotated[Count | None, "answer of the example; null where there is none"]
    margin: Annotated[float | None, "logit of the answer, less the largest of the others"]
    example: Annotated[Numbers, "just beyond the border; empty where there is none"]
    inside: Annotated[float | None, "margin of the example with its pixels clipped to 0 to 1"]
