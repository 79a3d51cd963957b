"""The corpus a model was trained on: how to load it again, and whether it is still the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.base.atomic import write_file
from bilens.base.errors import CheckpointError, DataError
from bilens.data.text import GRAMMAR, TextCorpus, load_text
from bilens.io.config import read_json
from bilens.train.run_files import CORPUS_NAME


@dataclass(frozen=True)
class CorpusOptions:
    """The arguments of `load_text`: which documents, and which of them are held out."""

    corpus: str
    column: str | None = None
    split: str = "train"
    held_out: float = 0.05
    limit: int | None = None
    seed: int = 0
    stream: bool = False

    def load(self, report: Callable[[str], None] | None = None) -> TextCorpus:
        """Return the corpus; errors are those of `load_text`."""
        return load_text(report=report, **dataclasses.asdict(self))


@dataclass(frozen=True)
class CorpusDescription:
    """What `corpus.json` in a run folder says.

    Attributes:
        options: how to load the corpus again; a path is absolute.
        name: of the corpus.
        source: where the documents came from, one sentence.
        fingerprint: SHA-256 of the documents of both parts.
        num_documents: to train on.
        num_held_out: held out.
    """

    options: CorpusOptions
    name: str
    source: str
    fingerprint: str
    num_documents: int
    num_held_out: int

    @classmethod
    def of(cls, options: CorpusOptions, corpus: TextCorpus) -> CorpusDescription:
        """Return the description of a corpus that was loaded with these options."""
        path = Path(options.corpus)
        if options.corpus != GRAMMAR and path.exists():
            options = dataclasses.replace(options, corpus=str(path.resolve()))
        return cls(
            options,
            corpus.name,
            corpus.source,
            corpus.fingerprint,
            len(corpus.documents),
            len(corpus.held_out),
        )

    def load(
        self, corpus: str | None = None, report: Callable[[str], None] | None = None
    ) -> TextCorpus:
        """Return the corpus again, split as it was.

        Args:
            corpus: where it is now, if it was moved.
            report: as in `load_text`.

        Raises:
            DataError: If it is not there, or holds other documents than it did.
        """
        options = self.options
        if corpus is not None:
            options = dataclasses.replace(options, corpus=corpus)
        found = options.load(report)
        if found.fingerprint != self.fingerprint:
            raise DataError(
                f"{options.corpus} holds other documents than the model was trained on (the "
                "SHA-256 differs): say with --corpus where those are."
            )
        return found

    def write(self, folder: Path) -> None:
        """Write `corpus.json` into a run folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_file(folder / CORPUS_NAME, text.encode())

    @classmethod
    def read(cls, folder: Path) -> CorpusDescription:
        """Return what `corpus.json` in a run folder says.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        path = folder / CORPUS_NAME
        content: dict[str, Any] = read_json(path)
        try:
            return cls(**{**content, "options": CorpusOptions(**content["options"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: is not the description of a corpus ({error}): restore the file."
            ) from None
