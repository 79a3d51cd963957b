"""One job on a worker: rows of a manifest, each result a file of its own, whole or not there."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from safetensors.torch import save

from bilens.base.errors import (
    BilensError,
    MemoryLimitError,
    NonFiniteError,
    NotQuadraticError,
    NumericalError,
)
from bilens.records.base import Record, json_text, to_json
from bilens.records.sweep import SweepResult
from bilens.sweep.manifest import Plan, checked_model, opened, plan_at
from bilens.sweep.output import Output
from bilens.sweep.tasks import TASKS, Subject

REFUSALS = (NonFiniteError, NotQuadraticError, NumericalError)  # true of the layer, not of today


@dataclass(frozen=True)
class Spec:
    """What a worker is told."""

    place: str  # of the output
    sha256: str  # of its manifest
    number: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """How one task of one row ended."""

    row: int
    task: str
    seconds: float
    fault: str = ""  # why there is no result; empty where there is one
    memory: bool = False  # whether it was too large for the worker


def result_name(task: str, row: int) -> str:
    return f"results/{task}/{row // 1000:03d}/{row:06d}.json"


def run_spec(spec: Spec) -> list[Piece]:
    """Do every task of every row that has no result yet."""
    output, plan = Output(spec.place), plan_at(spec.place)
    if plan.sha256 != spec.sha256:
        plan_at.cache_clear()
        plan = plan_at(spec.place)
    torch.set_num_threads(plan.head.options.threads)
    pieces = []
    for row in spec.rows:
        for task in plan.head.options.tasks:
            start = time.monotonic()
            fault, memory = "", False
            try:
                do(output, plan, row, task)
            except (MemoryLimitError, MemoryError) as error:
                fault, memory = str(error) or "out of memory", True
            except BilensError as error:
                fault = str(error)
            except Exception as error:  # a fault of ours, or of the machine: named, and tried again
                fault = f"{type(error).__name__}: {error}"
            pieces.append(Piece(row, task, time.monotonic() - start, fault, memory))
    return pieces


def do(output: Output, plan: Plan, row: int, task: str) -> None:
    name = result_name(task, row)
    if output.read(name) is not None:
        return
    options, layer = plan.head.options, plan.rows[row].name
    model = checked_model(plan)
    base = opened(options.baseline) if options.baseline is not None else None
    refused, record, tensors = None, None, {}
    numbers: dict[str, float | None] = {}
    try:
        found, tensors, numbers = TASKS[task].run(Subject(model, base, layer, options))
        record = plain(found)
    except REFUSALS as error:
        refused = str(error)
    result = SweepResult(
        manifest=plan.sha256,
        row=row,
        name=layer,
        task=task,
        refused=refused,
        numbers=numbers,
        record=record,
    )
    if tensors:  # before the result, which says that both are there
        output.write(f"{name.removesuffix('.json')}.safetensors", save(tensors))
    output.write(name, f"{json_text(result)}\n".encode())


def plain(record: Record) -> dict[str, object]:
    return to_json(record)
