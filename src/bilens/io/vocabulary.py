"""The vocabulary of a language model: what its tokens put into the residual stream, and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from bilens.io.formats.ends import Ends, ends_of
from bilens.io.loaded_model import LoadedModel
from bilens.io.stored_mlp import Store, module_tensors
from bilens.io.tensor_names import ENDING, canonical, kind_of
from bilens.nn.layer_view import LayerView
from bilens.nn.transformer import BilinearTransformer

ATTENTION = ("o", "q", "k", "v", "qkv")  # kinds of its tensors
OTHER_HEADS = ("score.weight", "classifier.weight", "qa_outputs.weight")
OURS = Ends(  # a transformer of ours, whose gains are in the weights
    "embed",
    "",
    "unembed",
    tied=None,
    before_attention=("",),
    before_mlp=("",),
    block=r"\bblocks\.\d+\.",
)


@dataclass(frozen=True, eq=False)
class Norm:
    """x ↦ gain · x / rms(x) + bias; of a LayerNorm, with x less its mean for x."""

    gain: Tensor | None = None  # as it acts
    bias: Tensor | None = None
    centred: bool = False
    divides: bool = True  # False where there is no norm

    def less_mean(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=-1, keepdim=True) if self.centred else x

    def rms(self, x: Tensor) -> Tensor:
        """Return the number that the norm divides each row by, (rows, 1)."""
        size = self.less_mean(x).square().mean(dim=-1, keepdim=True).sqrt()
        return size.clamp(min=torch.finfo(x.dtype).tiny) if self.divides else size.fill_(1)

    def times_gain(self, x: Tensor) -> Tensor:
        return x if self.gain is None else x * self.gain.to(x)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a language model, read from its tensors by the table of families.

    logits(x) = `unembedding` · x / rms(x) + `bias`, before any soft cap; x less its mean where the
    last norm is a LayerNorm. Gains are as they act: 1 + w where a family stores them less one.
    """

    store: Store
    ends: Ends
    token: Callable[[int], str] = "#{}".format  # how one is called

    @classmethod
    def of_ours(
        cls, module: BilinearTransformer, token: Callable[[int], str] = "#{}".format
    ) -> Vocabulary:
        return cls(module_tensors(module), OURS, token)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Name without roots, as Hugging Face has it → name of a tensor."""
        named = ((name, canonical(name)) for name in self.store)
        return {one if ENDING.search(one) else f"{one}.weight": name for name, one in named}

    @property
    def embedding_name(self) -> str:
        return f"{self.ends.embedding}.weight"

    @property
    def head_name(self) -> str:
        name, tied = f"{self.ends.head}.weight", self.ends.tied
        return self.embedding_name if tied or (tied is None and name not in self.names) else name

    @property
    def is_whole(self) -> bool:
        """Whether embedding, last norm and head are there and fit each other."""
        tables, last = {self.embedding_name, self.head_name}, self.last
        others = {*OTHER_HEADS} & {*self.names}  # a tied head, which is no tensor, is not run
        if not tables <= {*self.names} or last is None or others:
            return False
        widths = {self.store[self.names[name]].shape[1:] for name in tables}
        return len(widths) == 1 and (last.gain is None or widths == {tuple(last.gain.shape)})

    def tensor(self, name: str) -> Tensor | None:
        """Return a tensor in float32 or wider; None where there is none."""
        if name not in self.names:
            return None
        found = self.store[self.names[name]].read_tensor()
        return found.to(torch.promote_types(found.dtype, torch.float32))

    @cached_property
    def embedding(self) -> Tensor:
        """(tokens, width), what each token puts into the residual stream."""
        return times(cast(Tensor, self.tensor(self.embedding_name)), self.ends.embedding_scale)

    @cached_property
    def head(self) -> Tensor:
        """(tokens, width), as it is stored."""
        tied = self.head_name == self.embedding_name and self.ends.embedding_scale == 1
        return self.embedding if tied else cast(Tensor, self.tensor(self.head_name))

    @cached_property
    def unembedding(self) -> Tensor:
        """(tokens, width), what makes logits of a stream of root mean square 1."""
        assert self.last is not None, "the vocabulary is whole"
        rows = self.last.less_mean(self.last.times_gain(self.head))
        return times(rows, self.ends.logit_scale)

    @cached_property
    def bias(self) -> Tensor | None:
        """(tokens,), logits that do not depend on the stream: of the head and of the last norm."""
        found = self.tensor(f"{self.ends.head}.bias")
        if self.last is not None and self.last.bias is not None:
            of_norm = self.head @ self.last.bias.to(self.head)
            found = of_norm if found is None else found + of_norm
        return None if found is None else times(found, self.ends.logit_scale)

    @cached_property
    def last(self) -> Norm | None:
        """The norm before the head; None where its gain is not there."""
        return self.norm("", (self.ends.norm,))

    def norm(self, block: str, parts: tuple[str, ...]) -> Norm | None:
        """Return the first of some norms that is there; without any, one that does nothing."""
        for part in parts:
            gain = self.tensor(f"{block}{part}.weight")
            if gain is not None or not part:
                gain = gain + 1 if gain is not None and self.ends.less_one else gain
                return Norm(gain, self.tensor(f"{block}{part}.bias"), self.ends.centred)
        return None if parts else Norm(divides=False)

    def norm_beside(self, name: str, *, behind: bool) -> Norm | None:
        """Return the norm behind, or before, the attention or the MLP that has a tensor.

        None where the tensor is part of neither, or the norm is not there.
        """
        ends, attends = self.ends, kind_of(name, ()) in ATTENTION
        plain = f"{canonical(name)}."
        block = re.search(ends.block, plain)
        if block is None or re.search(ends.unheard if behind else ends.unread, plain):
            return None
        parts = ends.before_attention if attends else ends.before_mlp
        if behind:
            parts = ends.behind_attention if attends else ends.behind_mlp
        return self.norm(plain[: block.end()], parts)

    def promoted(self, direction: Tensor, writer: str) -> Tensor | None:
        """Return (tokens,) logits of a direction that a tensor writes, for a stream of RMS 1."""
        behind, last = self.norm_beside(writer, behind=True), self.last
        if behind is None or last is None:
            return None
        written = last.times_gain(last.less_mean(behind.times_gain(direction)))
        size = self.ends.logit_scale * self.ends.residual_scale
        return self.head @ (size * written).to(self.head)

    def answered(self, direction: Tensor, reader: str) -> Tensor | None:
        """Return (tokens,) what a direction that a tensor reads gives for each embedding."""
        norm = self.norm_beside(reader, behind=False)
        if norm is None:
            return None
        read = norm.less_mean(norm.times_gain(direction)) if norm.divides else direction
        return self.embedding @ read.to(self.embedding) / norm.rms(self.embedding)[:, 0]

    def read_by(self, layer: LayerView, *, divided: bool) -> Tensor | None:
        """Return (tokens, width) embeddings as a layer receives them, through the norm before it.

        A gain that the weights of the layer contain is not applied again. Each row is as long as
        its embedding makes it, or `divided` by its root mean square.
        """
        norm = self.norm_beside(self.place(layer), behind=False)
        if norm is None:
            return None
        rows = norm.less_mean(self.embedding)
        rows = rows / norm.rms(self.embedding) if divided else rows
        contained = any(kind_of(name, ()) == "norm" for name in layer.tensors)
        return rows if contained else norm.times_gain(rows)

    def unembedding_of(self, layer: LayerView) -> Tensor | None:
        """Return (tokens, width) what makes logits of what a layer writes."""
        behind = self.norm_beside(self.place(layer), behind=True)
        if behind is None:
            return None
        return times(behind.times_gain(self.unembedding), self.ends.residual_scale)

    def place(self, layer: LayerView) -> str:
        """Return a name that says in which block a layer is."""
        names, block = (*layer.tensors, layer.name), re.compile(self.ends.block)
        return next((name for name in names if block.search(f"{canonical(name)}.")), layer.name)


def times(tensor: Tensor, scale: float) -> Tensor:
    return tensor if scale == 1 else tensor * scale


def vocabulary_of(
    model: LoadedModel | nn.Module, token: Callable[[int], str] = "#{}".format
) -> Vocabulary | None:
    """Return the vocabulary of a language model; None where no linear map makes tokens."""
    module = model if isinstance(model, nn.Module) else model.module
    if isinstance(module, BilinearTransformer) and (module is model or not model.stored):
        return Vocabulary.of_ours(module, token)
    if isinstance(model, nn.Module):
        config: Any = getattr(model, "config", None)
        ends = ends_of(config.to_dict()) if hasattr(config, "to_dict") else None
        store = module_tensors(model)
    else:
        ends, store = model.ends, model.tensors
    found = None if ends is None else Vocabulary(store, ends, token)
    return found if found is not None and found.is_whole else None
