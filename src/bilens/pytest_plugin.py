"""The fixture `assert_audit` of pytest: a test fails where the audit of the model that it has does.

Nothing but pytest is imported until a test asks for the fixture and calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bilens.report.reports import AuditReport


@pytest.fixture
def assert_audit() -> Callable[..., AuditReport]:
    """Audit a model and fail with the sentences of what failed; see `audit_or_fail`."""
    return audit_or_fail


def audit_or_fail(
    model: object,
    baseline: object = None,
    data: object = None,
    fail_on: Sequence[str] = (),
    **options: Any,
) -> AuditReport:
    """Audit a model as `bilens audit` does; fail the test where that would end with exit code 1.

    Args:
        model: the object that the test has, which is what is read and compared: a module of
            PyTorch, a fitted estimator, what `bl.load` returned; or the path of a file or folder.
        baseline: the model that it was made from, given in any of these ways.
        data: what the answers are judged on, as for `bl.audit`.
        fail_on: rules, such as "non_finite", or rules with a limit, such as "similarity<0.95".
        options: further ones of `bl.audit`, and for paths of `bl.load`.

    Returns: The report of an audit in which nothing failed. That is no approval: `report.passed`
        is None where something was not read.

    Raises: BilensError if an argument cannot be used.
    """
    __tracebackhide__ = True  # the line of the test is what a reader wants to see
    from bilens.base.errors import BilensError

    try:
        report = audit_of(model, baseline, options, data=data, fail_on=fail_on)
    except BilensError as error:
        raise error.with_traceback(None) from None
    if report.passed is False:
        pytest.fail(failed_audit(report))
    return report


def audit_of(model: object, baseline: object, options: dict[str, Any], **given: Any) -> AuditReport:
    """Return the audit of a model, of which a path is opened first, as a command does it."""
    from bilens.api.audit_model import audit
    from bilens.base.errors import UsageError
    from bilens.io.any_model import open_pair
    from bilens.io.loaded_model import ReadOptions

    named = {*vars(ReadOptions())} - {"base", "wanted"}
    how = {name: options.pop(name) for name in named & options.keys()}
    pair = [Path(one) if isinstance(one, str) else one for one in (model, baseline)]
    if how and not any(isinstance(one, Path) for one in pair):
        raise UsageError(
            f"assert_audit: {', '.join(sorted(how))} would say how a file is read, and no path is "
            "given: leave it out."
        )
    opened: list[Any] = [*open_pair(pair[0], pair[1], ReadOptions(**how))]
    return audit(opened[0], baseline=opened[1], **given, **options)


def failed_audit(report: AuditReport) -> str:
    """Return what was audited, the sentences of what failed, and what was looked at."""
    from bilens.records.base import displayable
    from bilens.report.sections.decision_page import looked_lines
    from bilens.report.sections.overview import condition_lines, finding_lines, mark
    from bilens.report.text import load_catalogue

    t, record = load_catalogue("en"), displayable(report.record)
    about = f"{record.source.path or f'the {record.model.kind} in memory'}"
    if record.difference is not None:
        before = record.difference.baseline.path or "a model in memory"
        about += f", beside its baseline {before}"
    found = [*finding_lines(t, record), *condition_lines(t, record)]
    lines = [f"the audit of {about} failed."]
    lines += [f"{mark(t, one.outcome)}: {one.sentence}" for one in found if one.outcome == "fail"]
    lines += [f"{term}: {' '.join(texts)}" for term, texts in looked_lines(t, record)]
    return "\n".join(lines)
