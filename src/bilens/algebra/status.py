"""How each item of a batch ended: one word for all that work on batches."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """How the work on one form, or along one output direction, ended."""

    OK = "every check passed"
    NOT_FINITE = "it holds NaN or infinity, or leaves float64, so there is no result"
    NOT_CONVERGED = "the solver did not converge"
    RESIDUAL_TOO_LARGE = "a residual, or the orthogonality of the vectors, is outside the tolerance"
    MISSED = "zero is an eigenvalue more often, by the rank of the form, than was found"
