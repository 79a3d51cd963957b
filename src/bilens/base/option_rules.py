"""The options that need another one: one table for Python and the command line.

An option that is given and would change nothing is refused; on a command line so is one that is
given with its default value. Free of this are switches that only allow something (`allow_pickle`,
`overwrite`, `download`, `verify` of what may be proven), seeds, which each document records, and
`n_iter_no_change`, which scikit-learn's own checks set of every estimator.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from numbers import Integral
from typing import Any, Literal, TypeVar

from bilens.base.errors import UsageError

T = TypeVar("T")
# What some options are one of, and where they stand in the help.
Device = Literal["auto", "cpu", "cuda"]
Gate = Literal["relu", "gelu", "silu"]
MLPType = Literal["gated", "ordinary"]
Precision = Literal["auto", "float32", "bfloat16"]
Schedule = Literal["linear", "cosine"]
Sign = Literal["relu", "raw"]
TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow"]
TokenizerKind = Literal["byte-bpe", "wordpiece-lower", "word", "numbers"]
MODEL_PANEL, TRAINING_PANEL, METHOD_PANEL = "Model", "Training", "Method"
PLAIN = (bool, int, float, str, tuple, list, type(None))
AT_A_PATH = "with data at a path"
TEXT_GIVEN, RUN = "with --text", "with --data that a model is run on, layer by layer"
EITHER = "with --text, or --data that a model is run on"
TEXT, FILES = "with a text", "with files that the model is run on"
NO_IDX = "with data that are no data set of IDX files"
BASELINE = "with a baseline (--baseline)"
TRAINING_PATH = "with train_data (--train-data) at a path"
ONE_LAYER = "of a classifier of one bilinear layer whose inputs have no names"
IN_MEMORY = "with images in files or in memory"
NO_COLUMNS = "of a model whose inputs have no names"
APPROXIMATED = "of a model with a layer that is approximated"
ITERATES = "with a method that iterates (lanczos, or auto)"
DATA, NO_DATA = "with data", "without data"
ATTENTION = "with an autoencoder of what the attention reads (--attention-sae)"
SAES, NO_SAES = "with autoencoders (--input-sae, --output-sae)", "without autoencoders"
# What is done → what has to be there → options that need it, each with its default.
RULES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "data": {
        AT_A_PATH: {"labels": None},
        NO_IDX: {"labels": None},
        "with a table of text": {"encoding": None},
    },
    "audit": {
        TRAINING_PATH: {"train_labels": None},
        BASELINE: {"try_words": 0},
        ONE_LAYER: {"train_data": None},
        NO_COLUMNS: {"null_samples": None},
        APPROXIMATED: {"threshold": 0.9, "inputs": None},
    },
    "certify": {DATA: {"samples": 1000}},
    "attack": {"without a source": {"pairs": False}},
    "quadratic fit": {
        DATA: {"train_steps": 0, "held_out": None},
        NO_DATA: {"mean": None, "covariance": None, "samples": 10_000},
        APPROXIMATED: {"threshold": 0.9, "train_steps": 0},
    },
    "eigenpairs": {ITERATES: {"verify": False}},
    "decompose": {
        "with whole spectra": {"null_samples": 99},
        ITERATES: {"verify": False, "precision": "float64"},
        "with basis whitened": {"data": None, "dataset": None, "labels": None, "encoding": None},
    },
    "trace": {
        SAES: {
            "latents": None,
            "corpus": None,
            "features": 8,
            "top": 20,
            "tokens": 16_384,
            "graph": None,
            "dictionaries": 19,
            "attention_sae": None,
        },
        NO_SAES: {"toward": ()},
        ATTENTION: {"distance": 1},
        "without latents": {"outputs": 5},
    },
    "sweep": {
        "with audit": {"null_samples": 19},
        "with audit, fit, decompose or compare": {"threshold": 0.9},
        "with decompose or trace": {"directions": 16, "top": 5},
        "with convert": {"layer_steps": 0},
        "with compare": {"baseline": None},
        "with fit, decompose or convert": {"activations": None, "samples": 2000},
        "with --activations": {"layer_steps": 0},
        "without --activations": {"samples": 2000},
    },
    "convert": {  # each beside what is usual for text or rows
        "with the stage training": {"layer_steps": None},
        "with the stage distillation": {
            **dict.fromkeys(("tokens", "minutes", "passes", "learning_rate", "optimizer")),
            **dict.fromkeys(("texts_at_once", "recompute", "unfreeze")),
        },
        "without minutes": {"tokens": None},
    },
    "layer inputs": {
        TEXT: {"tokens": 20_000, "n_ctx": 128},
        FILES: {"rows": 10_000, "normalise": None, "size": ()},
    },
    "train image": {
        IN_MEMORY: {"labels": None, "test": None, "class_names": None},
        "with a folder of IDX files": {"dataset": "mnist"},
    },
    "train language": {
        "without steps": {"epochs": None},
        "with polynomial": {"pairs": 1, "order_penalty": None},
    },
    "train table": {"with a quadratic_scale above 0": {"n_components": None}},
    "text": {
        TEXT_GIVEN: {"tokens": 20_000, "activations": None},
        RUN: {"rows": 10_000, "normalise": None, "size": None},
        EITHER: {"held_out": None},
    },
    "corpus": {"with --corpus": {"column": None, "limit": None}},
}
COMMAND_LINE = ("text", "corpus", "sweep", "decompose")
SPELLINGS = {
    "n_components": "--components",
    "validation_fraction": "--validation",
    "latents": "--latent",
    "inputs": "--text",
    "n_ctx": "--context-length",
    "class_names": "",
}


def option(
    default: T,
    help: str,
    *spellings: str,
    panel: str | None = None,
    metavar: str | None = None,
    min: float | None = None,
    max: float | None = None,
    kind: Any = None,
) -> T:
    """Return a field that is an option, too; a switch that is off has no `--no-`.

    `kind` is what the command line reads, where Python takes other things, too.
    """
    how = {"help": help, "rich_help_panel": panel, "metavar": metavar, "min": min, "max": max}
    return field(default=default, metadata={"option": (spellings, how), "kind": kind})


def as_integer(value: object) -> int | None:
    """Return an integer of Python or numpy as an int; None for anything else, a bool too."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value)


