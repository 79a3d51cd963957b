"""`bilens push`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.console import Output
from bilens.cli.options import option
from bilens.cli.shared_options import ModelFile


@dataclass(frozen=True)
class PushOptions:
    """Where to, who may see it, and what is said of it."""

    repository: Annotated[str, typer.Argument(help="On the hub: OWNER/NAME.")]
    public: bool = option(False, "Let everybody see it; else it is private.")
    message: str | None = option(None, "Of the commit.", "--message", "-m")
    report: list[Path] | None = option(
        None, "Report of these weights, or a folder of evidence, to send, too; may be repeated."
    )
    license: str | None = option(None, "Licence for the card, as the hub names it: apache-2.0.")
    dry_run: bool = option(False, "Send nothing: list the files and their sizes.")


def push(output: Output, source: ModelFile, options: PushOptions) -> None:
    """Send a model to the Hugging Face hub: its files, its card, and the reports that are named.

    With the token of `hf auth login` or HF_TOKEN. Files are listed before any is sent.

    Example: bilens push runs/mnist owner/digits --report audit.json --dry-run
    """
    from bilens.api.push import push as push_model

    said = {name: value for name, value in vars(options).items() if value is not None}
    repository, public = said.pop("repository"), said.pop("public")
    said["reports"] = said.pop("report", ())
    model = source.open(output.say)
    done = push_model(model, repository, private=not public, say=output.say, **said)
    told = f"Sent to {done.address}: {done.url}" if done.url else "Nothing was sent."
    seen = f"{len(done.files)} files, {'private' if done.private else 'public'}"
    output.answer({"schema_version": 1, "kind": "push", **asdict(done)}, f"{told} ({seen})")
