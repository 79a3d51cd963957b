"""The processes that train together, and what they say to each other; one alone runs the same code.

Each has a share of every batch, in the order of one process. Numbers go over gloo, which tells at
once that a process has ended; tensors of an accelerator over the library of the accelerator.
"""

import copy
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from bilens.base.errors import BilensError, InterruptedRunError, UsageError
from bilens.base.option_rules import Device
from bilens.train.device import CPU, find_device

T = TypeVar("T")
Model = TypeVar("Model", bound=nn.Module)
JOIN = timedelta(seconds=60)  # that the first process waits for the others
PATIENCE = timedelta(days=7)  # with one that is busy; one that has ended is noticed at once
FAILED = "bilens failed"  # key of the store: how many processes have ended with an error
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


def read_launch() -> tuple[int, int, int]:
    """Return rank, number of processes, and number on this machine: 0, 1, 0 of one alone."""
    if any(name not in os.environ for name in NAMES):
        return 0, 1, 0
    said = [os.environ.get(name, os.environ["RANK"]) for name in (*NAMES[:2], "LOCAL_RANK")]
    if not all(one.isdecimal() for one in said) or int(said[0]) >= int(said[1]):
        raise UsageError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(said)}, which is no process of a run: "
            "start with torchrun, or unset them."
        )
    rank, world, local = map(int, said)
    return rank, world, local


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which one this is."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    shard: bool = False  # whether each holds a part of the weights, or all of them
    meshes: list[Any] = field(default_factory=list, compare=False)  # of what was divided

    @property
    def first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def check_shares(self, batch_size: int) -> None:
        if batch_size % self.world:
            raise UsageError(
                f"a batch of {batch_size} cannot be shared evenly by {self.world} processes: "
                f"choose a --batch-size that is a multiple of {self.world}, or another number "
                "of processes."
            )

    def share(self, batch: Tensor) -> Tensor:
        """Return the rows of a batch that are this one's."""
        size = len(batch) // self.world
        return batch[self.rank * size :][:size]

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes, in place."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def mean(self, value: float) -> float:
        """Return the mean over the processes."""
        if self.world == 1:
            return value
        return float(self.total(torch.tensor(value, dtype=torch.float64))) / self.world

    def any(self, flag: bool) -> bool:
        return self.mean(float(flag)) > 0

    def on_first(self, make: Callable[[], T]) -> T:
        """Run `make` on the first process and return its result; what it refuses, all refuse."""
        if self.world == 1:
            return make()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = make()
            except BilensError as error:
                said[1] = type(error), str(error)
                distributed.broadcast_object_list(said)
                raise
        distributed.broadcast_object_list(said)
        if not self.first and said[1] is not None:
            kind, sentence = said[1]
            again = kind.__new__(kind, sentence)
            BilensError.__init__(again, sentence)
            raise again
        return cast(T, said[0])

    @contextmanager
    def watched(self, folder: Path) -> Iterator[None]:
        """Say in a sentence that another process has ended."""
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or isinstance(error, BilensError) or "gloo" not in str(error):
                raise
            if current_thread() is main_thread():  # torchrun ends the others by it: they say so
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise InterruptedRunError(
                f"Another process of this run has ended; {folder} keeps the last state that was "
                "saved: repeat the command with --resume to go on."
            ) from error

    def learner(
        self,
        model: nn.Module,
        loss: Callable[..., Any],
        parts: Sequence[nn.Module] = (),
        *,
        unused: bool = False,
    ) -> Callable[..., Any]:
        """Return the loss of a model, whose gradients are the means over the processes.

        With `shard` the model is divided in place, the parts each by themselves: what reads
        `model.parameters()`, as an optimiser, comes behind. `unused` is whether a step may leave
        weights out.
        """
        held = LossModule(model, loss)
        if self.world == 1:
            return held
        if not self.shard:
            from torch.nn.parallel import DistributedDataParallel

            return DistributedDataParallel(held, find_unused_parameters=unused)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        self.meshes.append(mesh)
        frozen = {one for one in model.parameters() if not one.requires_grad}
        for part in (*parts, held):
            fully_shard(part, mesh=mesh, ignored_params=frozen)
        return held

    @contextmanager
    def joined(self, learner: Any) -> Iterator[None]:
        """Let each process have all weights of a learner for a while."""
        if self.shard:
            learner.unshard()
        yield
        if self.shard:
            learner.reshard()

    def blank(self, model: Model) -> Model | None:
        """Return a model without its numbers, which `whole` fills when the model was divided."""
        if not self.shard:
            return None
        empty = {id(one): nn.Parameter(one.detach().to("meta")) for one in model.parameters()}
        return copy.deepcopy(model, empty)

    def gather_model(self, model: Model, blank: Model | None) -> Model:
        """Return a model that was divided as one, on the first process; on others it stays."""
        if blank is None:
            return model
        state = {}
        for name, value in model.state_dict().items():
            value = whole_tensor(value)
            if self.first:
                state[name] = value.to(CPU)
        if not self.first:
            return model
        blank.load_state_dict(state, strict=True, assign=True)
        return blank


