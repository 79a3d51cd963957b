"""The tasks of a sweep: one function each, and its cost for a layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import QuadraticFit, in_words
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.hosvd import hosvd
from bilens.api.alignment import align_models
from bilens.api.comparison import layer_changes
from bilens.api.layer_decomposition import PAIR_TENSORS, prepare, run_job
from bilens.api.layer_reading import LayerMap, LayerOutputs, Request
from bilens.api.quadratic_fit import fit_of
from bilens.api.subject import is_of_columns
from bilens.api.tracing import direction_readings
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.findings.difference import other_kind
from bilens.findings.fits import approximation_quality, fit_record
from bilens.findings.layer_reading import WIDE, ReadingOptions, fit_layer, read_layer
from bilens.findings.layer_walk import compare_with
from bilens.interp.traced_layer import open_layer
from bilens.io.host import Site
from bilens.io.load import LayerView, LoadedModel
from bilens.io.model_config import arguments_of
from bilens.io.stored_mlp import WORKING_COPIES
from bilens.io.tensors import read_safetensors
from bilens.records.base import Record, json_text
from bilens.records.sweep import SweepOptions, SweptConversion, TracedDirections
from bilens.train.layer_fit import ConversionRecipe, fit_site

RATE = 2e10  # operations a second of one core
FIXED = 0.05  # seconds of any piece of work
PROCESS = 1 << 28  # bytes of Python and torch

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class TaskResult:
    """The result of a task: a record, a few numbers of it, and tensors with their metadata."""

    record: Record
    numbers: Numbers
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Subject:
    """A layer of an open model, beside what is asked."""

    model: LoadedModel
    baseline: LoadedModel | None
    index: int
    name: str
    options: SweepOptions

    @property
    def view(self) -> LayerView:
        return read_once(self.model.layers[self.name])

    @property
    def audit_options(self) -> ReadingOptions:
        options = self.options
        return ReadingOptions(options.null_samples, options.seed, options.threshold)

    @cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.options.seed)

    @cached_property
    def rows(self) -> Tensor | None:
        """Return the inputs that the layer sees, (rows, in), where a folder holds them."""
        if self.options.activations is None:
            return None
        path = Path(self.options.activations) / f"{self.name}.safetensors"
        tensors, _ = read_safetensors(path)
        if len(tensors) != 1:
            raise UsageError(
                f"{path}: holds {len(tensors)} tensors; expected one, (rows, in): what the layer "
                "sees."
            )
        return next(iter(tensors.values()))

    def fitted(self) -> QuadraticFit:
        options = self.options
        return fit_of(
            self.view,
            data=self.rows,
            samples=options.samples,
            threshold=options.threshold,
            seed=options.seed,
        )


@lru_cache(1)
def read_once(view: LayerView) -> LayerView:
    """Return a layer whose weights are kept from task to task."""
    return replace(view, read=cache(view.read))


@dataclass(frozen=True)
class SweepTask:
    """One kind of work, and what it costs."""

    run: Callable[[Subject], TaskResult]
    operations: Callable[[FactorSizes, SweepOptions], float]
    copies: float = WORKING_COPIES  # of the layer in float64, that are held at most
    squares: float = 2  # (in, in) arrays of float64, and as many of (out, out)

    def seconds(self, sizes: FactorSizes, options: SweepOptions) -> float:
        return FIXED + self.operations(sizes, options) / RATE

    def num_bytes(self, sizes: FactorSizes) -> int:
        d_out, d_hidden, d_in = sizes
        factors = self.copies * d_hidden * (2 * d_in + d_out)
        return PROCESS + int(8 * (factors + self.squares * (d_in**2 + d_out**2)))


def audit(subject: Subject) -> TaskResult:
    found, _ = read_layer(subject.view, subject.audit_options)
    fit, outputs, units, inputs = found.fit, found.outputs, found.units, found.inputs
    numbers = {
        "r_squared": 1.0 if found.exact else None if fit is None else fit.quadratic,
        "weight_norm": found.weight_norm,
        "effective_rank": None if outputs is None else outputs.effective_rank,
        "top_share": None if outputs is None else outputs.top_share,
        "dead": None if units is None else float(units.dead),
        "duplicates": None if units is None else float(units.duplicates),
        "input_share": None if inputs is None or inputs.dominant is None else inputs.share,
    }
    return TaskResult(found, numbers)


def fit(subject: Subject) -> TaskResult:
    record = fit_record(subject.name, subject.view, subject.fitted())
    chosen = record.scores
    numbers = {"r_squared": chosen.quadratic.value, "linear_r_squared": chosen.linear.value}
    # R² of each output of each fit would be most of what a sweep over a large model writes
    ladder = tuple(structs.replace(one, outputs=()) for one in record.ladder)
    record = structs.replace(record, ladder=ladder)
    return TaskResult(record, numbers)


def decompose(subject: Subject) -> TaskResult:
    """Take apart what a layer adds along its leading output directions."""
    options, view, fitted = subject.options, subject.view, subject.fitted()
    if not fitted.usable:
        raise NotQuadraticError(
            f"the approximation of {subject.name} has {in_words(fitted.r_squared)}, below the "
            f"{options.threshold:g} from which it is read: --threshold sets that."
        )
    f = fitted.quadratic_map
    modes = hosvd(f, min(options.directions, f.sizes.d_out))
    along = f.compose_output(modes.output_directions)
    about = None if fitted.exact else approximation_quality(fitted, view.activation.name)
    names = tuple(f"direction {index}" for index in range(along.sizes.d_out))
    found = run_job(
        prepare(
            subject.model,
            Request(top=options.top, spectrum="top", seed=options.seed),
            subject.name,
            mapped=LayerMap(along, along, None, about, view.about_input),
            outputs=LayerOutputs(subject.name, "outputs", names, None),
        )
    )
    record, sigma = found.record, modes.singular_values
    size = modes.frobenius_squared
    leading = [one.pairs[0].eigenvalue for one in record.outputs if one.pairs]
    numbers = {
        "directions_share": float(sigma.square().sum() / size) if size > 0 else None,
        "first_share": float(sigma[0].square() / size) if size > 0 else None,
        "largest_eigenvalue": max(map(abs, leading), default=None),
        "complete": sum(one.complete for one in record.outputs) / len(record.outputs),
    }
    tensors = {name: getattr(found.pairs, name) for name in PAIR_TENSORS}
    return TaskResult(record, numbers, tensors | {"output_directions": modes.output_directions})


aligned = lru_cache(1)(align_models)


def compare(subject: Subject) -> TaskResult:
    asked, base = subject.audit_options, subject.baseline
    if base is None or subject.name not in base.layers:
        raise UsageError(f"the baseline has no layer {subject.name!r}: compare a model like it.")
    alignment = aligned(subject.model, base)
    before = alignment.before(subject.name)
    assert before is not None, "the baseline has it"
    if other := alignment.why_not(subject.name) or other_kind(before, subject.view):
        raise UsageError(
            f"{subject.name!r} is no layer like the baseline's ({other}): compare a model like it."
        )
    if is_of_columns(alignment.model) and is_of_columns(alignment.baseline):
        found, *_ = layer_changes(alignment, asked.seed, standard=True)  # whatever the units
    else:
        after = fit_layer(subject.view, asked.seed, asked.threshold)
        found = compare_with(before, subject.view, after, asked, turn=alignment.turn)
    directions = None if found.outputs is None else float(found.outputs.directions_90)
    numbers = {
        "weight_change": 0.0 if found.identical or found.same_function else found.weight_change,
        "similarity": 1.0 if found.identical else found.gaussian,
        "directions_90": directions,
    }
    return TaskResult(found, numbers)


def convert(subject: Subject) -> TaskResult:
    """Fit the bilinear layer of a conversion whose layers are fitted side by side."""
    options, view = subject.options, subject.view
    recipe = ConversionRecipe(layer_steps=options.layer_steps, seed=options.seed)
    rows = subject.rows
    words = "activations"
    if rows is None:
        recipe, words = replace(recipe, skip=("fit", "training")), "N(0, I)"
        rows = torch.randn(options.samples, view.sizes.d_in, generator=subject.generator)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # kept in 16 bits, not run so
    order = torch.randperm(len(rows), generator=subject.generator)
    held, texts = (rows[part] for part in order.tensor_split([len(order) // 5]))
    site = Site(subject.name, (), view)
    mlp, about = fit_site(site, (texts, held, rows[:0]), recipe, subject.index)
    said = {"about": json_text(about), "arguments": json_text(arguments_of(mlp))}
    score = about.get("r_squared")
    record = SweptConversion(subject.name, words, len(held), score)
    return TaskResult(record, {"r_squared": score}, mlp.state_dict(), said)


def trace(subject: Subject) -> TaskResult:
    """Read the leading output directions of a bilinear MLP, and their eigenvectors, as tokens."""
    options, layer = subject.options, open_layer(subject.model, subject.index)
    ends = layer.vocabulary.unembedding, layer.vocabulary.embedding
    found = direction_readings(layer.f, *ends, layer.tokenizer, (), options.directions, options.top)
    leading = [float(one.spectrum.eigenvalues[0]) for one in found]
    numbers = {"first_share": found[0].share, "largest_eigenvalue": max(map(abs, leading))}
    return TaskResult(TracedDirections(subject.name, found), numbers)


def reading_work(sizes: FactorSizes, options: SweepOptions) -> float:
    d_out, d_hidden, d_in = sizes
    width, rank = min(d_in, 2 * d_hidden), min(d_out, d_hidden)
    sample = 0.6 * d_hidden**2 * (width + rank) + 2 * d_in * min(d_hidden, d_in) ** 2
    sample += 2 * width**3 + rank**3
    turned = (6 if d_in >= WIDE else 16) * d_in**3
    read = 4.2 * d_hidden**2 * (d_in + d_out) + turned + 10 * width**3
    return read + options.null_samples * sample


def fitting_work(sizes: FactorSizes, options: SweepOptions) -> float:
    return 8.0 * options.samples * sizes.d_hidden * (2 * sizes.d_in + sizes.d_out)


def decomposing_work(sizes: FactorSizes, options: SweepOptions) -> float:
    d_out, d_hidden, d_in = sizes
    modes = d_hidden**2 * (d_in + d_out) + 10 * min(d_hidden, d_out) ** 3
    pairs = min(options.directions, d_out) * (options.top + 20) * 12 * d_hidden * d_in
    return 4.0 * (modes + pairs) + fitting_work(sizes, options)


TASKS: Mapping[str, SweepTask] = {
    "audit": SweepTask(audit, lambda s, o: reading_work(s, o) + fitting_work(s, o), 3.5, 3.5),
    "fit": SweepTask(fit, fitting_work),
    "decompose": SweepTask(decompose, decomposing_work),
    "compare": SweepTask(compare, lambda s, o: 2 * (reading_work(s, o) + fitting_work(s, o)), 16),
    "convert": SweepTask(convert, lambda s, o: (2 + o.layer_steps) * fitting_work(s, o)),
    "trace": SweepTask(trace, decomposing_work, 6),
}
WHOLE = {"trace"}  # tasks that need more than the layer


def check_tasks(options: SweepOptions) -> None:
    """Refuse tasks that there are not, or that lack what they need."""
    unknown = [name for name in options.tasks if name not in TASKS]
    if unknown or not options.tasks:
        found = repr(unknown[0]) if unknown else "nothing"
        raise UsageError(f"--do names {found}; expected some of {','.join(TASKS)}.")
    if "compare" in options.tasks and options.baseline is None:
        raise UsageError("compare needs --baseline: add it.")
    if options.activations is not None and not Path(options.activations).is_dir():
        raise UsageError(
            f"--activations {options.activations} is no folder: give one with a file "
            "LAYER.safetensors for each layer."
        )
