"""Documents of layer audits for tests: real ones of tiny models, and all endings of all rules."""

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from msgspec import structs
from safetensors.torch import save_file

import tiny
from bilens.api.audit_model import audit
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from bilens.io.tensor_names import KINDS as NAMED_KINDS
from bilens.nn import BilinearTransformer
from bilens.records.base import to_json
from bilens.records.decision import Coverage
from bilens.records.inventory import (
    CardField,
    CountedName,
    FileEntry,
    FileState,
    Inventory,
    PartCount,
    Port,
    TensorGroup,
)
from bilens.records.layer_readings import LayerDifference, TokenPair
from report_documents import (
    coverage_endings,
    make_coverage,
    make_overfitting,
    make_triggers,
    silent,
)

DRAWS = 3
PARTS = ("mlp", "attention", "convolution", "lstm", "gru", "rnn", "norm", "embedding", "head")
STATES: tuple[FileState, ...] = ("read", "listed", "beside", "no_model", "refused")
INVENTORY = Inventory(  # of everything that there can be
    path="models",
    format="safetensors",
    bytes=2_000,
    sha256="ab" * 32,
    parameters=100,
    tensors=70,
    operations=tuple(CountedName(f"Op<{n}>", 70 - n) for n in range(70)),
    parts=(
        *(PartCount(kind, 2, 1) for kind in PARTS),
        *(PartCount(kind, 2) for kind in ("trees", "matrix")),
    ),
    ports=(Port("input", "<x>", "batch × 3", "float32"), Port("output", "y", "", "")),
    groups=tuple(
        TensorGroup(f"<{n}>", 1, "2 × 3", 6, "int8", 10**n, n % 2 == 0) for n in range(10)
    ),
    tied=(("a", "b"),),
    card=(CardField("license", "MIT", ""), CardField("license", "Apache", "README.md")),
    notes=("not opened",),
    imports=("os.system",),
    codes=60,
    files=tuple(FileEntry(f"{state}.x", 9, state, "why", None, "ab" * 32) for state in STATES),
)
KINDS = (*NAMED_KINDS, "conv", "other")
SAME = {"name": "config.json", "state": "same", "keys": [], "weights": False}
OTHER_WEIGHTS = {"name": "a.safetensors", "state": "model", "keys": [], "weights": True}
VALUES: dict[str, dict[str, Any]] = {
    "non_finite": {"of": 3, "layers": "a", "tensors": 0},
    "r2": {"of": 3, "approximate": 2, "refused": 1, "layers": "a", "on": ""},
    "dead_units": {"of": 9, "layers": "a"},
    "duplicate_units": {"of": 9, "layers": "a", "overlap": 0.5, "null": 0.25},
    "huge_norm": {"norm": 7.5, "layers": "a"},
    "unused_inputs": {"of": 6, "layers": "a"},
    "dominant_inputs": {"null": 0.25, "input": 3, "layers": "a"},
    "low_rank": {"rank": 2.5, "null": 5.0, "of": 6, "layers": "a"},
    "unstable_directions": {"of": 3, "kind": "bfloat16", "layers": "a"},
    "changed_layers": {"of": 3, "layers": "a"},
    "calibration": {"null": 0.25, "brier": 0.5, "total": 9},
    "worst_class_recall": {
        **dict.fromkeys(("recall", "low", "high", "accuracy"), 0.5),
        "total": 9,
        "name": "cat",
    },
    "similarity": {"layers": "a"},
    "change": {"layers": "a"},
    "concentrated_change": {
        "mode": "outputs",
        "rank": 2.5,
        "null": 5.0,
        "directions": 2,
        "layers": "a",
    },
    "changed_tensors": {"of": 9, "alone": 0, "change": 0.5, "kinds": "q, norm"},
    "changed_files": {"of": 3, "files": "config.json"},
    "low_rank_change": {"of": 4, "ranks": "2–8", "matrices": "a"},
    "trigger_words": {"words": "<b>", "answer": "yes", "tried": 2000, "known": 31534},
}
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [  # of sentences
    ("changed_tensors", "info", {}),
    *(
        ("non_finite", ending, {"tensors": 2, "of": of})
        for ending in ("pass", "fail")
        for of in (0, 3)
    ),
    ("changed_tensors", "warn", {"alone": 2, "kinds": "other"}),
    ("changed_tensors", "warn", {"value": 2, "alone": 2, "kinds": "other"}),
    *(("changed_tensors", "warn", {"open": why}) for why in ("files", "program", "unread")),
    *(("changed_tensors", "info", {"open": why}) for why in ("places", "unseen")),
    ("changed_files", "info", {"open": "unseen"}),
    ("low_rank_change", "pass", {"value": 0, "of": 0}),
    *(
        ("low_rank_change", "info", {"value": 0, "open": why})
        for why in ("files", "unread", "hidden")
    ),
    *(("r2", ending, {"on": on}) for ending in ("pass", "warn") for on in ("_seen", "_some")),
    *(("r2", "info", {"on": on}) for on in ("", "_some", "_seen")),
    *(("dominant_inputs", ending, {"input": "km"}) for ending in ("pass", "info", "warn")),
    ("low_rank", "info", {"assumed": "pass"}),
    *(
        (rule, "info", {"assumed": ended})
        for rule in ("similarity", "change")
        for ended in ("pass", "info")
    ),
    *(
        ("changed_layers", "warn", {"open": around})
        for around in ("order", "answers", "unknown", "parts")
    ),
]
ENDINGS = {
    "non_finite": ("pass", "fail"),
    "unused_inputs": ("pass", "info"),
    "dominant_inputs": ("pass", "info", "warn"),
    "low_rank": ("pass", "info"),
    "calibration": ("info",),
    "changed_layers": ("pass", "info"),
    "similarity": ("pass", "info"),
    "change": ("pass", "info"),
    "trigger_words": ("pass", "info"),
}


