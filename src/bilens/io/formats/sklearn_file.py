"""Fitted models of scikit-learn in files: joblib and pickle, which run code, and skops."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from bilens.base.errors import (
    CheckpointError,
    MissingExtraError,
    NoLayersError,
    Retry,
    UsageError,
    optional_package,
)
from bilens.base.files import file_sha256
from bilens.io.estimator import from_sklearn
from bilens.io.file_kinds import are_trees, kind_of, no_weights
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions

INERT = "sklearn.neural_network._stochastic_optimizers."  # every MLP has one: numbers alone


def read_estimator(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the model that a file holds, read as `from_sklearn` reads the object."""
    is_skops = kind_of(path) == "skops"
    if not (is_skops or options.trust_pickle):
        raise NoLayersError(
            f"{path}: is a pickle, which runs whatever code is in it when it is opened, and cannot "
            "be read otherwise: open it only if you trust where it comes from, or save the model "
            "with skops.io.dump, which needs no trust.",
            [Retry(str(path), {"trust_pickle": True})],
        )
    try:
        import joblib

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another version: outputs are compared
            whole = read_skops(path, options) if is_skops else joblib.load(path)
    except (CheckpointError, MissingExtraError):
        raise
    except Exception as error:  # whatever the code in it, or damaged bytes, raise
        raise CheckpointError(
            f"{path}: cannot be opened as a fitted model ({type(error).__name__}: {error}): open "
            "it where the packages that it was made with are installed, and check that it is whole."
        ) from error
    whole = getattr(whole, "best_estimator_", whole)  # of a search
    last = whole.steps[-1][1] if hasattr(whole, "steps") else whole
    if are_trees([f"{type(last).__module__}."]):
        raise no_weights(path)
    try:
        model = from_sklearn(whole)
    except UsageError as error:
        raise NoLayersError(f"{path}: {error.sentence}") from error
    return replace(model, source=str(path), read_sha256=file_sha256(path))


def read_skops(path: Path, options: ReadOptions) -> Any:
    skops = optional_package("skops", "skops", f"reading {path}", "skops.io")
    types = skops.io.get_untrusted_types(file=path)
    unknown = [name for name in types if not name.startswith(INERT)]
    if unknown and not options.trust_pickle:
        raise NoLayersError(
            f"{path}: holds types that skops does not know to be safe ({', '.join(unknown[:6])}): "
            "allow them only if you trust where it comes from.",
            [Retry(str(path), {"trust_pickle": True})],
        )
    return skops.io.load(path, trusted=types)


KINDS = ("pickle", "skops")
SKLEARN = Format("scikit-learn", lambda p: p.is_file() and kind_of(p) in KINDS, read_estimator)
