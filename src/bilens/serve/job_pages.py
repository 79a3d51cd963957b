"""The queue on pages and as JSON: what can be started of a model, what runs, and how it ended."""

import shlex
from collections.abc import Iterator
from typing import get_args

from markupsafe import Markup

from bilens.records.base import Record, displayable
from bilens.records.jobs import OPTIONS, Command, DataSet, Job, JobList, JobPage, ModelJobs, NewJob
from bilens.report.markup import Column, element, joined, quiet, section, table
from bilens.report.text import Catalogue, load_catalogue, whole
from bilens.serve.endpoint import Asked, Endpoint
from bilens.serve.folder import ServedFolder
from bilens.serve.inside import there
from bilens.serve.jobs import ENDED, LIVE
from bilens.serve.pages import framed, no_script, tabs


class Nothing(Record, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


def jobs_page(found: JobList, lang: str, secret: str) -> str:
    t = load_catalogue(lang)
    return framed(t, t("explorer.jobs.heading"), secret, live(queue(t, found.jobs)))


def model_jobs_page(found: ModelJobs, lang: str, secret: str) -> str:
    """Return the page of a model on which jobs are started."""
    t, found = load_catalogue(lang), displayable(found)
    refused = {one.command for one in found.not_offered}
    forms = [form(t, command, found) for command in OPTIONS if command not in refused]
    for one in found.not_offered:
        name = element("strong", t(f"explorer.command.{one.command}"))
        forms.append(quiet(name, " ", t(f"explorer.unfit.{one.why}", told=one.told)))
    start = section(t, "explorer.start", quiet(t("explorer.start.how")), no_script(t), *forms)
    title, here = found.page.model.name, tabs(t, found.page, "jobs")
    return framed(t, title, secret, here, start, live(queue(t, found.jobs)))


def job_page(found: JobPage, lang: str, secret: str) -> str:
    """Return the page of one job, with all that it wrote."""
    t, found = load_catalogue(lang), displayable(found)
    job, back = found.job, element("a", t("explorer.jobs.all"), href=f"/jobs?lang={lang}")
    command = element("pre", element("code", shlex.join(["bilens", *job.arguments])), tabindex=0)
    wrote = [
        joined(
            element("h2", t(f"explorer.jobs.{name}")),
            element("pre", "\n".join(lines), tabindex=0, lang="en", class_=name),
        )
        for name, lines in (("output", found.output), ("messages", found.messages))
        if lines
    ]
    title = t("explorer.jobs.one", number=whole(job.number))
    shown = joined(queue(t, (job,), title), command, element("div", *wrote, class_="wrote"))
    return framed(t, title, secret, live(shown), element("p", back))


def live(*parts: Markup) -> Markup:
    """Return what a script keeps as it is now, and says aloud when a job changes its state."""
    said = element("p", "", role="status", class_="said")
    return element("div", said, *parts, data_view="jobs")


def queue(t: Catalogue, jobs: tuple[Job, ...], caption: str = "") -> Markup:
    if not jobs:
        return element("p", t("explorer.jobs.none"), class_="queue")
    heads = t.each("explorer.jobs", ("number", "command", "model", "state", "told", "made"))
    columns = [Column(name, numeric=False) for name in heads]
    rows = (row(t, displayable(job)) for job in jobs)
    return table(t, caption or t("explorer.jobs.caption"), columns, rows, class_="queue")


def row(t: Catalogue, job: Job) -> tuple[Markup | str, ...]:
    number = whole(job.number)
    made = [result_link(t, job)] if job.state == "done" or job.report else []
    time = element("time", job.asked, datetime=job.asked, class_="quiet")
    if job.state not in ENDED:
        name = t("explorer.jobs.cancel_one", number=number)
        kind = {"type": "button", "class_": "plain", "data_cancel": number}
        made.append(element("button", t("explorer.jobs.cancel"), aria_label=name, **kind))
    return (
        element("a", number, href=f"/jobs/{number}?lang={t.lang}"),
        joined(t(f"explorer.command.{job.command}"), element("br"), time),
        job.model,
        state(t, job),
        joined(*course(t, job)),
        joined(*made),
    )


def course(t: Catalogue, job: Job) -> Iterator[Markup]:
    """Yield how far a job is, why it came to nothing, and last the command's own words."""
    if job.state in LIVE:
        steps = {"max": str(job.total), "value": str(job.done)} if job.total else {}
        told = t("explorer.jobs.steps", done=whole(job.done), total=whole(job.total))
        named = t("explorer.jobs.progress_of", number=whole(job.number))
        bar = element("progress", "", aria_label=named, **steps)
        yield element("p", bar, " ", told if steps else t("explorer.jobs.no_steps"))
    if job.why:
        yield element("p", t(f"explorer.why.{job.why}", about=job.about))
    if job.told:
        words = element("samp", job.told, lang="en")
        yield quiet(t("explorer.jobs.said"), " ", words)


def result_link(t: Catalogue, job: Job) -> Markup:
    """Return a link to the report, or to what was written where there is none."""
    number = whole(job.number)
    key, place = ("report", job.report) if job.report else ("output", f"/jobs/{number}")
    name = t(f"explorer.jobs.{key}_of", number=number)
    return element("a", t(f"explorer.jobs.{key}"), href=f"{place}?lang={t.lang}", aria_label=name)


def state(t: Catalogue, job: Job) -> str:
    """Return how a job is; of a command that failed by itself, with its exit code in words."""
    said = t(f"explorer.state.{job.state}")
    if job.state != "failed" or job.code is None or job.why:
        return said
    known = f"explorer.code.{job.code}"
    why = known if t.has(known) else f"explorer.code.{'signal' if job.code < 0 else 'other'}"
    return t("explorer.state.because", state=said, why=t(why, code=abs(job.code)))


def form(t: Catalogue, command: Command, found: ModelJobs) -> Markup:
    """Return the form that starts a command; it is shut until it is wanted."""
    choices = found.choices
    data = choices.texts if command == "trace" else choices.data
    files = {"data": data, "input_sae": choices.saes, "output_sae": choices.saes}
    parts: list[Markup] = []
    for name in OPTIONS[command]:
        key = f"{command}-{name}"
        given = {"name": name, "id": key}
        text = t(f"explorer.option.{'text' if key == 'trace-data' else name}")
        parts.append(element("label", text, for_=key))
        if name in files:
            options = [element("option", t("explorer.option.no_file"), value="")]
            options += [element("option", one.name, value=one.id) for one in files[name]]
            parts.append(element("select", *options, **given))
        elif name == "dataset":
            known = (element("option", one, value=one) for one in ("", *get_args(DataSet)))
            parts.append(element("select", *known, **given))
        elif name == "fail_on":
            parts.append(element("textarea", "", rows=2, **given))
        else:
            needed = {"required": ""} if name in ("layer", "index") else {}
            parts.append(element("input", type="number", min=0, **needed, **given))
    parts.append(
        element("p", element("button", t("explorer.start.send")), " ", element("output", ""))
    )
    told = {"data_view": "start", "data_command": command, "data_key": found.page.model.id}
    named = t(f"explorer.command.{command}")
    inner = element("form", *parts, hidden="", aria_label=named)
    return element("details", element("summary", named), inner, **told)


def overview(served: ServedFolder, _asked: Asked) -> JobList:
    """The queue, and what has been run."""
    return served.jobs.overview()


def start(served: ServedFolder, asked: Asked) -> Job:
    """Start an audit, a certificate, a trace or an explanation."""
    return served.start(asked.body)


def one_job(served: ServedFolder, asked: Asked) -> JobPage:
    """One job, with what it wrote."""
    return there(served.jobs.page(asked.path["number"]))


def cancel(served: ServedFolder, asked: Asked) -> Job:
    """End a job; a second time, at once."""
    return there(served.jobs.cancel(asked.path["number"]))


def model_jobs(served: ServedFolder, asked: Asked) -> ModelJobs:
    """The jobs of a model, and what the folder has to start one with."""
    found = served.model(asked.path["key"])
    jobs = tuple(job for job in served.jobs.overview().jobs if job.model == found.model.name)
    refused = served.not_offered(found.model.id)
    return ModelJobs(page=found, jobs=jobs, choices=served.choices(), not_offered=refused)


ENDPOINTS = (
    Endpoint("/jobs", overview),
    Endpoint("/jobs", start, body=NewJob, adds=True),
    Endpoint("/jobs/{number}", one_job),
    Endpoint("/jobs/{number}/cancel", cancel, body=Nothing),
    Endpoint("/models/{key}/jobs", model_jobs),
)
