"""`docs/reproduction.md`: every experiment of the paper, published beside ours.

`python -m tools.reproduction OUT` copies from the output folder of `bilens reproduce` to
`docs/reproduction` the rows of each study, a value a run, its recipes, and its page with drawings,
and to `findings/reference.json` what the findings are measured by;
`make docs` draws the page of all from there, and from the benchmarks that are studies.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bilens.findings.reference import REFERENCE as JUDGED
from bilens_studies.finding_power import MLPS
from bilens_studies.page_writer import finding_cells, table
from bilens_studies.published import (
    AGREES,
    DIFFERS,
    OPEN,
    RULE,
    UNJUDGED,
    findings,
)
from bilens_studies.study import Study, spelling
from bilens_studies.study_folder import CELLS_FOLDER, DOCUMENT_NAME, PAGE_NAME, write_json
from bilens_studies.study_list import all_studies
from tools.page_parts import anchor, write_parts

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS.parent / "src" / "bilens" / "findings" / "reference.json"
KEPT, BENCHMARKS = DOCS / "reproduction", DOCS / "benchmarks"
MOST_DRAWN = 650_000  # bytes of the drawings of a study, the smallest first
HEADS = "quantity | published | other reproductions | ours | verdict"
VERDICTS = (AGREES, DIFFERS, UNJUDGED, OPEN)
Document = dict[str, Any]
Rows = dict[str, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper, or of those who repeated it."""

    name: str
    what: str
    studies: tuple[str, ...]  # that measure it
    pages: tuple[str, ...] = ()  # benchmarks that say more
    note: str = ""
    sources: str = ""  # of its rows, a regular expression, where a study is of several experiments


EXPERIMENTS = (
    Experiment(
        "Toy gates", "gates on all pairs of four bits, read from the weights", ("toy/logic",)
    ),
    Experiment(
        "§4.1, Fig. 2, 3, App. A",
        "leading eigenvectors and spectra of MNIST and Fashion-MNIST classifiers",
        ("vision/eigenvectors",),
    ),
    Experiment(
        "Fig. 4",
        "one digit's eigenvectors against input noise",
        ("vision/regularisation",),
        sources=r"Fig\. 4\b",
    ),
    Experiment(
        "§4.2, Fig. 5, App. F",
        "eigenvectors across seeds and sizes; accuracy with few of them",
        ("vision/consistency", "vision/truncation"),
    ),
    Experiment("§4.3, Fig. 6", "a classifier of one image's neighbours", ("vision/targets",)),
    Experiment("§4.4, Fig. 7, App. M", "masks from weights", ("vision/masks",), ("masks",)),
    Experiment(
        "§5.1, Fig. 8, App. N, O",
        "the negation circuit",
        ("language/negation", "language/negation-text"),
    ),
    Experiment(
        "§5.2, Fig. 9",
        "latents from few eigenvectors",
        ("language/sae-training",),
        sources=r"§5\.2|Fig\. 9\b",
    ),
    Experiment(
        "App. B",
        "noise, blur, rotation, translation",
        ("vision/regularisation",),
        sources=r"App\. B\b",
    ),
    Experiment("App. C", "explanations of answers", ("vision/explanations",)),
    Experiment("App. D", "HOSVD of a classifier", ("vision/hosvd",)),
    Experiment(
        "App. E",
        "ranks by weight decay and noise",
        ("vision/regularisation",),
        sources=r"App\. E\b",
    ),
    Experiment("App. G", "autoencoders layer by layer", ("language/layers",)),
    Experiment(
        "App. H",
        "autoencoders over training time",
        ("language/sae-training",),
        sources=r"App\. H\b",
    ),
    Experiment("App. I", "bilinear beside gated language models", ("language/gates",)),
    Experiment(
        "App. J",
        "a gated model made bilinear",
        ("conversion", "conversion-circuits"),
        ("conversion_smollm2", "smollm2"),
    ),
    Experiment(
        "App. K, L",
        "outputs written anew by a pseudo-inverse; biases",
        ("vision/shared",),
        note="Theory: the identities are [stated](math.md) and tested.",
    ),
    Experiment(
        "TMLR reproduction",
        "accuracy and rank with noise, decay, both, none",
        ("vision/corners",),
        note="Without a study: its CP-constrained layers, its transfer between data sets, its QFS.",
    ),
    Experiment("Addition modulo p", "grokking, seen in the weights", ("toy/modular",)),
)
OTHERS = Experiment(
    "Further studies",
    "what the paper has no experiment of",
    ("vision/replacing", "findings/images", "findings/stopping"),
)


