"""Options are fields of records: a command takes records, and `expand` spells their fields out.

A record that several commands share says one spelling, one help text, one default and one panel of
the help; what its options mean together is a method of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

import typer
from typer.models import OptionInfo

from bilens.base.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from bilens.data.images import ImageDataset
    from bilens.io.load import LoadedModel
    from bilens.report.reports import AttackReport, CertificateReport, TraceReport
    from bilens.train.corpus import CorpusOptions

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
    parameters = [option("context", typer.Context)]
    for each in taken:
        if each.name in records:
            parameters += options_of(records[each.name])
        else:
            parameters.append(option(each.name, hints[each.name], each.default))

    def run(context: typer.Context, **given: Any) -> None:
        made = {
            name: record(**{field.name: given.pop(field.name) for field in fields(record)})
            for name, record in records.items()
        }
        function(context.obj, **made, **given)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def options_of(record: type) -> list[inspect.Parameter]:
    """Return the fields of a record as options, in the panel of the record."""
    hints = get_type_hints(record, include_extras=True)
    panel = getattr(record, "PANEL", None)
    return [
        option(
            field.name,
            in_panel(hints[field.name], panel),
            REQUIRED if field.default is MISSING else field.default,
        )
        for field in fields(record)
    ]


def in_panel(hint: Any, panel: str | None) -> Any:
    """Return an annotation whose option stands in a panel, unless it names one of its own."""
    info = copy(hint.__metadata__[0])
    if isinstance(info, OptionInfo) and info.rich_help_panel is None:
        info.rich_help_panel = panel
    return Annotated[hint.__origin__, info]


def option(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
RunFolder = Annotated[Path, typer.Option(help="Folder for the run.")]
LanguageModel = Annotated[Path, typer.Argument(help="Folder of the language model.")]
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
            help="Model folder, .safetensors or .gguf file, .bin of llama2.c, or .pt file."
        ),
    ]
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open a .pt file (read with weights_only).")
    ] = False
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--no-residual",
            help="For checkpoints of the paper's repository: whether blocks add their input.",
        ),
    ] = None

    def open(self, say: Say | None = None) -> LoadedModel:
        """Read the model; `say` is told what was taken for what, and how far it is the source."""
        from bilens.io.load import load

        loaded = load(
            self.model, residual=self.residual, allow_pickle=self.allow_pickle, **self.said()
        )
        if say is not None:
            say_how_it_was_read(loaded, say)
        return loaded

    def said(self) -> dict[str, Any]:
        """What was said of the tensors of a file with names of its own."""
        return {}

    def open_another(self, path: Path) -> LoadedModel:
        return replace(self, model=path).open()


@dataclass(frozen=True)
class TensorFile(ModelFile):
    """A model, which may be a .safetensors file with names of its own."""

    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ROLE=TENSOR",
            help="What a tensor of a .safetensors file is: up, down or gate, with _bias, and .0, "
            ".1, … for several layers; repeat it for each. Without it names and shapes are "
            "guessed from.",
        ),
    ] = None
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            help="Of the layers of a .safetensors file: relu, gelu, leaky_relu:0.2, …; identity "
            "for a product without one; gelu,relu is one for each layer.",
        ),
    ] = None
    transposed: Annotated[
        bool | None,
        typer.Option(
            "--transposed/--no-transposed",
            help="Whether matrices of a .safetensors file are (in, out); needed where shapes leave "
            "it open.",
        ),
    ] = None

    def said(self) -> dict[str, Any]:
        return {
            "roles": parse_roles(self.roles) if self.roles else None,
            "activation": self.activation,
            "transposed": self.transposed,
        }


def say_how_it_was_read(model: LoadedModel, say: Say) -> None:
    """Say what was taken for what, and how the first layer compares with its source."""
    for line in [] if model.load_report is None else model.load_report.lines():
        say(line)
    if model.compare is not None:
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


@dataclass(frozen=True)
class ImageData:
    """The images that a model is judged on."""

    dataset: Annotated[
        Literal["mnist", "fashion-mnist"] | None,
        typer.Option(help="Data set in --data-dir; the model usually says it itself."),
    ] = None
    data_dir: DataDir = None

    @property
    def given(self) -> bool:
        return self.dataset is not None or self.data_dir is not None

    def find(self, model: LoadedModel, say: Say) -> ImageDataset | None:
        from bilens.api.provenance import find_test_data

        return find_test_data(model, self.dataset, self.data_dir, say)

    def refuse_beside(self, option: str) -> None:
        """Refuse images beside an option that takes their place."""
        if self.given:
            raise UsageError(
                f"{option} takes the place of --dataset and --data-dir: give it alone."
            )


@dataclass(frozen=True)
class HtmlReport:
    """The page that is written about a result."""

    html: Annotated[Path | None, typer.Option(help="Write the report to this HTML file.")] = None
    lang: Annotated[Lang, typer.Option(help="Language of the HTML report.")] = "en"

    def write(self, report: AttackReport | CertificateReport | TraceReport) -> list[str]:
        """Write the page if one is asked for; return the line about it."""
        if self.html is None:
            return []
        report.to_html(self.html, lang=self.lang)
        return [f"Report: {self.html}"]


@dataclass(frozen=True)
class Text:
    """The text that a language model reads; left out, what it was trained on."""

    corpus: Annotated[
        str | None, typer.Option(help="As for `train language`; left out: the model's own.")
    ] = None
    column: Annotated[str | None, typer.Option(help="Column of --corpus with the text.")] = None
    limit: Annotated[int | None, typer.Option(help="Documents of --corpus to read.", min=2)] = None

    def options(self) -> CorpusOptions | None:
        from bilens.train.corpus import CorpusOptions

        if self.corpus is not None:
            return CorpusOptions(self.corpus, column=self.column, limit=self.limit)
        if self.column is not None or self.limit is not None:
            raise UsageError("--column and --limit are about --corpus: give it, or leave them out.")
        return None


def refuse_existing(path: Path | None, overwrite: bool) -> None:
    """Refuse to write over a file or a folder, before any work is done."""
    if path is not None and path.is_dir():
        raise OutputExistsError(f"{path} is a folder; expected a file: add a name in it.")
    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} exists already: choose another file, or replace it with --overwrite."
        )
