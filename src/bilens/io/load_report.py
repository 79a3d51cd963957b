"""The report of loading: what was taken for what, and how far it is the source."""

from __future__ import annotations

from collections.abc import Mapping

from bilens.base.notebook import frozen_result
from bilens.nn.agreement import Agreement

LINES = 12  # of a kind that are shown


@frozen_result("guessed", "checks", "left_out")
class LoadReport:
    """The roles that a reader gave to tensors, said so that they can be looked over.

    Attributes:
        roles: layer → what it is made of, in words.
        guessed: whether names and shapes alone decided it.
        checks: what was compared → how far it is from the source; empty where nothing is there that
            does not rest on the same guess, or on what the caller says.
        left_out: what was not read, in words.
        head: what the source applies behind the last layer; None for nothing.
        unverified: what could not be compared with the object or the file as it runs, and why,
            where that is neither a guess nor what a caller says.
        hooks: the parts of a module in memory with hooks.
    """

    roles: Mapping[str, str]
    guessed: bool
    checks: Mapping[str, Agreement]
    left_out: tuple[str, ...] = ()
    head: str | None = None
    unverified: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the layers were compared with something independent of how they were read."""
        return bool(self.checks) and not self.unverified

    @property
    def worst(self) -> Agreement | None:
        """The check that came out worst; None without any."""
        return max(self.checks.values(), key=lambda check: check.max_error, default=None)

    def lines(self) -> list[str]:
        """Return the sentences that a person should know before trusting the layers."""
        how = "Guessed from names and shapes" if self.guessed else "Read"
        said = [f"{how}: {name}: {text}." for name, text in self.roles.items()]
        where = "what they do to inputs other than those compared is not known."
        hooks = [f"Hooks at {', '.join(self.hooks)}: {where}"] if self.hooks else []
        return [
            *shown(said, "layers"),
            self.comparison(),
            *hooks,
            *([f"Behind the last layer: {self.head}, which is not read."] if self.head else []),
            *shown([f"Unverified: {text}." for text in self.unverified], "layers not verified"),
            *shown([f"Not read: {text}." for text in self.left_out], "parts not read"),
        ]

    def comparison(self) -> str:
        """Say how far the layers are from their source, as far as they were compared with it."""
        worst = self.worst
        if worst is None and self.unverified:
            return "Nothing that was read could be compared with the model as it runs."
        if worst is None:
            how = "guessed" if self.guessed else "as you said"
            return (
                f"Unverified: roles are {how}, the activation is as you said, and the file holds "
                "nothing to compare them with."
            )
        largest = max(check.largest for check in self.checks.values())
        rows = max(check.rows for check in self.checks.values())
        return (
            f"Largest difference from {worst.source}: {worst.max_error:.1e} on {rows} inputs, "
            f"where the largest output is {largest:.3g}."
        )


def shown(lines: list[str], what: str) -> list[str]:
    if len(lines) <= LINES:
        return lines
    return [*lines[: LINES - 1], f"… {len(lines) - LINES + 1} more {what}."]
