"""A model in the layout of another library, and compared with itself there where that can run."""

import copy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.api.subject import open_subject
from bilens.base.errors import OutputExistsError, UsageError
from bilens.base.files import write_file
from bilens.io.autoencoders import Layout, export_sae
from bilens.io.formats.onnx import outputs_of
from bilens.io.load import LoadedModel
from bilens.io.model_config import OPTIONAL
from bilens.io.model_folder import save
from bilens.io.onnx_export import onnx_bytes
from bilens.nn import BilinearTransformer
from bilens.nn.agreement import Agreement, agreement_with_outputs, inputs_at_scales
from bilens.nn.module_layers import Transformer
from bilens.nn.sparse_autoencoder import SparseAutoencoder

Target = Literal["bilens", "huggingface", "saelens", "sparsify", "official", "onnx"]
TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True)
class WrittenModel:
    """The files of a model in another layout.

    Attributes:
        files: their names.
        agreement: what was written, run by its own runtime, against the model; None where it was
            not run.
    """

    files: list[str]
    agreement: Agreement | None = None


def convert_model(
    model: LoadedModel, target: Target, folder: Path, *, overwrite: bool = False
) -> WrittenModel:
    """Write a loaded model in another layout: into a folder, or as one file where it is "onnx"."""
    if target not in get_args(Target):
        raise UsageError(f"layout {target!r} is not known: use {', '.join(get_args(Target))}.")
    if target == "onnx":
        return write_onnx(open_subject(model, "a conversion"), folder, overwrite)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder.")
    model = open_subject(model, "a conversion")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*")}
    module, provenance = model.module_for("a conversion"), model.provenance
    tokenizer = model.place / TOKENIZER_NAME
    has_tokenizer = isinstance(module, Transformer) and tokenizer.is_file()
    if target == "bilens":
        if has_tokenizer and (folder / TOKENIZER_NAME).exists() and not overwrite:
            raise OutputExistsError(
                f"{folder} already holds a {TOKENIZER_NAME}: choose another folder, or pass "
                "overwrite=True (--overwrite) to replace it."
            )
        save(
            module,
            folder,
            provenance=provenance,
            overwrite=overwrite,
            **{name: getattr(model, name) for name in OPTIONAL},
        )
        if has_tokenizer:
            write_file(folder / TOKENIZER_NAME, tokenizer.read_bytes())
    elif target == "huggingface":
        if not isinstance(module, BilinearTransformer):
            softmax = " of softmax attention" if isinstance(module, Transformer) else ""
            raise UsageError(refusal(model, f"a language model{softmax}", "huggingface"))
        module.save_huggingface(
            folder,
            tokenizer=tokenizer if has_tokenizer else None,
            provenance=provenance,
            overwrite=overwrite,
        )
    else:
        if not isinstance(module, SparseAutoencoder):
            raise UsageError(refusal(model, "a sparse autoencoder", target))
        layout: Layout = target
        export_sae(module, folder, layout, provenance=provenance, overwrite=overwrite)
    return WrittenModel(
        sorted(
            path.name
            for path in folder.glob("*")
            if before.get(path.name) != path.stat().st_mtime_ns
        )
    )


def write_onnx(model: LoadedModel, path: Path, overwrite: bool) -> WrittenModel:
    """Write an ONNX file that gives the same as the module, once it has been run.

    It is run on inputs of several sizes, in units of `input_mean` and `input_scale` where the model
    has them, in onnxruntime, or onnx's own evaluator where that is not installed.

    Raises: NumericalError, and nothing is written, if the file computes something else.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: one file is written: pass a name that ends in .onnx.")
    if path.is_dir() or (path.exists() and not overwrite):
        replace = "" if path.is_dir() else ", or pass overwrite=True (--overwrite) to replace it"
        raise OutputExistsError(f"{path} is already there: choose another name{replace}.")
    data, module = onnx_bytes(model), model.module_for("a conversion to ONNX")
    first = next(module.parameters())
    x = inputs_at_scales(next(iter(model.layers.values())).sizes.d_in)
    if model.input_mean is not None and model.input_scale is not None:
        x = x * torch.tensor(model.input_scale).double() + torch.tensor(model.input_mean).double()
    x = x.to(first.dtype)
    with TemporaryDirectory() as trial:
        file = Path(trial) / path.name
        file.write_bytes(data)
        found = outputs_of(file, x)
    if isinstance(found, str):
        raise UsageError(f"{path} is not written: {found}.")
    source, made = found
    wide = copy.deepcopy(module).double()

    @torch.no_grad()
    def run(given: Tensor) -> Tensor:
        outputs: Tensor = (module if given.dtype == first.dtype else wide)(given.to(first.device))
        return outputs.cpu()

    agreement = agreement_with_outputs(source, x.double(), made, run).required()
    write_file(path, data)
    return WrittenModel([path.name], agreement)


def refusal(model: LoadedModel, expected: str, target: str) -> str:
    return (
        f"{model.source} is a {type(model.module).__name__}; the layout {target!r} holds "
        f"{expected}: use --to bilens for a model folder."
    )
