"""What each of several processes does in the tests of training together; one alone does jobs, too.

`python -m several_processes FOLDER JOB…`, with the environment that torchrun sets.
"""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file

import bilens
import language_runs
import tiny
from bilens.api.conversion_job import ConversionJob, convert_to_bilinear
from bilens.base.errors import InterruptedRunError
from bilens.nn.topk_sae import TopKSAE
from bilens.train.layer_fit import ConversionRecipe
from bilens.train.loop import TrainingRun
from bilens.train.processes import ALONE, Processes, together
from bilens.train.run_folder import run_in_folder
from bilens.train.tasks.language import LanguageRecipe, LanguageTask
from bilens.train.tasks.sae import SAERecipe, SAESteps, TensorActivations, members

PATHS = os.pathsep.join(str(Path(one).parent) for one in (__file__, bilens.__path__[0]))
LANGUAGE = language_runs.changed(steps=24, evaluations=4, batch_size=4, dropout=0.2, tied=True)
SAE = SAERecipe(
    hooks=("activations",), num_latents=24, k=3, tokens=50 * 16, batch_size=16, buffer_size=160
)
SAE = dataclasses.replace(SAE, dead_after=64)  # so that some are dead on the way
LINES, HALF = {"language": 4, "sae": 5}, 2  # of the history


class SAEInMemory(SAESteps):
    """An autoencoder on drawn activations in float64."""

    about: Mapping[str, Any] = {"recipe": SAE.to_dict(), "data": "drawn"}

    def __init__(self, group: Processes) -> None:
        rows = torch.randn(320, 8, generator=torch.Generator().manual_seed(0))
        super().__init__(SAE, TensorActivations(rows, SAE.buffer_size, SAE.seed), group)

    def save(self, run: TrainingRun[Any], folder: Path, provenance: Mapping[str, str]) -> None:
        """Leave the weights alone."""
        (sae,) = members(run)
        assert type(sae) is TopKSAE  # and whole
        save_file(sae.state_dict(), folder / "model.safetensors", metadata=dict(provenance))


class StepsInFile:
    """A tracker that keeps the steps that a process tells it, in a file of that process."""

    def __init__(self, place: Path, run: str) -> None:
        self.file = place / f"{run}.told-{os.environ.get('RANK', 'alone')}"

    def log(self, step: int, _numbers: object, _figures: object) -> None:
        with self.file.open("a") as file:
            file.write(f"{step}\n")


def language(recipe: LanguageRecipe, group: Processes, at_once: int = 0) -> LanguageTask:
    """A training of a language model."""
    told = language_runs.task(recipe)
    return LanguageTask(recipe, told.tokens, told.tokenizer, told.corpus, group, at_once)


def do(place: Path, job: str, group: Processes) -> None:
    """Do one job in a folder of its own, all of it or the first half: what, -shard, -half, -on."""
    kind, *how = job.split("-")
    name = how[0]  # of the folder
    if kind == "convert":
        convert(place, name, how)
        return
    group = dataclasses.replace(group, shard="shard" in how)
    task: Any = (
        SAEInMemory(group) if kind == "sae" else language(LANGUAGE, group, int("parts" in how))
    )
    if "half" in how:
        task.stopped = lambda run: run.epoch >= HALF
    told = StepsInFile(place, f"{kind}-{name}")
    run_in_folder(place / told.file.stem, task, resume="on" in how, tracker=told)


def convert(place: Path, name: str, how: Sequence[str]) -> None:
    """Make a SwiGLU model bilinear, in float32; one process trains it first."""
    torch.set_default_dtype(torch.float32)
    if name == "one":
        run_in_folder(place / "teacher", language(language_runs.changed(gate="silu"), ALONE))
    recipe = ConversionRecipe(n_ctx=15, layer_tokens=600, tokens=3600, batch_size=4, layer_steps=3)
    recipe = dataclasses.replace(
        recipe, learning_rate=1e-3, measured_tokens=100, unfreeze=True, precision="float32"
    )
    # one process takes a batch in the parts that two have, so that sums are rounded alike: Adam
    # makes of a gradient that is nearly 0 a step of another size
    recipe = dataclasses.replace(recipe, texts_at_once=2)
    given = place / "teacher", [language_runs.OPTIONS], place / f"convert-{name}", recipe
    stops = stop_behind_a_line if "half" in how else ConversionJob.stop_if
    with mock.patch.object(ConversionJob, "stop_if", stops), suppress(InterruptedRunError):
        told = StepsInFile(place, f"convert-{name}")
        convert_to_bilinear(*given, shard="shard" in how, resume="on" in how, tracker=told)
    torch.set_default_dtype(torch.float64)


def stop_behind_a_line(_run: ConversionJob, _interrupted: bool, where: str) -> None:
    """End a conversion with the first line of its distillation."""
    if where.startswith("step"):
        raise InterruptedRunError(where)


def launch(place: Path, *jobs: str) -> "list[Any]":
    """Start two processes, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    shared |= {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "several_processes", str(place), *jobs],
            env=tiny.environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def killed_at(group: Processes, place: Path) -> None:
    """Train until the second process kills itself, behind the first line."""
    task = language(LANGUAGE, group)
    take_step = task.take_step

    def step(run: TrainingRun[Any], prepared: Any) -> None:
        if group.rank == 1 and run.epoch == 1 and run.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        take_step(run, prepared)

    task.take_step = step  # type: ignore[method-assign]
    run_in_folder(place / "language-killed", task)


def main(place: Path, jobs: list[str]) -> None:
    """Do jobs one behind the other."""
    torch.set_default_dtype(torch.float64)
    with together("cpu") as group:
        for job in jobs:
            if job == "kill":
                killed_at(group, place)
            else:
                do(place, job, group)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
