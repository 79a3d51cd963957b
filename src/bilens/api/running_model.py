"""Record or change what a layer reads or gives while its model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from bilens.base.checks import check_choice, check_finite, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import html_summary
from bilens.base.option_rules import as_integer, check_seed
from bilens.interp.interventions import Edit, InputDirections, ablation, steering
from bilens.io.load import from_module
from bilens.io.loaded_model import LoadedModel

Side: TypeAlias = Literal["input", "output"]
Positions: TypeAlias = int | Sequence[int] | None
Host: TypeAlias = Any  # a module, a model of nnsight around one, or what `bl.from_module` returned


@dataclass(eq=False)
class Recording:
    """The inputs or outputs of one layer in the runs inside a `with bl.record(…)`.

    Attributes:
        runs: one tensor a run, (…, width), as the layer was given it or gave it, on the device of
            the model; of chosen positions (batch, positions, width).
    """

    runs: list[Tensor] = field(default_factory=list)
    _repr_html_ = html_summary("runs")

    @property
    def rows(self) -> Tensor:
        """All rows of all runs, (rows, width)."""
        return torch.cat([one.flatten(0, -2) for one in self.runs])

    @property
    def mean(self) -> Tensor:
        """The mean row, (width,), for `bl.ablate(…, mean=…)`."""
        return self.rows.mean(dim=0)


@dataclass(eq=False)
class Intervention:
    """A count of the rows that an intervention changed in the runs inside its `with`.

    Attributes:
        runs: how often the layer ran.
        rows: how many rows were changed, in all runs.
        norm: root mean square of the length of what was added to a changed row.
    """

    runs: int = 0
    rows: int = 0
    norm: float = 0.0
    _repr_html_ = html_summary()

    def add(self, difference: Tensor) -> None:
        """Count what one run added, (rows, width)."""
        total = self.norm**2 * self.rows + float(difference.double().square().sum())
        self.runs, self.rows = self.runs + 1, self.rows + len(difference)
        self.norm = (total / self.rows) ** 0.5 if self.rows else 0.0


@contextmanager
def ablate(
    model: Host,
    layer: str,
    directions: Tensor,
    *,
    at: Side = "input",
    mean: Tensor | None = None,
    positions: Positions = None,
    control: int | None = None,
) -> Iterator[Intervention]:
    """Take directions out of what a layer reads or gives, as long as the `with` block runs.

    Math: x ↦ x − P (x − m) for the orthogonal projection P on the span of the directions, with
        m = 0, or the mean for mean ablation.

    Directions are rows in the coordinates of that end of the layer: eigenvectors of its quadratic
    map or encoder rows of an SAE at its input, decoder rows or unembeddings of tokens at its
    output. Everything else of the model runs as it is, a residual path around the layer too.

    Args:
        model: a `torch.nn.Module`, a `TransformerBridge` of TransformerLens, a model of nnsight, or
            what `bl.from_module` returned of one, which is quicker where it is asked often.
        layer: its name in `bl.from_module(model).layers`.
        directions: (width,) or (k, width), linearly independent.
        at: which end of the layer.
        mean: (width,), what the coordinates along the directions are set to; None for zero.
        positions: of the last axis but one of what stands there, which is that of the tokens where
            the batch is the first one; from the end where negative; None for all.
        control: seed of a random turn; then the same change of each row is made in a random
            subspace of as many dimensions, equal in norm.

    Yields: What was changed, counted.

    Raises:
        UsageError: If there is no such layer, no module begins or ends with it, or the layer did
            not run in the block, so that nothing was changed.
        ShapeError: If directions, mean or positions do not fit.

    Source: Arditi et al., "Refusal in language models is mediated by a single direction" (2024)
        for ablation of a direction.
    """
    place = open_place(model, layer, at)
    basis = orthonormal(place.rows("directions", directions))
    centre = torch.zeros(place.width) if mean is None else place.rows("mean", mean)[0]
    along = InputDirections(basis, basis, centre.to(basis), basis.new_zeros(len(basis)))
    with place.changed(ablation(along, everywhere), positions, basis, control) as found:
        yield found


@contextmanager
def steer(
    model: Host,
    layer: str,
    directions: Tensor,
    by: float | Tensor,
    *,
    at: Side = "input",
    positions: Positions = None,
    control: int | None = None,
) -> Iterator[Intervention]:
    """Add multiples of directions to what a layer reads or gives, while the `with` block runs.

    Math: x ↦ x + Σ_i by_i d_i. The arguments are those of `bl.ablate`; `by` is one number for all
    directions, or one for each, (k,). Directions are added as they are given, not normalised.
    """
    place = open_place(model, layer, at)
    rows = place.rows("directions", directions)
    amounts = torch.as_tensor(by, dtype=torch.float64)
    if amounts.ndim > 1 or (amounts.ndim and len(amounts) != len(rows)):
        raise ShapeError(
            f"by has shape {tuple(amounts.shape)}; expected a number, or {len(rows)}: one a "
            "direction."
        )
    check_finite("by", amounts)
    along = InputDirections(rows, rows, rows.new_zeros(place.width), rows.new_zeros(len(rows)))
    edit = steering(along, amounts.expand(len(rows)), everywhere)
    with place.changed(edit, positions, orthonormal(rows), control) as found:
        yield found


@contextmanager
def patch(
    model: Host,
    layer: str,
    values: Tensor,
    directions: Tensor | None = None,
    *,
    at: Side = "input",
    positions: Positions = None,
    control: int | None = None,
) -> Iterator[Intervention]:
    """Put other values in place of what a layer reads or gives, while the `with` block runs.

    Math: x ↦ x + P (v − x) for the orthogonal projection P on the span of the directions; without
        directions x ↦ v.

    `values` are v, of the shape of what is replaced or one that broadcasts to it, such as a run of
    `bl.record` on another input; with `positions`, of these alone. All other arguments are those of
    `bl.ablate`.
    """
    place = open_place(model, layer, at)
    check_type("values", values, Tensor, "pass a tensor")
    check_finite("values", values)
    rows = torch.eye(place.width, dtype=torch.float64)
    if directions is not None:
        rows = orthonormal(place.rows("directions", directions))

    def edit(x: Tensor) -> Tensor:
        try:
            target = values.to(x).expand(x.shape).clone()  # what comes behind may write to it
        except RuntimeError:
            raise ShapeError(
                f"values have shape {tuple(values.shape)}; what is replaced at the {at} of "
                f"{layer!r} has {tuple(x.shape)}."
            ) from None
        return target if directions is None else x + (target - x) @ rows.T.to(x) @ rows.to(x)

    with place.changed(edit, positions, rows, control) as found:
        yield found


@contextmanager
def record(
    model: Host, layer: str, *, at: Side = "input", positions: Positions = None
) -> Iterator[Recording]:
    """Keep what a layer reads or gives in each run of its model inside the `with` block.

    The arguments are those of `bl.ablate`. Memory: all that is recorded, detached from gradients.
    """
    place, found = open_place(model, layer, at), Recording()

    def keep(x: Tensor) -> Tensor:
        found.runs.append(chosen(x, place.numbers(x, positions)).detach().clone())
        return x

    with place.hooked(keep):
        yield found
    place.check_ran(len(found.runs))


def everywhere(x: Tensor) -> Tensor:
    """Return a mask of True for each row; positions are selected before."""
    return x.new_ones(x.shape[:-1], dtype=torch.bool)


def chosen(x: Tensor, numbers: Tensor | None) -> Tensor:
    return x if numbers is None else x[..., numbers, :]


def orthonormal(rows: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of directions, (k, width)."""
    basis: Tensor = torch.linalg.svd(rows, full_matrices=False).Vh
    values = torch.linalg.svdvals(rows)
    if float(values[-1]) <= len(rows) * torch.finfo(rows.dtype).eps * float(values[0]):
        raise UsageError(
            f"the {len(rows)} directions are linearly dependent, or one is zero: leave out those "
            "that the others make up."
        )
    return basis


