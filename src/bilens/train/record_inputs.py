"""`bl.layer_inputs`: runs a model on a text, on files or on rows, for what its layers are given."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.quadratic_fit import LEAST_ROWS
from bilens.algebra.quadratic_map import STREAMS
from bilens.base import Progress, silent
from bilens.base.checks import check_count, check_finite
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.base.option_rules import FILES, TEXT, refuse_idle
from bilens.data.sample_files import Call, ModelInput, SampleFiles, find_samples
from bilens.io.converted_folder import open_model
from bilens.io.file_kinds import find_model
from bilens.io.host import Host, Site, host_of, tokenizer_at
from bilens.io.load import from_module, load
from bilens.io.loaded_model import CONFIG_NAME, LoadedModel, foreign_keys
from bilens.io.runner import LayerEntry, Runner, does_not_run, open_module
from bilens.io.tensors import tensors_sha256
from bilens.nn import BilinearTransformer
from bilens.records.common import DataNote, DataOrigin, TextOrigin
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_inputs import LayerRows, Mixture, check_enough, rows_given
from bilens.train.recorded_inputs import MOST_NUMBERS, LayerInputs, Part

HALF = 0.5  # of files, which are few, that an audit holds out


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


def layer_inputs(
    model: str | Path | nn.Module | LoadedModel,
    data: str | Path | CorpusOptions | Tensor,
    *,
    layers: Sequence[str] = (),
    tokens: int = 20_000,
    n_ctx: int = 128,
    held_out: float = 0.2,
    seed: int = 0,
    rows: int = 10_000,
    normalise: str | None = None,
    size: Sequence[int] = (),
    report: Progress = silent,
) -> LayerInputs:
    """Return the inputs that the layers of a model are given, of a text, of files or of rows.

    Of a text or a tensor nothing runs before `batches`, `moments` (memory of one run), `rows` (of
    a layer) or `store`. Files are run at once, and of what each layer is given some rows are kept.

    Args:
        model: the path of a language model: a folder of Hugging Face, a .gguf file, a run of
            `bilens train language`; any module with MLPs, which is not changed; of files also what
            `bl.load` returned of a file that can be run, as of ONNX.
        data: a text, as for `bilens train language`; of a module tokens (texts, tokens) or other
            inputs (inputs, …), each a document; floats of a dtype that
            no weight has are read in that of the first. Or a folder of files: images, sound (.wav)
            or arrays (.npy, .npz), with the names of the inputs where there are several.
        layers: some of them, by name; all for none.
        tokens: of the text, held-out ones among them.
        n_ctx: tokens that are read together.
        held_out: share of the documents, and of the tokens, or of the files.
        seed: which documents or files are held out, and which text is read and which rows are kept.
        rows: of each layer that are kept of files, and as many of those held out.
        normalise: what pixels or sound become: a range such as 0..1, the usual one, or 0..255, or
            mean,deviation with / between colours; it is told as assumed where it is not given.
        size: rows and columns of images, or values of sound, where the model leaves them open.
        report: told how far the files are.

    Raises: UsageError for a layer that is not there or whose inputs cannot be had; DataError for
        too little text, a single file, or files that do not fit; when they are met, NonFiniteError
        for NaN or infinity and UsageError for inputs that the model does not run on.
    """
    if not 0 < held_out < 1:
        raise UsageError(f"held_out must be more than 0 and less than 1, got {held_out!r}.")
    of_files: dict[str, Any] = {"rows": rows, "normalise": normalise, "size": size}
    if isinstance(model, nn.Module | LoadedModel) and isinstance(data, str | Path):
        refuse_idle("layer inputs", {"tokens": tokens, "n_ctx": n_ctx}, FILES)
        read = model if isinstance(model, LoadedModel) else from_module(model)
        found = inputs_from_files(read, Path(data), layers, held_out, seed, report, **of_files)
    elif isinstance(model, str | Path) and not isinstance(data, Tensor):
        refuse_idle("layer inputs", of_files, TEXT)
        options = data if isinstance(data, CorpusOptions) else CorpusOptions(str(data))
        options = replace(options, held_out=held_out)
        found = inputs_from_text(open_host(Path(model)), options, tokens, n_ctx, seed)
    elif isinstance(model, nn.Module) and isinstance(data, Tensor):
        refuse_idle("layer inputs", {"tokens": tokens, "n_ctx": n_ctx, **of_files})
        found = inputs_from_tensor(model, data, held_out, seed)
    else:
        raise UsageError(
            "pass the path of a language model and a text, or a module, or a file that was loaded, "
            "and the path of a folder of files; or a module and a tensor."
        )
    chosen = {site.name: site for site in found.named(layers)}
    return replace(found, sites=chosen, about={**found.about, "layers": [*chosen], "seed": seed})


def inputs_from_files(
    model: LoadedModel,
    path: Path,
    layers: Sequence[str],
    held_out: float,
    seed: int,
    report: Progress,
    rows: int,
    normalise: str | None,
    size: Sequence[int],
) -> LayerInputs:
    """Run a model on the files at a path."""
    check_count("rows", rows, minimum=LEAST_ROWS)
    host, opened = host_on_files(model)
    known = {site.name: site for site in host.sites}
    if not known or (layers and not known.keys() >= {*layers}):
        name = next((one for one in layers if one not in known), next(iter(model.layers)))
        raise has_no_input(name)
    sites = {name: known[name] for name in layers or known}
    entries = {name: site.entry for name, site in sites.items()}
    runner = opened(host, entries)
    samples = find_samples(path, runner.ports, normalise, size)
    fitted, held, sha256 = split_files(samples, held_out, seed)
    most = rows_in_memory(rows, [one.width for one in entries.values()])
    kept: dict[Part, Mapping[str, LayerRows]] = {
        "fit": record_files(runner, samples, fitted, entries, most, seed, report),
        "held_out": record_files(runner, samples, held, entries, most, seed, report),
    }

    def again(module: nn.Module) -> Mapping[str, LayerRows]:
        twin = replace(host, module=module).twin()
        twin.module.eval()
        return record_files(opened(twin, entries), samples, fitted[:1], entries, most, seed, silent)

    count, repeated = len(samples.files), samples.repeated
    parts: Any = {"count": count, "fit": len(fitted), "held": len(held), "repeated": repeated}
    notes = [DataNote("seen_files", parts), *samples.notes()]
    notes.append(DataNote("seen_rows", {"most": f"{most:,}", "runner": runner.about}))
    origin = DataOrigin(path.name, str(path), samples.kind, count, sha256, tuple(notes))
    about = {"model_sha256": model.weights_sha256, "data_sha256": sha256, "rows": most}
    about |= {"fit": len(fitted), "held_out": len(held)}
    return LayerInputs(host, sites, {}, about, data=origin, again=again, _kept=kept)


def host_on_files(
    model: LoadedModel,
) -> tuple[Host, Callable[[Host, Mapping[str, LayerEntry]], Runner]]:
    """Return a model with the sites of its layers, and what opens it to run it on files.

    A file that another library runs has an empty module.
    """
    if model.runner is None and is_language(model):
        host = open_host(Path(model.source))
        kept = tuple(site for site in host.sites if site.name in model.layers)
        return replace(host, sites=kept), run_tokens
    run, module = model.runner, model.original
    if run is None:
        raise UsageError(
            f"{model.source}: nothing here runs a {model.provenance.get('format', 'model')} on "
            "data, to record what its layers read: load the ONNX file of the same model, or pass "
            "the module, bl.layer_inputs(module, data)."
        )
    sites = sites_with_inputs(model)
    host = Host(module or nn.Module(), "", sites, Path(model.source), model.weights_sha256)
    if module is None:
        return host, lambda _, entries: run(entries)
    return host, lambda host, entries: open_module(host.module, entries)


def sites_with_inputs(model: LoadedModel) -> tuple[Site, ...]:
    """Return the sites of layers that read a value of the model as it is."""
    return tuple(
        Site(name, (one.location,), model.layers[name], None, one.patch)
        for name, one in model.entries.items()
        if one.location
    )


def has_no_input(name: str) -> UsageError:
    return UsageError(f"what reaches {name} is the input of no linear module of its own.")


def run_tokens(host: Host, entries: Mapping[str, LayerEntry]) -> Runner:
    """Return a language model as what runs, on arrays of tokens."""
    sites = [site for site in host.sites if site.name in entries]

    def run(call: Call) -> Mapping[str, Tensor]:
        tokens = torch.from_numpy(call["input_ids"])
        try:
            found = rows_given(host.module, sites, tokens, lambda: host.logits(tokens))
        except (RuntimeError, IndexError) as error:
            raise does_not_run(f"{host.source}", call, error) from error
        return {name: rows.x for name, rows in found.items()}

    port = ModelInput("input_ids", (0, 0), "int64")
    return Runner((port,), run, f"a {type(host.module).__name__}")


def is_language(model: LoadedModel) -> bool:
    """Tell whether a model at a path reads tokens."""
    return bool(model.source) and any(one.reads == STREAMS[0] for one in model.layers.values())


def open_host(path: Path) -> Host:
    """Return a language model whose layers have the names, and read the units, of `bl.load`."""
    found = find_model(path)  # a name of the hub too
    if foreign_keys(found) & {"model_type", "architectures"}:
        loaded = load(found)  # whole or its MLPs alone
        if isinstance(loaded.module, BilinearTransformer):
            return host_of(loaded.module.float(), found, loaded.read_sha256)
    return open_model(found)


def inputs_from_text(
    host: Host, text: CorpusOptions, tokens: int, n_ctx: int, seed: int
) -> LayerInputs:
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


def inputs_from_tensor(module: nn.Module, data: Tensor, held_out: float, seed: int) -> LayerInputs:
    if data.ndim < 2 or len(data) < 2:
        raise UsageError(f"inputs have shape {tuple(data.shape)}; expected (2 or more, …).")
    read = from_module(module)
    sites = {site.name: site for site in sites_with_inputs(read)}
    if bare := [name for name in read.layers if name not in sites]:
        raise has_no_input(bare[0])
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
