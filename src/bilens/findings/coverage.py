"""The share of a model's parameters that its readable layers contain."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import prod

from torch import nn

from bilens.base.errors import BilensError
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import fold_names, holds_weights
from bilens.nn.agreement import Agreement
from bilens.nn.layer_view import LayerView
from bilens.records.decision import Coverage, CoverageGroup


def measure_coverage(
    tensors: Store,
    layers: Iterable[LayerView],
    ended: Mapping[str, str],
    layout: str,
    check: Agreement | None,
    connected: bool,
) -> Coverage:
    """Return how many parameters were read; `ended` says of each layer its `how_read`."""
    sizes = {name: prod(one.shape) for name, one in tensors.items() if is_parameter(name, one)}
    read: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer in layers:
        for name, count in layer.tensors.items():
            read[name][ended[layer.name]] += count

    def counted(members: Iterable[str], *ends: str) -> int:  # one that layers share is read once
        return sum(min(sum(read[one][end] for end in ends), sizes[one]) for one in members)

    groups = []
    for name, members in fold_names(sizes).items():
        total = sum(sizes[member] for member in members)
        exact, both = counted(members, "exact"), counted(members, "exact", "approximate")
        whys = {why: counted(members, why) for why in ("broken", "refused", "assumed")}
        whys["unread"] = total - both - sum(whys.values())  # that of most parameters is told
        reason = "" if both == total else max(whys, key=lambda why: whys[why])
        groups.append(CoverageGroup(name, len(members), total, exact, both - exact, reason))
    groups.sort(key=lambda one: one.exact + one.approximate - one.parameters)
    parameters = sum(sizes.values())
    exact, approximate = (
        sum(getattr(one, kind) for one in groups) for kind in ("exact", "approximate")
    )
    return Coverage(
        parameters,
        exact,
        approximate,
        parameters - exact - approximate,
        tuple(groups),
        layout,
        "" if check is None else check.source,
        None if check is None else check.relative_error,
        connected,
    )


def find_not_finite(tensors: Store, layers: Iterable[LayerView]) -> tuple[int, tuple[str, ...]]:
    """Count the tensors that are not all in layers that are read; name those with NaN or infinity.

    Tensors whose numbers cannot be read are not counted. Cost: each is read once, one at a time.
    """
    read = Counter[str]()
    for layer in layers:
        read.update(layer.tensors)
    looked, broken = 0, list[str]()
    for name, one in tensors.items():
        # masks and single numbers of a graph may be infinite; codes cannot
        plain = is_parameter(name, one) and one.dtype.is_floating_point
        if plain and read[name] < prod(one.shape):
            with suppress(BilensError):
                finite = bool(one.fetch(one.block).float().isfinite().all())  # of 8 bits, too
                looked += 1
                broken += [] if finite else [name]
    return looked, tuple(broken)


def find_nan_buffers(module: nn.Module) -> list[str]:
    """Name the buffers with NaN that no file of the module holds; infinity may stand in masks."""
    saved = module.state_dict().keys()
    return [
        name
        for name, one in module.named_buffers()
        if name not in saved and not one.is_meta and bool(one.isnan().any())
    ]


def is_parameter(name: str, tensor: StoredTensor) -> bool:
    """Tell whether a tensor holds weights, or their codes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return tensor.is_weight and holds_weights(name, len(tensor.shape), dtype)
