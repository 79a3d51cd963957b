"""The catalogues: the same keys and placeholders in every language, none missing, none unused.

Damage seen to fail: a key taken out of ja.json; a placeholder renamed; a key that nothing uses.
"""

import json
import re
import string
from importlib.resources import files
from typing import get_args

import pytest
from markupsafe import Markup
from msgspec import structs
from msgspec.structs import replace

import evidence_documents
import explorer_documents
import layer_audit_documents
import network_documents
import people_documents
import table_documents
import tiny
from attack_documents import make_attack
from bilens.api import RefusedError
from bilens.api.alignment import NOT_PAIRED, AlignedAxis, lacking
from bilens.api.classifier import explain_predictions
from bilens.base.errors import UsageError
from bilens.findings.difference import OTHER_STREAM
from bilens.findings.rules.registry import ADDED, REGISTRY
from bilens.findings.rules.rule import Rule
from bilens.io.formats.families import FAMILIES
from bilens.nn.module_layers import FOLDED
from bilens.records.class_readings import Explanations
from bilens.records.common import DataOrigin, FileInterval
from bilens.records.decomposition import LargeRow, SeenInputs
from bilens.records.view import field_at, records_in, views
from bilens.report import text as catalogue
from bilens.report.charts.curves import loss_figure
from bilens.report.evidence import evidence_files
from bilens.report.html import render_index
from bilens.report.plates import attribution_plate, eigenvector_plate
from bilens.report.reports import (
    AttackReport,
    AuditReport,
    CertificateReport,
    NetworkReport,
    TraceReport,
)
from bilens.report.sections.attack_page import effect_table
from bilens.report.sections.certificate_page import cut_table
from bilens.report.sections.classes import class_table
from bilens.report.sections.difference import DIRECTIONS, TENSORS, TRIAL, reason_text
from bilens.report.sections.inventory_section import inventory_tables
from bilens.report.sections.layers import LAYER_CHANGES, LAYERS
from bilens.report.sections.network_page import DISTANCES, PAIRS, SINGLE, TRIPLES
from bilens.report.sections.overview import data_source, place, shown_value, title_of
from bilens.report.sections.seen_inputs import SEEN
from bilens.report.sections.trace_attention import SCORES, WRITES
from bilens.report.sections.trace_page import contrast_table, ranked_table
from bilens.report.summary import render_summary
from bilens.report.terminal import (
    attack_tables,
    audit_table,
    inventory_parts,
    truncation_table,
    verdict_lines,
)
from bilens.report.terminal_readings import (
    attribution_tables,
    decomposition_lines,
    decomposition_table,
    explanation_tables,
    fit_lines,
    fit_table,
    network_tables,
    plan_lines,
    plan_table,
    trace_tables,
)
from bilens.report.text import LANGUAGES, Catalogue, load_catalogue
from bilens_explorer.compare_page import compare_page
from bilens_explorer.export import Exported, inside_told
from bilens_explorer.inside import Told
from bilens_explorer.pages import (
    DRAWN,
    MODEL_VIEWS,
    SCRIPTS,
    WORDS,
    circuits_page,
    failure_page,
    model_page,
    overview_page,
    view_page,
    words_of,
)
from bilens_explorer.report_pages import draw_report, mistakes_page
from certificate_documents import make_certificate
from decomposition_documents import FITS, LAYER, PLAN
from every_document import DOCUMENTS
from layer_audit_documents import INVENTORY
from report_documents import TRIGGER, make_document, page_of, variants
from trace_documents import make_trace, make_weights_only

CATALOGUES = {
    lang: json.loads(files("bilens.report").joinpath("strings", f"{lang}.json").read_text("utf-8"))
    for lang in LANGUAGES
}


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


TRANSLATED = re.compile(r"field\..*\.about")  # a description, which English has in the record


def test_both_languages_have_the_same_keys_in_the_same_order() -> None:
    japanese = [key for key in CATALOGUES["ja"] if not TRANSLATED.fullmatch(key)]
    assert list(CATALOGUES["en"]) == japanese


def fields_of_scripts() -> set[str]:
    """The fields whose headings the scripts of the explorer draw, as keys of the catalogue."""
    every = {f"field.{one.__name__}.{name}" for one in records_in(DRAWN) for name in views(one)}
    return every & {*CATALOGUES["en"]}


