"""What is offered where a claim is refused because the model is no quadratic map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bilens.algebra.approximation.quadratic_fit import QuadraticFit, in_words
from bilens.api.quadratic_fit import Subject, quadratic_fit
from bilens.base.errors import BilensError, NotQuadraticError

SAMPLES = 2_000  # two digits of R² are enough for an offer


@contextmanager
def offering_a_fit(subject: Subject, name: str = "model") -> Iterator[None]:
    """Follow a refusal by what can be had instead: the closest quadratic map and its R²."""
    try:
        yield
    except NotQuadraticError as error:
        raise NotQuadraticError(f"{error} {offer(subject, name)}".rstrip()) from error


def offer(subject: Subject, name: str) -> str:
    """Return the sentence; empty where there is no fit to offer."""
    try:
        fit = quadratic_fit(subject, samples=SAMPLES)
    except BilensError:  # the refusal itself is what has to be said
        return ""
    return offer_of(fit, name)


def offer_of(fit: QuadraticFit, name: str) -> str:
    """Return the sentence on a fit: its R², and how to have it."""
    found = f"The closest quadratic map under {fit.assumed_input} has {in_words(fit.r_squared)}"
    if not fit.usable:
        return (
            f"{found}, below the {fit.threshold:g} at which it would stand for the model; "
            f"bl.quadratic_fit({name}) has it, and nothing is proven of the model by it."
        )
    return f"{found}: read it with bl.quadratic_fit({name}); nothing is proven of the model by it."
