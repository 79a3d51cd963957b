"""Adapters of the library PEFT, LoRA, rsLoRA and DoRA, added to the model they were made for."""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256, read_json, shortened
from bilens.io.byte_ranges import Block
from bilens.io.file_kinds import kind_of, mark_files
from bilens.io.formats.ends import T5, Ends, ends_of
from bilens.io.formats.families import refuse_config
from bilens.io.formats.huggingface import HUGGINGFACE, read_layers
from bilens.io.formats.named_roles import open_tensors, read_roles
from bilens.io.formats.pickled import open_pickled
from bilens.io.formats.safetensors_folder import header
from bilens.io.loaded_model import WEIGHTS_NAME as MODEL_NAME, Format, LoadedModel, ReadOptions
from bilens.io.model_config import is_number
from bilens.io.remote import RemotePath
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import ENDING, canonical, paired

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
NAMED = "base_model_name_or_path"
PART = re.compile(r"(.+)\.lora_(?:embedding_)?(A|B|magnitude_vector)(?:\.weight)?")
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # starts that alter W itself
OTHERS = (  # what is no W + scale · B A of single matrices
    "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora",
    "alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config", "lora_bias",
)  # fmt: skip
OF_BOTH = (
    "{}: adds to {}, which is the {} of the model below as well: peft adds it to the {} alone, and "
    "to both once it is merged. Merge it with merge_and_unload() of peft, save that, and load the "
    "folder."
)
PATTERN = re.compile(r"\^?(?:[\w-]|\\?\.|\\d\+|\[0-9\]\+)+\$?")  # of modules, none runs for ever


@dataclass(frozen=True, eq=False)
class Update:
    """The change of a tensor W by an adapter: W + scale · B A; for DoRA then of given lengths."""

    parts: Mapping[str, StoredTensor]  # A, B, magnitude_vector; `value` takes the place of W
    scale: float
    turned: bool = False  # W is (in, out), as of an embedding: B A is added transposed

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of B A, outputs first, or of the tensor that takes the place of W."""
        if "A" not in self.parts:
            return self.parts["value"].shape
        return (self.parts["B"].shape[0], *self.parts["A"].shape[1:])

    def change(self) -> Tensor:
        """Return scale · B A."""
        a, b = (self.parts[role].read_tensor().double().flatten(1) for role in ("A", "B"))
        return self.scale * (b @ a)

    def apply(self, base: StoredTensor, block: Block = ()) -> Tensor:
        """Return a tensor with the update applied, in float64."""
        found = self.parts.get("value", base).read_tensor().double()
        if "A" in self.parts:
            found = found + (self.change().T if self.turned else self.change()).reshape(found.shape)
        if "magnitude_vector" in self.parts:
            others = [axis for axis in range(found.ndim) if axis != self.turned]
            lengths = found.square().sum(others, keepdim=True).sqrt()
            wanted = self.parts["magnitude_vector"].read_tensor().double()
            found = wanted.reshape(lengths.shape) / lengths * found
        return found[block]


def read_adapter(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return a model with an adapter added: that of the caller, or the one that it names."""
    folder = folder.parent if folder.name == WEIGHTS_NAME else folder
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"{folder}: has {WEIGHTS_NAME} without {CONFIG_NAME}, which holds the adapter's rank "
            "and scale (r, lora_alpha): put that file beside it, as peft saved it."
        )
    config = read_json(folder / CONFIG_NAME)
    updates = updates_of(folder, config)
    base, about = base_of(folder, config, updates, options), in_words(config, updates)
    marks = {**mark_files(folder), **mark_files(base)}
    about = f"{about} is added to {base}"
    below = {} if has_no_config(base) else read_json(base / "config.json")
    square = config.get("fan_in_fan_out") is True or below.get("model_type") == "gpt2"
    change = partial(added, folder, updates, square)
    if has_no_config(base) or options.name_roles:
        file = open_pickled(base, options.allow_pickle) if is_torch(base) else open_tensors(base)
        file = replace(file, store=change(file.store), kind="adapted tensors", left_out=())
        found = read_roles(folder, file, options)
        found = replace(found, provenance={**found.provenance, "read": about})
    else:
        refuse_config(base, below)
        ends = ends_of(below)
        touched = {
            ENDING.sub("", canonical(name)): "A" in one.parts for name, one in updates.items()
        }
        both = config.get("ensure_weight_tying")  # else PEFT changes one of the two alone
        if ends is not None and ends.tied and touched.get(ends.head):
            raise CheckpointError(OF_BOTH.format(folder, ends.head, "embedding", "head"))
        if ends is not None and ends.tied and {*touched} & {ends.embedding, ends.head} and not both:
            ends = replace(ends, tied=False)
            change = partial(change, untied=ends)
        found = replace(read_layers(base, about, change), ends=ends)
    files = folder / WEIGHTS_NAME, folder / CONFIG_NAME
    sources = {"base_sha256": found.weights_sha256, "adapter_sha256": file_sha256(files[0])}
    # one adapter on two bases, or with two scales, is two models
    scales = {name: one.scale for name, one in updates.items()}
    parts = [sources["adapter_sha256"], found.identity, scales, square]
    return replace(
        found,
        source=str(folder),
        read_sha256=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        provenance={**found.provenance, **sources},
        files=files,
        marks=marks,
        below=str(base),
    )


