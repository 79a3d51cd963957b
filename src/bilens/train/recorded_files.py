"""Runs a model on files and keeps some of the rows that each layer is given, in bounded memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bilens.base import Progress
from bilens.base.checks import check_finite
from bilens.base.errors import UsageError
from bilens.data.sample_files import SampleFiles
from bilens.io.runner import LayerEntry, Runner
from bilens.train.layer_inputs import LayerRows
from bilens.train.recorded_inputs import MOST_NUMBERS


@dataclass(eq=False)
class Reservoir:
    """Rows of one layer, drawn evenly from all that it is given: at most so many, in their order.

    Each row has a random key, and those with the smallest keys are kept: no other row is made.
    """

    entry: LayerEntry
    most: int
    generator: torch.Generator
    met: int = 0  # rows that there were
    parts: list[tuple[Tensor, ...]] = field(default_factory=list)  # keys, numbers, files, rows
    held: int = 0  # rows in the parts
    limit: float = 1.0

    def add(self, name: str, value: Tensor, file: int) -> None:
        """Take some of the rows of a value."""
        keys = torch.rand(self.entry.count(value), generator=self.generator, dtype=torch.float64)
        chosen = smallest(keys, self.most)
        chosen = chosen[keys[chosen] < self.limit]
        numbers = self.met + chosen
        self.met += len(keys)
        if len(chosen) == 0:
            return
        x = check_finite(f"what reaches {name}", self.entry.rows(value, chosen).clone())
        self.parts.append((keys[chosen], numbers, torch.full_like(chosen, file), x))
        self.held += len(chosen)
        if self.held > 2 * self.most:  # at most two thirds are copied again
            self.shrink()

    def shrink(self) -> None:
        """Leave out all but the rows of the smallest keys."""
        keys, *others = (torch.cat(one) for one in zip(*self.parts, strict=True))
        kept = smallest(keys, self.most)
        self.parts, self.held = [(keys[kept], *(one[kept] for one in others))], len(kept)
        self.limit = float(keys[kept].max()) if len(kept) == self.most else 1.0

    def rows(self) -> LayerRows:
        """Return the rows that are kept: the place of one is its number among all that were met."""
        if not self.parts:
            none = torch.zeros(0, 2, dtype=torch.int32)
            return LayerRows(torch.zeros(0, self.entry.width), none, none[:, 0])
        self.shrink()
        ((_, numbers, files, x),) = self.parts
        places = torch.stack([numbers, torch.full_like(numbers, -1)], dim=1)
        return LayerRows(x, places.to(torch.int32), files.to(torch.int32))


def smallest(keys: Tensor, most: int) -> Tensor:
    """Return which keys are the smallest, in their order."""
    if len(keys) <= most:
        return torch.arange(len(keys))
    return keys.topk(most, largest=False, sorted=False).indices.sort().values


def rows_in_memory(rows: int, widths: Sequence[int]) -> int:
    """Return how many rows of each layer are kept for a fit, and as many that are held out.

    While they are drawn there are up to three times as many.
    """
    return max(1, min(rows, MOST_NUMBERS // (6 * max(1, sum(widths)))))


def record_files(
    runner: Runner,
    samples: SampleFiles,
    files: Sequence[Path],
    entries: Mapping[str, LayerEntry],
    most: int,
    seed: int,
    report: Progress,
) -> dict[str, LayerRows]:
    """Run a model on files and return rows of its layers, each with the number of its file."""
    kept = {
        name: Reservoir(entry, most, torch.Generator().manual_seed(seed))
        for name, entry in entries.items()
    }
    for number, path in enumerate(files):
        report("files", number, len(files))
        for call in samples.calls(path):
            for name, value in runner.run(call).items():
                if not value.is_floating_point():
                    raise UsageError(f"what reaches {name} is {value.dtype}: no row of a layer.")
                kept[name].add(name, value, number)
    return {name: one.rows() for name, one in kept.items()}


def split_files(
    samples: SampleFiles, held_out: float, seed: int
) -> tuple[Sequence[Path], Sequence[Path], str]:
    """Return files to fit to, others that are held out, and the hash of all; none is in both."""
    count, files = len(samples.files), samples.files
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held = min(max(1, round(held_out * count)), count - 1)
    said = " ".join([*sorted(samples.sha256), *map(str, samples.notes())])
    sha256 = hashlib.sha256(said.encode()).hexdigest()
    fitted, kept = ([files[one] for one in sorted(part)] for part in (order[held:], order[:held]))
    return fitted, kept, sha256
