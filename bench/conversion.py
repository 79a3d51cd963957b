"""What making all MLPs of a language model bilinear costs: budgets of tokens, with blocks kept.

Each run is one `bilens convert MODEL --to bilinear` in a folder of its own, goes on where it was
broken off, and is only read where it is finished; runs that are not asked for stay on the page as
they were. The domains that are learnt from are split by
document; a third one is measured alone. Run it with `make study-conversion MODEL=file.gguf
TEXT="a.txt b.txt" MEASURE=c.txt OUT=folder`; it writes
docs/benchmarks/conversion_smollm2.json and the page.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bilens.api.conversion_job import convert_to_bilinear
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_fit import ConversionRecipe

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
HELD_OUT, MEASURED = 0.2, 52_000
RUNS: dict[str, dict[str, Any]] = {
    "60k": {"tokens": 60_000},
    "200k": {"tokens": 200_000},
    "200k-keep-2": {"tokens": 200_000, "keep_worst": 2},
    "800k": {"tokens": 800_000},
    "200k-2-passes": {"tokens": 200_000, "passes": 2},
    "1M-keep-2": {"tokens": 1_000_000, "keep": (28, 29)},
}
OF_A_DOMAIN = (
    *("name", "fitted", "texts", "tokens", "teacher_loss", "loss", "loss_added", "error", "kl"),
    *("kl_error", "same_top_token", "teacher_accuracy", "accuracy", "accuracy_error"),
)


def kept(found: dict[str, Any], name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return what the page has of a conversion that learnt from these texts in turn."""
    stages = {
        stage: [{key: one[key] for key in OF_A_DOMAIN if key in one} for one in found[stage]]
        for stage in ("after_layers", "domains")
    }
    same = ("layers", "kept", "swap_in_costs", "swap_in_errors", "curve", "bfloat16_added")
    return {
        "name": name,
        "turns": [Path(text).stem for text in texts],
        "recipe": json.loads(found["source"]["provenance"]["recipe"]),
        **stages,
        **{key: found[key] for key in (*same, "line_tokens", "seconds")},
        "run": {key: one for key, one in found["reproduce"].items() if key != "command"},
    }


def one_run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    texts = [CorpusOptions(one, held_out=HELD_OUT) for one in args.text]
    others = [CorpusOptions(one, held_out=HELD_OUT) for one in args.measure]
    folder = args.out / name
    found = convert_to_bilinear(
        args.model,
        texts,
        folder,
        ConversionRecipe(**RUNS[name], measured_tokens=MEASURED),
        measured=others,
        resume=(folder / "run.json").exists(),
        report=lambda *said: print(name, *said, flush=True),
        say=lambda said: print(name, said, flush=True),
    )
    return kept(found, name, args.text)


def loss(one: dict[str, Any]) -> str:
    return f"{one['loss_added']:+.3f} ± {one['error']:.3f}"


