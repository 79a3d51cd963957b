"""Writes the golden folders of sparse autoencoders with the libraries that own the formats.

Run where they are installed (pip install sae-lens==6.54.12 eai-sparsify==1.3.3), not by the tests:
    python tests/io/formats/make_golden_sae.py

Each folder is what the library saved, and recorded.safetensors: inputs, and the activations and
reconstructions that the library computed from them.
"""

from pathlib import Path

import torch
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig

HERE = Path(__file__).parent
K, ROWS = 3, 20


def filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draw every parameter, so that no bias is zero and no row has norm 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def record(folder: Path, x: torch.Tensor, z: torch.Tensor, reconstruction: torch.Tensor) -> None:
    """Write what the library computed."""
    tensors = {"x": x, "activations": z, "reconstruction": reconstruction}
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        folder / "recorded.safetensors",
    )


def inputs(d_in: int) -> torch.Tensor:
    """Standard normal inputs."""
    return torch.randn(ROWS, d_in, generator=torch.Generator().manual_seed(1))


def saelens(name: str, d_in: int, d_sae: int, **options: bool) -> None:
    """Write a folder of SAELens."""
    metadata = SAEMetadata(model_name="tiny", hook_name="blocks.2.hook_mlp_out")
    config = TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=K, metadata=metadata, **options)
    sae = filled(TopKSAE(config), seed=0)
    folder = HERE / f"golden_sae_{name}"
    sae.save_model(folder)
    x = inputs(d_in)
    z = sae.encode(x)
    record(folder, x, z, sae.decode(z))


def sparsify(name: str, d_in: int, **options: int) -> None:
    """Write a folder of sparsify."""
    coder = filled(SparseCoder(d_in, SparseCoderConfig(k=K, **options)), seed=0)
    folder = HERE / f"golden_sae_{name}"
    coder.save_to_disk(folder)
    x = inputs(d_in)
    top, indices, _ = coder.encode(x)
    z = torch.zeros(ROWS, coder.num_latents).scatter(-1, indices, top)
    record(folder, x, z, coder.decode(top, indices))


if __name__ == "__main__":
    saelens("saelens", 6, 16)
    saelens("saelens_square", 8, 8)
    saelens("saelens_rescaled", 6, 16, rescale_acts_by_decoder_norm=True)
    saelens("saelens_not_centred", 6, 16, apply_b_dec_to_input=False)
    sparsify("sparsify", 6, num_latents=16)
    sparsify("sparsify_expanded", 6, expansion_factor=2)
