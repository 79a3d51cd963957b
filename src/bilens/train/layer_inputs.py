"""Records the inputs of a language model's MLPs: texts run block by block, kept in step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bilens.base.checks import check_finite
from bilens.base.errors import DataError, UsageError
from bilens.data.text import TextCorpus
from bilens.data.tokenizer import Tokenizer, pack_documents
from bilens.io.host import Host, Site
from bilens.io.tensors import tensors_sha256
from bilens.nn.real_run import copy_of_input
from bilens.train.corpus import Batches
from bilens.train.device import device_of
from bilens.train.randomness import ORDER, stream

MOST_TOKENS = 1.2  # a character, of writing that a tokenizer was made for
MOST_UNKNOWN = 0.2  # of the tokens


class Mixture:
    """Texts of several domains in turn: each number is one text, the same whenever it is asked.

    A corpus that stands twice among the corpora is one domain with two turns in each round.
    `held_out` are texts of documents that nothing is fitted to, domain → (texts, n_ctx): first of
    those domains that are learnt from, then of those that are only `measured`, whole.
    """

    def __init__(
        self,
        corpora: Sequence[TextCorpus],
        tokenizer: Tokenizer,
        n_ctx: int,
        seed: int,
        measured: Sequence[TextCorpus] = (),
    ) -> None:
        self.start, self.n_ctx = tokenizer.start, n_ctx
        self.domains, self.held_out = [], dict[str, Tensor]()
        learnt = {document for corpus in corpora for document in corpus.documents}
        once = {corpus.fingerprint: corpus for corpus in corpora}
        turns = [[*once].index(corpus.fingerprint) for corpus in corpora]
        # of each turn: the domain, its turns in a round, and which of them this is
        self.turns = [(one, turns.count(one), turns[:n].count(one)) for n, one in enumerate(turns)]
        for number, corpus in enumerate([*once.values(), *measured]):
            held = corpus.held_out
            if number < len(once):
                packed = pack_documents(tokenizer, corpus.documents, n_ctx + 1)
                if (count := packed.tokens.numel()) <= 2 * n_ctx:
                    raise DataError(
                        f"{corpus.name}: {count:,} tokens to learn from, and {2 * n_ctx + 1:,} or "
                        f"more are needed for texts of {n_ctx}: give more text, hold out a smaller "
                        "share (--held-out), or choose a shorter context."
                    )
                self.domains.append(Batches(packed.tokens.flatten(), n_ctx, 1, seed))
            else:
                held += corpus.documents
            name = f"{corpus.name} {number}" if corpus.name in self.held_out else corpus.name
            texts = pack_documents(tokenizer, held, n_ctx).tokens
            order = torch.randperm(len(texts), generator=stream(seed, ORDER))
            self.held_out[name] = self.opened(texts[order])  # so that the first ones are a draw
            check_writing(corpus.name, held, tokenizer, self.held_out[name])
            if (count := len(self.held_out[name])) < 2:
                raise DataError(
                    f"{corpus.name}: {count} text(s) of {n_ctx} tokens are held out; errors take 2 "
                    "or more: give more text, or hold out a larger share (--held-out)."
                )
            if both := len(learnt.intersection(held)):
                raise DataError(
                    f"{corpus.name}: {both} of the documents that are only measured on are learnt "
                    "from in another text: leave them out of one."
                )
        read = [corpus.fingerprint for corpus in (*corpora, *measured)]
        prints = " ".join([tokenizer.sha256, *read])
        self.fingerprint = hashlib.sha256(prints.encode()).hexdigest()

    def opened(self, texts: Tensor) -> Tensor:
        """Return texts behind the token that the model expects before them, as long as before."""
        if self.start is None:
            return texts
        return torch.cat([texts.new_full((len(texts), 1), self.start), texts[:, :-1]], dim=1)

    def texts(self, first: int, count: int) -> Tensor:
        """Return texts by number, (count, n_ctx)."""
        found = []
        for number in range(first, first + count):
            round_number, turn = divmod(number, len(self.turns))
            domain, times, place = self.turns[turn]
            found.append(self.domains[domain].batch(round_number * times + place))
        return self.opened(torch.cat(found)[:, :-1])

    @property
    def tokens(self) -> int:
        """How many there are before a domain begins again."""
        rounds = min(self.domains[one].steps_per_pass // times for one, times, _ in self.turns)
        return rounds * len(self.turns) * self.n_ctx


def check_writing(
    name: str, documents: Sequence[str], tokenizer: Tokenizer, tokens: Tensor
) -> None:
    """Refuse text of which a tokenizer knows bytes alone, or nothing."""
    letters, unknown = sum(map(len, documents)), 0
    if tokenizer.unknown is not None:
        unknown = int((tokens == tokenizer.unknown).sum())
    if tokens.numel() > MOST_TOKENS * letters or unknown > MOST_UNKNOWN * tokens.numel():
        raise DataError(
            f"{name}: {tokens.numel():,} tokens for {letters:,} characters, {unknown:,} of them "
            "unknown. The model's tokenizer was not made for this writing; give text in a "
            "language that the model knows."
        )


def check_enough(number: int, needed: int, what: str, unit: str = "tokens") -> None:
    if number < needed:
        more = "text (--text) or change --tokens" if unit == "tokens" else "data (--data)"
        raise DataError(
            f"{what} needs {needed:,} {unit} or more, and gets {number:,}: give more {more}."
        )


class Rows:
    """Inputs of a network in shuffled passes, as a `Mixture` has texts: each number is one.

    `n_ctx` is how many rows a layer sees of each.
    """

    def __init__(self, fitted: Tensor, held_out: Tensor, name: str, seed: int, n_ctx: int) -> None:
        self.fitted, self.seed = fitted.float(), seed
        self.domains, self.held_out = [name], {name: held_out.float()}
        self.tokens = len(fitted) * n_ctx
        parts = ("fitted", self.fitted), (name, held_out)
        self.fingerprint = tensors_sha256(parts)

    def texts(self, first: int, count: int) -> Tensor:
        """Return inputs by number, (count, …)."""
        size = len(self.fitted)
        passes = range(first // size, (first + count - 1) // size + 1)
        order = [torch.randperm(size, generator=stream(self.seed, ORDER, one)) for one in passes]
        return self.fitted[torch.cat(order)[first % size :][:count]]


class Passes(NamedTuple):
    """Some texts of a mixture, from one number on, again and again."""

    mixture: Mixture | Rows
    first: int
    number: int

    def texts(self, first: int, count: int) -> Tensor:
        """Return texts by number, (count, …), none from two passes."""
        return self.mixture.texts(self.first + first % self.number, count)


class LayerRows(NamedTuple):
    """The inputs of one layer, a row each, and the place in the text of each."""

    x: Tensor  # (rows, in)
    places: Tensor  # (rows, 2) int32: position in the text, and token there; −1 for none
    files: Tensor | None = None  # (rows,) int32, the file that each is of, where they are of some

    @classmethod
    def joined(cls, parts: Sequence[LayerRows]) -> LayerRows:
        return cls(*(torch.cat([getattr(one, name) for one in parts]) for name in ("x", "places")))


def places_of(items: Tensor, rows: int) -> Tensor:
    """Return position and token of rows that come from items, (rows, 2)."""
    is_text = not items.is_floating_point() and items.numel() == rows
    token = items.flatten() if is_text else items.new_full((rows,), -1)
    position = torch.arange(rows, device=items.device) % max(rows // len(items), 1)
    return torch.stack([position, token], dim=1).to(torch.int32)


@torch.no_grad()
def rows_given(
    module: nn.Module, sites: Sequence[Site], items: Tensor, run: Callable[[], object]
) -> dict[str, LayerRows]:
    """Run the model on some items and return the inputs of each site."""
    found: dict[str, list[LayerRows]] = {site.name: [] for site in sites}
    with ExitStack() as stack:
        for site in sites:

            def meet(_module: nn.Module, args: Any, kwargs: Any, site: Site = site) -> None:
                if (given := copy_of_input(args, kwargs)) is None:
                    return
                reached, x = site.reached(args), site.entry.rows(given)
                rows = check_finite(f"what reaches {site.name}", x[reached])
                found[site.name].append(LayerRows(rows, places_of(items, len(x))[reached]))

            hooked = module.get_submodule(site.paths[0])
            stack.callback(hooked.register_forward_pre_hook(meet, with_kwargs=True).remove)
        run()
    for name, parts in found.items():
        if not parts:
            raise UsageError(f"{name} is not reached when the model runs on these inputs.")
    return {name: LayerRows.joined(parts) for name, parts in found.items()}


class ReachedError(Exception):
    """Ends a run of a model at a block."""


class Walk:
    """Texts on their way through a model: `states` are what reaches block number `block`.

    What each block is given beside them (masks, positions) is caught once for each size of a batch:
    it is the same for as many texts of the same length. Memory: the states, and one block's run.
    """

    def __init__(self, host: Host, texts: Tensor, most: int) -> None:
        self.host, self.block, blocks = host, 0, [*host.blocks]
        self.parts = torch.split(texts.to(device_of(host.module)), most)
        sizes = {len(part): part for part in self.parts}  # the last one may be smaller
        self.others = {
            size: [others for _, *others in self.caught(part, blocks)]
            for size, part in sizes.items()
        }
        self.states = [self.caught(part, blocks[:1])[0][0] for part in self.parts]

    @torch.no_grad()
    def caught(self, tokens: Tensor, blocks: list[nn.Module]) -> list[tuple[Any, ...]]:
        """Return the inputs of each block: state, arguments, keywords; the run ends at the last."""
        found: list[tuple[Any, ...]] = []

        def meet(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rest = dict(kwargs)
            state = args[0] if args else rest.pop("hidden_states")
            found.append((state, args[1:], rest))
            if module is blocks[-1]:
                raise ReachedError

        with ExitStack() as stack, suppress(ReachedError):
            for one in blocks:
                stack.callback(one.register_forward_pre_hook(meet, with_kwargs=True).remove)
            self.host.logits(tokens)
        return found

    @torch.no_grad()
    def run(self) -> Iterator[Tensor]:
        """Yield what leaves the block, batch by batch."""
        for items, state in zip(self.parts, self.states, strict=True):
            args, kwargs = self.others[len(items)][self.block]
            out = self.host.blocks[self.block](state.clone(), *args, **kwargs)
            yield out[0] if isinstance(out, tuple) else out

    def inputs(self, sites: Sequence[Site]) -> Mapping[str, LayerRows]:
        """Return site → the rows that it is given in this block, all positions of all texts."""
        outputs, module = self.run(), self.host.module
        parts = [rows_given(module, sites, items, lambda: next(outputs)) for items in self.parts]
        return {one.name: LayerRows.joined([part[one.name] for part in parts]) for one in sites}

    def advance(self) -> None:
        """Bring all texts behind the block, as it is now."""
        self.states = [*self.run()]
        self.block += 1