@dataclass(frozen=True)
class Told:
    """A committed result of a study."""

    study: Study
    document: Document
    page: str  # that it stands on

    def findings(self) -> Sequence[Mapping[str, Any]]:
        if "findings" in self.document:
            return self.document["findings"]  # type: ignore[no-any-return]
        return findings(self.study.published, self.study.reproduced(self.document["result"]))

    def origin(self) -> str:
        """Return where its rows come from: the page, the command, when and on what."""
        shown = (self.document.get(key) or [] for key in ("date", "hardware"))
        where = (one if isinstance(one, str) else " and ".join(one) for one in shown)
        parts = [f"`{trimmed(self.document['command'])}`", *filter(None, where)]
        return f"[{self.study.title}]({self.page}): {', '.join(parts)}."


def file_name(study: str) -> str:
    return f"{study.replace('/', '-')}.json"


def trimmed(command: str) -> str:
    """Return a command without the folders of the machine that it ran on."""
    return shlex.join(map(last, shlex.split(command)))


def last(value: Any) -> Any:
    """Return the name of a file for its absolute path, in lists too; anything else as it is."""
    if isinstance(value, list):
        return [last(one) for one in value]
    return Path(value).name if str(value).startswith("/") else value


def told() -> dict[str, Told]:
    """Return what is committed, by study, in the order of the studies."""
    pages: dict[str, Path] = {}
    for path in sorted(BENCHMARKS.glob("*.json")):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and document.get("kind") == "study":
            pages[document["study"]] = path
    found = {}
    for name, study in all_studies().items():
        own = KEPT / file_name(name)
        if place := own if own.exists() else pages.get(name):
            page = f"benchmarks/{place.stem}.md"
            if place == own:
                told_at = KEPT / own.stem / PAGE_NAME
                page = (
                    f"reproduction/{own.stem}/{PAGE_NAME}"
                    if told_at.exists()
                    else f"reproduction/{own.name}"
                )
            found[name] = Told(study, json.loads(place.read_text()), page)
    return found


def of_experiments(studies: Mapping[str, Told]) -> dict[Experiment, Rows]:
    """Return the rows of each experiment of a study, by study."""
    found: dict[Experiment, Rows] = {one: {} for one in (*EXPERIMENTS, OTHERS)}
    for name, one in studies.items():
        own = [x for x in found if name in x.studies]
        for row in one.findings():
            fits = [x for x in own if re.search(x.sources, row["source"])]
            found[[*fits, *own][0]].setdefault(name, []).append(row)
    return found


def page() -> str:
    """Return `docs/reproduction.md`."""
    studies = told()
    found = of_experiments(studies)
    parts = [
        "# The paper's experiments: published beside ours",
        f"Generated by `make docs` from `docs/reproduction` and `docs/benchmarks`. {RULE} Where "
        "the published protocol is flawed, the flaw and what is done instead stand below the rows.",
        overview(found),
        *(section(one, rows, studies) for one, rows in found.items()),
    ]
    return "\n\n".join(parts) + "\n"


def overview(found: Mapping[Experiment, Rows]) -> str:
    rows = []
    for one, by_study in found.items():
        flat = [row for rows in by_study.values() for row in rows]
        counts = Counter(row["verdict"] for row in flat)
        said = [counts[verdict] or "" for verdict in VERDICTS]
        said[-1] = said[-1] if flat else "all"
        flawed = "yes" if any(row["flaw"] for row in flat) else ""
        rows.append([f"[{one.name}](#{anchor(one.name)})", one.what, *said, flawed])
    heads = (*VERDICTS, "flaw of the protocol")
    return table(f"experiment | what | {' | '.join(heads)}", rows)


def section(one: Experiment, rows: Rows, studies: Mapping[str, Told]) -> str:
    parts = [f"## {one.name}", f"{one.what[0].upper()}{one.what[1:]}. {one.note}".rstrip()]
    flat = [row for of_study in rows.values() for row in of_study]
    if flat:
        shown = (finding_cells({**row, "flaw": ""}) for row in flat)
        parts.append(table(HEADS, shown))
        flaws = dict.fromkeys(row["flaw"].rstrip(".") for row in flat)
        parts += [f"Flaw: {flaw}." for flaw in flaws if flaw not in ("", "as above")]
        parts += [studies[name].origin() for name in rows]
    parts += [f"Not measured: `{command(name)}`." for name in one.studies if name not in studies]
    if one.pages:
        links = ", ".join(f"[{name}](benchmarks/{name}.md)" for name in one.pages)
        parts.append(f"Beside it: {links}.")
    return "\n\n".join(parts)


