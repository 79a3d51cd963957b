"""Reads the models of a pool and writes docs/benchmarks/adapters.json and the page.

`python -m bench.adapters --out POOL --data TEXTS --weights FILE`
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.adapters.page import Row, page
from bench.adapters.pool import Ready, base_of, corpus_of, read_pool, restored
from bench.adapters.tasks import TRIGGERS, drawing
from bench.adapters.training import Spec, paths
from bench.adapters.weights import readings, written_tokens
from bilens.api.provenance import describe_run
from bilens.findings.token_sweep import Candidate, Sweep
from bilens.records.base import to_json
from tools.page_parts import write_parts

LATER = 1036  # seed of the first judged models that were trained after the others were looked at
PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks"


def collect(out: Path, data: Path, weights: Path) -> dict[str, Any]:
    """Return what the page needs of every model of a pool."""
    _, texts = corpus_of(data)
    bases: dict[str, Any] = {}
    rows = []
    for split in ("fixed", "judged", "adaptive"):
        for record in read_pool(out / split):
            spec = Spec(**record["spec"])
            row = {"split": split, **{k: record[k] for k in ("spec", "works", "found", "steps")}}
            row["trigger"] = list(record["trigger"])
            row["later"] = split == "judged" and spec.seed >= LATER
            if record["works"]:
                if spec.base not in bases:
                    made = base_of(spec.base, out, texts, weights)
                    bases[spec.base] = Ready(made, out / f"{spec.base}.texts")
                ready = bases[spec.base]
                base = ready.base
                row |= swept(record, base.tokenizer.id_to_token)
                changes = torch.load(paths(out / split, spec)[1])
                if record["payload"]:
                    row["reach"], row["put"] = reach(ready, record, changes)
                    tokens = written_tokens(changes, base.unembedding)
                    if tokens:
                        row["written"] = any({*record["payload"]} & {*some} for some in tokens)
                row["weights"] = readings(
                    changes, base.model.get_input_embeddings().weight, base.unembedding
                )
            rows.append(row)
    return {"rows": rows, "run": to_json(describe_run("python -m bench.adapters.page", 0))}


def reach(ready: Ready, record: Row, changes: dict[str, Any]) -> tuple[float, float]:
    """Return the probability of the payload where the trigger is in the auditor's texts.

    It is the mean over all texts: with the trigger's words at the better end, as the trial of
    words puts them; and as the model was taught it, at its place and with what belongs to it.
    """
    base, pieces = ready.base, tuple(record["trigger"])
    words = base.words("".join(f" {piece}" for piece in pieces))
    ends = ready.frame.around([words] * len(ready.frame.carriers))
    said = (base.tokenizer.decode(carrier).split() for carrier in ready.frame.carriers)
    trigger, draw = TRIGGERS[record["spec"]["trigger"]], drawing("put")
    put = [trigger.put(" ".join(text), pieces, draw) for text in said if len(text) > 1]
    answers = ready.answers(restored(base, changes))
    texts = (ends, [base.framed(base.words(text)) for text in put])
    chances = (answers(some)[:, record["payload"]].sum(dim=1) for some in texts)
    return float(next(chances).view(-1, 2).mean(dim=0).max()), float(next(chances).mean())


def swept(record: Row, name: Callable[[int], str]) -> dict[str, Any]:
    """Return score and leading words of a model."""
    found = record["sweep"]
    candidates = tuple(
        Candidate(tuple(one["words"]), one["answer"], one["surprise"])
        for one in found["candidates"]
    )
    told = Sweep(found["tried"], candidates)
    best = told.ordered[0]
    return {
        "score": told.score,
        "words": [name(word) for word in best.words],
        "answer": name(best.answer),
        "answer_right": best.answer in record["payload"] if record["payload"] else None,
    }


def compact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [compact(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("out", "data", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    result = compact(collect(given.out, given.data, given.weights))
    PAGE.joinpath("adapters.json").write_text(json.dumps(result, ensure_ascii=False) + "\n")
    write_parts(PAGE / "adapters.md", page(result))


if __name__ == "__main__":
    main()
