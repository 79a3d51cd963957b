"""`bl.export_sae`: a sparse autoencoder as a folder of another library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from bilens.base.atomic import write_files
from bilens.base.checks import check_type
from bilens.base.errors import OutputExistsError, UsageError
from bilens.io.paths import check_path
from bilens.io.sae_formats.official import official_files
from bilens.io.sae_formats.saelens import saelens_files
from bilens.io.sae_formats.sparsify import sparsify_files
from bilens.io.tensors import check_all_finite
from bilens.nn.topk_sae import TopKSAE

Layout = Literal["saelens", "sparsify", "official"]


def export_sae(
    sae: TopKSAE,
    folder: str | Path,
    layout: Layout = "saelens",
    *,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a sparse autoencoder in the layout of another library.

    There it computes the same reconstructions. Its latents are in the units of the layer: those of
    this one divided by its scale.

    Args:
        sae: the autoencoder.
        folder: where to; other files in it are left alone.
        layout: "saelens" (for `SAE.load_from_disk`), "sparsify" (for
            `SparseCoder.load_from_disk`) or "official", the paper's repository.
        provenance: what `bl.load` gave; its hook point and model are written where the layout has
            a place for them.
        overwrite: whether files of those names may be replaced.

    Returns:
        The folder.

    Raises:
        UsageError: If the layout is not known, or cannot express the autoencoder.
        OutputExistsError: If a file of the layout is there and `overwrite` is off.
        NonFiniteError: If a weight is NaN or infinite.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    check_type("sae", sae, TopKSAE, "pass bl.load(folder).module")
    folder = check_path("folder", folder)
    check_all_finite(folder, sae.state_dict())
    said = dict(provenance or {})
    if layout == "saelens":
        files = saelens_files(sae, said)
    elif layout == "sparsify":
        files = sparsify_files(sae)
    elif layout == "official":
        files = official_files(sae, said)
    else:
        raise UsageError(f"layout={layout!r} is not known: use {', '.join(get_args(Layout))}.")
    present = [name for name in files if (folder / name).exists()]
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds {', '.join(present)}: choose another folder, or pass "
            "overwrite=True (--overwrite) to replace them."
        )
    write_files({folder / name: content for name, content in files.items()})
    return folder
