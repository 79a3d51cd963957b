"""How many cases a property of the contract draws: a few in `make test`, many in `make hunt`."""

import os

from hypothesis import HealthCheck, settings

CASES = int(os.environ.get("BILENS_HUNT") or 5)  # of each property

# The same cases every time in `make test`, new ones in a hunt. Where one takes long, `fewer` of
# them are drawn: `@fewer(5)` draws a fifth.
drawn = settings(
    max_examples=CASES,
    deadline=None,
    derandomize="BILENS_HUNT" not in os.environ,
    suppress_health_check=[*HealthCheck],
)


def fewer(times: int) -> settings:
    """Return settings that draw fewer cases of a slow property, at least two."""
    return settings(drawn, max_examples=max(2, CASES // times))
