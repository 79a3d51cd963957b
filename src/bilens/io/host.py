"""A model whose MLPs are read where they run, and can be replaced: module, sites, tokens.

Of Hugging Face, of a GGUF file through transformers, or one of ours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bilens.algebra.approximation.activation import CLAMPED
from bilens.base.errors import CheckpointError, MissingExtraError, UsageError
from bilens.base.files import file_sha256, read_json, write_file
from bilens.data.tokenizer import Tokenizer, check_tokenizer_fits, load_tokenizer
from bilens.io.file_kinds import find_model
from bilens.io.formats.families import FAMILIES, refuse_config, what_is_read
from bilens.io.formats.huggingface import activation_of, in_an_mlp, input_of, locations_of
from bilens.io.formats.safetensors_folder import folder_sha256
from bilens.io.loaded_model import CONFIG_NAME, foreign_keys
from bilens.io.model_folder import read_model_folder
from bilens.io.runner import LayerEntry
from bilens.io.stored_mlp import StoredMLP, module_tensors
from bilens.nn import BilinearTransformer
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp import Experts
from bilens.nn.mlp_search.patches import Patch
from bilens.nn.module_layers import layer_views

COMPANIONS = (  # files beside a model that a converted one takes along
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json", "corpus.json",
)  # fmt: skip
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "modernbert")
VISION = ("vit", "deit")
CAUSAL = ("CausalLM", "LMHeadModel")  # how the classes of language models end
Gives = Literal["next tokens", "logits", "numbers"]


@dataclass(frozen=True, eq=False)
class Site:
    """The place in a model where an MLP runs, which can be replaced there."""

    name: str  # as `bl.load` calls the layer
    # of modules that run one behind the other: the first is replaced, the others do nothing then
    paths: tuple[str, ...]
    view: LayerView  # the layer as it was loaded, whatever runs there now
    expert: int | None = None  # which one of the stack at `paths[0]`
    patch: Patch | None = None  # that it reads at each place of an image

    @property
    def entry(self) -> LayerEntry:
        """The value that the layer reads."""
        return LayerEntry(self.paths[0], self.patch, self.view.sizes.d_in)

    @property
    def block(self) -> int:
        """The block that holds it, counted from 0."""
        return next(int(part) for part in self.name.split(".") if part.isdecimal())

    def reached(self, arguments: tuple[Tensor, ...]) -> Tensor | slice:
        """Return which rows of the hooked module's first argument reach the MLP, as an index."""
        if self.expert is None:
            return slice(None)
        return (arguments[1] == self.expert).any(dim=1)


