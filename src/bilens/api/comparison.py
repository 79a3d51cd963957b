"""Two models beside each other: every tensor, files, layers; of tables columns and answers."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs
from torch import Tensor, nn

from bilens.api.given_data import Model, interface_of, opened
from bilens.base import Progress
from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import file_sha256, read_json
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import LabelledData
from bilens.data.tokenizer import load_tokenizer
from bilens.findings.adapters import update_directions
from bilens.findings.layer_audit import compare_with
from bilens.findings.layer_reading import AuditOptions, fit_layer
from bilens.findings.table_audit import exact_layer, output_names_of, units_of
from bilens.findings.table_difference import compare_answers, compare_columns
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.loaded_model import LoadedModel, is_of_numbers
from bilens.io.vocabulary import Vocabulary, vocabulary_of
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.layer_audit import BaselineSource, Difference, FileChange, LayerDifference
from bilens.records.table_audit import ColumnChanges

COMPANION = re.compile(
    r"(?!adapter)(?:config|\w+_config|special_tokens_map|added_tokens|tokenizer.*|vocab.*)\.json"
    r"|(?:vocab|merges).*\.txt|.*\.(?:jinja|model|spm|tiktoken|py)"
)

TOKENIZER = "tokenizer.json"


def read_alike(model: LoadedModel, baseline: LoadedModel) -> tuple[LoadedModel, LoadedModel]:
    """Return two models whose layers are called the same: a Llama may be read whole, or not."""
    if [*model.layers] == [*baseline.layers]:
        return model, baseline
    first, second = (one if one.alone is None else one.alone() for one in (model, baseline))
    return first, second


def whole_difference(model: LoadedModel, baseline: LoadedModel, progress: Progress) -> Difference:
    """Return what changed in all tensors, and in the files beside those of a folder."""
    mine, theirs = companions(model), companions(baseline)
    files = None
    if mine is not None and theirs is not None:
        files = tuple(compare_file(name, mine, theirs) for name in sorted({*mine, *theirs}))
    gguf = any(one.provenance.get("format", "")[:4] == "GGUF" for one in (model, baseline))
    tensors = model.tensors, baseline.tensors
    whole = compare_tensors(*tensors, files, gguf=gguf, progress=progress)
    if not gguf:
        found = update_directions(*tensors, whole, vocabulary_of_model(model), progress)
        whole = structs.replace(whole, directions=found)
    return Difference(BaselineSource(baseline.source, baseline.weights_sha256), (), whole)


def vocabulary_of_model(model: LoadedModel) -> Vocabulary | None:
    """Return the vocabulary of a language model; tokens without a tokenizer are numbers."""
    name: Callable[[int], str] = "#{}".format
    if path := (companions(model) or {}).get(TOKENIZER):
        with suppress(BilensError):
            name = load_tokenizer(path).token
    return vocabulary_of(model, name)


def companions(model: LoadedModel) -> dict[str, Path] | None:
    """Return the files beside the weights by name, an adapter's before its base's; None without."""
    folders = [Path(one) for one in (model.below, model.source) if one and Path(one).is_dir()]
    files = (file for folder in folders for file in folder.iterdir() if file.is_file())
    return {one.name: one for one in files if COMPANION.fullmatch(one.name)} if folders else None


def compare_file(name: str, mine: Mapping[str, Path], theirs: Mapping[str, Path]) -> FileChange:
    if name not in theirs or name not in mine:
        return FileChange(name, "model" if name in mine else "baseline")
    if file_sha256(mine[name]) == file_sha256(theirs[name]):
        return FileChange(name, "same")
    keys: list[str] = []
    with suppress(CheckpointError):  # no JSON object, or a large one: that it changed is said
        one, other = read_json(mine[name]), read_json(theirs[name])
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return FileChange(name, "changed", tuple(keys))


def module_of(model: Model) -> nn.Module | None:
    return model.module if isinstance(model, LoadedModel) else model


def is_one_exact_layer(model: Model) -> bool:
    """Tell whether a model is a classifier of one bilinear layer, which is read class by class."""
    module = module_of(model)
    if not isinstance(module, BilinearClassifier):
        return False
    if isinstance(model, LoadedModel) and is_of_numbers(model):
        return False  # its outputs are no classes, whose mean could be left out
    return len(module.layers) == 1 and getattr(module.layers[0], "gate", None) is None


def is_of_columns(model: LoadedModel) -> bool:
    """Tell whether a model is one exact layer that names its inputs, as that of a table does."""
    return model.input_names is not None and is_one_exact_layer(model)


def layer_changes(
    model: LoadedModel, baseline: LoadedModel, seed: int
) -> tuple[LayerDifference, ...]:
    """Return what changed in the one layer of a model; nothing where the baseline has none."""
    (subject,) = model.layers.values()
    before = baseline.layers.get(subject.name)
    if before is None:
        return ()
    fitted = fit_layer(subject, seed)
    return (compare_with(before, subject, fitted, AuditOptions(0, seed), vectors=True),)


def table_changes(
    model: LoadedModel, baseline: LoadedModel, data: LabelledData | None, seed: int
) -> tuple[tuple[LayerDifference, ...], ColumnChanges]:
    """Return what changed in the layer, where columns are the same, and in columns and answers."""
    if not is_of_columns(baseline):
        return (), ColumnChanges(model.input_names or (), (), (), ())
    found = compare_columns(model, baseline)
    regressions = [len(output_names_of(one)) == 1 for one in (model, baseline)]
    if data is not None and regressions[0] == regressions[1]:
        x = inputs_of(baseline, data, model.input_names or (), dict(found.renamed))
        if x is not None:
            found = compare_answers(found, model, baseline, data, x)
    if model.input_names != baseline.input_names:
        return (), found
    units = units_of(model).T  # in their own units the smallest numbers count most
    after, before = (
        opened(in_standard_units(exact_layer(one), *units)) for one in (model, baseline)
    )
    layers = layer_changes(after, before, seed)
    of_weights = {"weight_change": None, "changed_units": None, "triggers": ()}
    return tuple(structs.replace(one, **of_weights) for one in layers), found


def inputs_of(
    baseline: LoadedModel, data: LabelledData, names: Sequence[str], called: Mapping[str, str]
) -> Tensor | None:
    """Return rows as a baseline reads them; None where they do not hold all that it reads."""
    wanted = [called.get(name, name) for name in baseline.input_names or ()]
    if {*wanted} <= {*names}:
        return data.inputs[:, [names.index(name) for name in wanted]]
    with suppress(BilensError, KeyError):  # a table that holds more than the model reads
        fits = interface_of(baseline, answers=False)
        again = read_labelled(Path(data.origin.source), None, fits)
        known = {number: at for at, number in enumerate(again.numbers)}
        return again.inputs[[known[number] for number in data.numbers]]
    return None
