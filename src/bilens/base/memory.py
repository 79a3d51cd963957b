"""Memory: what an algorithm takes, estimated before anything is allocated, and what it may take."""

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from bilens.base.checks import as_integer
from bilens.base.errors import MemoryLimitError, UsageError

MEMORY_LIMIT_VARIABLE = "BILENS_MEMORY_LIMIT"
MEMORY_SHARE = 0.75  # of the memory there is, when the variable is not set
CONTAINER_LIMITS = (  # bytes, or "max"; cgroup v2 and v1
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class MemoryEstimate:
    """The bytes that an algorithm holds in any case, and those of each item worked on at a time."""

    fixed: int
    each: int

    def peak(self, num: int, most: int) -> int:
        """Return the bytes where as many of `num` items are worked on together as `most` holds."""
        return self.fixed + min(num, max(most // self.each, 1)) * self.each

    def at_a_time(
        self,
        num: int,
        most: int,
        what: str,
        instead: str,
        limit: int | str | None,
        device: Any = None,
    ) -> int:
        """Return how many of `num` items are worked on together; refused if not even one fits."""
        allowed = memory_limit(limit, device)
        if self.fixed + self.each > allowed:
            check_memory(self.fixed + self.each, what, instead, limit, device)
        return max(min(min(most, allowed - self.fixed) // self.each, num), 1)


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as "800M", "4GiB" or "4000000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None or not 0 < float(match[1]) < math.inf:
        raise UsageError(
            f"{text!r} is not a memory size: write a positive number with an optional unit, "
            "for example 800M or 4GiB."
        )
    return int(float(match[1]) * UNITS[match[2]])


def readable(num_bytes: int) -> str:
    """Return a size for people, in GiB, or in MiB below one."""
    unit, name = (2**30, "GiB") if num_bytes >= 2**30 else (2**20, "MiB")
    return f"{num_bytes / unit:.2f} {name}"


def memory_limit(chosen: int | str | None = None, device: Any = None) -> int:
    """Return the bytes that work may take on a device of torch, None for the processor."""
    number = as_integer(chosen)
    if number is not None and number > 0:
        return number
    if chosen is not None and not isinstance(chosen, str):
        raise UsageError(
            f"the memory limit is {chosen!r}; expected a positive number of bytes or a text such "
            "as 4GiB."
        )
    text = chosen if chosen is not None else os.environ.get(MEMORY_LIMIT_VARIABLE)
    if text or chosen is not None:
        return parse_bytes(text or "")
    return int(MEMORY_SHARE * (device_memory(device) or available_memory()))


def device_memory(device: Any) -> int | None:
    """Return the bytes of a device that has memory of its own and says how much."""
    if device is None:
        return None
    import torch  # of which it is a device: this file does without

    module: Any = getattr(torch, device.type, None)
    return module.mem_get_info(device)[1] if hasattr(module, "mem_get_info") else None


def available_memory() -> int:
    """Return the bytes of physical memory, or of what the container may use where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - a fact of the kernel
                text = file.read().strip()
        except OSError:  # no such limit on this machine
            continue
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def check_memory(
    num_bytes: int, what: str, instead: str, limit: int | str | None = None, device: Any = None
) -> int:
    allowed = memory_limit(limit, device)
    if num_bytes > allowed:
        more = f"set {MEMORY_LIMIT_VARIABLE}" if limit is None else "allow a larger memory_limit"
        raise MemoryLimitError(
            f"{what} needs {readable(num_bytes)}, the limit is {readable(allowed)}: "
            f"{instead}, or {more}."
        )
    return num_bytes
