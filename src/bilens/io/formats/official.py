"""Models of the paper's official repository: images, language, surrogates and toy models.

Image checkpoints hold the left half of each block first. Surrogates are
B[c, i, j] = Σ_r down[c, r] · ½ (left[i, r] right[j, r] + left[j, r] right[i, r]), toy models
head(left x ∘ right x); both are one bilinear MLP. The attention of transformers is scaled by
1/√(2 n_layer) where it joins the residual stream; here the scale is part of the weights of
`attention.out`. Their norms have no gain and add 1e-8.
"""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.base.files import file_sha256, read_json
from bilens.io.file_kinds import PICKLES, kind_of
from bilens.io.formats.llama import build_transformer
from bilens.io.formats.named_roles import read_named_roles, read_roles
from bilens.io.formats.pickled import NOT_OPENED, SCRIPT, open_pickled
from bilens.io.formats.safetensors_folder import WeightsFile, header
from bilens.io.formats.torchscript import read_torchscript
from bilens.io.loaded_model import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Format,
    LoadedModel,
    ReadOptions,
    foreign_keys,
)
from bilens.io.tensors import (
    check_all_finite,
    check_kinds,
    check_layer_count,
    check_matrices,
    check_names,
    check_shapes,
    read_safetensors,
)
from bilens.nn import BilinearClassifier, BilinearMLP
from bilens.nn.block import TransformerConfig
from bilens.nn.mlp import Gate
from bilens.polynomial.rotary import rotary_frequencies

Shapes = dict[str, tuple[int, ...]]
IMAGE = {"embed.weight", "head.weight", "blocks.0.weight"}
BLOCK = re.compile(r"blocks\.(\d{1,5})\.(weight|bias)")  # up to MAX_TENSORS blocks
SURROGATE = {"left", "right", "down"}
TOY = {"left.weight", "right.weight", "head.weight"}
TOY_BIASES = {"left.bias", "right.bias", "head.bias"}


# ---- files and folders


