"""The card of a model folder, README.md: fields that the Hugging Face hub reads, then words.

A card that nobody changed ends in a hash of itself, and is written anew with the model; a changed
one is kept. Licence, languages and data sets are never guessed.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from bilens.base.files import write_files
from bilens.version import VERSION

CARD_NAME = "README.md"
WEIGHTS_ROW = "SHA-256 of the weights"
NO_LICENCE = "not stated: nothing here says under which one the model may be used"
NOT_MEASURED = "Of these weights nothing was measured that this card could tell."
LONGEST = 300  # letters of a value of the provenance
MEASURED = re.compile(r"<!-- measured -->\n.*?<!-- end -->\n", re.DOTALL)
SEAL = re.compile(r"<!-- bilens ([0-9a-f]{64}): a card that was changed is kept -->\n\Z")
FRONT = re.compile(r"\A---\n(.*?\n)?---\n", re.DOTALL)
OF_WEIGHTS = re.compile(rf"^\| {WEIGHTS_ROW} \| ([0-9a-f]{{64}}) \|$", re.MULTILINE)
PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[a-z][\w./-]*", re.IGNORECASE)
# a model of the hub: at an address, or where its cache keeps it
HUB_PLACES = (
    re.compile(r"hf://(?!datasets/|spaces/)([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?(?:/.*)?"),
    re.compile(r".*/models--([\w.-]+)/snapshots/([0-9a-f]{40})(?:/.*)?"),
)
BASES = ("converted_from", "teacher", "model")  # keys of a provenance that name where one lies


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is told of a model: its kind, a text in Markdown, sizes, where its weights are from."""

    title: str
    text: str
    weights_sha256: str
    sizes: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    library: str = "bilens"  # that loads the folder
    task: str = ""  # as the hub names it
    tags: Sequence[str] = ()
    scores: Mapping[str, object] = field(default_factory=dict)  # fields of the card
    measured: str = NOT_MEASURED

    def to_markdown(self) -> str:
        """Return the card, with the hash by which it is known to be unchanged."""
        bases = [hub_origin(self.provenance.get(key, "")) for key in BASES]
        fields: dict[str, object] = {
            "library_name": self.library,
            "pipeline_tag": self.task,
            "tags": ["bilens", "interpretability", *self.tags],
            "base_model": next((x["hub"] for x in (self.provenance, *bases) if "hub" in x), ""),
            **self.scores,
        }
        sizes = ", ".join(f"{key} {one}" for key, one in self.sizes.items() if one is not None)
        short = {key: shown(one) for key, one in self.provenance.items() if len(one) <= LONGEST}
        facts = {"Sizes": sizes, **short, "Licence": NO_LICENCE, WEIGHTS_ROW: self.weights_sha256}
        rows = (f"| {cell(name)} | {cell(value)} |\n" for name, value in facts.items() if value)
        table = f"| | |\n|---|---|\n{''.join(rows)}| Written by | bilens {VERSION} |\n"
        words = f"# {self.title}\n\n{self.text.strip()}\n\n{table}"
        return sealed(f"{front_matter(fields)}\n{words}\n{measured_section(self.measured)}")


def hub_origin(place: str) -> dict[str, str]:
    """Return the model of the hub that lies at an address or in the cache, and its commit."""
    for found in filter(None, (pattern.fullmatch(place) for pattern in HUB_PLACES)):
        commit = {"revision": found[2]} if found[2] else {}
        return {"hub": found[1].replace("--", "/", 1), **commit}
    return {}


def shown(value: str) -> str:
    """Return a value of a provenance as others may read it: of a path the name alone."""
    if found := hub_origin(value):
        return " at ".join(found.values())
    return PurePath(value).name if value.startswith(("/", "~")) else value


def front_matter(fields: Mapping[str, object]) -> str:
    """Return the first lines of a card as YAML, of those fields that have a value."""
    lines = (yaml_lines(name, value) for name, value in fields.items() if value)
    return f"---\n{''.join(lines)}---\n"


def yaml_lines(name: str, value: object) -> str:
    if isinstance(value, list):
        return f"{name}:\n" + "".join(f"- {yaml_value(one)}\n" for one in value)
    return f"{name}: {yaml_value(value)}\n"


def yaml_value(value: object) -> str:
    """Return a value as YAML, of which JSON is a part."""
    is_plain = isinstance(value, str) and PLAIN.fullmatch(value)
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def measured_section(text: str) -> str:
    return f"<!-- measured -->\n{text.strip()}\n<!-- end -->\n"


def amend_card(text: str, fields: Mapping[str, object], measured: str = "") -> str:
    """Return a card with these fields set, and with what was measured in its place, or behind."""
    is_own, text = is_unchanged(text), SEAL.sub("", text)
    front = FRONT.match(text)
    before, words = (front[1] or "", text[front.end() :]) if front else ("", f"\n{text}")
    for name, value in fields.items():
        before = re.sub(rf"(?m)^{re.escape(name)}:.*\n(?:[ \t#-].*\n|\n)*", "", before)
        before += yaml_lines(name, value)
    if licence := fields.get("license"):
        words = words.replace(f"| Licence | {NO_LICENCE} |", f"| Licence | {cell(str(licence))} |")
    if measured:
        section = measured_section(measured)
        words, count = MEASURED.subn(lambda _: section, words)
        words += "" if count else f"\n{section}"
    return sealed(f"---\n{before}---\n{words}") if is_own else f"---\n{before}---\n{words}"


def sealed(text: str) -> str:
    seal = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}<!-- bilens {seal}: a card that was changed is kept -->\n"


def is_unchanged(text: str) -> bool:
    """Tell whether a card is as bilens wrote it."""
    found = SEAL.search(text)
    return found is not None and sealed(text[: found.start()]) == text


def card_file(folder: Path, card: ModelCard) -> dict[str, bytes]:
    """Return the card as a file of a folder; none where one lies there that people wrote."""
    there = folder / CARD_NAME
    if there.exists() and not is_unchanged(there.read_text("utf-8", "replace")):
        return {}
    return {CARD_NAME: card.to_markdown().encode()}


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card of a model that lies in a folder, unless people wrote one."""
    write_files({folder / name: data for name, data in card_file(folder, card).items()})


def cell(text: str) -> str:
    """Return a text that cannot end its cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
