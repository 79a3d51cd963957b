"""Overfitting and hidden triggers, read from weights, judged on models that fixed nothing."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product

import torch

from bilens import ImageDataset, from_module
from bilens.base.errors import MissingExtraError
from bilens.findings import (
    class_centred,
    classifier_map,
    evidence_of,
    fit_layer,
    layer_map,
    obstacle,
    readings,
    suspect,
)
from bilens.nn import BilinearClassifier
from bilens_studies.corners import CornerStudy
from bilens_studies.drawings import Tile, TileRow, tile_plate, vector_image
from bilens_studies.finding_attacks import KINDS, PlantedAttack
from bilens_studies.finding_images import drawn_images
from bilens_studies.finding_models import RELU, Model, corner_numbers, model_of
from bilens_studies.finding_power import FIRST_JUDGED, SHAPE, WORKS, summarised
from bilens_studies.finding_tables import MODELS, read_tables
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions, to_json

FIXING = ("mnist", "fashion-mnist", "shapes")  # their first models fix what there is to fix
JUDGED = ("mnist", "fashion-mnist", "letters")  # the last fixed nothing
ATTACKED = JUDGED[:2]
# The line of overfitting was fixed twice: what judged the first one has fixed the second.
FIRST_JUDGED_AGAIN, AGAIN = 2000, {"overfitting": 75, "varied": 15}
# models of a kind: how many fix, how many judge
NUMBERS = {"overfitting": (100, 75), "clean": (50, 60), "varied": (24, 30), "corners": (3, 2)}
DRAWN = {"overfitting": 60, "clean": 40, "varied": 24}  # of shapes
FULL = ("varied", "corners")  # kinds that --quick leaves out, beside the ordinary MLPs
FIXED_ATTACKS, MOST_TRIED = 14, 100
ENOUGH = dict.fromkeys(KINDS, 20) | {RELU + kind: 2 for kind in KINDS}  # attacks that work
# ordinary MLPs, which fix nothing
ORDINARY = {RELU + "overfitting": 30, RELU + "clean": 30} | {
    RELU + kind: MOST_TRIED for kind in KINDS
}
GROUND = 0.25  # on which what is planted is drawn: black is darker, grey is not
NOTE = (
    "Seed, and what was planted: blue brightens a dark grey of 0.25, red darkens it. "
    "Seen: the pattern of the highest score."
)
# of Neural Cleanse
IMAGES, STEPS, RATE = 100, 200, 0.1
COST, GROWTH, GOAL = 0.01, 1.2, 0.99  # of the mask at first; its factor; success at which it grows
CONSISTENT = 1.4826  # of the median deviation with a normal deviation
QUICK, QUICK_KINDS = 4, ("square-4", "waves")  # models of each


class FindingStudy(Study):
    """Rank correlation with the true gap, and areas under the ROC, beside two rivals."""

    name = "findings/images"
    title = "Overfitting and hidden triggers on models that fixed nothing"
    uses = frozenset({"data_dir", "quick"})
    datasets = ("mnist", "fashion-mnist")

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        images = cache(lambda name: (options.images if name in ATTACKED else drawn_images)(name))
        found: dict[str, Measure] = {}
        for data, kind in groups(options, FIXING):
            seeds = fixing_seeds(options, data, kind)
            found[f"fixing-{data}-{kind}"] = partial(read_models, images, data, kind, seeds)
        judged = [*groups(options, JUDGED)]
        if not options.quick:
            judged += product(ATTACKED, ORDINARY)
        for data, kind in judged:
            seeds = judged_seeds(options, data, kind)
            found[f"judged-{data}-{kind}"] = partial(
                read_models, images, data, kind, seeds, enough=ENOUGH.get(kind)
            )
        for data, kind in judged:
            found[f"rivals-{data}-{kind}"] = partial(read_rivals, images, data, kind)
        found["tables"] = lambda _context: {
            "tables": read_tables(QUICK if options.quick else MODELS)
        }
        return found

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return summarised(cells)

    def figures(self, result: Record) -> Mapping[str, str]:
        """Return the triggers that work and raised no alarm, beside the patterns seen."""
        drawn = {}
        for data, found in result["triggers"].items():
            rows = []
            for one in found["missed"]:
                mark = PlantedAttack(**one["attack"]).mark(SHAPE)
                planted = (mark.mask * (mark.paint - GROUND) + mark.added).flatten().tolist()
                tiles = [Tile(vector_image(planted, SHAPE), one["attack"]["kind"])]
                if one["suspect"] is not None:
                    tiles.append(Tile(vector_image(one["suspect"]["pattern"], SHAPE), "seen"))
                rows.append(TileRow(str(one["seed"]), tiles))
            if rows:
                drawn[f"missed-{data}.svg"] = tile_plate(f"Not found on {data}", NOTE, rows)
        return drawn


def interval_shown(found: Sequence[float] | None, form: str = ".2f") -> str:
    """Return a value and the ends of its interval; a dash where there is none."""
    if found is None:
        return "–"
    value, low, high = found
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def shared_metrics(sets: Mapping[str, Record]) -> list[str]:
    """Return the metrics of WeightWatcher that all data sets have."""
    return sorted(set.intersection(*(set(one["watched"]) for one in sets.values())))


def groups(options: StudyOptions, datas: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield data sets and kinds of models; triggers are planted in images that are not drawn."""
    for data in datas[:1] if options.quick else datas:
        for kind in NUMBERS:
            if not (options.quick and kind in FULL) and (data in ATTACKED or kind != "corners"):
                yield data, kind
        if data in ATTACKED:
            yield from ((data, kind) for kind in (QUICK_KINDS if options.quick else KINDS))