def test_what_headings_mean_is_said_in_both_languages() -> None:
    """In English by the description of the field; in Japanese by a translation of it."""
    cut = CertificateReport(make_certificate()).record.truncation
    trace = TraceReport(make_trace()).record
    made = class_table(()), cut_table(cut), effect_table(0), ranked_table(trace), contrast_table({})
    of_networks = (SINGLE, PAIRS, TRIPLES, DISTANCES)
    edges = (SCORES, WRITES, *(table for table, *_ in inventory_tables(INVENTORY)))
    tables = (LAYERS, SEEN, LAYER_CHANGES, TENSORS, DIRECTIONS, TRIAL, *edges, *made, *of_networks)
    keys = set()
    for lang in LANGUAGES:
        t = load_catalogue(lang)
        for table in tables:
            for column in table.columns:
                if column.where != "text":
                    # a heading of its own says it itself, and may be of more than one field
                    assert bool(column.meaning(t, table.kind)) != bool(column.heading), column.path
                if column.where != "text" and not column.heading:
                    owner, name = field_at(table.kind, column.path)
                    keys.add(f"field.{owner.__name__}.{name}.about")
        words = words_of(t)
        assert all(words[key] and words[f"{key}.about"] for key in fields_of_scripts())
    keys |= {f"{key}.about" for key in fields_of_scripts()}
    assert keys == {key for key in CATALOGUES["ja"] if TRANSLATED.fullmatch(key)}


def test_both_languages_fill_in_the_same_values() -> None:
    for key, sentence in CATALOGUES["en"].items():
        assert placeholders(sentence) == placeholders(CATALOGUES["ja"][key]), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_sentence_holds_markup(lang: str) -> None:
    assert not [key for key, text in CATALOGUES[lang].items() if set("<>&") & set(text)]


def test_what_a_layer_reads_is_said_in_both_languages() -> None:
    for about in {FOLDED, *(family.about_input for family in FAMILIES.values())}:
        assert CATALOGUES["en"][f"{WORDS}words.{about}"] == about


def test_japanese_sentences_use_japanese_punctuation_and_are_polite() -> None:
    for key, text in CATALOGUES["ja"].items():
        assert ": " not in text, key
        if text.endswith("。"):
            sentence = re.sub("（[^（）]*）。$", "。", text)
            assert sentence.endswith(("です。", "ます。", "せん。", "した。", "さい。")), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_percent_is_written_in_one_way_and_nothing_is_taken_from_a_signed_number(lang: str) -> None:
    """56.5%, as `percent` writes it; and never "0.2 − −0.16"."""
    apart = [key for key, text in CATALOGUES[lang].items() if re.search(r"\d [%％]|％", text)]
    assert apart == []
    doubled = [key for key, text in CATALOGUES[lang].items() if re.search(r"[−-] ?\{", text)]
    assert set(doubled) <= {f"{WORDS}play.too_far"}  # of a number that has no sign


def test_japanese_sentences_hold_no_english_ones() -> None:
    """Names, commands and quotations apart."""
    quoted = re.compile(r"`[^`]*`|“[^”]*”|「[^」]*」|\{[^}]*\}")
    english = re.compile(r"(?:\b[A-Za-z][a-z'’]+\b[ ,;:]+){3,}")
    told = {key: quoted.sub("", text) for key, text in CATALOGUES["ja"].items()}
    assert [key for key, text in told.items() if english.search(text)] == []


# Why layers are not compared, as the library says it.
WHYS = (
    "the model has no such layer",
    OTHER_STREAM,
    NOT_PAIRED,
    lacking("inputs", AlignedAxis((), (), (1, 2), alone=("age",), baseline_alone=("x0", "x1"))),
    lacking("outputs", AlignedAxis((), (), (0, 1), baseline_alone=("no",))),
    lacking("inputs", AlignedAxis((), (), (1, 2), reread=("age", "income"))),
    "their inputs are in other units, z of age",
    "their residual streams are turned: `bilens audit --baseline` turns them back",
    "plain relu 3 → 4 → 2 became gated silu 3 → 4 → 2",
    "R² = 0.512 is below 0.9",
    "the model gives logits, and the baseline numbers",
    "behind the last layer the model has softmax, and the baseline sigmoid",
    "behind the last layer the model has softmax, and the baseline nothing: take it off the model, "
    "so that both give logits",
)


def test_why_layers_are_not_compared_is_told_in_the_language_of_the_page() -> None:
    english, japanese = map(load_catalogue, LANGUAGES)
    for why in WHYS:
        told = reason_text(japanese, why)
        assert told != why
        assert not re.search(r"[a-z]+ [a-z]+ [a-z]+ [a-z]+", told), told
        assert reason_text(english, why) == why or why in (WHYS[0], WHYS[-1])
    assert reason_text(japanese, "of a later release") == "of a later release"