ALONE = Processes()


def places_of(module: nn.Module, weights: Sequence[nn.Parameter]) -> list[tuple[nn.Module, str]]:
    """Return the part of a module that each weight is in, and its name there."""
    found = {
        id(one): (part, name)
        for part in module.modules()
        for name, one in part.named_parameters(recurse=False)
    }
    return [found[id(one)] for one in weights]


class LossModule(nn.Module):
    """A model under a loss: both ways of training together hook into `forward`."""

    def __init__(self, model: nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *given: Any) -> Any:
        return self.loss(*given)


def whole_tensor(value: Tensor) -> Tensor:
    """Return a tensor of which each process may hold a part."""
    return cast(Tensor, getattr(value, "full_tensor", lambda: value)())


@contextmanager
def together(device: Device = "auto", shard: bool = False) -> Iterator[Processes]:
    """Join the processes that torchrun started, for as long as a training lasts."""
    rank, world, local = read_launch()
    chosen = find_device(device)
    if world == 1:
        if shard:
            raise UsageError(
                "--shard divides a model among processes, and there is one: start several with "
                "torchrun, or leave it out."
            )
        yield Processes(device=chosen)
        return
    if distributed.is_available() and distributed.is_initialized():  # by who calls
        yield Processes(rank, world, chosen, shard)
        return
    if not distributed.is_available():
        raise UsageError("this torch is built without torch.distributed: start one process.")
    if chosen.type != CPU.type:
        if local >= (count := torch.accelerator.device_count()):
            raise UsageError(
                f"process {local} of this machine has no device of its own, for there are {count}: "
                f"start at most {count} processes on it."
            )
        torch.accelerator.set_device_index(local)
        chosen = torch.device(chosen.type, local)
    kinds = dict.fromkeys((CPU.type, chosen.type))
    backend = ",".join(f"{one}:{distributed.get_default_backend_for_device(one)}" for one in kinds)
    # its functions keep the group that is there when they are read first, and with it its threads
    from torch.distributed.nn import functional as _functional  # noqa: F401

    try:
        store, *_ = next(rendezvous("env://", rank, world, timeout=JOIN))
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the {world} processes of this run did not find each other within {JOIN.seconds} s: "
            "start all of them, with one address and port."
        ) from error
    group = Processes(rank, world, chosen, shard)
    try:
        yield group
        with suppress(RuntimeError):  # one that has ended is not waited for
            group.any(False)
    except BilensError as error:
        with suppress(RuntimeError):  # the store may have ended with its process
            error.told = store.add(FAILED, 1) > 1
        raise
    finally:
        # the group's threads must end before the interpreter: learners hold them, and meshes, which
        # caches of torch keep for good
        for mesh in group.meshes:
            vars(mesh).get("_pg_registry", {}).clear()
        gc.collect()
        distributed.destroy_process_group()