def count_of(options: StudyOptions, kind: str, *, judged: bool) -> int:
    """Return how many models of a kind there are at most."""
    if options.quick:
        return QUICK
    return NUMBERS.get(kind, (FIXED_ATTACKS, ORDINARY.get(kind, MOST_TRIED)))[judged]


def fixing_seeds(options: StudyOptions, data: str, kind: str) -> list[int]:
    number = count_of(options, kind, judged=False)
    if data not in ATTACKED:
        return [*range(min(number, DRAWN[kind]))]
    later = count_of(options, kind, judged=True) if kind in AGAIN else 0
    return [*range(number), *range(FIRST_JUDGED, FIRST_JUDGED + later)]


def judged_seeds(options: StudyOptions, data: str, kind: str) -> list[int]:
    number = count_of(options, kind, judged=True)
    if kind not in AGAIN or data not in FIXING:
        return [*range(FIRST_JUDGED, FIRST_JUDGED + number)]
    return [*range(FIRST_JUDGED_AGAIN, FIRST_JUDGED_AGAIN + min(AGAIN[kind], number))]


Images = Callable[[str], ImageDataset]


def read_models(
    images: Images,
    name: str,
    kind: str,
    seeds: Sequence[int],
    context: CellContext,
    *,
    enough: int | None = None,
) -> Record:
    """Read the models of one kind; where `enough` is given, until so many attacks work."""
    data, found, working = images(name), list[Record](), 0
    for model, numbers in models_of(context, data, kind, seeds):
        works = numbers.get("success", 1.0) > WORKS
        found.append({**numbers, **read_model(model, data)} if works else numbers)
        working += works
        if working == enough:
            break
    return {"models": found}


def models_of(
    context: CellContext, data: ImageDataset, kind: str, seeds: Iterable[int]
) -> Iterator[tuple[Model, Record]]:
    """Yield models of a kind with numbers that took data; four of each seed of the corners."""
    if kind != "corners":
        yield from (model_of(context.models, data, kind, seed) for seed in seeds)
        return
    for seed in seeds:
        recipes = list(CornerStudy().recipes(StudyOptions(), seed).values())
        for recipe, model in zip(recipes, context.classifiers(data, recipes), strict=True):
            yield model.eval(), corner_numbers(model, recipe, data)


