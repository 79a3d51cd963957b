"""Turns what a case leaves behind into JSON: values, files, pages and texts.

What may differ from one run to the next (times, dates, versions, folders of this run) is written
as a fixed word; everything else is kept.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

KEPT_WHOLE = 24  # elements of an array that is written out
WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")
HASH_LENGTH = 64
HASH = re.compile(r"\b[0-9a-f]{64}\b")
DEPTH = 6  # of records inside records
PRIVATE = {"views", "read", "network", "compare"}  # of a loaded model: said elsewhere
# Keys whose values depend on the clock, the machine or what is installed.
VARYING = {
    *("date", "versions", "hardware", "tokens_per_second", "seconds_per_step"),
    *("images_per_second", "python", "torch", "numpy", "bilens", "milliseconds", "cpu"),
    *("transformers_version", "transformers"),
}
VARYING_TEXT = [
    (re.compile(r"\b\d[\d,.]*k? (tokens|activations|images|steps)/s"), r"SPEED \1/s"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"\b\d+:\d\d(:\d\d)?\b(?= left| elapsed)"), "TIME"),
    (re.compile(r"\b\d[\d.,]* ?(ms|s|sec|seconds|min|minutes)\b"), "TIME"),
    (
        re.compile(r"\b(bilens|Python|PyTorch|torch|NumPy|numpy|python) \d+(\.\d+)+\S*"),
        r"\1 VERSION",
    ),
    (re.compile(r"0x[0-9a-f]{6,}"), "ADDRESS"),
    (re.compile(r"seconds a step: .*"), "seconds a step: VARIES"),
    (re.compile(r"(\| \d+ )\| \d+ (\| [–\d. /]+ \|)$", re.MULTILINE), r"\1| TIME \2"),
]


class Describer:
    """Knows the words of this run that are no part of a result."""

    def __init__(self, replacements: Mapping[str, str]) -> None:
        self.replacements = dict(replacements)
        self.files: dict[str, str] = {}

    def learn(self, root: Path, below: str = ".") -> None:
        """Know the files of weights below a folder of the root by their SHA-256.

        The format writes what is said beside the tensors in any order, so that the same weights
        have one of several hashes; that a hash is the one of its file is kept. Copies have the
        name of the model that they are copies of.
        """
        paths = (root / below).rglob("*")
        for path in sorted(paths, key=lambda path: ("models" not in path.parts, path)):
            if path.suffix in WEIGHTS and path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                self.files.setdefault(content, f"SHA OF {path.parent.name}/{path.name}")

    def text(self, text: str) -> str:
        """The text without what varies."""
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        text = HASH.sub(lambda found: self.files.get(found[0], found[0]), text)
        if len(text) > HASH_LENGTH:  # a page that names the hash of a document with a date in it
            text = HASH.sub("SHA", text)
        for pattern, word in VARYING_TEXT:
            text = pattern.sub(word, text)
        return text

    def document(self, value: Any) -> Any:
        """JSON without what varies."""
        if isinstance(value, dict):
            return {
                key: "VARIES" if varies(key, item) else self.document(item)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.document(item) for item in value]
        if isinstance(value, str):
            return self.nested(value)
        return special(value)

    def nested(self, value: str) -> Any:
        """A text, or the JSON in it."""
        if value[:1] in ("{", "[") and value[-1:] in ("}", "]"):
            try:
                return {"json in a text": self.document(json.loads(value))}
            except ValueError:
                pass
        return self.text(value)

    def value(self, value: Any, depth: int = DEPTH) -> Any:
        """Any value of Python: numbers as they are, large arrays in short."""
        if value is None or isinstance(value, bool | int | float):
            return special(value)
        if isinstance(value, str | Path):
            return self.nested(str(value))
        if isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, Tensor):
            return array(value.detach().cpu())
        if isinstance(value, np.ndarray | np.generic):
            return self.numpy(np.asarray(value))
        if isinstance(value, torch.dtype):
            return str(value)
        if isinstance(value, Mapping):
            return self.document(
                {str(key): self.value(item, depth - 1) for key, item in value.items()}
            )
        if isinstance(value, list | tuple | set | frozenset):
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return [self.value(item, depth - 1) for item in items]
        if hasattr(value, "to_csv"):  # a table of pandas
            return self.text(value.to_csv())
        return self.record(value, depth)

    def numpy(self, value: Any) -> Any:
        """An array of numpy."""
        if value.dtype.kind in "OUS":
            return [str(item) for item in value.ravel().tolist()]
        return array(torch.from_numpy(np.array(value)))

    def record(self, value: Any, depth: int) -> Any:
        """An object by its public attributes; one that cannot be read is written as its error."""
        if inspect.isroutine(value) or isinstance(value, type | functools.partial):
            return "<callable>"
        name = type(value).__name__
        if depth <= 0:
            return f"<{name}>"
        if isinstance(value, torch.nn.Module):
            return {"a": name, "state": self.value(dict(value.state_dict()), depth - 1)}
        names = {name for name in dir(type(value)) if is_property(type(value), name)}
        if dataclasses.is_dataclass(value):
            names |= {field.name for field in dataclasses.fields(value)}
        found: dict[str, Any] = {}
        for attribute in sorted(names):
            if not attribute.startswith("_") and attribute not in PRIVATE:
                found[attribute] = self.attempt(value, attribute, depth)
        return {"a": name, **self.document(found)}

    def attempt(self, value: Any, attribute: str, depth: int) -> Any:
        """One attribute, or what reading it raises."""
        try:
            return self.value(getattr(value, attribute), depth - 1)
        except Exception as error:
            return self.text(f"raises {type(error).__name__}: {error}")

    def file(self, path: Path) -> Any:
        """What a file holds, by its kind."""
        kind = path.suffix
        if kind == ".json":
            return self.document(json.loads(path.read_text("utf-8")))
        if kind == ".jsonl":
            return [self.document(json.loads(line)) for line in path.open(encoding="utf-8")]
        if kind == ".safetensors":
            return self.safetensors(path)
        if kind in (".html", ".svg"):
            return self.page(path.read_text("utf-8"))
        if kind in (".md", ".txt", ".csv"):
            return HASH.sub("SHA", self.text(path.read_text("utf-8")))
        return {"bytes": path.stat().st_size, "sha256": digest(path.read_bytes())}

    def safetensors(self, path: Path) -> Any:
        """The tensors in short, and what is written beside them."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: array(file.get_tensor(name)) for name in sorted(file.keys())}
        return {"tensors": tensors, "metadata": self.document(metadata)}

    def page(self, source: str) -> Any:
        """The visible text of a page, its labels, how much is drawn, and the JSON inside it."""
        reader = PageReader()
        reader.feed(source)
        reader.close()
        return {
            "text": [HASH.sub("SHA", self.text(line)) for line in reader.lines],
            "labels": [self.text(label) for label in reader.labels],
            "elements": dict(sorted(reader.counts.items())),
            "drawn": {
                "numbers": reader.drawn_count,
                "sum": reader.drawn_sum,
                "sum of absolutes": reader.drawn_size,
            },
            "pictures": reader.pictures,
            "json": [self.document(document) for document in reader.documents],
        }


