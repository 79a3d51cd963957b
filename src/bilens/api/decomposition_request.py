"""A request for the decomposition of layers, and what `bilens decompose` asks."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from bilens.base.errors import UsageError
from bilens.base.option_rules import (
    ITERATES,
    METHOD_PANEL,
    MINIMUM_SAMPLES,
    check_count,
    check_seed,
    option,
    refuse_idle,
)

Basis = Literal["input", "embedding", "whitened"]
Reading = Literal["centred", "raw"]
Spectrum = Literal["auto", "whole", "top"]


@dataclass(frozen=True)
class Request:
    """The outputs, eigenpairs and basis to read of each layer."""

    top: int = option(5, "Eigenpairs of each output.", min=1)
    outputs: str | tuple[int, ...] | None = option(
        None,
        "Outputs such as 0,3,7-9; of the logits by name, too. All without. In a layer inside the "
        "model, indices are neurons.",
        kind=str | None,
    )
    basis: Basis = option(
        "input",
        "Basis of the input; 'embedding' is the paper's; 'whitened' gives the training images "
        "unit covariance (first layer only, see --data-dir).",
    )
    reading: Reading | None = option(
        None, "Class-centred (logits only, where it is the default) or raw outputs."
    )
    contrast: tuple[int | str, int | str] | None = option(
        None,
        "Read one class against another, by index or name: 4 9. Logits only: with --layer where "
        "the model has several layers.",
        kind=tuple[str, str] | None,
    )
    which: Literal["magnitude", "largest", "smallest", "both"] = option(
        "magnitude", "Largest |λ|, largest λ, smallest λ, or half from both ends."
    )
    spectrum: Spectrum = option(
        "auto",
        "whole spectra give effective ranks; top computes the leading pairs alone. auto: whole "
        "up to 1,024 inputs and 128 outputs, where that takes about a minute at most.",
        panel=METHOD_PANEL,
    )
    null_samples: int = option(
        99,
        "Random rotations for the null intervals of effective ranks, 39 or more; 0 for none. "
        "Each costs about as much as the eigenvalues of all outputs.",
        panel=METHOD_PANEL,
    )
    method: Literal["auto", "dense", "lanczos", "factored"] = option(
        "auto", "Solver; auto takes the cheapest that fits into memory.", panel=METHOD_PANEL
    )
    precision: Literal["float32", "float64"] = option(
        "float64",
        "Residuals within 1e-11 or, in a third of the time, 1e-6 of ‖Q‖.",
        panel=METHOD_PANEL,
    )
    verify: bool = option(
        False, "Settle what is not proven with a dense solver.", panel=METHOD_PANEL
    )
    seed: int = option(
        0, "Seed of the solver's first vector and of the rotations.", min=0, panel=METHOD_PANEL
    )

    def __post_init__(self) -> None:
        check_count("top", self.top, minimum=1)
        for name, choices in (("basis", Basis), ("reading", Reading), ("spectrum", Spectrum)):
            value, known = getattr(self, name), get_args(choices)
            if value not in known and not (name == "reading" and value is None):
                raise UsageError(f"{name}={value!r} is not known: use one of {', '.join(known)}.")
        if check_count("null_samples", self.null_samples, minimum=0) in range(1, MINIMUM_SAMPLES):
            raise UsageError(
                f"null_samples must be 0, for no null interval, or at least {MINIMUM_SAMPLES}, "
                f"for an interval that holds 95 %; got {self.null_samples}."
            )
        check_seed(self.seed)
        usual = {one.name: one.default for one in fields(self)}
        said = {name: value for name, value in vars(self).items() if value != usual[name]}
        refuse_idle("decompose", said, *self.facts)
        if self.contrast is not None and (self.reading is not None or self.outputs is not None):
            raise UsageError(
                "a contrast is a reading of its own, of two outputs: leave reading and outputs out."
            )

    @property
    def facts(self) -> list[str]:
        """The facts on which options of a decomposition depend, as `option_rules` names them."""
        found = ["with whole spectra"] if self.spectrum != "top" else []
        found += [ITERATES] if self.method in ("lanczos", "auto") else []
        return [*found, *(["with basis whitened"] if self.basis == "whitened" else [])]

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        return {**document, "contrast": None if self.contrast is None else [*self.contrast]}
