"""What can be done with each layer: one function a task, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from bilens.algebra.approximation.data_fit import fit_neurons, gaussian_neurons, refit_down
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.api.decompose import PAIR_TENSORS, prepare, run_job
from bilens.api.layer_reading import Request
from bilens.api.quadratic_fit import fit_record, quadratic_fit
from bilens.base.errors import CheckpointError, UsageError
from bilens.findings.layer_audit import compare_with
from bilens.findings.layer_reading import AuditOptions, fit_layer, read_layer, weights_of
from bilens.io.load import LayerView, LoadedModel
from bilens.io.stored_mlp import WORKING_COPIES
from bilens.records.base import Record
from bilens.records.decomposition import LayerDecomposition, LayerFit
from bilens.records.layer_audit import LayerDifference, LayerReading
from bilens.records.sweep import ConvertedLayer, SweepOptions

RATE = 2e10  # operations a second of one core
FIXED = 0.05  # seconds of any piece of work

Numbers = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Subject:
    """A layer of an open model, beside what is asked."""

    model: LoadedModel
    baseline: LoadedModel | None
    name: str
    options: SweepOptions

    @property
    def view(self) -> LayerView:
        return self.model.layers[self.name]

    def rows(self) -> Tensor | None:
        """Return what the layer sees, (rows, in), where a folder holds it."""
        if self.options.activations is None:
            return None
        path = Path(self.options.activations) / f"{self.name}.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                names = [*file.keys()]
                return file.get_tensor(names[0]) if len(names) == 1 else None
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}): write what the layer sees there, one tensor "
                "(rows, in), or leave --activations out."
            ) from None


Found = tuple[Record, dict[str, Tensor], Numbers]


@dataclass(frozen=True)
class Task:
    """One kind of work: a record, tensors beside it, and a few numbers."""

    run: Callable[[Subject], Found]
    operations: Callable[[FactorSizes, SweepOptions], float]
    copies: float = WORKING_COPIES  # of the layer in float64, that are held at most

    def seconds(self, sizes: FactorSizes, options: SweepOptions) -> float:
        return FIXED + self.operations(sizes, options) / RATE

    def num_bytes(self, sizes: FactorSizes) -> int:
        d_out, d_hidden, d_in = sizes
        squares = d_in**2 + d_out**2 + min(d_hidden, 1 << 14) ** 2
        return int(8 * (self.copies * d_hidden * (2 * d_in + d_out) + 4 * squares))


def audit(subject: Subject) -> Found:
    options = subject.options
    asked = AuditOptions(options.null_samples, options.seed, options.threshold)
    reading, _ = read_layer(subject.view, asked)
    return reading, {}, numbers_of_reading(reading)


def numbers_of_reading(found: LayerReading) -> Numbers:
    fit, outputs, units, inputs = found.fit, found.outputs, found.units, found.inputs
    return {
        "r_squared": 1.0 if found.exact else None if fit is None else fit.quadratic,
        "weight_norm": found.weight_norm,
        "effective_rank": None if outputs is None else outputs.effective_rank,
        "top_share": None if outputs is None else outputs.top_share,
        "dead": None if units is None else float(units.dead),
        "duplicates": None if units is None else float(units.duplicates),
        "input_share": None if inputs is None else inputs.share,
    }


def fit(subject: Subject) -> Found:
    options = subject.options
    found = quadratic_fit(
        subject.view,
        data=subject.rows(),
        samples=options.samples,
        threshold=options.threshold,
        seed=options.seed,
    )
    record = fit_record(subject.name, subject.view, found)
    return record, {}, numbers_of_fit(record)


def numbers_of_fit(found: LayerFit) -> Numbers:
    chosen = next((one for one in found.ladder if one.fit == found.chosen), found.ladder[0])
    return {"r_squared": chosen.quadratic.value, "linear_r_squared": chosen.linear.value}


def decompose(subject: Subject) -> Found:
    options = subject.options
    request = Request(top=options.top, outputs=options.outputs, null_samples=0, seed=options.seed)
    found = run_job(prepare(subject.model, request, subject.name))
    tensors = {name: getattr(found.pairs, name).contiguous() for name in PAIR_TENSORS}
    return found.record, tensors, numbers_of_decomposition(found.record)


def numbers_of_decomposition(found: LayerDecomposition) -> Numbers:
    pairs = [one.pairs[0] for one in found.outputs if one.pairs]
    kept = [one.explained for one in found.outputs if one.explained is not None]
    return {
        "largest_eigenvalue": max((abs(pair.eigenvalue) for pair in pairs), default=None),
        "explained": sum(kept) / len(kept) if kept else None,
        "complete": sum(one.complete for one in found.outputs) / len(found.outputs),
    }


def compare(subject: Subject) -> Found:
    options = subject.options
    assert subject.baseline is not None, "checked before"
    if subject.name not in subject.baseline.layers:
        raise UsageError(f"the baseline has no layer {subject.name!r}: compare a model like it.")
    asked = AuditOptions(options.null_samples, options.seed, options.threshold)
    after = fit_layer(subject.view, asked.seed, asked.threshold)
    found = compare_with(subject.baseline.layers[subject.name], after, asked)
    return found, {}, numbers_of_difference(found)


def numbers_of_difference(found: LayerDifference) -> Numbers:
    return {
        "weight_change": 0.0 if found.identical else found.weight_change,
        "similarity": 1.0 if found.identical else found.gaussian,
        "directions_90": None if found.outputs is None else float(found.outputs.directions_90),
    }


def convert(subject: Subject) -> Found:
    """Return the bilinear layer of the same width, closest to the layer on what it sees."""
    options, name = subject.options, subject.name
    layer, data = subject.view.weights(torch.float64), subject.rows()
    generator = torch.Generator().manual_seed(options.seed)
    if data is None:
        held = torch.randn(options.samples, layer.d_in, generator=generator, dtype=torch.float64)
        found, words = gaussian_neurons(layer, None, None), "N(0, I)"
    else:
        order = torch.randperm(len(data), generator=generator)
        held, rest = (data[part].double() for part in order.tensor_split([len(order) // 5]))
        found, words = refit_down(fit_neurons(layer, rest), rest, layer(rest)), "activations"
    score = r_squared_on(layer(held), found(held)).overall
    about = ConvertedLayer(name, words, len(held), score if math.isfinite(score) else None)
    tensors = {part: one.float().contiguous() for part, one in weights_of(found).items()}
    return about, tensors, {"r_squared": about.r_squared}


def reading_work(sizes: FactorSizes, options: SweepOptions) -> float:
    d_out, d_hidden, d_in = sizes
    gram = d_hidden**2 * (d_in + d_out)
    return 4 * gram + options.null_samples * gram + 30 * (d_in**3 + d_out**3)


def fitting_work(sizes: FactorSizes, options: SweepOptions) -> float:
    return 8.0 * options.samples * sizes.d_hidden * (2 * sizes.d_in + sizes.d_out)


def decomposing_work(sizes: FactorSizes, options: SweepOptions) -> float:
    d_out, d_hidden, d_in = sizes
    return 4.0 * d_out * (options.top + 20) * 12 * d_hidden * d_in + math.prod(sizes)


TASKS: Mapping[str, Task] = {
    "audit": Task(audit, lambda s, o: reading_work(s, o) + fitting_work(s, o), 8),
    "fit": Task(fit, fitting_work),
    "decompose": Task(decompose, decomposing_work, 8),
    "compare": Task(compare, lambda s, o: 2 * (reading_work(s, o) + fitting_work(s, o)), 16),
    "convert": Task(convert, lambda s, o: 2 * fitting_work(s, o)),
}


def check_tasks(options: SweepOptions) -> None:
    """Refuse tasks that there are not, or that lack what they need."""
    unknown = [name for name in options.tasks if name not in TASKS]
    if unknown or not options.tasks:
        found = repr(unknown[0]) if unknown else "nothing"
        raise UsageError(f"--do names {found}; expected some of {','.join(TASKS)}.")
    if ("compare" in options.tasks) != (options.baseline is not None):
        raise UsageError("compare needs --baseline, and --baseline is for compare: give both.")
