"""The explorer's pages: records → markup; they are read without script, which sorts and sends."""

import shlex
from collections.abc import Iterator, Sequence
from importlib.resources import files

from markupsafe import Markup

from bilens.records import LOST, PastAudit, displayable, records_in
from bilens.report import (
    DIVERGING,
    NONE,
    Catalogue,
    Column,
    FieldColumn,
    element,
    environment,
    grouped,
    headline_sentence,
    joined,
    load_catalogue,
    page_link,
    paragraph,
    quiet,
    section,
    table,
    title_of,
)
from bilens_explorer.audit_runs import RUNNING
from bilens_explorer.home import home, report_list
from bilens_explorer.people import everything, findings
from bilens_explorer.records.layer_spectra import LayerTable
from bilens_explorer.records.models import AuditRun, ModelPage, Overview, TracePage
from bilens_explorer.standing import decision, decision_box, paper, progress

NAMES = (("en", "English"), ("ja", "日本語"))
MODULES = (  # of the script, users last
    "lib watch charts home people audit_again outputs vectors gestures interactions spectra "
    "quadratic board nearest_change table_columns played image_play table_play "
    "playground passages graph circuits compare page"
)
SCRIPTS = tuple(f"{name}.js" for name in MODULES.split())
STYLES = ("explorer.css", "playground.css", "circuits.css", "spectra.css", "home.css")
REPORT_STYLES = ("base.css", "parts.css", "layers.css")
# each has an address below its model's, drawn by a script
MODEL_VIEWS = ("spectra", "playground")
STATIC = {  # name of each file → where it lies
    **{name: files("bilens_explorer") / "static" / name for name in (*SCRIPTS, *STYLES)},
    **{name: files("bilens.report") / "templates" / name for name in REPORT_STYLES},
}
PALETTE = [f"#{bytes(colour).hex()}" for colour in DIVERGING]
WORDS = "explorer.script."  # keys of what the script says
DRAWN = LayerTable | TracePage  # documents of whose records it draws tables


def overview_page(found: Overview, lang: str, secret: str, *, every: bool = False) -> str:
    """Return the page of a folder: a row a model, the worst first, and other reports."""
    t = load_catalogue(lang)
    told = watch(t, found.digest, writable=found.writable)
    return framed(t, displayable(found.folder), secret, told, home(t, found, every=every))


def model_page(found: ModelPage, lang: str, secret: str) -> str:
    """Return the page of a model: its audits, and what people said of it."""
    t, found = load_catalogue(lang), displayable(found)
    told = watch(t, found.digest, found.model.id, writable=found.writable)
    now = element("div", state(t, found), data_fresh="state")
    went = progress(t, found) if found.model.answered else Markup()
    again = audit_again(t, found)
    parts = (told, tabs(t, found, "model"), now, again, findings(t, found), went)
    listed = (audits(t, found), report_list(t, found.reports), everything(t, found))
    return framed(t, found.model.name, secret, *parts, *listed)


def view_page(found: ModelPage, lang: str, secret: str, view: str) -> str:
    """Return the page of one view of a model, which a script fills."""
    t, found = load_catalogue(lang), displayable(found)
    told = watch(t, found.digest, found.model.id)
    links, said = [page_link(t, f"/reports/{one.id}", one.name) for one in found.reports], "reports"
    if found.audits:
        links = [audit_link(t, found.audits[0], found.model.name)]
        # documents of layers and tables have no spectra
        said = "spectra" if view == "spectra" and found.audits[0].kind == "classes" else said
    instead = no_script(t, said if links else "none", links)
    parts = (told, tabs(t, found, view), scripted(t, view, found.model.id, instead))
    return framed(t, found.model.name, secret, *parts)


def watch(t: Catalogue, digest: str, key: str = "", *, writable: bool = True) -> Markup:
    """Return where a script says that the folder has changed, and what cannot be done there."""
    told = element("p", data_view="watch", data_key=key, data_digest=digest, role="status")
    return told if writable else joined(told, quiet(t("explorer.read_only")))


