"""The eigenpairs of a layer's outputs, as plain numbers for a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import QuadraticFit
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.findings.records import SCHEMA_VERSION, Chance


@dataclass(frozen=True)
class Pair:
    """One eigenvalue of one output."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖_F²
    residual: float  # ‖Qv − λv‖
    converged: bool
    subspace_size: int  # 1, or the number of eigenvalues that cannot be told apart


@dataclass(frozen=True)
class OutputSpectrum:
    """The leading eigenpairs of one output direction."""

    name: str
    pairs: tuple[Pair, ...]
    explained: float | None  # share of ‖Q‖_F² in the pairs shown; None where the solver failed
    effective_rank: float | None  # None where the whole spectrum is not known
    effective_rank_chance: Chance | None  # under the rotation null; None where it was not sampled
    frobenius_norm: float | None
    trace: float | None
    linear_norm: float
    constant: float
    complete: bool  # proven: no eigenvalue that belongs to the selection was missed
    proof: str
    status: str

    @property
    def decomposed(self) -> bool:
        """Whether every pair passed its checks."""
        return self.status == Status.OK.value


@dataclass(frozen=True)
class Approximation:
    """How far a quadratic map stands for a layer that is not quadratic."""

    activation: str
    derivation: str
    assumed_input: str
    r_squared: float  # on samples of the assumed input
    standard_error: float
    linear_r_squared: float  # of the affine part of the map alone
    threshold: float  # below it the map is not read

    @classmethod
    def of(cls, fit: QuadraticFit, activation: str) -> Approximation:
        """Return what a fit says of itself."""
        scores = fit.r_squared
        return cls(
            activation,
            fit.derivation,
            fit.assumed_input,
            scores.quadratic.overall,
            scores.quadratic.standard_error,
            scores.linear.overall,
            fit.threshold,
        )


@dataclass(frozen=True)
class LayerDecomposition:
    """Leading eigenpairs of every output direction that was asked for."""

    layer: str
    basis: str  # "input", "embedding" or "whitened"
    output_kind: str  # "logits", "neurons" inside a model, or "outputs" of a layer by itself
    reading: str  # "class-centred", "raw" or "contrast"
    which: str  # the end of the spectrum
    spectrum: str  # "whole", or "top" where only the leading pairs were computed
    method: str
    precision: str
    d_in: int
    d_hidden: int
    d_out: int
    null_samples: int  # rotations for the level of chance of effective ranks; 0 for none
    outputs: tuple[OutputSpectrum, ...]
    approximation: Approximation | None = None  # None where the map is the layer
    about_input: str = ""  # what comes in, as far as it needs words: the norm before the layer

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"schema_version": SCHEMA_VERSION, "kind": "layer decomposition", **asdict(self)}


def summarise_spectra(
    eigs: EigenDecomposition,
    names: Sequence[str],
    traces: Tensor,
    ranks: Tensor | None,
    chances: Sequence[Chance | None] | None = None,
) -> tuple[OutputSpectrum, ...]:
    """Return the pairs of each form of a batch.

    Args:
        eigs: the pairs that are shown.
        names: one for each form.
        traces: (forms,), tr Q of each.
        ranks: (forms,), the effective rank of each; None where the whole spectrum is not known.
        chances: the level of chance of each rank; None where it was not sampled.
    """
    return tuple(
        _spectrum(
            eigs[index],
            name,
            float(traces[index]),
            None if ranks is None else float(ranks[index]),
            None if chances is None else chances[index],
        )
        for index, name in enumerate(names)
    )


def _spectrum(
    eig: EigenDecomposition, name: str, trace: float, rank: float | None, level: Chance | None
) -> OutputSpectrum:
    assert isinstance(eig.status, Status), "one form has one status"
    assert isinstance(eig.proof, Proof), "one form has one proof"
    linear, constant = float(eig.linear.norm()), float(eig.constant)
    if not bool(eig.eigenvalues.isfinite().all()):
        return OutputSpectrum(
            name,
            (),
            None,
            None,
            None,
            None,
            None,
            linear,
            constant,
            False,
            eig.proof.value,
            eig.status.value,
        )
    size = torch.where(eig.norm > 0, eig.norm, 1.0)  # its square may leave float64
    shares = (eig.eigenvalues / size).square().tolist()
    shown = zip(
        eig.eigenvalues.tolist(),
        shares,
        eig.residuals.tolist(),
        eig.converged.tolist(),
        eig.cluster_size.tolist(),
        strict=True,
    )
    pairs = tuple(Pair(*values) for values in shown)
    return OutputSpectrum(
        name,
        pairs,
        sum(pair.explained for pair in pairs),
        rank,
        level,
        float(eig.norm),
        trace,
        linear,
        constant,
        bool(eig.complete),
        eig.proof.value,
        eig.status.value,
    )