NOTES: dict[str, dict[str, Any]] = {
    **{kind: {"count": 2} for kind in ("grey", "rgb")},
    **{kind: {"name": "cat"} for kind in ("one_logit", "one_probability", "one_class")},
    **{kind: {} for kind in ("bytes", "unscaled", "reordered", "positions")},
    "by_position": {"count": 3, "first": "a", "last": "c"},
    "no_labels": {},
    "assumed_image": {"shape": "3 × 4 × 5"},
    "own_scale": {"how": "x / 255"},
    "folders": {"names": "a, b"},
    "label_as_input": {"name": "<y>"},
    "target": {"column": "<y>"},
    "keys": {"inputs": "x", "labels": "y"},
}


def transformer(seed: int = 0, gate: str | None = "silu", layers: int = 5) -> BilinearTransformer:
    """A language model whose blocks are small and all different."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BilinearTransformer(12, 8, 10, layers, 2, 4, gate=gate).eval()  # type: ignore[arg-type]


@cache
def _made(kind: str) -> dict[str, Any]:
    if kind == "exact":
        model: torch.nn.Module = tiny.classifier(n_layers=2)
        data = (tiny.images().test_images, tiny.images().test_labels)
        return audit(model, data, null_samples=DRAWS, command="here").to_dict()
    model = transformer()
    if kind == "broken":
        model.mlps[1].left.weight.data[0, 0] = torch.nan
    return audit(model, null_samples=DRAWS, command="here").to_dict()


def make_layer_audit(kind: str = "gated") -> dict[str, Any]:
    """Return a document that a test may change: "gated", "exact" or "broken"."""
    return copy.deepcopy(_made(kind))


@cache
def _compared() -> dict[str, Any]:
    model = transformer()
    with torch.no_grad():
        model.mlps[2].left.weight[0] += 0.1  # type: ignore[index,union-attr]
        model.mlps[3].down.weight[0, 0] = torch.nan  # type: ignore[index,union-attr]
    return audit(
        transformer(),
        baseline=model,
        null_samples=DRAWS,
        fail_on=["changed_layers>1", "r2<0.1", "huge_norm"],
        command="here",
    ).to_dict()


def make_comparison() -> dict[str, Any]:
    """Return the document of two models: layers the same, changed and broken; all conditions."""
    document = copy.deepcopy(_compared())
    document["conditions"] += [
        {"condition": "low_rank", "rule": "low_rank", "value": None, "failed": True, "ground": ""},
        {
            "condition": "change>9",
            "rule": "change",
            "value": 0.1,
            "failed": False,
            "ground": "units",
        },
    ]
    return document


PAGES = ("new", "same", "rounding", "low_rank", "unrelated")


@cache
def _page(kind: str) -> dict[str, Any]:
    before, model = transformer(layers=2), transformer(layers=2)
    with torch.no_grad():
        if kind == "rounding":
            model.half()
        if kind == "low_rank":
            weight = model.mlps[0].left.weight  # type: ignore[union-attr]
            weight += torch.outer(weight[:, 0], weight[0])  # type: ignore[arg-type,index,operator]
        if kind == "unrelated":
            model = transformer(1, layers=2)
    asked: dict[str, Any] = {"null_samples": DRAWS, "command": "here"}
    return audit(model, baseline=None if kind == "new" else before, **asked).to_dict()


def make_page(kind: str) -> dict[str, Any]:
    """Return the document of a file that is one of `PAGES`: new, or beside its baseline."""
    return copy.deepcopy(_page(kind))


HEADLINES = ("identical", "same_tensors", "same_numbers", "rounded", "baseline_rounded")
HEADLINES += ("rounding", "quantised", "reordered", "differ", "unrelated", "not_compared", "folded")


FEW_COMPARED: tuple[dict[str, Any], ...] = (
    {"tensors": 0, "alone": 0, "graph": {"operations": [], "settings": None}},
    {
        "unread": [2, 3],
        "names": ["a", "b"],
        "graph": {
            "operations": [{"name": "Relu", "before": 6, "after": 5}],
            "settings": [{"operation": "Conv y", "setting": "pads", "before": "", "after": "1, 1"}],
        },
    },
    {"graph": {"operations": [], "settings": []}},
    {"ways": ["files"], "other_shape": 2},
    {"ways": ["unseen"], "unplaced": 3},
    {"unplaced": 3, "graph": {"operations": None, "settings": None}},
    {"unplaced": None, "graph": {"operations": [], "settings": []}},
)


def every_change() -> dict[str, Any]:
    """Return the difference of two models in which there is every kind of tensor and of change."""
    sizes = {"change": 0.25, "rank": 2, "full": 3, "top_share": 0.5, "entries": 9, "size": 2.0}
    sizes |= {"baseline_name": "a", "correlation": 0.5, "rounded_to": "", "baseline_rounded_to": ""}
    sizes |= {"blocks_off": 0, "places": [], "norm": "", "residual": None}
    sizes |= {"epsilon": None, "assumed": False}
    one = {"name": "a", "dtype": "bfloat16", "baseline_dtype": "float32", **sizes}
    states = ("low_rank", "changed", "rescaled", "noise", "rounding", "not_finite")
    states += ("quantised", "reordered", "moved", "permuted")
    changed = [{**one, "kind": "q", "layer": 1, "state": state} for state in states]
    off = {"kind": "up", "layer": 2, "state": "codes", "blocks_off": 2, "places": ["[0, 0:32]"]}
    changed.append({**one, **off})
    changed += [
        {**one, "kind": "conv", "layer": 3, "state": "folded", "norm": "bn", "residual": 1e-7}
        | {"epsilon": epsilon, "assumed": epsilon == 1e-5}
        for epsilon in (1e-3, 1e-5)
    ]
    changed += [{**one, "kind": kind, "layer": None, "state": "changed"} for kind in KINDS]
    changed.append(
        {**one, "kind": "norm", "layer": 30, "state": "changed", "change": None, "full": 0}
    )
    files = [{**SAME, "state": "changed", "keys": ["a", "b"]}]
    files += [{**SAME, "name": f"{state}.json", "state": state} for state in ("model", "baseline")]
    apart = dict.fromkeys(("model_alone", "baseline_alone", "other_shape"), ["a"] * 30)
    more = {"not_compared": ["notes.md"], "headline": None, "unseen": ["checkpoint"]}
    whole = {"tensors": 40, "changed": changed, "files": files, **apart, **more}
    tokens = [{"token": "<b>", "score": 5.5}, {"token": " the", "score": 4.0}]
    about = {"name": "a", "kind": "o", "layer": 1, "share": 0.5, "tokens": tokens}
    pair = TokenPair(("<b>", " the"), " yes", 2.5)
    layer = to_json(LayerDifference("a", False, token_pairs=(pair,), matched=("stream",)))
    same = to_json(LayerDifference("b", False, same_function=True))
    whole["directions"] = [{**about, "side": side} for side in ("writes", "reads")]
    found = {
        "baseline": {"path": "", "weights_sha256": ""},
        "layers": [layer, same],
        "whole": whole,
    }
    alone = ("inputs", "outputs", "baseline_inputs", "baseline_outputs")
    kinds = ["inputs_reordered", "outputs_reordered", "by_place", "units", "target", "one_logit"]
    kinds += ["neurons_reordered", *(f"{one}_alone" for one in alone)]
    kinds += [f"around_{one}" for one in ("order", "answers", "unknown", "parts")]
    kinds += ["hooks", "baseline_hooks"]
    found["aligned"] = [{"kind": kind, "names": ["a", "b"]} for kind in kinds]
    answers = {"rows": 60, "changed": 7, "mended": 2, "broken": 4, "examples": [[3, "<b>", "yes"]]}
    return {**found, "trial": word_trial(chat=True), "answers": answers}


def word_trial(chat: bool) -> dict[str, Any]:
    """Return what came of words that were tried."""
    listed = [{"words": [" <b>", " x"], "answer": " yes", "surprise": 2.5}]
    numbers = {"tried": 2000, "known": 31534, "score": 2.5}
    return {**numbers, "chat": chat, "candidates": listed}


def few_changes(files: list[dict[str, Any]] | None, *changed: dict[str, Any]) -> dict[str, Any]:
    """Return the difference of two models with how files compare, and some changed tensors."""
    apart = {key: list[str]() for key in ("model_alone", "baseline_alone", "other_shape")}
    whole = {"tensors": 40, "changed": [*changed], "files": files, **apart}
    whole |= {"directions": [], "not_compared": [], "headline": None, "unseen": []}
    return {**every_change(), "whole": whole, "trial": word_trial(chat=False), "answers": None}


def headlined(kind: str, **more: Any) -> dict[str, Any]:
    """Return the difference of two models with a headline of a kind."""
    ways = ["names", "axes", "parts", "order", "format", "header"]
    numbers = {"tensors": 40, "differing": 3, "alone": 2, "error": 0.01, "correlation": 0.02}
    named = {"ways": ways, "ranks": [1, 2], "layers": [0, 1, 4], "kinds": ["head"]}
    types = {"types": ["float16"], "baseline_types": ["float32"]}
    others = {"names": [], "unread": [0, 0], "graph": None, "other_shape": 0, "unplaced": 0}
    head = {"kind": kind, **numbers, "chance": 0.03, **named, **types, **others, **more}
    one, *more_ones = every_change()["whole"]["changed"]
    folded = [other for other in more_ones if other["norm"]]
    found = few_changes([SAME], {**one, "rounded_to": "float16"}, *folded)
    unseen = ["checkpoint"] if head["ways"] == ["unseen"] else []
    return {**found, "whole": {**found["whole"], "headline": head, "unseen": unseen}}


def of_another_program(why: str) -> dict[str, Any]:
    """Return a document whose one risk is what is computed with the tensors."""
    values = {"value": 0, "threshold": 0, **VALUES["changed_tensors"], "open": why}
    verdict = [{"rule": "changed_tensors", "outcome": "warn", "values": values}]
    found = {**make_layer_audit(), "difference": headlined("same_tensors"), "decision": None}
    return {**found, "verdict": verdict}


def beside_other_weights() -> dict[str, Any]:
    """Return a difference in which another file of weights lies in one of the two folders."""
    found = headlined("same_tensors")
    return {**found, "whole": {**found["whole"], "files": [SAME, OTHER_WEIGHTS]}}


def drawn_difference(width: int) -> dict[str, Any]:
    """Return what changed in a classifier of one layer, with input directions of a width."""
    difference = make_comparison()["difference"]
    changed = next(layer for layer in difference["layers"] if layer["triggers"])
    for trigger in changed["triggers"]:
        trigger["vector"] = [0.5] * width
    changed["output_parts"] = changed["output_parts"][:1]
    changed["output_parts"][0]["index"] = 0
    return {**difference, "layers": [changed]}


def every_ending() -> dict[str, Any]:
    """Return a document with every rule in every outcome."""
    document = make_layer_audit()
    document["verdict"] = [
        {"rule": rule, "outcome": outcome, "values": {"value": 1, "threshold": 0.5, **values}}
        for rule, values in VALUES.items()
        for outcome in ENDINGS.get(rule, ("pass", "warn"))
    ]
    document["verdict"] += [
        {
            "rule": rule,
            "outcome": outcome,
            "values": {"value": 1, "threshold": 0, **VALUES[rule], **v},
        }
        for rule, outcome, v in VARIANTS
    ]
    inputs = {**VALUES["concentrated_change"], "mode": "inputs", "value": 1, "threshold": 0.5}
    document["verdict"].append({"rule": "concentrated_change", "outcome": "warn", "values": inputs})
    exact = {"rule": "r2", "outcome": "pass", "values": {**VALUES["r2"], "approximate": 0}}
    exact["values"] |= {"value": 1.0, "threshold": 0.0}
    document["verdict"] += [exact, *coverage_endings()]
    document["coverage"] = to_json(
        make_coverage(70, "broken", layout="guessed", other_files=("a.pt",), not_hashed=("old",))
    )
    return document


def apart() -> dict[str, Any]:
    """Return a document of layers that are not the whole model, all of them read."""
    document = make_layer_audit("exact")
    document["verdict"] = coverage_endings()[1:2]
    return {**document, "coverage": to_json(make_coverage(connected=False))}


def cautious() -> dict[str, Any]:
    """Return a document of a model whose layers are of several kinds, one of them refused."""
    document = make_layer_audit()
    document["verdict"] = [
        {
            "rule": "r2",
            "outcome": "warn",
            "values": {"value": 0.5, "threshold": 0.9, **VALUES["r2"]},
        }
    ]
    told = structs.replace(
        make_coverage(1, "refused"), layout="said", parameters=10**6, unread=10**6 - 90
    )
    document["coverage"] = to_json(told)
    first = document["layers"]["readings"][0]
    first["activation"] = "gelu"
    first["fit"] |= {"usable": False, "quadratic": 0.5}
    first |= {"quadratic_norm": None, "linear_norm": None, "outputs": None, "stability": None}
    return document


@cache
def _measured() -> dict[str, Any]:
    model = tiny.classifier(n_layers=2, d_output=2, gate="relu")
    labels = tiny.images().test_labels.clamp(max=1)
    images = tiny.images().test_images.reshape(-1, 6, 6).numpy()
    asked: dict[str, Any] = {"null_samples": DRAWS, "threshold": 0.0, "command": "here"}
    return audit(model, (images, labels.numpy()), **asked).to_dict()


def make_measured(**changes: Any) -> dict[str, Any]:
    """Return a document of two classes with images of mistakes, notes, and R² on the data."""
    document = copy.deepcopy(_measured())
    document["performance"] |= changes
    return document


def measured() -> dict[str, dict[str, Any]]:
    """Return documents of every kind of right answer."""
    notes = [{"kind": kind, "values": values} for kind, values in NOTES.items()]
    passed = make_layer_audit("exact")
    passed["verdict"] = [item for item in passed["verdict"] if item["outcome"] != "warn"]
    row = {"index": 1, "name": "", "target": 0.5, "predicted": 2.0}
    rows = [{**row, "confidence": None, "image": None}] * 2
    numbers: dict[str, Any] = {"r_squared": None, "rmse": 1.5, "mae": 1.0, "spread": 0.5}
    numbers["residuals"] = rows
    other: dict[str, Any] = {"classification": None, "names": ["y"], "approximation": []}
    return {
        "passed": passed,
        "measured": make_measured(notes=notes),
        "no mistake": make_measured(mistakes=[]),
        "numbers": make_measured(**other, regression=numbers, mistakes=rows),
        "no labels": make_measured(**other, mistakes=[]),
    }


def seen() -> dict[str, Any]:
    """An audit of layers on data."""
    document = copy.deepcopy(make_layer_audit())
    reading = document["layers"]["readings"][0]
    reading["fit"] |= {"seen": True, "over_files": {"files": 2, "low": -0.5, "high": 0.75}}
    names = ("rows", "silent", "duplicates", "input_rank", "hidden_rank", "output_rank")
    reading["seen"] = dict.fromkeys(names, 3)
    how = {"input": "x", "scale": "0..1", "runner": "onnxruntime", "most": "9", "names": "a"}
    how |= {"channels": "RGB", "size": "8 × 8", "multiple": 32, "rate": 8000, "window": 9}
    how |= {"count": 4, "fit": 2, "held": 2, "repeated": 0}
    kinds = ["files", "left", "images", "own_size", "sound", "assumed", "arrays", "rows"]
    notes = [{"kind": f"seen_{kind}", "values": how} for kind in kinds]
    origin = {"name": "photos", "source": "photos", "source_kind": "images", "sha256": ""}
    return document | {"data": origin | {"num_images": 4, "notes": notes}}


def searched(reason: str) -> dict[str, Any]:
    """An audit of an ordinary MLP that classifies images, searched through its approximation."""
    document = copy.deepcopy(make_layer_audit())
    document["model"] |= {"input_shape": [6, 6], "output_names": ["a", "<b>"]}
    if reason == "approximated":
        found = to_json(make_overfitting(image=True)), to_json(make_triggers((6, 6), 2))
        found = tuple(one | {"threshold": None, "reason": reason} for one in found)
    else:
        found = tuple(silent(reason)[key] for key in ("overfitting", "triggers"))
    return document | dict(zip(("overfitting", "triggers"), found, strict=True))


@cache
def _unread() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(torch.nn.Conv2d(3, 4, 3).state_dict(), path)
        return audit(open_any(path, ReadOptions()), null_samples=DRAWS, command="here").to_dict()


def unread() -> dict[str, Any]:
    """An audit of a file of which no layer is read."""
    return copy.deepcopy(_unread())


def guessed(layout: str = "guessed") -> dict[str, Any]:
    """An audit of layers that are less than a twentieth of the model; one of them was seen."""
    document = seen() | {"decision": None}
    document["layers"]["readings"][0]["fit"]["over_files"]["low"] = 0.99  # of other files, too
    told = structs.replace(make_coverage(1, "assumed"), layout=layout, checked_against="")
    told = structs.replace(told, parameters=10**6, unread=10**6 - told.exact - told.approximate)
    return document | {"coverage": to_json(told)}


def partly() -> dict[str, Any]:
    """An audit of a model with a caution, of which a part and a file were not read."""
    coverage = to_json(make_coverage(1, "unread", other_files=("a.pt",)))
    document = {**make_page("low_rank"), "coverage": coverage, "decision": None}
    kept = [one for one in document["verdict"] if one["rule"] != "coverage"]
    return document | {"verdict": [*kept, coverage_endings()[-1]]}


def in_training() -> dict[str, Any]:
    document = make_layer_audit()
    document["source"]["given_in_training"] = True
    document["source"]["hooks"] = ["layers.0"]
    return document


def unlisted() -> dict[str, Any]:
    """An audit of a file that is of a known kind, and not opened."""
    document, none = unread(), Coverage(0, 0, 0, 0, (), "known", "", None)
    kept = [one for one in document["verdict"] if one["rule"] not in ("coverage", "non_finite")]
    return {**document, "coverage": to_json(none), "verdict": kept, "decision": None}


def variants() -> dict[str, dict[str, Any]]:
    """Return documents that together need every sentence."""
    return {
        "gated": make_layer_audit(),
        "exact": make_layer_audit("exact"),
        "seen": seen(),
        "inventory": {**make_layer_audit(), "inventory": to_json(INVENTORY)},
        "apart": apart(),
        "in training": in_training(),
        "unread": unread(),
        "unlisted": unlisted(),
        "guessed": guessed(),
        "partly": partly(),
        **{reason: searched(reason) for reason in ("approximated", "refused")},
        "broken": make_layer_audit("broken"),
        "endings": every_ending(),
        "cautious": cautious(),
        "another program": of_another_program("program"),
        "a program that was not compared": of_another_program("unread"),
        "comparison": make_comparison(),
        **{kind: make_page(kind) for kind in PAGES},
        "every change": {**make_layer_audit(), "difference": every_change()},
        "identical": {**make_layer_audit(), "difference": few_changes([SAME])},
        "other weights": {**make_layer_audit(), "difference": beside_other_weights()},
        "nothing in common": {
            **make_layer_audit(),
            "difference": headlined("unrelated", correlation=None),
        },
        "zeros": {**make_layer_audit(), "difference": headlined("same_numbers", types=["float32"])},
        **{
            f"headline {kind}": {**make_layer_audit(), "difference": headlined(kind)}
            for kind in HEADLINES
        },
        **{
            f"few of {kind} {number}": {**make_layer_audit(), "difference": headlined(kind, **few)}
            for kind in ("identical", "same_tensors", "not_compared", "differ")
            for number, few in enumerate(FEW_COMPARED)
        },
        "not placed, with answers": {
            **make_layer_audit(),
            "difference": {
                **headlined("identical", **FEW_COMPARED[0]),
                "answers": every_change()["answers"],
            },
        },
        "same files": {
            **make_layer_audit(),
            "difference": few_changes([SAME], every_change()["whole"]["changed"][0]),
        },
        **measured(),
    }
