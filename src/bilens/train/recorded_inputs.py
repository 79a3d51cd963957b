"""Inputs of layers on a text, files or a tensor: run when asked, kept in memory or a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from bilens.algebra.approximation.quadratic_fit import LEAST_ROWS, SeenRows
from bilens.algebra.gaussian import RowMoments, row_moments
from bilens.algebra.repeated_rows import rows_alone
from bilens.base import silent
from bilens.base.errors import DiskError, OutputExistsError, UsageError, first_line
from bilens.base.files import write_file
from bilens.base.memory import readable
from bilens.data.tokenizer import Tokenizer
from bilens.io.byte_ranges import unreadable
from bilens.io.host import Host, Site
from bilens.records.common import DataOrigin, TextOrigin
from bilens.train.device import device_of
from bilens.train.layer_inputs import LayerRows, rows_given
from bilens.train.run_folder import RUN_NAME, check_same_run, lock_run
from bilens.version import VERSION

Part = Literal["fit", "held_out"]

POSITIONS, INPUTS = 1024, 64  # tokens of texts, or other inputs, that run together
MOST_NUMBERS = 1 << 28  # in all rows that are kept in memory: 1 GiB in float32
LEFT_FREE = 1 << 28  # bytes of a disk
FILE = "{}-{:05}.safetensors"
PLACES = ".places"  # behind the name of a layer


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """The inputs of layers of a model, in two parts that share no document."""

    host: Host
    sites: Mapping[str, Site]  # layer → where it runs
    items: Mapping[Part, Tensor]  # texts (texts, tokens) int64, or other inputs (inputs, …)
    about: Mapping[str, Any]  # SHA-256 of the model and of what it reads, sizes, seed and layers
    text: TextOrigin | None = None  # None for other inputs, like the tokenizer
    tokenizer: Tokenizer | None = None
    folder: Path | None = None  # where it is stored; None where the model runs each time
    data: DataOrigin | None = None  # of files, which have been run
    again: Callable[[nn.Module], Mapping[str, LayerRows]] | None = None  # runs one file of them
    _kept: dict[Part, Mapping[str, LayerRows]] = field(default_factory=dict, repr=False)

    def batches(
        self, part: Part = "fit", layers: Sequence[str] = ()
    ) -> Iterator[Mapping[str, LayerRows]]:
        """Yield layer → rows with their places, of one run of the model, or one file, at a time."""
        sites = self.named(layers)
        if self.data is not None:
            yield {site.name: self._kept[part][site.name] for site in sites}
        for number, items in enumerate(self.runs(part)):
            if self.folder is None:
                yield self.ran(items, sites)
            else:
                yield read_layer_rows(self.folder / FILE.format(part, number), sites)

    @property
    def num_rows(self) -> int:
        """The numbers in all items, or of files the rows that are kept of the layer with most."""
        if self.data is None:
            return sum(items.numel() for items in self.items.values())
        return max(sum(len(part[name].x) for part in self._kept.values()) for name in self.sites)

    def rows(self, layer: str, part: Part = "fit") -> LayerRows:
        """Return all rows of a layer; the next layers, up to 1 GiB, are kept for the next call."""
        (site,) = self.named([layer])
        if layer not in self._kept.get(part, {}):
            count = max(1, MOST_NUMBERS // (self.items[part].numel() * site.view.sizes.d_in))
            names = [*self.sites][[*self.sites].index(layer) :][:count]
            found = [*self.batches(part, names)]
            self._kept[part] = {n: LayerRows.joined([one[n] for one in found]) for n in names}
        return self._kept[part][layer]

    def to_fit(self, layer: str) -> SeenRows | None:
        """Return rows to fit a layer to, and those held out; None for too few.

        Rows of files that repeat others are left in: what is seen more often counts for more.
        """
        if layer not in self.sites:
            return None
        x, (held, _, files) = self.rows(layer).x, self.rows(layer, "held_out")
        if files is None and len(held) and len(x):
            held = held[rows_alone(held, x)]
        if min(len(x), len(held)) < LEAST_ROWS:  # of an expert that hardly any token reaches
            return None
        what = "inputs" if self.text is None else f"tokens in documents of {self.text.name}"
        if files is not None and self.data is not None:
            count = len(torch.unique(files))
            what = f"inputs from {count} {'file' if count == 1 else 'files'} of {self.data.name}"
        return SeenRows(x, held, f"{len(held):,} {what} that nothing was fitted to", files)

    def moments(self, layer: str, part: Part = "fit") -> RowMoments:
        """Return mean, covariance, kurtosis and norms of what a layer is given, streamed."""
        return row_moments(batch[layer].x for batch in self.batches(part, [layer]))

    def store(
        self, folder: str | Path, report: Callable[[str, int, int], None] = silent
    ) -> LayerInputs:
        """Return the same from a folder, where what is missing is written first, file by file.

        Raises: UsageError for a folder of another model, text or split; OutputExistsError for one
            of something else; DiskError before the disk is full.
        """
        if self.data is not None:
            raise UsageError("what layers see of files is kept in memory alone: leave it out.")
        place, recipe = Path(folder), dict(self.about)
        about = {"data": recipe.pop("data_sha256"), "recipe": recipe}
        if (place / RUN_NAME).exists():
            check_same_run(place, about, "text")
        elif place.is_file() or (place.exists() and any(place.iterdir())):
            raise OutputExistsError(f"{folder} holds no activations of bilens: name a new folder.")
        with lock_run(place):
            self.check_kept(place / FILE.format("fit", 0))
            for left in place.glob(".*.*.*"):  # of a process that was killed
                left.unlink()
            said = {"model": str(self.host.source), "text": self.text and self.text.source}
            said["made_by"] = f"bilens {VERSION}, torch {torch.__version__}"
            write_file(place / RUN_NAME, json.dumps(about | said, indent=1).encode())
            named = ((FILE.format(p, n), r) for p in self.items for n, r in enumerate(self.runs(p)))
            missing = [(place / name, run) for name, run in named if not (place / name).exists()]
            for done, (path, items) in enumerate(missing):
                report("activations", done, len(missing))
                found = self.ran(items, self.named(())).items()
                content = {name: rows.x for name, rows in found}
                content |= {name + PLACES: rows.places for name, rows in found}
                data = to_safetensors(content)
                check_space(place, len(data) * (len(missing) - done))
                write_file(path, data)
        return replace(self, folder=place)

    def check_kept(self, path: Path) -> None:
        """Refuse rows that the model does not give: the same weights can be run otherwise."""
        sites = [site for site in self.named(()) if site.expert is None] if path.exists() else []
        kept = read_layer_rows(path, sites) if sites else {}
        now = self.ran(self.runs("fit")[0], sites) if sites else {}
        if (name := first_unlike(kept, now)) is not None:
            raise UsageError(
                f"{path.parent} holds what {name} was given by a model that ran otherwise "
                "(another activation, config.json or forward): name a new folder."
            )

    def check_given_by(self, module: nn.Module | None, config_sha256: str | None) -> None:
        """Refuse rows of another config.json, or that a module, run on some, does not give.

        Numbers in the code of a module are in no hash; None for a model of which layers are read.
        """
        if config_sha256 not in (None, self.about.get("config_sha256", config_sha256)):
            raise UsageError("inputs were recorded with another config.json: record them anew.")
        if module is None:
            return
        if self.again is not None:
            name = first_unlike(self.again(self.host.module), self.again(module))
        else:
            sites, items = self.named(()), self.runs("fit")[0]
            other = replace(self, host=replace(self.host, module=module).twin())
            other.host.module.eval()
            name = first_unlike(self.ran(items, sites), other.ran(items, sites))
        if name is not None:
            raise UsageError(
                f"inputs are what {name} is given by a model of the same weights that runs "
                "otherwise: what stands before the layer gives this model other inputs; record "
                "them of this one."
            )

    def named(self, layers: Sequence[str]) -> list[Site]:
        """Return the sites of layers, all for none; refuse one that is not there."""
        for name in layers:
            if name not in self.sites:
                known = ", ".join([*self.sites][:8])
                raise UsageError(f"{name!r} is none of the layers that can be seen: {known}.")
        return [self.sites[name] for name in layers or self.sites]

    def runs(self, part: Part) -> tuple[Tensor, ...]:
        """Return the items of a part as they run together."""
        if part not in self.items:
            return ()
        items = self.items[part]
        count = max(1, POSITIONS // items.shape[1]) if self.host.stack else INPUTS
        return torch.split(items, count)

    def ran(self, items: Tensor, sites: Sequence[Site]) -> dict[str, LayerRows]:
        """Run the model on some items and return the inputs of its layers, on the CPU."""
        module, items = self.host.module, items.to(device_of(self.host.module))
        try:
            found = rows_given(module, sites, items, lambda: self.host.logits(items))
        except (RuntimeError, IndexError) as error:
            if self.text is not None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UsageError(
                f"inputs of {items.dtype} and shape {tuple(items.shape)} do not run through the "
                f"{type(module).__name__} ({first_line(error)}): pass what it takes, "
                "numbers as floats."
            ) from error
        return {name: LayerRows(rows.x.cpu(), rows.places.cpu()) for name, rows in found.items()}


def first_unlike(one: Mapping[str, LayerRows], other: Mapping[str, LayerRows]) -> str | None:
    """Return the first layer whose rows differ by more than rounding; None for none."""
    for name, rows in other.items():
        x, now = one[name].x, rows.x
        eps = max(torch.finfo(part.dtype).eps for part in (x, now))
        size = eps**0.5 * float(now.abs().max())
        if x.shape != now.shape or not torch.allclose(x.to(now.dtype), now, rtol=0, atol=size):
            return name
    return None


def read_layer_rows(path: Path, sites: Sequence[Site]) -> dict[str, LayerRows]:
    """Return layers of one file of a folder."""
    try:
        with safe_open(str(path), framework="pt") as file:
            load, names = file.get_tensor, [site.name for site in sites]
            return {name: LayerRows(load(name), load(name + PLACES)) for name in names}
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def check_space(folder: Path, num_bytes: int) -> None:
    free = max(shutil.disk_usage(folder).free - LEFT_FREE, 0)
    if num_bytes > free:
        raise DiskError(
            f"{folder}: the activations take {readable(num_bytes)} more and the disk has "
            f"{readable(free)} to spare: take fewer tokens (--tokens) or another disk; what is "
            "finished is kept."
        )
