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
    data: Any = None,
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

    Returns: The report. That is no approval: `passed` of it is None where not all was read.
    """
    __tracebackhide__ = True  # the line of the test is what a reader wants to see
    from bilens.api.audit_model import audit
    from bilens.base.errors import BilensError, UsageError
    from bilens.base.files import check_path
    from bilens.io.any_model import open_pair
    from bilens.io.loaded_model import ReadOptions

    reading = {*vars(ReadOptions())} - {"base", "wanted"}
    how = {name: options.pop(name) for name in reading & options.keys()}
    try:
        pair = [
            check_path(name, one) if isinstance(one, str) else one
            for name, one in (("model", model), ("baseline", baseline))
        ]
        if how and not any(isinstance(one, Path) for one in pair):
            raise UsageError(f"assert_audit: {', '.join(how)} is of a file, and no path is given.")
        opened, before = open_pair(pair[0], pair[1], ReadOptions(**how))
        report = audit(opened, baseline=before, data=data, fail_on=fail_on, **options)
    except BilensError as error:
        raise error.with_traceback(None) from None
    if report.passed is False:
        pytest.fail(describe_failure(report))
    return report


def describe_failure(report: AuditReport) -> str:
    """Return the sentences of all that failed in an audit, and how much of the model was read."""
    from bilens.records.base import displayable
    from bilens.report.sections.decision_page import looked_lines
    from bilens.report.sections.overview import condition_lines, finding_lines, mark
    from bilens.report.text import load_catalogue

    t, record = load_catalogue("en"), displayable(report.record)
    about = record.source.path or f"the {record.model.kind} in memory"
    if record.difference is not None:
        about += f", beside its baseline {record.difference.baseline.path or 'in memory'}"
    found = [*finding_lines(t, record), *condition_lines(t, record)]
    lines = [f"{mark(t, one.outcome)}: {one.sentence}" for one in found if one.outcome == "fail"]
    looked = [f"{term}: {' '.join(texts)}" for term, texts in looked_lines(t, record)]
    return "\n".join([f"the audit of {about} failed.", *lines, *looked])
