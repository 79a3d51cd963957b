"""A format of model files, a caller's options about a file, and the model that is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.quadratic_map import STREAMS, basis_of
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from bilens.base.files import read_json
from bilens.base.notebook import frozen_result
from bilens.io.formats.ends import Ends
from bilens.io.load_report import LoadReport
from bilens.io.remote import RemotePath
from bilens.io.runner import LayerEntry, OpenRunner
from bilens.io.stored_mlp import Store, module_tensors
from bilens.io.tensor_names import canonical
from bilens.io.tensors import sha256_of_module
from bilens.nn.agreement import Agreement
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.hook_points import HookPoints
from bilens.nn.module_layers import Module, compare_with_module, layer_views

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
Activations = str | Activation | list[str | Activation]
NUMBERED = "inputs_without_names"  # in the provenance of a model whose input names are numbers
# in the provenance of a file that seems to read bytes of images as they are: by what
PIXELS = "pixels"
CHANGED = "changed_since_read_from"  # in the provenance of a model whose weights are others now
OUR_EMBEDDING = "embed"  # of a transformer of ours
NAMING_TOKENS = 512  # the first ones, whose embeddings give a residual stream its name
ABOUT = "input_shape", "input_names", "output_names", "input_mean", "input_scale", "views"


@frozen_result("source", "layers", "input_shape", "output_names", "weights_sha256")
class LoadedModel:
    """A model read from disk, or from an object in memory.

    Attributes:
        module: the PyTorch module, on the CPU, in evaluation mode; None where the layers alone are
            read, lazily, out of a model of another library.
        layers: name → view. The first layer of a classifier is read from the input, the last
            one to the logits; with one layer it is the whole model. Those of a transformer are
            its MLPs, read from the normalised residual stream to what they add to it.
        source: the path or address it was read from, without secrets.
        read_sha256: SHA-256 of the weights file, of an adapter with its base, when it was read;
            empty where it is read in place. `weights_sha256` is that of the weights as they are.
        input_shape: how an input is laid out, for instance (28, 28); None if nothing says.
        output_names: one name for each output; None if nothing says.
        input_names: one name for each input; None if nothing says.
        provenance: where the weights come from, as far as the file says.
        input_mean: of each input, where the model was trained; None if nothing says.
        input_scale: standard deviation of each input there; None if nothing says.
        stored: the tensors of the source, where it is not the module.
        headers: of a model that is read in place, by name of a file, the SHA-256 of the names,
            dtypes, shapes and places of its tensors, of its size and of its version.
        files: the files of the weights, where they are several beside each other.
        marks: the files that lay there when it was opened, each as it was; see `mark_of`.
        below: the model that an adapter is added to; None for no adapter.
        folder: the folder that was named, where the model is a file of it; else empty.
        alone: reads the layers without the module, as of a model that no module can be.
        views: the layers, where they are not those of the module.
        load_report: what was taken for what, and how exactly, where that had to be found out.
        original: the module in memory that the layers were read from, as it was given.
        reread: reads `original` once more, and compares it as it is then.
        module_sha256: SHA-256 of the tensors of `module`, or of `original`, when it was read;
            empty where it is not hashed again to see whether it was changed.
        compare_rows: compares the layers with the estimator or the file that they were read from,
            as it answers to rows, or says why it cannot; None where a module does, or nothing.
        ends: where the tokens of a language model are, as far as its family says.
        entries: layer → the value that it reads, where the model has it; empty where none runs.
        hook_points: layer → the modules of `original` where it begins and ends.
        runner: opens the model to run it on given inputs; None where nothing here does.
        as_read: its fields of `ABOUT` as they were read from files; empty of a model from memory.
        compare: compares the first and the last layer, as they were read from files, with their
            source; None where the module is the source.
        asked: the options by which a caller said how it is read.
    """

    module: Module | None
    source: str
    read_sha256: str
    input_shape: tuple[int, ...] | None = None
    output_names: tuple[str, ...] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    input_names: tuple[str, ...] | None = None
    views: Mapping[str, LayerView] = field(default_factory=dict)
    load_report: LoadReport | None = None
    compare: Callable[[], Agreement | None] | None = None
    input_mean: tuple[float, ...] | None = None
    input_scale: tuple[float, ...] | None = None
    stored: Store = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    marks: Mapping[Path, tuple[int, ...] | None] = field(default_factory=dict)
    below: str | None = None
    folder: str = ""
    alone: Callable[[], LoadedModel] | None = None
    original: nn.Module | None = None
    reread: Callable[[], LoadedModel] | None = None
    module_sha256: str = ""
    compare_rows: Callable[[Tensor], Agreement | str | None] | None = None
    ends: Ends | None = None
    entries: Mapping[str, LayerEntry] = field(default_factory=dict)
    hook_points: Mapping[str, HookPoints] = field(default_factory=dict)
    runner: OpenRunner | None = None
    as_read: Mapping[str, object] = field(default_factory=dict)
    asked: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def layers(self) -> Mapping[str, LayerView]:
        """Name → view of each layer."""
        found = {**self.views}
        if self.module is not None and not found:
            found = layer_views(self.module)
        in_memory = self.module is not None or self.original is not None
        named = self.name_of_stream if in_memory else cache(self.name_of_stream)
        for name, view in found.items():
            if view.reads in STREAMS and view.basis_name is None:
                found[name] = replace(view, basis_name=partial(named, view.reads))
        if self.module is None or self.views:
            return found
        first, last = next(iter(found)), [*found][-1]
        if is_of_numbers(self, found[last].sizes.d_out):
            found[last] = replace(found[last], gives="outputs")
        if self.input_mean is not None:
            centre = torch.tensor(self.input_mean, dtype=torch.float64)
            found[first] = replace(found[first], centre=centre)
        return found

    def name_of_stream(self, reads: str) -> str:
        """Return the name of the coordinates inside: by embeddings of tokens, else by the model.

        The embeddings as bfloat16 has them are the same in every type that weights are stored in.
        """
        ends = self.ends.embedding if self.ends is not None else OUR_EMBEDDING
        for name, table in self.tensors.items():
            if canonical(name).removesuffix(".weight") == ends:
                with suppress(NonFiniteError, CheckpointError):
                    rows = table.rows(0, min(NAMING_TOKENS, table.shape[0])).read_tensor()
                    return basis_of(STREAMS[0], rows.to(torch.bfloat16))
        return f"{reads} of {self.identity[:8]}"

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights as they are: of the file, or of a module that was changed since.

        Cost: of a module the hash of its tensors each time.
        """
        module = self.module or self.original
        now = "" if module is None or not self.module_sha256 else sha256_of_module(module)
        return self.read_sha256 if now == self.module_sha256 else now

    @property
    def identity(self) -> str:
        """The hash of its weights as they are, or else of its headers."""
        said = json.dumps(self.headers, sort_keys=True).encode() if self.headers else b""
        return self.weights_sha256 or (hashlib.sha256(said).hexdigest() if said else "")

    def keep_as_read(self) -> LoadedModel:
        """Return it with what its files say of it, by which a later change is noticed."""
        return replace(self, as_read={name: getattr(self, name) for name in ABOUT})

    @property
    def is_as_read(self) -> bool:
        """Whether its weights, and what is said of them, are still what was read."""
        said = all(getattr(self, name) is value for name, value in self.as_read.items())
        return said and self.weights_sha256 == self.read_sha256

    @property
    def place(self) -> Path:
        """The path that the model was read from, beside its other files, even if changed since."""
        return Path(self.provenance.get(CHANGED, self.source))

    @property
    def home(self) -> str:
        """The source as it was named: a folder is all that lies in it, a file is that alone."""
        return self.folder or self.source

    @property
    def own_input_names(self) -> tuple[str, ...] | None:
        """The names of its inputs; None also where they are numbered, for they had none."""
        return None if NUMBERED in self.provenance else self.input_names

    @property
    def input_box(self) -> tuple[float, float] | None:
        """The range of inputs: (0, 1) after a training of ours on images, or None if not known."""
        return (0.0, 1.0) if "data_name" in self.provenance else None

    @property
    def module_in_memory(self) -> nn.Module | None:
        """The module in memory, as it was given where it was; None of a file without one."""
        return self.module if self.original is None else self.original

    @property
    def device(self) -> torch.device:
        """Where the module is; layers without one are read on the CPU."""
        part = None if self.module is None else next(self.module.parameters(), None)
        return torch.device("cpu") if part is None else part.device

    @cached_property
    def tensors(self) -> Store:
        """Name → every tensor of the source, read or not: known by its header, read on demand."""
        return self.stored if self.module is None or self.stored else module_tensors(self.module)

    @property
    def head(self) -> str | None:
        """The function behind the last layer, in words; None for none that is known."""
        said = None if self.load_report is None else self.load_report.head
        return said or self.provenance.get("head")

    @property
    def network(self) -> tuple[LayerView, ...]:
        """The layers one behind the other, where they are the whole model; empty where not."""
        views = tuple(self.layers.values())
        chained = bool(views) and views[0].reads == "inputs"
        return views if chained and all(view.reads == "neurons" for view in views[1:]) else ()

    @property
    def exactness(self) -> Agreement | None:
        """The difference between the layers, as they are read, and their source.

        A module in memory as it runs now, compared each time; the first and the last layer of a
        file of others, on random inputs in float64, measured when it is first asked for; where all
        layers were compared while they were found, the worst of them; None where there is nothing
        that they could be compared with, or one of them could not be.

        Raises:
            NumericalError, UsageError: If it is another function.
        """
        runs = None
        if self.reread is not None:
            return self.reread().reported
        if self.module is not None:
            runs = compare_with_module(self.module, self.layers)
        if self.compare is None or self.weights_sha256 != self.read_sha256:
            return runs or self.reported
        return self._compared_with_files

    @property
    def reported(self) -> Agreement | None:
        """The worst comparison that was made on reading; None unless all layers were compared."""
        report = self.load_report
        return report.worst if report is not None and report.verified else None

    @cached_property
    def _compared_with_files(self) -> Agreement | None:
        return None if self.compare is None else self.compare()

    def module_for(self, reader: str) -> Module:
        """Return the module for a reader that needs one ("an audit"), and raise where it is None.

        Raises:
            UsageError: If the layers alone were read.
        """
        if self.module is None:
            first = next(iter(self.layers), None)
            if first is None:
                raise UsageError(
                    f"{reader} runs a whole model, and of {self.source} "
                    f"({self.provenance.get('format', 'another library')}) no layer is read."
                )
            ways = f"`bilens decompose {self.source} --layer {first}`, or bl.load(...)"
            if not self.files and self.provenance.get("format", "").startswith("scikit-learn"):
                ways = "bl.from_sklearn(...)"
            ways = ways if self.original is None else "bl.from_module(...)"
            raise UsageError(
                f"{reader} runs a whole model, and of {self.source} "
                f"({self.provenance.get('format', 'another library')}) the layers alone are read: "
                f"read one of its {len(self.layers)} layers with {ways}.layers[{first!r}]."
            )
        return self.module


