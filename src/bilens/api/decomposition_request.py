"""What is asked of the layers of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bilens.algebra.eigen.ranking import Which
from bilens.algebra.eigen.solver import Method, Precision
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.findings.null_interval import MINIMUM_SAMPLES
from bilens.findings.subject import SEED_LIMIT

Basis = Literal["input", "embedding", "whitened"]
Reading = Literal["centred", "raw"]
Spectrum = Literal["auto", "whole", "top"]


@dataclass(frozen=True)
class Request:
    """What is asked of each layer.

    Attributes:
        top: how many pairs of each output are wanted.
        outputs: which outputs, such as "0,3,7-9", or names of what the model gives out; None for
            all. On a layer inside the model an index is a neuron.
        basis: "input"; "embedding" for the first layer of a classifier; or "whitened" for a layer
            that reads the inputs, with their mean and covariance.
        reading: "centred" (against the mean of all classes) or "raw"; None is "centred" for
            logits and "raw" for everything else.
        contrast: read one class against another instead, by index or name.
        which: the end of the spectrum.
        spectrum: "whole" spectra give effective ranks, at O(in³) for each output; "top" computes
            the wanted pairs alone; "auto" is "whole" up to 1024 inputs and 128 outputs, where that
            and the level of chance take about a minute at most.
        null_samples: random rotations for the level of chance of effective ranks, at least 39; 0
            for none.
        method: as in `eigendecompose_all`.
        precision: as in `eigendecompose_all`.
        verify: as in `eigendecompose_all`.
        seed: as in `eigendecompose_all`, and of the rotations.
    """

    top: int = 5
    outputs: str | None = None
    basis: Basis = "input"
    reading: Reading | None = None
    contrast: tuple[int | str, int | str] | None = None
    which: Which = "magnitude"
    spectrum: Spectrum = "auto"
    null_samples: int = 99
    method: Method = "auto"
    precision: Precision = "float64"
    verify: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("top", self.top, minimum=1)
        for name, choices in (("basis", Basis), ("reading", Reading), ("spectrum", Spectrum)):
            value, known = getattr(self, name), get_args(choices)
            if value not in known and not (name == "reading" and value is None):
                raise UsageError(f"{name}={value!r} is not known: use one of {', '.join(known)}.")
        if check_count("null_samples", self.null_samples, minimum=0) in range(1, MINIMUM_SAMPLES):
            raise UsageError(
                f"null_samples must be 0, for no level of chance, or at least {MINIMUM_SAMPLES}, "
                f"for an interval that holds 95 %; got {self.null_samples}."
            )
        if check_count("seed", self.seed, minimum=0) >= SEED_LIMIT:
            raise UsageError(f"seed must be below 2**32, got {self.seed}.")
        if self.contrast is not None and (self.reading is not None or self.outputs is not None):
            raise UsageError(
                "a contrast is a reading of its own, of two outputs: leave reading and outputs out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON values."""
        document = asdict(self)
        return {**document, "contrast": None if self.contrast is None else [*self.contrast]}