def explained_variants(record: Explanations) -> list[Explanations]:
    """Explanations with and without labels, of rows with names, and of a single number."""
    first, second, _ = record.explanations
    second = structs.replace(second, label=(second.predicted + 1) % 3)
    unlabelled = structs.replace(first, label=None)
    both = structs.replace(record, explanations=(first, second, unlabelled))
    named = tuple(str(index) for index in range(record.model.d_input))
    rows = structs.replace(both, model=structs.replace(record.model, input_names=named))
    flat = structs.replace(record.model, input_shape=(1, record.model.d_input))
    number = structs.replace(
        first,
        scores=first.scores[:1],
        classes=(structs.replace(first.classes[0], index=0),),
        attributions=tuple(
            structs.replace(one, output=0, rival=None) for one in first.attributions
        ),
        predicted=0,
        label=None,
        target=1.0,
    )
    single = structs.replace(flat, output_names=("y",), d_output=1)
    other = structs.replace(record, baseline="mean", model=single, explanations=(number,))
    zeros = structs.replace(rows, baseline="zeros")
    return [both, rows, zeros, structs.replace(both, model=flat), other]


def test_every_sentence_is_used_and_none_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All documents of `variants` together need the whole catalogue."""
    used: set[str] = set()

    class Recorder(Catalogue):
        def __call__(self, key: str, **values: object) -> str:
            used.add(key)
            return super().__call__(key, **values)

    recorder = Recorder("en", CATALOGUES["en"])
    for module in (
        "html",
        "plates",
        "terminal",
        "terminal_readings",
        "charts.curves",
        "markdown",
        "evidence",
        "summary",
    ):
        monkeypatch.setattr(f"bilens.report.{module}.load_catalogue", lambda _lang: recorder)
    monkeypatch.setattr("bilens.api.recorded_command.load_catalogue", lambda _lang: recorder)
    for module in ("pages", "report_pages", "compare_page", "export"):
        monkeypatch.setattr(f"bilens_explorer.{module}.load_catalogue", lambda _lang: recorder)
    for why in WHYS:
        reason_text(recorder, why)
    file = Exported(pages={("/", "en"): "<h1></h1>"})
    assert [*file.linked_pages({"en": Markup()})]
    for shows_rows in (True, False):
        inside_told("en", explorer_documents.OVERVIEW, shows_rows, 2)
    for answers in (explorer_documents.WRONG, explorer_documents.WRONG_NUMBERS):
        mistakes_page(answers, "en", "")
    for overview in (explorer_documents.OVERVIEW, explorer_documents.EMPTY):
        overview_page(overview, "en", "")
    for name in (
        "MODEL",
        "UNKNOWN",
        "FIRST",
        "SAME",
        "CALM",
        "UNREAD",
        "DAMAGED",
        "CODER",
        "REPLACED",
        "UNSEEN_PAGE",
        "LOST",
    ):
        model_page(getattr(explorer_documents, name), "en", "")
    for view in MODEL_VIEWS:
        view_page(explorer_documents.MODEL, "en", "", view)
        view_page(explorer_documents.UNKNOWN, "en", "", view)
    model_page(structs.replace(explorer_documents.MODEL, unread=True), "en", "")
    row = explorer_documents.MODEL.model
    last = structs.replace(row.last, files=(("model.safetensors", "0" * 64),))
    known = structs.replace(row, state="unread", last=last)
    rows = (structs.replace(last, unread=True),)
    model_page(structs.replace(explorer_documents.MODEL, model=known, audits=rows), "en", "")
    for run in explorer_documents.RUNS:
        model_page(structs.replace(explorer_documents.MODEL, run=run), "en", "")
    RefusedError("none")  # which a page says in other words
    circuits_page(explorer_documents.TRACE_PAGE, "en", "")
    draw_report(explorer_documents.EARLIER_AUDIT, "en", "")
    for status in (404, 405, "fault"):
        recorder(f"explorer.told.{status}")
    for status in (400, 404, 500, 503):
        failure_page(status, "why", "en")
    for compared in ("COMPARED", "WEIGHTS"):
        compare_page(getattr(explorer_documents, compared), "en", "")
    monkeypatch.setattr("bilens.report.markdown.MOST_LAYERS", 1)
    monkeypatch.setattr("bilens.report.sections.classes.MOST_CARDS", 20)
    compared = {**make_document(), "difference": layer_audit_documents.drawn_difference(36)}
    for document in (make_document(), next(iter(layer_audit_documents.variants().values()))):
        page_of(people_documents.spoken(document))
    page_of(people_documents.accepted(make_document()))
    monkeypatch.setattr("bilens.report.summary.MOST_JUDGED", 1)
    for document in (make_document(), people_documents.spoken(make_document())):
        render_summary(AuditReport(document).record, "name")
    for report in map(AuditReport, variants().values()):
        audit_table(report.record)
        verdict_lines(report.record)
        eigenvector_plate(report.record)
    for document in [*DOCUMENTS.values(), compared]:
        page_of(document)
    for documents in (layer_audit_documents, table_documents):
        for report in map(AuditReport, documents.variants().values()):
            report.to_markdown()
            audit_table(report.record)
    for report in evidence_documents.reports().values():
        evidence_files(report.record, "en")
    render_index(evidence_documents.INDEX)
    for found in (INVENTORY, replace(INVENTORY, sha256="")):
        assert [*inventory_parts(found)]
    explained = explain_predictions(tiny.loaded(tiny.trained()), tiny.images(), [0, 1, 2])
    attribution_plate(explained)
    for record in explained_variants(explained):
        assert all(table.columns for table in explanation_tables(record))
        assert all(table.columns for table in attribution_tables(record))
    for document in (make_trace(), make_weights_only()):
        assert [*trace_tables(TraceReport(document).record)]
    for document in network_documents.variants().values():
        report = NetworkReport(document)
        assert [report.to_markdown(), *network_tables(report.record)]
    assert [*attack_tables(AttackReport(make_attack()).record)]
    truncation_table(CertificateReport(make_certificate()).record)
    lone, many = replace(LAYER, spectrum="top"), replace(LAYER, outputs=51 * LAYER.outputs)
    for record in (LAYER, lone, many, replace(LAYER, null_samples=0)):
        for basis in ("input", "embedding", "whitened"):
            assert decomposition_table(replace(record, basis=basis)).columns
    assert decomposition_lines(LAYER)
    assert [plan_table([PLAN]), *plan_lines([PLAN])]
    (fit,) = FITS.fits
    seen = SeenInputs(9, (1, 2), (3, 4), 5.0, 1, (LargeRow(9.0, 0, 1, "a"),))
    usable = replace(fit, usable=True, seen=seen, gated=True)
    whole = replace(fit, activation=None, over_files=FileInterval(2, -0.5, 0.75))
    fit = replace(fit, over_files=FileInterval(1, None, None))
    fits = replace(FITS, fits=(fit, usable, whole), num_rows=None)
    assert [fit_table(fits), *fit_lines(fits)]
    loss_figure([(1, 2.0, 3.0)])
    for kind in ("embedded", "data-dir", "cache", "download", "tensors", "new"):
        data_source(recorder, DataOrigin("", "read from the folder data", kind, 9, ""))
    sources = [key for key in CATALOGUES["en"] if key.startswith("source.")]
    assert "as it runs" in shown_value(recorder, "source", " and ".join(key[7:] for key in sources))
    model = AuditReport(make_document(shape=(9, 9))).record.model
    for index in range(81):
        place(recorder, model, [float(each == index) for each in range(81)], brief=index > 0)
    place(recorder, model, [1.0] * 81, brief=False)
    used |= {key for key in CATALOGUES["en"] if key.startswith(WORDS)}  # sent whole, see below
    used |= {f"explorer.told.{key}" for key in get_args(Told)}
    used |= {key for key in CATALOGUES["en"] if key.startswith("explorer.unfit.")}
    unused = set(CATALOGUES["en"]) - used
    assert sorted(key for key in unused if not key.endswith((".risk", ".next", ".title"))) == []


def test_the_script_says_what_the_catalogue_holds_and_no_less() -> None:
    static = files("bilens_explorer") / "static"
    code = "".join((static / name).read_text("utf-8") for name in SCRIPTS)
    # t("key") and t(`prefix.${kind}`)
    used = {key for key in re.findall(r"\bt\(\s*\"([\w.]+)\"", code) if key[:6] != "field."}
    prefixes = tuple(re.findall(r"\bt\(\s*`([\w.]+\.)\$\{", code))
    there = {key.removeprefix(WORDS) for key in CATALOGUES["en"] if key.startswith(WORDS)}
    assert sorted(used - there) == []
    used |= {key for key in there if f'"{key}"' in code}  # t(all ? "causal.all" : "causal.some")
    assert sorted(key for key in there - used if not key.startswith(prefixes)) == []
    calls = re.findall(r"\bfields\(\"(\w+)\", ([^)]*)\)", code)  # fields("CausalCheck", "kind", …)
    quoted = {(record, name) for record, names in calls for name in re.findall(r'"(\w+)"', names)}
    drawn = {f"field.{record}.{name}" for record, name in quoted}
    assert drawn <= fields_of_scripts()
    in_reports = tuple(
        f"field.{one}." for one in ("RankedLatent", "LatentContrast", "ScoreEdge", "WriteEdge")
    )
    rest = {key for key in fields_of_scripts() - drawn if not key.startswith(in_reports)}
    assert all(key.startswith("field.LayerRow.") for key in rest)
    assert all(f'"{key.split(".")[2]}"' in code for key in rest)


@pytest.mark.parametrize("rule", [*REGISTRY, *ADDED], ids=lambda rule: rule.sentences or rule.id)
def test_every_rule_says_its_risk_and_what_to_do_next(rule: Rule) -> None:
    for ending in ("risk", "next"):
        sentence = CATALOGUES["en"][f"rule.{rule.sentences or rule.id}.{ending}"]
        assert placeholders(sentence) <= set(rule.values)


@pytest.mark.parametrize(("p_value", "ending"), [(0.4, "info"), (1e-5, "warn_over")])
def test_a_pattern_all_over_the_image_has_its_sentence(p_value: float, ending: str) -> None:
    rule = next(one for one in REGISTRY if one.id == "trigger")
    key = rule.sentence_key(ending[:4], TRIGGER | {"p_value": p_value, "rows": 0})
    assert key == f"rule.trigger.{ending}"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_rule_has_a_title_of_its_own(lang: str) -> None:
    titles = [title_of(load_catalogue(lang), rule) for rule in {rule.id for rule in REGISTRY}]
    assert len({*titles}) == len(titles)
    assert not {*titles} & {rule.id for rule in REGISTRY}


def test_one_is_never_many() -> None:
    """A noun that has a singular somewhere has it behind every number."""
    t, every = load_catalogue("en"), " ".join(CATALOGUES["en"].values())
    said = [t("rule.duplicate_units.risk", value=value) for value in ("1", "2", "1,001")]
    assert [text.split(":")[0] for text in said] == [
        "1 pair of hidden units computes the same",
        "2 pairs of hidden units compute the same",
        "1,001 pairs of hidden units compute the same",
    ]
    words = "|".join({*re.findall(r"\{\w+:[a-z]+\|([a-z]+s)\}", every)})
    bare = re.compile(rf"\{{\w+\}}(?: (?!from|of|and)[a-z]+)? (?:{words})\b")
    assert re.search(bare, "{n} hidden layers")
    chosen = re.compile(r"\{\w+:(?:[^{}]|\{\w+\})*\}")
    rest = {key: chosen.sub("", text) for key, text in CATALOGUES["en"].items()}
    assert [key for key, text in rest.items() if bare.search(text)] == []


def test_numerals_and_terms_are_the_same_on_all_japanese_pages() -> None:
    """2次, 2乗, 1つ and 〜, and the words that readers understood."""
    other = re.compile(
        "一つ|二つ|二次|二乗|～|頑健な|ナット毎|偶然の水準|を支持|を否定|訓練|注意機構|余弦|分かり|分かる"
    )
    assert [key for key, text in CATALOGUES["ja"].items() if other.search(text)] == []


def test_passed_never_stands_alone() -> None:
    """It would be read as "the model is fine": what passed is named."""
    for lang, word in (("en", "passed"), ("ja", "合格")):
        alone = [key for key, text in CATALOGUES[lang].items() if text.lower().strip("。") == word]
        assert alone == []


def test_values_are_never_read_as_patterns() -> None:
    text = load_catalogue("en")("classes.class", name="{name.__class__} {0} {}")
    assert text == "Class {name.__class__} {0} {}"


@pytest.mark.parametrize("lang", ["de", "", "EN", "../en", "en.json"])
def test_another_language_is_refused_with_those_that_there_are(lang: str) -> None:
    with pytest.raises(UsageError, match="choose one of en, ja"):
        catalogue.load_catalogue(lang)
    with pytest.raises(UsageError, match="choose one of en, ja"):
        page_of(make_document(data=False), lang)


@pytest.mark.parametrize(
    ("items", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")],
)
def test_a_list_is_one_text(items: list[str], expected: str) -> None:
    assert load_catalogue("en").listing(items) == expected
