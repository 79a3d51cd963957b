"""The cost of making the MLPs of a gated language model bilinear, by way and by tokens."""

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from bilens.base.errors import UsageError
from bilens.io import open_host, save_converted, tokenizer_at
from bilens.report import Curve, line_figure
from bilens.train import CorpusOptions, Mixture, default_recipe
from bilens_studies import conversion_ways as by
from bilens_studies.conversion_ways import OURS, WAYS, Case
from bilens_studies.published import Reproduced
from bilens_studies.study import (
    CellContext,
    Measure,
    Record,
    Study,
    StudyOptions,
    model_of,
)

MUST, OTHERS, MOST = (125_000, 500_000), (10_000, 30_000), 2_000_000  # tokens
PASSES = 4  # of some
SIZES = (1, 2)  # blocks of more teachers
CURVES_NAME, HIGHEST = "conversion.svg", 0.5  # nats that are drawn
# all but the seed
KEY = ("blocks", "way", "optimizer", "tokens", "width", "keep", "limit", "passes")
SHOWN = {"kl": 4, "same_top_token": 3, "worst_token": 2, "largest_product": 0}  # and digits
PUBLISHED_WAY = "annealing + cross-entropy"
PUBLISHED = (400_000_000, 0.05)  # tokens and nats, of TinyLlama-1.1B


