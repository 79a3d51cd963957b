"""What an algorithm takes in memory, estimated from sizes before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.base.checks import check_memory, memory_limit


@dataclass(frozen=True)
class MemoryEstimate:
    """The bytes that an algorithm holds in any case, and those of each item worked on at a time."""

    fixed: int
    each: int

    def peak(self, num: int, most: int) -> int:
        """Return the bytes where as many of `num` items are worked on together as `most` holds."""
        return self.fixed + min(num, max(most // self.each, 1)) * self.each

    def at_a_time(
        self, num: int, most: int, what: str, instead: str, limit: int | str | None
    ) -> int:
        """Return how many of `num` items are worked on together; refused if not even one fits."""
        check_memory(self.fixed + self.each, what, instead, limit)
        room = min(most, memory_limit(limit) - self.fixed)
        return min(max(room // self.each, 1), num)