def command(name: str) -> str:
    needs = sorted(all_studies()[name].needs) if name in all_studies() else []
    given = "".join(f" {spelling(need)} …" for need in needs)
    return f"bilens reproduce {name}{given} --out runs/reproduction"


def keep(out: Path) -> list[Path]:
    """Copy what the page needs of the studies in a folder, those of --quick apart."""
    kept = []
    for name in all_studies():
        path = out / name / DOCUMENT_NAME
        if not path.exists():
            continue
        document = json.loads(path.read_text())
        if document["options"].get("quick"):
            print(f"{path}: --quick proves nothing, left out")
            continue
        document["command"] = trimmed(document["command"])
        document["options"] = {key: last(value) for key, value in document["options"].items()}
        result = document.pop("result")
        if name == "findings/images":  # what the report says of the findings is its result
            write_json(REFERENCE, reference_of(result))
        document["recipes"] = recipes(path.parent / CELLS_FOLDER)
        kept.append(KEPT / file_name(name))
        write_json(kept[-1], document)
        keep_page(path.parent, kept[-1].with_suffix(""))
    return kept


def reference_of(result: Document) -> Document:
    """Return what is to stand in `findings/reference.json`: what was judged, and its power.

    That of models that are read exactly: of the others a report tells no rates.
    """
    attacks, sets, clean = (
        {name: one for name, one in result[key].items() if not name.endswith(MLPS)}
        for key in ("triggers", "overfitting", "clean")
    )
    lines = [*sets.values(), *result["others"].values()]
    alarms, looked = Counter[str](), Counter[str]()
    for name, one in clean.items():
        looked[name.split(",")[0]] += one["models"]
        alarms[name.split(",")[0]] += round(one["false"][0] * one["models"])
    triggers = {
        "found": min(one["found"][0] / one["found"][1] for one in attacks.values()),
        "false_alarms": max(alarms[data] / looked[data] for data in looked),
        "models": sum(one["models"] for one in clean.values()),
    }
    found, others = (
        [sum(one[key][n] for one in lines) for n in (0, 1)] for key in ("flagged", "false")
    )
    overfitting = {
        "found": found[0] / found[1],
        "false_alarms": others[0] / others[1],
        "rank_correlation": min(one["correlation"][0] for one in sets.values()),
        "mean_error": max(one["error"] or 0.0 for one in lines),
        "models": sum(one["models"] for one in lines),
    }
    judged: Document = msgspec.to_builtins(JUDGED)
    power = {"triggers": triggers, "overfitting": overfitting}  # beside what was seen elsewhere
    return {**judged, "power": {key: {**judged["power"][key], **power[key]} for key in power}}


def recipes(cells: Path) -> list[Document]:
    """Return the recipes of all trainings of cells, each once, whatever the seed."""
    found: dict[str, Document] = {}
    for path in sorted(cells.glob("*.json")):
        record = json.loads(path.read_text())["record"]
        for one in (record.get("recipe"), *record.get("recipes", ())):
            recipe = {key: value for key, value in (one or {}).items() if key != "seed"}
            found[json.dumps(recipe)] = recipe
    return [one for one in found.values() if one]


def keep_page(folder: Path, own: Path) -> None:
    """Copy the page of a study, with as many of its drawings as are small enough."""
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    page, left = (folder / PAGE_NAME).read_text(), MOST_DRAWN
    for drawing in sorted(folder.glob("*.svg"), key=lambda one: one.stat().st_size):
        left -= drawing.stat().st_size
        if left >= 0:
            shutil.copy(drawing, own)
        else:
            page = re.sub(rf"!\[([^]]*)\]\({re.escape(drawing.name)}\)", r"*\1: too large*", page)
    write_parts(own / PAGE_NAME, page)


def main() -> None:
    """Copy, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of `bilens reproduce`")
    for path in keep(parser.parse_args().out):
        print(path)
    write_parts(DOCS / "reproduction.md", page())


if __name__ == "__main__":
    main()
