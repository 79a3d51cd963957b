"""What the explorer runs for people: one command line at a time, and how each ended."""

from typing import Annotated, Literal

from msgspec import Meta

from bilens.base.errors import UsageError
from bilens.records.base import Count, Document, Record
from bilens.records.explorer import ModelPage

Command = Literal["audit", "certify", "trace", "explain"]
DataSet = Literal["mnist", "fashion-mnist"]
State = Literal["waiting", "running", "ending", "done", "failed", "cancelled", "interrupted"]
# Why a job came to nothing, where no command says it; and why a command is not offered.
Ended = Literal["", "lost", "signal", "late", "unstarted", "unwritten", "changed"]
Refused = Literal["line", "option", "gone", "outside", "many", "text", "unreadable"]
Unfit = Literal["coder", "unread", "certify", "trace", "explain"]
OPTIONS: dict[Command, tuple[str, ...]] = {  # that each command takes, besides the model
    "audit": ("data", "dataset", "fail_on"),
    "certify": ("data", "dataset", "samples", "truncate"),
    "trace": ("layer", "input_sae", "output_sae", "data"),
    "explain": ("data", "dataset", "index"),
}
NEEDED: dict[Command, tuple[str, ...]] = {
    "audit": (),
    "certify": (),
    "trace": ("layer",),
    "explain": ("index",),
}
Id = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Small = Annotated[int, Meta(ge=0, le=10**9)]
Text = Annotated[str, Meta(max_length=200)]


class NewJob(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to start a job; files are named by the ids of what the folder holds."""

    command: Command
    model: Id
    data: Id | None = None  # to judge by; of a trace, the text
    dataset: DataSet | None = None  # of data whose name the model does not know
    fail_on: Annotated[tuple[Text, ...], Meta(max_length=50)] | None = None  # as of `bilens audit`
    samples: Small | None = None
    truncate: Small | None = None
    layer: Small | None = None
    input_sae: Id | None = None
    output_sae: Id | None = None
    index: Small | None = None  # a test image from 0, or a row as its table numbers it

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__[2:] if getattr(self, name) is not None}
        if wrong := sorted(given - {*OPTIONS[self.command]}):
            raise UsageError(f"{', '.join(wrong)}: no option of {self.command}; leave it out.")
        if missing := sorted({*NEEDED[self.command]} - given):
            raise UsageError(f"{self.command} needs {', '.join(missing)}.")


class Job(Record, frozen=True):
    """One job."""

    number: Count  # from 1, in the order in which they were asked for
    command: Command
    model: str  # its path from the folder
    arguments: tuple[str, ...]  # of `bilens`, run in the folder
    state: State  # "ending": asked to end; "interrupted": nobody saw it end
    asked: str  # UTC, as of an audit
    started: str | None = None
    ended: str | None = None
    code: int | None = None  # exit code; of a signal, its negative number
    told: str = ""  # the last line that the command wrote on its way, of one that failed why
    report: str | None = None  # address of what it made
    why: Ended | Refused = ""  # what bilens itself says of its end; sentences are `explorer.why.…`
    about: str = ""  # of what that is said
    done: Count = 0  # of `total` steps that the command told last
    total: Count = 0  # 0 where it tells none
    weights_sha256: str = ""  # that it was asked for


class JobPage(Document, frozen=True, kw_only=True):
    """One job, with what it wrote."""

    kind: Literal["job"] = "job"
    job: Job
    output: tuple[str, ...]  # lines of its result, as on a terminal; the end of a long one
    messages: tuple[str, ...]  # lines of how it went


class NamedFile(Record, frozen=True):
    """What the folder holds that a job can be given."""

    id: str
    name: str  # its path from the folder


class NotOffered(Record, frozen=True):
    """A command that cannot work on a model."""

    command: Command
    why: Unfit  # sentences are `explorer.unfit.…`
    told: str = ""  # why a model cannot be read


class Choices(Record, frozen=True, kw_only=True):
    """What the folder has to start a job with."""

    data: tuple[NamedFile, ...]  # tables, arrays and images
    texts: tuple[NamedFile, ...]
    saes: tuple[NamedFile, ...]  # autoencoders


class JobList(Document, frozen=True, kw_only=True):
    """The queue, and what has been run."""

    kind: Literal["jobs"] = "jobs"
    jobs: tuple[Job, ...]  # the last one first


class ModelJobs(Document, frozen=True, kw_only=True):
    """The jobs of a model, and what the folder has to start one with."""

    kind: Literal["model_jobs"] = "model_jobs"
    page: ModelPage
    jobs: tuple[Job, ...]  # the last one first
    choices: Choices
    not_offered: tuple[NotOffered, ...] = ()
