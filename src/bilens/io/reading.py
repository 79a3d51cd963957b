"""How layers were found in what is no model of ours, and how far they are from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bilens.io.exactness import Exactness
from bilens.nn.mlp_search.layer_check import LayerCheck

LINES = 12  # of a kind that are shown


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader took for what, said so that it can be looked over.

    Attributes:
        roles: layer → what it is made of, in words.
        guessed: whether names and shapes alone decided it.
        checks: what was compared → how far it is from the source.
        against: what it was compared with, in words.
        left_out: what was not read, in words.
        head: what the source applies behind the last layer; None for nothing.
    """

    roles: Mapping[str, str]
    guessed: bool
    checks: Mapping[str, LayerCheck]
    against: str
    left_out: tuple[str, ...] = ()
    head: str | None = field(default=None)

    @property
    def max_error(self) -> float:
        """The largest difference of an output from the source, over all checks."""
        return max(check.max_error for check in self.checks.values())

    def exactness(self) -> Exactness:
        """Return the check that came out worst, in the form of every other model's."""
        name, check = max(self.checks.items(), key=lambda item: item[1].max_error)
        relative = check.max_error / check.largest if check.largest > 0 else check.max_error
        return Exactness(name, self.against, check.rows, check.max_error, relative)

    def lines(self) -> list[str]:
        """Return what a person should know before trusting the layers."""
        how = "Guessed from names and shapes" if self.guessed else "Read"
        largest = max(check.largest for check in self.checks.values())
        rows = max(check.rows for check in self.checks.values())
        said = [f"{how}: {name}: {text}." for name, text in self.roles.items()]
        return [
            *shown(said, "layers"),
            f"Largest difference from {self.against}: {self.max_error:.1e} on {rows} random "
            f"inputs, where the largest output is {largest:.3g}.",
            *([f"Behind the last layer: {self.head}, which is not read."] if self.head else []),
            *shown([f"Not read: {text}." for text in self.left_out], "parts not read"),
        ]


def shown(lines: list[str], what: str) -> list[str]:
    """Return the first lines of many, and how many more there are."""
    if len(lines) <= LINES:
        return lines
    return [*lines[: LINES - 1], f"… {len(lines) - LINES + 1} more {what}."]
