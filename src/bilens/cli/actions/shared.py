"""What the commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bilens.base.errors import OutputExistsError, UsageError
from bilens.cli.console import Output, Reporter
from bilens.cli.tables.layer_audit import layer_audit_table, layer_lines
from bilens.cli.tables.table_audit import column_lines, column_table
from bilens.io.load import LoadedModel, load
from bilens.report.audit_report import AuditReport
from bilens.report.layer_audit_report import LayerAuditReport
from bilens.report.table_report import TableReport
from bilens.report.terminal import audit_table, summary_lines
from bilens.train.loop import EpochMetrics

FAILED = 1  # an audit condition failed
Source = tuple[Path, bool | None, bool]  # path, residual, allow_pickle


Said = tuple[list[str] | None, str | None, bool | None]  # roles, activation, transposed
NOTHING: Said = (None, None, None)


def open_model(
    source: Source, said: Said = NOTHING, say: Callable[[str], None] | None = None
) -> LoadedModel:
    """Return the model that the options of a command name.

    Args:
        source: where it is.
        said: of the tensors of a file with names of its own.
        say: told what was taken for what where it had to be found out, and how a model of another
            library compares with its source; None where nothing is read of such a model.
    """
    path, residual, allow_pickle = source
    roles, activation, transposed = said
    model = load(
        path,
        residual=residual,
        allow_pickle=allow_pickle,
        roles=None if roles is None else parse_map(roles),
        activation=activation,
        transposed=transposed,
    )
    if say is not None:
        say_how_it_was_read(model, say)
    return model


def say_how_it_was_read(model: LoadedModel, say: Callable[[str], None]) -> None:
    """Say what was taken for what, and how the first layer compares with its source.

    Raises:
        NumericalError: If what was read is another function.
    """
    for line in [] if model.load_report is None else model.load_report.lines():
        say(line)
    if model.compare is not None:
        say(str(model.exactness))


def parse_map(texts: Sequence[str]) -> dict[str, str]:
    """Return role → tensor.

    Raises:
        UsageError: If one is not ROLE=TENSOR, or a role is given twice.
    """
    roles: dict[str, str] = {}
    for text in texts:
        role, equals, tensor = text.partition("=")
        if not (role and equals and tensor):
            raise UsageError(f"--map {text}: expected ROLE=TENSOR, for example up=fc1.weight.")
        if role in roles:
            raise UsageError(f"--map {text}: the role {role} is given twice: give each once.")
        roles[role] = tensor
    return roles


def refuse_existing(path: Path | None, overwrite: bool) -> None:
    """Refuse to write over a file or a folder, before any work is done."""
    if path is not None and path.is_dir():
        raise OutputExistsError(f"{path} is a folder; expected a file: add a name in it.")
    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} exists already: choose another file, or replace it with --overwrite."
        )


def print_audit(
    output: Output, report: AuditReport | LayerAuditReport | TableReport, json: bool
) -> None:
    """Print the result of an audit: JSON, or a short table and the verdict."""
    if json:
        output.json(report.to_dict())
        return
    document = report.to_dict()
    if isinstance(report, TableReport):
        output.result.print(column_table(document))
        for line in column_lines(document):
            output.result.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    one_layer = isinstance(report, AuditReport)
    output.result.print(audit_table(document) if one_layer else layer_audit_table(document))
    for line in summary_lines(document) if one_layer else layer_lines(document):
        output.result.print(line, highlight=False, markup=False, soft_wrap=True)


def training_progress(progress: Reporter, epochs: int) -> Any:
    """Return a callback that shows each epoch."""

    def show(metrics: EpochMetrics) -> None:
        text = f"loss {metrics.train_loss:.4f}, test accuracy {metrics.test_accuracy:.4f}"
        progress("training", metrics.epoch, epochs, text)

    return show
