"""State dicts whose module is built: its class is imported from a package, and its code is run.

That is done for a class that somebody names, and for no other.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.formats.known_classes import COUNTER, config_beside
from bilens.io.formats.named_roles import open_tensors
from bilens.io.loaded_model import CONFIG_NAME, LoadedModel, ReadOptions
from bilens.io.tensors import sha256_of_module


def read_in_class(
    path: Path, options: ReadOptions, from_module: Callable[[nn.Module, object], LoadedModel]
) -> LoadedModel:
    """Return the layers of a module of the class that the caller names, filled with a file."""
    text = str(options.module_class)
    if options.name_roles or options.residual is not None:
        raise UsageError(
            f"{path}: module_class={text!r} says what its tensors are: leave roles, activation, "
            "transposed and residual out."
        )
    file = open_tensors(path, options.allow_pickle)
    with torch.random.fork_rng(devices=[]):
        module, is_filled = build_module(text, path)
    if not is_filled:
        tensors = {name: one.read_tensor() for name, one in file.store.items()}
        fill(module, tensors, f"{path}: {text}")
    module.eval()
    try:
        found = with_tokens(module, from_module) or from_module(module, None)
    except UsageError as error:
        raise type(error)(f"{path}: {error.sentence}", error.retries) from error
    return replace(
        found,
        source=str(path),
        read_sha256=file.sha256,
        provenance={"format": f"{file.kind} in {text}"},
        reread=None,
        module_sha256=sha256_of_module(module),
    )


def with_tokens(
    module: nn.Module, from_module: Callable[[nn.Module, object], LoadedModel]
) -> LoadedModel | None:
    """Read a module as it runs on the example that its library has of its inputs, if it does."""
    with suppress(Exception):  # it may be one for another kind of model
        if isinstance(example := getattr(module, "dummy_inputs", None), dict):
            return from_module(module, example)
    return None


def build_module(text: str, path: Path) -> tuple[nn.Module, bool]:
    """Return a module of a class, and whether its library has filled it already.

    Its arguments are those that are said, or those that a configuration has. transformers, which
    knows older names of tensors, fills a model itself, and has to leave nothing over.
    """
    name, given, options = parse_class(text)
    home, _, last = name.rpartition(".")
    try:
        kind = getattr(import_module(home), last)
    except Exception as error:  # of somebody else's package, which may do anything
        raise UsageError(
            f"module_class={text!r}: cannot be imported ({type(error).__name__}: {error}): name a "
            "class of an installed package, as in torchvision.models.resnet18."
        ) from error
    folder, is_filled = (path if path.is_dir() else path.parent), hasattr(kind, "from_pretrained")
    content, left = config_beside(path), dict[str, Any]()
    try:
        if is_filled:
            how = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
            module, left = kind.from_pretrained(folder, **how)
        else:
            known = {*inspect.signature(kind).parameters} - {*options} if not given else set()
            said = {key: content[key] for key in content if key in known}
            module = kind(*given, **said, **options)
    except Exception as error:
        raise UsageError(
            f"module_class={text!r}: cannot be built ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): say its arguments, as in "
            f"{name}(width=8), or put its {CONFIG_NAME} beside the file."
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"module_class={text!r}: is no torch.nn.Module: name the class of one.")
    check_left(f"{path}: {text}", {kind: [*map(str, names)] for kind, names in left.items()})
    return module, is_filled


def parse_class(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the dotted name of a class and its arguments, which are plain values."""
    try:
        tree: Any = ast.parse(text.strip(), mode="eval").body
        given = [ast.literal_eval(one) for one in getattr(tree, "args", [])]
        options = {one.arg: ast.literal_eval(one.value) for one in getattr(tree, "keywords", [])}
        name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
    except (SyntaxError, ValueError):
        name, given, options = "", [], {}
    if not all(part.isidentifier() for part in name.split(".")) or "." not in name:
        raise UsageError(
            f"module_class={text!r}: expected a class or a function of a package, with plain "
            "values if it needs any: package.Class or package.Class(width=8)."
        )
    return name, given, options


def fill(module: nn.Module, tensors: Mapping[str, Tensor], whose: str) -> None:
    """Load tensors into a module, each in the place of its name and no other.

    What is a tensor that is loaded under another name may be missing, and what a module has itself
    and does not save may be there, with the same numbers.
    """
    own = {name: one for name, one in module.named_buffers() if name not in module.state_dict()}
    kept = {
        name: one
        for name, one in tensors.items()
        if name not in own or not torch.equal(own[name].to(one), one)
    }
    places = module.state_dict(keep_vars=True)
    filled = {id(places[name]) for name in kept if name in places}
    shared = {
        name: places[name].detach()
        for name in places
        if name not in kept and id(places[name]) in filled
    }
    sizes = {name: tuple(one.shape) for name, one in places.items()}
    wrong = [
        f"{name} {tuple(one.shape)} for {sizes[name]}"
        for name, one in kept.items()
        if name in sizes and tuple(one.shape) != sizes[name]
    ]
    missing = [name for name in places if name not in {*kept, *shared} and COUNTER not in name]
    more = [name for name in kept if name not in places]
    check_left(whose, {"other shapes": wrong, "missing_keys": missing, "unexpected_keys": more})
    dtypes = {one.dtype for one in kept.values() if one.is_floating_point()}
    if len(dtypes) == 1:
        module.to(dtypes.pop())
    module.load_state_dict({**kept, **shared}, strict=False)


def check_left(whose: str, left: Mapping[str, list[str]]) -> None:
    """Refuse a module that is not filled by a file, all of it and nothing else."""
    for said, names in left.items():
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{whose} is not the module of these tensors ({said.replace('_', ' ')}: "
                f"{', '.join(names[:3])}{rest}): name the class that they were saved from, with "
                "its arguments."
            )
