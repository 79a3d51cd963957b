"""Which outputs a text such as "0,3,7-9" or "cat,dog" names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bilens.errors import UsageError


def select_outputs(text: str | None, names: Sequence[str]) -> list[int]:
    """Return the positions of the outputs that a text names, each once, in its order.

    Args:
        text: parts between commas: an index from 0, a range "3-7" with both ends, or a name;
            None for all outputs. A part that is a name is taken as one.
        names: of all outputs.

    Raises:
        UsageError: If a part names no output, or there is no part.
    """
    if text is None:
        return list(range(len(names)))
    positions = {name: index for index, name in enumerate(names)}
    chosen: dict[int, None] = {}
    for part in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if part in positions:
            chosen[positions[part]] = None
        elif span is not None and int(span[1]) <= int(span[2] or span[1]) < len(names):
            chosen.update(dict.fromkeys(range(int(span[1]), int(span[2] or span[1]) + 1)))
        else:
            raise UsageError(
                f"{part!r} in {text!r} names no output: expected an index from 0 to "
                f"{len(names) - 1}, a range such as 3-7, or one of the names "
                f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}."
            )
    return list(chosen)