def check_count(name: str, value: int, minimum: int) -> int:
    """Return an integer of Python or numpy that is at least `minimum`, as an int."""
    number = as_integer(value)
    if number is None or number < minimum:
        raise UsageError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return number


MINIMUM_SAMPLES = 39  # rotations: the fewest that can hold 95 % between two order statistics
SEED_LIMIT = 2**32  # torch's generator uses no more bits of a seed


def check_seed(seed: int) -> int:
    """Return a seed that torch's generator can tell from every other."""
    seed = check_count("seed", seed, minimum=0)
    if seed >= SEED_LIMIT:
        raise UsageError(f"seed must be below 2**32, got {seed}.")
    return seed


SEVERAL: ContextVar[bool] = ContextVar("several", default=False)
WRITTEN: ContextVar[frozenset[str]] = ContextVar("written", default=frozenset())


@contextmanager
def as_written(names: Iterable[str]) -> Iterator[None]:
    """Take options for given that stand on the command line, whatever their value."""
    token = WRITTEN.set(frozenset(names))
    try:
        yield
    finally:
        WRITTEN.reset(token)


def is_written(name: str, value: Any) -> bool:
    """Tell whether an option stands on the command line, with a value that is one."""
    return name in WRITTEN.get() and value not in (None, (), [])


@contextmanager
def of_several() -> Iterator[None]:
    """Let options that are given for several models at once do nothing with some of them."""
    token = SEVERAL.set(True)
    try:
        yield
    finally:
        SEVERAL.reset(token)


def refuse_idle(verb: str, given: Mapping[str, Any], *there: str) -> None:
    """Refuse what is given and needs something that is not `there`, by the table of a verb."""
    for need, options in RULES[verb].items():
        if need not in there and not SEVERAL.get():
            idle = [n for n in options if n in given and is_given(given[n], options[n])]
            idle += [n for n in options if n not in idle and is_written(n, given.get(n))]
            refuse([spelled(verb, name) for name in idle], need)


def refuse(names: list[str], need: str) -> None:
    """Refuse options that would do nothing: they count only with something, or of something."""
    if names:
        more = "add that, or leave" if need.startswith("with ") else "leave"
        raise UsageError(f"{', '.join(names)}: only {need}; {more} them out.")


def is_given(value: Any, default: Any) -> bool:
    """Tell whether an argument is another one than its default."""
    return not isinstance(value, PLAIN) or value not in (default, None, (), [])


def spelled(verb: str, name: str) -> str:
    option = SPELLINGS.get(name, f"--{name.replace('_', '-')}")
    return option if verb in COMMAND_LINE else f"{name} ({option})" if option else name