@dataclass(frozen=True, eq=False)
class RunningPlace:
    """One end of a layer in a module that runs."""

    module: nn.Module
    layer: str
    at: Side
    paths: tuple[str, ...]  # of the modules whose hooks are there
    width: int

    def rows(self, name: str, given: Any) -> Tensor:
        """Return vectors as float64 rows on the CPU, (k, width).

        Raises: ShapeError if they are no vectors of this end.
        """
        found = torch.as_tensor(given).detach().to("cpu", torch.float64)
        found = found[None] if found.ndim == 1 else found
        if found.ndim != 2 or found.shape[1] != self.width or not len(found):
            raise ShapeError(
                f"{name} has shape {tuple(torch.as_tensor(given).shape)}; at the {self.at} of "
                f"{self.layer!r} a row has {self.width} numbers."
            )
        return check_finite(name, found)

    def numbers(self, x: Tensor, positions: Positions) -> Tensor | None:
        """Return the positions of a value as indices; None for all.

        Raises: UsageError if the value has no positions, or none of that number.
        """
        if positions is None:
            return None
        given = positions if isinstance(positions, Sequence) else [positions]
        numbers = [one for one in map(as_integer, given) if one is not None]
        if len(numbers) < len(given):
            raise UsageError(f"positions are {positions!r}; expected a whole number, or several.")
        kinds = (nn.MultiheadAttention, nn.RNNBase)
        if not all(one.batch_first for one in self.module.modules() if isinstance(one, kinds)):
            raise UsageError(
                f"the {type(self.module).__name__} has parts with batch_first=False, whose last "
                "axis but one is the batch: leave out positions, or build it with batch_first=True."
            )
        if x.ndim < 3:
            raise UsageError(
                f"what stands at the {self.at} of {self.layer!r} has shape {tuple(x.shape)}, "
                "without an axis of positions: leave out positions."
            )
        size = x.shape[-2]
        if not numbers or len({one % size for one in numbers}) < len(numbers):
            raise UsageError(f"positions are {numbers}; expected some, each once.")
        if not all(-size <= one < size for one in numbers):
            raise UsageError(
                f"positions are {numbers}; in this run there are {size}, from 0, or from -1 "
                "backwards."
            )
        return torch.tensor([one % size for one in numbers], device=x.device)

    @contextmanager
    def hooked(self, act: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Put what a function makes of a value in its place, in each run."""
        seen: dict[str, Any] = {"served": set()}

        def acted(value: object) -> Tensor:
            if not isinstance(value, Tensor) or value.shape[-1] != self.width:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UsageError(
                    f"at the {self.at} of {self.layer!r} runs {shape}; expected a tensor with rows "
                    f"of {self.width} numbers."
                )
            return act(value)

        def enter(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # several parts that read one value are given one changed value
            given = args[0] if args else next(iter(kwargs.values()), None)
            if part in seen["served"] or seen.get("given") is not given:
                seen.update(given=given, made=acted(given), served=set())
            seen["served"].add(part)
            made = seen["made"]
            if args:
                return (made, *args[1:]), kwargs
            return args, {**kwargs, next(iter(kwargs)): made}

        def leave(_: nn.Module, __: object, value: object) -> Tensor:
            return acted(value)

        with ExitStack() as stack:
            for path in self.paths:
                part = self.module.get_submodule(path)
                if self.at == "input":
                    handle = part.register_forward_pre_hook(enter, with_kwargs=True)
                else:
                    handle = part.register_forward_hook(leave)
                stack.callback(handle.remove)
            yield

    @contextmanager
    def changed(
        self, edit: Edit, positions: Positions, basis: Tensor, control: int | None
    ) -> Iterator[Intervention]:
        """Change rows at some positions, or as much in a random subspace; count what was done."""
        found = Intervention()
        turned = None if control is None else random_basis(basis, control)

        def act(x: Tensor) -> Tensor:
            numbers = self.numbers(x, positions)
            wide = x if x.dtype == torch.float64 else x.float()
            before = chosen(wide, numbers)
            after = edit(before)
            if turned is not None:
                after = before + (after - before) @ basis.T.to(wide) @ turned.to(wide)
            found.add((after - before).detach().flatten(0, -2))
            if numbers is None:
                return after.to(x.dtype)
            return x.index_copy(-2, numbers, after.to(x.dtype))

        with self.hooked(act):
            yield found
        self.check_ran(found.runs)

    def check_ran(self, runs: int) -> None:
        if not runs:
            raise UsageError(
                f"{self.layer!r} did not run inside the `with` block: run the model there, the "
                "same object that was given."
            )


def random_basis(basis: Tensor, seed: int) -> Tensor:
    """Return orthonormal rows of a random subspace of as many dimensions, (k, width)."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    drawn = torch.randn(basis.T.shape, generator=generator, dtype=torch.float64)
    columns, triangle = torch.linalg.qr(drawn)
    turned: Tensor = columns * triangle.diagonal().sign()  # or the first would lean to one side
    return turned.T


def open_place(model: Host, layer: str, at: Side) -> RunningPlace:
    """Return one end of a layer of a model in memory.

    Raises: UsageError if there is no such layer, or no module whose hooks see this end.
    """
    check_choice("at", at, ("input", "output"))
    read = model if isinstance(model, LoadedModel) else from_module(model)
    if not read.hook_points and read.module is not None:
        read = from_module(read.module)
    module = read.original
    if module is None:
        raise UsageError(
            f"{read.source} was read from a file, and does not run: load it with its own library, "
            "and pass that model."
        )
    if layer not in read.hook_points:
        raise UsageError(f"no layer {layer!r}; the layers are {', '.join(read.hook_points)}.")
    points = read.hook_points[layer]
    paths = points.reads if at == "input" else tuple(filter(None, [points.gives]))
    if points.reads_patches:
        raise UsageError(f"{layer!r} reads patches of an image, which overlap: not supported.")
    if not paths:
        raise UsageError(
            f"no module has just the {at} of {layer!r} as its own: it is computed between modules, "
            "or shared with another layer."
        )
    points.check_not_replaced(module)
    if any(one.is_meta for one in points.tensors.values()):
        raise UsageError(
            f"the weights of {layer!r} are on the meta device, not loaded yet, and what runs later "
            "is another module: load them first (a model of nnsight with dispatch=True)."
        )
    return RunningPlace(module, layer, at, paths, points.sizes[at == "output"])
