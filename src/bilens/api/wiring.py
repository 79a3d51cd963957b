"""Compares the code around the layers of two models: do both combine them alike?

Equal layers are no equal models: one may run them in another order, twice, or turn a sign behind
them. Where nothing shows that the two are alike there, nobody may say so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bilens.api.alignment import Alignment
from bilens.io.loaded_model import LoadedModel
from bilens.nn.agreement import ROWS, agreement, inputs_far_out
from bilens.nn.mlp_search.compare_run import as_given
from bilens.nn.real_run import in_evaluation, only_tensor
from bilens.records.layer_readings import FileChange

# `order`: other layers, or in another order; `answers`: both run, and what is around the layers
# answers otherwise; `unknown`: it was not compared
Around = Literal["", "order", "answers", "unknown"]
Files = Sequence[FileChange] | None  # beside the weights of both; None where one has no folder
CONFIG = "config.json"
STORAGE = ("torch_dtype", "dtype", "quantization_config")
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")  # one that is alone is told by name
# Keys of a configuration.
BESIDE_THE_FUNCTION = {"_name_or_path", "transformers_version", *STORAGE, *LAYER_COUNTS}
OF_TRAINING = ("training", "inplace", "p", "drop", "dropout")  # nothing in evaluation
WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten)  # in evaluation
LONGEST_TEXT = 256  # tokens, where no configuration says how long a text may be


def compare_wiring(alignment: Alignment, files: Files, data: Tensor | None = None) -> Around:
    """Return how the order, head or code around the layers differ; empty where nothing does.

    Networks are nothing but their layers: each of them was run beside its own layers when it was
    opened, and both run on rows where data are given (`answer_changes`), so that order and head
    are all that can differ. Files of one family with one configuration are put together alike. Of
    modules in memory both run, the model also with the weights of its baseline; equal answers say
    nothing of other inputs where the two are configured otherwise.
    """
    model, baseline = alignment.model, alignment.baseline
    if not (model.layers and baseline.layers):
        return ""  # no layer is compared
    if model.network and baseline.network:
        mine = [*alignment.layer_names.values()]
        return "" if mine == [name for name in baseline.layers if name in mine] else "order"
    if are_of_one_configuration(model, baseline, files):
        return ""
    return compare_answers_of_modules(model, baseline, data)


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
) -> Around:
    """Run both on the data and at several scales; the model with the weights of the other, too."""
    mine, theirs = (one.original or one.module for one in (model, baseline))
    if mine is None or theirs is None:
        return "unknown"
    x, own, other = inputs_of(mine, model, data), mine.state_dict(), theirs.state_dict()
    made, expected = answer_of(mine, x, own), answer_of(theirs, x, other)
    if made is None or expected is None or not bool(expected.isfinite().any()):
        return "unknown"
    if not are_equal(expected, made) and own.keys() == other.keys():
        made = answer_of(mine, x, other)
    if made is None or not are_equal(expected, made):
        return "answers"
    one, another = settings_of(mine), settings_of(theirs)
    shared = one.keys() & another.keys()
    alike = all(one[key] == another[key] for key in shared)
    return "" if alike and not have_other_operations(mine, theirs) else "unknown"


def have_other_operations(mine: nn.Module, theirs: nn.Module) -> bool:
    """Tell whether modules of torch without parameters at one place are of two kinds.

    Equal answers on some inputs do not make an identity of a bound that is far out.
    """
    parts = dict(mine.named_modules())
    for path, part in theirs.named_modules():
        other = parts.get(path)
        if other is None or type(other) is type(part):
            continue
        both = other, part
        bare = not any([*one.parameters()] or [*one.children()] for one in both)
        of_torch = all(type(one).__module__.startswith("torch.nn.") for one in both)
        if bare and of_torch and not all(isinstance(one, WITHOUT_EFFECT) for one in both):
            return True
    return False


def settings_of(module: nn.Module) -> dict[tuple[object, ...], object]:
    """Return the configuration of a module, and the numbers and switches of its parts.

    By place, class and name; those that change nothing in evaluation are left out.
    """
    config: Any = getattr(module, "config", None)
    said = config.to_dict() if hasattr(config, "to_dict") else {}
    found: dict[tuple[object, ...], object] = {
        (key,): one for key, one in said.items() if key not in BESIDE_THE_FUNCTION
    }
    for path, part in module.named_modules():
        for name, one in vars(part).items():
            numbers = one if isinstance(one, tuple | list) else (one,)
            plain = all(isinstance(number, bool | int | float) for number in numbers)
            if name[0] != "_" and name not in OF_TRAINING and plain:
                found[path, type(part), name] = one
    return found


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


def answer_of(module: nn.Module, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor | None:
    """Run a module with the weights given and return its output; None where it does not run."""
    try:
        with in_evaluation(module):
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
