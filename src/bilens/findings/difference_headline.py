"""The headline of a difference: its kind and numbers, a pure function of matches and changes."""

import math
import re
from collections.abc import Iterator, Sequence

from bilens.findings.tensor_likeness import HALF, Matching, TensorPair, are_scaled, is_beyond_chance
from bilens.findings.tensor_parts import norms_in
from bilens.io.stored_mlp import StoredTensor
from bilens.io.tensor_names import holds_weights
from bilens.records.tensor_changes import (
    DifferenceHeadline,
    GraphChange,
    TensorChange,
    WholeDifference,
)

DEVIATIONS = 3  # of the mean correlation of independent tensors
NAMED = ("name", "content", "transposed")  # ways in which both are whole tensors
STORED = ("rounding", "quantised", "folded")  # states of the same weights, stored otherwise
PLACES = ("moved", "reordered")
FEW = 3  # tensors that are named
COUNTER = re.compile(r"num_batches_tracked$|(^|[/.])iterations?(:0)?$")  # of steps of a training


def headline_of(
    whole: WholeDifference,
    found: Matching,
    *,
    same_file: bool = False,
    graph: GraphChange | None = None,
) -> DifferenceHeadline:
    """Return the headline of a difference; `same_file` says that the SHA-256 is the same."""
    changed = whole.changed
    # by more than the type, or codes, that a tensor is stored in
    differing = [one for one in changed if one.state not in STORED]
    matrices = [one for one in differing if one.full and one.correlation is not None]
    entries = sum(one.entries for one in matrices)
    sizes = [(one.size, one.size * (one.change or 0.0)) for one in changed if one.size]
    ranks = [one.rank for one in differing if one.state == "low_rank" and one.rank is not None]
    ways = tuple(stored_otherwise(found))
    alone = [
        one
        for one in (*found.model.values(), *map(found.baseline.get, whole.baseline_alone))
        if one is not None and one.name not in whole.other_shape
        if not COUNTER.search(one.name) and is_told(one, same_format="format" not in ways)
    ]
    more = bool(alone or whole.other_shape)
    if not ways and same_file:
        ways = ("files",) if other_files(whole) else ("unseen",) if whole.unseen else ()
    elif not ways:
        ways = ("unseen" if whole.unseen and whole.identical and graph is None else "header",)
    known = same_file or graph == GraphChange((), ())
    return DifferenceHeadline(
        kind_of_difference(whole, found, differing, same_file, more, graph is not None),
        len(found.pairs),
        len(differing),
        len(alone),
        ways,
        (min(ranks), max(ranks)) if ranks and len(ranks) == len(differing) else None,
        tuple(sorted({one.layer for one in differing if one.layer is not None})),
        tuple(dict.fromkeys(one.kind for one in differing if one.layer is None)),
        tuple(dict.fromkeys(one.dtype for one in changed)),
        tuple(dict.fromkeys(one.baseline_dtype for one in changed)),
        math.hypot(*(b for _, b in sizes)) / math.hypot(*(a for a, _ in sizes)) if sizes else None,
        sum(one.entries * (one.correlation or 0.0) for one in matrices) / entries
        if entries
        else None,
        DEVIATIONS / math.sqrt(entries) if entries else None,
        tuple(one.name for one in differing) if len(differing) <= FEW else (),
        (len(found.unread[0]), len(found.unread[1])),
        graph,
        len(whole.other_shape),
        0 if known else sum(not (pair.placed or pair.moved) for pair in found.pairs),
    )


def kind_of_difference(
    whole: WholeDifference,
    found: Matching,
    differing: Sequence[TensorChange],
    same_file: bool,
    alone: bool,  # whether one of both holds more tensors
    graphs: bool,  # whether both are graphs, of which tensors do not say all
) -> str:
    changed, beside = whole.changed, other_files(whole) or whole.unseen
    # equal tensors that may well be of unrelated models
    nothing_told = all(one.constant or math.prod(one.model.shape) < 2 for one in found.pairs)
    if any(found.unread) or not (found.pairs or found.model or found.baseline):
        if same_file:
            return "same_tensors" if beside else "identical"
        if not differing or nothing_told:
            return "not_compared"
    if (alone or differing) and nothing_told:
        return "unrelated"
    if not changed and not alone:
        same = same_file or (whole.identical and not graphs)
        plain = same and not [*stored_otherwise(found)]
        return "identical" if plain and not beside else "same_tensors"
    if differing:
        if is_unrelated(found, differing):
            return "unrelated"
        moved = not alone and all(one.state in PLACES for one in differing)
        return "reordered" if moved else "differ"
    if alone:
        return "differ"
    if "folded" in [one.state for one in changed]:
        return "folded"
    if all(one.change == 0 for one in changed):
        return "same_numbers"
    if all(one.rounded_to or one.change == 0 for one in changed):
        return "rounded"
    if all(one.baseline_rounded_to or one.change == 0 for one in changed):
        return "baseline_rounded"
    return "quantised" if "quantised" in [one.state for one in changed] else "rounding"


def is_told(tensor: StoredTensor, *, same_format: bool) -> bool:
    """Tell whether a tensor that one file has alone says that weights are others.

    A graph has numbers and places that a file of weights alone never has.
    """
    is_array, is_float = math.prod(tensor.shape) > 1, tensor.dtype.is_floating_point
    return same_format or (is_array and is_float) or (tensor.is_weight and (is_array or is_float))


def other_files(whole: WholeDifference) -> bool:
    """Tell whether a file beside the weights, such as the configuration, is another one."""
    return any(file.state != "same" for file in whole.files or ())


def is_unrelated(found: Matching, differing: Sequence[TensorChange]) -> bool:
    """Tell whether no matrix is more like its counterpart than chance makes independent ones.

    Numbers of which a correlation of a half would be nothing beyond chance do not tell.
    """
    tensors = [pair.model for pair in found.pairs if not is_uninformative(pair)]
    count = {one.name: math.prod(one.shape) for one in tensors if is_weight(one)}
    matrices = [x for x in differing if x.full and x.name in count and x.state != "not_finite"]
    kept = count.keys() - {one.name for one in differing}
    if any(is_beyond_chance(1.0, count[name]) for name in kept):
        return False
    if not is_beyond_chance(HALF, sum(one.entries for one in matrices)):
        return False
    if [*norms_in(found.model), *norms_in(found.baseline)]:  # may be in weights of the other file
        names = {one.name for one in matrices}
        if any(are_scaled(one) for one in found.pairs if one.model.name in names):
            return False
    return not any(
        one.state in (*PLACES, "permuted", "low_rank")
        or one.correlation is None
        or is_beyond_chance(one.correlation, one.entries, least=-1.0)
        for one in matrices
    )


def is_uninformative(pair: TensorPair) -> bool:
    """Tell whether equal tensors may well be of unrelated models."""
    known = pair.constant or (pair.same and not is_weight(pair.model))
    return known or math.prod(pair.model.shape) < 2


def is_weight(tensor: StoredTensor) -> bool:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return holds_weights(tensor.name, len(tensor.shape), dtype)


def stored_otherwise(found: Matching) -> Iterator[str]:
    """Yield the ways in which two files store the same tensors otherwise."""
    pairs = found.pairs
    if any(pair.model.name != pair.baseline.name and pair.how in NAMED for pair in pairs):
        yield "names"
    if any(pair.how == "transposed" for pair in pairs):
        yield "axes"
    if any(pair.how in ("part", "tied") for pair in pairs):
        yield "parts"
    if found.reordered:
        yield "order"
    if len({one.path.suffix for pair in pairs for one in (pair.model, pair.baseline)}) > 1:
        yield "format"