def read_model(model: Model, data: ImageDataset) -> Record:
    """Return the raw readings of one model, and the seconds that they took."""
    start = time.perf_counter()
    found: Record = {}
    if isinstance(model, BilinearClassifier):
        whole = classifier_map(model, class_centred(model))
    else:  # an ordinary MLP, through its quadratic approximation
        (view,) = from_module(model).network
        fitted = fit_layer(view, seed=0)
        whole = layer_map(fitted)
        found["r_squared"] = fitted.fit.r_squared.quadratic.overall
    leads = whole.leads(data.image_shape)
    found["readings"] = readings(leads, whole.first)
    if not (reason := obstacle(leads)):
        evidence = evidence_of(leads)
        top = suspect(leads, evidence, int(evidence.score.argmax()))
        found["scans"] = {one.name: one.statistic.tolist() for one in evidence.scans}
        found["suspect"] = to_json(top)
    return {**found, "obstacle": reason, "seconds": time.perf_counter() - start}


def read_rivals(images: Images, name: str, kind: str, context: CellContext) -> Record:
    """Ask WeightWatcher or Neural Cleanse about the same models, but for attacks that do not work.

    Of ordinary MLPs Neural Cleanse, which takes longest, is not asked.
    """
    data, before = images(name), context.done[f"judged-{name}-{kind}"]["models"]
    seeds, found = dict.fromkeys(one["seed"] for one in before), list[Record]()
    for model, numbers in models_of(context, data, kind, seeds):
        if kind.removeprefix(RELU) in ("overfitting", *FULL):
            found.append(weightwatcher(model))
        elif kind not in ORDINARY and numbers.get("success", 1.0) > WORKS:
            found.append(neural_cleanse(model, data))
        else:
            found.append({})
    return {"models": found}


def weightwatcher(model: Model) -> Record:
    """Return WeightWatcher's metrics, means over the matrices of a model."""
    try:
        import weightwatcher as watcher
    except ImportError:
        purpose = "Comparing with WeightWatcher"
        raise MissingExtraError("weightwatcher", "study", purpose, "bilens-studies") from None
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        watched = watcher.WeightWatcher(model=model)
        summary = watched.get_summary(watched.analyze(mp_fit=True, min_evals=1))
    logging.disable(logging.NOTSET)
    return {name: float(value) for name, value in summary.items() if math.isfinite(value)}


def neural_cleanse(model: Model, data: ImageDataset) -> Record:
    """Return the anomaly index of the smallest mask that turns test images to one class.

    For each class: argmin over mask m and pattern p of CE(f((1 − m)x + mp), t) + cost · ‖m‖₁, the
    cost raised while the attack works and lowered while it does not. Index: (median − ‖m_t‖₁) over
    1.4826 times the median deviation, of the smallest mask.
    Source: B. Wang et al., Neural Cleanse, IEEE S&P 2019.
    """
    classes = len(data.class_names)
    images, goals = data.test_images[:IMAGES], torch.arange(classes).repeat_interleave(IMAGES)
    generator = torch.Generator().manual_seed(0)
    free = torch.rand(2, classes, 1, images.shape[1], generator=generator).logit()
    free[0] -= 2  # small masks at first
    free.requires_grad_()
    optimizer = torch.optim.Adam([free], lr=RATE)
    cost, sizes = torch.full((classes,), COST), torch.full((classes,), torch.inf)
    for _ in range(STEPS):
        mask, paint = free.sigmoid()
        logits = model(((1 - mask) * images + mask * paint).flatten(0, 1))
        loss = torch.nn.functional.cross_entropy(logits, goals, reduction="none")
        size = mask.sum(dim=(1, 2))
        optimizer.zero_grad()
        (loss.reshape(classes, -1).mean(dim=1) + cost * size).sum().backward()
        optimizer.step()
        with torch.no_grad():
            right = (logits.argmax(dim=1) == goals).float().reshape(classes, -1).mean(dim=1)
            works = right >= GOAL
            sizes = torch.where(works, torch.minimum(sizes, size), sizes)
            cost = torch.where(works, cost * GROWTH, cost / GROWTH)
    found = torch.where(sizes.isfinite(), sizes, size.detach())
    middle = found.median()
    spread = CONSISTENT * (found - middle).abs().median()
    index = (middle - found.min()) / spread if spread > 0 else torch.zeros(())
    return {"index": float(index), "target": int(found.argmin()), "sizes": found.tolist()}
