"""Compares the code around the layers of two models: do both combine them alike?

Equal layers are no equal models: one may run them in another order, twice, or turn a sign behind
them. Where nothing shows that the two are alike there, nobody may say so.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bilens.api.alignment import Alignment
from bilens.findings.tensor_likeness import same_bits
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import tensors_sha256
from bilens.nn.agreement import ROWS, agreement, inputs_far_out
from bilens.nn.mlp_search.compare_run import as_given
from bilens.nn.real_run import hooked_parts, in_evaluation, only_tensor
from bilens.records.layer_readings import AROUND, AlignmentNote, LayerDifference
from bilens.records.tensor_changes import FileChange, GraphChange, SettingChange, WholeDifference

Files = Sequence[FileChange] | None  # beside the weights of both; None where one has no folder
CONFIG = "config.json"
MOST_SETTINGS = 100  # of programs, that are told
STORAGE = ("torch_dtype", "dtype", "quantization_config")
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")  # one that is alone is told by name
# Keys of a configuration.
BESIDE_THE_FUNCTION = {"_name_or_path", "transformers_version", "use_cache"}
BESIDE_THE_FUNCTION |= {*STORAGE, *LAYER_COUNTS}
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
WITHOUT_EFFECT = (nn.Identity, nn.Flatten, *DROPOUTS)  # in evaluation, on answers that are equal
# What each part has, or Hugging Face notes in it; the configuration is compared as that of all.
OF_ANY_PART = {*vars(nn.Module()), "inplace", "config", "generation_config", "name_or_path"}
OF_ANY_PART |= {"warnings_issued", "gradient_checkpointing", "_compiled_call_impl"}
LIBRARIES = ("torch.", "transformers.")  # what their parts hold under private names follows
DEEPEST = 8  # objects in objects whose attributes are compared
LONGEST_TEXT = 256  # tokens, where no configuration says how long a text may be


def compare_wiring(
    alignment: Alignment,
    files: Files,
    data: Tensor | None = None,
    whole: WholeDifference | None = None,
) -> tuple[AlignmentNote, ...]:
    """Return how the order, head or code around the layers differ; empty where nothing does.

    Networks are nothing but their layers: each of them was run beside its own layers when it was
    opened, and both run on rows where data are given (`answer_changes`), so that order and head
    are all that can differ. Files of the same bytes, with one program, or of one family with one
    configuration, are put together alike. Of modules in memory both run, the model also with the
    weights of its baseline; equal answers say nothing of other inputs where parts of the two are
    of other code or configured otherwise.
    """
    model, baseline = alignment.model, alignment.baseline
    if not (model.layers and baseline.layers):
        return ()  # no layer is compared
    if model.network and baseline.network:
        mine = [*alignment.layer_names.values()]
        same = mine == [name for name in baseline.layers if name in mine]
        return () if same else (AlignmentNote(f"{AROUND}order", ()),)
    if is_one_program(model, baseline, whole) or are_of_one_configuration(model, baseline, files):
        return ()
    return compare_answers_of_modules(model, baseline, data)


def compare_programs(
    alignment: Alignment,
    layers: Sequence[LayerDifference],
    files: Files,
    whole: WholeDifference,
    around: Sequence[AlignmentNote],
) -> GraphChange | None:
    """Compare what is computed with the tensors of two models, where no file says it as a program.

    Of modules the code and the settings of their parts, of folders the configuration, and of equal
    tensors the layers made of them. None where nothing was found to differ, and where shapes of
    tensors differ.
    """
    both = alignment.model, alignment.baseline
    if whole.model_alone or whole.baseline_alone or whole.other_shape:
        return None  # sizes are settings, too, and tensors tell of them
    given = [module_given(one) for one in both]
    config = next((one for one in files or () if one.name == CONFIG), None)
    keys = () if config is None else {*config.keys} - BESIDE_THE_FUNCTION
    other = [(CONFIG, key) for key in sorted(keys)]
    if isinstance(given[0], nn.Module) and isinstance(given[1], nn.Module):
        other += [(name, "") for name in parts_of_other_code(given[0], given[1])]
    others = () if whole.changed else layers
    unlike = [one for one in others if not (one.identical or one.same_function)]
    other += [(one.name, "outputs") for one in unlike if one.refused is None]
    if not other and {note.kind for note in around} & {f"{AROUND}order", f"{AROUND}answers"}:
        other = [("forward", "outputs")]
    if other:
        settings = tuple(SettingChange(name, setting, "", "") for name, setting in other)
        return GraphChange(None, settings[:MOST_SETTINGS])
    unknown = given.count(None) == 1 and not all(one.network for one in both)
    hooked = any(one is not None and hooked_parts(one) for one in given)
    return GraphChange() if unknown or hooked or unlike else None


def module_given(model: LoadedModel) -> nn.Module | None:
    """Return the module of a model as it was given, without what torch.compile puts around it."""
    return getattr(model.module_in_memory, "_orig_mod", model.module_in_memory)


def hooks_of_both(alignment: Alignment) -> Iterator[AlignmentNote]:
    """Yield the parts of each model with hooks, which may act on other inputs."""
    for kind, one in (("hooks", alignment.model), ("baseline_hooks", alignment.baseline)):
        if one.module_in_memory is not None and (found := hooked_parts(one.module_in_memory)):
            yield AlignmentNote(kind, found)


def is_one_program(
    model: LoadedModel, baseline: LoadedModel, whole: WholeDifference | None
) -> bool:
    """Tell whether two files that can be run are the same, byte for byte, or compute the same."""
    if any(x.original is not None or not Path(x.source).is_file() for x in (model, baseline)):
        return False
    same = model.weights_sha256 == baseline.weights_sha256 and model.runner is not None
    head = None if whole is None else whole.headline
    return same or (head is not None and head.graph == GraphChange((), ()))


def are_of_one_configuration(model: LoadedModel, baseline: LoadedModel, files: Files) -> bool:
    """Tell whether files of one family are configured alike, and bring no code of their own."""
    kinds = {one.provenance.get("format", "") for one in (model, baseline)}
    found = {one.name: one for one in files or ()}
    if len(kinds) > 1 or CONFIG not in found or any(name.endswith(".py") for name in found):
        return False
    config = found[CONFIG]
    keys = {*config.keys} if config.state == "changed" else set()
    return config.state == "same" or (bool(keys) and keys <= BESIDE_THE_FUNCTION)


def compare_answers_of_modules(
    model: LoadedModel, baseline: LoadedModel, data: Tensor | None
) -> tuple[AlignmentNote, ...]:
    """Run both on the data and at several scales; the model with the weights of the other, too."""
    unknown, answers = ((AlignmentNote(f"{AROUND}{kind}", ()),) for kind in ("unknown", "answers"))
    mine, theirs = module_given(model), module_given(baseline)
    if mine is None or theirs is None:
        return unknown
    x, own, other = inputs_of(mine, model, data), weights_of(mine), weights_of(theirs)
    made, expected = answer_of(mine, x, own), answer_of(theirs, x, other)
    if made is None or expected is None or not bool(expected.isfinite().any()):
        return unknown
    if not are_equal(expected, made) and own.keys() == other.keys():
        made = answer_of(mine, x, other)
    if made is None or not are_equal(expected, made):
        return answers
    parts = parts_of_other_code(mine, theirs)
    return (AlignmentNote(f"{AROUND}parts", parts),) if parts else ()


def parts_of_other_code(mine: nn.Module, theirs: nn.Module) -> tuple[str, ...]:
    """Name what is of another class, or set otherwise: of that, equal answers are no proof.

    Not even of an identity, if a bound is far out. A part that has no effect may be missing.
    """
    config, before = configuration_of(mine), configuration_of(theirs)
    found = [f"config.{key}" for key in {**config, **before} if config.get(key) != before.get(key)]
    parts, others = dict(mine.named_modules()), dict(theirs.named_modules())
    named = [
        {id(x): at for at, x in enumerate((*m.modules(), *m.parameters()))} for m in (mine, theirs)
    ]
    for path in {**parts, **others}:
        both = [one for one in (parts.get(path), others.get(path)) if one is not None]
        if all(type(one) in WITHOUT_EFFECT for one in both):
            continue
        kinds = dict.fromkeys(type(one) for one in both)
        said = [settings_of(one, ids) for one, ids in zip(both, named, strict=False)]
        alike = len(both) == 2 and len(kinds) == 1 and said[0] == said[1]
        if not (alike and are_unsaved_equal(*both)):
            found.append(f"{path} ({', '.join(kind.__name__ for kind in kinds)})".strip())
    return tuple(found)


def are_unsaved_equal(mine: nn.Module, theirs: nn.Module) -> bool:
    """Tell whether two parts have the same buffers that no file of them holds."""
    both = mine, theirs
    names = {name for part in both for name in part._non_persistent_buffers_set}
    buffers = [[dict(part.named_buffers(recurse=False)).get(n) for part in both] for n in names]
    known = [one for one in buffers if any(x is not None for x in one)]
    return all(a is not None and b is not None and are_one_buffer(a, b) for a, b in known)


def are_one_buffer(mine: Tensor, theirs: Tensor) -> bool:
    """Tell whether two buffers are the same bit for bit; on the meta device there are no bits."""
    if mine.shape != theirs.shape or mine.is_meta != theirs.is_meta:
        return False
    return mine.is_meta or same_bits(mine.cpu(), theirs.cpu())


def configuration_of(module: nn.Module) -> dict[str, object]:
    """Return the configuration that Hugging Face keeps of a model, as far as it acts."""
    config: Any = getattr(module, "config", None)
    said = config.to_dict() if hasattr(config, "to_dict") else {}
    return {key: one for key, one in said.items() if key not in BESIDE_THE_FUNCTION}


def settings_of(part: nn.Module, named: Mapping[int, int]) -> dict[str, object]:
    """Return the attributes of a part, without those that are `named` parts and weights, by id."""
    seen = dict(named)
    of_library = type(part).__module__.startswith(LIBRARIES)
    return {
        name: make_comparable(one, seen)
        for name, one in vars(part).items()
        if name not in OF_ANY_PART and not (of_library and name.startswith("_"))
    }


def make_comparable(value: Any, seen: dict[int, int], depth: int = 0) -> object:
    """Return a value as one that equals another where both do the same, as far as can be told.

    `seen` numbers the objects that were met, so that each is looked into once.
    """
    deeper: Callable[[Any], object] = partial(make_comparable, seen=seen, depth=depth + 1)
    if isinstance(value, nn.Module | nn.Parameter) and id(value) not in seen:
        seen[id(value)] = len(seen)
        held = weights_of(value) if isinstance(value, nn.Module) else {"": value.data}
        kinds = [*map(type, value.modules())] if isinstance(value, nn.Module) else []
        there = [(name, one) for name, one in held.items() if not one.is_meta]
        return type(value), kinds, tensors_sha256(there)  # in a list, where no module names it
    if isinstance(value, nn.Module | nn.Parameter) or depth > DEEPEST:
        return type(value)  # the former are compared as parts and weights
    if isinstance(value, float):
        return repr(value)  # NaN is that of the other
    if isinstance(value, MethodType):
        return [*map(deeper, (value.__func__, value.__self__))]
    if isinstance(value, FunctionType):
        cells = [one.cell_contents for one in value.__closure__ or ()]
        return value.__code__, [*map(deeper, (value.__defaults__, value.__kwdefaults__, cells))]
    if isinstance(value, partial):
        return [*map(deeper, (value.func, value.args, value.keywords))]
    if isinstance(value, tuple | list | deque):
        return [*map(deeper, value)]
    if isinstance(value, Mapping):
        return {name: deeper(one) for name, one in value.items()}
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return str(value.dtype), deeper(value.tolist())
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for one in slots for name in ([one] if isinstance(one, str) else one)]
    inside = {name: getattr(value, name, None) for name in names} | getattr(value, "__dict__", {})
    if not inside or isinstance(value, type | ModuleType):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    return type(value), deeper(inside)


def inputs_of(module: nn.Module, model: LoadedModel, data: Tensor | None) -> Tensor:
    """Return tokens of a language model; else the rows of data, and inputs at several scales."""
    tokens = getattr(getattr(module, "config", None), "vocab_size", None)
    if isinstance(tokens, int):
        longest = getattr(module.config, "max_position_embeddings", LONGEST_TEXT)
        context = getattr(module.config, "n_ctx", longest)
        context = context if isinstance(context, int) else LONGEST_TEXT
        return torch.arange(min(context, LONGEST_TEXT))[None] % tokens
    width = next(iter(model.layers.values())).sizes.d_in
    x = inputs_far_out(width)
    return x if data is None or data.shape[1:] != (width,) else torch.cat([x, data.double()])


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each of a tied pair once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def answer_of(module: nn.Module, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor | None:
    """Run the code of a module with the weights given, uncompiled; None where it does not run."""
    try:
        with in_evaluation(module):  # which puts back what is taken away
            for part in module.modules():
                vars(part).pop("_compiled_call_impl", None)
            return only_tensor(functional_call(module, {**weights}, (as_given(module, x),)))
    except Exception:  # somebody else's code, or weights of other shapes
        return None


def are_equal(expected: Tensor, found: Tensor) -> bool:
    """Tell whether answers are equal but for rounding, a few at a time: large ones hide none."""
    if expected.shape != found.shape:
        return False
    found = found.to(expected.device)
    if not torch.equal(expected.isfinite(), found.isfinite()):
        return False  # a bound that one has may keep its answers finite
    blocks = (slice(start, start + ROWS) for start in range(0, len(expected), ROWS))
    pairs = ((expected[few].nan_to_num(0, 0, 0), found[few].nan_to_num(0, 0, 0)) for few in blocks)
    return all(torch.equal(*pair) or agreement("output", "", *pair).passed for pair in pairs)