class ConversionStudy(Study):
    """Loss of converted models over that of their gated teachers; --tokens is the most they see."""

    name = "conversion"
    title = "Gated language models made bilinear"
    uses = frozenset({"corpus", "models", "seeds", "steps", "tokens"})
    needs = frozenset({"corpus"})
    num_seeds = (1, 1, 1)
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
        return cells

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {
            "rows": [one for one in cells.values() if "way" in one],
            "teachers": {name: one for name, one in cells.items() if "num_weights" in one},
            "left": [name for name in self.cells(options) if name not in cells],
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for (way, tokens), rows in sorted(group_by_seed(result)[1].items()):  # the most tokens last
            added = tuple(row["loss_added"] for row in rows)
            teacher = mean(row["teacher_loss"] for row in rows)
            told = f"{tokens:,} tokens against {PUBLISHED[0]:,} published, a teacher of "
            told += f"{teacher:.2f} nats"
            if way == PUBLISHED_WAY:
                found["published"] = Reproduced(added, note=told)
            if way == OURS:
                found["ours"] = Reproduced(added, mean(added) <= PUBLISHED[1], told)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        curves: dict[str, list[tuple[float, float]]] = {}
        for (way, tokens), rows in group_by_seed(result)[1].items():
            added = mean(row["loss_added"] for row in rows)
            if added < HIGHEST and WAYS[way][1]:
                curves.setdefault(way, []).append((math.log10(tokens), added))
        drawn = [Curve(way, tuple(sorted(points))) for way, points in curves.items()]
        point = math.log10(PUBLISHED[0]), PUBLISHED[1]
        names = self.title, "tokens, powers of ten", "nats per token over the teacher"
        return {CURVES_NAME: line_figure(*names, [*drawn, Curve("published", (point,))])}


def cases(options: StudyOptions) -> list[Case]:
    """List the conversions, the most important first."""
    most, given = options.tokens or MUST[-1], bool(options.models)
    usual = default_recipe(str(options.corpus))
    blocks = len(open_host(model_of(options)).blocks) if given else usual.n_layer
    must = [tokens for tokens in MUST if tokens <= most] or [most]
    seeds = ConversionStudy().seeds(options)
    ways = [way for way in WAYS if WAYS[way][1] and not (given and WAYS[way][0] == "scratch")]

    def case(way: str, tokens: int = must[0], seed: int = 0, n: int = blocks, **more: Any) -> Case:
        more.setdefault("optimizer", "adamw" if WAYS[way][1] == "cross-entropy" else "muon")
        return Case(f"teacher-{n}-blocks-seed-{seed}", way, tokens, n, seed, **more)

    first = [(way, by.LAYER_TOKENS) for way in WAYS if not WAYS[way][1]]
    first += [(way, must[0]) for way in ways]
    found = [case(way, tokens, seed) for seed in seeds for way, tokens in first]
    found += [case(way, tokens, seed) for tokens in must[1:] for seed in seeds for way in ways]
    found += [case(OURS, limit=limit) for limit in ("clamp", "penalty")]
    found += [case(way, optimizer="adamw") for way in (OURS, "closed form + KL", "annealing + KL")]
    again = [(OURS, tokens) for tokens in must] + [("annealing + KL", must[0])]
    found += [case(*one, seed, passes=PASSES) for one in again for seed in seeds]
    found += [case(OURS, width=2), *(case(OURS, keep=k) for k in range(1, min(blocks, 5)))]
    smaller = [] if given else [n for n in SIZES if n < blocks]
    found += [case(way, n=n) for n in smaller for way in (OURS, "annealing + KL")]
    others = [tokens for tokens in OTHERS if tokens <= most]
    found += [case(way, n, seed) for n in others for seed in seeds for way in ways]
    return [*found, case(OURS, MOST)] if most >= MOST else found


def train_usual_model(
    options: StudyOptions, case: Case, context: CellContext, **changed: Any
) -> Any:
    """Train the usual model of the corpus with the size and seed of a case."""
    usual = default_recipe(str(options.corpus))
    recipe = dataclasses.replace(usual, n_layer=case.blocks, seed=case.seed, **changed)
    return context.train_language(str(options.corpus), recipe)


def train_teacher(options: StudyOptions, case: Case, context: CellContext) -> Record:
    document = train_usual_model(options, case, context, gate="silu", steps=options.steps).to_dict()
    return {name: document[name] for name in ("held_out_loss", "step", "num_weights", "corpus")}


def measure(options: StudyOptions, case: Case, context: CellContext) -> Record:
    """Convert once, and measure on all held-out text."""
    source = model_of(options) if options.models else context.folder.parent / case.teacher
    text, teacher = CorpusOptions(str(options.corpus)), open_host(source)
    mixture = Mixture([text.load()], tokenizer_at(teacher), min(by.N_CTX, teacher.n_ctx), case.seed)
    student = teacher.twin(share=False)
    if WAYS[case.way][0] == "scratch":
        usual = default_recipe(str(options.corpus))
        steps = max(1, case.tokens // (usual.batch_size * usual.n_ctx))
        inside = dataclasses.replace(context, folder=context.folder / "scratch")
        student = open_host(train_usual_model(options, case, inside, steps=steps).folder)
    found = by.convert(teacher, student, mixture, case, context.folder)
    if case.way == OURS:
        save_converted(student, context.folder)
    shutil.rmtree(context.folder / "distillation", ignore_errors=True)
    return found


def group_by_seed(result: Record) -> tuple[dict[Any, list[Record]], dict[Any, list[Record]]]:
    """Return rows that differ in the seed alone, together; the usual ones by way and tokens."""
    found: dict[Any, list[Record]] = {}
    for row in result["rows"]:
        found.setdefault(tuple(row[name] for name in KEY), []).append(row)
    most = max((key[0] for key in found), default=0)
    return found, {
        (way, tokens): rows
        for (blocks, way, optimizer, tokens, *others), rows in found.items()
        if [blocks, *others] == [most, 1, 0, "none", 1]
        and (optimizer == "adamw") == (WAYS[way][1] == "cross-entropy")
    }


def loss_shown(rows: Sequence[Record]) -> str:
    """Return the loss added as a share of the teacher's: mean and seeds, or standard error."""
    shares = [100 * row["loss_added"] / row["teacher_loss"] for row in rows]
    if len(shares) > 1:
        return f"**{mean(shares):+.2f} %** ({', '.join(f'{share:+.2f}' for share in shares)})"
    error = [f" ± {100 * row['error'] / row['teacher_loss']:.2f} %" for row in rows]
    return f"{shares[0]:+.2f}{error[0]}" if rows else "–"