def circuits_page(found: TracePage, lang: str, secret: str) -> str:
    """Return the page of a trace, which a script fills."""
    t, found = load_catalogue(lang), displayable(found)
    report = f"/reports/{found.report}"
    links = [page_link(t, report, t("explorer.whole_report"))]
    instead = no_script(t, "reports", [page_link(t, report, found.name)])
    if found.model is not None:
        links.append(page_link(t, f"/models/{found.model}", t("explorer.to_model")))
    nav = element("nav", *links, class_="tabs", aria_label=t("explorer.views"))
    left = paragraph(paper(t, found.paper), class_="callout")
    return framed(t, found.name, secret, nav, left, scripted(t, "circuits", found.report, instead))


def scripted(t: Catalogue, view: str, key: str, instead: Markup) -> Markup:
    heading = element("h2", t(f"explorer.view.{view}"))
    return element("section", heading, instead, data_view=view, data_key=key, class_=view)


def no_script(t: Catalogue, said: str = "", links: Sequence[Markup] = ()) -> Markup:
    """Return the text for browsers without scripts: one is needed, and where else to read."""
    parts = [element("p", t("explorer.no_script"))]
    if said:
        listed = Markup(t("list.comma")).join(links)  # noqa: S704 - of this package
        parts.append(element("p", t(f"explorer.no_script.{said}"), " ", listed))
    return element("noscript", *parts)


def audit_link(t: Catalogue, audit: PastAudit, model: str) -> Markup:
    name = t("explorer.audit_of", number=audit.number, model=model)
    return page_link(t, f"/audits/{audit.number}", name)


def tabs(t: Catalogue, found: ModelPage, here: str) -> Markup:
    """Return links to the views of a model; `here` is where the reader is."""
    if not found.views:
        return Markup()
    links = []
    for view in ("model", *found.views):
        path = f"/models/{found.model.id}{'' if view == 'model' else f'/{view}'}"
        current = "page" if view == here else None
        links.append(page_link(t, path, t(f"explorer.view.{view}"), aria_current=current))
    return element("nav", *links, class_="tabs", aria_label=t("explorer.views"))


def failure_page(status: int, told: str, lang: str, spoken: str = "en") -> str:
    """Return why there is no page, with a sentence of its own, which is `spoken` in a language."""
    t = load_catalogue(lang)
    key = f"{WORDS}failed.{status}"
    said = quoting(t, key if t.has(key) else f"{WORDS}failed.other", spoken, told=displayable(told))
    back = page_link(t, "/", t("explorer.back"))
    return framed(t, t("explorer.failed_page"), "", said, element("p", back))


def quoting(t: Catalogue, key: str, spoken: str = "en", **quoted: str) -> Markup:
    """Return a sentence as a paragraph with what bilens itself says in it, mostly in English."""
    ((name, text),) = quoted.items()
    before, _, after = t(key, **{name: "\0"}).partition("\0")
    return element("p", before, element("span", text, lang=spoken), after)


def framed(t: Catalogue, title: str, secret: str, *parts: Markup) -> str:
    template = environment("bilens_explorer").get_template("explorer.html.j2")
    return template.render(
        t=t,
        title=title,
        parts=parts,
        languages=NAMES,
        styles=(*REPORT_STYLES, *STYLES),
        given={"secret": secret, "words": words_of(t), "palette": PALETTE},
    )


def words_of(t: Catalogue) -> dict[str, str]:
    """Return by key the sentences of the script, the headings of fields, and what these mean."""
    known = (key for key in t.sentences if key.startswith(WORDS))
    words = {key.removeprefix(WORDS): t.sentences[key] for key in known}
    for kind in records_in(DRAWN):
        for name in kind.__struct_fields__:
            if t.has(key := f"field.{kind.__name__}.{name}"):
                words |= {key: t(key), f"{key}.about": FieldColumn(name).meaning(t, kind)}
    return words


