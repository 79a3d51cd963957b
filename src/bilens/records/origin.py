"""Where a result comes from: weights, data, and the run that made it."""

from __future__ import annotations

from bilens.records.base import Count, Integer, Record


class Source(Record, frozen=True):
    """Where the weights come from."""

    path: str  # empty for a model that was passed from memory
    weights_sha256: str  # of the weights file; empty where there is none
    provenance: dict[str, str]  # what the file of the weights says about itself


class DataOrigin(Record, frozen=True):
    """Which images or rows were used."""

    name: str  # e.g. `mnist`; empty for data from memory
    source: str  # where the data come from, one sentence
    # `data-dir`, `cache`, `download`, `table`, `tensors`, or `embedded`: the 5,000 digits, which
    # are not the full data set
    source_kind: str
    num_images: Count  # test inputs
    sha256: str  # of the data; empty where it was not taken


class TextOrigin(Record, frozen=True):
    """Which text was used."""

    name: str  # e.g. `tinystories`; empty for tokens from memory
    source: str  # where the text comes from, one sentence
    num_tokens: Count
    sha256: str  # of the text; empty where it was not taken


class Run(Record, frozen=True):
    """What it takes to run the same again."""

    command: str  # the command line
    seed: Integer
    versions: dict[str, str]  # package to version
    hardware: str  # processor and threads
    date: str  # year-month-day, UTC


class Origin(Record, frozen=True):
    """Weights, data and run of one result."""

    source: Source
    data: DataOrigin | None  # null without data
    reproduce: Run


IN_MEMORY = Source("", "", {})
UNKNOWN = Origin(IN_MEMORY, None, Run("", 0, {}, "", ""))