PEFT = Format(
    "PEFT adapter",
    lambda path: path.name == WEIGHTS_NAME or (path / CONFIG_NAME).is_file(),
    read_adapter,
)


def is_torch(path: Path) -> bool:
    return path.is_file() and kind_of(path) == "torch"


def has_no_config(base: Path) -> bool:
    """Tell whether a model is a file of tensors, of which names say what they are."""
    return base.suffix == ".safetensors" or is_torch(base)


def in_words(config: Mapping[str, Any], updates: Mapping[str, Update]) -> str:
    kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    ranks = sorted({one.parts["A"].shape[0] for one in updates.values() if "A" in one.parts})
    return f"{kind} of rank {', '.join(map(str, ranks))} on {len(updates)} tensors"


def base_of(
    folder: Path, config: Mapping[str, Any], updates: Mapping[str, Update], options: ReadOptions
) -> Path:
    """Return the model that an adapter is added to: that of the caller, or the one it names."""
    named, there = config.get(NAMED) or "the model below it", named_base(folder)
    base = options.base or there
    if base is not None and there is not None and base.resolve() != there.resolve():
        raise CheckpointError(
            f"{folder}: was made for {there}, and {base} is another folder: name {there} as the "
            f"baseline, or, where both are one model, correct base_model_name_or_path in "
            f"{CONFIG_NAME}."
        )
    if base is not None and (has_no_config(base) or HUGGINGFACE.matches(base)):
        return base
    pairs = (one for one in updates.values() if "A" in one.parts)
    sizes = [float(one.change().norm()) for one in pairs] or [0.0]
    raise CheckpointError(
        f"{folder}: is an adapter ({in_words(config, updates)}: {shortened([*updates])}; ‖ΔW‖ "
        f"{min(sizes):.2g} to {max(sizes):.2g}), and {str(base or named)!r} is neither a folder of "
        "Hugging Face nor a file of tensors here: name its model, "
        f"`bilens audit {folder} --baseline FOLDER` or bl.load(…, base=folder)."
    )


def named_base(folder: Path) -> Path | None:
    """Return the model that the adapter in a folder names, where it lies here; None for none.

    It is looked for from the adapter's folder, from those above it that not every account may write
    into, the same from wherever this runs; and last, as peft does, from where it runs.
    """
    config = read_json(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}
    if not config.get(NAMED):
        return None
    named, home = str(config[NAMED]), folder.resolve()
    above = () if isinstance(home, RemotePath) else home.parents
    with suppress(ValueError, OSError):  # what no path can be: too long, a null byte
        closed = (one for one in above if not one.stat().st_mode & stat.S_IWOTH)
        places = (one / named for one in (home, *closed, Path.cwd()))
        return next(filter(HUGGINGFACE.matches, places), None)
    return None