def state(t: Catalogue, found: ModelPage) -> Markup:
    row = found.model
    if row.state == "never" and not found.views:
        return element("p", t("explorer.autoencoder"))
    how = how_to_audit(t, found) if row.there and LOST not in row.name else Markup()
    moved = Markup()
    if found.before:
        link = page_link(t, f"/models/{found.before}", t("explorer.before"))
        compared = f"/compare?a={found.before}&b={row.id}&lang={t.lang}"
        moved = element("p", link, " ", element("a", t("explorer.what_changed"), href=compared))
        if found.since is not None:
            moved = joined(paragraph(headline_sentence(t, found.since)), moved)
    return joined(decision_box(t, row), moved, how)


def how_to_audit(t: Catalogue, found: ModelPage) -> Markup:
    """Return the command that audits a model in the folder: as before, where that is known."""
    key, command, row = "again", found.again, found.model
    if not command and row.last is not None:
        key, command = "recorded", row.last.command
    if not command:
        end = ["--"] if row.name.startswith("-") else []
        key, command = "how", shlex.join(["bilens", "audit", "--history", ".", *end, row.name])
    return joined(quiet(t(f"explorer.{key}")), element("pre", element("code", command)))


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
        "div", *run_lines(t, run), class_="run", data_live="" if run.state == RUNNING else None
    )
    shown_audit = 0 if found.model.last is None else found.model.last.number
    looked = {"data_view": "auditAgain", "data_key": found.model.id, "data_shown": str(shown_audit)}
    return element("div", said, shown, **looked)


def run_lines(t: Catalogue, run: AuditRun) -> Iterator[Markup]:
    """Yield how a run is, how far, why it came to nothing, its last words, and what can be done."""
    if run.state != "ready":
        report = []
        if run.report is not None:
            name = t("explorer.run.report")
            report = [" ", element("a", name, href=f"{run.report}?lang={t.lang}")]
        yield element("p", element("strong", state_of_run(t, run), class_="state"), *report)
    if run.state == RUNNING:
        steps = {"max": str(run.total), "value": str(run.done)} if run.total else {}
        told = t("explorer.run.steps", done=grouped(run.done), total=grouped(run.total))
        bar = element("progress", "", aria_label=t("explorer.run.progress"), **steps)
        yield element("p", bar, " ", told if steps else t("explorer.run.no_steps"))
    if run.why:
        yield element("p", t(f"explorer.why.{run.why}", about=run.about))
    if run.said:
        yield quiet(t("explorer.run.said"), " ", element("samp", run.said, lang="en"))
    action = "cancel" if run.state == RUNNING else "start"
    # a script shows and hears it
    button = {"type": "button", "class_": "plain", "hidden": "", "data_action": action}
    yield element("p", element("button", t(f"explorer.run.{action}"), **button))


def state_of_run(t: Catalogue, run: AuditRun) -> str:
    """Return how a run is; of a command that failed by itself, with its exit code in words."""
    said = t(f"explorer.state.{run.state}")
    if run.state != "failed" or run.code is None or run.why:
        return said
    known = f"explorer.code.{run.code}"
    why = known if t.has(known) else f"explorer.code.{'signal' if run.code < 0 else 'other'}"
    return t("explorer.state.because", state=said, why=t(why, code=abs(run.code)))


def audits(t: Catalogue, found: ModelPage) -> Markup:
    """Return all audits of a model; of what lies there now one alone may have a badge."""
    rows = []
    for one in found.audits:
        number = page_link(t, f"/audits/{one.number}", grouped(one.number))
        time = element("time", one.date[:16].replace("T", " "), datetime=one.date)
        failed = t("list.comma").join(title_of(t, rule) for rule in one.failed)
        weights = element("code", one.weights_sha256[:12] or NONE)
        words, none = f"decision.{one.answer}", t("explorer.none")
        words, none = ("explorer.row_unread", NONE) if one.unread else (words, none)
        said = decision(t, one.answer) if one == found.model.answered else t(words)
        rows.append((number, time, said, failed or none, one.version, weights))
    heads = ("number", "last", "decision", "failed", "version", "weights")
    columns = [Column(name, numeric=False) for name in t.each("explorer", heads)]
    if not rows:
        return Markup()
    return section(t, "explorer.audits", table(t, t("explorer.audits_caption"), columns, rows))
