"""Audit a model again: the button on its page, how the audit goes, and the addresses for both."""

from collections.abc import Iterator

from markupsafe import Markup

from bilens.report.markup import element, quiet
from bilens.report.text import Catalogue, grouped
from bilens_explorer.audit_runs import LIVE
from bilens_explorer.endpoint import Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import AuditRun, ModelPage


def audit_again(t: Catalogue, found: ModelPage) -> Markup:
    """Return the button that runs the recorded command again, and how that goes.

    Where the explorer may not run it, the page says why; the line to copy stands above.
    """
    run = found.run
    if run is None or run.why == "none" or not found.writable:
        return Markup()
    if run.state == "refused":
        why = t(f"explorer.why.{run.why}", about=run.about)
        return quiet(t("explorer.run.refused", why=why))
    said = element("p", "", role="status", class_="unseen")
    shown = element(
        "div", *course(t, run), class_="run", data_live="" if run.state in LIVE else None
    )
    return element("div", said, shown, data_view="auditAgain", data_key=found.model.id)


def course(t: Catalogue, run: AuditRun) -> Iterator[Markup]:
    """Yield how a run is, how far, why it came to nothing, its last words, and what can be done."""
    if run.state != "ready":
        report = []
        if run.report is not None:
            name = t("explorer.run.report")
            report = [" ", element("a", name, href=f"{run.report}?lang={t.lang}")]
        yield element("p", element("strong", state(t, run), class_="state"), *report)
    if run.state in LIVE:
        steps = {"max": str(run.total), "value": str(run.done)} if run.total else {}
        told = t("explorer.run.steps", done=grouped(run.done), total=grouped(run.total))
        bar = element("progress", "", aria_label=t("explorer.run.progress"), **steps)
        yield element("p", bar, " ", told if steps else t("explorer.run.no_steps"))
    if run.why:
        yield element("p", t(f"explorer.why.{run.why}", about=run.about))
    if run.said:
        yield quiet(t("explorer.run.said"), " ", element("samp", run.said, lang="en"))
    action = "cancel" if run.state in LIVE else "start"
    # a script shows and hears it
    button = {"type": "button", "class_": "plain", "hidden": "", "data_action": action}
    yield element("p", element("button", t(f"explorer.run.{action}"), **button))


def state(t: Catalogue, run: AuditRun) -> str:
    """Return how a run is; of a command that failed by itself, with its exit code in words."""
    said = t(f"explorer.state.{run.state}")
    if run.state != "failed" or run.code is None or run.why:
        return said
    known = f"explorer.code.{run.code}"
    why = known if t.has(known) else f"explorer.code.{'signal' if run.code < 0 else 'other'}"
    return t("explorer.state.because", state=said, why=t(why, code=abs(run.code)))


ENDPOINTS = (
    Endpoint("/models/{key}/audit", ServedFolder.audit_run),
    Endpoint("/models/{key}/audit", ServedFolder.audit_again, adds=True),
    Endpoint("/models/{key}/audit/cancel", ServedFolder.cancel_audit),
)
