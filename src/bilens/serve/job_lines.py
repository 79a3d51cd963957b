"""The command lines of jobs: made of what a page asks for, and checked again before they run."""

import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bilens.base.errors import CheckpointError, FileError, UsageError
from bilens.base.files import read_json
from bilens.findings.rules.registry import parse_conditions
from bilens.records.jobs import OPTIONS, Command, NewJob, Refused
from bilens.report.text import load_catalogue
from bilens.serve.inside import MOST_OF_DATA, ElsewhereError, files_of, named_in

CORPUS_NAME = "corpus.json"  # of train/run_folder.py, which would load torch into each keeper
FILES = ("--data", "--corpus", "--input-sae", "--output-sae")  # options that name one
RESULT = {"audit": "--history=."}  # of all others a document


class RefusedError(UsageError):
    """Why a job is not run; pages say it in their reader's language."""

    def __init__(self, why: Refused, about: str = "") -> None:
        super().__init__(load_catalogue("en")(f"explorer.why.{why}", about=about))
        self.why, self.about = why, about


def arguments_of(
    asked: NewJob, models: Mapping[str, str], data: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the command line of a job; all names in it are of `models` and `data`, by id."""
    parse_conditions(asked.fail_on or (), data=True, baseline=False)
    files = {"data": data, "input_sae": models, "output_sae": models}
    words: list[str] = [asked.command, RESULT.get(asked.command, "--json")]
    for name in OPTIONS[asked.command]:
        given = getattr(asked, name)
        if name in files and given is not None:
            if given not in files[name]:
                raise UsageError(f"{name}: it is no longer in the folder; load the page again.")
            given = files[name][given]
        each = given if isinstance(given, tuple) else () if given is None else (given,)
        words += [f"--{spelled(asked.command, name)}={one}" for one in each]
    return (*words, "--", models[asked.model])


def check_line(folder: Path, command: Command, line: tuple[str, ...]) -> None:
    """Refuse a command line that no page can have asked for, or whose files are gone since.

    Somebody else may write into the folder, and this process has other rights.
    """
    match line:
        case (first, *words, "--", model) if first == command:
            files = [model]
        case _:
            raise RefusedError("line")
    options = {f"--{spelled(command, name)}" for name in OPTIONS[command]}
    for word in words:
        option, _, value = word.partition("=")
        if option not in options and word != RESULT.get(command, "--json"):
            raise RefusedError("option", option)
        if option in FILES:
            files.append(value)
    for name in files:
        check_file(folder, name)
    if command == "trace" and "--corpus" not in {word.partition("=")[0] for word in words}:
        check_text(folder, model)


def check_file(folder: Path, name: str) -> None:
    """Refuse a file or a folder that a job may not read."""
    try:
        path = Path(os.path.realpath(folder / name))  # which a loop of links does not stop
        if not path.exists() or not path.is_relative_to(folder):
            raise RefusedError("gone", name)
        deque(files_of(folder, folder / name, MOST_OF_DATA), maxlen=0)
    except RefusedError:
        raise
    except ElsewhereError:
        raise RefusedError("outside", name) from None
    except FileError:
        raise RefusedError("many", name) from None
    except (OSError, ValueError):
        raise RefusedError("unreadable", name) from None


def check_text(folder: Path, model: str) -> None:
    """Refuse to read the text that a model was trained on where it lies out of the folder."""
    place = folder / model
    with suppress(CheckpointError, AttributeError):  # none is said
        named = read_json(place / CORPUS_NAME).get("options", {}).get("corpus")
        try:
            named_in(folder, place, str(named))
        except ElsewhereError:
            raise RefusedError("text", model) from None


def spelled(command: Command, name: str) -> str:
    """Return the option of the command line that a field of a `NewJob` is."""
    return "corpus" if command == "trace" and name == "data" else name.replace("_", "-")
