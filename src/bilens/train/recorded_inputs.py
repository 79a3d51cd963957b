"""`bl.layer_inputs`: what layers see of a text or of inputs, run when asked or kept in a folder."""

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

from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.algebra.approximation.quadratic_fit import LEAST_ROWS
from bilens.algebra.moments import RowMoments, row_moments
from bilens.algebra.repeated_rows import rows_alone
from bilens.base import silent
from bilens.base.errors import DiskError, OutputExistsError, UsageError, first_line
from bilens.base.files import file_sha256, write_file
from bilens.base.memory import readable
from bilens.base.option_rules import refuse_idle
from bilens.data.tokenizer import Tokenizer
from bilens.io.byte_ranges import unreadable
from bilens.io.converted_folder import open_model
from bilens.io.file_kinds import find_model
from bilens.io.host import Host, Site, host_of, tokenizer_at
from bilens.io.load import from_module, load
from bilens.io.loaded_model import CONFIG_NAME, foreign_keys
from bilens.io.tensors import tensors_sha256
from bilens.nn import BilinearTransformer
from bilens.nn.layer_view import LayerView
from bilens.records.common import TextOrigin
from bilens.train.corpus import CorpusOptions
from bilens.train.device import device_of
from bilens.train.layer_inputs import LayerRows, Mixture, check_enough, rows_given
from bilens.train.run_folder import RUN_NAME, check_same_run, lock_run
from bilens.version import VERSION

Part = Literal["fit", "held_out"]

