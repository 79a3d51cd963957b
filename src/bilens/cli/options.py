"""Options are fields of records: a command takes records, and `expand` spells their fields out.

A record that several commands share says one spelling, one help text, one default and one panel of
the help; what its options mean together is a method of it.
"""

import inspect
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from bilens.base.errors import DataError, OutputExistsError, UsageError
from bilens.base.files import check_new_files, not_there
from bilens.base.option_rules import (
    METHOD_PANEL as METHOD_PANEL,
    MODEL_PANEL as MODEL_PANEL,
    TRAINING_PANEL as TRAINING_PANEL,
    Device,
    Gate,
    TokenizerKind,
    TrackerName,
    as_written,
    is_written,
    option as option,
    refuse,
)

Say = Callable[[str], None]
Command = Callable[..., None]

REQUIRED = inspect.Parameter.empty
FAILED = 1  # exit code: an audit condition failed
FILE_PANEL, RUN_PANEL = "How the file is read", "Run"


def expand(function: Command, as_json: bool = True) -> Command:
    """Return a command for typer: each record that a function takes becomes its options.

    The first parameter of the function is the `Output`; every other one is a record, an option, or
    `Annotated[dict[str, Any], recipe, …]`: what is said of the fields of a recipe. What it answers
    can be asked for `as_json`.
    """
    hints = get_type_hints(function, include_extras=True)
    _, *taken = inspect.signature(function).parameters.values()
    records = {each.name: hints[each.name] for each in taken if is_dataclass(hints[each.name])}
    changes = dict[str, Any]  # how an annotation takes what is said of a recipe
    of_recipes = {n: h for n, h in hints.items() if getattr(h, "__origin__", None) == changes}
    recipes = {n: hint.__metadata__ for n, hint in of_recipes.items()}
    parameters = [parameter("context", typer.Context)]
    for each in taken:
        if each.name in records:
            parameters += options_of(records[each.name])
        elif each.name in recipes:
            parameters += options_of(*recipes[each.name])
        else:
            parameters.append(parameter(each.name, hints[each.name], each.default))
    parameters += [parameter("json", Json, False)] if as_json else []
    parameters += [parameter("quiet", Quiet, False), parameter("verbose", Verbose, False)]

    def run(
        context: typer.Context, quiet: bool, verbose: bool, json: bool = False, **given: Any
    ) -> None:
        context.obj.set_flags(quiet, verbose, json)
        sources = {name: context.get_parameter_source(name) for name in context.params}
        # typer may bring a click of its own, and with it an enumeration of its own
        with as_written(n for n, one in sources.items() if one and one.name == "COMMANDLINE"):
            made = {name: made_of(record, given) for name, record in records.items()}
            said = {name: said_of(recipe[0], given) for name, recipe in recipes.items()}
            function(context.obj, **made, **said, **given)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def made_of(record: type, given: dict[str, Any]) -> Any:
    """Return a record of its fields that are options, taken out of all that was given."""
    found = {each.name: given.pop(each.name) for each in options_of(record)}
    return record(**{name: value for name, value in found.items() if value not in (None, [], ())})


def said_of(recipe: type, given: dict[str, Any]) -> dict[str, Any]:
    """Take what was said of the fields of a recipe, as it has them, out of all that was given."""
    found = {each.name: given.pop(each.name, None) for each in fields(recipe)}
    found = {n: tuple(x) if isinstance(x, list) else x for n, x in found.items() if x is not None}
    for name in {"layers", "keep"} & found.keys():
        found[name] = numbers(name, found[name])
    return {name: None if value == "none" else value for name, value in found.items()}


