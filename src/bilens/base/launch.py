"""Whether `torchrun` started this process, and which of how many it is; known without torch."""

import os

from bilens.base.errors import UsageError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


def launched() -> tuple[int, int, int]:
    """Return rank, number of processes, and number on this machine: 0, 1, 0 of one alone."""
    if any(name not in os.environ for name in NAMES):
        return 0, 1, 0
    said = [os.environ.get(name, os.environ["RANK"]) for name in (*NAMES[:2], "LOCAL_RANK")]
    if not all(one.isdecimal() for one in said) or int(said[0]) >= int(said[1]):
        raise UsageError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(said)}, which is no process of a run: "
            "start with torchrun, or unset them."
        )
    rank, world, local = map(int, said)
    return rank, world, local
