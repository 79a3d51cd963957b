"""Sparse autoencoders: written in the layout of another library, and put at a hook point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.base.files import check_path, write_new_files
from bilens.base.model_card import card_file
from bilens.io.formats.sae_layouts import official_files, sparsify_files
from bilens.io.formats.saelens import saelens_files
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import check_all_finite
from bilens.nn.block import hook_layer
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.transformer import BilinearTransformer

Layout = Literal["saelens", "sparsify", "official"]
LAYOUTS: dict[Layout, Callable[[SparseAutoencoder, Mapping[str, str]], dict[str, bytes]]] = {
    "saelens": saelens_files,
    "sparsify": sparsify_files,
    "official": official_files,
}


def export_sae(
    sae: SparseAutoencoder,
    folder: str | Path,
    layout: Layout = "saelens",
    *,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a sparse autoencoder in the layout of another library.

    There it computes the same reconstructions, its latents those of this one divided by its scale.

    Args:
        sae: the autoencoder.
        folder: where to; other files in it are left alone.
        layout: "saelens" (for `SAE.load_from_disk`), "sparsify" (for
            `SparseCoder.load_from_disk`) or "official", the paper's repository.
        provenance: what `bl.load` gave; its hook point and model are written where the layout has
            a place for them.
        overwrite: whether files of those names may be replaced.

    Raises:
        UsageError: If the layout is not known, or cannot express the autoencoder.
        OutputExistsError: If a file of the layout is there and `overwrite` is off.
        NonFiniteError: If a weight is NaN or infinite.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    check_type("sae", sae, SparseAutoencoder, "pass bl.load(folder).module")
    folder = check_path("folder", folder)
    check_all_finite(folder, sae.state_dict())
    if layout not in get_args(Layout):
        raise UsageError(f"layout={layout!r} is not known: use {', '.join(LAYOUTS)}.")
    files = LAYOUTS[layout](sae, dict(provenance or {}))
    weights = next(data for name, data in files.items() if name.endswith(".safetensors"))
    words = {"layout": layout, "library": "saelens" if layout == "saelens" else "bilens"}
    words["name"] = "Transcoder" if sae.is_transcoder else "Sparse autoencoder"
    told = sha256(weights).hexdigest(), sae.arguments(), provenance or {}, words
    write_new_files(folder, files | card_file(folder, "autoencoder", *told), overwrite)
    return folder


def sae_for_hook(
    loaded: LoadedModel, model: LoadedModel, hook: str, reads: str | None = None
) -> SparseAutoencoder:
    """Return a loaded autoencoder in the units of a hook point, if it belongs there.

    A transcoder that writes what is there belongs there too, if it reads the hook point `reads`.
    """
    sae, transformer = loaded.module_for("a trace"), model.module_for("a trace")
    if not isinstance(sae, SparseAutoencoder):
        raise wrong_kind(loaded.source, sae, "a sparse autoencoder", "sae")
    if not isinstance(transformer, BilinearTransformer):
        raise wrong_kind(model.source, transformer, "a language model", "language")
    hook_layer(hook, transformer.config.n_layer)
    places = {"hook": hook}
    if sae.is_transcoder:
        if reads is None:
            raise UsageError(
                f"{loaded.source} is a transcoder, which makes another activation of what it reads "
                f"and does not take apart {hook}: pass it as the output autoencoder "
                "(--output-sae), and an autoencoder of this hook point here."
            )
        places = {"hook": reads, "hook_out": hook}
    if {sae.d_in, sae.width} != {transformer.config.d_model}:
        raise UsageError(
            f"{loaded.source} has width {sae.d_in}, and {hook} of {model.source} has width "
            f"{transformer.config.d_model}: pass the autoencoder that was trained on this model."
        )
    for key, place in places.items():
        trained_at = loaded.provenance.get(key, place)
        if trained_at != place:
            raise UsageError(
                f"{loaded.source} was trained at {trained_at}; {place} was expected: pass the "
                "autoencoder of that hook point."
            )
    trained_on = loaded.provenance.get("model_sha256", model.weights_sha256)
    if trained_on != model.weights_sha256:
        raise UsageError(
            f"{loaded.source} was trained on another model ({loaded.provenance.get('model')}, with "
            f"other weights than {model.source}): pass the model that it belongs to, or train it "
            "again."
        )
    return sae.folded()


def wrong_kind(source: str, found: object, expected: str, command: str) -> UsageError:
    return UsageError(
        f"{source} holds a {type(found).__name__}; expected {expected}, for example one that "
        f"`bilens train {command}` wrote."
    )
