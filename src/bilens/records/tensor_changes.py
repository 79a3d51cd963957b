"""Records of the differences between the tensors and files of a model and of its baseline."""

from __future__ import annotations

from typing import Annotated

from bilens.records.base import Count, Record
from bilens.records.view import View


class TensorChange(Record, frozen=True):
    """The difference ΔW of one tensor, as it is stored, from the baseline's."""

    name: Annotated[str, "in the model"]
    kind: Annotated[str, "`q`, `down`, `norm`, …; `other` where the name does not say it"]
    layer: Annotated[Count | None, "its number; null for none"]
    dtype: Annotated[str, "as it is stored"]
    baseline_dtype: Annotated[str, "as it is stored in the baseline"]
    state: Annotated[
        str,
        "`rounding`, `quantised` (each number to the nearest one), `codes` (but for some blocks), "
        "`folded` (with a normalisation that the other file has), `low_rank` (≤ full / 2), "
        "`rescaled`, `reordered` (the same numbers), `moved` (those of a tensor of another name), "
        "`permuted` (rows or columns, and changed), `noise`, `changed`, `not_finite`",
    ]
    change: Annotated[float | None, View("‖ΔW‖ / ‖W‖; null if not finite", "quantity")] = None
    rank: Annotated[Count | None, "singular values above those of rounding; null for many"] = None
    full: Annotated[Count, "rank that the sizes allow; 0 where no matrix"] = 0
    top_share: Annotated[float, View("σ₁² / ‖ΔW‖²", "percent")] = 0.0
    baseline_name: Annotated[str, "in the baseline; of a part with its rows"] = ""
    entries: Annotated[Count, "numbers in it"] = 0
    size: Annotated[float | None, "‖W‖ in the baseline"] = None
    correlation: Annotated[float | None, "of its numbers with the baseline’s"] = None
    rounded_to: Annotated[str, "type that each number of the baseline is rounded to, or none"] = ""
    baseline_rounded_to: Annotated[str, "type in which the baseline has the model’s numbers"] = ""
    blocks_off: Annotated[Count, "of codes, that are further away than rounding goes"] = 0
    places: Annotated[tuple[str, ...], "the first of them, by row and columns"] = ()
    norm: Annotated[str, "the normalisation that is part of it, in the other file"] = ""
    residual: Annotated[
        float | None, View("‖W − W of the norm multiplied out‖ / ‖W‖", "quantity")
    ] = None
    epsilon: Annotated[float | None, "that the norm adds to variances"] = None
    assumed: Annotated[
        bool, "whether no file says that one: a usual one, which the weights allow"
    ] = False


class CountChange(Record, frozen=True):
    """Operations of one kind, or an input or output, that are more or fewer than before."""

    name: Annotated[str, "as the format calls them"]
    before: Annotated[Count, "in the baseline"]
    after: Annotated[Count, "in the model"]

    def __str__(self) -> str:
        return f"{self.name} {self.before} → {self.after}"


class SettingChange(Record, frozen=True):
    """A place of a program, such as a setting of an operation, at which the baseline’s differs."""

    operation: Annotated[str, "its kind and name in the model, or another part of the file"]
    setting: Annotated[str, "as the format calls it; `inputs` for what it reads"]
    before: Annotated[str, "in the baseline"]
    after: Annotated[str, "in the model"]

    def __str__(self) -> str:
        values = f" {self.before or '–'} → {self.after or '–'}" if self.before or self.after else ""
        return ": ".join(filter(None, (self.operation, self.setting))) + values


class GraphChange(Record, frozen=True):
    """The differences of the operations of two files, and of their settings."""

    operations: Annotated[
        tuple[CountChange, ...] | None,
        "with inputs and outputs, of which there are more or fewer; null where not compared",
    ] = None
    settings: Annotated[
        tuple[SettingChange, ...] | None,
        "the first places at which the programs differ; null where these were not compared",
    ] = None

    @property
    def is_other(self) -> bool:
        """Whether anything that was compared is not the same."""
        return bool(self.operations or self.settings)


