"""`docs/reproduction.md`: every experiment of the paper, published beside ours.

`python -m tools.reproduction OUT` copies from the output folder of `bilens reproduce` what the page
needs of each study to `docs/reproduction`; `make docs` draws the page from there, and from the
benchmarks that are studies.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.studies import STUDIES
from bilens.studies.comparison import AGREES, DIFFERS, OPEN, finding_cells, findings, table
from bilens.studies.study import DOCUMENT_NAME, Study, spelling, write_json

DOCS = Path(__file__).parent.parent / "docs"
KEPT, BENCHMARKS = DOCS / "reproduction", DOCS / "benchmarks"
HEADS = "quantity | published | other reproductions | ours | verdict"
Document = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper, or of those who repeated it."""

    name: str
    what: str
    sources: str  # a regular expression in the sources of its findings
    studies: tuple[str, ...] = ()  # whose findings are of it, where their source says nothing
    pages: tuple[str, ...] = ()  # benchmarks that say more
    note: str = ""  # where nothing is to be measured


EXPERIMENTS = (
    Experiment(
        "Toy gates", "gates on all pairs of four bits, read from the weights", "", ("toy/logic",)
    ),
    Experiment(
        "§4.1, Fig. 2, 3, App. A",
        "leading eigenvectors and spectra of MNIST and Fashion-MNIST classifiers",
        r"§4\.1|Fig\. [23]\b|App\. A\b",
    ),
    Experiment("Fig. 4", "one digit's eigenvectors against input noise", r"Fig\. 4\b"),
    Experiment(
        "§4.2, Fig. 5, App. F",
        "eigenvectors across seeds and sizes; accuracy with few of them",
        r"§4\.2|Fig\. 5\b|App\. F\b",
        ("vision/consistency", "vision/truncation"),
    ),
    Experiment("§4.3, Fig. 6", "a classifier of one image's neighbours", r"§4\.3|Fig\. 6\b"),
    Experiment(
        "§4.4, Fig. 7, App. M", "masks from weights", r"§4\.4|Fig\. 7\b|App\. M\b", pages=("masks",)
    ),
    Experiment("§5.1, Fig. 8, App. N, O", "the negation circuit", r"§5\.1|Fig\. 8\b|App\. [NO]\b"),
    Experiment("§5.2, Fig. 9", "latents from few eigenvectors", r"§5\.2|Fig\. 9\b"),
    Experiment("App. B", "noise, blur, rotation, translation", r"App\. B\b"),
    Experiment("App. C", "explanations of single answers", r"App\. C\b"),
    Experiment("App. D", "HOSVD of a classifier", r"App\. D\b"),
    Experiment("App. E", "ranks by weight decay and noise", r"App\. E\b"),
    Experiment("App. G", "what autoencoders cost, layer by layer", r"App\. G\b"),
    Experiment("App. H", "autoencoders over training time", r"App\. H\b"),
    Experiment("App. I", "bilinear beside gated language models", r"App\. I\b"),
    Experiment(
        "App. J",
        "a gated model made bilinear",
        r"App\. J\b",
        pages=("conversion_smollm2", "smollm2"),
    ),
    Experiment(
        "App. K, L",
        "outputs written anew by a pseudo-inverse; biases",
        r"App\. [KL]\b",
        note="Theory: the identities are [stated](math.md) and tested, there is no number.",
    ),
    Experiment("TMLR reproduction", "accuracy and rank with noise, decay, both, none", "TMLR"),
    Experiment("Addition modulo p", "grokking, seen in the weights", "", ("toy/modular",)),
)
OTHERS = Experiment("Further studies", "what the paper has no experiment of", "")


@dataclass(frozen=True)
class Told:
    """A study and what its document says; no document: nothing is measured."""

    study: Study
    document: Document | None
    page: str | None  # of the benchmark that it is

    def findings(self) -> Sequence[Mapping[str, Any]]:
        found = self.document or {}
        if "findings" in found:
            return found["findings"]  # type: ignore[no-any-return]
        measured = self.study.ours(found["result"]) if found else {}
        return findings(self.study.published, measured)

    def origin(self) -> str:
        """Return where its rows come from: the page or the command, and when."""
        if self.document is None:
            needs = "".join(f" {spelling(need)} …" for need in sorted(self.study.needs))
            command = f"bilens reproduce {self.study.name}{needs} --out runs/reproduction"
            return f"{self.study.title}: not measured, `{command}`."
        shown = {key: self.document.get(key) or [] for key in ("date", "hardware")}
        where = (one if isinstance(one, str) else " and ".join(one) for one in shown.values())
        link = self.page or f"reproduction/{file_name(self.study.name)}"
        parts = [f"`{trimmed(self.document['command'])}`", *filter(None, where)]
        return f"[{self.study.title}]({link}): {', '.join(parts)}."


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