POSITIONS, INPUTS = 1024, 64  # tokens of texts, or other inputs, that run together
KEPT = 1 << 28  # numbers in memory: 1 GiB in float32
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
    _kept: dict[Part, Mapping[str, LayerRows]] = field(default_factory=dict, repr=False)

    def batches(
        self, part: Part = "fit", layers: Sequence[str] = ()
    ) -> Iterator[Mapping[str, LayerRows]]:
        """Yield layer → rows with their places, of one run of the model, or one file, at a time."""
        sites = self.named(layers)
        for number, items in enumerate(self.runs(part)):
            if self.folder is None:
                yield self.ran(items, sites)
            else:
                yield read_layer_rows(self.folder / FILE.format(part, number), sites)

    def rows(self, layer: str, part: Part = "fit") -> LayerRows:
        """Return all rows of a layer; the next layers, up to 1 GiB, are kept for the next call."""
        (site,) = self.named([layer])
        if layer not in self._kept.get(part, {}):
            count = max(1, KEPT // (self.items[part].numel() * site.view.sizes.d_in))
            names = [*self.sites][[*self.sites].index(layer) :][:count]
            found = [*self.batches(part, names)]
            self._kept[part] = {n: LayerRows.joined([one[n] for one in found]) for n in names}
        return self._kept[part][layer]

    def to_fit(self, layer: str) -> tuple[Tensor, Tensor, str] | None:
        """Return rows to fit a layer to, those held out, and these in words; None for too few."""
        if layer not in self.sites:
            return None
        x, held = self.rows(layer).x, self.rows(layer, "held_out").x
        held = held[rows_alone(held, x)] if len(held) and len(x) else held
        if min(len(x), len(held)) < LEAST_ROWS:  # of an expert that hardly any token reaches
            return None
        what = "inputs" if self.text is None else f"tokens in documents of {self.text.name}"
        return x, held, f"{len(held):,} {what} that nothing was fitted to"

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


def layer_inputs(
    model: str | Path | nn.Module,
    data: str | Path | CorpusOptions | Tensor,
    *,
    layers: Sequence[str] = (),
    tokens: int = 20_000,
    n_ctx: int = 128,
    held_out: float = 0.2,
    seed: int = 0,
) -> LayerInputs:
    """Return the inputs that the MLPs of a model are given, of a text or of rows.

    Nothing runs before `batches`, `moments` (memory of one run), `rows` (of a layer) or `store`.

    Args:
        model: the path of a language model: a folder of Hugging Face, a .gguf file, a run of
            `bilens train language`; or any module with MLPs, which is not changed.
        data: a text, as for `bilens train language`; of a module tokens (texts, tokens) or other
            inputs (inputs, …), each a document; floats of a dtype that
            no weight has are read in that of the first.
        layers: some of them, by name; all for none.
        tokens: of the text, held-out ones among them.
        n_ctx: tokens that are read together.
        held_out: share of the documents, and of the tokens.
        seed: which documents are held out, and which text is read.

    Raises: UsageError for a layer that is not there or whose inputs cannot be had; DataError for
        too little text; when they are met, NonFiniteError for NaN or infinity and UsageError for
        inputs that the module does not run on.
    """
    if not 0 < held_out < 1:
        raise UsageError(f"held_out must be more than 0 and less than 1, got {held_out!r}.")
    if isinstance(model, str | Path) and not isinstance(data, Tensor):
        options = data if isinstance(data, CorpusOptions) else CorpusOptions(str(data))
        options = replace(options, held_out=held_out)
        found = of_text(open_host(Path(model)), options, tokens, n_ctx, seed)
    elif isinstance(model, nn.Module) and isinstance(data, Tensor):
        refuse_idle("layer inputs", {"tokens": tokens, "n_ctx": n_ctx})
        found = of_tensor(model, data, held_out, seed)
    else:
        raise UsageError("pass the path of a language model and a text, or a module and a tensor.")
    chosen = {site.name: site for site in found.named(layers)}
    return replace(found, sites=chosen, about={**found.about, "layers": [*chosen], "seed": seed})


def open_host(path: Path) -> Host:
    """Return a language model whose layers have the names, and read the units, of `bl.load`."""
    found = find_model(path)  # a name of the hub too
    if foreign_keys(found) & {"model_type", "architectures"}:
        loaded = load(found)  # whole or its MLPs alone
        if isinstance(loaded.module, BilinearTransformer):
            return host_of(loaded.module.float(), found, loaded.read_sha256)
    return open_model(found)


def of_text(host: Host, text: CorpusOptions, tokens: int, n_ctx: int, seed: int) -> LayerInputs:
    n_ctx = min(n_ctx, host.n_ctx)
    corpus, tokenizer = text.load(), tokenizer_at(host)
    mixture = Mixture([corpus], tokenizer, n_ctx, seed)
    (kept,) = mixture.held_out.values()
    held = max(1, round(tokens * text.held_out / n_ctx))
    count = max(1, tokens // n_ctx - held)
    check_enough(mixture.tokens, count * n_ctx, "what layers see")
    check_enough(kept.numel(), held * n_ctx, "what is held out")
    widest = max(site.view.sizes.d_in for site in host.sites)
    check_enough(count * n_ctx, widest + 1, f"a layer of {widest} inputs")
    about = {"model_sha256": host.sha256, "data_sha256": mixture.fingerprint, "n_ctx": n_ctx}
    about |= {"fit": count, "held_out": held}
    if (config := Path(host.source) / CONFIG_NAME).is_file():  # what else a run depends on
        about["config_sha256"] = file_sha256(config)
    origin = TextOrigin(corpus.name, corpus.source, (count + held) * n_ctx, mixture.fingerprint)
    items: dict[Part, Tensor] = {"fit": mixture.texts(0, count), "held_out": kept[:held]}
    sites = {site.name: site for site in host.sites}
    return LayerInputs(host, sites, items, about, origin, tokenizer)


def of_tensor(module: nn.Module, data: Tensor, held_out: float, seed: int) -> LayerInputs:
    if data.ndim < 2 or len(data) < 2:
        raise UsageError(f"inputs have shape {tuple(data.shape)}; expected (2 or more, …).")
    read = from_module(module)
    sites = {n: Site(n, (entry(module, view),), view) for n, view in read.layers.items()}
    host = Host(module, "", tuple(sites.values()), Path()).twin()
    host.module.eval()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    about: dict[str, Any] = {"model_sha256": read.weights_sha256}
    about |= {"data_sha256": tensors_sha256([("data", data)])}
    kinds = [one.dtype for one in module.parameters() if one.is_floating_point()]
    if data.is_floating_point() and data.dtype not in kinds:
        data = data.to(kinds[0])
    count = min(max(1, round(held_out * len(data))), len(data) - 1)
    held, rest = data[order].tensor_split([count])
    about |= {"fit": len(rest), "held_out": len(held)}
    return LayerInputs(host, sites, {"fit": rest, "held_out": held}, about)


def entry(module: nn.Module, view: LayerView) -> str:
    """Return the path of the linear map in a module whose weights begin a layer, as they are."""
    layer = view.weights()
    first = (layer.gate if isinstance(layer, GLUWeights) else layer.up).cpu()
    for name, parameter in module.named_parameters():
        if name not in view.tensors or parameter.ndim != 2:  # another layer may have the same
            continue
        weight = parameter.detach().cpu()
        for one in (weight, weight.T):  # (in, out) of a Conv1D
            if any(torch.equal(part, first) for part in (one[: len(first)], one[-len(first) :])):
                return name.rpartition(".")[0]
    raise UsageError(f"what reaches {view.name} is the input of no linear module of its own.")