def numbers(name: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a text such as 0-9,12."""
    found: list[int] = []
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if not all(end.isdecimal() for end in ends) or len(ends) > 2:
            raise UsageError(f"--{name} {text}: expected numbers of blocks, for example 0-9,12.")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise UsageError(f"--{name} {text}: {part} goes backwards; write {last}-{first}.")
        found += range(first, last + 1)
    return tuple(found)


def options_of(record: type, *others: Any) -> list[inspect.Parameter]:
    """Return the fields of a record as options, in the panel of the record or one of their own.

    Of several recipes a default is said where all of them have it.
    """
    hints = get_type_hints(record, include_extras=True)
    found = []
    for each in fields(record):
        hint, default = hints[each.name], REQUIRED if each.default is MISSING else each.default
        if any(getattr(one, each.name) != default for one in others):
            hint, default = hint | None, None
        if "option" in each.metadata:
            spellings, how = each.metadata["option"]
            if default is False and not spellings:
                spellings = (f"--{each.name.replace('_', '-')}",)
            info = OptionInfo(default=..., param_decls=spellings, **how)
            hint, default = as_on_command_line(each.metadata["kind"] or hint, default)
        elif not hasattr(hint, "__metadata__"):  # of Python alone
            continue
        else:
            hint, info = hint.__origin__, copy(hint.__metadata__[0])
        if each.name not in getattr(record, "UNCHECKED", ()):
            info.callback = CHECKS.get(each.name)
        if isinstance(info, OptionInfo):
            if info.rich_help_panel is None:
                info.rich_help_panel = getattr(record, "PANEL", None)
            info.rich_help_panel = info.rich_help_panel or None  # "" stands in none
        found.append(parameter(each.name, Annotated[hint, info], default))
    return found


def as_on_command_line(hint: Any, default: Any) -> tuple[Any, Any]:
    """Return the type and the default by which typer reads a field."""
    if get_origin(hint) is tuple and default == ():
        return (str if get_args(hint)[0] is int else list[str]) | None, None  # 0-9,12
    if hint == Gate | None:
        return Literal["none", "relu", "gelu", "silu"], default or "none"
    if hint == TokenizerKind | None:  # of text; numbers are tokens that Python passes
        return Literal["byte-bpe", "wordpiece-lower", "word"] | None, default
    return hint, default


def parameter(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def flags_of(record: Any, changes: dict[str, Any] | None = None) -> list[str]:
    """Return the options of a record, or of a recipe with what is said of it, that were given."""
    found = []
    for each in fields(record):
        value = getattr(record, each.name) if changes is None else changes.get(each.name)
        other = changes is None and each.default not in (MISSING, value)
        if other or (each.default is not MISSING and is_written(each.name, value)):
            spellings, _ = each.metadata.get("option", ((), {}))
            found.append(next(iter(spellings), f"--{each.name.replace('_', '-')}"))
    return found


def refuse_unless(given: list[str], needed: str) -> None:
    """Refuse options, spelled out, that would do nothing without another one."""
    refuse(given, f"with {needed}")


def a_model(given: Any) -> Any:
    return model_at(given)


def any_model(given: Any) -> Any:
    """Check a model of which the tensors alone will do."""
    return model_at(given, any_kind=True)


def model_at(given: Any, any_kind: bool = False) -> Any:
    from bilens.io.file_kinds import find_model
    from bilens.io.remote import located

    if isinstance(given, Path):  # a baseline may be a word
        given = located(given)
        find_model(given, any_kind)
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
    **dict.fromkeys(("model", "input_sae", "output_sae"), a_model),
    "baseline": any_model,
    **dict.fromkeys(("data", "train_data"), data_at),
    "roles": lambda texts: texts if parse_roles(texts or []) else None,
}
Lang = Literal["en", "ja"]
DeviceOption = Annotated[
    Device, typer.Option(help="auto: a GPU where there is one.", rich_help_panel=RUN_PANEL)
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Tell a tracker of experiments each line of the history; may be repeated.",
        metavar="|".join(get_args(TrackerName)),
        rich_help_panel=RUN_PANEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Where in bilens an error arose.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is already there.")]
RunFolder = Annotated[Path, typer.Option(help="Folder for the run.")]
LanguageModel = Annotated[
    Path, typer.Argument(help="Folder of the language model.", callback=a_model)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the IDX files of the data set (.gz or raw).")
]


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