class DifferenceHeadline(Record, frozen=True):
    """The change of the weights, in one word with its numbers."""

    kind: Annotated[
        str,
        "`identical` bit for bit, `same_tensors` in another file, `same_numbers` in another type, "
        "`rounded`, `baseline_rounded`, `rounding` (no more than it), `quantised`, `folded` "
        "(normalisations are part of other weights, or no longer), `reordered`, "
        "`differ`, `unrelated` or `not_compared`",
    ]
    tensors: Annotated[Count, "that were compared"]
    differing: Annotated[Count, "of them by more than rounding and codes"] = 0
    alone: Annotated[Count, "in one of both alone, counters left out"] = 0
    ways: Annotated[
        tuple[str, ...],
        "others in: `names`, `axes`, `parts`, `order`, `format`, `header`, `files`, `unseen`",
    ] = ()
    ranks: Annotated[tuple[Count, Count] | None, "least and largest, if all are low"] = None
    layers: Annotated[tuple[Count, ...], "in which tensors differ"] = ()
    kinds: Annotated[tuple[str, ...], "of those that differ outside of layers"] = ()
    types: Annotated[tuple[str, ...], "in which tensors that changed are stored"] = ()
    baseline_types: Annotated[tuple[str, ...], "in the baseline"] = ()
    error: Annotated[float | None, View("‖ΔW‖ / ‖W‖ of all that changed", "quantity")] = None
    correlation: Annotated[float | None, "mean one of matrices that differ"] = None
    chance: Annotated[float | None, "three deviations of the mean of independent ones"] = None
    names: Annotated[tuple[str, ...], "of those that differ, where they are three or fewer"] = ()
    unread: Annotated[
        tuple[Count, Count], "of model and baseline, not compared: one of a pair was not read"
    ] = (0, 0)
    graph: Annotated[GraphChange | None, "null where no operations were compared"] = None
    other_shape: Annotated[Count, "in both, and of another shape"] = 0
    unplaced: Annotated[Count | None, "at places not compared; null: of an older version"] = None

    @property
    def no_copy(self) -> bool:
        """Whether tensors that differ are stored in another type, as if they were rounded."""
        return self.kind == "differ" and self.types != self.baseline_types


class TokenScore(Record, frozen=True):
    """A token along a direction."""

    token: Annotated[str, "as text"]
    score: Annotated[float, "standard deviations above the mean of all tokens"]


class UpdateDirection(Record, frozen=True):
    """The leading singular direction of ΔW at the residual stream, as tokens."""

    name: Annotated[str, "of the tensor"]
    kind: Annotated[str, "`o`, `down`, `q`, …"]
    layer: Annotated[Count | None, "its number; null for none"]
    side: Annotated[str, "`writes`: read by the unembedding; `reads`: beside the embeddings"]
    share: Annotated[float, View("σ₁² / ‖ΔW‖²", "percent")]
    tokens: Annotated[tuple[TokenScore, ...], "the largest scores"]


class FileChange(Record, frozen=True):
    """A file beside the weights that were compared: configuration, tokenizer, code, or others."""

    name: Annotated[str, "of the file"]
    state: Annotated[str, "`same`, `changed`, `model` or `baseline`: in that one alone"]
    keys: Annotated[tuple[str, ...], "of a JSON object, with another value"] = ()
    weights: Annotated[bool, "whether it is of weights, whose tensors were not compared"] = False


class WholeDifference(Record, frozen=True):
    """The difference of all tensors, and of the files beside them, from the baseline's."""

    tensors: Annotated[Count, "that both have in the same shape"]
    changed: Annotated[tuple[TensorChange, ...], "those that are not the same, bit for bit"]
    model_alone: Annotated[tuple[str, ...], "tensors without a counterpart"] = ()
    baseline_alone: Annotated[tuple[str, ...], "tensors of the baseline without a counterpart"] = ()
    other_shape: Annotated[tuple[str, ...], "in both, and not compared"] = ()
    files: Annotated[tuple[FileChange, ...] | None, "null: a file, and no weights beside"] = None
    directions: Annotated[tuple[UpdateDirection, ...], "of a language model, by falling score"] = ()
    not_compared: Annotated[
        tuple[str, ...], "files of one of both, such as texts about it, or parts, as an optimizer"
    ] = ()
    headline: Annotated[DifferenceHeadline | None, "null in a document of an older version"] = None
    unseen: Annotated[tuple[str, ...], "folders of one of both that may be part of it"] = ()

    @property
    def identical(self) -> bool:
        """Whether every tensor and file was compared, and is the same, bit for bit."""
        same = self.files is not None and all(file.state == "same" for file in self.files)
        other = self.changed, self.model_alone, self.baseline_alone, self.other_shape
        return same and not any(other)

    @property
    def other_weights(self) -> tuple[str, ...]:
        """The files of weights that are others, and whose tensors were not compared."""
        return tuple(one.name for one in self.files or () if one.weights and one.state != "same")
