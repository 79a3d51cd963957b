"""The page of a conversion says the numbers of its record, and tells domains and units apart.

Damage seen to fail: half an interval without 1.96; a measured domain called as one learnt from.
"""

import pytest

from bilens.base.errors import UsageError
from bilens.report.reports import ConversionReport
from conversion_documents import make_conversion, make_rows
from report_documents import changed


def test_the_bill_comes_first_in_plain_words_and_then_the_gain() -> None:
    page = ConversionReport(make_conversion()).to_html()
    body = page[page.index("<main>") :]
    bill = body.index(
        "guesses 48.4% of the next tokens right, its teacher 50.0% (−1.60 ± 0.78 percentage points)"
    )
    assert bill < body.index("perplexity 7.39 → 7.87") < body.index("measured only")
    assert body.index("measured only") < body.index("250 parameters, 25.0% of the model")
    assert body.index("25.0% of the model") < body.index("layers fitted and trained")


def test_stages_layers_and_spectra_show_their_numbers() -> None:
    page = ConversionReport(make_conversion()).to_html()
    for text in ("+0.250 ± 0.020", "+0.062 ± 0.020", "+0.0625 ± 0.0196", "−0.0010 ± 0.0020"):
        assert text in page
    assert "5%): 2 of the 3 listed eigenvalues" in page
    for title in ("Loss added while", "R² of each layer", "Loss added by each"):
        assert f"<title>{title}" in page
    without = ConversionReport(make_conversion(curve=())).to_html()
    assert "<title>Loss added while" not in without


def test_what_was_lost_is_shown_where_it_was_lost() -> None:
    page = ConversionReport(make_conversion()).to_html()
    assert "the next token is “ cake”</th>" in page
    assert "+0.500 ± 0.245" in page
    assert 'class="s8 peak" title="2.0">' in page  # the largest KL in its context
    written = ("The cake was", "not good", ". Anna", "glad Anna")  # and both go on alike until then
    assert all(f"<dd>{text}</dd>" in page for text in written)


def test_other_networks_have_rows_and_units_of_their_own() -> None:
    page = ConversionReport(make_rows("nats per row")).to_html()
    assert "gets 48.4% of the rows right, its teacher 50.0%" in page
    assert "perplexity" not in page
    page = ConversionReport(make_rows("squared error")).to_html()
    assert "mean squared error by +0.125 ± 0.020" in page


def test_a_record_that_lacks_a_number_is_refused_by_its_name() -> None:
    document = changed(make_conversion(), "domains.0.error", None)
    with pytest.raises(UsageError, match=r"domains\[0\].error: a number was expected"):
        ConversionReport(document)