def told() -> list[Told]:
    """Return all studies in their order, with what is committed of each."""
    pages: dict[str, Path] = {}
    for path in sorted(BENCHMARKS.glob("*.json")):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and document.get("kind") == "study":
            pages[document["study"]] = path
    found = []
    for name, study in STUDIES.items():
        own = KEPT / file_name(name)
        place = own if own.exists() else pages.get(name)
        page = f"benchmarks/{place.stem}.md" if place and place != own else None
        found.append(Told(study, json.loads(place.read_text()) if place else None, page))
    return found


def of_experiments(studies: Sequence[Told]) -> dict[Experiment, dict[int, list[Mapping[str, Any]]]]:
    """Return the rows of each experiment by the number of the study; what fits none is last."""
    found: dict[Experiment, dict[int, list[Mapping[str, Any]]]] = {one: {} for one in EXPERIMENTS}
    for number, one in enumerate(studies):
        for row in one.findings():
            fits = [x for x in EXPERIMENTS if x.sources and re.search(x.sources, row["source"])]
            fits += [x for x in EXPERIMENTS if one.study.name in x.studies]
            found.setdefault([*fits, OTHERS][0], {}).setdefault(number, []).append(row)
    return found


def page() -> str:
    """Return `docs/reproduction.md`."""
    studies = told()
    found = of_experiments(studies)
    parts = [
        "# The paper's experiments: published beside ours",
        "Generated by `make docs` from `docs/reproduction` and `docs/benchmarks`. An interval is "
        "the 95 % interval of a mean over independent runs, from three runs on. A number agrees "
        "within three published standard deviations or the tolerance that the study states; a "
        "claim in words agrees where it holds here. Where the published protocol is flawed, the "
        "flaw and what is done instead stand below the rows.",
        overview(found),
        *(section(one, rows, studies) for one, rows in found.items()),
    ]
    return "\n\n".join(parts) + "\n"


def overview(found: Mapping[Experiment, Mapping[int, list[Mapping[str, Any]]]]) -> str:
    verdicts = (AGREES, DIFFERS, OPEN)
    rows = []
    for one, by_study in found.items():
        flat = [row for rows in by_study.values() for row in rows]
        counts = Counter(row["verdict"] for row in flat)
        flawed = "yes" if any(row["flaw"] for row in flat) else ""
        said = [counts[verdict] or "" for verdict in verdicts] if flat else ["", "", missing(one)]
        rows.append([f"[{one.name}](#{anchor(one.name)})", one.what, *said, flawed])
    return table(f"experiment | what | {' | '.join(verdicts)} | flaw of the protocol", rows)


def missing(one: Experiment) -> str:
    return "theory" if one.note else "all"


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(
    one: Experiment, rows: Mapping[int, list[Mapping[str, Any]]], studies: Sequence[Told]
) -> str:
    parts = [f"## {one.name}", f"{one.what[0].upper()}{one.what[1:]}."]
    flat = [row for of_study in rows.values() for row in of_study]
    if flat:
        shown = (finding_cells({**row, "flaw": ""}) for row in flat)
        parts.append(table(HEADS, shown))
        flaws = dict.fromkeys(row["flaw"].rstrip(".") for row in flat)
        parts += [f"Flaw: {flaw}." for flaw in flaws if flaw not in ("", "as above")]
        parts += [studies[number].origin() for number in rows]
    else:
        parts.append(one.note or "Not measured: there is no study of it yet.")
    if one.pages:
        links = ", ".join(f"[{name}](benchmarks/{name}.md)" for name in one.pages)
        parts.append(f"Beside it: {links}.")
    return "\n\n".join(parts)


def keep(out: Path) -> list[Path]:
    """Copy what the page needs of the studies in a folder, those of --quick apart."""
    kept = []
    for name in STUDIES:
        path = out / name / DOCUMENT_NAME
        if not path.exists():
            continue
        document = json.loads(path.read_text())
        if document["options"].get("quick"):
            print(f"{path}: --quick proves nothing, left out")
            continue
        document["command"] = trimmed(document["command"])
        document["options"] = {key: last(value) for key, value in document["options"].items()}
        del document["result"]
        kept.append(KEPT / file_name(name))
        write_json(kept[-1], document)
    return kept


def main() -> None:
    """Copy, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of `bilens reproduce`")
    for path in keep(parser.parse_args().out):
        print(path)
    (DOCS / "reproduction.md").write_text(page())


if __name__ == "__main__":
    main()
