"""Options that several commands share: a model, data, a text, a report, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.option_rules import EITHER, RUN, TEXT_GIVEN, refuse_idle
from bilens.cli.options import FILE_PANEL, Encoding, Lang, Say, option, parse_roles

if TYPE_CHECKING:
    from bilens.data.images import ImageDataset
    from bilens.data.model_interface import LabelledData, ModelInterface
    from bilens.io.load import LoadedModel
    from bilens.report.reports import SavedReport
    from bilens.train.corpus import CorpusOptions
    from bilens.train.recorded_inputs import LayerInputs


@dataclass(frozen=True)
class ModelFile:
    """A model, and what a checkpoint does not say by itself."""

    PANEL: ClassVar = FILE_PANEL

    model: Annotated[
        Path,
        typer.Argument(
            help="Model folder, or a file: .safetensors, .gguf, .pt, .skops and others; or a name "
            "in the cache of the Hugging Face hub."
        ),
    ]
    allow_pickle: bool = option(
        False, "Open a file of PyTorch, which is a pickle; no code in it is run."
    )
    trust_pickle: bool = option(
        False,
        "Open a pickled model of scikit-learn, or load the program of a TorchScript archive, "
        "RUNNING whatever code is in it.",
    )
    residual: bool | None = option(
        None,
        "For checkpoints of the paper's repository: whether blocks add their input.",
        "--residual/--no-residual",
    )

    def open(self, say: Say | None = None) -> LoadedModel:
        """Read the model; `say` is told what was taken for what, and how far it is the source."""
        from bilens.io.load import load

        how = {**self.flags(), **self.tensor_options()}
        loaded = load(self.model, **how, output_names=self.output_names())
        if say is not None:
            say_how_it_was_read(loaded, say)
        return loaded

    def flags(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("residual", "allow_pickle", "trust_pickle")}

    def tensor_options(self) -> dict[str, Any]:
        """Return how the tensors of a file are named and stored, where the user says it."""
        return {}

    def output_names(self) -> list[str] | None:
        """Return the names of the outputs, where the user says them."""
        return None

    def open_pair(self, baseline: Path | None, say: Say) -> tuple[LoadedModel, LoadedModel | None]:
        """Read the model and the one that it was made from, to which an adapter is added.

        Of both the tensors alone will do, where no layer of them is read.
        """
        from bilens.io.any_model import open_pair
        from bilens.io.load import ReadOptions, with_output_names

        options = ReadOptions(**self.flags(), **self.tensor_options())
        loaded, before = open_pair(self.model, baseline, options)
        loaded = with_output_names(loaded, self.output_names())
        say_how_it_was_read(loaded, say)
        return loaded, before


@dataclass(frozen=True)
class TensorFile(ModelFile):
    """A model, which may be a .safetensors file with names of its own."""

    roles: list[str] | None = option(
        None,
        "What a tensor of a .safetensors or .pt file is: up, down or gate, with _bias, and .0, .1, "
        "… for several layers, or * in the name for their numbers; gate_up or up_gate of both in "
        "one. Repeat it for each. Without it names and shapes are guessed from.",
        "--map",
        metavar="ROLE=TENSOR",
    )
    activation: str | None = option(
        None,
        "Of the layers of a .safetensors or .pt file: relu, gelu, leaky_relu:0.2, …; identity for "
        "a product without one; gelu,relu is one for each layer.",
        "--activation",
    )
    transposed: bool | None = option(
        None,
        "Whether matrices of such a file are (in, out); needed where shapes leave it open.",
        "--transposed/--no-transposed",
    )

    module_class: str | None = option(
        None,
        "Class or function of an installed package that a state dict belongs to: "
        "torchvision.models.resnet18, package.Class(width=8). The package is imported and RUN.",
        "--class",
        metavar="PACKAGE.NAME",
    )

    def tensor_options(self) -> dict[str, Any]:
        return {
            "roles": parse_roles(self.roles) if self.roles else None,
            "activation": self.activation,
            "transposed": self.transposed,
            "module_class": self.module_class,
        }


@dataclass(frozen=True)
class ClassNames:
    """The names of a model's outputs."""

    classes: str | None = option(
        None,
        "Names of the outputs in their order, where the model has none: cat,dog, or a text file "
        "with a name a line.",
        "--classes",
        metavar="NAME,NAME",
    )

    def output_names(self) -> list[str] | None:
        if self.classes is None:
            return None
        if "," in self.classes or not Path(self.classes).is_file():
            return self.classes.split(",")
        try:
            return Path(self.classes).read_text("utf-8-sig").rstrip().splitlines()
        except UnicodeDecodeError:
            raise UsageError(f"--classes {self.classes}: is not UTF-8: save it as that.") from None


@dataclass(frozen=True)
class NamedModel(ClassNames, ModelFile):
    """A model whose outputs may have names that it does not say."""


@dataclass(frozen=True)
class NamedFile(ClassNames, TensorFile):
    """The same; it may be a .safetensors file with names of its own."""


def say_how_it_was_read(model: LoadedModel, say: Say) -> None:
    """Say what was taken for what, and how the first layer compares with its source."""
    if model.below is not None or (model.module is None and not model.layers):
        say(f"{model.source}: {model.provenance['read']}")
    for line in [] if model.load_report is None else model.load_report.lines():
        say(line)
    with suppress(NonFiniteError):  # told by what reads the layer
        if model.compare is not None:
            say(
                str(
                    model.exactness or "Unverified: transformers ran no such model to compare with."
                )
            )


