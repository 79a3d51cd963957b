"""A converted model as a folder: plain Hugging Face where that can hold it, ours where not."""

import copy
import json
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from os import fspath
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import check_path, file_sha256, read_json, write_error, write_file
from bilens.io.formats.ends import ends_of
from bilens.io.formats.families import FAMILIES
from bilens.io.host import Host, Site, host_of, open_host, transformers_library
from bilens.io.loaded_model import CONFIG_NAME, WEIGHTS_NAME, Format, LoadedModel, ReadOptions
from bilens.io.model_config import arguments_of
from bilens.io.model_folder import save
from bilens.io.stored_mlp import module_tensors
from bilens.nn import BilinearTransformer
from bilens.nn.agreement import Agreement, agrees, together
from bilens.nn.huggingface import BRANCHES
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp import BilinearMLP
from bilens.nn.module_layers import view_of

FORMAT = "bilens converted model 1"
OURS = "bilens"  # the type of a transformer of ours, beside those of Hugging Face


def save_converted(host: Host, folder: Path) -> str:
    """Write a model with its converted MLPs into a folder; return what loads it.

    Plain Hugging Face where all MLPs are bilinear without linear paths and the architecture has a
    place for their biases, or an ordinary transformer of ours; otherwise its configuration and all
    tensors, for `load_converted`.
    """
    module, blocks = host.module, {site.name: host.at(site) for site in host.sites}
    ours = {name: one for name, one in blocks.items() if isinstance(one, BilinearMLP)}
    bilinear = [one for one in ours.values() if one.gate is None and one.skip is None]
    try:
        if host.plain and len(bilinear) == len(blocks):
            plain_llama(host, len(bilinear[0].left.weight)).save_pretrained(folder)
            return "AutoModelForCausalLM"
        if isinstance(module, BilinearTransformer) and len(bilinear) == len(blocks):
            sizes = {"d_hidden": len(bilinear[0].left.weight), "mlp_type": "gated"}
            bare = BilinearTransformer(
                **asdict(module.config) | sizes | {"gate": None, "bias": True}
            )
            bare.load_state_dict(module.state_dict(), strict=True)
            save(bare, folder, overwrite=True)
            return "bl.load"
        save_model(module, str(folder / WEIGHTS_NAME))
    except (OSError, SafetensorError) as error:
        fault = error if isinstance(error, OSError) else OSError(str(error))
        raise write_error(folder, fault) from error
    is_ours = isinstance(module, BilinearTransformer)
    base = {**asdict(host.config), "model_type": OURS} if is_ours else host.config.to_dict()
    base |= {} if is_ours else {"architectures": [type(module).__name__]}
    sites = {name: arguments_of(one) for name, one in ours.items()}
    content = {"format": FORMAT, "base": base, "sites": sites}
    write_file(folder / CONFIG_NAME, json.dumps(content, indent=2, default=str).encode())
    return "bl.nn.load_converted"


def plain_llama(host: Host, width: int) -> Any:
    """Return a model of the same architecture with the activation "linear" and biases."""
    config = type(host.config)(**host.config.to_dict())
    family = FAMILIES[config.model_type]
    setattr(config, family.activation_key, "linear")
    setattr(config, str(family.bias_key), True)
    config.intermediate_size, config.dtype = width, torch.float32
    model, state = type(host.module)(config), host.module.state_dict()
    for path in (site.paths[0] for site in host.sites):
        for branch, theirs in BRANCHES.items():
            for kind in ("weight", "bias"):
                state[f"{path}.{theirs}.{kind}"] = state.pop(f"{path}.{branch}.{kind}")
    model.load_state_dict(state, strict=True)
    return model


def blank(base: dict[str, Any]) -> nn.Module:
    """Return a model of an architecture, with weights that nobody reads."""
    given = {name: value for name, value in base.items() if name not in ("model_type", "dtype")}
    if base["model_type"] == OURS:
        return BilinearTransformer(**given)
    transformers = transformers_library("Loading a converted model")
    config = transformers.AutoConfig.for_model(base["model_type"], **given)
    kind = getattr(transformers, base["architectures"][0])
    assert issubclass(kind, transformers.PreTrainedModel), "nothing else is a model"
    model: nn.Module = kind(config)
    return model.float()


def open_model(path: Path) -> Host:
    """Return the language model at a path, converted or not, in float32 on the CPU."""
    return read_host(path) if is_ours(path) else open_host(path)


def load_converted(path: str | Path) -> nn.Module:
    """Return a converted model from its folder, in evaluation mode on the CPU.

    Every folder of a transformer that `bilens convert --to bilinear` writes is read: a model of
    transformers of the teacher's architecture with MLPs of ours in their places, or one of ours.
    No code in the folder is run.

    Raises: CheckpointError if it is none or damaged; MissingExtraError without transformers.
    """
    return open_model(check_path("path", path)).module


def read_host(folder: Path) -> Host:
    content, weights = read_json(folder / CONFIG_NAME), folder / WEIGHTS_NAME
    try:
        host = host_of(blank(content["base"]), folder, file_sha256(weights))
        host.replace({name: BilinearMLP(**given) for name, given in content["sites"].items()})
        load_model(host.module, fspath(weights))
    except BilensError:
        raise
    except Exception as error:  # whatever damaged files lead to
        short = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: cannot be read ({short}): restore the folder.") from error
    host.module.requires_grad_(False)
    return replace(host, sites=tuple(replace(one, view=view_at(host, one)) for one in host.sites))


def view_at(host: Host, site: Site) -> LayerView:
    """Return the view of the MLP that runs at a site now."""
    block, view = host.at(site), site.view
    ours = isinstance(block, BilinearMLP)
    return view_of(block, site.name, view.reads, view.about_input) if ours else view


@torch.no_grad()
def compare_ends(host: Host) -> Agreement:
    """Compare the first and the last converted layer, as they are read, with what runs there."""
    ours = [site for site in host.sites if isinstance(host.at(site), BilinearMLP)]
    found = []
    for site in (ours[0], ours[-1]):
        run = copy.deepcopy(host.at(site)).double()
        read = cast(GLUWeights, site.view.weights(torch.float64))
        found.append(agrees(site.name, "its module", site.view.sizes.d_in, read, run))
    return together(found)


def read_converted(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return a transformer of ours whole, and of others the MLPs: exact, or as they were kept."""
    options.refuse_residual(folder, "is a language model, which always has residual paths")
    host = read_host(folder)
    said = {"format": FORMAT}
    if isinstance(host.module, BilinearTransformer):
        return LoadedModel(host.module, str(folder), host.sha256, provenance=said)
    return LoadedModel(
        None,
        str(folder),
        host.sha256,
        provenance={**said, "read": "the MLPs alone, as they were converted"},
        views={site.name: site.view for site in host.sites},
        stored=module_tensors(host.module),
        compare=partial(compare_ends, host),
        ends=ends_of(host.config.to_dict()),
    )


def is_ours(folder: Path) -> bool:
    with suppress(CheckpointError):
        return folder.is_dir() and read_json(folder / CONFIG_NAME).get("format") == FORMAT
    return False


CONVERTED = Format("converted model", is_ours, read_converted)
