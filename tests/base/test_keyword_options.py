"""Guards against keywords that a function takes and its record does not, or the other way round.

Damage seen red: `replace` left out beside a record, and `own_first` with inherited fields first.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pytest

import bilens as bl
from bilens.base.errors import UsageError
from bilens.base.keyword_options import described, takes_options
from bilens.base.option_rules import option

RECORDS: list[tuple[Callable[..., Any], type]] = [
    (bl.trace, bl.TraceOptions),
    (bl.audit, bl.AuditOptions),
    (bl.certify_model, bl.CertifyOptions),
    (bl.attack_model, bl.AttackOptions),
    (bl.convert_network, bl.ConvertNetworkOptions),
    (bl.train_image, bl.TrainImageOptions),
    (bl.train_language, bl.TrainLanguageOptions),
    (bl.train_sae, bl.TrainSAEOptions),
    (bl.quadratic_fit, bl.QuadraticFitOptions),
    (bl.cp_decompose, bl.CPOptions),
    (bl.direct_interactions, bl.InteractionOptions),
    (bl.eigendecompose_all, bl.EigenOptions),
]


@dataclass(frozen=True, kw_only=True)
class Shared:
    say: str = described("", "Said beside it.")


@dataclass(frozen=True)
class Options(Shared):
    data: str | None = described(None, "What is read.")
    _: KW_ONLY
    top: int = option(3, "How many are listed.")


@takes_options(Options)
def list_things(model: str, options: Options) -> tuple[str, Options]:
    """List things.

    Args:
        model: what has them.
        options: an `Options`, or its fields:

    Returns: the model, and the options.
    """
    return model, options


def test_a_record_and_its_fields_are_the_same() -> None:
    expected = "m", Options("d", top=5)
    assert list_things("m", "d", top=5) == expected
    assert list_things("m", data="d", top=5) == expected
    assert list_things("m", Options("d", top=5)) == expected
    assert list_things("m", options=Options("d", top=5)) == expected  # type: ignore[call-overload]
    assert list_things("m", Options("d"), top=5) == expected
    assert list_things(model="m", data="d", top=5) == expected  # type: ignore[call-overload]
    assert list_things("m") == ("m", Options())


def test_the_signature_and_the_help_show_every_field() -> None:
    names = ["model", "data", "top", "say", "options"]
    assert [*inspect.signature(list_things).parameters] == names
    text = inspect.getdoc(list_things) or ""
    assert "    top: How many are listed.\n    say: Said beside it.\n\nReturns:" in text


def test_an_unknown_keyword_is_refused_with_near_names() -> None:
    with pytest.raises(UsageError, match="no option 'tops': use one of top, ") as refused:
        list_things("m", tops=4)  # type: ignore[call-overload]
    assert isinstance(refused.value, TypeError)


def test_a_missing_argument_and_one_too_many_are_type_errors() -> None:
    for arguments in ((), ("m", "d", "e")):
        with pytest.raises(TypeError):
            list_things(*arguments)  # type: ignore[call-overload]


@pytest.mark.parametrize(("function", "record"), RECORDS, ids=lambda one: one.__name__)
def test_every_field_is_a_keyword_with_its_default_and_a_meaning(
    function: Callable[..., Any], record: type
) -> None:
    found, text = inspect.signature(function).parameters, inspect.getdoc(function) or ""
    for field in dataclasses.fields(record):
        assert found[field.name].default is field.default or field.default is dataclasses.MISSING
        meant = f"\n    {field.name}: " in text
        assert meant or field.metadata == {}  # a field of a recipe that no command has


@pytest.mark.parametrize(
    "given",
    [
        ((Options("d"), Options(top=5)), {}),
        ((Options("d"),), {"options": Options(top=5)}),
        ((), {"options": {"top": 5}}),
        ((), {"options": "d"}),
    ],
)
def test_two_records_or_another_thing_are_refused(given: Any) -> None:
    """Seen: of two records the second was dropped, and an audit passed its condition."""
    places, keywords = given
    with pytest.raises(UsageError, match="expected one Options"):
        list_things("m", *places, **keywords)
