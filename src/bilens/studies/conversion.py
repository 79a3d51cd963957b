"""What it costs to make the MLPs of a gated language model bilinear, by way and by tokens: App. J.

The paper lets β of x·σ(βx) fall to 0 while the model goes on learning text. Beside it: the same
with the teacher's logits as the target, a start in closed form or with trained layers, and a
bilinear model that learns from scratch, all from equally many tokens.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from bilens.base.errors import UsageError
from bilens.io.converted_folder import save_converted
from bilens.io.host import open_host, tokenizer_at
from bilens.report.charts.curves import Curve, line_figure
from bilens.studies.conversion_circuits import circuit_parts, compare_circuits
from bilens.studies.conversion_ways import (
    ANNEALING,
    CLOSED,
    LAYER_TOKENS,
    N_CTX,
    OURS,
    WAYS,
    Case,
    convert,
)
from bilens.studies.study import CellContext, Measure, Record, Study, StudyOptions, model_of, table
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_inputs import Mixture
from bilens.train.tasks.language import default_recipe

MUST, OTHERS = (125_000, 500_000), (10_000, 30_000, 2_000_000)  # tokens
MOST = 500_000  # of these, if nobody says so
SIZES = (1, 2)  # blocks of more teachers
CURVES_NAME, HIGHEST = "conversion.svg", 0.5  # nats that are drawn
KEY = ("blocks", "way", "optimizer", "tokens", "width", "keep", "limit")  # all but the seed
SHOWN = {"kl": 4, "same_top_token": 3, "worst_token": 2, "largest_product": 0}  # and digits
PUBLISHED: Record = {
    "source": "arXiv:2410.08417, App. J: TinyLlama-1.1B, β to 0 over 120 million tokens, then 280 "
    "million more with cross-entropy, against continued training",
    "tokens": 400_000_000,
    "loss_added": 0.05,
}


class ConversionStudy(Study):
    """Loss of converted models over that of their gated teachers; --tokens is the most they see."""

    name = "conversion"
    title = "Gated language models made bilinear"
    uses = frozenset({"corpus", "models", "seeds", "steps", "tokens"})
    needs = frozenset({"corpus"})
    partial = True

    def check(self, options: StudyOptions) -> None:
        """Refuse what any study refuses, several models, and one without SiLU gates."""
        super().check(options)
        if options.models:
            views = [site.view for site in open_host(model_of(options)).sites]
            if not all(view.gated and view.activation.name == "silu" for view in views):
                raise UsageError(f"{model_of(options)}: expected a model whose MLPs are SwiGLU.")

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        asked, cells = cases(options), dict[str, Measure]()
        for case in asked:
            if not options.models:
                cells.setdefault(case.teacher, partial(train_teacher, options, case))
            cells[case.name] = partial(measure, options, case)
            if case.way == OURS and not options.models:
                cells.setdefault("circuits", partial(trace_both, case))
        return cells

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {
            "rows": [one for one in cells.values() if "way" in one],
            "teachers": {name: one for name, one in cells.items() if "num_weights" in one},
            "circuits": cells.get("circuits"),
            "left": [name for name in self.cells(options) if name not in cells],
            "published": PUBLISHED,
        }

    def figures(self, document: Record) -> Mapping[str, str]:
        curves: dict[str, list[tuple[float, float]]] = {}
        for (_, way, _, tokens, *_), rows in by_seed(plain(document["result"])).items():
            added = mean(row["loss_added"] for row in rows)
            if added < HIGHEST and WAYS[way][1]:
                curves.setdefault(way, []).append((math.log10(tokens), added))
        drawn = [Curve(way, tuple(sorted(points))) for way, points in curves.items()]
        point = math.log10(PUBLISHED["tokens"]), PUBLISHED["loss_added"]
        names = self.title, "tokens, powers of ten", "nats per token over the teacher"
        return {CURVES_NAME: line_figure(*names, [*drawn, Curve("published", (point,))])}

    def parts(self, result: Record) -> Record:
        usual = by_seed(plain(result))
        budgets = sorted({key[3] for key in usual if WAYS[key[1]][1]})
        cells = {(key[1], key[3]): told(rows) for key, rows in usual.items()}
        columns = LAYER_TOKENS, *budgets
        ways = [[way, *(cells.get((way, tokens), "–") for tokens in columns)] for way in WAYS]
        varied = [
            [*key[:3], f"{key[4]}×", *key[5:], told(rows)]
            + [f"{mean(row[name] for row in rows):.{digits}f}" for name, digits in SHOWN.items()]
            for key, rows in by_seed(result["rows"]).items()
            if key[3] == min(MUST[0], *budgets)
        ]
        heads = "blocks | way | optimiser | width | kept | products | loss added | "
        losses = [f"{name} {one['held_out_loss']:.4f}" for name, one in result["teachers"].items()]
        return {
            "ways": table(f"way | {' | '.join(f'{n:,}' for n in columns)}", ways),
            "varied": table(heads + " | ".join(SHOWN).replace("_", " "), varied),
            "circuits": circuit_parts(result["circuits"]),
            "left": ", ".join(result["left"]) or "nothing",
            "teachers": ", ".join(losses),
        }


def cases(options: StudyOptions) -> list[Case]:
    """Return what is converted, the most important first."""
    most, given = options.tokens or MOST, bool(options.models)
    blocks = len(open_host(model_of(options)).blocks) if given else usual_recipe(options).n_layer
    must = [tokens for tokens in MUST if tokens <= most] or [most]
    seeds = range(options.seeds or 1)
    ways = [
        way for way, (start, loss) in WAYS.items() if loss and (start != "scratch" or not given)
    ]

    def case(way: str, tokens: int = must[0], seed: int = 0, n: int = blocks, **more: Any) -> Case:
        teacher = f"{'model' if given else f'teacher-{n}-blocks'}-seed-{seed}"
        more.setdefault("optimizer", "adamw" if WAYS[way][1] == "cross-entropy" else "muon")
        return Case(teacher, way, tokens, n, seed, **more)

    alone = [way for way in WAYS if way not in ways and not WAYS[way][1]]
    found = []
    for seed in seeds:
        found += [case(way, LAYER_TOKENS, seed) for way in alone]
        found += [case(way, seed=seed) for way in ways]
    found += [case(way, tokens, seed) for tokens in must[1:] for seed in seeds for way in ways]
    found += [case(OURS, limit=limit) for limit in ("clamp", "penalty")]
    found += [case(way, optimizer="adamw") for way in (OURS, CLOSED, ANNEALING)]
    found += [case(OURS, width=2), *(case(OURS, keep=k) for k in range(1, min(blocks, 5)))]
    smaller = [] if given else [n for n in SIZES if n < blocks]
    found += [case(way, n=n) for n in smaller for way in (OURS, ANNEALING)]
    others = [tokens for tokens in OTHERS if tokens <= most]
    return found + [case(way, n, seed) for n in others for seed in seeds for way in ways]


def usual_recipe(options: StudyOptions, **changed: Any) -> Any:
    return dataclasses.replace(default_recipe(str(options.corpus)), **changed)


def train_teacher(options: StudyOptions, case: Case, context: CellContext) -> Record:
    """Train the gated model that cases are converted from."""
    recipe = usual_recipe(options, gate="silu", n_layer=case.blocks, seed=case.seed)
    recipe = dataclasses.replace(recipe, steps=options.steps or recipe.steps)
    document = context.train_language(str(options.corpus), recipe).to_dict()
    return {name: document[name] for name in ("held_out_loss", "step", "num_weights", "corpus")}


def measure(options: StudyOptions, case: Case, context: CellContext) -> Record:
    """Convert once, and measure on all held-out text."""
    source = model_of(options) if options.models else context.folder.parent / case.teacher
    text, teacher = CorpusOptions(str(options.corpus)), open_host(source)
    mixture = Mixture([text.load()], tokenizer_at(teacher), min(N_CTX, teacher.n_ctx), case.seed)
    student = teacher.twin(share=False)
    if WAYS[case.way][0] == "scratch":
        scratch = usual_recipe(options, n_layer=case.blocks, seed=case.seed)
        steps = max(1, case.tokens // (scratch.batch_size * scratch.n_ctx))
        scratch = dataclasses.replace(scratch, steps=steps)
        student = open_host(context.train_language(str(options.corpus), scratch, "scratch").folder)
    found = convert(teacher, student, mixture, case, context.folder)
    if case.way == OURS:
        save_converted(student, context.folder)
    shutil.rmtree(context.folder / "distillation", ignore_errors=True)
    return found


def trace_both(case: Case, context: CellContext) -> Record:
    work = context.folder.parent
    return compare_circuits(work / case.teacher, work / case.name, context)


def plain(result: Record) -> list[Record]:
    """Return the rows that differ in way, tokens and seed alone."""
    most = max((row["blocks"] for row in result["rows"]), default=0)
    return [
        row
        for row in result["rows"]
        if (row["blocks"], row["width"], row["keep"], row["limit"]) == (most, 1, 0, "none")
        and (row["optimizer"] == "adamw") == (WAYS[row["way"]][1] == "cross-entropy")
    ]


def by_seed(rows: Sequence[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Return rows that differ in the seed alone, together."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in KEY), []).append(row)
    return found


def told(rows: Sequence[Record]) -> str:
    """Return the loss added as a share of the teacher's: mean and seeds, or standard error."""
    shares = [100 * row["loss_added"] / row["teacher_loss"] for row in rows]
    if len(shares) == 1:
        return f"{shares[0]:+.2f} ± {100 * rows[0]['error'] / rows[0]['teacher_loss']:.2f} %"
    return f"**{mean(shares):+.2f} %** ({', '.join(f'{share:+.2f}' for share in shares)})"