def read_file(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the model in a safetensors file: one of the paper's, or MLPs by guessed roles."""
    if not is_of_paper(header(path, lambda _: False)):
        return read_named_roles(path, options)  # says what it would take for what, or why not
    tensors, _ = read_safetensors(path)
    return model_of(path, path, tensors, options, options.residual)


def read_pickled(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the model in a file of PyTorch: one of the paper's, or MLPs as in any other file."""
    found = open_pickled(path, options.allow_pickle or options.trust_pickle)
    if found.kind == SCRIPT and not options.name_roles:
        return read_script(path, found, options)
    if options.name_roles or not is_of_paper(found.store):
        return read_roles(path, found, options)
    if not options.allow_pickle:
        unsaid = {*found.store} >= IMAGE and options.residual is None and found.residual is None
        ways = [{"residual": True}, {"residual": False}] if unsaid else [{}]
        retries = [Retry(str(path), {"allow_pickle": True, **way}) for way in ways]
        raise NoLayersError(f"{path}: {NOT_OPENED['allow_pickle']}.", retries)
    tensors = {name: tensor.read_tensor() for name, tensor in found.store.items()}
    check_kinds(path, tensors)
    residual = options.agreed_residual(path, found.residual)
    return model_of(path, path, tensors, options, residual)


def read_script(path: Path, found: WeightsFile, options: ReadOptions) -> LoadedModel:
    """Return the MLPs in the graph of a TorchScript archive, whose program the caller trusts."""
    options.refuse_residual(path, "is a TorchScript file, which says what is added where")
    graph = (
        f"{path}: is a TorchScript archive, whose layers are read by its graph if you trust it: "
        "torch then loads its program, which may run what is in it."
    )
    said = {**options.given_options(), "trust_pickle": True}
    retries = [] if options.trust_pickle else [Retry(str(path), said)]
    try:
        if options.trust_pickle:
            return read_torchscript(path, found)
    except CheckpointError as error:
        graph = error.sentence
    try:
        return read_roles(path, found, options)
    except (CheckpointError, UsageError) as names:
        sentence = f"{graph} By its names it {names.sentence.removeprefix(f'{path}: ')}"
        raise type(names)(sentence, [*retries, *names.retries]) from names


def is_of_paper(names: Collection[str]) -> bool:
    """Tell whether these are the tensors of a model of the paper's, or of a part of one."""
    small = {*names} == SURROGATE or TOY <= {*names} <= TOY | TOY_BIASES
    return small or "blocks.0.weight" in names


def read_image_folder(folder: Path, options: ReadOptions) -> LoadedModel:
    content, weights = read_json(folder / CONFIG_NAME), folder / WEIGHTS_NAME
    tensors, _ = read_safetensors(weights)
    said = content.get("residual")
    said = said if isinstance(said, bool) else None
    residual = options.agreed_residual(folder / CONFIG_NAME, said)
    return model_of(folder, weights, tensors, options, residual)


SAFETENSORS = Format("safetensors", lambda path: path.suffix == ".safetensors", read_file)
PICKLE = Format(
    "PyTorch",
    lambda path: path.is_file() and (path.suffix in PICKLES or kind_of(path) == "torch"),
    read_pickled,
)
IMAGE_FOLDER = Format(
    "the paper's image model",
    lambda path: foreign_keys(path) >= {"d_hidden", "n_layer"},
    read_image_folder,
)


def model_of(
    source: Path,
    file: Path,
    tensors: Mapping[str, Tensor],
    options: ReadOptions,
    residual: bool | None,
) -> LoadedModel:
    """Return the model that tensors of these names are."""
    names = {*tensors}
    if names == SURROGATE or TOY <= names <= TOY | TOY_BIASES:
        options.refuse_residual(source, "has no blocks to be residual")
        small = build_official_small(file, tensors)
        about = {"format": "surrogate or toy model of the paper's official repository"}
        return LoadedModel(small, str(source), file_sha256(file), provenance=about)
    if names >= IMAGE:
        module = build_official_image(file, tensors, residual)
        about = {"format": "image checkpoint of the paper's official repository"}
        return LoadedModel(module, str(source), file_sha256(file), provenance=about)
    raise CheckpointError(
        f"{file}: its tensors ({', '.join(sorted(names)[:4]) or 'none'}) are not those of a "
        "model that bilens knows; expected embed.weight, blocks.0.weight, head.weight, or a "
        f"model folder with {CONFIG_NAME}."
    )


# ---- image models


def build_official_image(
    path: Path, tensors: Mapping[str, Tensor], residual: bool | None
) -> BilinearClassifier:
    """Return the classifier in an official checkpoint: the left half of each block comes first."""
    matches = [match for name in tensors if (match := BLOCK.fullmatch(name))]
    n_layers = 1 + max((int(match[1]) for match in matches), default=-1)
    bias = any(match[2] == "bias" for match in matches)
    kinds = ("weight", "bias") if bias else ("weight",)
    blocks = {f"blocks.{index}.{kind}" for index in range(n_layers) for kind in kinds}
    check_names(path, tensors, {"embed.weight", "head.weight"} | blocks)
    if residual is None:
        raise UsageError(
            f"{path}: does not say whether the model has a residual path, and its shapes cannot "
            "reveal it: say it as it was trained.",
            [Retry(str(path), {"residual": way}) for way in (True, False)],
        )
    state = {name: tensors[name] for name in ("embed.weight", "head.weight")}
    check_matrices(path, state)
    (d_hidden, d_input), d_output = state["embed.weight"].shape, len(state["head.weight"])
    shapes: Shapes = {"embed.weight": (d_hidden, d_input), "head.weight": (d_output, d_hidden)}
    of_block: Shapes = {"weight": (2 * d_hidden, d_hidden), "bias": (2 * d_hidden,)}
    shapes |= {name: of_block[name.rpartition(".")[2]] for name in blocks}
    check_shapes(path, tensors, shapes, f"embed.weight {(d_hidden, d_input)} asks for")
    for index in range(n_layers):
        for kind in kinds:
            left, right = tensors[f"blocks.{index}.{kind}"].chunk(2, dim=0)
            state |= {f"layers.{index}.left.{kind}": left, f"layers.{index}.right.{kind}": right}
    model = BilinearClassifier(
        d_input, d_hidden, d_output, n_layers=n_layers, bias=bias, residual=residual
    ).to(state["embed.weight"].dtype)
    model.load_state_dict(state, strict=True)
    return model.eval()


# ---- surrogates and toy models


def build_official_small(path: Path, tensors: Mapping[str, Tensor]) -> BilinearMLP:
    """Return a surrogate or a toy model as a bilinear MLP."""
    check_all_finite(path, tensors)
    names = SURROGATE if {*tensors} == SURROGATE else TOY
    check_matrices(path, {name: tensors[name] for name in sorted(names)})
    if names == SURROGATE:
        state = {f"{name}.weight": tensors[name] for name in ("left", "right", "down")}
        state |= {name: state[name].T for name in ("left.weight", "right.weight")}
    else:
        state = {name.replace("head", "down"): tensor for name, tensor in tensors.items()}
    (d_hidden, d_in), d_out = state["left.weight"].shape, len(state["down.weight"])
    shapes = {"left": (d_hidden, d_in), "right": (d_hidden, d_in), "down": (d_out, d_hidden)}
    bias = any(name.endswith(".bias") for name in state)
    if bias:
        zeros = {f"{part}.bias": state["left.weight"].new_zeros(shapes[part][0]) for part in shapes}
        state = zeros | state
    expected: Shapes = {f"{part}.weight": shape for part, shape in shapes.items()}
    expected |= {f"{part}.bias": shape[:1] for part, shape in shapes.items()}
    check_shapes(path, state, expected, "as (out, in) the other tensors ask for")
    with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten
        model = BilinearMLP(d_in, d_hidden, d_out, bias=bias)
    model = model.to(state["left.weight"].dtype)
    model.load_state_dict(state, strict=True)
    return model.eval()


# ---- transformers: `config.json` beside safetensors

KEYS = {"n_head", "n_layer", "n_ctx", "d_model", "d_hidden"}
FREQUENCIES = re.compile(r"transformer\.h\.\d+\.attn\.rotary\.inv_freq", re.ASCII)
FINE_TUNED = {
    r"\.gate\.c$": "gate that was annealed, c·x·sigmoid((1 − alpha)·x). alpha is not stored, and "
    "only at alpha = 1 is the model bilinear: train it to the end, multiply c/2 into the left "
    "branch and save it without gate.",
    r"(^|\.)(n1|n2|n_f|gate)\.(.*\.)?linear\.weight$": "norm or gate that is mixed with a linear "
    "map. How much of each is not stored: save the model with the linear map alone, multiplied "
    "into the weights behind it.",
}
ROTARY_BASE, NORM_EPSILON = 10000.0, 1e-8
EMBED, UNEMBED = "transformer.wte.weight", "lm_head.weight"


def read_language_folder(folder: Path, options: ReadOptions) -> LoadedModel:
    options.refuse_residual(folder, "is a language model, which always has residual paths")
    path, file = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    tensors, _ = read_safetensors(file)
    config = parse_official_config(path, read_json(path), tensors)
    check_layer_count(folder, config.n_layer, tensors)
    for name in tensors:  # a gate or norm that was changed in steps: the last one is not stored
        for pattern, why in FINE_TUNED.items():
            if re.search(pattern, name):
                raise CheckpointError(f"{folder}: tensor {name!r} belongs to a {why}")
    frequencies = {name: t for name, t in tensors.items() if FREQUENCIES.fullmatch(name)}
    weights = {name: t for name, t in tensors.items() if name not in frequencies}
    shapes = official_shapes(config)
    check_names(folder, weights, shapes)
    check_shapes(folder, weights, shapes)
    check_frequencies(folder, frequencies, config.d_head)
    wide = torch.promote_types(weights[EMBED].dtype, torch.float32)  # for the scaled weights
    weights = {name: tensor.to(wide) for name, tensor in weights.items()}
    module = build_transformer(config, converted(weights, config))
    about = {"format": "transformer of the paper's official repository"}
    return LoadedModel(module, str(folder), file_sha256(file), provenance=about)


LANGUAGE_FOLDER = Format(
    "the paper's transformer", lambda path: foreign_keys(path) >= KEYS, read_language_folder
)


def parse_official_config(
    path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> TransformerConfig:
    """Read an official `config.json`; the tokenizer decides the number of tokens."""
    gate, bias = content.get("gate"), content.get("bias", False)
    reasons = {
        "is not bilinear (bilinear=false): its MLPs have one branch": (
            content.get("bilinear", True) is not True
        ),
        f"has normalization={content.get('normalization')!r}; expected true, an RMSNorm "
        "everywhere": content.get("normalization", True) is not True,
        f"has the gate {gate!r}; expected null, {', '.join(get_args(Gate))}: a gate that was "
        "annealed is not stored in full": gate is not None and gate not in get_args(Gate),
        f"has bias={bias!r}; expected true or false": not isinstance(bias, bool),
        f"holds no tensor {EMBED!r} of two axes": (
            EMBED not in tensors or tensors[EMBED].ndim != 2
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise CheckpointError(f"{path}: the model {reason}.")
    try:
        return TransformerConfig(
            vocab_size=tensors[EMBED].shape[0],
            **{key: content[key] for key in KEYS},
            gate=gate,
            tied=False,
            bias=bias,
            rotary_base=ROTARY_BASE,
            norm_epsilon=NORM_EPSILON,
            mlp_type="gated",
        )
    except UsageError as error:
        raise CheckpointError(f"{path}: does not describe a transformer: {error}") from error


def official_shapes(config: TransformerConfig) -> Shapes:
    d, h, v = config.d_model, config.d_hidden, config.vocab_size
    shapes: Shapes = {EMBED: (v, d), UNEMBED: (v, d)}
    of_block: Shapes = {
        "attn.qkv.weight": (3 * d, d),
        "attn.o.weight": (d, d),
        "mlp.w.weight": (2 * h, d),
        "mlp.p.weight": (d, h),
    }
    if config.bias:
        of_block |= {"mlp.w.bias": (2 * h,), "mlp.p.bias": (d,)}
    for index in range(config.n_layer):
        shapes |= {f"transformer.h.{index}.{name}": shape for name, shape in of_block.items()}
    return shapes


def check_frequencies(folder: Path, tensors: Mapping[str, Tensor], d_head: int) -> None:
    """Refuse a file whose rotary frequencies are not those of the base 10000."""
    expected = rotary_frequencies(d_head, ROTARY_BASE)
    for name, tensor in tensors.items():
        close = tensor.shape == expected.shape and torch.allclose(
            tensor.float(), expected, rtol=1e-2 if tensor.dtype is torch.bfloat16 else 1e-3, atol=0
        )
        if not close:
            raise CheckpointError(
                f"{folder}: tensor {name!r} does not hold the frequencies of rotary positions with "
                f"base {ROTARY_BASE:g} and heads of width {d_head}: the model is another one than "
                "config.json says."
            )


def converted(weights: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Return the weights under our names; `w` holds the left half first, as the gate's."""
    state = {"embed.weight": weights[EMBED], "unembed.weight": weights[UNEMBED]}
    scale = 1 / math.sqrt(2 * config.n_layer)
    for index in range(config.n_layer):
        theirs, ours = f"transformer.h.{index}.", f"blocks.{index}."
        out = weights[f"{theirs}attn.o.weight"]
        state[f"{ours}attention.qkv.weight"] = weights[f"{theirs}attn.qkv.weight"]
        state[f"{ours}attention.out.weight"] = (scale * out.double()).to(out.dtype)
        for kind in ("weight", "bias") if config.bias else ("weight",):
            left, right = weights[f"{theirs}mlp.w.{kind}"].chunk(2, dim=0)
            state[f"{ours}mlp.left.{kind}"] = left
            state[f"{ours}mlp.right.{kind}"] = right
            state[f"{ours}mlp.down.{kind}"] = weights[f"{theirs}mlp.p.{kind}"]
    return state
