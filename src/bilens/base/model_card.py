"""The card of a model folder, README.md: fields that the Hugging Face hub reads, then words.

A card ends in a hash of itself. With it unchanged it is written anew with the model; one that
people changed is kept. Licence, languages and data sets are never guessed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path, PurePath

from bilens.version import VERSION

CARD_NAME = "README.md"
NO_LICENCE = "not stated: nothing here says under which one the model may be used"
LONGEST = 300  # letters of a value of the provenance
SEAL = "<!-- bilens {}: a card that was changed is kept -->\n"
OF_WEIGHTS = re.compile(r"^\| SHA-256 of the weights \| ([0-9a-f]{64}) \|$", re.MULTILINE)
# a model of the hub: at an address, or where its cache keeps it
HUB_PLACES = (
    re.compile(r"hf://(?!datasets/|spaces/)([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?(?:/.*)?"),
    re.compile(r".*/models--([\w.-]+)/snapshots/([0-9a-f]{40})(?:/.*)?"),
)


def card_file(
    folder: Path,
    template: str,
    weights_sha256: str,
    sizes: Mapping[str, object],
    provenance: Mapping[str, str],
    words: Mapping[str, object],
) -> dict[str, bytes]:
    """Return the card of a model as a file of its folder; none where one of people lies there.

    Templates lie in `cards/`; `words` are what else one asks for.
    """
    there = folder / CARD_NAME
    if there.exists() and not is_own_card(there):
        return {}
    places = map(
        hub_origin, (provenance.get(key, "") for key in ("converted_from", "teacher", "model"))
    )
    bases = [one["hub"] for one in (provenance, *places) if "hub" in one]
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items() if size is not None)
    short = {name: shown(value) for name, value in provenance.items() if len(value) <= LONGEST}
    rows = {"Sizes": listed, **short, "Licence": NO_LICENCE}
    rows |= {"SHA-256 of the weights": weights_sha256, "Written by": f"bilens {VERSION}"}
    text = files("bilens.base").joinpath("cards", f"{template}.md").read_text("utf-8")
    base = "".join(f"base_model: {json.dumps(name)}\n" for name in bases[:1])
    table = "".join(f"| {cell(name)} | {cell(value)} |\n" for name, value in rows.items() if value)
    return {CARD_NAME: sealed(text.format(base=base, rows=table, **words)).encode()}


def sealed(text: str) -> str:
    return text + SEAL.format(hashlib.sha256(text.encode()).hexdigest())


def is_own_card(path: Path) -> bool:
    """Tell whether a file is a card as bilens wrote it."""
    text = path.read_text("utf-8", "replace") if path.name == CARD_NAME else ""
    return sealed(text[: -len(sealed(""))]) == text


def hub_origin(place: str) -> dict[str, str]:
    """Return the model of the hub that lies at an address or in the cache, and its commit."""
    for found in filter(None, (pattern.fullmatch(place) for pattern in HUB_PLACES)):
        commit = {"revision": found[2]} if found[2] else {}
        return {"hub": found[1].replace("--", "/", 1), **commit}
    return {}


def shown(value: str) -> str:
    """Return a value of a provenance as others may read it: of a path the name alone."""
    found = " at ".join(hub_origin(value).values())
    return found or (PurePath(value).name if value.startswith(("/", "~")) else value)


def cell(text: str) -> str:
    """Return a text that cannot end its cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
