"""The eigenpairs of a layer's outputs, as plain numbers for a table or JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.findings.records import SCHEMA_VERSION


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
    effective_rank: float | None  # of the whole spectrum
    frobenius_norm: float | None
    trace: float | None
    linear_norm: float
    constant: float
    complete: bool
    status: str


@dataclass(frozen=True)
class LayerDecomposition:
    """Leading eigenpairs of every output direction that was asked for."""

    layer: str
    basis: str  # "input" or "embedding"
    reading: str  # "class-centred", "raw" or "contrast"
    method: str
    d_in: int
    outputs: tuple[OutputSpectrum, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"schema_version": SCHEMA_VERSION, "kind": "decomposition", **asdict(self)}


def summarise_spectra(
    eigs: EigenDecomposition, names: tuple[str, ...], top: int, layer: str, basis: str, reading: str
) -> LayerDecomposition:
    """Return the `top` leading pairs of each form of a batch of whole spectra.

    Args:
        eigs: whole spectra, by falling |λ|.
        names: one for each form.
        top: how many pairs of each form are shown.
        layer: the name of the layer, for the record.
        basis: the basis of the input, for the record.
        reading: which output directions these are, for the record.
    """
    outputs = tuple(_spectrum(eigs[index], name, top) for index, name in enumerate(names))
    return LayerDecomposition(
        layer, basis, reading, eigs.method, eigs.eigenvectors.shape[-1], outputs
    )


def _spectrum(eig: EigenDecomposition, name: str, top: int) -> OutputSpectrum:
    assert isinstance(eig.status, Status), "one form has one status"
    linear, constant = float(eig.linear.norm()), float(eig.constant)
    if eig.status in (Status.NOT_FINITE, Status.NOT_CONVERGED):
        return OutputSpectrum(
            name, (), None, None, None, None, linear, constant, False, eig.status.value
        )
    mass = torch.where(eig.frobenius_squared > 0, eig.frobenius_squared, 1.0)
    pairs = tuple(
        Pair(
            float(eig.eigenvalues[index]),
            float(eig.eigenvalues[index].square() / mass),
            float(eig.residuals[index]),
            bool(eig.converged[index]),
            int(eig.cluster_size[index]),
        )
        for index in range(min(top, len(eig.eigenvalues)))
    )
    return OutputSpectrum(
        name,
        pairs,
        sum(pair.explained for pair in pairs),
        float(effective_rank(eig.distinct_from_zero)),
        float(eig.frobenius_squared.sqrt()),
        float(eig.eigenvalues.sum()),
        linear,
        constant,
        bool(eig.complete),
        eig.status.value,
    )
