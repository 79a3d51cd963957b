"""Models of llama2.c, the versions 0 and 1 of its `.bin`: SwiGLU layers in float32.

Whatever the header says is checked against the size of the file before anything is read.
"""

import struct
from dataclasses import astuple, dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch

from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256
from bilens.io.byte_ranges import Region, opened
from bilens.io.formats.activations import activation_named
from bilens.io.formats.families import RMS
from bilens.io.formats.source import compare_ends
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.stored_mlp import LayerLocation, StoredMLP, StoredTensor

MAGIC = b"24ka"  # 0x616b3432, little-endian
LARGEST = 1 << 24  # of a number in the header
HEADER_V1 = 256
Shapes = dict[str, tuple[int, ...]]
PICKLED = (b"PK", b"\x80")  # how files of torch.save begin


@dataclass(frozen=True)
class Header:
    """What the file says of itself."""

    version: int  # 0 or 1
    shared: bool  # whether the unembedding is the embedding
    dim: int  # width of the residual stream
    hidden: int  # neurons of an MLP
    layers: int  # blocks
    heads: int  # of queries
    kv_heads: int  # of keys and values
    vocabulary: int  # tokens
    context: int  # positions

    def shapes(self) -> Shapes:
        """Return the shape of each block of numbers in the order of the file."""
        dim, hidden, layers = self.dim, self.hidden, self.layers
        kv = self.kv_heads * (dim // self.heads)
        tokens = {"tok_embeddings": (self.vocabulary, dim)}
        attention = {
            "wq": (layers, dim, dim),
            "wk": (layers, kv, dim),
            "wv": (layers, kv, dim),
            "wo": (layers, dim, dim),
        }
        mlp = {
            "w1": (layers, hidden, dim),
            "w2": (layers, dim, hidden),
            "w3": (layers, hidden, dim),
        }
        before, before_mlp = {"attention_norm": (layers, dim)}, {"ffn_norm": (layers, dim)}
        last: Shapes = {"norm": (dim,)}
        output = {} if self.shared else {"output": (self.vocabulary, dim)}
        if self.version == 1:
            return before | before_mlp | last | tokens | attention | mlp | output
        rotary = dict.fromkeys(("freqs_cos", "freqs_sin"), (self.context, dim // self.heads // 2))
        return tokens | before | attention | before_mlp | mlp | last | rotary | output

    @property
    def start(self) -> int:
        return HEADER_V1 if self.version == 1 else 28

    @property
    def num_bytes(self) -> int:
        return self.start + 4 * sum(prod(shape) for shape in self.shapes().values())


def read_header(path: Path) -> Header:
    with path.open("rb") as file:
        start = file.read(HEADER_V1)
    if len(start) < 28:
        raise CheckpointError(f"{path}: is {len(start)} bytes; too short for a model of llama2.c.")
    if start[:4] == MAGIC:
        (version,) = struct.unpack("<i", start[4:8])
        if version == 2:
            raise CheckpointError(
                f"{path}: is of version 2 of llama2.c, quantised in one of two layouts that have "
                "the same size and cannot be told apart: export the model with version 0 or 1."
            )
        if version != 1 or len(start) < HEADER_V1:
            raise CheckpointError(
                f"{path}: is of version {version} of llama2.c; versions 0 and 1 are read."
            )
        header = Header(1, start[36] != 0, *struct.unpack("<7i", start[8:36]))
    else:
        sizes = list(struct.unpack("<7i", start[:28]))
        shared = sizes[5] > 0
        sizes[5] = abs(sizes[5])
        header = Header(0, shared, *sizes)
    numbers = astuple(header)[2:]
    if not all(0 < number <= LARGEST for number in numbers) or header.dim % header.heads != 0:
        raise CheckpointError(
            f"{path}: is no model of llama2.c (sizes {', '.join(map(str, numbers))}), nor a pickle "
            "of PyTorch: check that the download is complete and that the file is what its name "
            "says."
        )
    size = path.stat().st_size
    if size != header.num_bytes:
        raise CheckpointError(
            f"{path}: is {size:,} bytes; a model of llama2.c (version {header.version}) of these "
            f"sizes ({', '.join(map(str, numbers))}) has {header.num_bytes:,}: check that the "
            "download is complete."
        )
    return header


def read_llama2c(path: Path, options: ReadOptions) -> LoadedModel:
    options.refuse_residual(path, "is a language model, which always has residual paths")
    header = read_header(path)
    blocks: dict[str, StoredTensor] = {}
    offset, file = header.start, opened(path)
    for name, shape in header.shapes().items():
        place = Region(file, offset, shape, torch.float32)
        blocks[name] = StoredTensor(path, name, shape, place.dtype, place.read, locate=place.spans)
        offset += 4 * prod(shape)
    phi = activation_named("silu")
    layers = {}
    for index in range(header.layers):
        one = LayerLocation("w3", "w2", "w1", name=f"layers.{index}.mlp", index=index)
        layers[one.name] = one, StoredMLP.of(blocks, one, phi.phi)
    return LoadedModel(
        None,
        str(path),
        file_sha256(path),
        provenance={
            "format": f"llama2.c, version {header.version}",
            "read": "the gated MLPs alone",
            "mlp_input": RMS,
        },
        views={name: layer.view(RMS) for name, (_, layer) in layers.items()},
        stored=blocks,
        compare=partial(compare_ends, blocks, layers, "llama"),
    )


def is_llama2c(path: Path) -> bool:
    if path.suffix != ".bin":
        return False
    with path.open("rb") as file:
        return not file.read(2).startswith(PICKLED)


LLAMA2C = Format("llama2.c", is_llama2c, read_llama2c)
