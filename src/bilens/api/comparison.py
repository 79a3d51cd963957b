"""Two models beside each other: every tensor, files, layers; of tables columns and answers."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.api.alignment import Alignment
from bilens.api.given_data import interface_of
from bilens.api.provenance import (
    files_with_tensors,
    folders_unseen,
    is_of_weights,
    is_prose,
)
from bilens.api.quadratic_fit import check_chain, network_of
from bilens.api.subject import check_on_rows, is_of_columns
from bilens.api.wiring import MOST_SETTINGS, compare_programs, compare_wiring, hooks_of_both
from bilens.base import Progress
from bilens.base.errors import BilensError, CheckpointError, UsageError
from bilens.base.files import file_sha256, read_json
from bilens.base.model_card import is_own_card
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import LabelledData, ModelInterface
from bilens.data.tokenizer import load_tokenizer
from bilens.findings.adapters import update_directions
from bilens.findings.column_effects import output_names_of, units_of
from bilens.findings.layer_reading import ReadingOptions, fit_layer
from bilens.findings.layer_walk import compare_with
from bilens.findings.table_difference import compare_answers, compare_columns
from bilens.findings.tensor_difference import compare_tensors
from bilens.findings.tensor_likeness import TensorPair
from bilens.io.any_model import all_tensors, header_of
from bilens.io.contents import Contents, Name, Operation, Program, WeightPlace, short_text
from bilens.io.file_kinds import files_below
from bilens.io.formats.safetensors_folder import INDEX_NAME
from bilens.io.loaded_model import LoadedModel
from bilens.io.vocabulary import Vocabulary, vocabulary_of
from bilens.records.column_readings import ColumnChanges
from bilens.records.layer_readings import (
    AnswerChanges,
    BaselineSource,
    Difference,
    LayerDifference,
    WordTrial,
)
from bilens.records.tensor_changes import CountChange, FileChange, GraphChange, SettingChange

TOKENIZER = "tokenizer.json"
WHOLE = ("name", "content", "tied")  # ways in which a tensor is another one, its axes as they are
SHARD = ".safetensors"
NUMBER = "number"  # the one output of a model that gives no classes


def whole_difference(
    alignment: Alignment,
    layers: tuple[LayerDifference, ...],
    trial: WordTrial | None,
    progress: Progress,
    data: LabelledData | None = None,
) -> Difference:
    """Compare all tensors of two models, the files beside them, and what is around their layers.

    `layers` and `trial` are what was found in layers and by words. On data their answers are
    compared, too; those of tables are told with their columns.
    """
    model, baseline = alignment.model, alignment.baseline
    files = compare_files(model, baseline)
    held = header_of(model), header_of(baseline)
    tensors = all_tensors(model, held[0]), all_tensors(baseline, held[1])
    same = model.weights_sha256 == baseline.weights_sha256 != ""
    graph = None if same else partial(changed_graph, *held)
    folders = folders_unseen(model), folders_unseen(baseline)
    alike = {name for name, keys in folders[0].items() if keys == folders[1].get(name)}
    unseen = tuple(sorted({*folders[0], *folders[1]} - alike))
    told = {"model": held[0], "baseline": held[1]}
    how: dict[str, Any] = {"unseen": unseen, "same_file": same, "graph": graph, "headers": told}
    whole = compare_tensors(*tensors, files, **how, progress=progress)
    if not any(one.provenance.get("format", "")[:4] == "GGUF" for one in (model, baseline)):
        found = update_directions(*tensors, whole, vocabulary_of_model(model), progress)
        whole = structs.replace(whole, directions=found)
    left = {name for one in held if one is not None and not same for name in one.left_out}
    if files is not None:
        left |= names_not_compared(model, baseline) - alike - {one.name for one in files}
    whole = structs.replace(whole, not_compared=tuple(sorted(left)))
    source = BaselineSource(baseline.home, baseline.weights_sha256)
    around = compare_wiring(alignment, files, None if data is None else data.inputs, whole)
    notes = (*around, *hooks_of_both(alignment), *alignment.notes)
    if (head := whole.headline) is not None and head.graph is None:
        program = compare_programs(alignment, layers, files, whole, around)
        whole = structs.replace(whole, headline=structs.replace(head, graph=program))
    answers = None if data is None or is_of_columns(model) else answer_changes(alignment, data)
    return Difference(source, layers, whole, trial, notes, answers)


def changed_graph(
    model: Contents | None, baseline: Contents | None, pairs: Sequence[TensorPair] = ()
) -> GraphChange | None:
    """Compare the programs of two files of one format, whose tensors are matched.

    None where no file says any; of two formats nothing is compared, and no settings where a format
    gives no whole program.
    """
    found = [one for one in (baseline, model) if one is not None]
    kinds = {(one.format.split()[0].strip(","), "before Keras" in one.format) for one in found}
    if len(found) < 2 or len(kinds) > 1:
        return GraphChange() if any(one.operations or one.program for one in found) else None
    before, after = [
        held.operations
        + Counter(f"{p.side} {p.name}: {p.shape} {p.dtype}".strip() for p in held.ports)
        for held in found
    ]
    changed = [CountChange(name, before[name], after[name]) for name in before | after]
    listed = all(held.operations for held in found)
    operations = tuple(one for one in changed if one.before != one.after) if listed else None
    programs = list[Program]()
    with suppress(Exception):  # a field that is not known, or damaged bytes
        programs = [held.program() for held in found if held.program is not None]
    if len(programs) == 1 and isinstance(programs[0], Operation) and not listed:
        empty = Operation(programs[0].label, {})  # the other file has no words
        programs.insert(0 if found[0].program is None else 1, empty)
    if len(programs) < 2:
        return GraphChange(operations) if listed or any(one.program for one in found) else None
    two = ([x.baseline for x in pairs], [x.model for x in pairs])
    both = [*zip(*([one.called or one.name for one in side] for side in two), strict=True)]
    known = {*compress(both, (x.how in WHOLE and not x.moved for x in pairs))}
    renamed = {name for old, new in known if old != new for name in (old, new)}
    named = [{*held.names(), *(names[side] for names in both)} for side, held in enumerate(found)]
    known |= {(name, name) for name in named[0] & named[1] - renamed}
    settings = changed_settings(programs[0], programs[1], known)
    if operations and not settings:
        operations = ()  # called otherwise, and all that they do is the same
    return GraphChange(operations, settings)


def changed_settings(
    before: Program, after: Program, pairs: Collection[tuple[str, str]]
) -> tuple[SettingChange, ...]:
    """Compare two programs place by place, the first differences first.

    A name is the same one as the first that stood in its place, and is told as the baseline writes
    it. A weight is the same one in a pair of the matching, where what differs in it is told, under
    one name, or with the same bytes.
    """
    found, names = list[SettingChange](), (dict[Name, Name](), dict[Name, Name]())
    todo: list[tuple[str, str, Program, Program]] = [("", "", before, after)]
    while todo and len(found) < MOST_SETTINGS:
        label, path, old, new = todo.pop()
        inside = list[tuple[str, str, Program, Program]]()
        if isinstance(old, Operation) and isinstance(new, Operation):
            inside = [(new.label, "", old.parts, new.parts)]
        elif isinstance(old, dict) and isinstance(new, dict):
            inside = [
                (label, f"{path}.{key}".strip("."), old.get(key), new.get(key))
                for key in {**old, **new}
            ]
        elif type(old) is type(new) is list and len(old) == len(new):
            is_flat = not any(isinstance(x, dict | list | Operation) for x in (*old, *new))
            if not is_flat:
                inside = [(label, path, *both) for both in zip(old, new, strict=True)]
            elif not all(are_one(*both, names, pairs) for both in zip(old, new, strict=True)):
                found.append(SettingChange(label, path, text_of(old), text_of(new, names[1])))
        elif not are_one(old, new, names, pairs):
            found.append(SettingChange(label, path, text_of(old), text_of(new, names[1])))
        todo += inside[::-1]
    return tuple(found)


def are_one(
    old: Program,
    new: Program,
    names: tuple[dict[Name, Name], dict[Name, Name]],
    pairs: Collection[tuple[str, str]],
) -> bool:
    """Tell whether two values of programs are the same, names as they were met first."""
    if type(old) is not type(new):
        return False
    if isinstance(old, Name):
        there, back = names
        same = there.get(old, new) == new and back.get(new, old) == old
        if same:
            there[old], back[new] = new, old
        return same
    if not isinstance(old, WeightPlace):
        return repr(old) == repr(new)
    if (old.name, new.name) in pairs:
        return True
    with suppress(Exception):  # of a file that is not there
        return old.kind == new.kind and old.fetch is not None and old.fetch() == new.fetch()
    return False


def text_of(value: Program, words: Mapping[Name, Name] | None = None) -> str:
    """Return a value of a program as it is told: of a long one its beginning, and its SHA-256."""
    if isinstance(value, Name):
        value = (words or {}).get(value, value)
    if value is None or isinstance(value, Name | WeightPlace | Operation):
        return "" if value is None else value[0] or "a value without a name"
    if isinstance(value, dict):
        value = [part for one in value.items() for part in one]
    if isinstance(value, list):
        value = ", ".join(text_of(one, words) for one in value)
    if isinstance(value, bytes):
        is_text = value.isascii() and value.decode("ascii", "replace").isprintable()
        value = value.decode() if is_text else value.hex(" ")
    return short_text(str(value))


def vocabulary_of_model(model: LoadedModel) -> Vocabulary | None:
    """Return the vocabulary of a language model; tokens without a tokenizer are numbers."""
    name: Callable[[int], str] = "#{}".format
    if path := (all_beside(model) or {}).get(TOKENIZER):
        with suppress(BilensError):
            name = load_tokenizer(path).token
    return vocabulary_of(model, name)


def all_beside(model: LoadedModel) -> dict[str, Path] | None:
    """Return all files of a model by name, an adapter before its base; None without a folder."""
    folders = [Path(one) for one in (model.below, model.home) if one and Path(one).is_dir()]
    if not folders:
        return None
    return {name: file for folder in folders for name, file in files_below(folder).items()}


def names_not_compared(model: LoadedModel, baseline: LoadedModel) -> set[str]:
    """Return the files of two models whose tensors are not read, and folders."""
    own = files_with_tensors(model) | files_with_tensors(baseline)
    beside = chain(*((all_beside(one) or {}).items() for one in (model, baseline)))
    return {name for name, path in beside if path not in own and not is_own_card(path)}


def compare_files(model: LoadedModel, baseline: LoadedModel) -> tuple[FileChange, ...] | None:
    """Compare the files of two models but those whose tensors are; beside a file weights alone."""
    both = all_beside(model), all_beside(baseline)
    mine, theirs = (one or {} for one in both)
    weights = [files_with_tensors(one) for one in (model, baseline)]
    cuts = [{n for n in one if n.endswith(SHARD)} for one in (mine, theirs)]
    if cuts[0] != cuts[1]:  # an index says no more than that
        weights.append({one[INDEX_NAME] for one in (mine, theirs) if INDEX_NAME in one})
    own, two = {*chain(*weights)}, None not in both
    every = [(n, path) for one in (mine, theirs) for n, path in one.items() if path not in own]
    names = {n for n, path in every if not is_prose(path) and (two or is_of_weights(path))}
    found = tuple(compare_file(name, mine, theirs) for name in sorted(names))
    return found if two or found else None


def compare_file(name: str, mine: Mapping[str, Path], theirs: Mapping[str, Path]) -> FileChange:
    weights = any(is_of_weights(one[name]) for one in (mine, theirs) if name in one)
    if name not in theirs or name not in mine:
        return FileChange(name, "model" if name in mine else "baseline", weights=weights)
    if file_sha256(mine[name]) == file_sha256(theirs[name]):
        return FileChange(name, "same", weights=weights)
    keys: list[str] = []
    with suppress(CheckpointError):  # no JSON object, or a large one: that it changed is said
        one, other = read_json(mine[name]), read_json(theirs[name])
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return FileChange(name, "changed", tuple(keys), weights)


def layer_changes(
    alignment: Alignment, seed: int, rows: Tensor | None = None, *, standard: bool = False
) -> tuple[LayerDifference, ...]:
    """Compare the one layer of a model with its baseline, whose others are not compared.

    `standard` reads it in the standard units of the model, where the smallest numbers count most.
    """
    (subject,) = alignment.model.layers.values()
    before, refused = alignment.before(subject.name), alignment.refused
    others = tuple(LayerDifference(name, False, why) for name, why in refused.items())
    if before is None or subject.name in refused:
        return others
    if standard:
        mean, scale = units_of(alignment.model).T
        before, subject = (one.behind(scale, mean) for one in (before, subject))
        rows = None if rows is None else (rows.double() - mean) / scale
    options = ReadingOptions(0, seed, seen=lambda _: rows)
    found = compare_with(before, subject, fit_layer(subject, seed), options, vectors=True)
    if standard and not found.identical:  # weights in these units are in no file
        found = structs.replace(found, weight_change=None, changed_units=None, triggers=())
    return (found, *others)


def column_changes(alignment: Alignment, data: LabelledData | None) -> ColumnChanges:
    """Compare columns, coefficients and answers of two models of tables."""
    model, baseline, axis = alignment.model, alignment.baseline, alignment.inputs
    if axis is None or not is_of_columns(baseline):
        return ColumnChanges(model.input_names or (), (), (), ())
    outputs = alignment.outputs
    assert outputs is not None, "both are whole models"
    found = ColumnChanges(
        added=axis.alone,
        removed=axis.baseline_alone,
        reread=axis.reread,
        renamed=perhaps_renamed(alignment),
        other_outputs=tuple(sorted({*outputs.alone, *outputs.baseline_alone})),
    )
    of_classes = max(outputs.sizes) > 1  # of one alone nothing can be said: logits have no zero
    is_comparable = axis.pairs and not axis.reread  # ranks of other rows are of another unit
    if is_comparable and len(outputs.pairs) > of_classes and not alignment.head:
        (after,), (before,) = (one.layers.values() for one in (model, baseline))
        mean, scale = units_of(model).T
        views = after, alignment.reading_model_inputs(before)
        kept = [mine for mine, _ in outputs.pairs]
        parts = torch.eye(outputs.sizes[0]).double()[kept], outputs.back[kept]
        f, g = (
            view.behind(scale, mean).quadratic_map.compose_output(part)
            for view, part in zip(views, parts, strict=True)
        )
        names = [output_names_of(model)[mine] for mine in kept]
        found = compare_columns(found, f, g, names)
    answers = None if data is None else answer_changes(alignment, data)
    return found if answers is None else structs.replace(found, **structs.asdict(answers))


def answer_changes(alignment: Alignment, data: LabelledData) -> AnswerChanges | None:
    """Run both models on rows and compare their answers; None where one cannot answer them."""
    both, outputs = (alignment.model, alignment.baseline), alignment.outputs
    if not all(one.network for one in both) or alignment.inputs is None:
        return None
    if outputs is None or not outputs.pairs or alignment.head:
        return None
    try:
        faces = [interface_of(one, answers=False) for one in both]
    except UsageError:  # of several answers, or not its layers one behind the other
        return None
    x = rows_of_baseline(alignment, data)
    if x is None:
        return None
    check_on_rows(alignment.baseline, x, data.numbers)
    read = zip(both, (data.inputs, x), strict=True)
    found = [in_blocks(check_chain(network_of(one))[1], rows.double()).cpu() for one, rows in read]
    if "classification" not in [one.task for one in faces]:
        after, before = (one.means(each) for one, each in zip(faces, found, strict=True))
        return compare_answers(((NUMBER,), (NUMBER,)), (after, before), data, outputs.back)
    after, before = (one.logits(each) for one, each in zip(faces, found, strict=True))
    back = outputs.back if min(outputs.sizes) > 1 else torch.eye(2).double()  # of one logit
    return compare_answers((faces[0].classes, faces[1].classes), (after, before), data, back)


def perhaps_renamed(alignment: Alignment) -> tuple[tuple[str, str], ...]:
    """Return [before, after] of columns of one model alone that have one mean and deviation.

    That says little: it is for people to look at, and nothing is matched by it.
    """
    sides = list[dict[tuple[float, ...], list[str]]]()
    axis = alignment.inputs
    assert axis is not None, "both read columns"
    both = (alignment.baseline, axis.baseline_alone), (alignment.model, axis.alone)
    for model, alone in both:
        known = dict[tuple[float, ...], list[str]]()
        for name, unit in zip(model.input_names or (), units_of(model).tolist(), strict=True):
            if name in alone and model.input_mean is not None:
                known.setdefault(tuple(unit), []).append(name)
        sides.append(known)
    pairs = [(names, sides[1].get(unit, [])) for unit, names in sides[0].items()]
    return tuple((old[0], new[0]) for old, new in pairs if len(old) == len(new) == 1)


def rows_of_baseline(alignment: Alignment, data: LabelledData) -> Tensor | None:
    """Return rows as a baseline reads them; None where they do not hold all that it reads.

    A table is read anew: a baseline matched by name finds its own columns, units and fills in it.
    """
    model, baseline, axis = alignment.model, alignment.baseline, alignment.inputs
    assert axis is not None, "both read columns"
    lacks = axis.baseline_alone or axis.reread
    if data.origin.source_kind == "table":
        fits, ours = (interface_of(one, answers=False) for one in (baseline, model))
        with suppress(BilensError, KeyError):
            if not axis.by_place:
                return same_rows(data, fits)
        if fits.fill is not None and not lacks:  # its cells are in other units
            means = torch.tensor(ours.fill or (0.0,) * ours.d_input, dtype=torch.float64)
            for (mine, theirs), factor in zip(axis.pairs, axis.factors, strict=True):
                means[mine] = (fits.fill[theirs] - float(alignment.fixed[theirs])) / factor
            with suppress(BilensError, KeyError):
                again = same_rows(data, replace(ours, fill=tuple(means.tolist())))
                return alignment.rows_of_baseline(again)
    return None if lacks else alignment.rows_of_baseline(data.inputs)


def same_rows(data: LabelledData, interface: ModelInterface) -> Tensor:
    """Return the rows of a table as an interface reads them; KeyError where one is gone."""
    again = read_labelled(Path(data.origin.source), None, interface)
    known = {number: at for at, number in enumerate(again.numbers)}
    return again.inputs[[known[number] for number in data.numbers]]