# ---- formats


LOG_OF_MEAN = "log of the mean"  # what a conversion gives of a model that takes the exponential


def is_regressor(model: LoadedModel) -> bool:
    """Tell whether whoever made a model says that it was fitted to numbers."""
    makers = (model.provenance.get(key, "") for key in ("format", "estimator"))
    said = model.provenance.get("task") == "regression"
    return said or any(one.endswith("Regressor") for one in makers)


def is_of_numbers(model: LoadedModel, outputs: int = 1, ends: str = "") -> bool:
    """Tell whether outputs are numbers, or several yes-no answers, and so no classes.

    `ends` is the activation that they come out of, where the model does not say it.
    """
    heads = f"{model.provenance.get('ends') or ends} {model.head or ''}".split()
    several = outputs > 1 and ("sigmoid" in heads or is_regressor(model))
    return several or model.provenance.get("gives") == "numbers" or model.head == "exp"


@dataclass(frozen=True)
class ReadOptions:
    """The options of a caller about a file; None where it says nothing."""

    # whether each block adds its input, for official checkpoints that do not say it
    residual: bool | None = None
    allow_pickle: bool = False  # whether a file of PyTorch may be opened
    roles: Mapping[str, str] | None = None  # role → tensor of a safetensors file of unknown names
    activation: Activations | None = None  # of its layers: a name, or one for each
    transposed: bool | None = None  # whether its matrices are (in, out)
    base: Path | None = None  # the model that an adapter is added to
    trust_pickle: bool = False  # whether a pickle or an archive may run what code is in it
    # the class of an installed package that a state dict belongs to, with arguments if it needs any
    module_class: str | None = None
    wanted: Callable[[str], bool] | None = None  # the layers that alone are read; see `load_layers`

    def in_place(self, path: Path) -> bool:
        """Whether a model is known by its headers, and not by its weights."""
        return self.wanted is not None or isinstance(path, RemotePath)

    def nothing_wanted(self, path: Path) -> UsageError:
        return UsageError(f"{path}: has none of the layers that are wanted.")

    def given_options(self) -> dict[str, object]:
        """Return the options that are not silent, as keyword arguments of `bl.load`."""
        silent, said = vars(ReadOptions()), vars(self).items()
        told = {
            name: value for name, value in said if value is not silent[name] and name != "wanted"
        }
        return told if self.base is None else {**told, "base": str(self.base)}

    def reading(self) -> dict[str, object]:
        """Return the options that say what function the tensors are, in one order."""
        names = "residual", "roles", "activation", "transposed", "module_class"
        told = {name: value for name, value in self.given_options().items() if name in names}
        return told if self.roles is None else {**told, "roles": dict(sorted(self.roles.items()))}

    @property
    def name_roles(self) -> bool:
        """Whether the caller says what the tensors of a file are."""
        return any(part is not None for part in (self.roles, self.activation, self.transposed))

    def agreed_residual(self, path: Path, said: bool | None) -> bool | None:
        """Return whether there is a residual path: what the file says, or else the caller."""
        if said is not None and self.residual is not None and said != self.residual:
            raise UsageError(
                f"{path}: the model was saved with residual={said}, and residual={self.residual} "
                "was asked for: leave the option out."
            )
        return self.residual if said is None else said

    def refuse_residual(self, path: Path, because: str) -> None:
        """Refuse the option where it can only be a mistake."""
        if self.residual is not None:
            raise UsageError(f"{path}: {because}: leave the option out.")


NOTHING_SAID = ReadOptions()


@dataclass(frozen=True)
class Format:
    """A kind of model file or folder: how it is told from others, and how it is read."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], LoadedModel]


def foreign_keys(folder: Path) -> set[str]:
    """Return the keys of a `config.json` that is not ours; empty where it cannot be read as one."""
    try:
        content = read_json(folder / CONFIG_NAME) if folder.is_dir() else {}
    except CheckpointError:
        return set()
    return set() if "format" in content else {*content}