@dataclass(frozen=True, eq=False)
class Host:
    """A model, frozen and in evaluation mode, with its sites in order."""

    module: nn.Module
    stack: str  # path of the ModuleList of its blocks; empty where it is no language model
    sites: tuple[Site, ...]
    source: Path
    sha256: str = ""  # of the weights
    plain: bool = False  # whether its architecture can hold a bilinear MLP with biases
    notes: tuple[str, ...] = ()  # what should be said of how it was read
    unit: Literal["tokens", "rows"] = "tokens"  # of what it reads
    gives: Gives = "next tokens"  # logits of them or of something else, or numbers

    @property
    def blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.module.get_submodule(self.stack))

    @property
    def config(self) -> Any:
        """The configuration: of transformers, or ours."""
        return self.module.config

    @property
    def n_ctx(self) -> int:
        """The longest text that it reads, in tokens."""
        if isinstance(self.module, BilinearTransformer):
            return int(self.config.n_ctx)
        return int(self.config.max_position_embeddings) - 2 * ("roberta" in self.config.model_type)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return (batch, tokens) → (batch, tokens, vocab_size), or whatever the model gives."""
        if not self.stack or isinstance(self.module, BilinearTransformer):
            return cast(Tensor, self.module(tokens.clone()))  # it may change what it is given
        causal = {"use_cache": False} if self.gives == "next tokens" else {}
        found: Any = self.module(tokens, **causal)
        return cast(Tensor, found["logits"] if "logits" in found else found[0])

    @contextmanager
    def recomputed(self) -> Iterator[None]:
        """Forget what is inside the blocks until the gradient needs it: less memory, more time."""
        blocks = [*self.blocks]
        for block in blocks:
            again = partial(checkpoint, block.forward, use_reentrant=False)
            block.forward = again
        try:
            yield
        finally:
            for block in blocks:
                del block.forward

    def twin(self, share: bool = True) -> Host:
        """Return a host of modules of its own, and of the same weights or of copies of them."""
        memo: dict[int, Any] = {id(one): one for one in self.module.parameters()} if share else {}
        return replace(self, module=copy.deepcopy(self.module, memo))

    def at(self, site: Site) -> nn.Module:
        """Return the module that runs at a site; of an expert that is not of ours, the stack."""
        found = self.module.get_submodule(site.paths[0])
        if site.expert is not None and isinstance(found, Experts):
            found = found.experts[site.expert]
        return found

    def replace(self, blocks: Mapping[str, nn.Module]) -> None:
        """Put blocks of ours at sites; of a mixture all experts of a layer together."""
        stacks: dict[str, list[nn.Module]] = {}
        for site in (site for site in self.sites if site.name in blocks):
            first, *others = site.paths
            if site.expert is not None:
                stacks.setdefault(first, []).append(blocks[site.name])
            else:
                self.put({first: blocks[site.name], **{path: nn.Identity() for path in others}})
        self.put({path: Experts(experts) for path, experts in stacks.items()})

    def put(self, modules: Mapping[str, nn.Module]) -> None:
        for path, module in modules.items():
            self.module.set_submodule(path, module)


def host_of(module: nn.Module, source: Path, sha256: str = "") -> Host:
    """Return a model in memory with its sites, in evaluation mode, its weights frozen."""
    module.eval().requires_grad_(False)
    if isinstance(module, BilinearTransformer):
        ours = tuple(Site(name, (name,), view) for name, view in layer_views(module).items())
        return Host(module, "blocks", ours, source, sha256)
    config: Any = getattr(module, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in FAMILIES or FAMILIES[kind].is_t5:
        raise CheckpointError(
            f"{source}: is a {type(module).__name__} of the type {kind!r}; expected a causal model "
            f"whose MLPs are known. {what_is_read()}"
        )
    if FAMILIES[kind].activation == CLAMPED:
        raise CheckpointError(
            f"{source}: is of the type {kind!r}, whose experts are read and fitted, and not "
            "converted: their gate has limits on both branches."
        )
    content = config.to_dict()
    named, family = activation_of(source, content, FAMILIES[kind])
    store = {n: one for n, one in module_tensors(module).items() if in_an_mlp(family, n)}
    roots = (match[1] for match in (in_an_mlp(family, name) for name in store) if match)
    root = next(roots, "")
    if family.experts is not None:  # grouped products ask for widths that small models lack
        module.set_experts_implementation("eager")  # type: ignore[operator]
    sites = []
    for location, modules in locations_of(source, content, family, store)[0]:
        home, is_expert, number = location.name.partition(".experts.")
        path = f"{root}{home}" + (".experts" if is_expert else "")
        parts = next((parts for place, _, parts in modules if place == location.name), ("",))
        paths = tuple(f"{path}.{part}" if part else path for part in parts)
        stored = StoredMLP.at_location(store, location, named.phi, named.scale)
        view = stored.view(input_of(family, content))
        sites.append(Site(location.name, paths, view, int(number) if is_expert else None))
    layout = family.homes[0].layout
    separate = layout.gate not in (None, layout.up) and family.experts is None
    plain = family.bias_key is not None and separate
    above = takewhile(lambda part: not part.isdecimal(), sites[0].paths[0].split("."))
    found = Host(module, ".".join(above), tuple(sites), source, sha256, plain)
    if kind in VISION or (kind in ENCODERS and not type(module).__name__.endswith(CAUSAL)):
        headless = module is module.base_model
        found = replace(found, gives="numbers" if headless else "logits")
    return replace(found, unit="rows") if kind in VISION else found


def open_host(path: Path) -> Host:
    """Return the language model at a path, in float32 on the CPU."""
    found, notes = find_model(path), []
    packed = found.suffix == ".gguf"
    if packed or foreign_keys(found) & {"model_type", "architectures"}:
        content = {} if packed else read_json(found / CONFIG_NAME)
        refuse_config(found / CONFIG_NAME, content)
        if content.get("quantization_config"):
            raise CheckpointError(
                f"{found / CONFIG_NAME}: the model is quantised (quantization_config), and is "
                "converted and run in floating point alone: save it so."
            )
        own = content.get("model_type") in ENCODERS + VISION and content.get("architectures")
        auto = str(own[0] if isinstance(own, list) else own) if own else "AutoModelForCausalLM"
        kind = getattr(transformers_library(f"Reading {found}"), auto, None)
        if not hasattr(kind, "from_pretrained"):
            raise CheckpointError(
                f"{found / CONFIG_NAME}: the architecture {auto!r} is no class of transformers, "
                "and code of its own is never run: save the model by a class of transformers."
            )
        whole = {"dtype": torch.float32, "output_loading_info": True}
        module, said = from_transformers(auto, found, **whole)
        named = {name for name, _ in module.named_parameters()}  # one of tied ones
        if module is module.base_model:  # its hidden states are read, which no pooler touches
            named = {name for name in named if not name.startswith("pooler.")}
        if random := sorted(named.intersection(said["missing_keys"])):
            raise CheckpointError(
                f"{found}: has no {random[0]} ({len(random)} of the parameters of a "
                f"{type(module).__name__} are missing), which would run with random numbers: pass "
                "the folder of a whole model."
            )
        if packed and hasattr(module.config, "quantization_config"):
            del module.config.quantization_config  # of the file, and no more of the weights
        host = host_of(module, found, file_sha256(found) if packed else folder_sha256(found))
        notes += [f"{found.name}: its weights are dequantised to float32."] if packed else []
    else:
        loaded = read_model_folder(found) if found.is_dir() else None
        if loaded is None or not isinstance(loaded.module, BilinearTransformer):
            known = "a folder of Hugging Face, a .gguf file, or a run of `bilens train language`"
            held = "no" if loaded is None else f"a {type(loaded.module).__name__} and no ordinary"
            raise UsageError(f"{path} holds {held} language model; expected {known}.")
        host = host_of(loaded.module.float(), found, loaded.read_sha256)
    if getattr(host.config, "tie_word_embeddings", False) or getattr(host.config, "tied", False):
        notes.append("Embedding and unembedding are one tensor, and stay so.")
    return replace(host, notes=tuple(notes))


def from_transformers(auto: str, path: Path, **options: Any) -> Any:
    """Load an object of a class of transformers from a path, never by code that is there."""
    transformers = transformers_library(f"Reading {path}")
    if path.is_file():
        path, options["gguf_file"] = path.parent, path.name
    options |= {"local_files_only": True, "trust_remote_code": False}
    try:
        return getattr(transformers, auto).from_pretrained(path, **options)
    except ImportError as error:
        raise MissingExtraError("accelerate", "gguf", f"Loading {path}") from error
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        short = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: transformers cannot load it ({short}).") from error


def transformers_library(purpose: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "huggingface", purpose) from error
    return transformers


def tokenizer_at(host: Host) -> Tokenizer:
    """Return the tokenizer of a model; it knows no more tokens than the model."""
    if isinstance(host.module, BilinearTransformer) and not foreign_keys(host.source):
        found = load_tokenizer(host.source)
    else:
        found = Tokenizer(from_transformers("AutoTokenizer", host.source).backend_tokenizer)
    if found.vocab_size > host.config.vocab_size:
        check_tokenizer_fits(found, host.config.vocab_size)
    return found


def copy_companions(host: Host, folder: Path) -> None:
    """Put tokenizer, chat template and generation config of a model beside its converted one."""
    if host.source.is_file():
        from_transformers("AutoTokenizer", host.source).save_pretrained(folder)
    for path in (host.source / name for name in COMPANIONS):
        if path.is_file():
            write_file(folder / path.name, path.read_bytes())
    if hasattr(host.module, "generation_config"):
        host.module.generation_config.save_pretrained(folder)  # type: ignore[union-attr,operator]
