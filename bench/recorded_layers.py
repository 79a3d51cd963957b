"""What layers of real ONNX files see, recorded by onnxruntime, beside what an audit says of them.

The input of a layer is the input of the node that holds its first matrix, cut into patches where
that is a convolution. A sentence is false where the recorded inputs contradict it: units that are
told never to be active fire, pairs that are told to compute the same do not, or R² is told to pass
for what the layer sees and does not.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bilens as bl
from bench.real_inputs import FEEDS, Array, Feeds
from bilens.algebra.approximation.r_squared import r_squared_on

ROWS = 1_000  # of each layer and feed that are kept
LAYERS = 8  # of a file, evenly among all
CLOSE = 0.999  # correlation from which two units compute the same


@dataclass
class Recorded:
    """A layer as it was told, and on what it sees."""

    file: str
    layer: str
    rows: int
    deviation: float  # of the numbers that it sees
    told_never_active: int
    silent: int  # units that gave 0 on every row
    told_dead: int
    idle: int  # units that add less than 1e-3 of the median one
    told_duplicates: int
    same: int  # pairs of units whose sums correlate
    told_r2: float | None
    told_passes: bool  # whether that R² was given as one of what the layer sees
    r2: float | None  # of the map under N(0, I), on what it sees
    fit_r2: float | None  # told of a fit to half the rows, on rows held out from the fit
    fit_error: float | None
    fresh_r2: float | None  # of that map, on the other half
    fresh_error: float | None  # of that
    fit_rows: int

    @property
    def false(self) -> list[str]:
        """The sentences that what was recorded contradicts."""
        found = []
        if self.told_never_active > self.silent:
            found.append("never active")
        if self.told_dead > self.idle:
            found.append("dead")
        if self.told_duplicates > self.same:
            found.append("duplicates")
        if self.told_passes and self.r2 is not None and self.told_r2 is not None:
            found += ["R²"] if self.r2 < self.told_r2 - 0.1 else []
        return found

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "false": self.false}


# ---- recording


def rows_seen(seen: Array, node: Any, rng: np.random.Generator) -> Array:
    """Some rows of what a node sees: vectors, or the patches of a convolution."""
    if node.op_type != "Conv":
        rows = seen.reshape(-1, seen.shape[-1])
        return rows[rng.permutation(len(rows))[:ROWS]]
    told = {one.name: list(one.ints) or one.i for one in node.attribute}
    size, dims = told["kernel_shape"], seen.ndim - 2
    pads = told.get("pads") or [0] * 2 * dims
    around = [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(seen, around), size, axis=tuple(range(2, seen.ndim))
    )
    steps = tuple(slice(None, None, step) for step in told.get("strides") or [1] * dims)
    windows = np.moveaxis(windows[(slice(None), slice(None), *steps)], 1, 1 + dims)
    places = windows.shape[: 1 + dims]
    kept = rng.permutation(int(np.prod(places)))[:ROWS]
    return windows[np.unravel_index(kept, places)].reshape(len(kept), -1)


def first_nodes(model: Any, layers: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """The node of each layer that reads the first of its tensors."""
    found: dict[str, Any] = {}
    for layer, tensors in layers.items():
        for node in model.graph.node:
            if node.op_type in ("Conv", "MatMul", "Gemm") and set(node.input[1:2]) & set(tensors):
                found.setdefault(layer, node)
    return found


def record(path: Path, layers: dict[str, tuple[str, ...]], feeds: Feeds) -> dict[str, Tensor]:
    """What layers see on some feeds; a layer in an inner graph is left out."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    nodes = first_nodes(model, layers)
    known = {one.name for one in (*model.graph.output, *model.graph.input)}
    for name in sorted({node.input[0] for node in nodes.values()} - known):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rng = np.random.default_rng(0)
    seen: dict[str, list[Array]] = {}
    for feed in feeds:
        for layer, node in nodes.items():
            given = feed.get(node.input[0])
            found = session.run([node.input[0]], feed)[0] if given is None else given
            seen.setdefault(layer, []).append(rows_seen(found, node, rng))
    return {layer: torch.from_numpy(np.concatenate(rows)).double() for layer, rows in seen.items()}


# ---- measuring


def r_squared(map_: Callable[[Tensor], Tensor], layer: Any, rows: Tensor) -> float | None:
    """R² of a map over all outputs."""
    wanted = layer(rows)
    spread = (wanted - wanted.mean(0)).square().sum()
    return float(1 - (map_(rows) - wanted).square().sum() / spread) if spread > 0 else None


def measure_layer(
    file: str, reading: dict[str, Any], view: Any, rows: Tensor, passes: bool
) -> Recorded:
    """A plain layer as told, beside what its recorded rows say."""
    layer = view.weights(torch.float64)
    units, fit = reading.get("units") or {}, reading.get("fit") or {}
    sums = rows @ layer.up.T + (layer.up_bias if layer.up_bias is not None else 0)
    hidden = layer.activation(sums)
    adds = hidden.std(0) * layer.down.norm(dim=0)
    moving = torch.corrcoef(sums.T[sums.std(0) > 0])
    same = int((moving.abs() > CLOSE).triu(1).sum()) if moving.ndim else 0
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    mine, fresh = rows[order[::2]], rows[order[1::2]]
    fitted = bl.quadratic_fit(view, data=mine) if len(mine) > 50 else None
    assumed = bl.quadratic_fit(view)
    score = None
    if fitted is not None and float(layer(fresh).std(0).sum()) > 0:
        score = r_squared_on(layer(fresh), fitted.quadratic_map(fresh))
    return Recorded(
        file=file,
        layer=reading["name"],
        rows=len(rows),
        deviation=float(rows.std()),
        told_never_active=units.get("never_active", 0),
        silent=int((hidden == 0).all(0).sum()),
        told_dead=units.get("dead", 0),
        idle=int((adds <= 1e-3 * adds.median()).sum()),
        told_duplicates=units.get("duplicates", 0),
        same=same,
        told_r2=fit.get("quadratic"),
        told_passes=passes and bool(fit.get("usable")),
        r2=r_squared(assumed.quadratic_map, layer, rows),
        fit_r2=None if fitted is None else fitted.r_squared.quadratic.overall,
        fit_error=None if fitted is None else fitted.r_squared.quadratic.standard_error,
        fresh_r2=None if score is None else score.overall,
        fresh_error=None if score is None else score.standard_error,
        fit_rows=len(mine),
    )


def measure(corpus: Path, file: str, document: dict[str, Any]) -> list[Recorded]:
    """The plain layers of a file that was audited, those that could be recorded."""
    readings = (document.get("layers") or {}).get("readings") or []
    model = bl.load(corpus / file)
    plain = [one for one in readings if one["kind"] == "plain" and one.get("broken") is None]
    readings = plain[:: -(-len(plain) // LAYERS) or 1]
    views = {one["name"]: model.layers[one["name"]] for one in readings}
    tensors = {name: tuple(view.tensors) for name, view in views.items()}
    seen = record(corpus / file, tensors, FEEDS[file](corpus / "inputs"))
    passed = {one["rule"] for one in document["verdict"] if one["outcome"] == "pass"}
    counted = (document.get("coverage") or {}).get("approximate", 0) > 0
    return [
        measure_layer(file, one, views[one["name"]], seen[one["name"]], "r2" in passed or counted)
        for one in readings
        if one["name"] in seen
    ]