def told(kept: Sequence[str]) -> str:
    return ", ".join(kept) or "none"


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    run, runs = result["run"], result["runs"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    whole = [one for one in runs if not one["kept"]]
    first = max(whole, key=lambda one: one["run"]["date"])  # of the layers, which all share
    names = [
        one["name"] + ("" if one["fitted"] else " (only measured)") for one in first["domains"]
    ]
    head = (
        f"| tokens | passes | turns | {' | '.join(names)} | same top token | bfloat16 | kept | "
        "date |"
    )
    stage = f"{first['after_layers'][0]['tokens']:,} predictions"
    lines = [head, "|---|" + "---|" * (len(names) + 6)]
    for one in {tuple(one["kept"]): one for one in (*runs, first)}.values():
        losses = " | ".join(map(loss, one["after_layers"]))
        lines.append(f"| layers alone, on {stage} | | | {losses} | | | {told(one['kept'])} | |")
    for one in runs:
        same = ", ".join(f"{domain['same_top_token']:.1%}" for domain in one["domains"])
        cells = [*map(loss, one["domains"]), same, f"{one['bfloat16_added']:+.4f}"]
        passes, date = one["recipe"].get("passes", 1), one["run"]["date"]
        turns = " : ".join(str(n) for n in Counter(one["turns"]).values())
        row = f"{one['recipe']['tokens']:,}", f"{passes}", turns, *cells, told(one["kept"]), date
        lines.append(f"| {' | '.join(row)} |")
    layers = first["layers"]
    overall, median = ([one[key] for one in layers] for key in ("r_squared", "median"))
    curve = ["| tokens read | " + " | ".join(one["name"] for one in runs) + " |"]
    curve += ["|---|" + "---|" * len(runs)]
    known = [{point["tokens"]: point for point in one["curve"]} for one in runs]
    every = sorted({tokens for one in known for tokens in one})
    for tokens in every[:: max(1, len(every) // 24)]:
        cells = [f"{one[tokens]['kl']:.4f}" if tokens in one else "" for one in known]
        curve.append(f"| {tokens:,} | {' | '.join(cells)} |")
    costs = sorted(first["swap_in_costs"].items(), key=lambda item: -item[1])
    worst = ", ".join(f"{block}: {cost:+.3f}" for block, cost in costs[:6])
    seconds = ", ".join(
        f"{one['name']} {one['seconds'].get('distillation', 0):,.0f} s" for one in runs
    )
    tokens = ", ".join(f"{one['tokens']:,}" for one in first["domains"])
    parts = [
        "# Converting a pretrained language model: what it costs",
        "Generated by `make study-conversion` (`bench/conversion.py`); what the stages are: "
        "[converting](../converting.md).",
        f"{run['date']}, {run['hardware']}, {versions}. {result['model']}, all MLPs made "
        "bilinear at equal width. Nats per token over the teacher ± standard error over texts, "
        f"paired, on {tokens} held-out predictions; {HELD_OUT:.0%} of the documents of the domains "
        "that are learnt from are held out, whole. *Turns*: of these domains, in each round. "
        "Seed 0 alone.",
        "\n".join(lines),
        "R² on real inputs of held-out documents, after the layers: "
        f"{fmean(overall):.3f} in the mean of "
        f"{len(layers)} layers (least {min(overall):.3f}); of the median token {fmean(median):.3f} "
        f"(least {min(median):.3f}). Fitted to {first['recipe']['layer_tokens']:,} tokens, "
        f"{first['recipe']['layer_steps']} steps.",
        f"Blocks that cost most where they alone are swapped in: {worst}.",
        f"Held-out KL during the distillation ({first['line_tokens']:,} predictions of the "
        "domains that are learnt from); the learning rate falls to zero at the end of each run:",
        "\n".join(curve),
        f"Wall time of the distillation: {seconds}. {result['note']}".rstrip(),
        "## What this does not say",
        "One model, one seed, texts of 128 tokens that begin anywhere in a document. Of text that "
        "the teacher has by heart (licences, for example) the student loses more than the mean "
        "says: the largest losses stand in each run's conversion.json.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", nargs="+", default=[])
    parser.add_argument("--measure", nargs="+", default=[])
    parser.add_argument("--out", type=Path, help="folder for the runs")
    parser.add_argument("--runs", nargs="+", default=[*RUNS], choices=[*RUNS])
    parser.add_argument("--note", default="", help="what else was special, for the page")
    args = parser.parse_args()
    place = PAGE / "conversion_smollm2.json"
    known = json.loads(place.read_text()) if place.exists() else {"runs": []}
    runs = {one["name"]: one for one in known["runs"]} | {
        name: one_run(name, args) for name in args.runs
    }
    result = {
        "model": args.model.name,
        "note": args.note or known.get("note", ""),
        "runs": [runs[name] for name in RUNS if name in runs],
        "run": to_json(describe_run("make study-conversion", 0)),
    }
    place.write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "conversion_smollm2.md").write_text(page(result))


if __name__ == "__main__":
    main()
