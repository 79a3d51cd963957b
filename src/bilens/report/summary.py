"""One A4 page of an audit for a meeting: decision, three sentences, two plots, who accepted what.

It says nothing that the report does not, in the report's own sentences.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import islice

from bilens.findings.rules.decision import decision_of
from bilens.records.audit import Audit
from bilens.records.base import displayable
from bilens.report.charts.spectrum_charts import change_map
from bilens.report.html import environment
from bilens.report.markup import Content, badge, element
from bilens.report.plates import eigenvector_plate
from bilens.report.sections.classes import class_spectrum, truncation_figure
from bilens.report.sections.decision_page import (
    LOOKS,
    answer_text,
    answer_word,
    because,
    looked_lines,
    more_risks,
    risk_lines,
)
from bilens.report.sections.layers import layer_charts
from bilens.report.sections.overview import clean_names, data_used, run_facts
from bilens.report.sections.people import judged_lines
from bilens.report.sections.table_page import output_charts
from bilens.report.text import NONE, Catalogue, load_catalogue

SENTENCES, PLOTS = 3, 2
MOST_JUDGED = 5  # of the findings that were accepted or rejected


def render_summary(
    original: Audit,
    name: str,
    lang: str = "en",
    standing: Sequence[Content] = (),
    *,
    stands: bool = True,
) -> str:
    """Return the page of an audit; `name` is what its model is called where it is read.

    `standing` are lines on what lies there now and who approved it, below the decision; where that
    is not what was audited, the audit `stands` no more, and they are all that is said.
    """
    t, record = load_catalogue(lang), displayable(original)
    answer = decision_of(record).answer
    judged = judged_lines(t, record)
    more = len(judged) - MOST_JUDGED
    # what matters most first: risks with what to do, why it is no better, what was seen
    risks = [f"{risk} {t('decision.next', text=then)}" for risk, then in risk_lines(t, record)]
    sentences = [*(risks or [t("decision.no_risk")]), *because(t, record), *more_risks(t, record)]
    looked = [*looked_lines(t, record)]
    run, found = record.reproduce, run_facts(record, original)
    facts = [
        (t("reproduce.date"), run.date or NONE),
        (t("summary.version"), run.versions.get("bilens", NONE)),
        (t("facts.data"), data_used(t, record.data)),
        (t("reproduce.weights"), found.get("weights", NONE)),
        (t("reproduce.document"), found["document"]),
    ]
    told = [*judged[:MOST_JUDGED], *([t("summary.more", count=more)] if more > 0 else [])]
    return (
        environment()
        .get_template("summary.html.j2")
        .render(
            t=t,
            name=displayable(name),
            stands=stands,
            answer=badge(t, LOOKS.get(answer, "unknown"), answer_word(t, record)),
            text=answer_text(t, record),
            standing=standing,
            sentences=(sentences + [line for _, lines in looked for line in lines])[:SENTENCES],
            plots=[*islice(plots(t, record), PLOTS)],
            judged=told or [t("summary.nobody")],
            accepted_by=looked[-1],
            facts=facts,
        )
    )


def plots(t: Catalogue, record: Audit) -> Iterator[tuple[str, Content]]:
    """Yield captions and drawings of what an audit has, the most telling first."""
    if (layers := record.layers) is not None:
        yield from layer_charts(t, layers.readings) if layers.readings else ()
        whole = None if record.difference is None else record.difference.whole
        if whole is not None and whole.changed:
            yield t("difference.map"), change_map(t, whole.changed)
    if (classes := record.classes) is not None:
        if classes.truncation:
            yield t("truncation.heading"), truncation_figure(t, record, classes)
        else:
            first, name = classes.readings[0], clean_names(record.model.output_names)[0]
            yield t("spectrum.title", name=name), class_spectrum(t, first, name)
        drawn = base64.b64encode(eigenvector_plate(record, t.lang).encode()).decode("ascii")
        source = f"data:image/svg+xml;base64,{drawn}"
        yield "", element("img", src=source, alt=t("plate.title"))  # which it bears itself
    if (columns := record.columns) is not None:
        for item in columns.outputs:
            yield from output_charts(t, record, columns, item)
