"""What every report can do: its JSON document, and the page that is drawn from it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from markupsafe import escape

from bilens.base.atomic import write_file
from bilens.base.errors import BilensError, CheckpointError
from bilens.report.document import Document
from bilens.report.shape import json_text

NOTEBOOK_HEIGHT = 800  # pixels


@dataclass(frozen=True)
class SavedReport(ABC):
    """A checked JSON document that can be saved, read again and drawn.

    Args:
        document: JSON values; kept as a checked copy.

    Raises:
        UsageError: If it is a document of another kind, or of a later schema.
        NonFiniteError: If a number in it is NaN or infinite.
    """

    document: Document
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "document", self.checked(self.document))

    @staticmethod
    @abstractmethod
    def checked(document: Document) -> Document:
        """Return a copy that is known to be drawable."""

    @abstractmethod
    def page(self, lang: str) -> str:
        """Return the document as one HTML page."""

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a report from the JSON file that `to_json` wrote.

        Raises:
            CheckpointError: If the file is missing, damaged, of another kind or of a later schema.
        """
        try:
            document = json.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(f"{path}: cannot be read ({reason}).") from None
        except (ValueError, RecursionError):
            raise CheckpointError(
                f"{path}: not a JSON file: pass the JSON file of a report."
            ) from None
        try:
            return cls(document)
        except BilensError as error:
            raise CheckpointError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the document, as a copy."""
        copy: dict[str, Any] = json.loads(json_text(self.document))
        return copy

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the document as JSON; where a path is given, write it there in one step.

        Raises:
            FileError, DiskError: If the file cannot be written.
        """
        text = json_text(self.document)
        if path is not None:
            write_file(Path(path), f"{text}\n".encode())
        return text

    def to_html(self, path: str | Path | None = None, lang: str = "en") -> str:
        """Return the report as one HTML page; where a path is given, write it there in one step.

        The page needs no network and no script.

        Args:
            path: of the file to write.
            lang: "en" or "ja".

        Raises:
            UsageError: If there is no report in that language.
            FileError, DiskError: If the file cannot be written.
        """
        text = self.page(lang)
        if path is not None:
            write_file(Path(path), text.encode("utf-8"))
        return text

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame that can reach nothing outside itself."""
        return (
            f'<iframe sandbox="" srcdoc="{escape(self.to_html())}" width="100%" '
            f'height="{NOTEBOOK_HEIGHT}" style="border:0" title="bilens {self.kind}"></iframe>'
        )
