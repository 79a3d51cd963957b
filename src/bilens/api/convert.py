"""A model in the layout of another library."""

from pathlib import Path
from typing import Literal, get_args

from bilens.api.subject import open_subject
from bilens.base.errors import OutputExistsError, UsageError
from bilens.base.files import write_file
from bilens.io.autoencoders import Layout, export_sae
from bilens.io.load import LoadedModel
from bilens.io.model_config import OPTIONAL
from bilens.io.model_folder import save
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.nn.module_layers import Transformer

Target = Literal["bilens", "huggingface", "saelens", "sparsify", "official"]
TOKENIZER_NAME = "tokenizer.json"


def convert_model(
    model: LoadedModel, target: Target, folder: Path, *, overwrite: bool = False
) -> list[str]:
    """Write a loaded model in another layout; return the names of the files written."""
    if target not in get_args(Target):
        raise UsageError(f"layout {target!r} is not known: use {', '.join(get_args(Target))}.")
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
        if not isinstance(module, TopKSAE):
            raise UsageError(refusal(model, "a sparse autoencoder", target))
        layout: Layout = target
        export_sae(module, folder, layout, provenance=provenance, overwrite=overwrite)
    return sorted(
        path.name for path in folder.glob("*") if before.get(path.name) != path.stat().st_mtime_ns
    )


def refusal(model: LoadedModel, expected: str, target: str) -> str:
    return (
        f"{model.source} is a {type(model.module).__name__}; the layout {target!r} holds "
        f"{expected}: use --to bilens for a model folder."
    )
