"""One job on a worker: rows of a manifest, each result a file of its own, whole or not there."""

import os
from contextlib import suppress
from dataclasses import dataclass

import torch

from bilens.base.errors import (
    BilensError,
    CheckpointError,
    DiskError,
    MemoryLimitError,
    NonFiniteError,
    NumericalError,
    UsageError,
)
from bilens.io.tensors import safetensors_bytes
from bilens.records.base import json_text, to_json
from bilens.records.sweep import SweepResult
from bilens.sweep.manifest import Plan, checked_models, plan_at
from bilens.sweep.output import SweepOutput
from bilens.sweep.tasks import TASKS, Subject

REFUSALS = (NonFiniteError, UsageError, NumericalError)  # true of the layer, not of today


@dataclass(frozen=True)
class Spec:
    """The job of a worker: its rows, and the manifest that they are of."""

    place: str  # of the output
    sha256: str  # of its manifest
    number: int
    rows: tuple[int, ...]
    folder: str = ""  # in which the driver was started: relative paths are of it


@dataclass(frozen=True)
class Piece:
    """A task of a row that has no result, and why."""

    row: int
    task: str
    fault: str
    memory: bool = False  # whether it was too large for the worker


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    number: int
    faults: tuple[Piece, ...] = ()
    ends: str = ""  # why nothing else of the sweep can work either
    refused: str = ""  # why nothing that there is could run it
    lost: str = ""  # the worker or its node died; empty where it did not
    memory: bool = False  # for want of memory


def folder_of(task: str, row: int) -> str:
    return f"results/{task}/{row // 1000:03d}"


def result_name(task: str, row: int) -> str:
    return f"{folder_of(task, row)}/{row:06d}.json"


def run_spec(spec: Spec) -> Outcome:
    """Do every task of every row that has no result yet."""
    with suppress(OSError):  # where it is not there, no path is relative that works
        os.chdir(spec.folder)
    output, faults = SweepOutput(spec.place), []
    try:
        plan = plan_at(spec.place, spec.sha256)
        checked_models(plan, spec.rows[0])
        torch.set_num_threads(plan.head.options.threads)
        for row in spec.rows:
            for task in plan.head.options.tasks:
                try:
                    if output.read_bytes(result_name(task, row)) is None:
                        do(output, plan, row, task)
                except (MemoryLimitError, MemoryError) as error:
                    faults.append(Piece(row, task, str(error) or "out of memory", memory=True))
                except CheckpointError as error:
                    checked_models(plan, row, anew=True)  # ends the job where a model has changed
                    faults.append(Piece(row, task, str(error)))
                except DiskError:
                    raise
                except Exception as error:  # of ours, or of the machine: named, and tried again
                    known = isinstance(error, BilensError)
                    said = str(error) if known else f"{type(error).__name__}: {error}"
                    faults.append(Piece(row, task, said))
    except BilensError as error:
        return Outcome(spec.number, ends=str(error))
    return Outcome(spec.number, tuple(faults))


def do(output: SweepOutput, plan: Plan, row: int, task: str) -> None:
    """Write what a task finds of a layer, or why that layer has no such reading."""
    options, layer, name = plan.head.options, plan.rows[row].name, result_name(task, row)
    model, baseline = checked_models(plan, row)
    subject = Subject(model, baseline, row, layer, options)
    found, refused = None, None
    try:
        found = TASKS[task].run(subject)
    except REFUSALS as error:
        refused = str(error)
    result = SweepResult(
        manifest=plan.sha256,
        row=row,
        name=layer,
        task=task,
        refused=refused,
        numbers={} if found is None else found.numbers,
        record=None if found is None else to_json(found.record),
    )
    if found is not None and found.tensors:  # before the result, which says that both are there
        tensors = {name: one.contiguous() for name, one in found.tensors.items()}
        data = safetensors_bytes(tensors, found.said)
        output.write(f"{name.removesuffix('.json')}.safetensors", data)
    output.write(name, f"{json_text(result)}\n".encode())
