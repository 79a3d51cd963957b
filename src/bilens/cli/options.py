"""Options are fields of records: a command takes records, and `expand` spells their fields out.

A record that several commands share says one spelling, one help text, one default and one panel of
the help; what its options mean together is a method of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

import typer
from typer.models import OptionInfo

from bilens.base.errors import DataError, NonFiniteError, OutputExistsError, UsageError
from bilens.base.files import check_new_files, not_there

if TYPE_CHECKING:
    from bilens.data.images import ImageDataset
    from bilens.data.model_interface import LabelledData, ModelInterface
    from bilens.io.load import LoadedModel
    from bilens.report.reports import SavedReport
    from bilens.train.corpus import CorpusOptions
    from bilens.train.recorded_inputs import LayerInputs

T = TypeVar("T")
Say = Callable[[str], None]
Command = Callable[..., None]

REQUIRED = inspect.Parameter.empty
FAILED = 1  # exit code: an audit condition failed
FILE_PANEL, METHOD_PANEL, MODEL_PANEL = "How the file is read", "Method", "Model"
TRAINING_PANEL, RUN_PANEL = "Training", "Run"


def expand(function: Command) -> Command:
    """Return a command for typer: each record that a function takes becomes its options.

    The first parameter of the function is the `Output`; every other one is a record or an option.
    """
    hints = get_type_hints(function, include_extras=True)
    _, *taken = inspect.signature(function).parameters.values()
    records = {each.name: hints[each.name] for each in taken if is_dataclass(hints[each.name])}
    parameters = [parameter("context", typer.Context)]
    for each in taken:
        if each.name in records:
            parameters += options_of(records[each.name])
        else:
            parameters.append(parameter(each.name, hints[each.name], each.default))
    parameters += [parameter("quiet", Quiet, False), parameter("verbose", Verbose, False)]

    def run(context: typer.Context, quiet: bool, verbose: bool, **given: Any) -> None:
        context.obj.asked(quiet, verbose)
        made = {
            name: record(**{each.name: given.pop(each.name) for each in fields(record)})
            for name, record in records.items()
        }
        function(context.obj, **made, **given)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def options_of(record: type) -> list[inspect.Parameter]:
    """Return the fields of a record as options, in the panel of the record or one of their own."""
    hints = get_type_hints(record, include_extras=True)
    found = []
    for each in fields(record):
        hint, default = hints[each.name], REQUIRED if each.default is MISSING else each.default
        if "option" in each.metadata:
            info = copy(each.metadata["option"])
            if default is False and info.default is ...:  # typer's place of the first spelling
                info.default = f"--{each.name.replace('_', '-')}"
        else:
            hint, info = hint.__origin__, copy(hint.__metadata__[0])
        if each.name not in getattr(record, "UNCHECKED", ()):
            info.callback = CHECKS.get(each.name)
        if isinstance(info, OptionInfo):
            info.rich_help_panel = info.rich_help_panel or getattr(record, "PANEL", None)
        found.append(parameter(each.name, Annotated[hint, info], default))
    return found


def parameter(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def option(
    default: T,
    help: str,
    *spellings: str,
    panel: str | None = None,
    metavar: str | None = None,
    min: float | None = None,
    max: float | None = None,
) -> T:
    """Return a field that is an option with a default; a switch that is off has no `--no-`."""
    info = typer.Option(
        *spellings, help=help, rich_help_panel=panel, metavar=metavar, min=min, max=max
    )
    return field(default=default, metadata={"option": info})


def said(record: Any) -> list[str]:
    """Return the options of a record that were given another value than their default."""
    found = []
    for each in fields(record):
        if each.default not in (MISSING, getattr(record, each.name)):
            first = getattr(each.metadata.get("option"), "default", ...)  # spelling, for typer
            found.append(first if isinstance(first, str) else f"--{each.name.replace('_', '-')}")
    return found


def refuse_idle(given: list[str], needed: str) -> None:
    """Refuse options that would do nothing without another one."""
    if given:
        raise UsageError(f"{', '.join(given)}: only with {needed}; add that, or leave them out.")


def a_model(given: T) -> T:
    from bilens.io.file_kinds import find_model

    if isinstance(given, Path):  # a baseline may be a word
        find_model(given)
    return given


def data_at(given: Path | list[Path] | None) -> Path | list[Path] | None:
    for path in [given] if isinstance(given, Path) else given or []:
        if not path.exists():
            raise not_there(
                path, "no such file or folder; expected data: check the path.", DataError
            )
    return given


# Of options by these names: without torch, before anything is read.
CHECKS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("model", "baseline", "input_sae", "output_sae"), a_model),
    "data": data_at,
    "roles": lambda texts: texts if parse_roles(texts or []) else None,
}
Lang = Literal["en", "ja"]
Gate = Literal["none", "relu", "gelu", "silu"]
Device = Literal["auto", "cpu", "cuda"]
Schedule = Literal["linear", "cosine"]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="auto: bfloat16 where the processor has it.", rich_help_panel=TRAINING_PANEL),
]
DeviceOption = Annotated[
    Device, typer.Option(help="auto: a GPU where there is one.", rich_help_panel=RUN_PANEL)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Where in bilens an error arose.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
RunFolder = Annotated[Path, typer.Option(help="Folder for the run.")]
LanguageModel = Annotated[
    Path, typer.Argument(help="Folder of the language model.", callback=a_model)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the IDX files of the data set (.gz or raw).")
]


@dataclass(frozen=True)
class Running:
    """Where a training runs, and what becomes of an earlier one."""

    device: DeviceOption = "auto"
    resume: Resume = False
    overwrite: Overwrite = False


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
        False, "Open a pickled model of scikit-learn, RUNNING whatever code is in it."
    )
    residual: bool | None = option(
        None,
        "For checkpoints of the paper's repository: whether blocks add their input.",
        "--residual/--no-residual",
    )

    def open(self, say: Say | None = None) -> LoadedModel:
        """Read the model; `say` is told what was taken for what, and how far it is the source."""
        from bilens.io.load import load

        loaded = load(self.model, **self.flags(), **self.said())
        if say is not None:
            say_how_it_was_read(loaded, say)
        return loaded

    def flags(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("residual", "allow_pickle", "trust_pickle")}

    def said(self) -> dict[str, Any]:
        """What was said of the tensors of a file with names of its own."""
        return {}

    def open_pair(self, baseline: Path | None, say: Say) -> tuple[LoadedModel, LoadedModel | None]:
        """Read the model and the one that it was made from, to which an adapter is added."""
        if baseline is None:
            return self.open(say), None
        from bilens.io.load import PEFT, ReadOptions, load_to_compare

        plain = ReadOptions(**self.flags(), **self.said())
        base = baseline if PEFT.matches(self.model) else None
        loaded = load_to_compare(self.model, replace(plain, base=base))
        say_how_it_was_read(loaded, say)
        return loaded, load_to_compare(baseline, plain)


@dataclass(frozen=True)
class TensorFile(ModelFile):
    """A model, which may be a .safetensors file with names of its own."""

    roles: list[str] | None = option(
        None,
        "What a tensor of a .safetensors or .pt file is: up, down or gate, with _bias, and .0, .1, "
        "… for several layers, or * in the name for their numbers; repeat it for each. Without it "
        "names and shapes are guessed from.",
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

    def said(self) -> dict[str, Any]:
        return {
            "roles": parse_roles(self.roles) if self.roles else None,
            "activation": self.activation,
            "transposed": self.transposed,
        }


def say_how_it_was_read(model: LoadedModel, say: Say) -> None:
    """Say what was taken for what, and how the first layer compares with its source."""
    if model.below is not None or not model.layers:
        say(f"{model.source}: {model.provenance['read']}")
    for line in [] if model.load_report is None else model.load_report.lines():
        say(line)
    with suppress(NonFiniteError):  # told by what reads the layer
        if model.compare is not None and model.exactness is not None:
            say(str(model.exactness))


def parse_roles(texts: list[str]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for text in texts:
        role, equals, tensor = text.partition("=")
        if not (role and equals and tensor):
            raise UsageError(f"--map {text}: expected ROLE=TENSOR, for example up=fc1.weight.")
        if role in roles:
            raise UsageError(f"--map {text}: the role {role} is given twice: give each once.")
        roles[role] = tensor
    return roles


Encoding = Annotated[
    str | None,
    typer.Option(help="Of the text of a table, such as cp932; left out, found by its bytes."),
]


@dataclass(frozen=True)
class DataFiles:
    """The data that a model is judged on."""

    data: list[Path] | None = option(
        None,
        "Table (CSV, Excel, Parquet), .npy, .npz or .safetensors file, folder with x.npy and "
        "y.npy, with a subfolder of images for each class, or with the IDX files of --dataset.",
        *("--data", "--data-dir", "--table"),
        metavar="PATH",
    )
    labels: str | None = option(
        None, "Right answers of --data: a column, a key of an .npz, or a file.", metavar="NAME"
    )
    dataset: Literal["mnist", "fashion-mnist"] | None = option(
        None, "Data set in --data; the model usually says it itself."
    )

    encoding: Encoding = None

    @property
    def path(self) -> Path | None:
        """The one path that was given."""
        if self.data and len(self.data) > 1:
            raise UsageError("--data (--data-dir, --table) is given twice: give it once.")
        if self.labels is not None and not self.data:
            raise UsageError("--labels is about --data: give it, or leave both out.")
        return self.data[0] if self.data else None

    def find(
        self, model: LoadedModel, say: Say, interface: ModelInterface | None = None
    ) -> ImageDataset | LabelledData | None:
        """Return the data; `interface` is what they have to fit, if not the whole model."""
        from bilens.api.given_data import find_data

        given = self.path, self.dataset, self.labels, say, interface, self.encoding
        found = find_data(model, *given)
        if done := getattr(found, "done", ()):  # to a table
            from bilens.records.base import displayable
            from bilens.report.sections.tables import conversion_lines
            from bilens.report.text import load_catalogue

            for line in conversion_lines(load_catalogue("en"), displayable(done)):
                say(line)
        return found


OF_TEXT = ("--tokens", "--held-out", "--activations")


@dataclass(frozen=True)
class SeenText:
    """The text that a language model reads, so that its layers are read on what they see."""

    text: str | None = option(None, "Text that a language model reads: what its layers see.")
    tokens: int = option(20_000, "Tokens of --text, held-out ones among them.", min=1)
    held_out: float = option(0.2, "Share of --text, by document, that R² is of.")
    activations: Path | None = option(
        None, "Folder where what the layers see is written, or is read if it is there."
    )

    def inputs(
        self, model: Path, layers: list[str], seed: int, report: Callable[..., None]
    ) -> LayerInputs | None:
        """Return what the layers see; None without a text."""
        if self.text is None:
            refuse_idle([one for one in said(self) if one in OF_TEXT], "--text")
            return None
        from bilens.train.recorded_inputs import layer_inputs

        how: dict[str, Any] = {"tokens": self.tokens, "held_out": self.held_out, "seed": seed}
        found = layer_inputs(model, self.text, layers=layers, **how)
        return found if self.activations is None else found.store(self.activations, report)


@dataclass(frozen=True)
class HtmlReport:
    """The page that is written about a result."""

    html: Path | None = option(None, "Write the report to this HTML file.")
    lang: Lang = option("en", "Language of the HTML report.")

    def __post_init__(self) -> None:
        if self.html is None:
            refuse_idle(said(self), "--html")

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
        if self.column is not None or self.limit is not None:
            raise UsageError("--column and --limit are about --corpus: give it, or leave them out.")
        return None


def check_outputs(named: Collection[tuple[str, Path | None]], overwrite: bool) -> None:
    """Refuse files, each with its option, that cannot all be written, before any work is done."""
    given = [(option, path, path.resolve()) for option, path in named if path is not None]
    for (one, path, a), (other, taken, b) in combinations(given, 2):
        if a == b or a in b.parents or b in a.parents:
            raise UsageError(
                f"{one} {path} and {other} {taken} cannot both be written: name other paths."
            )
    for _, path, _ in given:
        check_new_files(path.parent, (path.name,), overwrite=True)
        if path.is_dir():
            raise OutputExistsError(f"{path} is a folder; expected a file: add a name in it.")
        if path.exists() and not overwrite:
            raise OutputExistsError(
                f"{path} exists already: choose another file, or replace it with --overwrite."
            )
