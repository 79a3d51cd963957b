"""`bl.load` and `bl.from_module`: a file, a folder or a module as a model of quadratic maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bilens.base.checks import check_choice, check_type
from bilens.base.errors import CheckpointError, NoLayersError, UsageError
from bilens.base.files import check_path, why_unreadable
from bilens.base.model_card import hub_origin
from bilens.io.converted_folder import CONVERTED
from bilens.io.file_kinds import find_model, folder_around, mark_files
from bilens.io.formats.circuit_tracer import CIRCUIT_TRACER
from bilens.io.formats.ends import ends_of
from bilens.io.formats.gguf import GGUF
from bilens.io.formats.huggingface import HUGGINGFACE, said_input
from bilens.io.formats.keras import KERAS, SAVED_MODEL, WEIGHTS_ALONE
from bilens.io.formats.module_class import read_in_class
from bilens.io.formats.named_roles import read_named_roles
from bilens.io.formats.official import IMAGE_FOLDER, LANGUAGE_FOLDER, PICKLE, SAFETENSORS
from bilens.io.formats.onnx import ONNX
from bilens.io.formats.peft import PEFT
from bilens.io.formats.sae_layouts import OFFICIAL_SAE, SPARSIFY
from bilens.io.formats.saelens import SAELENS
from bilens.io.formats.sklearn_file import SKLEARN
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import Activations, Format, LoadedModel, ReadOptions
from bilens.io.model_folder import MODEL_FOLDER
from bilens.io.remote import located
from bilens.io.runner import entries_of, open_module
from bilens.io.stored_mlp import module_tensors
from bilens.io.tensors import sha256_of_module
from bilens.nn.layer_view import LayerView
from bilens.nn.mlp_search.compare_run import check_layer_now, compare_with_module
from bilens.nn.mlp_search.find_mlps import FoundMLPs, find_mlps
from bilens.nn.mlp_search.hook_points import HookPoints, hook_points
from bilens.nn.real_run import ONE_AT_A_TIME, hooked_parts

__all__ = ["FORMATS", "PEFT", "LayerView", "LoadedModel", "ReadOptions", "load", "load_layers"]

# The first that matches a path reads it.
FORMATS: tuple[Format, ...] = (
    PEFT,
    SAELENS,
    SPARSIFY,
    CIRCUIT_TRACER,
    OFFICIAL_SAE,
    CONVERTED,
    LANGUAGE_FOLDER,
    HUGGINGFACE,
    IMAGE_FOLDER,
    MODEL_FOLDER,
    SAFETENSORS,
    GGUF,
    ONNX,
    KERAS,
    SAVED_MODEL,
    SKLEARN,
    PICKLE,
)


def load(
    path: str | Path,
    *,
    residual: bool | None = None,
    allow_pickle: bool = False,
    roles: Mapping[str, str] | None = None,
    activation: Activations | None = None,
    transposed: bool | None = None,
    base: str | Path | None = None,
    trust_pickle: bool = False,
    output_names: Sequence[str] | None = None,
    module_class: str | None = None,
) -> LoadedModel:
    """Read a model: a folder of bilens or Hugging Face, or a file of one of many formats.

    A Llama comes as a whole where a transformer of ours can be one; of other models of Hugging Face
    (`docs/loading.md` lists them) the MLPs and experts come alone, as layers that are read from the
    files one at a time; `module` is then None. A sparse autoencoder or transcoder of ours or of
    another library comes as a `TopKSAE` or a `ThresholdSAE`, without layers.

    Of any other safetensors file, state dict or checkpoint of PyTorch the ordinary and gated MLPs
    can be read: `roles` says which tensor is what, for example {"up.0": "net.0.weight",
    "up_bias.0": "net.0.bias", "down.0": …}; without it they are guessed, and `model.load_report`
    shows the guess. Layers of which only the last has `down` are one behind the other. Objects in
    memory: `bl.from_module` and `bl.from_sklearn`.

    Args:
        path: a folder with `config.json` and `model.safetensors` (those of Hugging Face may be in
            shards), a file, the name of a model in the cache of the Hugging Face hub, or an address
            (s3://, gs://, hf://, https://, memory://), of which no more is fetched than is read.
        residual: for official checkpoints that do not say whether each block adds its input.
        allow_pickle: whether a file of PyTorch may be opened; no code in it is run.
        roles: role → tensor; the roles are up, down and gate, each with _bias, and .0, .1, … for
            several layers, or a * in the name of the tensor; `gate` has the activation. One matrix
            of two branches is gate_up or up_gate, by their order.
        activation: of its layers, "relu", "gelu", "leaky_relu:0.2" and so on, "identity" for none;
            "gelu,relu" or a list is one for each.
        transposed: whether its matrices are (in, out); None where shapes decide it.
        base: of an adapter of PEFT, the model that it is added to; None for the one it names.
        trust_pickle: whether a pickle of scikit-learn, or the program of a TorchScript archive,
            may be opened, which runs code in it.
        output_names: of its outputs in their order, such as classes, where the file names none.
        module_class: of a state dict, the class or function of an installed package that its
            module is built by, "torchvision.models.resnet18" or "package.Class(width=8)". The
            package is imported and its code is run.

    Raises:
        CheckpointError: If the path is missing, damaged, of a newer version or not supported.
        NonFiniteError: If a weight is NaN or infinite.
        UsageError: If `path` is not one, an option is none that it can be, `base` is given and
            `path` is no adapter, or `residual` is needed and not given or contradicts the folder.
        MemoryLimitError: If the weights would not fit.
    """
    refuse_objects(path)
    check_choice("residual", residual, (None, True, False))
    check_choice("transposed", transposed, (None, True, False))
    if roles is not None:
        check_type("roles", roles, Mapping, 'say which tensor is what, as {"up": "fc1.weight"}')
    base = None if base is None else located(check_path("base", base))
    said = ReadOptions(
        residual=residual,
        allow_pickle=allow_pickle,
        roles=roles,
        activation=activation,
        transposed=transposed,
        base=base,
        trust_pickle=trust_pickle,
        module_class=module_class,
    )
    path = path if isinstance(path, str) else check_path("path", path)
    return with_output_names(load_with(path, said), output_names)


def load_with(path: str | Path, options: ReadOptions) -> LoadedModel:
    """Read a model with everything that a caller says about it; see `load`."""
    given = located(path)
    path = find_model(given)
    folder = folder_around(given, path)
    if options.base is not None and not PEFT.matches(path):
        raise UsageError(
            f"{path}: is no adapter of PEFT, and base={options.base} is what one is added to: "
            "leave it out."
        )
    try:
        marks = mark_files(folder or path)
        model = read_in_format(path, options)
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error
    about = {**model.provenance, **hub_origin(str(path))}
    marks = {**marks, **model.marks}
    model = replace(model, marks=marks, provenance=about, asked=options.reading())
    model = replace(model, folder=str(folder or ""))
    return model.keep_as_read()


def read_in_format(path: Path, options: ReadOptions) -> LoadedModel:
    if options.module_class is not None:
        return read_in_class(path, options, from_module)
    by_name = options.name_roles or path.suffix in WEIGHTS_ALONE
    if by_name and not any(format.matches(path) for format in (PICKLE, PEFT)):
        return read_named_roles(path, options)
    for format in FORMATS:
        if format.matches(path):
            model = format.read(path, options)
            if model.module is None:
                return model
            return replace(model, module_sha256=sha256_of_module(model.module))
    raise NoLayersError(f"{path}: is no model that bilens reads: see docs/loading.md.")


def load_layers(path: str | Path, wanted: Callable[[str], bool]) -> LoadedModel:
    """Read some layers of a model by the headers of those files alone that hold them.

    No file is hashed, here or at an address: `weights_sha256` is empty, `headers` says of each file
    that was opened what is known of it, as long as it is the same, and `identity` is of them all.
    Formats that are read as a whole, and small, come as of `load`, with all their layers.
    """
    return load_with(path, ReadOptions(wanted=wanted))


def with_output_names(model: LoadedModel, names: Sequence[str] | None) -> LoadedModel:
    """Return a model with the names that a caller has for its outputs, which has none itself."""
    if names is None:
        return model
    kinds = [] if isinstance(names, str) else [*names]
    if not kinds or not all(isinstance(one, str) and one.strip() for one in kinds):
        raise UsageError(f"output_names={names!r}: expected a list of texts, a name an output.")
    found = tuple(one.strip() for one in kinds)
    again = [name for name, count in Counter(found).items() if count > 1]
    if again:
        raise UsageError(f"output_names: {again[0]!r} twice: give each output a name of its own.")
    if model.output_names is not None:
        own = ", ".join(model.output_names[:8])
        raise UsageError(f"output_names: {model.source} names its outputs itself ({own}): omit it.")
    if not model.network:
        why = "is not its layers one behind the other, and has no outputs to name"
        raise UsageError(f"output_names: {model.source} {why}: omit it.")
    width = model.network[-1].sizes.d_out
    if len(found) not in (width, max(width, 2)):  # one logit stands for two classes
        raise UsageError(
            f"output_names: {len(found)} names, and the model has {width} outputs: name each, in "
            "their order."
        )
    named = replace(model, output_names=found)
    return named.keep_as_read() if model.as_read else named


def refuse_objects(value: object) -> None:
    """Refuse a model that is in memory already, naming its reader."""
    reader = "from_module" if isinstance(value, nn.Module) else "from_sklearn"
    if isinstance(value, nn.Module) or hasattr(value, "get_params"):
        raise UsageError(
            f"path is a {type(value).__name__}; expected a text or a Path: an object in memory is "
            f"read by bl.{reader}."
        )


# ---- models in memory


def from_module(
    module: nn.Module, example: object = None, output_names: Sequence[str] | None = None
) -> LoadedModel:
    """Read the MLPs inside any PyTorch module as layers; the module is not changed.

    Layers are found by tracing the module, or its parts, with torch.fx: linear maps with an
    activation between them, ordinary or gated, convolutions as maps of the patch at each place;
    biases, residual paths and batch normalisations become part of a layer, an activation is known
    by its values. Where that does not reach, an example is run and what enters each linear map is
    compared with what leaves the ones before. What is read is compared with the module itself as
    its owner calls it, hooks and all, in evaluation: on the example, or else at several scales.
    `model.load_report` says how far it is off, what was not read, and what could not be compared.

    A module on the meta device is read as a plan: names, sizes and what each layer is made of,
    which nothing was compared with; `bl.plan_eigendecomposition(view)` says what one will take.

    `bl.quadratic_fit` reads the model end to end where its layers one behind the other are the
    module, and `model.layers[name]` one by one.

    Cost: a trace of each part, a copy in float64 of one traced part at a time, and a run of the
        module or its parts on 64 rows; its flags and buffers are put back, whatever happens.

    Args:
        module: any module, or a wrapper of nnsight with one; its weights are read when they are
            asked for, so that layers of a module that is trained on are those of the moment. Where
            a parameter became another object since, its layer is refused: read the module again.
        example: an input, a tuple of arguments or a mapping of keyword arguments, which the module
            is run on without gradients; None for random rows.
        output_names: of its outputs in their order, such as classes.

    Raises:
        UsageError: If it is no module, cannot be copied, holds no MLP or computes something else
            than what is read of it, or the example does not run.
        NonFiniteError: If a weight of a layer is NaN or infinite.
        MemoryLimitError: If a part in float64 would not fit.
    """
    given: Any = module  # or a wrapper that is no module itself, as nnsight's
    module = given if isinstance(given, nn.Module) else getattr(given, "_module", given)
    with ONE_AT_A_TIME:  # a trace changes every module's calls while it lasts, in all threads
        found = compare_with_module(module, find_mlps(module, example), example)
    kind, config = type(module).__name__, getattr(module, "config", None)
    content = {} if config is None or not hasattr(config, "to_dict") else config.to_dict()
    points = hook_points(module, found.places)
    loaded = LoadedModel(
        None,
        f"the {kind}",
        sha256 := sha256_of_module(module),
        provenance={"format": f"PyTorch module {kind}"},
        views=views_of_now(module, found, points, example, content),
        stored=module_tensors(module),
        load_report=report_of_module(module, found),
        original=module,
        reread=partial(from_module, module, example),
        module_sha256=sha256,
        ends=ends_of(content),
        entries=entries_of(found.places, module),
        hook_points=points,
        runner=partial(open_module, module),
    )
    return with_output_names(loaded, output_names)


def views_of_now(
    module: nn.Module,
    found: FoundMLPs,
    points: Mapping[str, HookPoints],
    example: object,
    content: Mapping[str, Any],
) -> dict[str, LayerView]:
    """Return the layers of a module, each of which is compared with it when it is read."""
    return {
        name: replace(
            view,
            read=partial(points[name].read_layer, module, view.read),
            compare=partial(check_layer_now, module, found, name, example),
            about_input=view.about_input or said_input(content, view.tensors),
        )
        for name, view in found.layers.items()
    }


def report_of_module(module: nn.Module, found: FoundMLPs) -> LoadReport:
    return LoadReport(
        found.made_of,
        False,
        found.checks,
        found.left_out,
        found.head,
        found.unverified,
        hooked_parts(module),
    )