def updates_of(folder: Path, config: Mapping[str, Any]) -> dict[str, Update]:
    """Return the updates of an adapter by tensor; refuse an adapter that cannot be added."""
    start, said = str(config.get("init_lora_weights")).lower(), config.get("alpha_pattern") or {}
    patterns = said if isinstance(said, dict) else {str(said): None}
    alphas = {"": config.get("lora_alpha"), **patterns}
    odd = [key for key in OTHERS if config.get(key)]
    odd += [start] if start.startswith(CHANGES_BASE) else []
    odd += [str(config.get("peft_type"))] if config.get("peft_type") != "LORA" else []
    odd += [f"α of {p or 'all'}" for p, alpha in alphas.items() if not is_number(alpha)]
    odd += [pattern for pattern in patterns if not PATTERN.fullmatch(pattern)]
    odd += [MODEL_NAME] if (folder / MODEL_NAME).exists() else []
    if odd:
        raise CheckpointError(
            f"{folder}: the adapter has {shortened(odd)}, which is not read (LoRA, rsLoRA and DoRA "
            "are): merge it with merge_and_unload() of peft, save that, and load the folder."
        )
    found, updates = dict[str, dict[str, StoredTensor]](), dict[str, Update]()
    for name, stored in header(folder / WEIGHTS_NAME, lambda _: True).items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        part = PART.fullmatch(plain)
        target, role = (f"{part[1]}.weight", part[2]) if part else (plain, "value")
        found.setdefault(target, {})[role] = stored
    for target, parts in found.items():
        shapes = [parts[role].shape for role in ("A", "B") if role in parts]
        whole = len(shapes) == 2 if shapes else [*parts] == ["value"]
        if not whole or "lora_" in target or any(len(one) < 2 or 0 in one for one in shapes):
            raise CheckpointError(f"{folder}: {target} has no pair of matrices: save it again.")
        module, scale = ENDING.sub("", target), 1.0
        if shapes:
            fits = (p for p in patterns if re.fullmatch(rf"(?:.*\.)?(?:{p})", module))
            power = 0.5 if config.get("use_rslora") else 1.0
            scale = alphas[next(fits, "")] / shapes[0][0] ** power
        updates[target] = Update(parts, scale)
    return updates


def added(
    folder: Path,
    updates: Mapping[str, Update],
    square: bool,
    store: Store,
    untied: Ends | None = None,
) -> Store:
    """Return the tensors of a model with what an adapter does to them, in float64 there.

    `square` says that square matrices are (in, out), as of GPT-2, of which adapters may not say it.
    `untied` are the ends of a model whose head was its embedding: it stays what that was.
    """
    partners, merged = paired(updates, store), dict(store)
    for name, update in updates.items():
        base = store.get(partners.get(name, ""))
        if base is None and "A" not in update.parts:
            merged[name] = update.parts["value"]  # a head of its own
            continue
        if base is None or base.shape not in (update.shape, update.shape[::-1]):
            raise CheckpointError(
                f"{folder}: changes {name!r}, which the model below does not have in this shape: "
                "pass the model that the adapter was made for."
            )
        if untied is not None and ENDING.sub("", canonical(base.name)) == untied.embedding:
            if "A" in update.parts or untied.embedding == T5.embedding:
                raise CheckpointError(OF_BOTH.format(folder, base.name, "head", "embedding"))
            head = f"{untied.head}.weight"
            merged.setdefault(head, replace(base, name=head))
        turned = update.shape != base.shape or (square and base.shape == base.shape[::-1])
        fetch = partial(replace(update, turned=turned).apply, base)
        sums = replace(base, dtype=torch.float64, fetch=fetch, added_to=base.dtype)
        merged[base.name] = replace(sums, rescaled="magnitude_vector" in update.parts)
    return merged