class PageReader(HTMLParser):
    """Collects what a reader of an HTML page or an SVG sees."""

    LABELS = ("alt", "title", "aria-label", "lang", "id", "href")
    DRAWN = ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points")
    NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.labels: list[str] = []
        self.counts: dict[str, int] = {}
        self.pictures: list[str] = []
        self.documents: list[Any] = []
        self.drawn_count, self.drawn_sum, self.drawn_size = 0, 0.0, 0.0
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count the element and read its attributes."""
        self.counts[tag] = self.counts.get(tag, 0) + 1
        given = {name: value or "" for name, value in attrs}
        if tag in ("style", "script"):
            is_json = "json" in given.get("type", "")
            self.inside = "json" if is_json else tag
        self.labels += [f"{name}={given[name]}" for name in self.LABELS if name in given]
        if given.get("src", "").startswith("data:"):
            self.pictures.append(digest(given["src"].encode()))
        for name in self.DRAWN:
            for number in map(float, self.NUMBER.findall(given.get(name, ""))):
                self.drawn_count += 1
                self.drawn_sum += number
                self.drawn_size += abs(number)

    def handle_endtag(self, tag: str) -> None:
        """Text is visible again."""
        if tag in ("style", "script"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        """Keep text that is seen."""
        if self.inside == "json":
            self.documents.append(json.loads(data))
        elif not self.inside and (line := " ".join(data.split())):
            self.lines.append(line)


def varies(key: str, value: Any) -> bool:
    """Whether a value depends on the clock, the machine, or on a hash of a file of weights."""
    is_hash = isinstance(value, str) and HASH.fullmatch(value) is not None
    return key in VARYING or key.endswith("seconds") or (key == "data" and is_hash)


def is_property(kind: type, name: str) -> bool:
    """Whether a class computes an attribute when it is read."""
    return type(getattr(kind, name, None)).__name__ in ("property", "cached_property")


def special(value: Any) -> Any:
    """A number; what JSON cannot say becomes a word."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"<{value}>"
    return value


def digest(content: bytes) -> str:
    """A short SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def array(tensor: Tensor) -> dict[str, Any]:
    """A small array whole; of a large one the size, sums that see every element, and its start."""
    about: dict[str, Any] = {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": [*tensor.shape],
    }
    flat = tensor.flatten()
    if tensor.dtype.is_complex:
        flat = torch.view_as_real(flat).flatten()
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        flat = flat.long()
    if flat.numel() <= KEPT_WHOLE:
        return {**about, "values": [special(value) for value in flat.tolist()]}
    numbers = flat.double()
    weights = torch.cos(torch.arange(len(numbers), dtype=torch.float64))
    return {
        **about,
        "norm": special(float(numbers.norm())),
        "sum": special(float(numbers.sum())),
        "weighted sum": special(float(numbers @ weights)),
        "start": [special(value) for value in flat[:6].tolist()],
    }