@dataclass(frozen=True)
class DataFiles:
    """The data that a model is judged on."""

    data: list[Path] | None = option(
        None,
        "Table (CSV, Excel, Parquet), .npy, .npz or .safetensors file, folder with a subfolder of "
        "images for each class, or with the IDX files of --dataset.",
        "--data",
        "--data-dir",
        "--table",
        metavar="PATH",
    )
    labels: str | None = option(
        None,
        "Right answers of --data: a column, or its number, a key of an .npz, or a file.",
        metavar="NAME",
    )
    dataset: Literal["mnist", "fashion-mnist"] | None = option(
        None, "Data set in --data; the model usually says it itself."
    )

    encoding: Encoding = None

    @property
    def path(self) -> Path | None:
        if self.data and len(self.data) > 1:
            raise UsageError("--data (--data-dir, --table) is given twice: give it once.")
        return self.data[0] if self.data else None

    def path_of_files(self) -> Path | None:
        """Return the path of files that a model is run on, of which nothing else is said."""
        given = {"labels": self.labels, "dataset": self.dataset, "encoding": self.encoding}
        if self.path is None:
            refuse_idle("data", given)
        elif said := [f"--{name}" for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{', '.join(said)}: the model is run on --data, and its answers are not judged: "
                "leave it out."
            )
        return self.path

    def find(
        self,
        model: LoadedModel,
        say: Say,
        interface: ModelInterface | None = None,
        training: bool = False,
    ) -> ImageDataset | LabelledData | None:
        """Return the data; `interface` is what they have to fit, if not the whole model."""
        from bilens.api.given_data import find_data

        given = self.path, self.dataset, self.labels, say, interface, self.encoding, training
        found = find_data(model, *given)
        if done := getattr(found, "done", ()):  # to a table
            from bilens.report.sections.table_cells import lines_on

            for line in lines_on(done):
                say(line)
        return found


@dataclass(frozen=True)
class SeenText:
    """The text that a language model reads, or how files are read, for what its layers see."""

    text: str | None = option(None, "Text that a language model reads: what its layers see.")
    tokens: int = option(20_000, "Tokens of --text, held-out ones among them.", min=1)
    held_out: float | None = option(
        None, "Share that R² is of: of --text, by document (0.2), or of the files of --data (0.5)."
    )
    activations: Path | None = option(
        None, "Folder where what the layers see is written, or is read if it is there."
    )
    rows: int = option(
        10_000, "Rows of each layer that are kept of --data, where the model is run on it.", min=13
    )
    normalise: str | None = option(
        None,
        "What pixels or sound of --data become: 0..1 (usual), 0..255, or mean,deviation of values "
        "from 0 to 1 (of sound -1 to 1) with / between colours.",
        metavar="LOW..HIGH",
    )
    size: str | None = option(
        None,
        "Rows and columns of images, or values of sound, that a model leaves open.",
        metavar="480x640",
    )

    def layer_inputs(
        self,
        model: Path,
        layers: list[str],
        seed: int,
        report: Callable[..., None],
        loaded: LoadedModel | None = None,
        data: Path | None = None,
    ) -> LayerInputs | None:
        """Return the inputs of the layers on a text, not run yet, or on files; None for neither.

        Files are of a model that was `loaded`.
        """
        if self.text is not None and data is not None:
            raise UsageError("--text and --data exclude each other here: give one.")
        there = [TEXT_GIVEN] if self.text is not None else [] if data is None else [RUN]
        refuse_idle("text", vars(self), *there, *([EITHER] if there else []))
        if not there:
            return None
        from bilens.train.record_inputs import HALF, layer_inputs as record_inputs

        how: dict[str, Any] = {"layers": layers, "seed": seed}
        how["held_out"] = self.held_out or (0.2 if data is None else HALF)
        if loaded is not None and data is not None:
            size = self.size or ""
            if size and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", size):
                raise UsageError(f"--size {size}: expected ROWSxCOLUMNS, or one number of both.")
            how |= {"rows": self.rows, "normalise": self.normalise, "report": report}
            how["size"] = [int(side) for side in size.split("x") if side]
            return record_inputs(loaded, data, **how)
        found = record_inputs(model, str(self.text), tokens=self.tokens, **how)
        return found if self.activations is None else found.store(self.activations, report)


@dataclass(frozen=True)
class HtmlReport:
    """The page that is written about a result."""

    html: Path | None = option(None, "Write the report to this HTML file.")
    lang: Lang = option("en", "Language of tables and report; messages are in English.")

    def write(self, report: SavedReport[Any]) -> list[str]:
        """Write the page if one is asked for; return the line about it."""
        if self.html is None:
            return []
        report.to_html(self.html, lang=self.lang)
        return [f"Report: {self.html}"]


@dataclass(frozen=True)
class Text:
    """The text that a language model reads; left out, what it was trained on."""

    corpus: str | None = option(None, "As for `train language`; left out: the model's own.")
    column: str | None = option(None, "Column of --corpus with the text.")
    limit: int | None = option(None, "Documents of --corpus to read.", min=2)

    def options(self) -> CorpusOptions | None:
        from bilens.train.corpus import CorpusOptions

        if self.corpus is not None:
            return CorpusOptions(self.corpus, column=self.column, limit=self.limit)
        refuse_idle("corpus", vars(self))
        return None
